"""The partitions, without Dagster: days for intervals up to 1d, months for 3d, 1w and 1M.

A candle belongs to the partition in which it opens. The key of a partition is its first day: ``2024-01-01``.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from binance_assets.model.intervals import Interval
from binance_assets.model.timestamps import DAY, to_date, to_ms

FIRST_DAY: Final = dt.date(2017, 7, 1)
"""The first partition of every series: Binance opened on 2017-07-14."""

TOO_EARLY: Final = f"Binance opened in July 2017, so give {FIRST_DAY} or a later day"
"""What an error says about an earlier day."""


@dataclass(frozen=True, slots=True, order=True)
class Partition:
    """One partition: the candles that open in ``[start, end)``, both midnight UTC in ms."""

    start: int
    end: int

    @property
    def key(self) -> str:
        """The partition key: the first day."""
        return _key_of(self.start)

    def __str__(self) -> str:
        return self.key


@lru_cache(maxsize=16_384)  # days since 2017: a lake of many series asks for the same ones again and again
def _key_of(start: int) -> str:
    return to_date(start).isoformat()


def partition_for_key(key: str, interval: Interval) -> Partition:
    """Return the partition with the key ``key`` (an ISO date) in a series of ``interval``."""
    first = dt.date.fromisoformat(key)
    return Partition(to_ms(first), to_ms(next_partition_first_day(first, interval)))


def partitions_between(start: dt.date, end: dt.date, interval: Interval) -> list[Partition]:
    """Return the partitions that begin in ``[start, end)`` (dates in UTC); ``start`` must be the first day of one."""
    if not interval.is_multi_day:
        return [Partition(first, first + DAY) for first in range(to_ms(start), to_ms(end), DAY)]
    partitions = []
    while start < end:
        following = next_partition_first_day(start, interval)
        partitions.append(Partition(to_ms(start), to_ms(following)))
        start = following
    return partitions


def partition_first_day(day: dt.date, interval: Interval) -> dt.date:
    """Return the first day of the partition that contains ``day``."""
    return day.replace(day=1) if interval.is_multi_day else day


def next_partition_first_day(first: dt.date, interval: Interval) -> dt.date:
    """Return the first day of the partition after the one that begins on ``first``."""
    if interval.is_multi_day:
        return next_month(first)
    return first + dt.timedelta(days=1)


def next_month(day: dt.date) -> dt.date:
    """Return the first day of the month after the month of ``day``."""
    return (day.replace(day=1) + dt.timedelta(days=32)).replace(day=1)


def closes_at(partition: Partition, interval: Interval, phase: int | None = None) -> int:
    """Return when the last candle that opens in ``partition`` has closed, ms UTC.

    Args:
        partition: The partition.
        interval: The interval of its series.
        phase: The phase of the symbol's ``3d`` candles, ms; None if it is not known yet, which gives the earliest
            possible time.
    """
    if not interval.is_multi_day or (interval.has_symbol_phase and phase is None):
        return partition.end
    return interval.close(interval.open_times(partition.start, partition.end, phase or 0)[-1])


def last_finished_end(now: int, interval: Interval) -> dt.date:
    """Return the day (UTC) before which all partitions of ``interval`` are finished at ``now`` (ms UTC).

    For ``3d`` they are finished whichever phase the symbol has.
    """
    first = partition_first_day(to_date(now), interval)
    latest_phase = interval.step - DAY if interval.has_symbol_phase else 0
    while first > FIRST_DAY:
        previous = partition_first_day(first - dt.timedelta(days=1), interval)
        partition = partition_for_key(previous.isoformat(), interval)
        if max(closes_at(partition, interval, phase) for phase in range(0, latest_phase + 1, DAY)) <= now:
            break
        first = previous
    return first


def merge_ranges(partitions: Iterable[Partition]) -> list[tuple[int, int]]:
    """Merge partitions (ascending) into the fewest contiguous ``(start, end)`` ranges, ms UTC, half-open."""
    ranges: list[tuple[int, int]] = []
    for partition in partitions:
        if ranges and ranges[-1][1] == partition.start:
            ranges[-1] = (ranges[-1][0], partition.end)
        else:
            ranges.append((partition.start, partition.end))
    return ranges
