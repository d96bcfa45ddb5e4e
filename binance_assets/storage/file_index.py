"""The file index: what each file of some series holds, as a table that remembers it from one reading to the next.

Reading the footers of 30,000 files takes a minute. Looking at their size, inode, and time of modification takes half a
second. A file of the lake is only ever replaced as a whole, by a new one. So a file with the remembered inode, size,
and time still holds what was read then. In a bucket, the ETag takes the place of the inode and the time.

Here belongs the table and its refresh. What does not belong here: how files are read (``span_folder``), and what is
counted (``coverage``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import polars as pl

from binance_assets import __version__
from binance_assets.model.results import ACCEPTED, IN_DOUBT
from binance_assets.model.series import Series
from binance_assets.storage.footer_reader import FooterReader
from binance_assets.storage.metadata import FileSummary, shares_of
from binance_assets.storage.span_folder import SpanFolder
from binance_assets.waiting import phase

_PARTITION: Final = {
    "day": pl.Date(),
    "verdict": pl.String(),
    "is_accepted": pl.Boolean(),
    "is_in_doubt": pl.Boolean(),
    "has_unnamed_outage": pl.Boolean(),
    "rows": pl.Int32(),  # more than a file can have; an index of 100,000 files has four million of them
    "bytes": pl.Int32(),
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

NEW: Final = pl.Schema({**SCHEMA, "partitions": pl.List(pl.Struct({**_PARTITION, "verdict": pl.Categorical()}))})
"""The columns of rows that are not in an index yet: while it is put together, they take half the memory."""

_READ: Final = {
    "day": pl.Int64(),
    "verdict": pl.String(),
    "by_person": pl.Boolean(),
    "has_unnamed_outage": pl.Boolean(),
    "rows": pl.Int64(),
    "bytes": pl.Int64(),
}
_STAMP: Final = ["series", "file", "inode", "size", "modified_ns", "version"]


def empty_index() -> pl.DataFrame:
    """Return an index of no file."""
    return SCHEMA.to_frame()


def refreshed_index(
    folders: Iterable[tuple[Series, SpanFolder]],
    remembered: pl.DataFrame,
    first: str,
    last: str,
    lake: Path | None = None,
) -> pl.DataFrame:
    """Return the index of the files of ``folders``; read the footers of those that ``remembered`` does not know.

    Of thousands of files in a folder, a second process reads about half.

    Args:
        folders: Each series with its folder.
        remembered: An earlier index, of these or other series, in its order.
        first: Key of the first partition; files of earlier spans are left out.
        last: Key of the last partition; files of later spans are left out.
        lake: The folder of the lake; None if it is in a bucket.

    Returns:
        A table with the columns of :data:`SCHEMA`, by name of the file and of the series. The files of an earlier
        layout come last, because what they hold counts only if no other file holds it.

    Raises:
        OSError: A file exists but may not be read.
        LaterLayout: A later version wrote a file.
    """
    by_name = {str(series): (series, folder) for series, folder in folders}
    known = _known(remembered, list(by_name))
    seen = {name for name, *_, version in known if version == __version__}
    reading = _Reading(known, first, last)
    for name in filter(seen.__contains__, by_name):
        reading.read(*by_name[name])
    new = deque(name for name in by_name if name not in seen)
    while new and not (lake and reading.parts):
        reading.read(*by_name[new.popleft()])
    if lake and new:
        with phase(f"reading what the files of {len(by_name):,} series hold"):
            reading.parts += _read_by_two(lake, first, last, new, lambda name: reading.read(*by_name[name]))
    positions = sorted(set(reading.positions))
    kept = remembered if len(positions) == remembered.height else remembered[positions]
    read = reading.table()
    if read.is_empty():
        return kept  # in order, as every index; a copy of that of 100,000 files takes 150 MB
    return _in_order(read) if kept.is_empty() else pl.concat([kept, read.cast(SCHEMA)]).sort(_ORDER)


def _in_order(read: pl.DataFrame) -> pl.DataFrame:
    """Return rows with the columns of :data:`NEW` as an index, some at a time: a sort has everything three times."""
    positions = read.select("file", "series").with_row_index("position").sort(_ORDER)["position"]
    firsts = range(0, read.height, _FILES_PER_PART)
    return pl.concat([read[positions[first : first + _FILES_PER_PART]].cast(SCHEMA) for first in firsts])


def read_rows(folders: Iterable[tuple[Series, SpanFolder]], first: str, last: str) -> pl.DataFrame:
    """Return the rows of the index for all files of ``folders``, in no order, with the columns of :data:`NEW`.

    Raises:
        OSError, LaterLayout: As for :func:`refreshed_index`.
    """
    reading = _Reading({}, first, last)
    for series, folder in folders:
        reading.read(series, folder)
    return reading.table()


def _read_by_two(
    lake: Path, first: str, last: str, names: deque[str], read: Callable[[str], None]
) -> list[pl.DataFrame]:
    """Read series here with ``read``, from the first on, and in a second process from the last on.

    Returns:
        What the second process read.
    """
    tables: list[pl.DataFrame] = []
    with FooterReader(lake, first, last, names) as reader:
        while True:
            while name := _next_of(names):
                read(name)
            tables += reader.tables()
            if not names:
                return tables


def _next_of(names: deque[str]) -> str | None:
    """Take the first of the names; None if there is none, because the other process took the last one."""
    try:
        return names.popleft()
    except IndexError:
        return None


_FILES_PER_PART: Final = 4_000
_ORDER: Final = (pl.col("file").str.len_bytes(), pl.col("file"), pl.col("series"))
_Stamp = tuple[Any, ...]


class _Reading:
    """What is read of the files of series, or known of them already."""

    def __init__(self, known: Mapping[_Stamp, int], first: str, last: str) -> None:
        self.positions: list[int] = []
        self.parts: list[pl.DataFrame] = []
        self._known, self._first, self._last = known, first, last
        self._rows = _Rows()

    def read(self, series: Series, folder: SpanFolder) -> None:
        """Read the files of a series that are not known.

        Raises:
            OSError, LaterLayout: As for :func:`refreshed_index`.
        """
        files = partial(_files_of, series, folder, self._known, self._first, self._last)
        unchanged, changed = folder.stable(files)
        self.positions += unchanged
        self._rows.add(changed)
        if len(self._rows.stamps) >= _FILES_PER_PART:
            self.parts.append(self._rows.table())
            self._rows = _Rows()

    def table(self) -> pl.DataFrame:
        """Return the rows of what was read, with the columns of :data:`NEW`; it forgets them."""
        parts, rows = [*self.parts, self._rows.table()], len(self._rows.stamps)
        self.parts, self._rows = [], _Rows()
        return pl.concat(parts) if len(parts) > 1 or rows else NEW.to_frame()


def _known(remembered: pl.DataFrame, names: Sequence[str]) -> dict[_Stamp, int]:
    """Return the position of each remembered file of the series ``names`` by its stamp."""
    numbered = remembered.select(_STAMP).with_row_index("position").filter(pl.col("series").is_in(names))
    return {stamp: position for position, *values in numbered.iter_rows() for stamp in [tuple(values)]}


def _files_of(
    series: Series, folder: SpanFolder, known: Mapping[_Stamp, int], first: str, last: str
) -> tuple[list[int], list[tuple[_Stamp, FileSummary | None, int]]]:
    """Return the positions of the files that are known, and what the others hold, with their sizes."""
    unchanged, stamps, files, name = [], [], [], str(series)
    # Before the files are read: if one is replaced in between, the next refresh reads it again.
    for file, identity in folder.identified(first, last):
        stamp = (name, file, *identity, __version__)
        if stamp in known:
            unchanged.append(known[stamp])
        else:
            stamps.append(stamp)
            files.append(file)
    summaries = folder.summaries(files)
    return unchanged, [(stamp, *summary) for stamp, summary in zip(stamps, summaries, strict=True)]


class _Rows:
    """New rows of an index, kept as columns: a row for each partition as a dict would take most of the time."""

    def __init__(self) -> None:
        self.stamps: list[_Stamp] = []
        self._numbers: list[int] = []
        self._columns: dict[str, list[Any]] = {name: [] for name in _READ}

    def add(self, files: Iterable[tuple[_Stamp, FileSummary | None, int]]) -> None:
        """Add files: stamp, what the file says, None if it cannot be read, and size."""
        columns = self._columns
        for stamp, summary, size in files:
            self.stamps.append(stamp)
            if summary is not None:
                partitions = summary.partitions
                self._numbers += [len(self.stamps) - 1] * len(partitions.starts)
                columns["day"] += partitions.starts
                columns["verdict"] += partitions.verdicts
                columns["by_person"] += partitions.by_person
                columns["has_unnamed_outage"] += partitions.unnamed_outages
                columns["rows"] += partitions.rows
                columns["bytes"] += shares_of(size, partitions.rows)

    def table(self) -> pl.DataFrame:
        """Return the rows with the columns of :data:`NEW`."""
        files = pl.DataFrame(self.stamps, schema={name: SCHEMA[name] for name in _STAMP}, orient="row")
        partitions = pl.DataFrame({"number": self._numbers, **self._columns}, schema={"number": pl.UInt32, **_READ})
        values = partitions.select(
            "number",
            pl.col("day").cast(pl.Datetime("ms")).cast(pl.Date),
            "verdict",
            (pl.col("verdict").is_in(ACCEPTED) | pl.col("by_person")).alias("is_accepted"),
            (pl.col("verdict").is_in(IN_DOUBT) & ~pl.col("by_person")).alias("is_in_doubt"),
            "has_unnamed_outage",
            "rows",
            "bytes",
        )
        lists = values.group_by("number", maintain_order=True).agg(pl.struct(*_PARTITION).alias("partitions"))
        joined = files.with_row_index("number").join(lists, on="number", how="left", maintain_order="left")
        return joined.select(*_STAMP, pl.col("partitions").fill_null([])).cast(NEW)


def merged_index(remembered: pl.DataFrame, index: pl.DataFrame, replaced: pl.Expr) -> pl.DataFrame:
    """Return ``remembered`` without the rows that are ``replaced``, and with those of ``index``.

    Args:
        remembered: An earlier index.
        index: A later one, of some of its files.
        replaced: Which rows of ``remembered`` the later one covers; their files may not exist anymore.
    """
    others = remembered.filter(~replaced).join(index.select("series", "file"), on=["series", "file"], how="anti")
    if others.is_empty():
        return index  # in order, as every index; a copy of that of 100,000 files takes 150 MB
    return pl.concat([others, index]).sort(_ORDER)


def is_worth_remembering(remembered: pl.DataFrame, index: pl.DataFrame) -> bool:
    """Return whether a process that reads the new files of ``index`` again takes longer than to write them down now.

    Reading a footer takes 0.14 ms, writing a row of the index 0.01 ms.
    """
    new = index.select(_STAMP).join(remembered.select(_STAMP), on=_STAMP, how="anti").height
    return new * _ROWS_PER_READ >= max(remembered.height, _LEAST_ROWS)


_ROWS_PER_READ: Final = 10
_LEAST_ROWS: Final = 300


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
    return first.filter("is_accepted").drop("is_accepted").cast({"rows": pl.Int64, "bytes": pl.Int64})
