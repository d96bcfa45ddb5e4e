"""The verdicts at their edges: first and last candles, gaps at each end, control totals that lack a day."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterable, Sequence

import pandera.errors
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from binance_assets.candles.columns import PRICES
from binance_assets.candles.schema import candle_schema, follows_schema
from binance_assets.completeness import validation
from binance_assets.completeness.control_totals import ControlTotals, Totals, totals_by_day
from binance_assets.completeness.outages import unnamed_spans
from binance_assets.completeness.reference_data import ReferenceData, TradingSpan
from binance_assets.model.markets import COINM, SPOT, USDM
from binance_assets.model.partitions import Partition, partition_for_key, partitions_between
from binance_assets.model.results import PartitionResult, Provenance
from binance_assets.model.series import Series, parse_series
from binance_assets.model.timestamps import DAY, HOUR, from_iso, to_ms
from binance_assets_tests.support.candles import body_of, parse_page

HOURS = parse_series("spot/BTCUSDT/1h")
DAYS = parse_series("spot/BTCUSDT/1d")
WEEKS = parse_series("spot/BTCUSDT/1w")
THREE_DAYS = parse_series("spot/BTCUSDT/3d")

START = to_ms(dt.date(2024, 1, 1))  # a Monday
DAY_ONE = Partition(START, START + DAY)
JANUARY = partition_for_key("2024-01-01", WEEKS.interval)
FEBRUARY = partition_for_key("2024-02-01", WEEKS.interval)
LATER = to_ms(dt.date(2030, 1, 1))
ARCHIVE = Provenance("archive", "BTCUSDT-1h-2024-01-01.zip")


def candles(series: Series, opens: Iterable[int], trades: int = 1) -> pl.DataFrame:
    """Return candles of one price, each with ``trades`` trades."""
    rows = [[time, "1", "1", "1", "1", str(trades), series.interval.close(time) - 1, str(trades), trades,
             str(trades), str(trades), "0"] for time in opens]  # fmt: skip
    return parse_page(series.market, body_of(rows))


def hours(*ranges: tuple[int, int], start: int = START) -> pl.DataFrame:
    """Return candles of 1h with one trade each, by ranges (first, end) of hours since ``start``."""
    return candles(HOURS, (start + hour * HOUR for first, end in ranges for hour in range(first, end)))


def daily_totals(trades_by_day: dict[int, int]) -> dict[int, Totals]:
    """Return the totals of 1d candles from the number of trades by day since ``START``."""
    tables = [candles(DAYS, [START + day * DAY], trades) for day, trades in sorted(trades_by_day.items())]
    return totals_by_day(SPOT, pl.concat(tables))


def daily(trades_by_day: dict[int, int]) -> ControlTotals:
    """Return control totals from the number of trades by day since ``START``."""
    return ControlTotals(daily_totals(trades_by_day))


def reference(
    control_totals: ControlTotals | None = None,
    first: int | None = None,
    end: int | None = None,
    unknown_because: str | None = None,
    error: str | None = None,
    now: int = LATER,
    strict: bool = False,
) -> ReferenceData:
    """Return reference data; None means that nothing is unknown and that no error occurred."""
    span = TradingSpan(first, end, *([] if unknown_because is None else [unknown_because]))
    return ReferenceData(now, control_totals or ControlTotals(), span, strict, *([] if error is None else [error]))


def validate(
    table: pl.DataFrame, against: ReferenceData, series: Series = HOURS, partition: Partition = DAY_ONE
) -> PartitionResult:
    (result,) = validation.validate_partitions(series, table, [partition], against)
    return result


def validate_block(
    table: pl.DataFrame, partitions: Sequence[Partition], against: ReferenceData
) -> list[PartitionResult]:
    return validation.validate_partitions(HOURS, table, partitions, against, ARCHIVE)


WHOLE_DAY = {0: 24}
ON_BOTH_SIDES = {-1: 24, 0: 24, 1: 24}


# Which candles belong to which partition


@pytest.mark.parametrize("valid", [True, False])
def test_each_partition_gets_exactly_the_candles_that_open_in_it(valid: bool) -> None:
    days = [Partition(START + day * DAY, START + (day + 1) * DAY) for day in (0, 1, 3)]
    table = hours((-3, 5 * 24))
    if not valid:  # then the block is validated partition by partition
        table = table.with_columns(low=pl.when(pl.int_range(pl.len()) == 0).then(99.0).otherwise("low"))
    results = validate_block(table, days, reference(daily(dict.fromkeys(range(5), 24))))
    assert [result.partition for result in results] == days
    assert [result.verdict for result in results] == ["complete"] * 3
    for day, result in zip((0, 1, 3), results, strict=True):
        assert result.candles.equals(hours((day * 24, day * 24 + 24)))


def test_a_bad_candle_outside_the_only_partition_does_not_make_it_invalid() -> None:
    table = pl.concat([hours((-1, 24)), hours((24, 25)).with_columns(low=pl.lit(99.0))])
    result = validate(table, reference(daily(WHOLE_DAY)))
    assert (result.verdict, result.candles.height) == ("complete", 24)


def test_two_partitions_are_both_validated_with_their_own_candles() -> None:
    days = partitions_between(dt.date(2024, 1, 1), dt.date(2024, 1, 3), HOURS.interval)
    results = validate_block(hours((0, 30), (31, 48)), days, reference(daily({0: 24, 1: 24})))
    assert [result.verdict for result in results] == ["complete", "lost"]
    assert results[1].missing == ((START + 30 * HOUR, START + 31 * HOUR),)


def test_every_result_keeps_its_candles_and_where_they_came_from() -> None:
    days = partitions_between(dt.date(2024, 1, 1), dt.date(2024, 1, 4), HOURS.interval)
    broken = hours((0, 72)).with_columns(high=pl.when(pl.int_range(pl.len()) == 30).then(0.5).otherwise("high"))
    results = validate_block(broken, days, reference(daily({0: 24, 1: 24}), now=START + 3 * DAY - 1))
    assert [result.verdict for result in results] == ["complete", "invalid", "unfinished"]
    assert [result.provenance for result in results] == [ARCHIVE] * 3
    assert [result.candles.height for result in results] == [24] * 3
    assert [result.partition for result in results] == days
    assert [result.missing for result in results] == [()] * 3
    assert results[2].reason


# What the schema finds


def test_each_broken_rule_is_named_with_its_number_of_rows_and_the_first_of_them() -> None:
    row = pl.int_range(pl.len())
    table = hours((0, 24)).with_columns(
        trades=pl.when(row.is_in([3, 7])).then(-1).otherwise("trades"),
        volume=pl.when(row == 5).then(-1.0).otherwise("volume"),
    )
    reason = validate(table, reference(daily(WHOLE_DAY))).reason
    assert "trades is not negative (2 rows, first at 2024-01-01 03:00)" in reason
    assert "volume is a number and not negative (1 rows, first at 2024-01-01 05:00)" in reason


def test_the_first_five_of_many_broken_rules_are_named() -> None:
    negative = [pl.lit(-1.0).alias(name) for name in ("open", "high", "low", "close", *SPOT.value_columns)]
    reason = validate(hours((0, 24)).with_columns(negative), reference(daily(WHOLE_DAY))).reason
    assert reason.count("24 rows") == 5
    places = [reason.index(f"{name} is a") for name in ("open", "high", "low", "close", "volume")]
    assert places == sorted(places)


def test_a_column_of_another_type_is_invalid_as_a_whole() -> None:
    result = validate(hours((0, 24)).with_columns(pl.col("trades").cast(pl.Int32)), reference(daily(WHOLE_DAY)))
    assert (result.verdict, "Int64" in result.reason) == ("invalid", True)
    assert "2024" not in result.reason  # no single row is at fault


# Unfinished partitions, and the trading span


def test_a_partition_is_finished_when_its_last_candle_has_closed() -> None:
    assert validate(hours((0, 24)), reference(daily(WHOLE_DAY), now=DAY_ONE.end)).verdict == "complete"
    assert validate(hours((0, 24)), reference(daily(WHOLE_DAY), now=DAY_ONE.end - 1)).verdict == "unfinished"


@pytest.mark.parametrize(
    ("first", "end", "verdict"),
    [
        (DAY_ONE.end, None, "before_listing"),
        (DAY_ONE.end - 1, None, None),
        (None, DAY_ONE.start, "delisted"),
        (None, DAY_ONE.start + 1, None),
        (None, None, None),
        (DAY_ONE.start, DAY_ONE.end, None),
    ],
)
def test_a_partition_outside_the_trading_span_needs_no_request(
    first: int | None, end: int | None, verdict: str | None
) -> None:
    result = validation.outside_trading_span(HOURS, DAY_ONE, TradingSpan(first, end))
    assert (result and result.verdict) == verdict
    if result is not None:
        assert (result.partition, result.is_accepted) == (DAY_ONE, True)
        assert result.candles.equals(hours())


@pytest.mark.parametrize(
    ("first", "end", "verdict"), [(DAY_ONE.end, None, "before_listing"), (None, DAY_ONE.start, "delisted")]
)
def test_a_partition_outside_the_trading_span_has_no_missing_candles(
    first: int | None, end: int | None, verdict: str
) -> None:
    result = validate(hours(), reference(None, first, end))
    assert (result.verdict, result.missing, result.is_accepted) == (verdict, (), True)


@pytest.mark.parametrize(("first", "end"), [(DAY_ONE.end, None), (None, DAY_ONE.start)])
def test_candles_that_exist_outside_the_trading_span_are_kept(first: int | None, end: int | None) -> None:
    assert validate(hours((0, 24)), reference(daily(WHOLE_DAY), first, end)).candles.height == 24


def test_on_the_day_of_listing_candles_are_expected_from_the_first_one_on() -> None:
    first = START + 5 * HOUR
    result = validate(hours((5, 24)), reference(daily({0: 19}), first))
    assert (result.verdict, result.missing, result.reason) == ("listing", (), "")
    lost = validate(hours((6, 24)), reference(daily({0: 19}), first))
    assert (lost.verdict, lost.missing) == ("lost", ((first, first + HOUR),))


def test_on_the_day_of_delisting_candles_are_expected_until_trading_ended() -> None:
    end = START + 10 * HOUR
    result = validate(hours((0, 10)), reference(daily({0: 10}), end=end))
    assert (result.verdict, result.missing, result.reason) == ("delisted", (), "")
    lost = validate(hours((0, 9)), reference(daily({0: 10}), end=end))
    assert (lost.verdict, lost.missing) == ("lost", ((end - HOUR, end),))


def test_a_day_may_be_both_the_first_and_the_last() -> None:
    result = validate(hours((5, 10)), reference(daily({0: 5}), START + 5 * HOUR, START + 10 * HOUR))
    assert (result.verdict, result.missing) == ("listing", ())


def test_a_trading_span_that_begins_and_ends_with_the_day_leaves_it_complete() -> None:
    assert validate(hours((0, 24)), reference(daily(WHOLE_DAY), DAY_ONE.start, DAY_ONE.end)).verdict == "complete"


def test_a_missing_candle_is_found_even_if_an_unexpected_one_keeps_the_count_right() -> None:
    first = START + 5 * HOUR
    result = validate(hours((4, 8), (9, 24)), reference(daily({0: 19}), first))
    assert result.missing == ((START + 8 * HOUR, START + 9 * HOUR),)
    result = validate(hours((0, 8), (9, 11)), reference(daily({0: 10}), end=START + 10 * HOUR))
    assert result.missing == ((START + 8 * HOUR, START + 9 * HOUR),)


@pytest.mark.parametrize(
    ("end", "verdict"),
    [
        (FEBRUARY.start, "delisted"),  # the partition begins after the end
        (to_ms(dt.date(2024, 2, 2)), "delisted"),  # the candle of 29 January reaches into February
        (to_ms(dt.date(2024, 2, 5)), "delisted"),  # and is the last one: the next would open now
        (to_ms(dt.date(2024, 2, 5)) + 1, "lost"),
        (FEBRUARY.end, "lost"),
    ],
)
def test_a_month_of_weeks_without_candles_is_delisted_if_trading_ended_before_its_first_monday(
    end: int, verdict: str
) -> None:
    result = validate(hours(), reference(end=end), WEEKS, FEBRUARY)
    assert (result.verdict, result.partition, result.candles.height) == (verdict, FEBRUARY, 0)


@pytest.mark.parametrize(
    ("end", "verdict"), [(3 * DAY - 1, "delisted"), (3 * DAY, "lost"), (DAY, "delisted"), (29 * DAY, "lost")]
)
def test_a_month_of_3d_without_candles_is_delisted_if_trading_ended_within_a_candle_of_its_start(
    end: int, verdict: str
) -> None:
    result = validate(hours(), reference(end=FEBRUARY.start + end), THREE_DAYS, FEBRUARY)
    assert (result.verdict, result.is_accepted) == (verdict, verdict == "delisted")


# Candles of 1d, which are their own control totals


@pytest.mark.parametrize(
    ("opens", "first", "end", "verdict"),
    [
        ([START], None, None, "complete"),
        ([], None, None, "lost"),
        ([START], DAY_ONE.start, DAY_ONE.end, "complete"),
        ([START], None, DAY_ONE.end - 1, "delisted"),
    ],
)
def test_a_1d_candle_needs_no_control_totals(
    opens: list[int], first: int | None, end: int | None, verdict: str
) -> None:
    result = validate(candles(DAYS, opens), reference(None, first, end), DAYS)
    assert (result.verdict, result.is_accepted) == (verdict, verdict != "lost")
    if verdict == "lost":
        assert "2024-01-01 00:00 to 2024-01-02 00:00" in result.reason
    else:
        assert result.reason == ""


# The control totals


def test_totals_that_differ_without_a_gap_are_unbalanced_and_refused_only_if_strict() -> None:
    lenient = validate(hours((0, 24)), reference(daily({0: 25})))
    assert (lenient.verdict, lenient.is_accepted, lenient.missing) == ("unbalanced", True, ())
    assert "24 trades of 25" in lenient.reason
    strict = validate(hours((0, 24)), reference(daily({0: 25}), strict=True))
    assert (strict.verdict, strict.is_accepted) == ("unbalanced", False)


def test_a_gap_with_trades_is_lost_and_its_reason_names_gap_and_trades() -> None:
    result = validate(hours((0, 7), (9, 24)), reference(daily(ON_BOTH_SIDES)))
    assert (result.verdict, result.missing) == ("lost", ((START + 7 * HOUR, START + 9 * HOUR),))
    assert "2024-01-01 07:00 to 09:00" in result.reason
    assert "22 trades of 24" in result.reason


def test_a_gap_without_trades_is_an_outage_and_its_reason_names_every_gap() -> None:
    result = validate(hours((0, 7), (9, 11), (12, 24)), reference(daily({0: 21})))
    assert (result.verdict, result.is_accepted) == ("outage", True)
    assert result.missing == (
        (START + 7 * HOUR, START + 9 * HOUR),
        (START + 11 * HOUR, START + 12 * HOUR),
    )
    assert "2024-01-01 07:00 to 09:00, 2024-01-01 11:00 to 12:00" in result.reason
    assert result.reason.endswith("nothing was traded; no known outage explains it")


def test_the_reason_of_an_outage_names_a_known_one() -> None:
    day = partition_for_key("2023-03-24", HOURS.interval)
    control_totals = ControlTotals(totals_by_day(SPOT, candles(DAYS, [day.start], 23)))
    result = validate(hours((0, 13), (14, 24), start=day.start), reference(control_totals), partition=day)
    assert result.verdict == "outage"
    assert "(spot outage of 2023-03-24 12:39 to 2023-03-24 14:00)" in result.reason


def test_the_reason_of_an_outage_names_all_known_ones() -> None:
    day = partition_for_key("2017-12-18", HOURS.interval)
    control_totals = ControlTotals(totals_by_day(SPOT, candles(DAYS, [day.start], 22)))
    result = validate(hours((0, 10), (11, 13), (14, 24), start=day.start), reference(control_totals), partition=day)
    first, second = "2017-12-18 10:00 to 2017-12-18 10:14", "2017-12-18 12:29 to 2017-12-18 13:34"
    assert f"(spot outage of {first}, spot outage of {second})" in result.reason


def test_weeks_need_the_daily_candles_of_all_their_days_also_after_the_month() -> None:
    weeks = candles(WEEKS, [START + week * 7 * DAY for week in range(5)], trades=7)  # until 4 February
    all_days = dict.fromkeys(range(35), 1)
    assert validate(weeks, reference(daily(all_days)), WEEKS, JANUARY).verdict == "complete"
    for absent in (0, 34):
        part = {day: trades for day, trades in all_days.items() if day != absent}
        assert validate(weeks, reference(daily(part)), WEEKS, JANUARY).verdict == "unproved"


def test_weeks_in_february_do_not_need_the_days_before_their_first_monday() -> None:
    first_monday = 35
    weeks = candles(WEEKS, [START + (first_monday + week * 7) * DAY for week in range(4)], trades=7)
    days = dict.fromkeys(range(first_monday, first_monday + 28), 1)
    assert validate(weeks, reference(daily(days)), WEEKS, FEBRUARY).verdict == "complete"


@pytest.mark.parametrize(
    ("end", "last_day", "verdict"),
    [
        (9 * DAY + 12 * HOUR, 9, "delisted"),  # the day of the end counts
        (9 * DAY + 12 * HOUR, 8, "unproved"),
        (9 * DAY, 8, "delisted"),  # a day that begins with the end does not
        (9 * DAY, 7, "unproved"),
    ],
)
def test_weeks_need_daily_candles_only_until_trading_ended(end: int, last_day: int, verdict: str) -> None:
    weeks = candles(WEEKS, [START, START + 7 * DAY], trades=1)
    trades = dict.fromkeys(range(last_day + 1), 0) | {0: 1, 7: 1}
    result = validate(weeks, reference(daily(trades), end=START + end), WEEKS, JANUARY)
    assert result.verdict == verdict


@pytest.mark.parametrize("first_week", [0, 1])
def test_weeks_need_daily_candles_only_from_the_first_trade_on(first_week: int) -> None:
    first = START + first_week * 7 * DAY
    weeks = candles(WEEKS, [START + week * 7 * DAY for week in range(first_week, 5)], trades=7)
    days = dict.fromkeys(range(first_week * 7 + 2, 35), 1) | {first_week * 7 + 2: 3}  # trading began on a Wednesday
    listed = validate(weeks, reference(daily(days), first), WEEKS, JANUARY)
    assert listed.verdict == ("listing" if first_week else "complete")
    listed_before = validate(weeks, reference(daily(days), first=START - 7 * DAY), WEEKS, JANUARY)
    assert listed_before.verdict == ("lost" if first_week else "unproved")


# Gaps at the edges of a partition, where equal totals are no proof


def test_a_gap_at_the_end_is_an_outage_only_if_trading_went_on_or_is_known_to_have_ended() -> None:
    until_noon = hours((0, 3), (4, 6), (7, 12))
    stalled = validate(until_noon, reference(daily({0: 10})))
    assert (stalled.verdict, stalled.is_accepted, len(stalled.missing)) == ("unfinished", False, 3)
    assert "2024-01-01 12:00 to 2024-01-02 00:00" in stalled.reason
    assert "03:00" not in stalled.reason  # the gaps in the middle are proved
    assert "06:00" not in stalled.reason
    assert validate(until_noon, reference(daily({0: 10, 1: 0}))).verdict == "outage"
    assert validate(until_noon, reference(daily({0: 10}), end=DAY_ONE.end)).verdict == "outage"
    assert validate(hours((0, 12), (23, 24)), reference(daily({0: 13}))).verdict == "outage"


def test_a_gap_at_the_beginning_is_an_outage_only_if_trading_is_known_to_have_begun() -> None:
    from_noon = hours((12, 20), (21, 24))
    unknown = validate(from_noon, reference(daily({0: 11}), unknown_because="it responded with 500"))
    assert (unknown.verdict, unknown.is_accepted, len(unknown.missing)) == ("unreachable", False, 2)
    assert "2024-01-01 00:00 to 12:00" in unknown.reason
    assert "20:00" not in unknown.reason
    assert "it responded with 500" in unknown.reason
    traded_before = reference(daily({-1: 24, 0: 11}), unknown_because="it responded with 500")
    assert validate(from_noon, traded_before).verdict == "outage"
    long_before = reference(daily({-2: 24, 0: 11}), unknown_because="it responded with 500")
    assert validate(from_noon, long_before).verdict == "unreachable"
    inside = validate(hours((0, 1), (12, 24)), reference(daily({0: 13}), unknown_because="it responded with 500"))
    assert inside.verdict == "outage"


# Without control totals


def test_without_control_totals_a_partition_without_gaps_is_unproved_and_says_why() -> None:
    failed = validate(hours((0, 24)), reference(error="it responded with 503"))
    assert (failed.verdict, failed.is_accepted, failed.reason) == ("unproved", True, "it responded with 503")
    absent = validate(hours((0, 24)), reference(daily({1: 24})))
    assert (absent.verdict, absent.is_accepted) == ("unproved", True)
    assert "1d candle" in absent.reason


def test_without_control_totals_a_gap_is_unreachable_if_something_is_unknown_and_lost_otherwise() -> None:
    gapped, gap = hours((0, 7), (9, 24)), "2024-01-01 07:00 to 09:00"
    lost = validate(gapped, reference())
    assert (lost.verdict, gap in lost.reason, "1d candle" in lost.reason) == ("lost", True, True)
    failed = validate(gapped, reference(error="it responded with 503"))
    assert (failed.verdict, failed.is_accepted) == ("unreachable", False)
    assert gap in failed.reason
    assert "it responded with 503" in failed.reason
    unknown = validate(gapped, reference(unknown_because="it responded with 500", error="it responded with 503"))
    assert unknown.verdict == "unreachable"
    assert gap in unknown.reason
    assert "it responded with 500" in unknown.reason


def test_missing_spans_are_as_few_as_possible() -> None:
    expected = HOURS.interval.open_times(START, START + DAY)

    def spans_without(*absent: int) -> list[tuple[int, int]]:
        opens = pl.Series([time for time in expected if (time - START) // HOUR not in absent], dtype=pl.Int64)
        spans = validation.missing_spans(HOURS, opens, expected)
        return [((start - START) // HOUR, (end - START) // HOUR) for start, end in spans]

    assert spans_without() == []
    assert spans_without(0) == [(0, 1)]
    assert spans_without(23) == [(23, 24)]
    assert spans_without(4, 5, 6, 8, 10, 11) == [(4, 7), (8, 9), (10, 12)]
    assert spans_without(*range(24)) == [(0, 24)]
    assert validation.missing_spans(HOURS, pl.Series([], dtype=pl.Int64), []) == ()


def test_only_the_gaps_that_no_known_outage_explains_are_named_as_such() -> None:
    outage = (from_iso("2023-03-24T12:40Z"), from_iso("2023-03-24T14:00Z"))
    other = (outage[1] + HOUR, outage[1] + 2 * HOUR)
    assert unnamed_spans(SPOT, [outage, other]) == [other]
    assert unnamed_spans(USDM, [outage, other]) == [outage, other]
    assert unnamed_spans(SPOT, [other], {other[0] // DAY * DAY}) == []
    assert unnamed_spans(SPOT, [other], {other[0] // DAY * DAY - DAY}) == [other]


def test_the_last_day_before_a_suspension_is_not_unfinished() -> None:
    """A suspended day has trading after it, which shows that the day before will not grow any more."""
    until_three, totals = hours((0, 3)), daily({0: 3})
    assert validate(until_three, reference(totals)).verdict == "unfinished"
    assert validate(until_three, reference(totals.with_suspended([DAY_ONE.end]))).verdict == "outage"


def test_a_partition_is_suspended_only_if_all_its_days_are_and_no_candle_exists() -> None:
    suspended = daily({-1: 24, 2: 24}).with_suspended([START, START + DAY])
    assert validate(hours(), reference(suspended)).verdict == "suspended"
    assert validate(hours((0, 24)), reference(suspended)).verdict == "unbalanced"
    assert validate(hours(), reference(daily({-1: 24, 2: 24}))).verdict == "lost"


@pytest.mark.parametrize(("suspended_days", "expected"), [(31 + 6, True), (31 + 5, False)])
def test_a_suspended_month_has_no_candle_only_if_trading_stops_until_its_last_one_closes(
    suspended_days: int, expected: bool
) -> None:
    days = [START + day * DAY for day in range(suspended_days)]
    against = reference(daily({-1: 24}).with_suspended(days))
    result = validation.suspended_result(WEEKS, JANUARY, against, with_last_candle=True)
    assert (result is not None) == expected
    assert validation.suspended_result(WEEKS, JANUARY, against) is not None


def test_suspended_days_add_nothing_to_a_total() -> None:
    totals = daily({0: 24, 2: 24})
    assert totals.totals_for(START, START + 3 * DAY) is None
    control = totals.with_suspended([START + DAY]).totals_for(START, START + 3 * DAY)
    assert control is not None
    assert (control.trades, control.candles) == (48, 2)
    again = totals.with_suspended([START + DAY]).merged_with(daily_totals({1: 5}))
    assert again.suspended == frozenset()


# -- the schema -------------------------------------------------------------------------------------------------------


def satisfies_pandera(table: pl.DataFrame, series: Series = HOURS) -> bool:
    contract_size = series.market.contract_size(series.symbol)
    try:
        candle_schema(series.market, series.interval, contract_size).validate(table, lazy=True)
    except pandera.errors.SchemaErrors:
        return False
    return True


def follows(table: pl.DataFrame, series: Series = HOURS) -> bool:
    return follows_schema(table, series.market, series.interval, series.market.contract_size(series.symbol))


def valid_table(series: Series) -> pl.DataFrame:
    """Return four valid candles; a contract of COIN-M is worth 100 USD, and so one coin at a price of 100."""
    opens = list(series.interval.open_times(START, START + 200 * DAY, series.interval.phase(START)))[:4]
    table = candles(series, opens)
    return table.with_columns(pl.col(PRICES) * 100) if series.market is COINM else table


# Parsing refuses times that are further away.
VALUES = st.one_of(
    st.sampled_from([None, -1, 0, 1, START, START + HOUR, math.nan, math.inf, -math.inf]), st.floats(-1e12, 4e12)
)


ANY_SERIES = st.sampled_from([HOURS, THREE_DAYS, *map(parse_series, ["usdm/BTCUSDT/1M", "coinm/BTCUSD_PERP/1h"])])


@settings(max_examples=60, deadline=None)
@given(series=ANY_SERIES, changes=st.lists(st.tuples(st.integers(0, 10), st.integers(0, 3), VALUES), max_size=3))
def test_a_table_follows_the_schema_exactly_if_pandera_accepts_it(
    series: Series, changes: list[tuple[int, int, float | None]]
) -> None:
    table = valid_table(series)
    assert follows(table, series)
    for position, row, value in changes:
        name, dtype = list(table.schema.items())[position]
        changed = table[name].to_physical().to_list()
        changed[row] = value
        new = pl.Series(name, changed, pl.Int64 if dtype.is_temporal() else dtype, strict=False).cast(dtype)
        table = table.with_columns(new)
    assert follows(table, series) == satisfies_pandera(table, series)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.drop("trades"),
        lambda table: table.with_columns(more=0),
        lambda table: table.select(reversed(table.columns)),
        lambda table: table.with_columns(pl.col("trades").cast(pl.Int32)),
        lambda table: table.with_columns(pl.col("open_time").dt.cast_time_unit("us")),
        lambda table: table.reverse(),
    ],
)
def test_a_table_of_other_columns_types_or_order_follows_no_schema(
    change: Callable[[pl.DataFrame], pl.DataFrame],
) -> None:
    table = hours((0, 4))
    assert follows(table)
    assert not follows(change(table))
    assert not satisfies_pandera(change(table))
