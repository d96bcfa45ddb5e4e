"""Runs that the command line executes in its own process, on the instance that the user interface shows."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import dagster as dg
from dagster._core.utils import make_new_run_id

from binance_assets.model.partitions import Partition
from binance_assets.model.series import Series
from binance_assets.orchestration.assets import asset_key, materialization
from binance_assets.orchestration.partitions import range_tags
from binance_assets.processes import is_alive, process_start_time
from binance_assets.storage.lake import StoredPartition

HOST_TAG: Final = "binance_assets/host"
PROCESS_TAG: Final = "binance_assets/process"
PROCESS_BEGAN_TAG: Final = "binance_assets/process_began"

_POLL_SECONDS: Final = 0.1
# An interrupted process is gone within two seconds, whatever hangs.
_GRACE_SECONDS: Final = 1.2


@dataclass(frozen=True, slots=True)
class RangeRun:
    """A run over a contiguous range of partitions.

    Attributes:
        job: Name of the job.
        series: The series to fetch.
        first: First partition.
        last: Last partition, included.
        only_missing: Whether to leave alone what is in the lake.
    """

    job: str
    series: tuple[Series, ...]
    first: Partition
    last: Partition
    only_missing: bool


class Execution:
    """A run under way in a thread of its own, so that the main thread stays free for interrupts.

    Args:
        instance: Where the run is recorded.
        definitions: The code location.
        run: What to run.
    """

    def __init__(self, instance: dg.DagsterInstance, definitions: dg.Definitions, run: RangeRun) -> None:
        self.run_id = make_new_run_id()
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
        """Whether every step did what it was to do, its check included."""
        run = self._instance.get_run_by_id(self.run_id)
        return run is not None and run.is_success

    def failures(self) -> list[str]:
        """Why steps failed, a line each, other than by their check."""
        return self._failures

    def canceling(self) -> None:
        """Tell Dagster that the run is about to end as canceled."""
        run = self._instance.get_run_by_id(self.run_id)
        if run is not None and not run.is_finished:
            self._instance.report_run_canceling(run, message="Interrupted on the command line.")

    def canceled(self) -> None:
        """Wait a moment for the run to end; then record its end whatever it does."""
        self._thread.join(_GRACE_SECONDS)
        run = self._instance.get_run_by_id(self.run_id)
        if run is not None and not run.is_finished:
            self._instance.report_run_canceled(run)

    def _execute(self) -> None:
        run = self._run
        config = {
            "ops": {"__".join(one.key): {"config": {"only_missing": run.only_missing}} for one in run.series},
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        }
        try:
            result = self._job.execute_in_process(
                run_config=config,
                instance=self._instance,
                run_id=self.run_id,
                asset_selection=[asset_key(one) for one in run.series],
                raise_on_error=False,
                tags={
                    **range_tags(run.first.key, run.last.key),
                    HOST_TAG: socket.gethostname(),
                    PROCESS_TAG: str(os.getpid()),
                    PROCESS_BEGAN_TAG: process_start_time(os.getpid()) or "",
                },
            )
            self._failures = [line for event in result.all_events if (line := _failure(event))]
        except BaseException as error:
            self._error = error


def _failure(event: dg.DagsterEvent) -> str:
    """Why a step failed, in one line; empty where it did not, or failed by its check, which says so itself."""
    if event.event_type == dg.DagsterEventType.RUN_FAILURE and event.job_failure_data.first_step_failure_event is None:
        return str(event.message)
    if not event.is_step_failure:
        return ""
    data = event.step_failure_data
    if data.user_failure_data is not None and data.user_failure_data.description:
        return str(data.user_failure_data.description)
    error = data.error
    if error is None or error.cls_name == "DagsterAssetCheckFailedError":
        return ""
    cause = error.cause or error
    return f"{event.step_key}: {cause.message.strip().splitlines()[0]}"


def fail_runs_of_dead_processes(instance: dg.DagsterInstance) -> int:
    """Record as failed what command lines of this host began and cannot end, because they were killed.

    Returns:
        How many runs that were.
    """
    under_way = [
        dg.DagsterRunStatus.NOT_STARTED,
        dg.DagsterRunStatus.STARTING,
        dg.DagsterRunStatus.STARTED,
        dg.DagsterRunStatus.CANCELING,
    ]
    here = instance.get_runs(dg.RunsFilter(statuses=under_way, tags={HOST_TAG: socket.gethostname()}))
    # A re-execution in the UI inherits the tags of its parent, but is another process's.
    ours = [run for run in here if run.parent_run_id is None and run.tags.get(PROCESS_TAG, "").isdigit()]
    dead = [run for run in ours if not is_alive(int(run.tags[PROCESS_TAG]), run.tags.get(PROCESS_BEGAN_TAG, ""))]
    for run in dead:
        instance.report_run_failed(run, f"Its process, {run.tags[PROCESS_TAG]}, is gone. What it finished is kept.")
    return len(dead)


def report_present(
    instance: dg.DagsterInstance,
    series: Series,
    present: Sequence[tuple[Partition, StoredPartition]],
    again: bool = False,
) -> int:
    """Tell Dagster of partitions that are in the lake and that it does not know of.

    Args:
        instance: The instance.
        series: The series.
        present: Partitions with their files.
        again: Whether to tell also of those that it knows.

    Returns:
        Of how many it was told.
    """
    if not present:
        return 0
    known = set() if again else instance.get_materialized_partitions(asset_key(series))
    unknown = [(partition, stored) for partition, stored in present if partition.key not in known]
    for partition, stored in unknown:
        instance.report_runless_asset_event(materialization(series, partition, stored))
    return len(unknown)
