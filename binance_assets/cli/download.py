"""The command ``download``."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import click

from binance_assets.cli.exit_codes import INCOMPLETE, CommandFailed
from binance_assets.cli.options import (
    DateType,
    WordType,
    combine,
    intervals_option,
    json_option,
    market_option,
    optional_symbols_argument,
    symbols_from_option,
)
from binance_assets.cli.symbols import requested_symbols
from binance_assets.ingest.dates import check_dates
from binance_assets.model.intervals import Interval
from binance_assets.model.markets import Market
from binance_assets.model.outside import MESSAGE, printable
from binance_assets.model.series import Series
from binance_assets.model.wording import name_some
from binance_assets.processes import limit_arenas
from binance_assets.settings import ConfigurationError, Settings, Source, read_settings
from binance_assets.storage.universe import Universe, read_universe, sources_of
from binance_assets.storage.universe_editor import track
from binance_assets.waiting import phase

if TYPE_CHECKING:
    import datetime as dt

    import dagster as dg

    from binance_assets.cli.json_output import Outcome
    from binance_assets.cli.progress import ProgressView
    from binance_assets.ingest.request import DownloadPlan, DownloadRequest
    from binance_assets.storage.lake import Lake

_NAMED_SERIES: Final = 3


@click.command("download")
@optional_symbols_argument
@symbols_from_option
@market_option
@intervals_option
@click.option(
    "--start", type=DateType(), help="First day; for 3d, 1w, 1M the first of a month.  [default: first candle]"
)
@click.option("--end", type=DateType(), help="Day after the last one, UTC.  [default: up to the last closed partition]")
@click.option(
    "--source",
    type=WordType(["rest", "archive", "auto"]),
    help="Where the candles come from.  [default: from the universe, else from BINANCE_ASSETS_SOURCE]",
)
@click.option("--refresh", is_flag=True, help="Fetch again what is already in the lake.")
@click.option(
    "--launch",
    is_flag=True,
    help="Put runs into the queue of Dagster, follow them, and report the same. Needs a running daemon.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be fetched and its request weight; write nothing.")
@json_option
def download_command(
    symbols: tuple[str, ...],
    symbols_from: str | None,
    market: Market,
    intervals: tuple[Interval, ...],
    start: dt.date | None,
    end: dt.date | None,
    source: Source | None,
    refresh: bool,
    launch: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Fetch candles into the lake, as a Dagster run.

    SYMBOL is Binance's name, such as BTCUSDT. Partitions that are already in the lake are skipped. A series that is not
    tracked yet is added to the universe. The Dagster UI shows the run. With --launch, the workers of Dagster share the
    series: each is a run of its own, unless its range is short.
    """
    from binance_assets.cli.progress import ProgressView

    settings = read_settings(os.environ)
    requested = combine(requested_symbols(symbols, symbols_from, market, settings), market, intervals)
    check_dates(requested, start, end)
    universe = read_universe(settings.universe)
    for series in requested:
        if str(series) in universe.derived_names:
            raise ConfigurationError(f"{series} is derived by {settings.universe}; remove it there to fetch it")
    sources = sources_of(requested, universe, settings, source)
    limit_arenas()  # before the first thread
    with ProgressView() as view:
        with phase("loading Polars"):
            from binance_assets.ingest.request import DownloadRequest
            from binance_assets.storage.lake import Lake
        request = DownloadRequest(requested, start, end, refresh)
        lake = Lake(settings.lake)
        with phase("planning: what the lake has, and what the exchange offers"):
            plans, venue = _plan(request, settings, lake, universe, sources, is_priced=dry_run)
        if dry_run:
            with phase("pricing what is missing"):
                forecasts = [plan.forecast(sources[plan.series]) for plan in plans]
        else:
            if launch:
                make_fetch = partial(_fetching_by_queue, view, source, lake, refresh)
            else:
                make_fetch = partial(_fetching_here, view, settings, sources, lake, refresh)
            result = _run(view, venue, settings, lake, plans, make_fetch, launch)
    if dry_run:
        from binance_assets.cli.output import print_plans

        print_plans(plans, forecasts, as_json)
    elif not _print_result(result, view, as_json):
        sys.exit(INCOMPLETE)


def _plan(
    request: DownloadRequest,
    settings: Settings,
    lake: Lake,
    universe: Universe,
    sources: Mapping[Series, Source],
    is_priced: bool,
) -> tuple[list[DownloadPlan], str | None]:
    """Return a plan for each series, and the venue of the candles to fetch; no venue if there is nothing to do."""
    from binance_assets.exchange.errors import ExchangeError, cause_of
    from binance_assets.exchange.session import Exchange
    from binance_assets.ingest.request import plan_request

    exchange = Exchange(request.market, settings)
    try:
        common: Source = "archive" if set(sources.values()) == {"archive"} else "auto"
        plans = plan_request(request, lake, exchange, universe.series, common, universe.ended, is_priced=is_priced)
        return plans, exchange.venue if any(plan.pending for plan in plans) else None
    except ExchangeError as error:
        raise CommandFailed(str(cause_of(error))) from None
    finally:
        exchange.close()


def _track(view: ProgressView, settings: Settings, requested: Sequence[Series]) -> None:
    added = track(settings.universe, requested)
    if added:
        verb = "are" if len(added) > 1 else "is"
        view.note(
            f"{name_some(added, _NAMED_SERIES)} {verb} now tracked in {settings.universe}; "
            "reload the code location to see it in a running UI"
        )


class _Result(NamedTuple):
    """The outcome of each series by name, as JSON prints it, and one line for each step that failed."""

    outcomes: dict[str, Outcome]
    failures: list[str]


Fetch: TypeAlias = "Callable[[dg.DagsterInstance, Sequence[DownloadPlan]], list[str]]"
"""Fetches what plans lack; returns one line for each step that failed."""


def _fetching_here(
    view: ProgressView, settings: Settings, sources: Mapping[Series, Source], lake: Lake, refresh: bool
) -> Fetch:
    """Return how runs in this process fetch."""
    from binance_assets.definitions import definitions_for
    from binance_assets.orchestration.backfill import fetch_missing
    from binance_assets.orchestration.resources import Exchanges

    def fetch(instance: dg.DagsterInstance, plans: Sequence[DownloadPlan]) -> list[str]:
        with closing(Exchanges(series=sum(bool(plan.pending) for plan in plans))) as exchanges:
            definitions = definitions_for(settings, sources, view, exchanges)
            gc.freeze()  # what is loaded now lasts until the end: searching it for garbage takes 5 % of a download
            try:
                return fetch_missing(instance, definitions, lake, plans, refresh, view)
            finally:
                gc.unfreeze()

    return fetch


def _fetching_by_queue(view: ProgressView, source: Source | None, lake: Lake, refresh: bool) -> Fetch:
    """Return how runs in the queue of the instance fetch."""
    from binance_assets.orchestration.queued_runs import launch_missing
    from binance_assets.orchestration.user_interface import target_of

    def fetch(instance: dg.DagsterInstance, plans: Sequence[DownloadPlan]) -> list[str]:
        return launch_missing(instance, target_of(Path.cwd()), lake, plans, refresh, source, view)

    return fetch


def _run(
    view: ProgressView,
    venue: str | None,
    settings: Settings,
    lake: Lake,
    plans: Sequence[DownloadPlan],
    make_fetch: Callable[[], Fetch],
    uses_queue: bool,
) -> _Result:
    """Fetch what is missing, in Dagster runs; return what became of it."""
    with phase("loading Dagster"):
        from binance_assets.cli.output import outcome_of
        from binance_assets.ingest.request import present_verdicts
        from binance_assets.orchestration.instance import open_instance

        fetch = make_fetch()
        opened = open_instance(Path.cwd(), os.environ)
    requested = [plan.series for plan in plans]
    with phase("closing the Dagster instance"), ExitStack() as until_the_end:
        with phase("opening the Dagster instance, the lake, and the universe"):
            instance = until_the_end.enter_context(opened)
            if venue is not None:
                if uses_queue:
                    from binance_assets.orchestration.queued_runs import check_queue

                    check_queue(instance)
                lake.prepare(venue)
            _track(view, settings, requested)
        with phase("preparing runs of Dagster"):
            view.begin(name_some(requested, 1), sum(len(plan.missing) for plan in plans))
            failures = fetch(instance, plans)
    with phase("reading what the lake has now"):
        present = present_verdicts(lake, plans)
        outcomes = {
            str(plan.series): outcome_of(
                plan, present[plan.series], view.refused.get(plan.series, []), view.metrics.get(plan.series)
            )
            for plan in plans
        }
    return _Result(outcomes, failures)


def _print_result(result: _Result, view: ProgressView, as_json: bool) -> bool:
    """Print the outcome; return whether every requested partition is in the lake."""
    from binance_assets.cli.output import print_outcomes

    print_outcomes(result.outcomes, view.refused, as_json)
    for failure in result.failures:
        click.echo(f"error: {printable(failure, MESSAGE)}", err=True)
    return not result.failures and all(
        outcome["days_present"] == outcome["days_asked"] and not outcome["refused"]
        for outcome in result.outcomes.values()
    )
