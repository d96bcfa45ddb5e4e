"""Questions that tests ask a lake, and changes that a user may make to its files by hand."""

from __future__ import annotations

import datetime as dt
import io
import sys
from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from binance_assets.candles.content_hash import content_hash
from binance_assets.model.bucket_paths import LakePath
from binance_assets.model.partitions import Partition, partition_for_key
from binance_assets.model.results import UNNAMED_OUTAGE
from binance_assets.model.series import Series
from binance_assets.storage.coverage import Coverage, coverages_of
from binance_assets.storage.lake import Lake, StoredPartition
from binance_assets.storage.locks import LOCK_NAME
from binance_assets.storage.metadata import FileMetadata, FileSummary, SummaryColumns, decode, encode
from binance_assets.storage.parquet_files import to_parquet


def local(path: LakePath) -> Path:
    """Return a path in a lake that is a folder."""
    assert isinstance(path, Path)
    return path


def state_folder(lake: Lake) -> Path:
    """Return the folder beside a lake with the files that belong to the lake but hold no candles."""
    return local(lake.root).with_name(f"{lake.root.name}.state")


def summary_of(file: FileMetadata) -> FileSummary:
    """Return the summary of a file, given its metadata."""
    entries = file.entries.values()
    columns = SummaryColumns(
        starts=[partition.start for partition in file.entries],
        verdicts=[entry.verdict for entry in entries],
        rows=[entry.rows for entry in entries],
        by_person=[entry.accepted_by is not None for entry in entries],
        unnamed_outages=[UNNAMED_OUTAGE in (entry.note or "") for entry in entries],
    )
    return FileSummary(file.series, columns)


def content_of(path: Path) -> tuple[int, bytes, dict[str, str]]:
    """Return the size of a file, its bytes before the footer, and its metadata, which two writes order differently.

    The checksum of the footer depends on that order, so it is left out.
    """
    content = path.read_bytes()
    footer = int.from_bytes(content[-8:-4], "little")
    metadata = pl.read_parquet_metadata(io.BytesIO(content))
    del metadata["footer_crc32"]
    return len(content), content[: -8 - footer], metadata


def coverage_of(lake: Lake, series: Series, until: dt.date, refused: Set[str]) -> Coverage:
    """Return the coverage of one series, see :func:`coverages_of`."""
    return coverages_of(lake.file_index(series.market, [series]), [series], until, {series: refused})[0]


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


@contextmanager
def files_read_in(lake: Lake) -> Iterator[list[str]]:
    """Collect the names of the files of the lake that are opened, as Python itself reports them."""
    opened: list[str] = []
    watching = True

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        path = str(arguments[0]) if watching and event == "open" and arguments else ""
        if path.startswith(f"{lake.root}/") and path.endswith(".parquet"):
            opened.append(Path(path).name)

    sys.addaudithook(watch)
    try:
        yield opened
    finally:
        watching = False


def temporary_files(lake: Lake) -> list[Path]:
    """Return the files that a write has left behind."""
    return [path for path in (state_folder(lake) / "incoming").iterdir() if path.name != LOCK_NAME]


def remove(lake: Lake, series: Series, *keys: str) -> None:
    """Take partitions out of their files, as if they had never been written."""
    partitions = [partition_for_key(key, series.interval) for key in keys]
    for path in {local(lake.path(series, partition)) for partition in partitions}:
        candles, metadata = pl.read_parquet(path, hive_partitioning=False), pl.read_parquet_metadata(path)
        entries = decode(metadata, path.stem, series.interval).entries
        removed = [partition for partition in partitions if lake.path(series, partition) == path]
        for partition in removed:
            del entries[partition]
        kept = candles.filter(~pl.any_horizontal(map(_opens_in, removed)))
        path.write_bytes(to_parquet(kept, encode(series, "sandbox", entries)))


def change(lake: Lake, series: Series, key: str, candles: pl.Expr | None = None, **entry: Any) -> None:
    """Change a column of a partition, or fields of its metadata; its neighbors stay as they are.

    The hash follows the changed candles, as if they had been written like that.
    """
    partition = partition_for_key(key, series.interval)
    path = local(lake.path(series, partition))
    whole, metadata = pl.read_parquet(path, hive_partitioning=False), pl.read_parquet_metadata(path)
    entries = decode(metadata, path.stem, series.interval).entries
    entries[partition] = replace(entries[partition], **entry)
    if candles is not None:
        ours = whole.filter(_opens_in(partition)).with_columns(candles)
        entries[partition] = replace(entries[partition], **{"content_hash": content_hash(ours), **entry})
        whole = pl.concat([whole.filter(~_opens_in(partition)), ours]).sort("open_time")
    path.write_bytes(to_parquet(whole, encode(series, "sandbox", entries)))


def _opens_in(partition: Partition) -> pl.Expr:
    time = pl.col("open_time").to_physical()
    return (time >= partition.start) & (time < partition.end)
