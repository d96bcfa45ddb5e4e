"""A backfill in this process: which runs fetch what is missing, executed one after another.

Here belongs the step from download plans to runs. What does not belong here: the plans (``ingest.request``), the
execution of one run (``runs``), and the code location over the series (``definitions``), which the caller passes in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

import dagster as dg

from binance_assets.ingest.request import DownloadPlan
from binance_assets.model.partitions import partitions_between
from binance_assets.model.timestamps import to_date
from binance_assets.orchestration.checks import refresh_checks
from binance_assets.orchestration.interrupted import fail_runs_of_dead_processes
from binance_assets.orchestration.jobs import job_name
from binance_assets.orchestration.partitions import partition_kind
from binance_assets.orchestration.progress import RunController
from binance_assets.orchestration.runs import Execution, RangeRun, report_present
from binance_assets.settings import Source
from binance_assets.storage.lake import Lake

# Dagster plans all partitions of a run before the first is fetched, which takes half a millisecond for each. This
# bound, about ten years of days, keeps that wait below three seconds, and the memory for the events of a run small.
_MAX_PARTITIONS: Final = 3_660


def fetch_missing(
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    lake: Lake,
    plans: Sequence[DownloadPlan],
    refresh: bool,
    controller: RunController,
) -> list[str]:
    """Fetch the missing partitions of ``plans``, and report to Dagster the present ones that it does not know.

    Args:
        instance: The instance that records the runs.
        definitions: A code location that contains all series.
        lake: The lake that they are written to.
        plans: A plan for each requested series.
        refresh: Whether to fetch present partitions again.
        controller: Ends the run on an interrupt.

    Returns:
        One line for each step that failed for a reason other than refused partitions.

    Raises:
        KeyboardInterrupt: Interrupted; the run under way is recorded as canceled.
    """
    failures = []
    report_known(instance, lake, plans)
    for run in runs_for(plans, only_missing=not refresh):
        execution = Execution(instance, definitions, run)
        _wait(execution, controller)
        failures += execution.failures()
        if not execution.succeeded:
            # Dagster shows each partition that the run did not materialize as failed, also those that are present.
            refresh_checks(instance, lake, run.series)
    return failures


def report_known(instance: dg.DagsterInstance, lake: Lake, plans: Sequence[DownloadPlan]) -> None:
    """Report to Dagster what is true before a download: which runs are dead, what the lake holds, and what it lacks."""
    fail_runs_of_dead_processes(instance)
    for plan in plans:
        report_present(instance, lake, plan.series, plan.present)
    refresh_checks(instance, lake, [plan.series for plan in plans])


def _wait(execution: Execution, controller: RunController) -> None:
    """Wait for the end of a run, and cancel it on an interrupt."""
    try:
        execution.wait()
    except KeyboardInterrupt:
        # The command line lets no second Ctrl-C come through, which would leave the run half canceled.
        execution.report_canceling()
        controller.stop()
        execution.report_canceled()
        raise


def runs_for(
    plans: Sequence[DownloadPlan], only_missing: bool, most: int = _MAX_PARTITIONS, source: Source | None = None
) -> Iterator[RangeRun]:
    """Yield the runs that fetch what is missing: together the series of a partition kind that lack the same range.

    A run covers the range from the first missing partition to the last, or the first and last in doubt;
    ``only_missing`` skips those in between that are present and proved. Many series with a long range are several runs.

    Args:
        plans: What each series lacks.
        only_missing: Whether to skip partitions that are in the lake.
        most: The most partitions of a run over several series, counted over all of them.
        source: Where the candles come from; None for what the code location names for each series.
    """
    incomplete = sorted((plan for plan in plans if plan.pending), key=_kind_and_range)
    for (kind, _, _), group in groupby(incomplete, key=_kind_and_range):
        members = list(group)
        first, last = members[0].pending[0], members[0].pending[-1]
        partitions = len(partitions_between(to_date(first.start), to_date(last.end), members[0].series.interval))
        at_once = max(1, most // partitions)
        for start in range(0, len(members), at_once):
            yield RangeRun(
                job=job_name(members[0].series.market, kind),
                series=tuple(plan.series for plan in members[start : start + at_once]),
                first=first,
                last=last,
                only_missing=only_missing,
                source=source,
            )


def _kind_and_range(plan: DownloadPlan) -> tuple[str, int, int]:
    return partition_kind(plan.series.interval), plan.pending[0].start, plan.pending[-1].start
