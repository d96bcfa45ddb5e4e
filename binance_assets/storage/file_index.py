"""The file index: what each file of some series holds, as a table that remembers it from one reading to the next.

To read the footers of 30,000 files takes a minute, to look at their size, inode, and time of modification half a
second. A file of the lake is only ever replaced as a whole, by a new one. So a file with the remembered inode, size,
and time still holds what was read then.

Here belongs the table and its refresh. What does not belong here: how files are read (``span_folder``), and what is
counted (``coverage``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final

import polars as pl

from binance_assets import __version__
from binance_assets.model.results import UNNAMED_OUTAGE
from binance_assets.model.series import Series
from binance_assets.model.timestamps import to_date
from binance_assets.storage.span_folder import SpanFile, SpanFolder

_PARTITION: Final = {
    "day": pl.Date(),
    "verdict": pl.String(),
    "is_accepted": pl.Boolean(),
    "is_in_doubt": pl.Boolean(),
    "has_unnamed_outage": pl.Boolean(),
    "rows": pl.Int64(),
    "bytes": pl.Int64(),
}
SCHEMA: Final = pl.Schema(
    {
        "series": pl.String(),
        "file": pl.String(),
        "inode": pl.UInt64(),
        "size": pl.Int64(),
        "modified_ns": pl.Int64(),
        "version": pl.String(),
        "partitions": pl.List(pl.Struct(_PARTITION)),
    }
)
"""One row for each file: its series and name, what identifies its content, the version of this program that read it,
and its partitions, none if it cannot be read."""

_STAMP: Final = ["series", "file", "inode", "size", "modified_ns", "version"]


def empty_index() -> pl.DataFrame:
    """Return an index of no file."""
    return SCHEMA.to_frame()


def refreshed_index(
    folders: Iterable[tuple[Series, SpanFolder]], remembered: pl.DataFrame, first: str, last: str
) -> pl.DataFrame:
    """Return the index of the files of ``folders``; read the footers of those that ``remembered`` does not know.

    Args:
        folders: Each series with its folder.
        remembered: An earlier index, of these or other series.
        first: Key of the first partition; files of earlier spans are left out.
        last: Key of the last partition; files of later spans are left out.

    Returns:
        A table with the columns of :data:`SCHEMA`, by name of the file and of the series. The files of an earlier
        layout come last, because what they hold counts only if no other file holds it.

    Raises:
        OSError: A file exists but may not be read.
        LaterLayout: A later version wrote a file.
    """
    known = {stamp: position for position, stamp in enumerate(remembered.select(_STAMP).iter_rows())}
    parts, positions = [], []
    for series, folder in folders:
        unchanged, rows = folder.stable(partial(_files_of, series, folder, known, first, last))
        positions += unchanged
        if rows:
            parts.append(pl.DataFrame(rows, schema=SCHEMA))
    return pl.concat([remembered[positions], *parts]).sort(pl.col("file").str.len_bytes(), "file", "series")


def _files_of(
    series: Series, folder: SpanFolder, known: Mapping[tuple[Any, ...], int], first: str, last: str
) -> tuple[list[int], list[dict[str, Any]]]:
    """Return the positions of the files that are known, and the rows of the others."""
    unchanged, rows, name = [], [], str(series)
    for path in folder.paths(first, last):
        # Before the file is read: if it is replaced in between, the next refresh reads it again.
        status = path.stat()
        stamp = (name, path.name, status.st_ino, status.st_size, status.st_mtime_ns, __version__)
        if stamp in known:
            unchanged.append(known[stamp])
        else:
            file = folder.open_file(path)
            rows.append(dict(zip(_STAMP, stamp, strict=True)) | {"partitions": _partitions_of(file)})
    return unchanged, rows


def _partitions_of(file: object) -> list[dict[str, Any]]:
    if not isinstance(file, SpanFile):
        return []
    return [
        {
            "day": to_date(partition.start),
            "verdict": entry.verdict,
            "is_accepted": entry.is_accepted,
            "is_in_doubt": entry.is_in_doubt,
            "has_unnamed_outage": UNNAMED_OUTAGE in (entry.note or ""),
            "rows": entry.rows,
            "bytes": entry.size,
        }
        for partition, entry in file.stored.items()
    ]


def stored_in(index: pl.DataFrame) -> pl.DataFrame:
    """Return the stored partitions of an index, one row each; a partition that two files hold counts for the first.

    Returns:
        The columns ``series, day, verdict, is_in_doubt, has_unnamed_outage, rows, bytes``; the day is the first of the
        partition.
    """
    partitions = (
        index.select("series", "partitions").explode("partitions").drop_nulls("partitions").unnest("partitions")
    )
    first = partitions.unique(["series", "day"], keep="first", maintain_order=True)
    return first.filter("is_accepted").drop("is_accepted")
