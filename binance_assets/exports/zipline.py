"""zipline-reloaded: the CSV files of its ``csvdir`` bundle, ``daily/BTCUSDT.csv`` and ``minute/BTCUSDT.csv``.

The columns are ``date, open, high, low, close, volume`` (base asset). A daily bar is labeled by its day. A minute bar
is labeled by its end, because the calendars of zipline are right-sided: the minutes of a day of the calendar ``24/7``
are 00:01 to 00:00 of the next day. The optional columns ``dividend`` and ``split`` are left out: there are neither.

Source: ``zipline/data/bundles/csvdir.py``, ``zipline/utils/calendar_utils.py``, ``zipline/data/bcolz_daily_bars.py``,
zipline-reloaded 3.2. Its own files, made by ``zipline ingest``, keep three decimals of a price and whole volumes.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from binance_assets.candles.columns import PRICES
from binance_assets.exports.streams import write_csv
from binance_assets.exports.target import Candles, Item, base_volume, table_target
from binance_assets.model.timestamps import DAY, MINUTE

_FOLDERS: Final = {MINUTE: "minute", DAY: "daily"}


def _path(item: Item) -> str:
    return f"{_FOLDERS[item.interval.step]}/{item.series.symbol}.csv"


def _load(item: Item) -> str:
    folder = _FOLDERS[item.interval.step]
    return (
        f'register("binance", csvdir_equities(["{folder}"], "{{folder}}"), calendar_name="24/7", minutes_per_day=1440)'
    )


def _shape(candles: Candles) -> pl.LazyFrame:
    """Return the columns of a file.

    Raises:
        ValueError: There are daily bars, and days are missing among them: ``zipline ingest`` refuses that.
    """
    days = (candles.last - candles.first) // DAY + 1
    if candles.item.interval.step == DAY and candles.rows < days:
        raise ValueError(
            f"{candles.item.series}: {days - candles.rows} of {days} days have no candle, and zipline refuses daily "
            "bars with a gap; fill gaps with missing='flat', download what the lake lacks, or choose another range"
        )
    ends = candles.item.interval.step == MINUTE
    volume = base_volume(candles.item.series.market)
    label = pl.col("open_time").dt.offset_by("1m" if ends else "0m")
    return candles.table.select(label.alias("date"), *PRICES, pl.col(volume).alias("volume"))


def _check(item: Item) -> None:
    if item.interval.step not in _FOLDERS:
        raise ValueError(f"zipline has bars of 1m and 1d only, not of {item.interval}; resample with every='1d'")


ZIPLINE: Final = table_target(
    "zipline",
    _load,
    _path,
    _shape,
    lambda table, path: write_csv(table, path, "%Y-%m-%d %H:%M:%S"),
    _check,
)
