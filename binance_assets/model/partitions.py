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
class Period:
    """One partition: the candles that open in ``[start, end)``, both ms UTC at midnight."""

    start: int
    end: int

    @property
    def key(self) -> str:
        """The partition key: its first day."""
        return to_date(self.start).isoformat()

    def __str__(self) -> str:
        return self.key


def period_of(key: str, interval: Interval) -> Period:
    """The period with the key ``key`` (an ISO date) in a series of ``interval``."""
    first = dt.date.fromisoformat(key)
    return Period(to_ms(first), to_ms(next_first(first, interval)))


def periods_between(start: dt.date, end: dt.date, interval: Interval) -> list[Period]:
    """The periods from the one that begins on ``start`` up to, and without, the one that begins on ``end``."""
    periods = []
    while start < end:
        following = next_first(start, interval)
        periods.append(Period(to_ms(start), to_ms(following)))
        start = following
    return periods


def first_of(day: dt.date, interval: Interval) -> dt.date:
    """The first day of the period that contains ``day``."""
    return day.replace(day=1) if interval.is_coarse else day


def next_first(first: dt.date, interval: Interval) -> dt.date:
    """The first day of the period after the one that begins on ``first``."""
    if interval.is_coarse:
        return next_month(first)
    return first + dt.timedelta(days=1)


def next_month(day: dt.date) -> dt.date:
    """The first day of the month after that of ``day``."""
    return (day.replace(day=1) + dt.timedelta(days=32)).replace(day=1)


def over_at(period: Period, interval: Interval, phase: int | None = None) -> int:
    """When the last candle that opens in ``period`` has closed, ms UTC.

    Args:
        period: The period.
        interval: Its series' interval.
        phase: The symbol's phase of ``3d``; None when it is not yet known, which gives the earliest possible
            moment.
    """
    if not interval.is_coarse or (interval.has_own_phase and phase is None):
        return period.end
    return interval.close(interval.open_times(period.start, period.end, phase or 0)[-1])


def last_finished_end(now: int, interval: Interval) -> dt.date:
    """The day before which every period of ``interval`` is over at ``now`` (ms UTC), whatever its phase."""
    first = first_of(to_date(now), interval)
    latest_phase = interval.step - DAY if interval.has_own_phase else 0
    while first > FIRST_DAY:
        before = first_of(first - dt.timedelta(days=1), interval)
        ends = [over_at(period_of(before.isoformat(), interval), interval, n) for n in range(0, latest_phase + 1, DAY)]
        if max(ends) <= now:
            break
        first = before
    return first


def spans(periods: Iterable[Period]) -> list[tuple[int, int]]:
    """The periods (in order) as the fewest contiguous ``(start, end)`` ranges, ms UTC."""
    joined: list[tuple[int, int]] = []
    for period in periods:
        if joined and joined[-1][1] == period.start:
            joined[-1] = (joined[-1][0], period.end)
        else:
            joined.append((period.start, period.end))
    return joined
