"""Planning of archive files: which ones to fetch for a range, and when they are cheaper than REST. Pure arithmetic.

    data/<market>/<daily|monthly>/klines/BTCUSDT/1m/BTCUSDT-1m-2024-01.zip, and the same path with .CHECKSUM appended

Sources: the README of Binance's public data and its issues, and the files themselves (2026-11). The file of a day
appears on the next day, mostly within hours and sometimes days later; the file of a month in the first week of the
next month. Intervals longer than a day have monthly files only.
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from typing import Final

from binance_assets.model.markets import Market
from binance_assets.model.partitions import Partition, next_month
from binance_assets.model.series import Series
from binance_assets.model.timestamps import DAY, to_date, to_ms

REQUESTS_PER_FILE: Final = 2
"""The zip and its checksum."""

# If REST is a source too, younger partitions are fetched by REST: their files may not exist yet, or be cut short.
_YOUNGEST_DAY_MS: Final = 2 * DAY
_YOUNGEST_MONTH_MS: Final = 3 * DAY
# A file is read as a whole. So instead of a file with more candles (a month of 1s), the files of its days are fetched.
_MOST_ROWS: Final = 90_000
_MONTH: Final = 31 * DAY

# A line has about 130 bytes, 200 with the longest numbers that were seen. Files with every row twice were published.
_MOST_PER_CANDLE: Final = 512
_MOST_BESIDE_CANDLES: Final = 65_536  # the header, and room for a change of the form in files of a few candles


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """One file of the archive.

    Attributes:
        series: The series whose candles the file holds.
        start: Start of the file's day or month, ms UTC.
        end: End of the file's day or month, ms UTC, excluded.
        partitions: The partitions that are wanted from the file, ascending.
    """

    series: Series
    start: int
    end: int
    partitions: tuple[Partition, ...] = ()

    @classmethod
    def named(cls, series: Series, name: str) -> ArchiveFile:
        """Return the file of ``series`` that is called ``name``, such as ``BTCUSDT-1m-2024-01.zip``.

        Raises:
            ValueError: The name is not that of a file of this series.
        """
        date = name.removeprefix(f"{series.symbol}-{series.interval.name}-").removesuffix(".zip")
        first = dt.date.fromisoformat(date if len(date) > len("2024-01") else f"{date}-01")
        end = first + dt.timedelta(days=1) if len(date) > len("2024-01") else next_month(first)
        return cls(series, to_ms(first), to_ms(end))

    @property
    def monthly(self) -> bool:
        """Whether the file holds a month rather than a day."""
        return self.end - self.start > DAY

    @property
    def name(self) -> str:
        """The file's name, such as ``BTCUSDT-1m-2024-01.zip``."""
        date = to_date(self.start).isoformat()
        return f"{self.series.symbol}-{self.series.interval.name}-{date[:7] if self.monthly else date}.zip"

    @property
    def path(self) -> str:
        """The file's path on the archive's host."""
        kind = "monthly" if self.monthly else "daily"
        series = self.series
        return f"/data/{series.market.archive}/{kind}/klines/{series.symbol}/{series.interval.name}/{self.name}"


def most_csv_bytes(file: ArchiveFile) -> int:
    """Return how many bytes the CSV of ``file`` can have, generously; what is larger does not hold its candles.

    The zip of the CSV is never larger, so this bounds the download too.
    """
    candles = (file.end - file.start) // file.series.interval.step + 1
    return _MOST_BESIDE_CANDLES + candles * _MOST_PER_CANDLE


def daily_files(series: Series, partitions: Sequence[Partition], now: int, age: int = 0) -> list[ArchiveFile]:
    """Return the daily files of all ``partitions`` that ended early enough; none for intervals longer than a day.

    Args:
        series: The series.
        partitions: The wanted partitions, ascending.
        now: The server's time, ms UTC.
        age: How long ago a partition must have ended, ms.
    """
    if series.interval.is_multi_day:
        return []
    archive_start = to_ms(series.market.archived)
    return [
        ArchiveFile(series, partition.start, partition.end, (partition,))
        for partition in partitions
        if archive_start <= partition.start and partition.end + age <= now
    ]


def monthly_files(series: Series, partitions: Sequence[Partition], now: int) -> list[ArchiveFile]:
    """Return the monthly files of all ``partitions`` whose month should have a file by ``now``, ms UTC."""
    if not series.interval.is_multi_day and _MONTH // series.interval.step > _MOST_ROWS:
        return []
    files, archive_start, position = [], to_ms(series.market.archived), 0
    while position < len(partitions):
        start, end = _month_of(partitions[position].start)
        following = bisect_left(partitions, end, lo=position, key=_START)
        if end > archive_start and end + _YOUNGEST_MONTH_MS <= now:
            files.append(ArchiveFile(series, start, end, tuple(partitions[position:following])))
        position = following
    return files


@lru_cache(maxsize=4_096)  # most series of a request begin together
def _month_of(time: int) -> tuple[int, int]:
    """Return the start and the end of the month of ``time``, all in ms UTC."""
    first = to_date(time).replace(day=1)
    return to_ms(first), to_ms(next_month(first))


_START: Final = attrgetter("start")


def partitions_outside(files: Sequence[ArchiveFile], partitions: Sequence[Partition]) -> list[Partition]:
    """Return those of ``partitions`` that are in the day or month of none of ``files``; both are ascending."""
    outside, position = list[Partition](), 0
    for file in files:
        first = bisect_left(partitions, file.start, lo=position, key=_START)
        outside += partitions[position:first]
        position = bisect_left(partitions, file.end, lo=first, key=_START)
    return [*outside, *partitions[position:]]


def cheaper_files(series: Series, partitions: Sequence[Partition], now: int) -> list[ArchiveFile]:
    """Return the files that hold some of ``partitions`` in fewer requests than REST; at most one for each partition.

    The partitions of a month come from one monthly file if it exists and is cheaper; otherwise each daily file is
    compared with REST by itself.

    Args:
        series: The series.
        partitions: The wanted partitions, ascending.
        now: The server's time, ms UTC.
    """
    months = [file for file in monthly_files(series, partitions, now) if _is_cheaper(file)]
    remaining = partitions_outside(months, partitions)
    days = [file for file in daily_files(series, remaining, now, _YOUNGEST_DAY_MS) if _is_cheaper(file)]
    return sorted([*months, *days], key=lambda file: file.start)


def all_files(series: Series, partitions: Sequence[Partition], now: int) -> list[ArchiveFile]:
    """Return the fewest files that hold ``partitions``, as far as the archive may have them by ``now``, ms UTC."""
    multi_day = series.interval.is_multi_day
    months = [file for file in monthly_files(series, partitions, now) if multi_day or len(file.partitions) > 1]
    remaining = partitions_outside(months, partitions)
    return sorted([*months, *daily_files(series, remaining, now)], key=lambda file: file.start)


def daily_files_only(series: Series, partitions: Sequence[Partition], now: int) -> list[ArchiveFile]:
    """Return the file of exactly each partition: the daily file, or the monthly one if the partition is a month.

    If the monthly and the daily file of a day differ, the daily one is right: its totals agree with those of REST.
    """
    return (
        monthly_files(series, partitions, now) if series.interval.is_multi_day else daily_files(series, partitions, now)
    )


def probes(files: Sequence[ArchiveFile]) -> list[ArchiveFile]:
    """Return the first, the middle, and the last of the daily ``files`` (ascending) of each month.

    They show whether a month without a monthly file has any, in three requests instead of one for each day.
    """
    chosen: dict[ArchiveFile, None] = {}
    for _, members in groupby(files, key=lambda file: to_date(file.start).replace(day=1)):
        month = list(members)
        chosen |= dict.fromkeys([month[0], month[(len(month) - 1) // 2], month[-1]])
    return list(chosen)


def _is_cheaper(file: ArchiveFile) -> bool:
    """Return whether REST needs more requests for the wanted partitions, counted in full pages of the cheapest size."""
    return _wanted_rows(file) > REQUESTS_PER_FILE * _rows_per_page(file.series.market)


def _wanted_rows(file: ArchiveFile) -> int:
    step, partitions = file.series.interval.step, file.partitions
    if file.series.interval.is_multi_day:
        return sum((partition.end - partition.start) // step for partition in partitions)
    return len(partitions) * (DAY // step)


def _rows_per_page(market: Market) -> int:
    return max(market.page_sizes, key=lambda size: size.rows / size.weight).rows
