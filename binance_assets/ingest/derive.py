"""A partition of a derived series, from the file of the series that it is made from."""

from __future__ import annotations

import polars as pl

from binance_assets.candles.columns import empty_candles
from binance_assets.candles.resampling import resample
from binance_assets.completeness.validation import missing_spans, schema_errors
from binance_assets.model.partitions import Partition
from binance_assets.model.results import PartitionResult, Provenance, Verdict
from binance_assets.model.series import Series
from binance_assets.model.timestamps import from_iso
from binance_assets.storage.lake import Lake, StoredPartition
from binance_assets.storage.universe import Derived


def derived_day(lake: Lake, derived: Derived, partition: Partition) -> PartitionResult:
    """The candles of a derived series in a day, with the verdict of the day that they are made from.

    Args:
        lake: Where the source's day lies.
        derived: The series and its source.
        partition: The day.
    """
    series, source = derived.series, derived.source
    stored = lake.stored(source, partition)
    if stored is None:
        return _refused(series, partition, "unreachable", f"{source} has no such day in the lake")
    try:
        candles = resample(series.market, lake.read(source, partition), series.interval)
    except (OSError, pl.exceptions.PolarsError) as error:
        return _refused(series, partition, "invalid", f"{source} cannot be read: {str(error).splitlines()[0]}")
    message = schema_errors(series, candles)
    if message:
        return _refused(series, partition, "invalid", message)
    return PartitionResult(
        partition=partition,
        verdict=stored.verdict,
        candles=candles,
        missing=_missing(series, partition, candles, stored),
        reason=stored.note or "",
        provenance=Provenance("derived", base_series=str(source)),
        accepted_by=stored.accepted_by or "",
        accepted_because=stored.accepted_because or "",
    )


def _missing(
    series: Series, partition: Partition, candles: pl.DataFrame, stored: StoredPartition
) -> tuple[tuple[int, int], ...]:
    """The candles that do not exist because all of theirs are missing from the source."""
    step = series.interval.step
    holes = [(from_iso(start), from_iso(end)) for start, end in stored.missing]
    opens = series.interval.open_times(partition.start, partition.end)
    expected = [time for time in opens if any(start < time + step and time < end for start, end in holes)]
    there = candles["open_time"].to_physical()
    return missing_spans(series, there.filter(there.is_in(expected)), expected)


def _refused(series: Series, partition: Partition, verdict: Verdict, reason: str) -> PartitionResult:
    return PartitionResult(partition, verdict, empty_candles(series.market), (), reason)
