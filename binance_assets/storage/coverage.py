"""The coverage of a market: what the lake holds of each series, as a table, as Markdown, and as a picture."""

from __future__ import annotations

import datetime as dt
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Final

import polars as pl

from binance_assets.model.outside import markdown
from binance_assets.model.partitions import Partition, last_finished_end, partitions_between
from binance_assets.model.results import ACCEPTED, UNNAMED_OUTAGE
from binance_assets.model.series import Series
from binance_assets.model.timestamps import to_date, to_ms
from binance_assets.storage.lake import Lake

_VERDICTS: Final = (*sorted(ACCEPTED), "invalid", "lost", "unfinished")  # the last three by a person only
_COUNTS: Final = (*_VERDICTS, "unnamed_outages")
"""The columns that Markdown leaves out where all their numbers are 0."""

# The picture: edge length of a month's square in pixels, its gap included, and the colors as red, green, blue.
_CELL: Final = 10
_NOT_EXPECTED: Final = (235, 237, 240)
_GAP: Final = (255, 255, 255)
_EMPTY: Final = (222, 84, 63)
_FULL: Final = (38, 140, 92)


@dataclass(frozen=True, slots=True)
class Coverage:
    """What the lake holds of one series.

    Attributes:
        series: The series.
        first: Key of its first partition in the lake; None if the lake has none.
        last: Key of its last partition in the lake; None if the lake has none.
        verdicts: Number of stored partitions by verdict.
        unnamed_outages: Number of stored partitions with an outage that the table of known outages does not name.
        refused: Number of requested partitions that were refused and are not in the lake.
        missing: Number of other partitions that are not in the lake, from the first stored partition to the last
            finished one.
        rows: Number of candles.
        size: Size of the files in bytes.
        months: For each month, such as ``2024-01``, the number of its stored partitions and of its expected ones.
    """

    series: Series
    first: str | None
    last: str | None
    verdicts: Counter[str]
    unnamed_outages: int
    refused: int
    missing: int
    rows: int
    size: int
    months: dict[str, tuple[int, int]]


def coverage_of(lake: Lake, series: Series, until: dt.date, refused: Set[str]) -> Coverage:
    """Return the coverage of ``series``; read only the footers of its files.

    Args:
        lake: The lake.
        series: The series.
        until: The day before which partitions are expected, UTC.
        refused: Keys of the partitions that their last run did not write: refused ones, and those whose run failed.
    """
    stored = {partition.key: entry for partition, entry in lake.stored_partitions(series).items()}
    expected = _expected(series, list(stored), until)
    absent_refused = refused - stored.keys()  # also those before the first stored partition
    months: dict[str, tuple[int, int]] = {}
    for partition in expected:
        month = partition.key[:7]
        present, total = months.get(month, (0, 0))
        months[month] = (present + (partition.key in stored), total + 1)
    return Coverage(
        series=series,
        first=min(stored, default=None),
        last=max(stored, default=None),
        verdicts=Counter(partition.verdict for partition in stored.values()),
        unnamed_outages=sum(UNNAMED_OUTAGE in (partition.note or "") for partition in stored.values()),
        refused=len(absent_refused),
        missing=len({partition.key for partition in expected} - stored.keys() - absent_refused),
        rows=sum(partition.rows for partition in stored.values()),
        size=sum(partition.size for partition in stored.values()),
        months=months,
    )


def _expected(series: Series, keys: Sequence[str], until: dt.date) -> list[Partition]:
    """Return the partitions from the first stored one to the last finished one."""
    if not keys:
        return []
    partitions = partitions_between(dt.date.fromisoformat(min(keys)), until, series.interval)
    finished_before = last_finished_end(to_ms(until), series.interval)
    return [
        partition for partition in partitions if to_date(partition.start) < finished_before or partition.key in keys
    ]


def coverage_table(coverages: Iterable[Coverage]) -> pl.DataFrame:
    """Return a table with one row for each series.

    Returns:
        The String columns ``series, first, last``, of which the latter two are null for a series without partitions;
        and the Int64 columns ``partitions``, one for each verdict that a stored partition can have,
        ``unnamed_outages``, ``refused``, ``missing``, ``rows``, ``bytes``.
    """
    rows = [
        {
            "series": str(coverage.series),
            "first": coverage.first,
            "last": coverage.last,
            "partitions": sum(coverage.verdicts.values()),
            **{verdict: coverage.verdicts[verdict] for verdict in _VERDICTS},
            "unnamed_outages": coverage.unnamed_outages,
            "refused": coverage.refused,
            "missing": coverage.missing,
            "rows": coverage.rows,
            "bytes": coverage.size,
        }
        for coverage in coverages
    ]
    texts = {name: pl.String() for name in ("series", "first", "last")}
    numbers = dict.fromkeys(("partitions", *_COUNTS, "refused", "missing", "rows", "bytes"), pl.Int64())
    return pl.DataFrame(rows, schema={**texts, **numbers})


def coverage_markdown(table: pl.DataFrame) -> str:
    """Return a coverage table as Markdown, without the columns of verdicts that no partition has."""
    counts = [name for name in _COUNTS if table[name].sum()]
    names = ["series", "first", "last", "partitions", *counts, "refused", "missing", "rows", "bytes"]
    lines = ["| " + " | ".join(names) + " |", "|---|---|---|" + "---:|" * (len(names) - 3)]
    for row in table.select(names).iter_rows():
        cells = ["" if value is None else f"{value:,}" if isinstance(value, int) else markdown(value) for value in row]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def coverage_picture(coverages: Sequence[Coverage]) -> bytes:
    """Return a PNG with a row for each series and a square for each month.

    A square is green if every expected partition is stored, turns red the more of them are missing, and is gray if no
    partition is expected.
    """
    names = sorted({month for coverage in coverages for month in coverage.months})
    if not names:
        return _png([[_NOT_EXPECTED]])
    pixels = []
    for coverage in coverages:
        colors = [_color(coverage.months.get(month)) for month in _months(names[0], names[-1])]
        line = [pixel for color in colors for pixel in (*[color] * (_CELL - 1), _GAP)]
        pixels += [line] * (_CELL - 1) + [[_GAP] * len(line)]
    return _png(pixels)


def _months(first: str, last: str) -> list[str]:
    """Return the months from ``first`` to ``last``, such as ``2024-01``, both included."""
    year, month = map(int, first.split("-"))
    names = []
    while (name := f"{year}-{month:02}") <= last:
        names.append(name)
        year, month = (year, month + 1) if month < 12 else (year + 1, 1)
    return names


def _color(month: tuple[int, int] | None) -> tuple[int, int, int]:
    """Return the color of a month, given its numbers of stored and of expected partitions; None for none expected."""
    if month is None:
        return _NOT_EXPECTED
    share = month[0] / month[1]
    red, green, blue = (round(empty + (full - empty) * share) for empty, full in zip(_EMPTY, _FULL, strict=True))
    return red, green, blue


def _png(pixels: Sequence[Sequence[tuple[int, int, int]]]) -> bytes:
    """Return the pixels as a PNG in the smallest form of the format, which needs no library."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", len(pixels[0]), len(pixels), 8, 2, 0, 0, 0)
    lines = b"".join(b"\0" + bytes(value for pixel in line for value in pixel) for line in pixels)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
