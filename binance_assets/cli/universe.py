"""The commands that edit, list, and refresh the universe: ``track``, ``untrack``, ``series``, ``universe refresh``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from binance_assets.cli.exit_codes import INCOMPLETE, CommandFailed
from binance_assets.cli.options import (
    combine,
    intervals_option,
    json_option,
    market_option,
    optional_symbols_argument,
    symbols_argument,
    symbols_from_option,
)
from binance_assets.cli.symbols import check_known, requested_symbols
from binance_assets.model.intervals import Interval
from binance_assets.model.markets import Market
from binance_assets.model.spelling import did_you_mean, nearest_series
from binance_assets.settings import read_settings
from binance_assets.storage.universe import read_universe
from binance_assets.storage.universe_editor import track, untrack
from binance_assets.waiting import phase

if TYPE_CHECKING:
    from binance_assets.cli import json_output
    from binance_assets.ingest.universe_refresh import Change, Refresh

_MOST_HINTS: Final = 20  # to find names that are spelled alike takes milliseconds for each of them

_WORDS: Final = {
    "added": "added",
    "delisted": "delisted; stays tracked",
    "returned": "returned; trades again",
    "first_day": "first day changed",
    "last_day": "last day changed",
    "removed": "removed; its files stay",
}


@click.command("track")
@optional_symbols_argument
@symbols_from_option
@market_option
@intervals_option
@click.option("--no-check", is_flag=True, help="Do not ask Binance whether the symbols exist.")
def track_command(
    symbols: tuple[str, ...],
    symbols_from: str | None,
    market: Market,
    intervals: tuple[Interval, ...],
    no_check: bool,
) -> None:
    """Add series to the universe.

    The Dagster UI then shows them, and the schedules fetch them. A symbol that the market never had is an error.
    """
    from binance_assets.cli.progress import Display

    settings = read_settings(os.environ)
    names = requested_symbols(symbols, symbols_from, market, settings)
    requested = combine(names, market, intervals)
    tracked = {(member.market, member.symbol) for member in read_universe(settings.universe).series}
    new = [name for name in names if (market, name) not in tracked]
    if new and not no_check:
        with Display():
            check_known(new, market, settings)
    with Display(), phase(f"editing {settings.universe}"):
        added = set(track(settings.universe, requested))
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
    from binance_assets.cli.progress import Display

    settings = read_settings(os.environ)
    requested = combine(symbols, market, intervals)
    universe = settings.existing_universe()
    with Display(), phase(f"editing {universe}"):
        tracked = [str(series) for series in read_universe(universe).series]
        removed = set(untrack(universe, requested))
        hinted = [series for series in requested if series not in removed][:_MOST_HINTS]
        hints = {series: did_you_mean(nearest_series(str(series), tracked)) for series in hinted}
    for series in requested:
        if series in removed:
            click.echo(f"{series} is no longer tracked; its files stay")
        else:
            click.echo(f"{series} was not tracked{hints.get(series, '')}")
    if not removed:
        sys.exit(INCOMPLETE)


@click.command("series")
@json_option
def series_command(as_json: bool) -> None:
    """List the series of the universe.

    For each series, its partitions in the lake: how many they are, the first, and the last.
    """
    from binance_assets.cli.progress import Display

    settings = read_settings(os.environ)
    universe = read_universe(settings.existing_universe())
    notes = {derived.series: f"  derived from {derived.base.interval}" for derived in universe.derived}
    with Display(), phase("reading the index of the lake"):
        from binance_assets.cli.output import print_series
        from binance_assets.storage.coverage import held_by
        from binance_assets.storage.lake import Lake

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
    for note in universe.notes:
        click.echo(note, err=True)
    if not universe.tracked and not universe.notes:
        click.echo(f"{settings.universe} tracks no series yet; see binance-assets track --help", err=True)


@click.group("universe", short_help="Resolve the rules of the universe.")
def universe_group() -> None:
    """The universe: the file of the tracked series, and the rules in it."""


@universe_group.command("refresh")
@click.option("--dry-run", is_flag=True, help="Print the difference; write nothing.")
@click.option(
    "--accept-loss", is_flag=True, help="Accept a response that lacks most symbols, and a rule that has none."
)
@json_option
def refresh_command(dry_run: bool, accept_loss: bool, as_json: bool) -> None:
    """Resolve the rules of the universe into its lock file.

    What is listed comes with its first day. What is delisted, or drops out of `top`, stays tracked; `exclude` of the
    rule removes it. If a source fails, nothing changes.
    """
    from binance_assets.cli.output import print_json
    from binance_assets.cli.progress import Display
    from binance_assets.exchange.errors import ExchangeError
    from binance_assets.ingest.universe_refresh import RefreshRefused, refresh_universe

    settings = read_settings(os.environ)
    try:
        with Display() as display, phase("resolving the rules"):
            outcome = refresh_universe(settings.existing_universe(), settings, dry_run, accept_loss, display.note)
    except (ExchangeError, RefreshRefused) as error:
        raise CommandFailed(str(error)) from None
    if as_json:
        print_json(_refresh_values(outcome))
    else:
        _print_refresh(outcome, settings.universe)
    if outcome.written and outcome.changes:
        click.echo("reload the code location to see the changes in a running UI", err=True)


def _refresh_values(outcome: Refresh) -> json_output.Refreshed:
    """Return an outcome with the keys that ``--json`` prints."""
    return {
        "lock": str(outcome.path),
        "written": outcome.written,
        "rules": [
            {
                "entry": rule.entry.number,
                "market": rule.entry.market.name,
                "symbols": len(rule.locked.symbols),
                "delisted": sum(not record.listed for record in rule.locked.symbols.values()),
                "kept": list(rule.kept),
            }
            for rule in outcome.rules
        ],
        "changes": [_change_values(change) for change in outcome.changes],
    }


def _change_values(change: Change) -> json_output.SymbolChange:
    record = change.record
    return {
        "market": change.market.name,
        "symbol": change.symbol,
        "change": change.kind,
        "listed": record.listed,
        "first": record.first.isoformat() if record.first else None,
        "last": record.last.isoformat() if record.last else None,
    }


def _print_refresh(outcome: Refresh, universe: Path) -> None:
    """Print the changes as a table, and a line for each rule."""
    from binance_assets.cli.output import build_table, print_table
    from binance_assets.ingest.market_symbols import count_of

    if not outcome.rules and not outcome.changes:
        click.echo(f"{universe} has no rule, so there is nothing to refresh")
        return
    if outcome.changes:
        table = build_table(["symbol", "change", "first", "last"])
        for change in outcome.changes:
            first, last = change.record.first, change.record.last
            name = f"{change.market}/{change.symbol}"
            table.add_row(name, _WORDS[change.kind], str(first or "-"), str(last or "-"))
        print_table(table)
    for rule in outcome.rules:
        records = rule.locked.symbols.values()
        delisted = sum(not record.listed for record in records)
        kept = f", {len(rule.kept):,} of them kept although the rule no longer selects them" if rule.kept else ""
        click.echo(
            f"entry {rule.entry.number} ({rule.entry.market}: {str(rule.entry.rule) or 'no condition'}): "
            f"{count_of(records)}, {delisted:,} delisted{kept}"
        )
    counts = f"{len(outcome.changes):,} changes" if outcome.changes else "no change"
    click.echo(f"{counts}; {outcome.path} " + ("is written" if outcome.written else "is left as it was"))
