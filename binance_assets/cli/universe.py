"""The commands that edit and list the universe: ``track``, ``untrack``, ``series``."""

from __future__ import annotations

import os
import sys

import click

from binance_assets.cli.exit_codes import INCOMPLETE
from binance_assets.cli.options import combine, intervals_option, json_option, market_option, symbols_argument
from binance_assets.model.intervals import Interval
from binance_assets.model.markets import Market
from binance_assets.settings import read_settings
from binance_assets.storage.universe import read_universe
from binance_assets.storage.universe_editor import track, untrack


@click.command("track")
@symbols_argument
@market_option
@intervals_option
def track_command(symbols: tuple[str, ...], market: Market, intervals: tuple[Interval, ...]) -> None:
    """Add series to the universe.

    The Dagster UI then shows them, and the schedules fetch them.
    """
    settings = read_settings(os.environ)
    requested = combine(symbols, market, intervals)
    added = track(settings.universe, requested)
    for series in requested:
        click.echo(f"{series} {'is now tracked' if series in added else 'was already tracked'}")
    if added:
        click.echo("reload the code location to see it in a running UI", err=True)


@click.command("untrack")
@symbols_argument
@market_option
@intervals_option
def untrack_command(symbols: tuple[str, ...], market: Market, intervals: tuple[Interval, ...]) -> None:
    """Remove series from the universe; their files stay in the lake."""
    settings = read_settings(os.environ)
    requested = combine(symbols, market, intervals)
    removed = untrack(settings.existing_universe(), requested)
    for series in requested:
        click.echo(f"{series} {'is no longer tracked; its files stay' if series in removed else 'was not tracked'}")
    if not removed:
        sys.exit(INCOMPLETE)


@click.command("series")
@json_option
def series_command(as_json: bool) -> None:
    """List the series of the universe.

    For each series, its partitions in the lake: how many they are, the first, and the last.
    """
    from binance_assets.cli.output import print_series
    from binance_assets.storage.coverage import held_by
    from binance_assets.storage.lake import Lake

    settings = read_settings(os.environ)
    universe = read_universe(settings.existing_universe())
    notes = {derived.series: f"  derived from {derived.base.interval}" for derived in universe.derived}
    held = held_by(Lake(settings.lake), [*universe.series, *notes])
    if as_json:
        print_series({series: held.get(series) for series in (*universe.series, *notes)})
        return
    for series in (*universe.series, *notes):
        stored = "no partitions yet"
        if series in held:
            count, first, last = held[series]
            stored = f"{count:>6} partitions, {first} to {last}"
        click.echo(f"{series!s:<32} {stored}{notes.get(series, '')}")
    if not universe.tracked:
        click.echo(f"{settings.universe} tracks no series yet; see binance-assets track --help", err=True)
