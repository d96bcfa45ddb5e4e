"""A series of candles: a market, a symbol and an interval."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from binance_assets.model.intervals import Interval, parse_derived_interval, parse_interval
from binance_assets.model.markets import MARKETS, Market, parse_market
from binance_assets.model.spelling import did_you_mean_series
from binance_assets.model.symbol_names import is_symbol

_LONGEST_TAG: Final = 63


@dataclass(frozen=True, slots=True)
class Series:
    """One series of candles, written ``spot/BTCUSDT/1m``.

    Attributes:
        market: The market.
        symbol: The symbol, as Binance writes it.
        interval: The interval.
        derived: Whether its candles are derived from a finer series, so that it may have an interval that the market
            lacks. Comparisons ignore it: how the candles are obtained does not change which series it is.

    Raises:
        ValueError: The symbol is not written as Binance writes symbols; the market lacks the interval; or the interval
            is too long to be derived.
    """

    market: Market
    symbol: str
    interval: Interval
    derived: bool = field(default=False, compare=False, kw_only=True)

    def __post_init__(self) -> None:
        if not is_symbol(self.symbol):
            raise ValueError(
                f"{self.symbol!r} is not a symbol; Binance writes them like BTCUSDT, ETHUSDT_260327 or BTCUSD_PERP"
            )
        if not is_trackable(self.symbol):
            raise ValueError(f"{self.symbol!r} is too long for a Dagster tag")
        if self.derived and self.interval.is_multi_day:
            raise ValueError(f"{self.interval} cannot be derived, it is longer than a day")
        if not self.derived and self.interval not in self.market.intervals:
            raise ValueError(f"{self.market.title} has no candles of {self.interval}")

    def __str__(self) -> str:
        return f"{self.market}/{self.symbol}/{self.interval}"

    @property
    def key(self) -> tuple[str, str, str]:
        """The parts of the asset key; a symbol outside ASCII becomes ``xn_`` and its punycode."""
        return (self.market.name, ascii_symbol(self.symbol), self.interval.name)


def derived_series(market: Market, symbol: str, interval: Interval) -> Series:
    """Return the derived series of ``interval`` (at most a day), whether or not Binance has that interval.

    Raises:
        ValueError: The symbol is not written as Binance writes symbols, or the interval is too long.
    """
    return Series(market, symbol, interval, derived=True)


def by_market(series: Iterable[Series]) -> dict[Market, list[Series]]:
    """Group series by market, in the order of the markets; markets without series are left out."""
    members: dict[Market, list[Series]] = {market: [] for market in MARKETS.values()}
    for entry in series:
        members[entry.market].append(entry)
    return {market: of_market for market, of_market in members.items() if of_market}


def ascii_symbol(symbol: str) -> str:
    """Return ``symbol`` in characters that Dagster's asset keys, op names and tags allow: its punycode if not ASCII."""
    if symbol.isascii():
        return symbol
    return "xn_" + symbol.encode("punycode").decode("ascii").replace("-", "_")


def is_trackable(symbol: str) -> bool:
    """Return whether ``symbol`` can be part of a series: it is written as one, and a Dagster tag has room for it."""
    return is_symbol(symbol) and len(ascii_symbol(symbol)) <= _LONGEST_TAG


def parse_series(text: str) -> Series:
    """Return the fetched series that ``text`` names, such as ``spot/BTCUSDT/1m``.

    Raises:
        ValueError: There is no such series; the message says why, and how the series is spelled that is probably meant.
    """
    try:
        return _parse(text)
    except ValueError as error:
        raise ValueError(f"{error}{did_you_mean_series(text, _is_series)}") from None


def parse_any_series(text: str) -> Series:
    """Return the series that ``text`` names, fetched or derived, such as ``spot/BTCUSDT/45m``.

    Raises:
        ValueError: As for :func:`parse_series`.
    """
    try:
        return _parse_any(text)
    except ValueError as error:
        raise ValueError(f"{error}{did_you_mean_series(text, _is_series)}") from None


def _parse(text: str) -> Series:
    parts = text.split("/")
    if len(parts) != 3:
        raise ValueError(f"{text!r} is not a series; write market/SYMBOL/interval, such as spot/BTCUSDT/1m")
    return Series(parse_market(parts[0]), parts[1], parse_interval(parts[2]))


def _parse_any(text: str) -> Series:
    try:
        return _parse(text)
    except ValueError:
        if text.count("/") != 2:
            raise
        market, symbol, interval = text.split("/")
        return derived_series(parse_market(market), symbol, parse_derived_interval(interval))


def _is_series(text: str) -> bool:
    try:
        _parse_any(text)
    except ValueError:
        return False
    return True
