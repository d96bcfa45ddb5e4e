"""A lake of realistic candles, and the values that an export of them must have."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path

import polars as pl

import binance_assets as ba
from binance_assets.candles.columns import columns
from binance_assets.model.partitions import partitions_between
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import Series, parse_series
from binance_assets.model.timestamps import HOUR
from binance_assets.storage.lake import Lake

FIRST, END = dt.date(2024, 3, 1), dt.date(2024, 3, 4)
SPOT_MINUTES, SPOT_HOURS = "spot/BTCUSDT/1m", "spot/BTCUSDT/1h"
USDM_HOURS, COINM_HOURS, COIN_DELIVERY = "usdm/ETHUSDT/1h", "coinm/BTCUSD_PERP/1h", "usdm/BTCUSDT_240628/1h"
GAP = (10 * HOUR, 11 * HOUR)
"""The part of the second day in which the exchange had no candles."""


def export_lake(folder: Path) -> Lake:
    """Return a lake with three days of several series; each lacks the candles of :data:`GAP`."""
    lake = Lake(folder)
    lake.prepare("sandbox")
    for name in (SPOT_MINUTES, SPOT_HOURS, USDM_HOURS, COINM_HOURS, COIN_DELIVERY):
        series = parse_series(name)
        lake.write_all(series, _results(series))
    return lake


def _results(series: Series) -> list[PartitionResult]:
    results = []
    for number, partition in enumerate(partitions_between(FIRST, END, series.interval)):
        candles = candles_of(series, list(series.interval.open_times(partition.start, partition.end)))
        start, end = partition.start + GAP[0], partition.start + GAP[1]
        if number != 1:
            results.append(PartitionResult(partition, "complete", candles, strict=False))
            continue
        kept = candles.filter(~pl.col("open_time").to_physical().is_between(start, end - 1))
        results.append(PartitionResult(partition, "outage", kept, ((start, end),), strict=False))
    return results


def candles_of(series: Series, opens: Sequence[int]) -> pl.DataFrame:
    """Return candles with prices of two decimals and amounts of five, as Binance has them, without a pattern.

    Args:
        series: The series.
        opens: The open times, ms UTC.
    """
    noise = pl.col("open_time") // 1_000 * 7_919
    middle = 6_000_000 + noise % 100_003
    volume, turnover, taker_volume, taker_turnover = series.market.value_columns
    amount = ((noise % 1_000_003 + 100_000) / 100_000).round(5)
    table = pl.DataFrame({"open_time": opens}, schema={"open_time": pl.Int64}).with_columns(
        open=_hundredths(middle),
        high=_hundredths(middle + 40_000 + noise % 997),
        low=_hundredths(middle - 40_000 - noise % 991),
        close=_hundredths(middle + noise % 20_011 - 10_000),
        close_time=pl.col("open_time") + series.interval.step - 1,
        trades=noise % 1_000 + 1,
        **{
            volume: amount,
            turnover: (amount * 60_001).round(5),
            taker_volume: (amount / 2).round(6),
            taker_turnover: amount,
        },
    )
    return table.select(list(columns(series.market))).cast(dict(columns(series.market)))  # type: ignore[arg-type]


def _hundredths(number: pl.Expr) -> pl.Expr:
    """Return the double nearest to a number of hundredths; the division alone may miss it by its last bit."""
    return (number / 100).round(2)


def rows_of(
    lake: Lake, series: str, every: str | None = None, missing: ba.Missing = "keep", volume: str = "volume"
) -> list[tuple[int | float | None, ...]]:
    """Return what the lake has: open time in ms UTC, the four prices, and the volume."""
    table = ba.load(series, every=every, missing=missing, lake=lake)
    return table.select(pl.col("open_time").to_physical(), "open", "high", "low", "close", volume).rows()
