"""The cross-check of candles with the exchange's own coarser candles of the same days.

The control totals prove a day: its sums and its four prices. The candles of an hour prove each hour in the same way, at
the price of one page per 41 days. What no coarser candle can show is a change inside an hour that leaves its first
open, highest high, lowest low, last close, and sums as they were.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import polars as pl

from binance_assets.candles.columns import PRICES
from binance_assets.candles.resampling import resample
from binance_assets.exchange.session import Exchange
from binance_assets.ingest.blocks import fetch_blocks
from binance_assets.model.intervals import Interval, parse_interval
from binance_assets.model.markets import COINM, Market
from binance_assets.model.partitions import Partition
from binance_assets.model.series import Series
from binance_assets.model.timestamps import to_text

# Float64 holds an amount to one part in 2**53; both amounts are sums of such numbers.
_FLOAT_ROUNDING = 2**-51
_HALF_A_UNIT = 0.5e-8


def coarser_interval(series: Series) -> Interval | None:
    """Return the interval of the candles that can prove those of ``series``: 1h, or 4h from 1h on; None if none can.

    From 4h on, the control totals prove as much.
    """
    for name in ("1h", "4h"):
        interval = parse_interval(name)
        if series.interval.step < interval.step and interval.step % series.interval.step == 0:
            return interval
    return None


def cross_check(
    exchange: Exchange, series: Series, candles: Mapping[Partition, pl.DataFrame]
) -> Iterator[tuple[Partition, str]]:
    """Yield the partitions whose candles do not add up to the exchange's own coarser candles, each with what differs.

    Args:
        exchange: The market.
        series: The series; there is nothing to compare if :func:`coarser_interval` has none for it.
        candles: The candles of each partition, ascending.

    Raises:
        Cancelled: The exchange was closed.
    """
    interval = coarser_interval(series)
    if interval is None:
        return
    coarse = Series(series.market, series.symbol, interval)
    for block in fetch_blocks(exchange, coarse, list(candles)):
        errors = block.partition_errors()
        opens = block.candles["open_time"].to_physical()
        for partition in block.partitions:
            if partition in errors:
                yield partition, f"it cannot be compared with {interval}: {errors[partition]}"
                continue
            theirs = block.candles.filter((opens >= partition.start) & (opens < partition.end))
            message = _difference(series.market, resample(series.market, candles[partition], interval), theirs)
            if message:
                yield partition, f"it does not add up to the exchange's {interval} candles: {message}"


def _difference(market: Market, ours: pl.DataFrame, theirs: pl.DataFrame) -> str | None:
    """Return the first difference of two tables of coarse candles, in one line; None without one."""
    both = ours.join(theirs, on="open_time", how="full", coalesce=True, suffix=" of the exchange").sort("open_time")
    for row in both.iter_rows(named=True):
        time = to_text(int(row["open_time"].timestamp() * 1_000))
        if row["open"] is None or row["open of the exchange"] is None:
            return f"the candle of {time} is {'missing' if row['open'] is None else 'not there'}"
        for name in (*PRICES, "trades", *market.value_columns):
            actual, expected = row[name], row[f"{name} of the exchange"]
            drift = _HALF_A_UNIT * 60 if market is COINM and "base" in name else _HALF_A_UNIT / 10
            if abs(actual - expected) > (0 if name in (*PRICES, "trades") else drift + _FLOAT_ROUNDING * abs(expected)):
                return f"{name} {actual} of {expected} at {time}"
    return None
