"""Planning of klines requests for ranges of candles: the least weight first, then the fewest requests.

Pure arithmetic. The weight of a page depends on its ``limit`` and does not grow evenly with it (see the table of
markets), so the cheapest cover is searched rather than assumed: 1000 candles of a futures market are one page of 1000
for 5, but 998 are two pages of 499 for 4.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

from binance_assets.model.intervals import Interval
from binance_assets.model.markets import Market, PageSize
from binance_assets.model.series import Series

# The search for a mix of page sizes covers only this many candles at the end of a contiguous range. Before them, only
# the size with the cheapest rows can be part of a cheapest plan; the property tests check this by brute force.
_SEARCHED_ROWS: Final = 4_000


@dataclass(frozen=True, slots=True)
class Page:
    """One klines request: the candles that open in ``[start, end)``.

    Attributes:
        start: First requested open time, ms UTC.
        end: End of the window, ms UTC, excluded; the API's ``endTime`` is one millisecond less.
        limit: The ``limit`` to send, never less than the number of candles that can open in the window.
        weight: Request weight of the page.
    """

    start: int
    end: int
    limit: int
    weight: int

    @property
    def window(self) -> dict[str, str | int]:
        """The request's parameters for the window; both ends are inclusive in the API."""
        return {"startTime": self.start, "endTime": self.end - 1, "limit": self.limit}


def klines_parameters(series: Series, window: Mapping[str, str | int]) -> dict[str, str | int]:
    """Return the parameters of a klines request for ``series``, with those of ``window``."""
    return {"symbol": series.symbol, "interval": series.interval.api_name, **window}


def plan_pages(market: Market, interval: Interval, ranges: Iterable[tuple[int, int]]) -> list[Page]:
    """Return the requests that fetch every candle of ``ranges``, in order of time.

    A page may span the gap between two ranges if that is cheaper than two pages; its response then has unwanted candles
    too.

    Args:
        market: The market, which sets the weights and the longest window.
        interval: The candles' interval.
        ranges: Half-open ``(start, end)`` in ms UTC, ascending, disjoint.
    """
    ranges = list(ranges)
    if interval.has_symbol_phase and ranges:
        # The symbol's phase is not known yet, but n of its candles never open in less than 3n days.
        interval = replace(interval, anchor=ranges[0][0])
    wanted = [(_first_slot(interval, start), interval.slot(end - 1) + 1) for start, end in ranges]
    cover = _cheapest_cover(_join(wanted), page_sizes(market, interval))
    windows = [(interval.slot_start(first), interval.slot_start(first + size.rows), size) for first, size in cover]
    last_end = ranges[-1][1] if ranges else 0
    return [Page(start, min(end, last_end), size.rows, size.weight) for start, end, size in windows]


@cache
def page_sizes(market: Market, interval: Interval) -> tuple[PageSize, ...]:
    """Return the page sizes worth sending: within the market's longest window, and without a cheaper equivalent."""
    longest = market.page_sizes[-1].rows
    if market.max_window is not None:
        longest = min(longest, market.max_window // interval.step)
    sizes: list[PageSize] = []
    for size in market.page_sizes:
        if sizes and sizes[-1].rows >= longest:
            break
        size = PageSize(min(size.rows, longest), size.weight)
        if not sizes or _weight_of(size.rows, tuple(sizes)) >= size.weight:
            sizes.append(size)
    return tuple(sizes)


@cache
def _weight_of(rows: int, sizes: tuple[PageSize, ...]) -> int:
    """Return the least weight of ``rows`` contiguous candles in pages of ``sizes``."""
    return 0 if rows <= 0 else min(size.weight + _weight_of(rows - size.rows, sizes) for size in sizes)


def _first_slot(interval: Interval, start: int) -> int:
    """Return the first slot whose candle can open at ``start`` or later."""
    slot = interval.slot(start)
    return slot if interval.has_symbol_phase or interval.slot_start(slot) == start else slot + 1


def _join(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Merge ranges of slots, half-open and ascending, that touch or overlap; drop empty ones."""
    joined: list[tuple[int, int]] = []
    for first, end in ranges:
        if first >= end:
            continue
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((first, end))
    return joined


def _cheapest_cover(ranges: Sequence[tuple[int, int]], sizes: Sequence[PageSize]) -> list[tuple[int, PageSize]]:
    """Return pages as (first slot, size) that cover every slot of ``ranges``: the least weight, then the fewest pages.

    A shortest path: from each first uncovered slot, one edge per page size leads to the next uncovered slot. Slots
    are visited from left to right, so the cheapest path to a slot is known when the slot is visited.
    """
    if not ranges:
        return []
    best = max(sizes, key=lambda size: (size.rows / size.weight, size.rows))
    ends = [end for _, end in ranges]
    # For each slot reached: the weight and number of the pages that lead there, and the last of these pages.
    paths: dict[int, tuple[int, int, int, PageSize]] = {ranges[0][0]: (0, 0, -1, best)}
    reached = [ranges[0][0]]
    finished = -1
    while reached:
        slot = heapq.heappop(reached)
        weight, count, _, _ = paths[slot]
        remaining = ends[bisect_right(ends, slot)] - slot
        for size in [best] if remaining > _SEARCHED_ROWS else sizes:
            path = (weight + size.weight, count + 1, slot, size)
            following = bisect_right(ends, slot + size.rows)
            target = max(slot + size.rows, ranges[following][0]) if following < len(ranges) else finished
            if target not in paths:
                paths[target] = path
                if target != finished:
                    heapq.heappush(reached, target)
            elif path[:2] < paths[target][:2]:
                paths[target] = path
    pages: list[tuple[int, PageSize]] = []
    slot = finished
    while paths[slot][1]:
        _, _, slot, size = paths[slot]
        pages.append((slot, size))
    return pages[::-1]
