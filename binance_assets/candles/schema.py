"""The table of candles: its columns and what must hold in every row, as one Pandera schema per market and interval.

This is the single description of the table; the Parquet files, Dagster's column metadata and the README follow it.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import pandera.polars as pa
import polars as pl
from pandera.api.polars.types import PolarsData

from binance_assets.intervals import Interval
from binance_assets.markets import Market

TIME: Final = pl.Datetime("ms", "UTC")

_DESCRIPTIONS: Final = {
    "open_time": "Moment in which the candle opens, UTC",
    "open": "First price, in the quote asset",
    "high": "Highest price",
    "low": "Lowest price",
    "close": "Last price",
    "volume": "Traded amount: base asset on spot and USD-M, number of contracts on COIN-M",
    "close_time": "Last millisecond of the candle, UTC; earlier where the exchange stopped amid it",
    "quote_volume": "Traded amount in the quote asset",
    "base_volume": "Traded amount in the base asset",
    "trades": "Number of trades",
    "taker_buy_volume": "Part of volume in which the buyer was the taker",
    "taker_buy_quote_volume": "Part of quote_volume in which the buyer was the taker",
    "taker_buy_base_volume": "Part of base_volume in which the buyer was the taker",
}
_PRICES: Final = ("open", "high", "low", "close")


@cache
def columns(market: Market) -> dict[str, pl.DataType]:
    """Names and types of the table's columns, in their order, which is the order of Binance's row fields."""
    volume, turnover, taker_volume, taker_turnover = market.value_columns
    names = ("open_time", *_PRICES, volume, "close_time", turnover, "trades", taker_volume, taker_turnover)
    types: dict[str, pl.DataType] = {"open_time": TIME, "close_time": TIME, "trades": pl.Int64()}
    return {name: types.get(name, pl.Float64()) for name in names}


@cache
def candle_schema(market: Market, interval: Interval) -> pa.DataFrameSchema:
    """The schema that every accepted table of candles of a market and interval satisfies.

    Types; no nulls; open times strictly ascending and on the interval's grid (``3d``: one grid for the table);
    ``low <= open, close <= high``; prices positive and finite; volumes and trades not negative; what takers bought
    not more than the total. Holes are not its business, see :mod:`binance_assets.candles.validation`.
    """
    return pa.DataFrameSchema(
        {
            name: pa.Column(dtype, _column_checks(name), nullable=False, description=_DESCRIPTIONS[name])
            for name, dtype in columns(market).items()
        },
        checks=_row_checks(market, interval),
        strict=True,
        ordered=True,
        name=f"{market.name}_{interval.name}",
    )


def _column_checks(name: str) -> list[pa.Check]:
    if name in _PRICES:
        return [_rows(name, "is a positive number", pl.col(name).is_finite() & (pl.col(name) > 0))]
    if name in ("open_time", "close_time"):
        return []
    if name == "trades":
        return [_rows(name, "is not negative", pl.col(name) >= 0)]
    # A NaN is greater than any number in Polars, so finiteness is asked for by name.
    return [_rows(name, "is a number and not negative", pl.col(name).is_finite() & (pl.col(name) >= 0))]


def _row_checks(market: Market, interval: Interval) -> list[pa.Check]:
    volume, turnover, taker_volume, taker_turnover = market.value_columns
    open_time, close_time = pl.col("open_time"), pl.col("close_time")
    step = pl.duration(milliseconds=interval.step)
    return [
        _rows("open_time", "comes after the one before", (open_time > open_time.shift(1)).fill_null(True)),
        _rows("open_time", f"lies on the grid of {interval}", _on_grid(interval)),
        # Not equality: where the engine stopped amid a candle its close time is cut short, or 1 ms past the grid.
        _rows("close_time", "lies within the candle", (close_time >= open_time) & (close_time <= open_time + step)),
        _rows("low", "is at most open and close", (pl.col("low") <= pl.min_horizontal("open", "close"))),
        _rows("high", "is at least open and close", (pl.col("high") >= pl.max_horizontal("open", "close"))),
        _rows(taker_volume, f"is at most {volume}", pl.col(taker_volume) <= pl.col(volume)),
        _rows(taker_turnover, f"is at most {turnover}", pl.col(taker_turnover) <= pl.col(turnover)),
    ]


def _on_grid(interval: Interval) -> pl.Expr:
    open_time = pl.col("open_time")
    if interval.is_month:
        return open_time == open_time.dt.truncate("1mo")
    phase = (open_time.dt.epoch("ms") - interval.anchor) % interval.step
    if interval.has_own_phase:
        return (phase == phase.mode().first()) & (open_time == open_time.dt.truncate("1d"))
    return phase == 0


def _rows(column: str, says: str, holds: pl.Expr) -> pa.Check:
    def check(data: PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(holds.fill_null(False))

    return pa.Check(check, name=f"{column} {says}", error=f"{column} {says}", ignore_na=False)
