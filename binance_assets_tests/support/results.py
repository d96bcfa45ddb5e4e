"""Results of partitions without an exchange, for tests of what is stored."""

from __future__ import annotations

import polars as pl

from binance_assets.candles.columns import columns
from binance_assets.model.partitions import partition_for_key
from binance_assets.model.results import PartitionResult, Verdict
from binance_assets.model.series import Series


def result_of(series: Series, key: str, rows: int | None = None, verdict: Verdict = "complete") -> PartitionResult:
    """Return a result whose candles are sorted and have the columns of the market; each value is its row number.

    Args:
        series: The series.
        key: The key of the partition.
        rows: How many candles it has; None for all. The last ones are missing.
        verdict: Its verdict.
    """
    partition = partition_for_key(key, series.interval)
    opens = list(series.interval.open_times(partition.start, partition.end))[:rows]
    times = {"open_time": opens, "close_time": [time + series.interval.step - 1 for time in opens]}
    table = pl.DataFrame({name: times.get(name, range(len(opens))) for name in columns(series.market)})
    return PartitionResult(partition, verdict, table.cast(dict(columns(series.market))))  # type: ignore[arg-type]
