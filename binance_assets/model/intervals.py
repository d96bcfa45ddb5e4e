"""The candle intervals, and the grid of open times of each.

All times are integer milliseconds since the epoch, UTC. A grid is counted in *slots*: slot ``n`` of an interval begins
at ``interval.slot_start(n)``, and at most one candle opens in it. For every interval but ``3d`` a candle opens exactly
where its slot begins. The phase of ``3d`` differs from symbol to symbol (it follows the day of listing) and is read
from the candles, see :meth:`Interval.open_times`.

Source: recorded spot candles of eight symbols, 2017 to 2026: intervals up to 12h and 1d are aligned to the epoch in
UTC, ``1w`` opens on Mondays, ``1M`` on the first of the month.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from binance_assets.model.timestamps import DAY, HOUR, MINUTE, SECOND, to_ms

_FIRST_MONDAY: Final = 4 * DAY  # 1970-01-05, the first Monday after the epoch
_LONGEST_MONTH: Final = 31 * DAY


@dataclass(frozen=True, slots=True)
class Interval:
    """A candle interval: one of Binance's, or one that only derived candles have, such as ``45m``.

    Attributes:
        name: Spelling in keys, paths and messages: as Binance spells it, except that the month is ``1mo``.
        api_name: Spelling in requests to the API (``1M`` for the month); equal to ``name`` if Binance lacks the
            interval.
        step: Length of a candle, ms; for the month, whose length varies, that of the longest month (31 days).
        anchor: An open time of the grid, ms UTC.
    """

    name: str
    api_name: str
    step: int
    anchor: int = 0

    def __hash__(self) -> int:
        return hash(self.name)

    def __str__(self) -> str:
        return self.name

    @property
    def is_month(self) -> bool:
        """Whether candles are calendar months, the only interval without a fixed length."""
        return self.api_name == "1M"

    @property
    def has_symbol_phase(self) -> bool:
        """Whether each symbol has its own grid, which only its candles show (``3d``)."""
        return self.api_name == "3d"

    @property
    def is_multi_day(self) -> bool:
        """Whether candles are longer than a day, so that partitions are months."""
        return self.step > DAY

    def slot(self, time: int) -> int:
        """Return the number of the slot that contains ``time`` (ms UTC)."""
        if self.is_month:
            moment = dt.datetime.fromtimestamp(time / SECOND, dt.UTC)
            return moment.year * 12 + moment.month - 1
        return (time - self.anchor) // self.step

    def slot_start(self, slot: int) -> int:
        """Return the start of slot number ``slot`` (ms UTC)."""
        if self.is_month:
            return to_ms(dt.date(slot // 12, slot % 12 + 1, 1))
        return self.anchor + slot * self.step

    def phase(self, open_time: int) -> int:
        """Return how far the candle of ``open_time`` (ms UTC) opens into its slot, ms: 0 on the common grid."""
        return open_time - self.slot_start(self.slot(open_time))

    def open_times(self, start: int, end: int, phase: int = 0) -> Sequence[int]:
        """Return the open times that a series without gaps has in ``[start, end)``, ms UTC, ascending.

        Args:
            start: Start of the range, ms UTC, included.
            end: End of the range, ms UTC, excluded.
            phase: The :meth:`phase` of the symbol's candles; 0 for every interval but ``3d``.
        """
        if self.is_month:
            opens = [self.slot_start(slot) for slot in range(self.slot(start), self.slot(end - 1) + 1)]
            return [time for time in opens if start <= time < end]
        first = start + (self.anchor + phase - start) % self.step
        return range(first, end, self.step)

    def close(self, open_time: int) -> int:
        """Return when the candle that opened at ``open_time`` ends: the open time of the next one, ms UTC."""
        if self.is_month:
            return self.slot_start(self.slot(open_time) + 1)
        return open_time + self.step


def _fixed(name: str, step: int, anchor: int = 0) -> Interval:
    return Interval(name, name, step, anchor)


INTERVALS: Final[tuple[Interval, ...]] = (
    _fixed("1s", SECOND),
    _fixed("1m", MINUTE),
    _fixed("3m", 3 * MINUTE),
    _fixed("5m", 5 * MINUTE),
    _fixed("15m", 15 * MINUTE),
    _fixed("30m", 30 * MINUTE),
    _fixed("1h", HOUR),
    _fixed("2h", 2 * HOUR),
    _fixed("4h", 4 * HOUR),
    _fixed("6h", 6 * HOUR),
    _fixed("8h", 8 * HOUR),
    _fixed("12h", 12 * HOUR),
    _fixed("1d", DAY),
    _fixed("3d", 3 * DAY),
    _fixed("1w", 7 * DAY, _FIRST_MONDAY),
    Interval("1mo", "1M", _LONGEST_MONTH),
)
"""Every interval that Binance has, shortest first."""

_BY_SPELLING: Final = {spelling: interval for interval in INTERVALS for spelling in (interval.name, interval.api_name)}


def parse_interval(text: str) -> Interval:
    """Return Binance's interval that ``text`` spells; ``1M`` and ``1mo`` are the same.

    Raises:
        ValueError: There is no such interval; the message lists those that exist.
    """
    try:
        return _BY_SPELLING[text]
    except KeyError:
        known = ", ".join(interval.name for interval in INTERVALS)
        raise ValueError(f"there is no interval {text!r}; Binance has {known}") from None


DAILY: Final = parse_interval("1d")
"""The interval of the control totals."""

_UNITS: Final = {"d": DAY, "h": HOUR, "m": MINUTE, "s": SECOND}
_DERIVED: Final = re.compile(r"([1-9][0-9]{0,8})([smhd])")


def parse_derived_interval(text: str) -> Interval:
    """Return the interval that ``text`` spells, for derived candles, whether or not Binance has that interval.

    Args:
        text: Whole seconds, minutes, hours or ``1d``, in the largest unit that divides it: ``45m``, ``1h``.

    Returns:
        Binance's own interval if there is one, otherwise a new one whose grid begins at midnight UTC.

    Raises:
        ValueError: The text is not an interval, its candles would cross midnight, or its standard spelling is another.
    """
    match = _DERIVED.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is not an interval to derive; write it like 5m, 1h or 45m, at most 1d")
    step = int(match[1]) * _UNITS[match[2]]
    if step > DAY:
        raise ValueError(f"{text} cannot be derived, it is longer than a day; write at most 1d")
    if DAY % step:
        raise ValueError(
            f"{text} cannot be derived, its candles would reach across midnight; "
            "write an interval that divides a day evenly, such as 5m, 45m or 1h"
        )
    name = next(f"{step // length}{unit}" for unit, length in _UNITS.items() if step % length == 0)
    if text != name:
        raise ValueError(f"{text} is the same as {name}; write {name}")
    return _BY_SPELLING.get(name) or _fixed(name, step)
