"""Results of partitions without an exchange, for tests of what is stored."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

from binance_assets.candles.columns import columns
from binance_assets.model.bucket_paths import LakePath
from binance_assets.model.partitions import partition_for_key
from binance_assets.model.results import PartitionResult, Verdict
from binance_assets.model.series import Series
from binance_assets.model.timestamps import to_iso
from binance_assets.storage.lake import Lake
from binance_assets_tests.support.lakes import local


def result_of(series: Series, key: str, rows: int | None = None, verdict: Verdict = "complete") -> PartitionResult:
    """Return a result that is not strict, so that ``unbalanced`` is accepted.

    Its candles are sorted and have the columns of the market; each value is its row number.

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
    candles = table.cast(dict(columns(series.market)))  # type: ignore[arg-type]
    return PartitionResult(partition, verdict, candles, strict=False)


def write_as_layout_1(root: LakePath, series: Series, result: PartitionResult) -> Path:
    """Write a partition as version 0.1.0 did, in a file of its own, and return the path of the file."""
    opens = result.candles["open_time"].to_physical()
    provenance = result.provenance
    metadata = {
        "note": result.reason,
        "archive_file": provenance.file or "",
        "archive_sha256": provenance.sha256 or "",
        "archive_modified": to_iso(provenance.modified) if provenance.modified is not None else "",
        "derived_from": provenance.base_series or "",
        "series": str(series),
        "source": result.provenance.source,
        "verdict": result.verdict,
        "missing": json.dumps([[to_iso(start), to_iso(end)] for start, end in result.missing]),
        "accepted_by": result.accepted_by or "",
        "accepted_because": result.accepted_because or "",
        "rows": str(len(opens)),
        "first_open_time": str(opens[0]) if len(opens) else "",
        "last_open_time": str(opens[-1]) if len(opens) else "",
        "version": "0.1.0",
    }
    path = local(Lake(root).folder(series)) / f"{result.partition}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    result.candles.write_parquet(path, compression="zstd", metadata=metadata)
    return path
