"""Questions that tests ask a lake."""

from __future__ import annotations

import io
from pathlib import Path

import polars as pl

from binance_assets.model.partitions import partition_for_key
from binance_assets.model.series import Series
from binance_assets.storage.lake import Lake, StoredPartition


def state_folder(lake: Lake) -> Path:
    """Return the folder beside a lake with the files that belong to the lake but hold no candles."""
    return lake.root.with_name(f"{lake.root.name}.state")


def content_of(path: Path) -> tuple[int, bytes, dict[str, str]]:
    """Return the size of a file, its bytes before the footer, and its metadata, which two writes order differently."""
    content = path.read_bytes()
    footer = int.from_bytes(content[-8:-4], "little")
    return len(content), content[: -8 - footer], pl.read_parquet_metadata(io.BytesIO(content))


def keys(lake: Lake, series: Series) -> list[str]:
    """Return the keys of the partitions of a series that the lake holds, ascending."""
    return [partition.key for partition in lake.stored_partitions(series)]


def stored(lake: Lake, series: Series, key: str) -> StoredPartition:
    """Return what the lake says of a partition that it holds."""
    found = lake.stored(series, partition_for_key(key, series.interval))
    assert found is not None
    return found


def read(lake: Lake, series: Series, key: str) -> pl.DataFrame:
    """Return the candles of a partition that the lake holds."""
    return lake.read(series, [partition_for_key(key, series.interval)])
