"""Control totals: what was traded according to the exchange's own ``1d`` candles.

A gap in which nothing was traded leaves the totals unchanged; candles that were lost take their trades with them. In
recorded data this holds across outages too: ETHUSDT had 1360 candles of 1m on 2023-03-24, and the sum of their trades
equals that of its ``1d`` candle exactly.

The prices of the ``1d`` candle prove the prices: the first open, the highest high, the lowest low, and the last close
of the candles with trades. Binance ignores the prices of candles without trades.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import polars as pl

from binance_assets.candles.columns import PRICES
from binance_assets.model.markets import AMOUNT_DECIMALS, COINM, Market
from binance_assets.model.timestamps import DAY

UNIT: Final = 10**AMOUNT_DECIMALS
"""Amounts are added up as integers, in units of the last decimal that Binance reports."""

# Below this amount (67 million) the Float64 of a decimal number with eight places names that number and no other: it is
# off by at most 2**-28, 0.37 of a unit, and the steps below add less than 0.01. So rounding to units restores it.
_FIRST_ROUNDED: Final = 2**26

# From there on, the Float64 of an amount is off by at most one part in 2**53, which is 0.74 of a unit or more, and
# rounding to units adds at most half a unit and 0.01. Together that is less than 1.7 parts in 2**53, and so less than
# this share, also of the whole part alone.
_ROUNDING: Final = 2**-52

_NOTHING: Final = (0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Totals:
    """What was traded in a span of time.

    Attributes:
        trades: Number of trades.
        amounts: Totals of the market's value columns, in their order, in :data:`UNIT` parts of the asset.
        candles: Number of candles that were added up.
        prices: First open, highest high, lowest low, and last close of the candles with trades; None without trades.
        rounding: By how many units each total may be wrong, because Float64 rounds amounts from 67 million on.
    """

    trades: int
    amounts: tuple[int, ...]
    candles: int = 1
    prices: tuple[float, float, float, float] | None = None
    rounding: tuple[int, ...] = _NOTHING


class ControlTotals:
    """The totals of a symbol's ``1d`` candles, as far as these are known.

    Args:
        days: The totals of each ``1d`` candle, by its open time, ms UTC; None for no candles.
        suspended: The days on which trading was suspended, ms UTC: neither source has a candle of them, and the symbol
            was traded before and after. They add nothing to a total.
    """

    def __init__(self, days: Mapping[int, Totals] | None = None, suspended: frozenset[int] = frozenset()) -> None:
        self.suspended = suspended
        self._days = dict(days or {})

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

    def merged_with(self, days: Mapping[int, Totals]) -> ControlTotals:
        """Return these control totals with those of newer ``1d`` candles in place of older ones."""
        return ControlTotals({**self._days, **days}, self.suspended - days.keys())

    def with_suspended(self, days: Iterable[int]) -> ControlTotals:
        """Return these control totals with ``days`` (ms UTC) on which trading was suspended."""
        return ControlTotals(self._days, self.suspended.union(days))


def totals_by_day(market: Market, candles: pl.DataFrame, step: int = DAY) -> dict[int, Totals]:
    """Return the totals of a table of candles (in any order), by the day in which they open, ms UTC.

    Args:
        market: The market.
        candles: The candles.
        step: The length of another span instead of the day, ms.
    """
    day = pl.col("open_time").to_physical() // step * step
    traded = pl.col("trades") > 0
    # The whole part and the rest of an amount are exact. Multiplied as one, a large amount would be rounded once more.
    # Int128 holds any sum.
    amounts = pl.col(market.value_columns)
    whole = amounts.floor()
    sums = [
        whole.cast(pl.Int128).sum().name.prefix("whole "),
        ((amounts - whole) * UNIT).round().cast(pl.Int64).sum().name.prefix("rest of "),
        whole.filter(whole >= _FIRST_ROUNDED).sum().name.prefix("rounded "),
    ]
    prices = [
        pl.col("open").filter(traded).first(),
        pl.col("high").filter(traded).max(),
        pl.col("low").filter(traded).min(),
        pl.col("close").filter(traded).last(),
    ]
    in_order = candles if candles["open_time"].is_sorted() else candles.sort("open_time")
    summed = in_order.group_by(day.alias("day")).agg(pl.col("trades").sum(), pl.len().alias("candles"), *prices, *sums)
    return {row[0]: _totals(row[1], row[2], row[3:7], row[7:11], row[11:15], row[15:]) for row in summed.iter_rows()}


def _totals(
    trades: int,
    candles: int,
    prices: tuple[float, float, float, float] | tuple[None, ...],
    whole: tuple[int, ...],
    rest: tuple[int, ...],
    rounded: tuple[float, ...],
) -> Totals:
    """Return totals from the sums of the whole parts, of the rests (in units), and of the amounts that are rounded."""
    amounts = tuple(part * UNIT + units for part, units in zip(whole, rest, strict=True))
    rounding = tuple(int(amount * UNIT * _ROUNDING) for amount in rounded)
    return Totals(trades, amounts, candles, None if prices[0] is None else prices, rounding)


def with_exact_amounts(totals: Totals, amounts: Sequence[int] | None) -> Totals:
    """Return the totals of a candle with its amounts as its text has them.

    Args:
        totals: The totals of the candle as a row of a table.
        amounts: Its amounts, in units; None if they are not known. They are ignored if they cannot be those of the row.
    """
    if amounts is None or any(
        abs(exact - amount) > rounding
        for exact, amount, rounding in zip(amounts, totals.amounts, totals.rounding, strict=True)
    ):
        return totals
    return replace(totals, amounts=tuple(amounts), rounding=_NOTHING)


def combine(days: Mapping[int, Totals], start: int, end: int, step: int = DAY) -> Totals:
    """Return the totals of the days in ``[start, end)``, ms UTC; days without totals add nothing.

    Args:
        days: The totals, by the time at which each day begins, ms UTC.
        start: Where the first day begins.
        end: Where the last one ends.
        step: The length of another span instead of the day, ms.
    """
    chosen = [days[day] for day in range(start, end, step) if day in days]
    if len(chosen) == 1:
        return chosen[0]
    return Totals(
        sum(totals.trades for totals in chosen),
        _sums(totals.amounts for totals in chosen),
        sum(totals.candles for totals in chosen),
        _combine_prices(chosen),
        _sums(totals.rounding for totals in chosen),
    )


def combine_each(totals: Mapping[int, Totals], step: int, longer: int) -> dict[int, Totals]:
    """Return the totals of spans of the length ``longer``, from those of spans of the length ``step``, both in ms."""
    starts = sorted({start // longer * longer for start in totals})
    return {start: combine(totals, start, start + longer, step) for start in starts}


def _sums(rows: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(map(sum, zip(*rows, strict=True))) or _NOTHING


def _combine_prices(days: Sequence[Totals]) -> tuple[float, float, float, float] | None:
    prices = [totals.prices for totals in days if totals.prices is not None]
    if not prices:
        return None
    opens, highs, lows, closes = zip(*prices, strict=True)
    return opens[0], max(highs), min(lows), closes[-1]


def discrepancy(market: Market, actual: Totals, control: Totals) -> str | None:
    """Return how the trades and amounts of two totals differ, as text; None if they agree.

    They must be equal, but for what Float64 rounds in amounts from 67 million on. Only the base volumes of COIN-M may
    drift, by half a unit for each candle, because each candle is rounded.

    Source: 1,855 spot days of 1m, 162,000 spot symbol-days by REST, and 258,553 USD-M days of 4h, as exact decimals. On
    some days the intervals of USD-M disagree market-wide. No COIN-M days are recorded in two intervals.

    Args:
        market: The market.
        actual: The totals of the candles.
        control: The control totals, from the exchange's own ``1d`` candles.
    """
    if actual.trades != control.trades:
        return f"{actual.trades:,} trades of {control.trades:,}"
    rounding = _sums((actual.rounding, control.rounding))
    columns = zip(market.value_columns, actual.amounts, control.amounts, rounding, strict=True)
    for name, amount, expected, rounded in columns:
        drift = (actual.candles + 1) // 2 if market is COINM and "base" in name else 0
        if abs(amount - expected) > drift + rounded:
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
