"""Candles of a coarser interval made from finer ones, as Binance itself makes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import polars as pl

from binance_assets.candles.columns import columns
from binance_assets.model.intervals import Interval
from binance_assets.model.markets import Market

_EXACT: Final = pl.Decimal(38, 8)  # no amount that Binance tells has more than 8 decimals


def resample(market: Market, candles: pl.DataFrame, interval: Interval) -> pl.DataFrame:
    """The candles of ``interval`` that finer candles add up to.

    Prices are those of the candles with trades: one without any repeats the last close, and Binance lets it count
    only where the whole coarser candle has none. A candle closes with the last one in it, so a stop of the exchange
    cuts it short as it does there; where every finer candle is absent, so is the coarser one.

    Args:
        market: The candles' market, which names the columns.
        candles: A table of finer candles, sorted by open time, of any number of days.
        interval: The coarser interval, at most a day, which the finer one divides.

    Returns:
        A table with the columns of ``columns(market)``, sorted; candles open on the grid of ``interval``. Volumes are
        added up as decimals, so they are as exact as Float64 holds them.

    Raises:
        polars.exceptions.PolarsError: The candles are not sorted, or a volume is not finite.
    """
    return (
        candles.group_by_dynamic("open_time", every=f"{interval.step}ms")
        .agg(
            _of_traded("open", pl.Expr.first),
            _of_traded("high", pl.Expr.max),
            _of_traded("low", pl.Expr.min),
            _of_traded("close", pl.Expr.last),
            pl.col("close_time").last(),
            pl.col("trades").sum(),
            # Added up as floats, an hour's turnover of BTCUSDT already differs from Binance's in the 8th decimal.
            pl.col(market.value_columns).cast(_EXACT).sum().cast(pl.Float64),
        )
        .select(list(columns(market)))
    )


def _of_traded(price: str, pick: Callable[[pl.Expr], pl.Expr]) -> pl.Expr:
    """The ``price`` that ``pick`` takes from the candles with trades, or from all where none has any."""
    every = pl.col(price)
    return pl.coalesce(pick(every.filter(pl.col("trades") > 0)), pick(every))
