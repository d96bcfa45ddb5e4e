"""Plain tables for anything that reads them: Parquet, CSV, and Feather, with all columns of the market.

Files are named ``spot-BTCUSDT-1m.parquet``. Times are UTC with milliseconds; a candle is labeled by its open time.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import polars as pl

from binance_assets.exports.streams import write_csv, write_feather, write_parquet
from binance_assets.exports.target import Candles, Item, table_target

_ISO: Final = "%Y-%m-%dT%H:%M:%S%.3fZ"


def _name(suffix: str, item: Item) -> str:
    return f"{item.series.market}-{item.series.symbol}-{item.interval}.{suffix}"


def _whole(candles: Candles) -> pl.LazyFrame:
    return candles.table


PARQUET: Final = table_target(
    "parquet", lambda item: 'pandas.read_parquet("{file}")', partial(_name, "parquet"), _whole, write_parquet
)

CSV: Final = table_target(
    "csv",
    lambda item: 'pandas.read_csv("{file}", parse_dates=["open_time", "close_time"])',
    partial(_name, "csv"),
    _whole,
    partial(write_csv, time_format=_ISO),
)

FEATHER: Final = table_target(
    "feather", lambda item: 'pandas.read_feather("{file}")', partial(_name, "feather"), _whole, write_feather
)
