"""The command ``symbols``, and what ``track`` and ``download`` share with it: queries for symbols, and known names."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from binance_assets.cli.exit_codes import CommandFailed
from binance_assets.cli.options import MarketType, json_option
from binance_assets.model.markets import Market
from binance_assets.model.outside import printable
from binance_assets.model.rules import MarketSymbol, SymbolRule, make_rule, parse_rule
from binance_assets.model.symbol_names import spelled
from binance_assets.settings import ConfigurationError, Settings, read_settings
from binance_assets.waiting import phase

if TYPE_CHECKING:
    from binance_assets.cli import json_output
    from binance_assets.exchange.session import Exchange
    from binance_assets.ingest.market_symbols import FoundSymbol

_MOST_BYTES: Final = 1_000_000


@click.command("symbols")
@click.argument("market", type=MarketType(), metavar="MARKET")
@click.option("--quote", multiple=True, help="Quote asset, such as USDT; may be repeated.")
@click.option("--status", multiple=True, help="Status in exchangeInfo, such as trading; may be repeated.")
@click.option("--contract", multiple=True, help="Contract type, such as perpetual; may be repeated.")
@click.option("--match", metavar="REGEX", help="Regular expression that matches the whole symbol.")
@click.option("--top", type=int, help="Only so many, by their quote volume of the last 24 hours.")
@click.option("--delisted", is_flag=True, help="Add the symbols that no longer trade; --top does not count them.")
@click.option("--no-days", is_flag=True, help="Leave out first and last days, which take a request for each symbol.")
@json_option
def symbols_command(
    market: Market,
    quote: tuple[str, ...],
    status: tuple[str, ...],
    contract: tuple[str, ...],
    match: str | None,
    top: int | None,
    delisted: bool,
    no_days: bool,
    as_json: bool,
) -> None:
    """List what MARKET (spot, usdm, coinm) has and had.

    For each symbol, its status, its first and last day, and whether it is listed or delisted: from exchangeInfo, the
    first candle, and the listing of the public archive. The same conditions make a rule of the universe.
    """
    conditions: dict[str, Any] = {"quote": _split(quote), "status": _split(status), "contract": _split(contract)}
    conditions["delisted"] = delisted
    conditions |= {name: value for name, value in (("match", match), ("top", top)) if value is not None}
    settings, rule = read_settings(os.environ), _rule(market, conditions)
    found, why_none = _find(market, rule, settings, with_days=not no_days)
    if as_json or found:
        _print_symbols(market, found, as_json, with_days=not no_days)
    if why_none is not None:
        raise CommandFailed(why_none)


def _split(values: Sequence[str]) -> list[str]:
    return [name for value in values for name in value.split(",")]


def _rule(market: Market, conditions: dict[str, Any]) -> SymbolRule:
    try:
        rule = make_rule(conditions)
        rule.check_for(market)
    except ValueError as error:
        raise ConfigurationError(f"--{error}") from None
    return rule


def _find(
    market: Market, rule: SymbolRule, settings: Settings, with_days: bool
) -> tuple[Sequence[FoundSymbol], str | None]:
    """Return the symbols that a rule selects, and one line if there is no such symbol; show the progress."""
    from binance_assets.cli.progress import Display
    from binance_assets.ingest.market_symbols import NothingSelected, find_symbols

    archive_alone = settings.source == "archive"
    with Display() as display, _open_exchange(market, settings) as exchange, phase(f"asking for symbols of {market}"):
        try:
            return find_symbols(exchange, rule, with_days, archive_alone, display.note, must_find=True), None
        except NothingSelected as error:
            return [], str(error)


@contextmanager
def _open_exchange(market: Market, settings: Settings) -> Iterator[Exchange]:
    """Open a market's exchange; an error of the exchange ends the command."""
    from binance_assets.exchange.errors import ExchangeError
    from binance_assets.exchange.session import Exchange

    exchange = Exchange(market, settings)
    try:
        yield exchange
    except ExchangeError as error:
        raise CommandFailed(str(error)) from None
    finally:
        exchange.close()


def _print_symbols(market: Market, found: Sequence[FoundSymbol], as_json: bool, with_days: bool) -> None:
    from binance_assets.cli.output import build_table, print_json, print_table

    if as_json:
        print_json({"market": market.name, "symbols": [_values(entry, with_days) for entry in found]})
        return
    has_volumes = any(entry.volume is not None for entry in found)
    columns = ["symbol", "state", "status", "quote", *(["contract"] if market.name != "spot" else [])]
    table = build_table([*columns, *(["first", "last"] if with_days else [])], ["quote volume"] if has_volumes else [])
    for entry in found:
        member, first, last = entry.symbol, entry.first, entry.last
        cells = [member.symbol, _state(member), member.status or "-", member.quote or "-"]
        cells += [member.contract or "-"] if market.name != "spot" else []
        cells += [str(first or "-"), str(last or "-")] if with_days else []
        cells += [f"{entry.volume:,.0f}" if entry.volume is not None else "-"] if has_volumes else []
        table.add_row(*(printable(cell) for cell in cells))
    print_table(table)
    listed = sum(entry.symbol.listed for entry in found)
    click.echo(f"{len(found):,} symbols: {listed:,} listed, {len(found) - listed:,} delisted", err=True)


def _state(member: MarketSymbol) -> Literal["listed", "delisted"]:
    return "listed" if member.listed else "delisted"


def _values(entry: FoundSymbol, with_days: bool) -> json_output.FoundSymbol:
    member, first, last = entry.symbol, entry.first, entry.last
    values: json_output.FoundSymbol = {
        "symbol": member.symbol,
        "state": _state(member),
        "status": member.status or None,
        "quote": member.quote or None,
        "contract": member.contract or None,
    }
    if with_days:
        values |= {"first": first.isoformat() if first else None, "last": last.isoformat() if last else None}
    if entry.volume is not None:
        values["quote_volume"] = entry.volume
    return values


# -- symbols of other commands ---------------------------------------------------------------------------------------


def requested_symbols(
    symbols: Sequence[str], symbols_from: str | None, market: Market, settings: Settings
) -> list[str]:
    """Return the symbols that a command's arguments name, as Binance spells them.

    Args:
        symbols: The arguments.
        symbols_from: A query, or the path of a file with symbols.
        market: The market.
        settings: Hosts and limits, for a query.

    Raises:
        ConfigurationError: There is none, a symbol belongs to another market, or query or file is not valid.
    """
    if not symbols and symbols_from is None:
        raise click.UsageError("Missing argument 'SYMBOL...', or the option --symbols-from.")
    try:
        named = spelled(symbols, market)
        if symbols_from is None:
            return named
        # A query may be longer than the name of a file can be: `os.path` then answers no, and `Path` raises.
        if "=" not in symbols_from or os.path.isfile(symbols_from):
            return list(dict.fromkeys([*named, *spelled(_lines(symbols_from), market)]))
        rule = parse_rule(symbols_from)
        rule.check_for(market)
    except ValueError as error:
        raise ConfigurationError(f"{'--symbols-from: ' if symbols_from else ''}{error}") from None
    found, why_none = _find(market, rule, settings, with_days=False)
    if why_none is not None:
        raise ConfigurationError(f"--symbols-from: {why_none}")
    return list(dict.fromkeys([*named, *(entry.symbol.symbol for entry in found)]))


def _lines(path: str) -> list[str]:
    """Return the symbols in a file, or in the standard input for ``-``; the rest of a line after ``#`` is a comment.

    Raises:
        ConfigurationError: It cannot be read, or names no symbol.
    """
    try:
        if path == "-":
            content = sys.stdin.buffer.read(_MOST_BYTES + 1)
        else:
            with Path(path).open("rb") as file:
                content = file.read(_MOST_BYTES + 1)
        text = content.decode()
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"--symbols-from {printable(path)}: cannot be read ({printable(error)})") from None
    if len(content) > _MOST_BYTES:
        raise ConfigurationError(f"--symbols-from {printable(path)}: is larger than {_MOST_BYTES:,} bytes")
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    if not any(lines):
        raise ConfigurationError(f"--symbols-from {printable(path)}: names no symbol")
    return [line for line in lines if line]


def check_known(symbols: Sequence[str], market: Market, settings: Settings) -> None:
    """Refuse symbols that a market never had, all in one message with the nearest names.

    If the exchange cannot be asked, a line says that the names were not checked.

    Raises:
        ConfigurationError: A symbol is unknown.
    """
    from binance_assets.exchange.errors import ExchangeError
    from binance_assets.exchange.session import Exchange
    from binance_assets.ingest.market_symbols import why_unknown

    exchange = Exchange(market, settings)
    try:
        with phase(f"asking {market.title} for the names of its symbols"):
            message = why_unknown(exchange, symbols)
    except ExchangeError as error:
        click.echo(f"the names were not checked, because {market.title} cannot be asked: {printable(error)}", err=True)
        return
    finally:
        exchange.close()
    if message is not None:
        raise ConfigurationError(message)
