"""The partitions, free of Dagster: days for intervals up to 1d, months for 3d, 1w and 1M.

A candle belongs to the period in which it opens. A period's key is its first day, ``2024-01-01``.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from binance_assets.model.intervals import Interval
from binance_assets.model.timestamps import DAY, to_date, to_ms

FIRST_DAY: Final = dt.date(2017, 7, 1)


"""The first partition of every series: Binance opened on 2017-07-14."""


@dataclass(frozen=True, slots=True, order=True)
class Partition:
    """One partition: the candles that open in ``[start, end)``, both ms UTC at midnight."""

    start: int
    end: int

    @property
    def key(self) -> str:
        """The partition key: its first day."""
        return to_date(self.start).isoformat()

    def __str__(self) -> str:
        return self.key


def partition_for_key(key: str, interval: Interval) -> Partition:
    """The period with the key ``key`` (an ISO date) in a series of ``interval``."""
    first = dt.date.fromisoformat(key)
    return Partition(to_ms(first), to_ms(next_first_day(first, interval)))


def partitions_between(start: dt.date, end: dt.date, interval: Interval) -> list[Partition]:
    """The periods from the one that begins on ``start`` up to, and without, the one that begins on ``end``."""
    partitions = []
    while start < end:
        following = next_first_day(start, interval)
        partitions.append(Partition(to_ms(start), to_ms(following)))
        start = following
    return partitions


def first_day_of(day: dt.date, interval: Interval) -> dt.date:
    """The first day of the period that contains ``day``."""
    return day.replace(day=1) if interval.is_multi_day else day


def next_first_day(first: dt.date, interval: Interval) -> dt.date:
    """The first day of the period after the one that begins on ``first``."""
    if interval.is_multi_day:
        return next_month(first)
    return first + dt.timedelta(days=1)


def next_month(day: dt.date) -> dt.date:
    """The first day of the month after that of ``day``."""
    return (day.replace(day=1) + dt.timedelta(days=32)).replace(day=1)


def closes_at(partition: Partition, interval: Interval, phase: int | None = None) -> int:
    """When the last candle that opens in ``partition`` has closed, ms UTC.

    Args:
        partition: The period.
        interval: Its series' interval.
        phase: The symbol's phase of ``3d``; None when it is not yet known, which gives the earliest possible
            moment.
    """
    if not interval.is_multi_day or (interval.has_symbol_phase and phase is None):
        return partition.end
    return interval.close(interval.open_times(partition.start, partition.end, phase or 0)[-1])


def last_finished_end(now: int, interval: Interval) -> dt.date:
    """The day before which every period of ``interval`` is over at ``now`` (ms UTC), whatever its phase."""
    first = first_day_of(to_date(now), interval)
    latest_phase = interval.step - DAY if interval.has_symbol_phase else 0
    while first > FIRST_DAY:
        before = first_day_of(first - dt.timedelta(days=1), interval)
        ends = [
            closes_at(partition_for_key(before.isoformat(), interval), interval, n)
            for n in range(0, latest_phase + 1, DAY)
        ]
        if max(ends) <= now:
            break
        first = before
    return first


def spans(partitions: Iterable[Partition]) -> list[tuple[int, int]]:
    """The periods (in order) as the fewest contiguous ``(start, end)`` ranges, ms UTC."""
    joined: list[tuple[int, int]] = []
    for partition in partitions:
        if joined and joined[-1][1] == partition.start:
            joined[-1] = (joined[-1][0], partition.end)
        else:
            joined.append((partition.start, partition.end))
    return joined
