"""Control totals: what was traded according to the exchange's 1d candles, and which differences are allowed."""

from __future__ import annotations

import polars as pl
import pytest

from binance_assets.completeness import control_totals
from binance_assets.completeness.control_totals import ControlTotals, Totals
from binance_assets.model.markets import COINM, SPOT, USDM, Market
from binance_assets.model.timestamps import DAY, MINUTE
from binance_assets_tests.support.candles import expected as table_of


def candles(*opens_and_trades: tuple[int, int], market: Market = SPOT) -> pl.DataFrame:
    """Return candles of one price, with amounts that follow from the number of trades."""
    rows = [[time, "1", "1", "1", "1", str(n * 2), time + 1, str(n * 3), n, str(n), str(n * 1.5), "0"]
            for time, n in opens_and_trades]  # fmt: skip
    return table_of(market, rows)


def totals_of(trades: int, candle_count: int = 1) -> Totals:
    return Totals(trades, (trades * 2.0, trades * 3.0, trades * 1.0, trades * 1.5), candle_count)


def combined(days: dict[int, Totals], start: int, end: int) -> Totals:
    return control_totals.combine(days, start, end)


def message(ours: Totals, theirs: Totals, market: Market = SPOT) -> str:
    """Return how two totals differ; empty if they agree."""
    return control_totals.discrepancy(market, ours, theirs) or ""


@pytest.mark.parametrize("market", [SPOT, USDM, COINM])
def test_candles_are_added_up_by_the_day_in_which_they_open(market: Market) -> None:
    table = candles((0, 1), (DAY - MINUTE, 2), (DAY, 4), (3 * DAY, 8), market=market)
    assert control_totals.totals_by_day(market, table) == {
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
    known = ControlTotals(SPOT, candles((2 * DAY, 1), (3 * DAY, 2), (5 * DAY, 4)))
    assert known.totals_for(2 * DAY, 4 * DAY) == totals_of(3, candle_count=2)
    assert known.totals_for(2 * DAY, 3 * DAY) == totals_of(1)
    assert known.totals_for(2 * DAY, 5 * DAY) is None
    assert known.totals_for(DAY, 3 * DAY) is None
    assert known.totals_for(2 * DAY, 2 * DAY) is None  # an empty span proves nothing


def test_the_days_before_the_first_trade_need_no_daily_candle() -> None:
    known = ControlTotals(SPOT, candles((2 * DAY, 1), (3 * DAY, 2)))
    assert known.totals_for(0, 4 * DAY, includes_first_trade=True) == totals_of(3, candle_count=2)
    assert known.totals_for(0, 4 * DAY, includes_first_trade=False) is None
    assert known.totals_for(3 * DAY, 4 * DAY, includes_first_trade=True) == totals_of(2)
    assert known.totals_for(0, 2 * DAY, includes_first_trade=True) is None  # it ends where trading begins
    assert known.totals_for(0, 5 * DAY, includes_first_trade=True) is None
    assert ControlTotals(SPOT).totals_for(0, DAY, includes_first_trade=True) is None


def test_the_first_the_last_and_the_days_between_are_known() -> None:
    known = ControlTotals(SPOT, candles((2 * DAY, 1), (3 * DAY, 2), (5 * DAY, 4)))
    assert (known.first, known.last) == (2 * DAY, 5 * DAY)
    assert [day for day in range(7) if known.has_day(day * DAY)] == [2, 3, 5]
    assert known.extends_to(5 * DAY)
    assert not known.extends_to(6 * DAY)
    assert (known.covers(2 * DAY, 4 * DAY), known.covers(2 * DAY, 5 * DAY)) == (True, False)


def test_without_daily_candles_nothing_is_known() -> None:
    unknown = ControlTotals(COINM)
    assert (unknown.first, unknown.last, unknown.has_day(0)) == (None, None, False)
    assert not unknown.extends_to(0)
    assert unknown.daily.is_empty()


def test_newer_daily_candles_replace_older_ones() -> None:
    older = ControlTotals(COINM, candles((DAY, 1), (2 * DAY, 2), market=COINM))
    merged = older.merged_with(candles((0, 8), (2 * DAY, 16), market=COINM))
    assert merged.daily.equals(candles((0, 8), (DAY, 1), (2 * DAY, 16), market=COINM))
    assert merged.totals_for(0, 3 * DAY) == totals_of(25, candle_count=3)
    assert merged.market is COINM
    assert older.totals_for(DAY, 3 * DAY) == totals_of(3, candle_count=2)


def test_trades_must_agree_exactly_and_the_message_names_both_counts() -> None:
    assert message(totals_of(1_234), totals_of(1_234)) == ""
    assert message(totals_of(1_233), totals_of(1_234)) == "1,233 trades of 1,234"
    assert message(totals_of(1_235), totals_of(1_234)) == "1,235 trades of 1,234"


@pytest.mark.parametrize("market", [SPOT, USDM, COINM])
@pytest.mark.parametrize("column", [0, 1, 2, 3])
@pytest.mark.parametrize("sign", [1, -1])
def test_an_amount_that_differs_is_named(market: Market, column: int, sign: int) -> None:
    amounts = [2.5, 2.5, 2.5, 2.5]
    theirs = Totals(7, tuple(amounts))
    amounts[column] += sign
    expected = f"{market.value_columns[column]} {amounts[column]:.8f} of 2.50000000"
    assert message(Totals(7, tuple(amounts)), theirs, market) == expected


@pytest.mark.parametrize("market", [SPOT, COINM])
@pytest.mark.parametrize(
    ("column", "candle_count", "off", "balances"),
    [
        # A volume is exact to the eighth decimal, however many candles add up to it.
        (0, 1, 0.5e-8, True),
        (0, 1, 0.6e-8, False),
        (0, 3, 0.6e-8, False),
        (2, 1, 0.5e-8, True),
        (2, 3, 0.6e-8, False),
        # The quote volume of each candle is rounded.
        (1, 1, 0.5e-8, True),
        (1, 1, 0.6e-8, False),
        (1, 3, 1.4e-8, True),
        (1, 3, 1.6e-8, False),
        (3, 1, 0.6e-8, False),
        (3, 3, 1.4e-8, True),
        (3, 3, 1.6e-8, False),
        (3, 0, 0.5e-8, True),
        (3, 0, 0.6e-8, False),
    ],
)
def test_volumes_may_differ_by_half_of_the_eighth_decimal_and_quote_volumes_by_that_much_per_candle(
    market: Market, column: int, candle_count: int, off: float, balances: bool
) -> None:
    amounts = [0.0, 0.0, 0.0, 0.0]
    theirs = Totals(7, tuple(amounts))
    amounts[column] = off
    assert (message(Totals(7, tuple(amounts), candle_count), theirs, market) == "") is balances


def test_large_amounts_may_differ_by_a_trillionth_of_their_value() -> None:
    theirs = Totals(7, (4e12,) * 4)
    assert message(Totals(7, (4e12 + 3, 4e12 - 3, 4e12 + 4, 4e12 - 4)), theirs) == ""
    assert message(Totals(7, (4e12 + 5, 4e12, 4e12, 4e12)), theirs) != ""
    assert message(Totals(7, (4e12, 4e12, 4e12 - 5, 4e12)), theirs) != ""


def test_a_discrepancy_in_the_eighth_decimal_of_a_large_volume_can_be_read() -> None:
    ours = control_totals.Totals(1, (1234567.00000001, 0.0, 0.0, 0.0))
    theirs = control_totals.Totals(1, (1234567.00001234, 0.0, 0.0, 0.0))
    assert control_totals.discrepancy(SPOT, ours, theirs) == "volume 1,234,567.00000001 of 1,234,567.00001234"
