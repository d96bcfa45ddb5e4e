"""Derived partitions: candles of a coarser interval, computed from the stored candles of the base series."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl

from binance_assets.candles.columns import empty_candles
from binance_assets.candles.resampling import resample
from binance_assets.completeness.validation import missing_spans, schema_errors
from binance_assets.model.partitions import Partition
from binance_assets.model.results import PartitionResult, Provenance, Verdict
from binance_assets.model.series import Series
from binance_assets.model.timestamps import from_iso
from binance_assets.storage.lake import Lake, PartitionContent, StoredPartition
from binance_assets.storage.universe import Derived


def derive_partitions(lake: Lake, derived: Derived, partitions: Sequence[Partition]) -> Iterator[PartitionResult]:
    """Yield partitions of a derived series, each with the verdict of its base partition.

    Args:
        lake: The lake that holds the base series.
        derived: The derived series and its base series.
        partitions: The partitions, ascending.

    Raises:
        LakeError: A file of the base series exists but may not be read, or was written by a later version.
    """
    for content in lake.read_each(derived.base, partitions):
        yield _derive(derived, content)


def _derive(derived: Derived, content: PartitionContent) -> PartitionResult:
    series, base = derived.series, derived.base
    partition, stored, candles = content
    if isinstance(candles, str) or stored is None:
        verdict: Verdict = "unreachable" if stored is None else "invalid"
        return _refused(series, partition, verdict, f"{base} {partition}: {candles}")
    resampled = resample(series.market, candles, series.interval)
    errors = schema_errors(series, resampled)
    # What a person accepted although it breaks rules stays marked as such, also where it is derived.
    if errors is not None and stored.accepted_by is None:
        return _refused(series, partition, "invalid", errors)
    return PartitionResult(
        partition=partition,
        verdict=stored.verdict,
        candles=resampled,
        missing=_missing(series, partition, resampled, stored),
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
