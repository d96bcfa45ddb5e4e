"""The interval of the candles that a chart shows: the candles of the series, or coarser ones if those are too many."""

from __future__ import annotations

from typing import Final

from binance_assets.model.intervals import DAILY, INTERVALS, Interval

MOST_CANDLES: Final = 3_000
"""The most candles that a chart has by itself: about two for each pixel of a wide screen, drawn in well under a second.

A chart of more than eight years has more: candles are not added up beyond a day.
"""

MOST_ASKED: Final = 20_000
"""The most candles that a chart has because its user chose the interval: 3 MB, which a browser still moves smoothly."""


def shown_interval(interval: Interval, length: int) -> Interval:
    """Return the finest interval that shows a range in at most :data:`MOST_CANDLES` candles, or else ``1d``.

    Args:
        interval: The interval of the series. If it is longer than a day, it is what is shown.
        length: The length of the range, ms.
    """
    if interval.is_multi_day or count(interval, length) <= MOST_CANDLES:
        return interval
    coarser = [
        candidate for candidate in INTERVALS if candidate.step <= DAILY.step and candidate.step % interval.step == 0
    ]
    return next((candidate for candidate in coarser if count(candidate, length) <= MOST_CANDLES), coarser[-1])


def count(interval: Interval, length: int) -> int:
    """Return how many candles a range of ``length`` ms has at most."""
    return -(-length // interval.step)


def check_every(interval: Interval, every: Interval) -> None:
    """Check that candles of ``interval`` add up to those of ``every``.

    Raises:
        ValueError: They do not.
    """
    if every != interval and (every.is_multi_day or every.step % interval.step):
        raise ValueError(f"candles of {interval} do not add up to {every}")


def check_count(every: Interval, length: int) -> None:
    """Check that a range of ``length`` ms has at most :data:`MOST_ASKED` candles of ``every``.

    Raises:
        ValueError: It has more; the message names an interval that works.
    """
    if (candles := count(every, length)) > MOST_ASKED:
        raise ValueError(
            f"{candles:,} candles of {every} are too many for a chart, which has at most {MOST_ASKED:,}; "
            f"choose a shorter range, or {shown_interval(every, length)}"
        )
