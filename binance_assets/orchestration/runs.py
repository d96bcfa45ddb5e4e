"""Runs that the command line executes in its own process, on the instance that the user interface shows.

Here belongs one run: its execution, its cancellation, and the report of what the lake holds already. What does not
belong here: which runs a download needs (``backfill``), and the end of runs that were killed (``interrupted``).
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import dagster as dg

from binance_assets.model.outside import first_line
from binance_assets.model.partitions import Partition
from binance_assets.model.series import Series
from binance_assets.orchestration.conclusion import REFUSED
from binance_assets.orchestration.dagster_internals.runs import EndOfRun
from binance_assets.orchestration.events import report_stored
from binance_assets.orchestration.interrupted import proof_of_life, tags_of_this_process
from binance_assets.orchestration.keys import asset_key, op_name
from binance_assets.orchestration.partitions import range_tags
from binance_assets.settings import Source
from binance_assets.storage.lake import Lake
from binance_assets.waiting import phase

_POLL_SECONDS: Final = 0.1
# How long to wait for an interrupted run. The process has to exit within two seconds, whatever hangs.
_GRACE_SECONDS: Final = 1.2
# An event takes milliseconds to be recorded, if the database responds.
_RECORDING_SECONDS: Final = 0.3


@dataclass(frozen=True, slots=True)
class RangeRun:
    """A run over a contiguous range of partitions.

    Attributes:
        job: Name of the job.
        series: The series to fetch.
        first: First partition.
        last: Last partition, included.
        only_missing: Whether to skip partitions that are in the lake.
        source: Where the candles come from; None for what the code location names for each series.
    """

    job: str
    series: tuple[Series, ...]
    first: Partition
    last: Partition
    only_missing: bool
    source: Source | None = None

    def __str__(self) -> str:
        many = "1 series" if len(self.series) == 1 else f"{len(self.series):,} series"
        return f"{many}, {self.first} to {self.last}"

    @property
    def config(self) -> dict[str, Any]:
        """The run configuration; Dagster's own console log stays silent."""
        return {**self.steps_config, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}

    @property
    def steps_config(self) -> dict[str, Any]:
        """The run configuration of the steps alone."""
        config = {"only_missing": self.only_missing} | ({"source": self.source} if self.source else {})
        return {"ops": {op_name(member): {"config": config} for member in self.series}}

    @property
    def tags(self) -> dict[str, str]:
        """The tags of the run: its range, and the process that executes it."""
        return range_tags(self.first.key, self.last.key) | tags_of_this_process()


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
        self._end = EndOfRun(instance, self.run_id)
        self._error: BaseException | None = None
        self._failures: list[str] = []
        # Until Python 3.13, a `Thread.join` that an interrupt ends takes the thread for dead: nobody could wait for it.
        self._ended = threading.Event()

    def wait(self) -> None:
        """Start the run and wait for its end.

        Raises:
            Exception: Dagster itself failed; a run with refused partitions does not raise.
        """
        threading.Thread(target=self._execute, name="dagster-run", daemon=True).start()
        while not self._ended.wait(_POLL_SECONDS):
            pass
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
        """Report to Dagster that the run is being canceled; from now on it cannot fail anymore."""
        self._end.ask()
        run = self._instance.get_run_by_id(self.run_id)
        if run is not None and not run.is_finished:
            self._instance.report_run_canceling(run, message="Interrupted on the command line.")

    def report_canceled(self) -> None:
        """Wait a moment for the run to end, then report it as canceled even if it has not ended.

        What its steps report later is not recorded.
        """
        self._ended.wait(_GRACE_SECONDS)
        self._end.close(_RECORDING_SECONDS)
        run = self._instance.get_run_by_id(self.run_id)
        if run is not None and not run.is_finished:
            self._instance.report_run_canceled(run)

    def _execute(self) -> None:
        try:
            with (
                proof_of_life(self._instance, self.run_id),
                self._end.watched(),
                phase(f"a run of Dagster: {self._run}"),
            ):
                result = self._job.execute_in_process(
                    run_config=self._run.config,
                    instance=self._instance,
                    run_id=self.run_id,
                    asset_selection=[asset_key(member) for member in self._run.series],
                    raise_on_error=False,
                    tags=self._run.tags,
                )
            messages = (failure_message(event) for event in result.all_events)
            self._failures = [message for message in messages if message is not None]
        except BaseException as error:
            self._error = error
        finally:
            self._ended.set()


def failure_message(event: dg.DagsterEvent) -> str | None:
    """Return why a step or the run failed, in one line.

    None for every other event, and if the step refused partitions, which the caller names itself.
    """
    if event.event_type == dg.DagsterEventType.RUN_FAILURE:
        data = event.event_specific_data  # none if the process of the run has not reported it itself
        of_step = getattr(data, "first_step_failure_event", None)
        return str(event.message) if of_step is None else None
    if not event.is_step_failure:
        return None
    failure = event.step_failure_data
    if failure.user_failure_data is not None and REFUSED in (failure.user_failure_data.metadata or {}):
        return None
    if failure.user_failure_data is not None and failure.user_failure_data.description:
        return str(failure.user_failure_data.description)
    error = failure.error
    if error is None:
        return None
    cause = error.cause or error
    return f"{event.step_key}: {first_line(cause.message)}"


def report_present(
    instance: dg.DagsterInstance,
    lake: Lake,
    series: Series,
    present: Sequence[Partition],
    again: bool = False,
) -> int:
    """Report the materialization of partitions that are in the lake but that Dagster does not know.

    Args:
        instance: The instance.
        lake: The lake.
        series: The series.
        present: Partitions of it that are in the lake.
        again: Whether to report those that Dagster knows as well.

    Returns:
        The number of reported partitions.
    """
    if not present:
        return 0
    known = set() if again else instance.get_materialized_partitions(asset_key(series))
    unknown = [partition for partition in present if partition.key not in known]
    with phase(f"recording {len(unknown):,} partitions of {series} with Dagster"):
        stored = list(lake.stored_among(series, unknown).items()) if unknown else []
        report_stored(instance, series, stored)
    return len(stored)
