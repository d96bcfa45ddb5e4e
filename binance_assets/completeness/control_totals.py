"""The exchange's own sums: what its ``1d`` candles say was traded, to hold a period's candles against.

A hole in which nothing was traded leaves the sums as they are; candles that were lost take their trades with them. On
recorded data this holds across outages too: ETHUSDT had 1360 candles of a minute on 2023-03-24, and their trades are
those of its ``1d`` candle to the last one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import polars as pl

from binance_assets.candles.columns import empty_candles
from binance_assets.model.markets import Market
from binance_assets.model.timestamps import DAY

# Binance counts amounts to eight decimals at the most. A sum of floats is off by far less than the relative part.
_HALF_A_UNIT: Final = 0.5e-8


_RELATIVE: Final = 1e-12


@dataclass(frozen=True, slots=True)
class Totals:
    """What was traded in a span of time.

    Attributes:
        trades: Number of trades.
        amounts: Totals of the market's value columns, in their order.
        candles: From how many candles they were added up.
    """

    trades: int
    amounts: tuple[float, ...]
    candles: int = 1


class ControlTotals:
    """The ``1d`` candles of a symbol, as far as they were had.

    Args:
        market: The market.
        daily: Candles of ``1d``, ascending; None for none.
    """

    def __init__(self, market: Market, daily: pl.DataFrame | None = None) -> None:
        self.market = market
        self.daily = empty_candles(market) if daily is None else daily
        self._days = totals_by_day(market, self.daily)

    def has(self, day: int) -> bool:
        """Whether there is a candle that opens at ``day``, ms UTC."""
        return day in self._days

    @property
    def first(self) -> int | None:
        """Open time of the first candle, ms UTC; None where there is none."""
        return min(self._days, default=None)

    @property
    def last(self) -> int | None:
        """Open time of the last candle, ms UTC; None where there is none."""
        return max(self._days, default=None)

    def sums(self, start: int, end: int, starts_here: bool = False) -> Totals | None:
        """What was traded in the days from ``start`` to ``end``, ms UTC; None where one of them is not in the books.

        Args:
            start: First day.
            end: Day after the last.
            starts_here: Whether the symbol's first trade is in the span: there are no days before it.
        """
        begin = max(start, self.first or start) if starts_here else start
        return None if begin >= end or self.lacks_any(begin, end) else total(self._days, begin, end)

    def continues_after(self, day: int) -> bool:
        """Whether there is a candle that opens at ``day`` (ms UTC) or later."""
        return self.last is not None and self.last >= day

    def lacks_any(self, start: int, end: int) -> bool:
        """Whether a day from ``start`` to ``end`` (ms UTC) is not in the books."""
        return any(day not in self._days for day in range(start, end, DAY))

    def merged_with(self, daily: pl.DataFrame) -> ControlTotals:
        """These books with newer candles in the place of older ones."""
        both = pl.concat([self.daily, daily]).unique("open_time", keep="last").sort("open_time")
        return ControlTotals(self.market, both)


def totals_by_day(market: Market, candles: pl.DataFrame) -> dict[int, Totals]:
    """The totals of a table of candles by the day in which they open, ms UTC."""
    day = pl.col("open_time").to_physical() // DAY * DAY
    summed = candles.group_by(day.alias("day")).agg(pl.col("trades", *market.value_columns).sum(), pl.len())
    return {row[0]: Totals(row[1], row[2:-1], row[-1]) for row in summed.iter_rows()}


def total(days: Mapping[int, Totals], start: int, end: int) -> Totals:
    """The sum of the days from ``start`` to ``end``, ms UTC; days that are not there count as nothing."""
    chosen = [days[day] for day in range(start, end, DAY) if day in days]
    if len(chosen) == 1:
        return chosen[0]
    amounts = zip(*(sums.amounts for sums in chosen), strict=True)
    totals = tuple(map(math.fsum, amounts)) or (0.0,) * 4
    return Totals(sum(sums.trades for sums in chosen), totals, sum(sums.candles for sums in chosen))


def difference(market: Market, ours: Totals, theirs: Totals) -> str:
    """What keeps two sums from balancing, in words; empty where they balance.

    Trades must agree exactly, and volumes to half of the eighth decimal, or 1e-12 of themselves where that is more. A
    turnover is price times volume, which the exchange rounds in each candle (in recorded COIN-M candles of one price by
    half of the eighth decimal at the most), so there each candle adds as much.

    Args:
        market: The market.
        ours: The sum of the candles.
        theirs: What the exchange's own candle says.
    """
    if ours.trades != theirs.trades:
        return f"{ours.trades:,} trades of {theirs.trades:,}"
    _, turnover, _, taker_turnover = market.value_columns
    for name, one, other in zip(market.value_columns, ours.amounts, theirs.amounts, strict=True):
        rounded = max(1, ours.candles) if name in (turnover, taker_turnover) else 1
        if abs(one - other) > max(rounded * _HALF_A_UNIT, _RELATIVE * abs(other)):
            return f"{name} {one:.10g} of {other:.10g}"
    return ""
