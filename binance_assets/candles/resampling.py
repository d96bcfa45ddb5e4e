"""Resampling: coarse candles computed from finer ones, as Binance itself computes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import polars as pl

from binance_assets.candles.columns import columns
from binance_assets.model.intervals import Interval
from binance_assets.model.markets import AMOUNT_DECIMALS, Market

Table = TypeVar("Table", pl.DataFrame, pl.LazyFrame)

_WHOLE: Final = pl.Decimal(38, 0)
_EXACT: Final = pl.Decimal(38, AMOUNT_DECIMALS)


def resample(market: Market, candles: Table, interval: Interval) -> Table:
    """Return the candles of ``interval`` that finer candles add up to.

    Prices come from the candles with trades. A candle without trades repeats the last close, and Binance uses its
    prices only if the whole coarse candle has no trades. A coarse candle ends with the last fine candle in it, so an
    outage cuts it short, as on Binance. If all fine candles of a coarse one are missing, it is missing too.

    Args:
        market: The market of the candles, which names the columns.
        candles: A table of finer candles, in memory or lazy, sorted by open time, of any number of days.
        interval: The coarser interval, at most a day, a multiple of the finer one.

    Returns:
        A table with the columns of ``columns(market)``, sorted; candles open on the grid of ``interval``. Volumes are
        sums of decimals, and the Float64 nearest to them, as far as the finer ones are exact: below 2**26 (67 million)
        a Float64 has one value for each number with eight decimals.

    Raises:
        polars.exceptions.PolarsError: The candles are not sorted, or a volume is not finite; for a lazy table, when it
            is collected.
    """
    return _resample(market, candles, interval, [_sum(pl.col(name)) for name in market.value_columns])


def resample_as_before(market: Market, candles: Table, interval: Interval) -> Table:
    """Return what :func:`resample` returned before version 0.2.0: amounts from 2e7 on may be off in their last bit.

    What was stored so is right but for that bit, and keeps its hash. Nothing is derived in this way anymore.
    """
    return _resample(market, candles, interval, [pl.col(market.value_columns).cast(_EXACT).sum().cast(pl.Float64)])


def _resample(market: Market, candles: Table, interval: Interval, sums: list[pl.Expr]) -> Table:
    return (
        candles.group_by_dynamic("open_time", every=f"{interval.step}ms")
        .agg(
            _from_traded("open", pl.Expr.first),
            _from_traded("high", pl.Expr.max),
            _from_traded("low", pl.Expr.min),
            _from_traded("close", pl.Expr.last),
            pl.col("close_time").last(),
            pl.col("trades").sum(),
            *sums,
        )
        .select(list(columns(market)))
    )


def _sum(amounts: pl.Expr) -> pl.Expr:
    """Return the sum of amounts with at most eight decimals.

    Added as floats, one hour of BTCUSDT's quote volume already differs from Binance's in the 8th decimal. To cast an
    amount to a decimal, Polars multiplies it by 1e8, which rounds from 2e7 on. A whole number, and a fraction below 1,
    are cast exactly.
    """
    whole = amounts.floor()
    total = whole.cast(_WHOLE).sum().cast(_EXACT) + (amounts - whole).cast(_EXACT).sum()
    return total.cast(pl.Float64)


def _from_traded(price: str, pick: Callable[[pl.Expr], pl.Expr]) -> pl.Expr:
    """Return the ``price`` that ``pick`` selects from the candles with trades, or from all if none has trades."""
    prices = pl.col(price)
    return pl.coalesce(pick(prices.filter(pl.col("trades") > 0)), pick(prices))
