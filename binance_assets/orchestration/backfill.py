"""A backfill in this process: which runs bring what is missing, executed one after another on the Dagster instance."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Protocol

import dagster as dg

from binance_assets.ingest.request import DownloadPlan
from binance_assets.orchestration.jobs import job_name
from binance_assets.orchestration.metrics import ProgressListener
from binance_assets.orchestration.partitions import partition_kind
from binance_assets.orchestration.runs import Execution, RangeRun, fail_runs_of_dead_processes, report_present


class RunController(ProgressListener, Protocol):
    """Somebody who watches runs and can end them."""

    def stop(self) -> None:
        """End the run under way."""


def fetch_missing(
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    plans: Sequence[DownloadPlan],
    refresh: bool,
    controller: RunController,
) -> list[str]:
    """Fetch what the backlogs lack, and tell Dagster of what it does not know to be there.

    Args:
        instance: Where the runs are recorded.
        definitions: A code location that has all of the series.
        plans: What is asked for.
        refresh: Whether to fetch again what is there.
        controller: Asked to end the run on an interrupt.

    Returns:
        A line for each run that failed for another reason than refused periods.

    Raises:
        KeyboardInterrupt: Interrupted; the run under way is recorded as canceled.
    """
    failures = []
    fail_runs_of_dead_processes(instance)
    for download_plan in plans:
        report_present(instance, download_plan.series, download_plan.present)
    for run in runs_for(plans, only_missing=not refresh):
        execution = Execution(instance, definitions, run)
        try:
            execution.wait()
        except KeyboardInterrupt:
            # A second Ctrl-C would leave the run half canceled; the process is gone in a moment anyway.
            for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(each, signal.SIG_IGN)
            execution.canceling()
            controller.stop()
            execution.canceled()
            raise
        failures += execution.failures()
        if not execution.succeeded and not refresh:
            # Dagster now takes every day of the run's range for failed that the run did not bring, present or not.
            for download_plan in plans:
                within = [there for there in download_plan.present if run.first <= there[0] <= run.last]
                if download_plan.series in run.series:
                    report_present(instance, download_plan.series, within, again=True)
    return failures


def runs_for(plans: Sequence[DownloadPlan], only_missing: bool) -> Iterator[RangeRun]:
    """The runs that bring what is missing: one for all series of a kind of partitions with the same range.

    The range of a run is the hull of the missing periods; ``only_missing`` keeps it from what is there already.
    """

    def covering_range(download_plan: DownloadPlan) -> tuple[str, int, int]:
        return (
            partition_kind(download_plan.series.interval),
            download_plan.missing[0].start,
            download_plan.missing[-1].start,
        )

    lacking = sorted((download_plan for download_plan in plans if download_plan.missing), key=covering_range)
    for (kind, _, _), group in groupby(lacking, key=covering_range):
        same = list(group)
        first, last = same[0].missing[0], same[0].missing[-1]
        yield RangeRun(
            job=job_name(same[0].series.market, kind),
            series=tuple(download_plan.series for download_plan in same),
            first=first,
            last=last,
            only_missing=only_missing,
        )
