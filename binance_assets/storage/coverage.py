"""What the lake holds of a market: a row for each series, as a table, as Markdown and as a small picture."""

from __future__ import annotations

import datetime as dt
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Final

import polars as pl

from binance_assets.model.partitions import Partition, last_finished_end, partition_for_key, partitions_between
from binance_assets.model.results import ACCEPTED
from binance_assets.model.series import Series
from binance_assets.model.timestamps import to_date, to_ms
from binance_assets.storage.lake import Lake

_VERDICTS: Final = (*sorted(ACCEPTED), "lost")


_CELL: Final = 10  # pixels of a month in the picture


_EMPTY: Final = (235, 237, 240)


_GAP: Final = (255, 255, 255)


_WORST: Final = (222, 84, 63)


_BEST: Final = (38, 140, 92)


@dataclass(frozen=True, slots=True)
class Coverage:
    """What the lake holds of one series.

    Attributes:
        series: The series.
        first: Key of its first partition in the lake; empty where there is none.
        last: Key of its last one.
        verdicts: How many partitions have each verdict.
        refused: Partitions that were asked for, refused, and are not there.
        missing: Other partitions that are not there, from the first one to the last that is over.
        rows: Candles.
        size: Bytes.
        months: Of each month, ``2024-01``, how many of its partitions are there and how many should be.
    """

    series: Series
    first: str
    last: str
    verdicts: Counter[str]
    refused: int
    missing: int
    rows: int
    size: int
    months: dict[str, tuple[int, int]]


def coverage_of(lake: Lake, series: Series, until: dt.date, refused: Set[str]) -> Coverage:
    """What the lake holds of ``series``; only the files' footers are read.

    Args:
        lake: The lake.
        series: The series.
        until: The day before which partitions should be there, UTC.
        refused: Keys of partitions whose last run did not bring them.
    """
    keys = lake.keys(series)
    there = {key: found for key in keys if (found := lake.stored(series, partition_for_key(key, series.interval)))}
    expected = _expected(series, list(there), until)
    refused_here = refused - there.keys()  # also where no partition is there, or none before them
    months: dict[str, tuple[int, int]] = {}
    for partition in expected:
        held, of = months.get(partition.key[:7], (0, 0))
        months[partition.key[:7]] = (held + (partition.key in there), of + 1)
    return Coverage(
        series=series,
        first=min(there, default=""),
        last=max(there, default=""),
        verdicts=Counter(stored.verdict for stored in there.values()),
        refused=len(refused_here),
        missing=len({partition.key for partition in expected} - there.keys() - refused_here),
        rows=sum(stored.rows for stored in there.values()),
        size=sum(stored.size for stored in there.values()),
        months=months,
    )


def _expected(series: Series, keys: Sequence[str], until: dt.date) -> list[Partition]:
    """The partitions from the first one that is there to the last that is over."""
    if not keys:
        return []
    partitions = partitions_between(dt.date.fromisoformat(min(keys)), until, series.interval)
    over = last_finished_end(to_ms(until), series.interval)
    return [partition for partition in partitions if to_date(partition.start) < over or partition.key in keys]


def coverage_table(coverages: Iterable[Coverage]) -> pl.DataFrame:
    """A row for each series: name, first and last partition, partitions by verdict, refused, missing, rows, bytes."""
    rows = [
        {
            "series": str(one.series),
            "first": one.first or None,
            "last": one.last or None,
            "partitions": sum(one.verdicts.values()),
            **{verdict: one.verdicts[verdict] for verdict in _VERDICTS},
            "refused": one.refused,
            "missing": one.missing,
            "rows": one.rows,
            "bytes": one.size,
        }
        for one in coverages
    ]
    texts = {name: pl.String() for name in ("series", "first", "last")}
    numbers = dict.fromkeys(("partitions", *_VERDICTS, "refused", "missing", "rows", "bytes"), pl.Int64())
    return pl.DataFrame(rows, schema={**texts, **numbers})


def coverage_markdown(table: pl.DataFrame) -> str:
    """The table as Markdown, without the verdicts that no partition has."""
    verdicts = [name for name in _VERDICTS if table[name].sum()]
    names = ["series", "first", "last", "partitions", *verdicts, "refused", "missing", "rows", "bytes"]
    lines = ["| " + " | ".join(names) + " |", "|---|---|---|" + "---:|" * (len(names) - 3)]
    for row in table.select(names).iter_rows():
        cells = ["" if value is None else f"{value:,}" if isinstance(value, int) else str(value) for value in row]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def coverage_picture(coverages: Sequence[Coverage]) -> bytes:
    """A PNG: a line for each series, a square for each month; green is whole, red lacks much, grey is not expected."""
    names = sorted({month for one in coverages for month in one.months})
    if not names:
        return _png([[_EMPTY]])
    pixels = []
    for one in coverages:
        line = [_colour(one.months.get(month)) for month in _months(names[0], names[-1])]
        wide = [pixel for colour in line for pixel in (*[colour] * (_CELL - 1), _GAP)]
        pixels += [wide] * (_CELL - 1) + [[_GAP] * len(wide)]
    return _png(pixels)


def _months(first: str, last: str) -> list[str]:
    year, month = map(int, first.split("-"))
    names = []
    while (name := f"{year}-{month:02}") <= last:
        names.append(name)
        year, month = (year, month + 1) if month < 12 else (year + 1, 1)
    return names


def _colour(month: tuple[int, int] | None) -> tuple[int, int, int]:
    if month is None:
        return _EMPTY
    share = month[0] / month[1]
    red, green, blue = (round(bad + (good - bad) * share) for bad, good in zip(_WORST, _BEST, strict=True))
    return red, green, blue


def _png(pixels: Sequence[Sequence[tuple[int, int, int]]]) -> bytes:
    """The pixels as a PNG; the smallest form of it, which needs no library."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", len(pixels[0]), len(pixels), 8, 2, 0, 0, 0)
    lines = b"".join(b"\0" + bytes(value for pixel in line for value in pixel) for line in pixels)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
