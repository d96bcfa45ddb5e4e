"""Derived partitions: candles of a coarser interval, computed from the file of the base series."""

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


def derive_partition(lake: Lake, derived: Derived, partition: Partition) -> PartitionResult:
    """Return a partition of a derived series, with the verdict of the base partition.

    Args:
        lake: The lake that holds the base series.
        derived: The derived series and its base series.
        partition: The partition.
    """
    series, base = derived.series, derived.base
    stored = lake.stored(base, partition)
    if stored is None:
        return _refused(series, partition, "unreachable", f"{base} has no such partition in the lake")
    try:
        candles = resample(series.market, lake.read(base, partition), series.interval)
    except (OSError, pl.exceptions.PolarsError) as error:
        return _refused(series, partition, "invalid", f"{base} cannot be read: {str(error).splitlines()[0]}")
    errors = schema_errors(series, candles)
    if errors is not None:
        return _refused(series, partition, "invalid", errors)
    return PartitionResult(
        partition=partition,
        verdict=stored.verdict,
        candles=candles,
        missing=_missing(series, partition, candles, stored),
        reason=stored.note or "",
        provenance=Provenance("derived", base_series=str(base)),
        accepted_by=stored.accepted_by,
        accepted_because=stored.accepted_because,
    )


def _missing(
    series: Series, partition: Partition, candles: pl.DataFrame, stored: StoredPartition
) -> tuple[tuple[int, int], ...]:
    """Return the spans of derived candles that do not exist because the base series lacks all candles in them."""
    step = series.interval.step
    gaps = [(from_iso(start), from_iso(end)) for start, end in stored.missing]
    opens = series.interval.open_times(partition.start, partition.end)
    expected = [time for time in opens if any(start < time + step and time < end for start, end in gaps)]
    existing = candles["open_time"].to_physical()
    return missing_spans(series, existing.filter(existing.is_in(expected)), expected)


def _refused(series: Series, partition: Partition, verdict: Verdict, reason: str) -> PartitionResult:
    return PartitionResult(partition, verdict, empty_candles(series.market), (), reason)
