"""Control totals: what was traded according to the exchange's own ``1d`` candles.

A gap in which nothing was traded leaves the totals unchanged; candles that were lost take their trades with them. In
recorded data this holds across outages too: ETHUSDT had 1360 candles of 1m on 2023-03-24, and the sum of their trades
equals that of its ``1d`` candle exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import polars as pl

from binance_assets.candles.columns import empty_candles
from binance_assets.model.markets import AMOUNT_DECIMALS, Market
from binance_assets.model.timestamps import DAY

_HALF_A_UNIT: Final = 0.5 * 10**-AMOUNT_DECIMALS  # half of the last decimal that Binance reports
# The rounding error of a sum of floats is far below this.
_RELATIVE_TOLERANCE: Final = 1e-12


@dataclass(frozen=True, slots=True)
class Totals:
    """What was traded in a span of time.

    Attributes:
        trades: Number of trades.
        amounts: Totals of the market's value columns, in their order.
        candles: Number of candles that were added up.
    """

    trades: int
    amounts: tuple[float, ...]
    candles: int = 1


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
    summed = candles.group_by(day.alias("day")).agg(pl.col("trades", *market.value_columns).sum(), pl.len())
    return {row[0]: Totals(row[1], row[2:-1], row[-1]) for row in summed.iter_rows()}


def combine(days: Mapping[int, Totals], start: int, end: int) -> Totals:
    """Return the sum of the days in ``[start, end)``, ms UTC; days without totals add nothing."""
    chosen = [days[day] for day in range(start, end, DAY) if day in days]
    if len(chosen) == 1:
        return chosen[0]
    columns = zip(*(totals.amounts for totals in chosen), strict=True)
    amounts = tuple(map(math.fsum, columns)) or (0.0,) * 4
    return Totals(sum(totals.trades for totals in chosen), amounts, sum(totals.candles for totals in chosen))


def discrepancy(market: Market, actual: Totals, control: Totals) -> str | None:
    """Return how two totals differ, as text; None if they agree.

    Trades must agree exactly, and volumes to half of the eighth decimal, or to 1e-12 of the volume if that is more. A
    quote or base volume is price times quantity, which the exchange rounds in each candle (in recorded COIN-M candles
    of a single price by at most half of the eighth decimal), so there the tolerance grows with the number of candles.

    Args:
        market: The market.
        actual: The totals of the candles.
        control: The control totals, from the exchange's own ``1d`` candles.
    """
    if actual.trades != control.trades:
        return f"{actual.trades:,} trades of {control.trades:,}"
    _, turnover, _, taker_turnover = market.value_columns
    for name, amount, expected in zip(market.value_columns, actual.amounts, control.amounts, strict=True):
        roundings = max(1, actual.candles) if name in (turnover, taker_turnover) else 1
        if abs(amount - expected) > max(roundings * _HALF_A_UNIT, _RELATIVE_TOLERANCE * abs(expected)):
            return f"{name} {amount:,.{AMOUNT_DECIMALS}f} of {expected:,.{AMOUNT_DECIMALS}f}"
    return None
