"""backtesting.py: a CSV file that pandas reads into the table that ``Backtest`` takes.

The columns are ``Time`` (open time, UTC, without a time zone), ``Open, High, Low, Close`` and ``Volume`` (base asset).
CSV, because backtesting.py installs pandas, and pandas needs another package for Parquet.

Source: the docstring of ``backtesting.Backtest``, backtesting 0.6.6.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from binance_assets.candles.columns import PRICES
from binance_assets.exports.streams import write_csv
from binance_assets.exports.target import Candles, Item, base_volume, table_target


def _path(item: Item) -> str:
    return f"{item.series.market}-{item.series.symbol}-{item.interval}.csv"


def _shape(candles: Candles) -> pl.LazyFrame:
    volume = base_volume(candles.item.series.market)
    return candles.table.select(
        pl.col("open_time").alias("Time"),
        *(pl.col(price).alias(price.title()) for price in PRICES),
        pl.col(volume).alias("Volume"),
    )


BACKTESTING: Final = table_target(
    "backtesting",
    lambda item: 'pandas.read_csv("{file}", index_col="Time", parse_dates=True)',
    _path,
    _shape,
    lambda table, path: write_csv(table, path, "%Y-%m-%d %H:%M:%S"),
)
