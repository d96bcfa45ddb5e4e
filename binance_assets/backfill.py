"""A backfill in this process: which runs bring what is missing, executed one after another on the Dagster instance."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Protocol

from binance_assets.backlog import Backlog
from binance_assets.definitions import build_defs
from binance_assets.lake import Lake
from binance_assets.orchestration.figures import Watcher
from binance_assets.orchestration.instance import open_instance
from binance_assets.orchestration.jobs import job_name
from binance_assets.orchestration.partitions import partitioning
from binance_assets.orchestration.runs import Execution, RangeRun, fail_runs_of_dead_processes, report_present
from binance_assets.settings import Settings, Source
from binance_assets.universe import Universe, read_universe


class Supervisor(Watcher, Protocol):
    """Somebody who watches runs and can end them."""

    def stop(self) -> None:
        """End the run under way."""


def fetch_missing(
    settings: Settings,
    source: Source | None,
    lake: Lake,
    backlogs: Sequence[Backlog],
    refresh: bool,
    supervisor: Supervisor,
    folder: Path,
) -> list[str]:
    """Fetch what the backlogs lack, and tell Dagster of what it does not know to be there.

    Args:
        settings: The settings.
        source: Where candles come from; None means as the universe and the settings say.
        lake: The lake.
        backlogs: What is asked for, all tracked in the universe.
        refresh: Whether to fetch again what is there.
        supervisor: Told of the progress; asked to end the run on an interrupt.
        folder: The working folder, whose Dagster instance is used.

    Returns:
        A line for each run that failed for another reason than refused periods.

    Raises:
        ConfigurationError: The instance or the universe is not usable.
        KeyboardInterrupt: Interrupted; the run under way is recorded as canceled.
    """
    definitions = build_defs(settings, _universe(settings, source), supervisor)
    failures = []
    with open_instance(folder, os.environ) as instance:
        fail_runs_of_dead_processes(instance)
        for backlog in backlogs:
            report_present(instance, lake, backlog.series, backlog.present)
        for run in runs_for(backlogs, only_missing=not refresh):
            execution = Execution(instance, definitions, run)
            try:
                execution.wait()
            except KeyboardInterrupt:
                execution.canceling()
                supervisor.stop()
                execution.canceled()
                raise
            failures += execution.failures()
    return failures


def runs_for(backlogs: Sequence[Backlog], only_missing: bool) -> Iterator[RangeRun]:
    """The runs that bring what is missing: one for all series of a kind of partitions with the same range.

    The range of a run is the hull of the missing periods; ``only_missing`` keeps it from what is there already.
    """

    def hull(backlog: Backlog) -> tuple[str, int, int]:
        return partitioning(backlog.series.interval), backlog.missing[0].start, backlog.missing[-1].start

    lacking = sorted((backlog for backlog in backlogs if backlog.missing), key=hull)
    for (kind, _, _), group in groupby(lacking, key=hull):
        same = list(group)
        first, last = same[0].missing[0], same[0].missing[-1]
        yield RangeRun(
            job=job_name(same[0].series.market, kind),
            series=tuple(backlog.series for backlog in same),
            first=first,
            last=last,
            only_missing=only_missing,
        )


def _universe(settings: Settings, source: Source | None) -> Universe:
    universe = read_universe(settings.universe)
    if source is None:
        return universe
    return Universe(tuple(replace(tracked, source=source) for tracked in universe.tracked), universe.derived)
