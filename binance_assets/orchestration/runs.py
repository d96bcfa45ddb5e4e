"""Runs that the command line executes in its own process, on the instance that the user interface shows.

Here belongs one run: its execution, its cancellation, and the repair of what killed processes left behind. What does
not belong here: which runs a download needs (``backfill``).
"""

from __future__ import annotations

import os
import re
import socket
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import dagster as dg

from binance_assets.model.partitions import Partition
from binance_assets.model.series import Series
from binance_assets.orchestration.dagster_internals import state_folder
from binance_assets.orchestration.events import report_stored
from binance_assets.orchestration.keys import asset_key, op_name
from binance_assets.orchestration.partitions import range_tags
from binance_assets.processes import is_alive, is_proved_dead, parse_identity, process_start_time, this_process
from binance_assets.storage.lake import StoredPartition
from binance_assets.storage.locks import own_file, taken_over

# Version 0.1.0 has only these three tags. Nothing else tells which process they mean.
HOST_TAG: Final = "binance_assets/host"
PROCESS_TAG: Final = "binance_assets/process"
PROCESS_BEGAN_TAG: Final = "binance_assets/process_began"
# The whole identity of the process; Dagster's user interface hides tags with this prefix.
IDENTITY_TAG: Final = ".dagster/binance_assets_process"

# In the folder of the instance: a file for each run of a command, which the process of the run keeps locked.
_LIVE_RUNS: Final = "binance_assets_runs"
_LIVE_RUN_NAME: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_UNFINISHED: Final = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_POLL_SECONDS: Final = 0.1
# How long to wait for an interrupted run. The process has to exit within two seconds, whatever hangs.
_GRACE_SECONDS: Final = 1.2


@dataclass(frozen=True, slots=True)
class RangeRun:
    """A run over a contiguous range of partitions.

    Attributes:
        job: Name of the job.
        series: The series to fetch.
        first: First partition.
        last: Last partition, included.
        only_missing: Whether to skip partitions that are in the lake.
    """

    job: str
    series: tuple[Series, ...]
    first: Partition
    last: Partition
    only_missing: bool

    @property
    def config(self) -> dict[str, Any]:
        """The run configuration; Dagster's own console log stays silent."""
        return {
            "ops": {op_name(member): {"config": {"only_missing": self.only_missing}} for member in self.series},
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        }

    @property
    def tags(self) -> dict[str, str]:
        """The tags of the run: its range, and the process that executes it."""
        return {
            **range_tags(self.first.key, self.last.key),
            HOST_TAG: socket.gethostname(),
            PROCESS_TAG: str(os.getpid()),
            PROCESS_BEGAN_TAG: process_start_time(os.getpid()) or "",
            IDENTITY_TAG: str(this_process()),
        }


class Execution:
    """A run in a thread of its own, so that the main thread can receive interrupts.

    Args:
        instance: The instance that records the run.
        definitions: The code location.
        run: What to run.
    """

    def __init__(self, instance: dg.DagsterInstance, definitions: dg.Definitions, run: RangeRun) -> None:
        self.run_id = str(uuid.uuid4())
        self._instance = instance
        self._job = definitions.resolve_job_def(run.job)
        self._run = run
        self._error: BaseException | None = None
        self._failures: list[str] = []
        self._thread = threading.Thread(target=self._execute, name="dagster-run", daemon=True)

    def wait(self) -> None:
        """Start the run and wait for its end.

        Raises:
            Exception: Dagster itself failed; a run with refused partitions does not raise.
        """
        self._thread.start()
        while self._thread.is_alive():
            self._thread.join(_POLL_SECONDS)
        if self._error is not None:
            raise self._error

    @property
    def succeeded(self) -> bool:
        """Whether every step succeeded and its check passed."""
        run = self._instance.get_run_by_id(self.run_id)
        return run is not None and run.is_success

    def failures(self) -> list[str]:
        """Return one line for each step that failed for a reason other than its check."""
        return self._failures

    def report_canceling(self) -> None:
        """Report to Dagster that the run is being canceled."""
        run = self._instance.get_run_by_id(self.run_id)
        if run is not None and not run.is_finished:
            self._instance.report_run_canceling(run, message="Interrupted on the command line.")

    def report_canceled(self) -> None:
        """Wait a moment for the run to end, then report it as canceled even if it has not ended."""
        self._thread.join(_GRACE_SECONDS)
        run = self._instance.get_run_by_id(self.run_id)
        if run is not None and not run.is_finished:
            self._instance.report_run_canceled(run)

    def _execute(self) -> None:
        try:
            with _proof_of_life(self._instance, self.run_id):
                result = self._job.execute_in_process(
                    run_config=self._run.config,
                    instance=self._instance,
                    run_id=self.run_id,
                    asset_selection=[asset_key(member) for member in self._run.series],
                    raise_on_error=False,
                    tags=self._run.tags,
                )
            messages = (_failure_message(event) for event in result.all_events)
            self._failures = [message for message in messages if message is not None]
        except BaseException as error:
            self._error = error


def _failure_message(event: dg.DagsterEvent) -> str | None:
    """Return why a step or the run failed, in one line.

    None for every other event, and if the step failed by its check, whose result states the reason.
    """
    if event.event_type == dg.DagsterEventType.RUN_FAILURE and event.job_failure_data.first_step_failure_event is None:
        return str(event.message)
    if not event.is_step_failure:
        return None
    data = event.step_failure_data
    if data.user_failure_data is not None and data.user_failure_data.description:
        return str(data.user_failure_data.description)
    error = data.error
    if error is None or error.cls_name == "DagsterAssetCheckFailedError":
        return None
    cause = error.cause or error
    return f"{event.step_key}: {cause.message.strip().splitlines()[0]}"


@contextmanager
def _proof_of_life(instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """Keep the file of a run locked while the run is executed; the lock ends with the process.

    Whoever finds the file, in another container or after a reboot, can tell by the lock whether the run is still
    executed. If the folder of the instance cannot be written, the tags must do.
    """
    folder = state_folder(instance) / _LIVE_RUNS
    with ExitStack() as stack:
        with suppress(OSError):
            if os.name != "nt":  # where `own_file` locks nothing
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(own_file(folder / run_id))
        yield


def fail_runs_of_dead_processes(instance: dg.DagsterInstance) -> int:
    """Report as failed the runs of commands whose process was killed before it could report anything.

    A process counts as dead only if that is proved. Either the lock on the file of its run can be taken. Or there is no
    such file here, and its identity is one that can be seen from here and does not exist. A process of another machine
    or container, whose file is not in the folder of this instance, may be alive.

    Returns:
        The number of these runs.
    """
    # A re-execution in the UI inherits the tags of its parent, but belongs to another process.
    unfinished = [run for run in instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED)) if run.parent_run_id is None]
    folder = state_folder(instance) / _LIVE_RUNS
    files = {path.name: path for path in _files_of_runs(folder)}
    failed = sum(_fail(instance, run) for run in unfinished if run.run_id not in files and _is_proved_dead(run))
    for path in files.values():
        with taken_over(path) as abandoned:
            if abandoned:
                failed += sum(_fail(instance, run) for run in unfinished if run.run_id == path.name)
                path.unlink(missing_ok=True)
    return failed


def _files_of_runs(folder: Path) -> list[Path]:
    with suppress(OSError):  # absent until a command has executed a run
        return [path for path in folder.iterdir() if _LIVE_RUN_NAME.fullmatch(path.name)]
    return []


def _is_proved_dead(run: dg.DagsterRun) -> bool:
    """Return whether the tags of a run prove that its process has ended; False for runs of no command."""
    identity = parse_identity(run.tags.get(IDENTITY_TAG, ""))
    if identity is not None:
        return is_proved_dead(identity)
    process = run.tags.get(PROCESS_TAG, "")
    if IDENTITY_TAG in run.tags or run.tags.get(HOST_TAG) != socket.gethostname() or not process.isdecimal():
        return False
    return not is_alive(int(process), run.tags.get(PROCESS_BEGAN_TAG, ""))


def _fail(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Report a run as failed; return False if it has finished in the meantime."""
    now = instance.get_run_by_id(run.run_id)
    if now is None or now.is_finished:
        return False
    process = f"process {run.tags.get(PROCESS_TAG)} on host {run.tags.get(HOST_TAG)}"
    instance.report_run_failed(now, f"Its {process} does not exist anymore. The partitions that it wrote are kept.")
    return True


def report_present(
    instance: dg.DagsterInstance,
    series: Series,
    present: Sequence[tuple[Partition, StoredPartition]],
    again: bool = False,
) -> int:
    """Report the materialization of partitions that are in the lake but that Dagster does not know.

    Args:
        instance: The instance.
        series: The series.
        present: Partitions with their entries in the lake.
        again: Whether to report those that Dagster knows as well.

    Returns:
        The number of reported partitions.
    """
    if not present:
        return 0
    known = set() if again else instance.get_materialized_partitions(asset_key(series))
    unknown = [(partition, stored) for partition, stored in present if partition.key not in known]
    report_stored(instance, series, unknown)
    return len(unknown)
