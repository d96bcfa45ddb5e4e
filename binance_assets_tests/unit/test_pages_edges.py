"""The exact pages at the edges of ranges and slots, and which page sizes are sent."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import pytest

from binance_assets.exchange import pages
from binance_assets.exchange.pages import Page
from binance_assets.model.intervals import parse_interval
from binance_assets.model.markets import COINM, SPOT, USDM, Market, PageSize
from binance_assets.model.timestamps import DAY, MINUTE, to_ms

MINUTES = parse_interval("1m")
START = to_ms(dt.date(2024, 1, 1))


def test_both_ends_of_the_window_in_a_request_are_inclusive() -> None:
    page = Page(START, START + 10 * MINUTE, limit=99, weight=1)
    assert page.window == {"startTime": START, "endTime": START + 10 * MINUTE - 1, "limit": 99}


def test_a_range_that_ends_just_after_an_open_time_needs_that_candle() -> None:
    whole = Page(START, START + 1_000 * MINUTE, 1_000, 2)
    last = Page(START + 1_000 * MINUTE, START + 1_000 * MINUTE + 1, 1_000, 2)
    assert pages.plan_pages(SPOT, MINUTES, [(START, START + 1_000 * MINUTE)]) == [whole]
    assert pages.plan_pages(SPOT, MINUTES, [(START, START + 1_000 * MINUTE + 1)]) == [whole, last]


def test_a_range_that_starts_just_after_an_open_time_does_not_need_that_candle() -> None:
    end = START + 1_001 * MINUTE
    assert pages.plan_pages(SPOT, MINUTES, [(START + 1, end)]) == [Page(START + MINUTE, end, 1_000, 2)]


def test_pages_of_a_month_of_weeks_start_on_its_first_monday() -> None:
    february, march = to_ms(dt.date(2024, 2, 1)), to_ms(dt.date(2024, 3, 1))
    (page,) = pages.plan_pages(SPOT, parse_interval("1w"), [(february, march)])
    assert (page.start, page.end) == (to_ms(dt.date(2024, 2, 5)), march)


def test_pages_of_a_month_of_3d_start_with_the_month_because_the_first_open_time_is_unknown() -> None:
    (page,) = pages.plan_pages(SPOT, parse_interval("3d"), [(START, START + 31 * DAY)])
    assert (page.start, page.end) == (START, START + 31 * DAY)


def test_a_range_in_which_no_candle_opens_needs_no_page() -> None:
    assert pages.plan_pages(SPOT, MINUTES, [(START + 1, START + MINUTE)]) == []
    following = (START + DAY, START + DAY + 1_000 * MINUTE)
    assert pages.plan_pages(SPOT, MINUTES, [(START + 1, START + MINUTE), following]) == [Page(*following, 1_000, 2)]


@pytest.mark.parametrize("interval", ["1m", "1h", "3d", "1w", "1mo"])
def test_adjacent_ranges_are_planned_as_one(interval: str) -> None:
    bounds = [to_ms(dt.date(2024, month, 1)) for month in (1, 2, 3)]
    apart = pages.plan_pages(USDM, parse_interval(interval), [(bounds[0], bounds[1]), (bounds[1], bounds[2])])
    assert apart == pages.plan_pages(USDM, parse_interval(interval), [(bounds[0], bounds[2])])


@pytest.mark.parametrize(
    ("market", "interval", "sizes"),
    [
        (SPOT, "1m", [(1_000, 2)]),
        # 1500 rows for 10 never save weight: three pages of 499 and one of 99 cost 7.
        (USDM, "1m", [(99, 1), (499, 2), (1_000, 5)]),
        (COINM, "4h", [(99, 1), (499, 2), (1_000, 5)]),
        (COINM, "6h", [(99, 1), (499, 2)]),  # 800 rows in 200 days: 499 and 301 cost 4
        (COINM, "12h", [(99, 1), (400, 2)]),
        (COINM, "1d", [(99, 1), (200, 2)]),
        (COINM, "3d", [(66, 1)]),
    ],
)
def test_only_page_sizes_that_save_weight_or_requests_are_sent(
    market: Market, interval: str, sizes: list[tuple[int, int]]
) -> None:
    worth = pages.page_sizes(market, parse_interval(interval))
    assert [(size.rows, size.weight) for size in worth] == sizes


@pytest.mark.parametrize(
    ("larger", "worth"),
    [
        (PageSize(200, 1), True),
        (PageSize(200, 2), True),  # as much as two small pages, but one request
        (PageSize(200, 3), False),
        (PageSize(201, 3), True),
        (PageSize(201, 4), False),
    ],
)
def test_a_page_size_is_sent_only_if_smaller_pages_do_not_cost_less(larger: PageSize, worth: bool) -> None:
    smaller = PageSize(100, 1)
    market = replace(SPOT, page_sizes=(smaller, larger))
    assert pages.page_sizes(market, MINUTES) == ((smaller, larger) if worth else (smaller,))
