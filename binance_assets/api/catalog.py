"""What there is: the coverage of the lake, and the symbols of a market."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing

import polars as pl

from binance_assets.api.arguments import SeriesName, all_series_of, current_settings, lake_at, market_of
from binance_assets.exchange.session import Exchange
from binance_assets.ingest.market_symbols import find_symbols
from binance_assets.model.bucket_paths import LakePath
from binance_assets.model.markets import Market
from binance_assets.model.rules import SymbolRule, make_rule
from binance_assets.model.series import by_market
from binance_assets.settings import ConfigurationError, Settings
from binance_assets.storage.coverage import coverage_table, coverages_of
from binance_assets.storage.lake import Lake

_SYMBOLS: dict[str, pl.DataType] = {
    "symbol": pl.String(),
    "listed": pl.Boolean(),
    "status": pl.String(),
    "quote": pl.String(),
    "contract": pl.String(),
    "first": pl.Date(),
    "last": pl.Date(),
    "volume": pl.Float64(),
}


def coverage(
    series: SeriesName | Sequence[SeriesName] | None = None, *, lake: str | LakePath | Lake | None = None
) -> pl.DataFrame:
    """Return what the lake holds of each series, one row each.

    Args:
        series: One or several series; None for all that have a folder in the lake.
        lake: The folder of the lake; None for that of the settings.

    Returns:
        The columns of :func:`binance_assets.storage.coverage.coverage_table` without ``refused``, which only Dagster
        knows: refused partitions count as ``missing``, as do all others from the first stored one until today, also
        those after the end of a delisted symbol.

    Raises:
        LakeError: A file may not be read.
        ConfigurationError: An argument or a setting is not valid.
    """
    source = lake_at(lake)
    members = source.series() if series is None else all_series_of(series)
    today = dt.datetime.now(dt.UTC).date()
    entries = {}
    for market, of_market in by_market(members).items():
        index = source.file_index(market, of_market)
        entries.update({entry.series: entry for entry in coverages_of(index, of_market, today, {})})
    return coverage_table(entries[member] for member in members).drop("refused")


def symbols(
    market: str | Market,
    *,
    quote: str | Sequence[str] = (),
    status: str | Sequence[str] = (),
    contract: str | Sequence[str] = (),
    match: str | None = None,
    top: int | None = None,
    delisted: bool = False,
    days: bool = False,
    report: Callable[[str], None] = lambda line: None,
    settings: Settings | None = None,
) -> pl.DataFrame:
    """Return the symbols of a market that fulfill all conditions, by name, or the largest volume first with ``top``.

    Args:
        market: ``spot``, ``usdm``, or ``coinm``.
        quote: Quote assets, such as ``USDT``.
        status: Statuses in exchangeInfo, such as ``TRADING``.
        contract: Contract types, such as ``PERPETUAL``.
        match: A regular expression that matches the whole symbol.
        top: Only so many, by their quote volume of the last 24 hours.
        delisted: Whether to add the symbols that no longer trade.
        days: Whether to ask for first and last days, which takes a request for each symbol.
        report: Receives a line about each step that takes long.
        settings: The settings; None for those of the environment.

    Returns:
        The columns ``symbol, listed, status, quote, contract, first, last, volume``. The contract type is empty on
        spot. Days are null without ``days``, volumes without ``top``.

    Raises:
        ExchangeError: A request failed.
        ConfigurationError: An argument or a setting is not valid.
    """
    try:
        where = market_of(market)
        rule = _rule(where, quote, status, contract, match, top, delisted)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    chosen = settings or current_settings()
    with closing(Exchange(where, chosen)) as exchange:
        found = find_symbols(exchange, rule, days, chosen.source == "archive", report)
    rows = [
        (
            entry.symbol.symbol,
            entry.symbol.listed,
            entry.symbol.status,
            entry.symbol.quote,
            entry.symbol.contract,
            entry.first,
            entry.last,
            entry.volume,
        )
        for entry in found
    ]
    return pl.DataFrame(rows, schema=_SYMBOLS, orient="row")


def _rule(
    market: Market,
    quote: str | Sequence[str],
    status: str | Sequence[str],
    contract: str | Sequence[str],
    match: str | None,
    top: int | None,
    delisted: bool,
) -> SymbolRule:
    """Return the rule of the conditions.

    Raises:
        ValueError: A condition is not valid, or makes no sense on this market.
    """
    lists = {
        name: list(names) if isinstance(names, Iterable) and not isinstance(names, str) else [names]
        for name, names in (("quote", quote), ("status", status), ("contract", contract))
    }
    given = {name: value for name, value in (("match", match), ("top", top)) if value is not None}
    rule = make_rule({**lists, "delisted": delisted, **given})
    rule.check_for(market)
    return rule
