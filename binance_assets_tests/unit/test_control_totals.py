"""Control totals: what was traded according to the exchange's 1d candles, and which differences are allowed."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from binance_assets.completeness import control_totals
from binance_assets.completeness.control_totals import UNIT, ControlTotals, Totals, price_discrepancy, totals_by_day
from binance_assets.exchange.pages import Page
from binance_assets.ingest.daily import read_daily_page
from binance_assets.model.intervals import DAILY
from binance_assets.model.markets import COINM, SPOT, USDM, Market
from binance_assets.model.series import Series
from binance_assets.model.timestamps import DAY, MINUTE, to_ms
from binance_assets_tests.support.candles import body_of, parse_page
from binance_assets_tests.support.candles import expected as table_of

JAN_1 = to_ms(dt.date(2024, 1, 1))


def candles(*opens_and_trades: tuple[int, int], market: Market = SPOT) -> pl.DataFrame:
    """Return candles of one price, with amounts that follow from the number of trades."""
    rows = [[time, "1", "1", "1", "1", str(n * 2), time + 1, str(n * 3), n, str(n), str(n * 1.5), "0"]
            for time, n in opens_and_trades]  # fmt: skip
    return table_of(market, rows)


def totals_of(trades: int, candle_count: int = 1) -> Totals:
    """Return the totals of such candles: amounts in units of the eighth decimal, and the single price."""
    amounts = tuple(trades * factor * UNIT // 2 for factor in (4, 6, 2, 3))
    return Totals(trades, amounts, candle_count, (1.0, 1.0, 1.0, 1.0) if trades else None)


def totals_of_amount(amount: float) -> Totals:
    """Return the totals of a candle with one trade and this amount in each of its columns."""
    row = [0, "1", "1", "1", "1", repr(amount), 1, repr(amount), 1, repr(amount), repr(amount), "0"]
    return totals_by_day(SPOT, table_of(SPOT, [row]))[0]


def combined(days: dict[int, Totals], start: int, end: int) -> Totals:
    return control_totals.combine(days, start, end)


def message(ours: Totals, theirs: Totals, market: Market = SPOT) -> str:
    """Return how two totals differ; empty if they agree."""
    return control_totals.discrepancy(market, ours, theirs) or ""


@pytest.mark.parametrize("market", [SPOT, USDM, COINM])
def test_candles_are_added_up_by_the_day_in_which_they_open(market: Market) -> None:
    table = candles((0, 1), (DAY - MINUTE, 2), (DAY, 4), (3 * DAY, 8), market=market)
    assert totals_by_day(market, table) == {
        0: totals_of(3, candle_count=2),
        DAY: totals_of(4),
        3 * DAY: totals_of(8),
    }


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, DAY, totals_of(1)),
        (0, 2 * DAY, totals_of(3, candle_count=3)),
        (DAY, 2 * DAY, totals_of(2, candle_count=2)),
        (0, 5 * DAY, totals_of(7, candle_count=7)),  # a day that is absent adds nothing
        (2 * DAY, 3 * DAY, totals_of(0, candle_count=0)),
        (DAY, DAY, totals_of(0, candle_count=0)),
    ],
)
def test_days_are_combined_from_the_start_to_the_excluded_end(start: int, end: int, expected: Totals) -> None:
    days = {0: totals_of(1), DAY: totals_of(2, candle_count=2), 4 * DAY: totals_of(4, candle_count=4)}
    assert combined(days, start, end) == expected


def test_the_totals_of_a_span_need_a_daily_candle_of_each_of_its_days() -> None:
    known = ControlTotals(totals_by_day(SPOT, candles((2 * DAY, 1), (3 * DAY, 2), (5 * DAY, 4))))
    assert known.totals_for(2 * DAY, 4 * DAY) == totals_of(3, candle_count=2)
    assert known.totals_for(2 * DAY, 3 * DAY) == totals_of(1)
    assert known.totals_for(2 * DAY, 5 * DAY) is None
    assert known.totals_for(DAY, 3 * DAY) is None
    assert known.totals_for(2 * DAY, 2 * DAY) is None  # an empty span proves nothing


def test_the_days_before_the_first_trade_need_no_daily_candle() -> None:
    known = ControlTotals(totals_by_day(SPOT, candles((2 * DAY, 1), (3 * DAY, 2))))
    assert known.totals_for(0, 4 * DAY, includes_first_trade=True) == totals_of(3, candle_count=2)
    assert known.totals_for(0, 4 * DAY, includes_first_trade=False) is None
    assert known.totals_for(3 * DAY, 4 * DAY, includes_first_trade=True) == totals_of(2)
    assert known.totals_for(0, 2 * DAY, includes_first_trade=True) is None  # it ends where trading begins
    assert known.totals_for(0, 5 * DAY, includes_first_trade=True) is None
    assert ControlTotals().totals_for(0, DAY, includes_first_trade=True) is None


def test_the_first_the_last_and_the_days_between_are_known() -> None:
    known = ControlTotals(totals_by_day(SPOT, candles((2 * DAY, 1), (3 * DAY, 2), (5 * DAY, 4))))
    assert (known.first, known.last) == (2 * DAY, 5 * DAY)
    assert [day for day in range(7) if known.has_day(day * DAY)] == [2, 3, 5]
    assert known.extends_to(5 * DAY)
    assert not known.extends_to(6 * DAY)
    assert (known.covers(2 * DAY, 4 * DAY), known.covers(2 * DAY, 5 * DAY)) == (True, False)


def test_without_daily_candles_nothing_is_known() -> None:
    unknown = ControlTotals()
    assert (unknown.first, unknown.last, unknown.has_day(0)) == (None, None, False)
    assert not unknown.extends_to(0)


def test_newer_daily_candles_replace_older_ones() -> None:
    older = ControlTotals(totals_by_day(COINM, candles((DAY, 1), (2 * DAY, 2), market=COINM)))
    merged = older.merged_with(totals_by_day(COINM, candles((0, 8), (2 * DAY, 16), market=COINM)))
    assert [merged.totals_for(day * DAY, (day + 1) * DAY) for day in range(3)] == [
        totals_of(8),
        totals_of(1),
        totals_of(16),
    ]
    assert merged.totals_for(0, 3 * DAY) == totals_of(25, candle_count=3)
    assert older.totals_for(DAY, 3 * DAY) == totals_of(3, candle_count=2)


def test_trades_must_agree_exactly_and_the_message_names_both_counts() -> None:
    assert message(totals_of(1_234), totals_of(1_234)) == ""
    assert message(totals_of(1_233), totals_of(1_234)) == "1,233 trades of 1,234"
    assert message(totals_of(1_235), totals_of(1_234)) == "1,235 trades of 1,234"


@pytest.mark.parametrize("market", [SPOT, USDM, COINM])
@pytest.mark.parametrize("column", [0, 1, 2, 3])
@pytest.mark.parametrize("sign", [1, -1])
def test_an_amount_that_differs_is_named(market: Market, column: int, sign: int) -> None:
    amounts = [5 * UNIT // 2] * 4
    theirs = Totals(7, tuple(amounts))
    amounts[column] += sign * UNIT
    shown = {1: "3.50000000", -1: "1.50000000"}[sign]
    assert message(Totals(7, tuple(amounts)), theirs, market) == (
        f"{market.value_columns[column]} {shown} of 2.50000000"
    )


@pytest.mark.parametrize("market", [SPOT, USDM])
@pytest.mark.parametrize("column", [0, 1, 2, 3])
@pytest.mark.parametrize("candle_count", [1, 1440])
def test_amounts_of_spot_and_usdm_are_exact_to_the_eighth_decimal(
    market: Market, column: int, candle_count: int
) -> None:
    amounts = [UNIT] * 4
    theirs = Totals(7, tuple(amounts))
    assert message(Totals(7, tuple(amounts), candle_count), theirs, market) == ""
    amounts[column] += 1
    assert message(Totals(7, tuple(amounts), candle_count), theirs, market) != ""


@pytest.mark.parametrize(
    ("column", "candle_count", "off", "balances"),
    [
        (0, 3, 1, False),  # contracts are whole numbers
        (2, 3, 1, False),
        # The base volume of each candle is rounded to half of the eighth decimal, and that of the 1d candle too.
        (1, 1, 1, True),
        (1, 1, 2, False),
        (1, 3, 2, True),
        (1, 3, 3, False),
        (3, 1440, 720, True),
        (3, 1440, 721, False),
    ],
)
def test_base_volumes_of_coinm_may_drift_by_half_of_the_eighth_decimal_per_candle(
    column: int, candle_count: int, off: int, balances: bool
) -> None:
    amounts = [0, 0, 0, 0]
    theirs = Totals(7, tuple(amounts))
    amounts[column] = off
    assert (message(Totals(7, tuple(amounts), candle_count), theirs, COINM) == "") is balances


def test_large_amounts_may_differ_by_what_float64_cannot_hold() -> None:
    """Float64 holds an amount to one part in 2**53; from 67 million on, that is more than the eighth decimal."""
    day = 5_000_000_000  # the quote volume of a busy day of BTCUSDT
    exact, rounded = Totals(7, (0, day * UNIT, 0, 0)), Totals(7, (0, day * UNIT, 0, 0), rounding=(0, 111, 0, 0))
    assert totals_of_amount(day).rounding[1] == 111
    for off, balances in ((111, True), (112, False)):
        assert (message(Totals(7, (0, day * UNIT + off, 0, 0)), rounded) == "") is balances
        assert (message(replace(rounded, amounts=(0, day * UNIT - off, 0, 0)), exact) == "") is balances
    assert message(Totals(7, (0, day * UNIT + 1, 0, 0)), exact) != ""


# -- exactness --------------------------------------------------------------------------------------------------------

ROUNDED_FROM = 2**26 * UNIT
small_amounts = st.integers(0, ROUNDED_FROM - 1)
any_amounts = st.integers(0, 10**18) | st.integers(ROUNDED_FROM - 10, ROUNDED_FROM + 10) | small_amounts


def decimal(units: int) -> str:
    """Return the text that Binance sends for an amount."""
    return f"{Decimal(units).scaleb(-8):.8f}"


def row_of(time: int, units: int) -> list[Any]:
    """Return the row of a candle with this amount in each of its columns, as Binance sends it."""
    amount = decimal(units)
    return [time, "1.0", "1.0", "1.0", "1.0", amount, time + MINUTE - 1, amount, 1, amount, amount, "0"]


def table_with(units: Sequence[int]) -> pl.DataFrame:
    """Return candles of a day, parsed as the project parses them."""
    return parse_page(SPOT, body_of([row_of(JAN_1 + n * MINUTE, amount) for n, amount in enumerate(units)]))


def exact_control(units: Sequence[int]) -> Totals:
    """Return the control totals of their day as they are read from the text of its 1d candle."""
    daily = Series(SPOT, "BTCUSDT", DAILY)
    row = row_of(JAN_1, sum(units))
    row[6], row[8] = JAN_1 + DAY - 1, len(units)
    return read_daily_page(daily, Page(JAN_1, JAN_1 + DAY, 1, 2), body_of([row])).totals[JAN_1]


@given(st.lists(any_amounts, min_size=1, max_size=60))
def test_the_totals_are_exact_but_for_what_float64_rounds(units: list[int]) -> None:
    (totals,) = totals_by_day(SPOT, table_with(units)).values()
    # The bound by its definition: half the distance between neighboring floats, and half a unit for the rounding.
    floats = [float(decimal(amount)) for amount in units]
    errors = [math.ulp(amount) / 2 * UNIT + 0.5 for amount in floats if amount >= 2**26]
    for total, rounding in zip(totals.amounts, totals.rounding, strict=True):
        assert abs(total - sum(units)) <= rounding
        assert abs(total - sum(units)) <= sum(errors)
        assert rounding <= sum(amount * UNIT / 2**52 for amount in floats if amount >= 2**26)


@given(st.lists(any_amounts, min_size=1, max_size=60))
def test_candles_always_agree_with_their_exact_control_totals(units: list[int]) -> None:
    (ours,) = totals_by_day(SPOT, table_with(units)).values()
    control = exact_control(units)
    assert (control.amounts, control.rounding) == ((sum(units),) * 4, (0,) * 4)
    assert message(ours, replace(control, trades=ours.trades)) == ""


@given(st.lists(any_amounts, min_size=1, max_size=60))
def test_candles_always_agree_with_control_totals_of_float64(units: list[int]) -> None:
    (ours,) = totals_by_day(SPOT, table_with(units)).values()
    (control,) = totals_by_day(SPOT, table_with([sum(units)])).values()
    assert message(ours, replace(control, trades=ours.trades)) == ""


@given(
    units=st.lists(small_amounts, min_size=1, max_size=60),
    data=st.data(),
    off=st.integers(1, 10**12) | st.sampled_from([1, 2]),
    sign=st.sampled_from([1, -1]),
)
def test_any_change_of_a_day_of_candles_below_67_million_is_found(
    units: list[int], data: st.DataObject, off: int, sign: int
) -> None:
    control = exact_control(units)
    position = data.draw(st.integers(0, len(units) - 1))
    changed = units[position] + sign * off
    assume(0 <= changed < ROUNDED_FROM)
    units[position] = changed
    (ours,) = totals_by_day(SPOT, table_with(units)).values()
    assert message(ours, control) == f"volume {shown(sum(units))} of {shown(control.amounts[0])}"


def shown(units: int) -> str:
    return f"{Decimal(units).scaleb(-8):,.8f}"


@given(st.lists(any_amounts, min_size=2, max_size=40))
def test_hours_add_up_to_the_totals_of_their_day(units: list[int]) -> None:
    table = table_with(units)
    hours = totals_by_day(SPOT, table, 10 * MINUTE)
    (day,) = totals_by_day(SPOT, table).values()
    (combined_day,) = control_totals.combine_each(hours, 10 * MINUTE, DAY).values()
    assert replace(combined_day, rounding=(0,) * 4) == replace(day, rounding=(0,) * 4)
    for ours, whole in zip(combined_day.rounding, day.rounding, strict=True):
        assert ours <= whole <= ours + len(hours)


@pytest.mark.parametrize("exact", [None, (7, 7, 7, 7), (5_000_000_000 * UNIT + 112,) * 4])
def test_amounts_that_cannot_be_those_of_the_row_are_ignored(exact: tuple[int, ...] | None) -> None:
    row = totals_of_amount(5_000_000_000)
    assert control_totals.with_exact_amounts(row, exact) == row
    known = control_totals.with_exact_amounts(row, (5_000_000_000 * UNIT + 111,) * 4)
    assert known == replace(row, amounts=(5_000_000_000 * UNIT + 111,) * 4, rounding=(0,) * 4)


def test_a_discrepancy_in_the_eighth_decimal_of_a_large_volume_can_be_read() -> None:
    ours, theirs = Totals(1, (123_456_700_000_001, 0, 0, 0)), Totals(1, (123_456_700_001_234, 0, 0, 0))
    assert message(ours, theirs) == "volume 1,234,567.00000001 of 1,234,567.00001234"


# -- prices ---------------------------------------------------------------------------------------------------------


def priced(*rows: tuple[int, str, str, str, str, int]) -> pl.DataFrame:
    """Return candles with the given open time, four prices, and trades."""
    lines = [[time, *prices, "2", time + 1, "3", trades, "1", "1", "0"] for time, *prices, trades in rows]
    return table_of(SPOT, lines)


def test_prices_are_those_of_the_candles_with_trades() -> None:
    table = priced(
        (0, "9", "9", "9", "9", 0),
        (MINUTE, "5", "7", "4", "6", 3),
        (2 * MINUTE, "6", "8", "5", "5", 1),
        (3 * MINUTE, "1", "1", "1", "1", 0),
        (DAY, "2", "2", "2", "2", 0),
    )
    days = totals_by_day(SPOT, table.reverse())
    assert (days[0].prices, days[DAY].prices) == ((5, 8, 4, 5), None)
    assert combined(days, 0, 2 * DAY).prices == (5, 8, 4, 5)
    assert combined(days, DAY, 2 * DAY).prices is None


def test_prices_of_days_are_combined_in_order() -> None:
    table = priced((0, "5", "7", "4", "6", 3), (DAY, "6", "9", "5", "8", 1), (2 * DAY, "8", "8", "3", "7", 1))
    assert combined(totals_by_day(SPOT, table), 0, 3 * DAY).prices == (5, 9, 3, 7)


@pytest.mark.parametrize(
    ("ours", "expected"),
    [
        ((5, 8, 4, 5), None),
        ((5.01, 8, 4, 5), "open 5.01 of 5"),
        ((5, 12, 4, 5), "high 12 of 8"),
        ((5, 8, 3.99, 5), "low 3.99 of 4"),
        ((5, 8, 4, 5.00000001), "close 5.00000001 of 5"),
        (None, None),  # nothing was traded, which the trades prove
    ],
)
def test_a_price_that_differs_is_named(ours: tuple[float, float, float, float] | None, expected: str | None) -> None:
    assert price_discrepancy(Totals(1, (0,) * 4, prices=ours), Totals(1, (0,) * 4, prices=(5, 8, 4, 5))) == expected
