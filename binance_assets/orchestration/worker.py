"""A worker: the Celery app that executes runs, with the broker and the queue that ``dagster.yaml`` names.

``celery -A binance_assets.orchestration.worker worker --concurrency 2`` starts one. Its process forks a child for each
run, so it imports neither Polars nor the code location: a child that inherits their threads would hang.

Here belongs what happens beside a run on a worker: whether its task may execute it, and its interruption. What does not
belong here: what the daemon does (``launcher``), and the run itself, which is a task of dagster-celery.
"""

from __future__ import annotations

import os
import signal
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import celery
import dagster as dg
from celery.signals import celeryd_init
from dagster_celery.tasks import create_execute_job_task

from binance_assets.orchestration.dagster_internals import interrupts_kept, launcher_of, report_engine_event
from binance_assets.orchestration.instance import home_folder
from binance_assets.orchestration.launcher import TASK_TAG, WORKER_TAG, WorkerLauncher, run_of
from binance_assets.settings import ConfigurationError

_POLL_SECONDS: Final = 1.0
# A run that reports its end itself needs a moment to return after it.
_OWN_END_SECONDS: Final = 5.0
# What an interrupted run may take to end before its process is killed.
_END_SECONDS: Final = 60.0
_STOPPED: Final = (dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.FAILURE)


class RunTask(celery.Task):  # type: ignore[misc]
    """The task of a run: it executes the run if it is the task that the launcher sent for it last."""

    def __call__(self, **arguments: object) -> object:
        """Execute a run, in a process of its own; return whatever the task of dagster-celery returns."""
        task, worker = self.request.id, self.request.hostname
        run_id = run_of(task)
        with interrupts_kept(), dg.DagsterInstance.get() as instance:
            if not takes(instance, run_id, task, worker):
                return None
            with interrupted_by_reports(instance, run_id):
                return self.run(**arguments)


def takes(instance: dg.DagsterInstance, run_id: str, task: str, worker: str) -> bool:
    """Return whether a worker takes a run, and record that it does.

    It leaves a run that another task may execute: its message arrived late, or twice. It leaves one that has started or
    ended, and cancels one that is being canceled.
    """
    run = instance.get_run_by_id(run_id)
    if run is None:
        return False
    if run.status == dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, "It was canceled before a worker took it.")
        return False
    is_taken = bool(run.tags.get(WORKER_TAG))
    if run.tags.get(TASK_TAG) != task or is_taken or run.status != dg.DagsterRunStatus.STARTING:
        report_engine_event(instance, run, f"Ignored on the worker {worker}: a message that came late or twice.")
        return False
    instance.add_run_tags(run_id, {WORKER_TAG: worker})
    report_engine_event(instance, run, f"Taken by the worker {worker}.")
    return True


@contextmanager
def interrupted_by_reports(instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """Interrupt the main thread as soon as Dagster reports the run as being canceled, or as ended by somebody else.

    So Terminate works while the broker is away, and a host that was cut off, and whose run is retried elsewhere, stops.
    """
    ended = threading.Event()
    threading.Thread(target=_watch, args=(instance, run_id, ended), name="run-reports", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _watch(instance: dg.DagsterInstance, run_id: str, ended: threading.Event) -> None:
    while not ended.wait(_POLL_SECONDS):
        run = None
        with suppress(Exception):  # the storage is away, and Dagster's own retries deal with that
            run = instance.get_run_by_id(run_id)
        if run is None or (run.status != dg.DagsterRunStatus.CANCELING and run.status not in _STOPPED):
            continue
        if run.status in _STOPPED and ended.wait(_OWN_END_SECONDS):
            return
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        if not ended.wait(_END_SECONDS):
            os._exit(1)  # its main thread hangs where no interrupt reaches it
        return


def worker_app() -> celery.Celery:
    """Return the Celery app of the instance in ``$DAGSTER_HOME``, with the task that executes runs.

    Raises:
        ConfigurationError: ``$DAGSTER_HOME`` names no folder, or its ``dagster.yaml`` another launcher.
    """
    home = home_folder(os.environ)
    launcher = None if home is None else launcher_of(home)
    if not isinstance(launcher, WorkerLauncher):
        raise ConfigurationError(
            "a worker needs DAGSTER_HOME, the folder of a dagster.yaml whose run_launcher is the class WorkerLauncher "
            f"of the module {WorkerLauncher.__module__}, as deploy/dagster-celery.yaml"
        )
    create_execute_job_task(launcher.celery, base=RunTask)
    return launcher.celery


@celeryd_init.connect  # type: ignore[untyped-decorator]
def _with_new_name(instance: Any, **_: object) -> None:
    """Give a worker a name that no other start has, so that it does not answer for a run that an earlier one lost."""
    name, _at, host = instance.hostname.partition("@")
    instance.hostname = f"{name}-{uuid.uuid4().hex[:8]}@{host}"


app = worker_app()
