"""The run launcher for workers on several machines: it hands each run to a Celery worker, and notices when one dies.

``dagster.yaml`` names it, with the extra ``celery``; nothing else imports this module. It changes what the launcher of
dagster-celery does in five ways (0.29.27, November 2026):

- A run counts as launched when a worker has taken it. If none takes it in time, it goes back to the queue of Dagster.
- Terminate reports that the run is being canceled, so that Dagster does not retry it. The worker reads that from
  Dagster's storage, so Terminate needs no broker.
- A worker answers only for what it executes itself, by a name that is new at each start. Nothing is read from a result
  backend, so there is none.
- A run whose process or host died is reported as failed, and Dagster retries it in a run of its own.
- A task is for one attempt to launch a run. A worker takes it, or the launcher withdraws it, by a compare-and-swap in
  Dagster's storage. So a message that arrives late, or twice, executes nothing.

Here belongs what the daemon and the web server do. What does not belong here: what a worker does (``worker``,
``worker_runs``).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import dagster as dg

from binance_assets.model.outside import first_line
from binance_assets.orchestration.dagster_internals.runs import CheckRunHealthResult, RequeueRun, WorkerStatus
from binance_assets.orchestration.worker_runs import (
    WORKER_TAG,
    Claim,
    claim_of,
    new_task,
    offer,
    release,
    run_of,
    was_canceled,
    withdraw,
)
from binance_assets.settings import ConfigurationError

try:
    from dagster_celery.launcher import CeleryRunLauncher
    from dagster_celery.tags import DAGSTER_CELERY_QUEUE_TAG
    from kombu import Queue
    from kombu.exceptions import KombuError
except ModuleNotFoundError as error:
    # Dagster reports a ModuleNotFoundError as a module that it cannot import, and leaves out which and why.
    raise ConfigurationError(
        f"runs on workers need the extra celery ({error.name} is not installed): pip install 'binance-assets[celery]'"
    ) from None

_QUEUE: Final = "binance_assets"
_PICKUP_SECONDS: Final = 10
# A worker that lost its broker tries again after at most 30 seconds (kombu 5.7). It must not count as dead meanwhile.
_SILENCE_SECONDS: Final = 40
# How long a host may take to answer; only one that is silent makes the daemon wait for it.
_ANSWER_SECONDS: Final = 3.0
# A message that nobody took is void after `pickup_seconds`; this bounds how many of them wait. It is by the clocks of
# two hosts, so it is long.
_EXPIRES_SECONDS: Final = 600
_POLL_SECONDS: Final = 0.1
_CONNECT_SECONDS: Final = 5
_FORGET_SECONDS: Final = 3600

# What launcher and workers must agree on; `config_source` in dagster.yaml is applied before.
_CELERY: Final = {
    "task_ignore_result": True,
    "worker_max_tasks_per_child": 1,  # a run leaves nothing behind: no memory, no setting, no open file
    # A message is acknowledged when a process takes it. Later, Redis would deliver that of a run that takes longer than
    # an hour to a second worker.
    "task_acks_late": False,
    # A worker takes only what it can start at once; without it, it keeps as much again waiting (Redis, Celery 5.6).
    "worker_disable_prefetch": True,
    "worker_prefetch_multiplier": 1,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,  # a worker waits for its broker for as long as it takes
    "worker_cancel_long_running_tasks_on_connection_loss": False,
}
_TRANSPORT: Final = {"socket_connect_timeout": _CONNECT_SECONDS, "socket_timeout": 30, "socket_keepalive": True}


class WorkerLauncher(CeleryRunLauncher):  # type: ignore[misc]
    """Hands runs to Celery workers.

    Args:
        broker: The URL of the broker, such as ``redis://:PASSWORD@HOST:6379/0``.
        default_queue: The queue of runs without the tag ``dagster-celery/queue``.
        pickup_seconds: How long a launched run waits for a worker before it goes back to the queue of Dagster.
        silence_seconds: How long a worker may be silent before its runs are reported as failed.
        config_source: Further settings of Celery.
        inst_data: Where Dagster read this configuration.

    Raises:
        ConfigurationError: The broker is not named, or not by a URL that Celery can use.
    """

    def __init__(
        self,
        broker: str,
        default_queue: str = _QUEUE,
        pickup_seconds: int = _PICKUP_SECONDS,
        silence_seconds: int = _SILENCE_SECONDS,
        config_source: Mapping[str, Any] | None = None,
        inst_data: Any = None,
    ) -> None:
        if not broker.strip():
            raise ConfigurationError("the broker of the run launcher is empty; name it, as redis://HOST:6379/0")
        super().__init__(
            default_queue=default_queue, broker=broker, config_source=dict(config_source or {}), inst_data=inst_data
        )
        self.pickup_seconds = pickup_seconds
        self.silence_seconds = silence_seconds
        self.celery.conf.update(_CELERY)
        self.celery.conf.result_backend = None
        self.celery.conf.broker_transport_options = {**self.celery.conf.broker_transport_options, **_TRANSPORT}
        # `make_app` of dagster-celery names its own queue, whatever the default is.
        self.celery.conf.task_queues = [
            Queue(default_queue, routing_key=f"{default_queue}.#", queue_arguments={"x-max-priority": 10})
        ]
        self._silent: dict[str, float] = {}
        self._check_broker()

    def _check_broker(self) -> None:
        try:
            self.celery.connection_for_write().get_transport_cls()
        except (LookupError, ValueError, ImportError):  # their messages may repeat a part of the password
            raise ConfigurationError(
                "the broker of the run launcher is no URL that Celery can use; name it, as "
                "redis://:PASSWORD@HOST:6379/0; in a password, @ is %40, / is %2F, and % is %25"
            ) from None

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Return the schema of ``config`` in ``dagster.yaml``."""
        fields = super().config_type()
        return {
            "broker": dg.Field(dg.StringSource, description="The URL of the Celery broker."),
            "default_queue": dg.Field(dg.StringSource, default_value=_QUEUE, description="The queue of runs."),
            "pickup_seconds": dg.Field(
                int, default_value=_PICKUP_SECONDS, description="How long a launched run waits for a worker."
            ),
            "silence_seconds": dg.Field(
                int, default_value=_SILENCE_SECONDS, description="How long a worker may be silent before it is dead."
            ),
            "config_source": fields["config_source"],
        }

    def _launch_celery_task_run(self, run: dg.DagsterRun, task_signature: Any, routing_key: str) -> None:
        """Send the task of a run, and wait until a worker has taken it.

        Raises:
            RequeueRun: The broker is away, or no worker took the run in time. Dagster puts the run back into its queue
                as often as ``max_user_code_failure_retries`` allows, otherwise it fails with this line.
        """
        if was_canceled(self._instance, run.run_id):
            self._instance.report_run_canceled(run, "It was canceled while the daemon took it from the queue.")
            return
        queue, task = run.tags.get(DAGSTER_CELERY_QUEUE_TAG, self.default_queue), new_task(run.run_id)
        if run.tags.get(WORKER_TAG):  # a retried run has inherited the worker of the run that failed
            self._instance.add_run_tags(run.run_id, {WORKER_TAG: ""})
        if not offer(self._instance, task):
            return
        try:
            with self._connected() as connection:
                task_signature.apply_async(
                    task_id=task,
                    queue=queue,
                    routing_key=f"{queue}.{routing_key}",
                    connection=connection,
                    expires=_EXPIRES_SECONDS,
                )
        except RequeueRun:
            if withdraw(self._instance, task):
                raise
            return  # the message arrived, although sending it failed
        if self._is_taken(task) or self._has_ended(run.run_id):
            return
        raise RequeueRun(
            f"no worker took the run within {self.pickup_seconds} s: start workers on the queue {queue}, "
            "or wait until one is free"
        )

    def _is_taken(self, task: str) -> bool:
        """Wait for a worker that takes a task; return whether one did. If none did, none will."""
        deadline = time.monotonic() + self.pickup_seconds
        while time.monotonic() < deadline and self._is_starting(run_of(task)):
            if claim_of(self._instance, run_of(task)) != Claim(task):
                return True
            time.sleep(_POLL_SECONDS)
        return not withdraw(self._instance, task)

    def _is_starting(self, run_id: str) -> bool:
        run = self._instance.get_run_by_id(run_id)
        return run is not None and run.status == dg.DagsterRunStatus.STARTING

    def _has_ended(self, run_id: str) -> bool:
        """Return whether a run that no worker took has ended; one that is being canceled ends here."""
        run = self._instance.get_run_by_id(run_id)
        if run is not None and run.status == dg.DagsterRunStatus.CANCELING:
            self._instance.report_run_canceled(run, "It was canceled before a worker took it.")
            return True
        return run is None or run.is_finished

    def terminate(self, run_id: str) -> bool:
        """Cancel a run: its worker sees within a second or two that Dagster reports it as being canceled.

        Returns:
            Whether the run was still unfinished.
        """
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        if run.status != dg.DagsterRunStatus.CANCELING:
            self._instance.report_run_canceling(run)
        return True

    @property
    def supports_resume_run(self) -> bool:
        """Whether a dead run is resumed. A retry is better: it waits in the queue, and the history shows both runs."""
        return False

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Return whether the process of a run lives, as far as its worker or the silence of its worker shows it."""
        claim = claim_of(self._instance, run.run_id)
        if claim is None:
            return _ended_on(run.tags.get(WORKER_TAG) or "a worker")
        try:
            executed = self._is_executed(*claim)
        except RequeueRun as error:
            self._silent.clear()  # workers need a while to find their broker again
            return CheckRunHealthResult(WorkerStatus.RUNNING, f"unknown: {error}")
        if executed is None:
            return self._silence(run.run_id, claim)
        self._silent.pop(run.run_id, None)
        if executed:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        release(self._instance, *claim)
        return _ended_on(claim.worker)

    def _is_executed(self, task: str, worker: str) -> bool | None:
        """Ask a worker whether it executes a task; None if it does not answer."""
        with self._connected() as connection:
            inspect = self.celery.control.inspect(destination=[worker], timeout=_ANSWER_SECONDS, connection=connection)
            answer = (inspect.query_task(task) or {}).get(worker)
        return task in answer if isinstance(answer, dict) and "error" not in answer else None

    def _silence(self, run_id: str, claim: Claim) -> CheckRunHealthResult:
        now = time.monotonic()
        self._silent = {run: since for run, since in self._silent.items() if now - since < _FORGET_SECONDS}
        seconds = now - self._silent.setdefault(run_id, now)
        message = f"{claim.worker} has been silent for {seconds:.0f} s"
        if seconds < self.silence_seconds:
            return CheckRunHealthResult(WorkerStatus.RUNNING, message)
        del self._silent[run_id]
        release(self._instance, *claim)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, f"{message}: its host is down or cut off")

    def get_run_worker_debug_info(self, run: dg.DagsterRun, include_container_logs: bool | None = True) -> str | None:
        """Return which worker took a run."""
        return f"worker: {run.tags.get(WORKER_TAG) or 'none'}"

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        """Yield a new connection to the broker; one that is kept would not survive a restart of the broker.

        Raises:
            RequeueRun: The broker is away.
        """
        with self.celery.connection_for_write(connect_timeout=_CONNECT_SECONDS) as connection:
            try:
                connection.ensure_connection(max_retries=1, interval_start=0, timeout=_CONNECT_SECONDS)
                yield connection
            except (*connection.connection_errors, *connection.channel_errors, KombuError, OSError) as error:
                reason = first_line(str(error), type(error).__name__)
                raise RequeueRun(f"the broker {connection.as_uri()} is away: {reason}") from None


def _ended_on(worker: str) -> CheckRunHealthResult:
    return CheckRunHealthResult(WorkerStatus.FAILED, f"its process on {worker} has ended without a report")
