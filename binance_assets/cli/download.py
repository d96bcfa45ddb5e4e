"""The command ``download``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from binance_assets.cli.exit_codes import INCOMPLETE, CommandFailed
from binance_assets.cli.options import (
    DateType,
    combine,
    intervals_option,
    json_option,
    market_option,
    symbols_argument,
)
from binance_assets.model.intervals import Interval
from binance_assets.model.markets import Market
from binance_assets.model.series import Series
from binance_assets.model.wording import name_some
from binance_assets.settings import Settings, Source, read_settings
from binance_assets.storage.universe import Universe, read_universe
from binance_assets.storage.universe_editor import track

if TYPE_CHECKING:
    import datetime as dt

    import dagster as dg

    from binance_assets.ingest.request import DownloadPlan, DownloadRequest
    from binance_assets.storage.lake import Lake

_NAMED_SERIES: Final = 3


@click.command("download")
@symbols_argument
@market_option
@intervals_option
@click.option("--start", type=DateType(), help="First day; for 3d, 1w, 1M the first of a month.  [first candle]")
@click.option("--end", type=DateType(), help="Day after the last one, UTC.  [today]")
@click.option("--source", type=click.Choice(["rest", "archive", "auto"]), help="Source of the candles.")
@click.option("--refresh", is_flag=True, help="Fetch again what is already in the lake.")
@click.option("--dry-run", is_flag=True, help="Print what would be fetched and its weight; write nothing.")
@json_option
def download_command(
    symbols: tuple[str, ...],
    market: Market,
    intervals: tuple[Interval, ...],
    start: dt.date | None,
    end: dt.date | None,
    source: Source | None,
    refresh: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Fetch candles of SYMBOL... into the lake, as a Dagster run that the UI shows.

    Partitions that are already in the lake are skipped. A series that is not tracked yet is added to the universe.
    """
    from binance_assets.cli.output import print_plans
    from binance_assets.ingest.request import BadRequest, DownloadRequest, check_dates
    from binance_assets.orchestration.instance import open_instance
    from binance_assets.storage.lake import Lake

    settings = read_settings(os.environ)
    requested = combine(symbols, market, intervals)
    request = DownloadRequest(requested, start, end, refresh)
    check_dates(request)
    universe = read_universe(settings.universe)
    for series in requested:
        if str(series) in universe.derived_names:
            raise BadRequest(f"{series} is derived by {settings.universe}; remove it there to fetch it")
    sources = sources_of(requested, universe, settings, source)
    lake = Lake(settings.lake)
    plans, venue = _plan(request, settings, lake, universe, sources)
    if dry_run:
        print_plans(plans, sources, as_json)
        return
    with open_instance(Path.cwd(), os.environ) as instance:
        if venue is not None:
            lake.prepare(venue)
        _track(settings, requested)
        complete = _run(instance, settings, source, lake, plans, refresh, as_json)
    if not complete:
        sys.exit(INCOMPLETE)


def sources_of(
    series: Iterable[Series], universe: Universe, settings: Settings, source: Source | None
) -> dict[Series, Source]:
    """Return the source of each series: ``source`` if given, else the universe's for it, else the settings'."""
    named = {tracked.series: tracked.source for tracked in universe.tracked}
    return {member: source or named.get(member) or settings.source for member in series}


def _plan(
    request: DownloadRequest, settings: Settings, lake: Lake, universe: Universe, sources: Mapping[Series, Source]
) -> tuple[list[DownloadPlan], str | None]:
    """Return a plan for each series, and the venue of the candles to fetch; None if nothing is missing."""
    from binance_assets.exchange.errors import ExchangeError, UnknownSymbol
    from binance_assets.exchange.session import Exchange
    from binance_assets.ingest.request import BadRequest, plan_request

    exchange = Exchange(request.market, settings)
    try:
        common: Source = "archive" if set(sources.values()) == {"archive"} else "auto"
        plans = plan_request(request, lake, exchange, universe.series, common)
        return plans, exchange.venue if any(plan.missing for plan in plans) else None
    except UnknownSymbol as error:
        raise BadRequest(str(error)) from None
    except ExchangeError as error:
        raise CommandFailed(str(error)) from None
    finally:
        exchange.close()


def _track(settings: Settings, requested: Sequence[Series]) -> None:
    added = track(settings.universe, requested)
    if added:
        verb = "are" if len(added) > 1 else "is"
        click.echo(
            f"{name_some(added, _NAMED_SERIES)} {verb} now tracked in {settings.universe}; "
            "reload the code location to see it in a running UI",
            err=True,
        )


def _run(
    instance: dg.DagsterInstance,
    settings: Settings,
    source: Source | None,
    lake: Lake,
    plans: Sequence[DownloadPlan],
    refresh: bool,
    as_json: bool,
) -> bool:
    """Fetch what the plans lack, and print the outcome; return whether every requested partition is in the lake."""
    from binance_assets.cli.output import outcome_of, print_outcomes
    from binance_assets.cli.progress import ProgressView
    from binance_assets.definitions import definitions_for
    from binance_assets.orchestration.backfill import fetch_missing

    with ProgressView(sum(len(plan.missing) for plan in plans)) as view:
        definitions = definitions_for(settings, [plan.series for plan in plans], source, view)
        failures = fetch_missing(instance, definitions, plans, refresh, view)
    outcomes, complete = {}, not failures
    for plan in plans:
        refused = view.refused.get(plan.series, [])
        present = sum(1 for partition in plan.requested if lake.stored(plan.series, partition))
        outcomes[str(plan.series)] = outcome_of(plan, present, refused, view.metrics.get(plan.series))
        complete &= present == len(plan.requested) and not refused
    print_outcomes(outcomes, view.refused, as_json)
    for failure in failures:
        click.echo(f"error: {failure}", err=True)
    return complete
