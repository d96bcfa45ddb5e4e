"""Which files of the public archive hold a range, and whether they are the cheaper way to it. Pure arithmetic.

    data/<market>/<daily|monthly>/klines/BTCUSDT/1m/BTCUSDT-1m-2024-01.zip and beside it .CHECKSUM

Sources: the README of Binance's public data and its issues, and the files themselves (2026-11). A day's file appears on
the next day, mostly within hours and sometimes days later; a month's in the first week of the next month. Intervals
longer than a day have monthly files only.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from binance_assets.model.markets import Market
from binance_assets.model.partitions import Partition, next_month
from binance_assets.model.series import Series
from binance_assets.model.timestamps import DAY, to_date, to_ms

REQUESTS_PER_FILE: Final = 2


"""The zip and its checksum."""


# Where REST may be asked as well, younger days are left to it: the file may not be there yet, or be cut short.
_YOUNGEST_DAY_MS: Final = 2 * DAY


_YOUNGEST_MONTH_MS: Final = 3 * DAY


# A file is read as a whole, so one with more candles (a month of 1s) is not asked for; its days are.
_MOST_ROWS: Final = 90_000


_MONTH: Final = 31 * DAY


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """One file of the archive.

    Attributes:
        series: Whose candles it holds.
        start: First moment, ms UTC.
        end: Last moment, ms UTC, excluded.
        partitions: The periods that are wanted of it, ascending.
    """

    series: Series
    start: int
    end: int
    partitions: tuple[Partition, ...] = ()

    @classmethod
    def named(cls, series: Series, name: str) -> ArchiveFile:
        """The file of ``series`` with that name, as :attr:`name` spells it."""
        date = name.removeprefix(f"{series.symbol}-{series.interval.name}-").removesuffix(".zip")
        first = dt.date.fromisoformat(date if len(date) > len("2024-01") else f"{date}-01")
        end = first + dt.timedelta(days=1) if len(date) > len("2024-01") else next_month(first)
        return cls(series, to_ms(first), to_ms(end))

    @property
    def monthly(self) -> bool:
        """Whether it holds a month rather than a day."""
        return self.end - self.start > DAY

    @property
    def name(self) -> str:
        """Its name, such as ``BTCUSDT-1m-2024-01.zip``."""
        date = to_date(self.start).isoformat()
        return f"{self.series.symbol}-{self.series.interval.name}-{date[:7] if self.monthly else date}.zip"

    @property
    def path(self) -> str:
        """Its path on the archive's host."""
        kind = "monthly" if self.monthly else "daily"
        series = self.series
        return f"/data/{series.market.archive}/{kind}/klines/{series.symbol}/{series.interval.name}/{self.name}"


def daily_files(series: Series, partitions: Sequence[Partition], now: int, age: int = 0) -> list[ArchiveFile]:
    """The daily files of those of ``partitions`` that ended ``age`` ms before ``now``, ms UTC, or earlier."""
    if series.interval.is_multi_day:
        return []
    starts_here = to_ms(series.market.archived)
    return [
        ArchiveFile(series, partition.start, partition.end, (partition,))
        for partition in partitions
        if starts_here <= partition.start and partition.end + age <= now
    ]


def monthly_files(series: Series, partitions: Sequence[Partition], now: int) -> list[ArchiveFile]:
    """The monthly files of those of ``partitions`` whose month should have one by ``now``, ms UTC."""
    if not series.interval.is_multi_day and _MONTH // series.interval.step > _MOST_ROWS:
        return []
    files = []
    for first, members in groupby(partitions, key=lambda partition: to_date(partition.start).replace(day=1)):
        start, end = to_ms(first), to_ms(next_month(first))
        if end > to_ms(series.market.archived) and end + _YOUNGEST_MONTH_MS <= now:
            files.append(ArchiveFile(series, start, end, tuple(members)))
    return files


def cheaper_files(series: Series, partitions: Sequence[Partition], now: int) -> list[ArchiveFile]:
    """The files that bring some of ``partitions`` in fewer requests than REST; at most one for each period.

    A month is one file where that exists and pays, otherwise the days are weighed one by one.

    Args:
        series: The series.
        partitions: What is wanted, ascending.
        now: The server's time, ms UTC.
    """
    months = [file for file in monthly_files(series, partitions, now) if _pays(file)]
    held = {partition for file in months for partition in file.partitions}
    rest = [partition for partition in partitions if partition not in held]
    days = [file for file in daily_files(series, rest, now, _YOUNGEST_DAY_MS) if _pays(file)]
    return sorted([*months, *days], key=lambda file: file.start)


def all_files(series: Series, partitions: Sequence[Partition], now: int) -> list[ArchiveFile]:
    """The fewest files that hold ``partitions``, as far as the archive may have them by ``now``, ms UTC."""
    coarse = series.interval.is_multi_day
    months = [file for file in monthly_files(series, partitions, now) if coarse or len(file.partitions) > 1]
    held = {partition for file in months for partition in file.partitions}
    rest = [partition for partition in partitions if partition not in held]
    return sorted([*months, *daily_files(series, rest, now)], key=lambda file: file.start)


def daily_files_only(series: Series, partitions: Sequence[Partition], now: int) -> list[ArchiveFile]:
    """A file for each of ``partitions``: of the day, or of the month where that is the partition.

    Where a month's file and a day's differ, the day's is right (its sums agree with those of REST).
    """
    return (
        monthly_files(series, partitions, now) if series.interval.is_multi_day else daily_files(series, partitions, now)
    )


def _pays(file: ArchiveFile) -> bool:
    """Whether REST would need more requests for the wanted periods, counted in full pages of the cheapest size."""
    rows = sum((partition.end - partition.start) // file.series.interval.step for partition in file.partitions)
    return rows > REQUESTS_PER_FILE * _rows_per_page(file.series.market)


def _rows_per_page(market: Market) -> int:
    return max(market.page_sizes, key=lambda size: size.rows / size.weight).rows
