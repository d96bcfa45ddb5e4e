"""Control totals: what was traded according to the exchange's own ``1d`` candles.

A gap in which nothing was traded leaves the totals unchanged; candles that were lost take their trades with them. In
recorded data this holds across outages too: ETHUSDT had 1360 candles of 1m on 2023-03-24, and the sum of their trades
equals that of its ``1d`` candle exactly.

The prices of the ``1d`` candle prove the prices: the first open, the highest high, the lowest low, and the last close
of the candles with trades. Binance ignores the prices of candles without trades.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from binance_assets.candles.columns import PRICES, empty_candles
from binance_assets.model.markets import AMOUNT_DECIMALS, COINM, Market
from binance_assets.model.timestamps import DAY

UNIT: Final = 10**AMOUNT_DECIMALS
"""Amounts are added up as integers, in units of the last decimal that Binance reports."""

# Float64 holds an amount to one part in 2**53. Of both totals together, and of the multiplication that makes units of
# them, this is more than what remains. Below 22 million it is less than a unit, so the totals must be equal.
_FLOAT_ROUNDING: Final = 2**-51


@dataclass(frozen=True, slots=True)
class Totals:
    """What was traded in a span of time.

    Attributes:
        trades: Number of trades.
        amounts: Totals of the market's value columns, in their order, in :data:`UNIT` parts of the asset.
        candles: Number of candles that were added up.
        prices: First open, highest high, lowest low, and last close of the candles with trades; None without trades.
    """

    trades: int
    amounts: tuple[int, ...]
    candles: int = 1
    prices: tuple[float, float, float, float] | None = None


class ControlTotals:
    """The ``1d`` candles of a symbol, as far as they are known, and their totals.

    Args:
        market: The market.
        daily: Candles of ``1d``, ascending, with the columns of the market; None for no candles.
        suspended: The days on which trading was suspended, ms UTC: neither source has a candle of them, and the symbol
            was traded before and after. They add nothing to a total.
    """

    def __init__(
        self, market: Market, daily: pl.DataFrame | None = None, suspended: frozenset[int] = frozenset()
    ) -> None:
        self.market = market
        self.suspended = suspended
        self.daily = empty_candles(market) if daily is None else daily
        self._days = totals_by_day(market, self.daily)

    def has_day(self, day: int) -> bool:
        """Return whether a candle opens at ``day``, ms UTC."""
        return day in self._days

    def covers(self, start: int, end: int) -> bool:
        """Return whether a candle opens on every day in ``[start, end)`` (ms UTC) on which trading went on."""
        return all(day in self._days or day in self.suspended for day in range(start, end, DAY))

    def extends_to(self, day: int) -> bool:
        """Return whether a candle opens at ``day`` (ms UTC) or later."""
        return self.last is not None and self.last >= day

    @property
    def first(self) -> int | None:
        """Open time of the first candle, ms UTC; None without candles."""
        return min(self._days, default=None)

    @property
    def last(self) -> int | None:
        """Open time of the last candle, ms UTC; None without candles."""
        return max(self._days, default=None)

    def totals_for(self, start: int, end: int, includes_first_trade: bool = False) -> Totals | None:
        """Return what was traded from ``start`` to ``end``; None if the candle of any of these days is unknown.

        Args:
            start: First day, ms UTC.
            end: Day after the last one, ms UTC.
            includes_first_trade: Whether the symbol's first trade is in the span, so that days before it have no
                candle.
        """
        begin = max(start, self.first or start) if includes_first_trade else start
        return combine(self._days, begin, end) if begin < end and self.covers(begin, end) else None

    def merged_with(self, daily: pl.DataFrame) -> ControlTotals:
        """Return these control totals with newer ``1d`` candles in place of older ones."""
        both = pl.concat([self.daily, daily]).unique("open_time", keep="last").sort("open_time")
        return ControlTotals(self.market, both, self.suspended - frozenset(daily["open_time"].to_physical()))

    def with_suspended(self, days: Iterable[int]) -> ControlTotals:
        """Return these control totals with ``days`` (ms UTC) on which trading was suspended."""
        return ControlTotals(self.market, self.daily, self.suspended.union(days))


def totals_by_day(market: Market, candles: pl.DataFrame, step: int = DAY) -> dict[int, Totals]:
    """Return the totals of a table of candles (in any order), by the day in which they open, ms UTC.

    Args:
        market: The market.
        candles: The candles.
        step: The length of another span instead of the day, ms.
    """
    day = pl.col("open_time").to_physical() // step * step
    traded = pl.col("trades") > 0
    # A float that is multiplied by 10**8 and rounded is the decimal number that Binance sent. Int128 holds any sum.
    units = (pl.col(market.value_columns) * UNIT).round().cast(pl.Int128).sum()
    prices = [
        pl.col("open").filter(traded).first(),
        pl.col("high").filter(traded).max(),
        pl.col("low").filter(traded).min(),
        pl.col("close").filter(traded).last(),
    ]
    in_order = candles if candles["open_time"].is_sorted() else candles.sort("open_time")
    summed = in_order.group_by(day.alias("day")).agg(pl.col("trades").sum(), units, pl.len().alias("candles"), *prices)
    return {row[0]: Totals(row[1], row[2:6], row[6], None if row[7] is None else row[7:]) for row in summed.iter_rows()}


def combine(days: Mapping[int, Totals], start: int, end: int) -> Totals:
    """Return the totals of the days in ``[start, end)``, ms UTC; days without totals add nothing."""
    chosen = [days[day] for day in range(start, end, DAY) if day in days]
    if len(chosen) == 1:
        return chosen[0]
    columns = zip(*(totals.amounts for totals in chosen), strict=True)
    amounts = tuple(map(sum, columns)) or (0,) * 4
    candles = sum(totals.candles for totals in chosen)
    return Totals(sum(totals.trades for totals in chosen), amounts, candles, _combine_prices(chosen))


def _combine_prices(days: Sequence[Totals]) -> tuple[float, float, float, float] | None:
    prices = [totals.prices for totals in days if totals.prices is not None]
    if not prices:
        return None
    opens, highs, lows, closes = zip(*prices, strict=True)
    return opens[0], max(highs), min(lows), closes[-1]


def discrepancy(market: Market, actual: Totals, control: Totals) -> str | None:
    """Return how the trades and amounts of two totals differ, as text; None if they agree.

    They must be equal, but for the rounding of Float64. Only the base volumes of COIN-M may drift, by half a unit for
    each candle, because each candle is rounded.

    Source: 1,855 spot days of 1m, 162,000 spot symbol-days by REST, and 258,553 USD-M days of 4h, as exact decimals. On
    some days the intervals of USD-M disagree market-wide. No COIN-M days are recorded in two intervals.

    Args:
        market: The market.
        actual: The totals of the candles.
        control: The control totals, from the exchange's own ``1d`` candles.
    """
    if actual.trades != control.trades:
        return f"{actual.trades:,} trades of {control.trades:,}"
    for name, amount, expected in zip(market.value_columns, actual.amounts, control.amounts, strict=True):
        drift = (actual.candles + 1) // 2 if market is COINM and "base" in name else 0
        if abs(amount - expected) > max(drift, int(_FLOAT_ROUNDING * abs(expected))):
            return f"{name} {_decimal(amount)} of {_decimal(expected)}"
    return None


def price_discrepancy(actual: Totals, control: Totals) -> str | None:
    """Return how the prices of two totals differ, as text; None if they agree, or if nothing was traded.

    Source: they are equal without exception on the days for which :func:`discrepancy` names its sources, except that
    no COIN-M days are recorded in two intervals.
    """
    if actual.prices is None or control.prices is None:
        return None
    pairs = zip(PRICES, actual.prices, control.prices, strict=True)
    return next((f"{name} {price} of {expected}" for name, price, expected in pairs if price != expected), None)


def any_discrepancy(market: Market, actual: Totals, control: Totals) -> str | None:
    """Return how two totals differ, as text: trades, amounts, or prices; None if they agree.

    Prices do not count on COIN-M, where nothing shows that they have to agree.
    """
    prices = None if market is COINM else price_discrepancy(actual, control)
    return discrepancy(market, actual, control) or prices


def _decimal(units: int) -> str:
    """Return an amount with all its decimals."""
    whole, part = divmod(abs(units), UNIT)
    return f"{'-' if units < 0 else ''}{whole:,}.{part:0{AMOUNT_DECIMALS}}"
