"""Planned pages cover every requested candle once, at the least weight, in the fewest requests."""

from __future__ import annotations

import datetime as dt
import itertools
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from binance_assets.exchange.pages import Page, page_sizes, plan_pages
from binance_assets.model.intervals import Interval, parse_interval
from binance_assets.model.markets import COINM, MARKETS, SPOT, USDM, Market, PageSize
from binance_assets.model.partitions import Partition, merge_ranges, next_partition_first_day
from binance_assets.model.timestamps import DAY, HOUR, MINUTE, to_ms

MINUTES = parse_interval("1m")
START = to_ms(dt.date(2024, 1, 1))

markets = st.sampled_from(list(MARKETS.values()))
market_intervals = markets.flatmap(lambda market: st.tuples(st.just(market), st.sampled_from(market.intervals)))


@st.composite
def some_partitions(draw: st.DrawFn, interval: Interval) -> list[Partition]:
    """Draw some partitions of an interval, with gaps between them."""
    first = dt.date(2020, draw(st.integers(1, 12)), 1)
    partitions = []
    for wanted in draw(st.lists(st.booleans(), min_size=1, max_size=40)):
        following = next_partition_first_day(first, interval)
        if wanted:
            partitions.append(Partition(to_ms(first), to_ms(following)))
        first = following
    return partitions


requests = market_intervals.flatmap(
    lambda pair: st.tuples(st.just(pair[0]), st.just(pair[1]), some_partitions(pair[1]))
)


@given(requests, st.integers(0, 2))
def test_every_requested_candle_opens_in_exactly_one_page(
    request_: tuple[Market, Interval, list[Partition]], phase_days: int
) -> None:
    market, interval, partitions = request_
    phase = phase_days * DAY if interval.has_symbol_phase else 0
    pages = plan_pages(market, interval, merge_ranges(partitions))
    for earlier, later in itertools.pairwise(pages):
        assert earlier.end <= later.start
    for page in pages:
        assert len(interval.open_times(page.start, page.end, phase)) <= page.limit
    for partition in partitions:
        for time in (
            partition.start,
            *interval.open_times(partition.start, partition.end, phase)[:: max(1, DAY // MINUTE - 1)],
        ):
            if partition.start <= time and interval.phase(time) == phase % interval.step:
                assert sum(page.start <= time < page.end for page in pages) == 1
        last = interval.open_times(partition.start, partition.end, phase)[-1]
        assert sum(page.start <= last < page.end for page in pages) == 1


@given(requests)
def test_the_market_serves_every_page_in_full(request_: tuple[Market, Interval, list[Partition]]) -> None:
    market, interval, partitions = request_
    for page in plan_pages(market, interval, merge_ranges(partitions)):
        assert 1 <= page.limit <= market.max_limit
        assert page.weight == market.klines_weight(page.limit)
        if market.max_window is not None:
            assert (page.end - 1) - page.start <= market.max_window


@cache
def least_weight(rows: int, sizes: tuple[PageSize, ...]) -> tuple[int, int]:
    """Return the least weight of ``rows`` contiguous candles, and the fewest pages of that weight, by brute force."""
    best = (0, 0)
    table = [best]
    for count in range(1, rows + 1):
        options = [(table[max(0, count - size.rows)], size) for size in sizes]
        table.append(min((weight + size.weight, pages + 1) for (weight, pages), size in options))
    return table[rows]


@settings(deadline=None)  # the brute force behind the first example of a size takes long; later ones are cached
@given(markets, st.integers(1, 9_000))
def test_a_contiguous_range_costs_the_least_weight_then_the_fewest_pages(market: Market, rows: int) -> None:
    pages = plan_pages(market, MINUTES, [(START, START + rows * MINUTE)])
    assert (sum(page.weight for page in pages), len(pages)) == least_weight(rows, market.page_sizes)


@given(markets, st.lists(st.tuples(st.integers(1, 700), st.integers(1, 700)), min_size=1, max_size=5))
def test_scattered_ranges_are_planned_together_at_the_least_weight(
    market: Market, pieces: list[tuple[int, int]]
) -> None:
    wanted: list[int] = []
    ranges, position = [], 0
    for length, gap in pieces:
        ranges.append((START + position * MINUTE, START + (position + length) * MINUTE))
        wanted += range(position, position + length)
        position += length + gap
    needed = set(wanted)
    table: dict[int, tuple[int, int]] = {}
    for slot in range(position + 1, -1, -1):
        if slot > position - 1:
            table[slot] = (0, 0)
        elif slot not in needed:
            table[slot] = table[slot + 1]
        else:
            after = [(table[min(slot + size.rows, position)], size) for size in market.page_sizes]
            table[slot] = min((weight + size.weight, count + 1) for (weight, count), size in after)
    pages = plan_pages(market, MINUTES, ranges)
    assert (sum(page.weight for page in pages), len(pages)) == table[0]


@pytest.mark.parametrize(
    ("market", "rows", "weight", "requests"),
    [
        (SPOT, 1_440, 4, 2),
        (SPOT, 527_040, 1_056, 528),
        (USDM, 99, 1, 1),
        (USDM, 100, 2, 1),
        (USDM, 998, 4, 2),
        (USDM, 1_000, 5, 1),
        (USDM, 1_440, 6, 3),
        (USDM, 527_040, 2_113, 1_057),
    ],
)
def test_plans_cost_the_known_weights_and_requests(market: Market, rows: int, weight: int, requests: int) -> None:
    pages = plan_pages(market, MINUTES, [(START, START + rows * MINUTE)])
    assert (sum(page.weight for page in pages), len(pages)) == (weight, requests)


def test_windows_are_half_open_and_adjacent() -> None:
    pages = plan_pages(SPOT, MINUTES, [(START, START + 1_500 * MINUTE)])
    middle = START + 1_000 * MINUTE
    assert pages == [Page(START, middle, 1_000, 2), Page(middle, START + 1_500 * MINUTE, 1_000, 2)]


def test_a_page_spans_a_short_gap_if_two_pages_cost_more() -> None:
    hours = parse_interval("1h")
    pages = plan_pages(SPOT, hours, [(START, START + DAY), (START + 2 * DAY, START + 3 * DAY)])
    assert pages == [Page(START, START + 3 * DAY, 1_000, 2)]


@pytest.mark.parametrize(
    ("interval", "rows"), [("4h", 1_000), ("6h", 499), ("12h", 400), ("1d", 200), ("3d", 66), ("1w", 28), ("1M", 6)]
)
def test_coin_m_pages_stay_within_200_days(interval: str, rows: int) -> None:
    assert page_sizes(COINM, parse_interval(interval))[-1].rows == rows


@given(st.integers(0, 10_000))
def test_klines_weights_match_the_documentation(limit: int) -> None:
    documented = 1 if limit < 100 else 2 if limit < 500 else 5 if limit <= 1000 else 10
    assert USDM.klines_weight(limit) == COINM.klines_weight(limit) == documented
    assert SPOT.klines_weight(limit) == 2


def test_no_ranges_need_no_pages() -> None:
    assert plan_pages(SPOT, parse_interval("1h"), []) == []


def test_an_hour_has_3_600_000_milliseconds() -> None:
    assert HOUR == 3_600_000
