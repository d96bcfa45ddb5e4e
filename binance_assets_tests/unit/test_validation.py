"""Which periods are to be trusted."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import polars as pl
import pytest

from binance_assets.candles.columns import columns, empty_candles
from binance_assets.candles.resampling import resample
from binance_assets.candles.schema import candle_schema
from binance_assets.completeness.control_totals import ControlTotals
from binance_assets.completeness.reference_data import ReferenceData, TradingSpan
from binance_assets.completeness.validation import validate_partitions
from binance_assets.model.intervals import parse_interval
from binance_assets.model.markets import MARKETS
from binance_assets.model.partitions import Partition, partition_for_key, partitions_between
from binance_assets.model.results import ACCEPTED, PartitionResult, format_spans
from binance_assets.model.series import Series, parse_series
from binance_assets.model.timestamps import DAY, MINUTE, to_ms
from binance_assets.sandbox import Sandbox
from binance_assets_tests.support.candles import archive_rows, body_of, parse_page

MINUTES = parse_series("spot/BTCUSDT/1m")
DAY_ONE = partition_for_key("2024-01-01", MINUTES.interval)
LATER = to_ms(dt.date(2030, 1, 1))


@pytest.fixture(scope="module")
def day(shared_sandbox: Sandbox) -> pl.DataFrame:
    """A sound day of 1m candles."""
    return parse_page(MINUTES.market, body_of(shared_sandbox.rows("spot", "BTCUSDT", "1m", DAY_ONE.start, DAY_ONE.end)))


@pytest.fixture(scope="module")
def control_totals(shared_sandbox: Sandbox) -> ControlTotals:
    """What the exchange says was traded from December 2023 to July 2024."""
    return books_of(shared_sandbox, MINUTES, to_ms(dt.date(2023, 12, 1)), to_ms(dt.date(2024, 7, 1)))


def books_of(sandbox: Sandbox, series: Series, start: int, end: int) -> ControlTotals:
    rows = sandbox.rows(series.market.name, series.symbol, "1d", start, end)
    return ControlTotals(series.market, parse_page(series.market, body_of(rows)))


def judge_alone(
    series: Series, candles: pl.DataFrame, partitions: list[Partition], now: int = LATER
) -> list[PartitionResult]:
    """Judge without the exchange's sums."""
    return validate_partitions(series, candles, partitions, ReferenceData(now, ControlTotals(series.market)))


def verdict(candles: pl.DataFrame, control_totals: ControlTotals | None = None) -> PartitionResult:
    """The verdict on day one, by ``control_totals`` where there are any."""
    (result,) = validate_partitions(
        MINUTES, candles, [DAY_ONE], ReferenceData(LATER, control_totals or ControlTotals(MINUTES.market))
    )
    return result


def set_row(candles: pl.DataFrame, row: int, column: str, value: float) -> pl.DataFrame:
    changed = pl.when(pl.int_range(pl.len()) == row).then(pl.lit(value)).otherwise(pl.col(column))
    return candles.with_columns(changed.cast(candles.schema[column]).alias(column))


def test_a_day_without_a_hole_whose_sums_are_those_of_the_exchange_is_complete(
    day: pl.DataFrame, control_totals: ControlTotals
) -> None:
    result = verdict(day, control_totals)
    assert (result.verdict, result.is_accepted, result.missing) == ("complete", True, ())
    assert (result.reason, result.needs_second_source) == ("", False)
    assert result.candles.equals(day)


def summed(candles: pl.DataFrame) -> pl.DataFrame:
    """The 1d candle of day one if just these candles had been traded."""
    return resample(MINUTES.market, candles, parse_interval("1d"))


def test_sums_that_stop_with_the_candles_prove_nothing_until_trading_is_seen_to_go_on(
    day: pl.DataFrame, control_totals: ControlTotals
) -> None:
    served = day.head(1_410)
    stalled = verdict(served, ControlTotals(MINUTES.market, summed(served)))
    assert (stalled.verdict, stalled.is_accepted) == ("unfinished", False)
    gone_on = pl.concat([summed(served), control_totals.daily.filter(pl.col("open_time") > served["open_time"][-1])])
    assert verdict(served, ControlTotals(MINUTES.market, gone_on)).verdict == "outage"
    assert verdict(served, control_totals).verdict == "lost"  # and what is known to be lost is not unfinished


def test_a_hole_at_the_beginning_proves_nothing_while_the_first_candle_is_unknown(day: pl.DataFrame) -> None:
    traded = day.tail(540)
    unknown = ReferenceData(
        LATER, ControlTotals(MINUTES.market, summed(traded)), TradingSpan(first_unknown_because="it answered 500")
    )
    (result,) = validate_partitions(MINUTES, traded, [DAY_ONE], unknown)
    assert (result.verdict, result.is_accepted) == ("unreachable", False)
    assert "it answered 500" in result.reason
    known = ReferenceData(
        LATER, ControlTotals(MINUTES.market, summed(traded)), TradingSpan(first=DAY_ONE.start + 900 * MINUTE)
    )
    assert validate_partitions(MINUTES, traded, [DAY_ONE], known)[0].verdict == "listing"


@pytest.mark.parametrize("interval", ["3d", "1w"])
def test_the_month_into_which_only_the_last_candle_reaches_is_delisted(
    control_totals: ControlTotals, interval: str
) -> None:
    series = parse_series(f"spot/BTCUSDT/{interval}")
    month = partition_for_key("2024-06-01", series.interval)
    ended = ReferenceData(
        LATER, control_totals, TradingSpan(end=month.start + 2 * DAY)
    )  # the week's candle opened on 27 May
    (result,) = validate_partitions(series, empty_candles(series.market), [month], ended)
    assert (result.verdict, result.is_accepted) == ("delisted", True)


def test_a_day_without_a_hole_is_accepted_unproved_where_there_are_no_sums(day: pl.DataFrame) -> None:
    result = verdict(day)
    assert (result.verdict, result.is_accepted, result.missing) == ("unproved", True, ())
    assert result.candles.equals(day)


def test_a_missing_candle_makes_the_day_lost_and_is_named(day: pl.DataFrame, control_totals: ControlTotals) -> None:
    result = verdict(day.filter(pl.int_range(pl.len()) != 760), control_totals)
    assert (result.verdict, result.is_accepted) == ("lost", False)
    assert result.missing == ((DAY_ONE.start + 760 * MINUTE, DAY_ONE.start + 761 * MINUTE),)
    assert "2024-01-01 12:40 to 12:41" in result.reason
    assert "trades of" in result.reason


@pytest.mark.parametrize(("first", "last"), [(0, 1), (1439, 1440), (100, 200), (0, 1440)])
@pytest.mark.parametrize("with_books", [True, False])
def test_a_hole_anywhere_is_found(
    day: pl.DataFrame, control_totals: ControlTotals, first: int, last: int, with_books: bool
) -> None:
    row = pl.int_range(pl.len())
    result = verdict(day.filter((row < first) | (row >= last)), control_totals if with_books else None)
    assert result.verdict == "lost"
    assert result.missing == ((DAY_ONE.start + first * MINUTE, DAY_ONE.start + last * MINUTE),)


def test_scattered_holes_are_spans(day: pl.DataFrame) -> None:
    result = verdict(day.filter(pl.int_range(pl.len()).is_in([5, 6, 9]).not_()))
    assert [(start - DAY_ONE.start) // MINUTE for start, _ in result.missing] == [5, 9]
    assert format_spans(result.missing) == "2024-01-01 00:05 to 00:07, 2024-01-01 00:09 to 00:10"


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("low", 10**9, "low is at most open and close"),
        ("high", 0.5, "high is at least open and close"),
        ("open", -1.0, "open is a positive number"),
        ("close", 0.0, "close is a positive number"),
        ("close", float("nan"), "close"),
        ("high", float("inf"), "high is a positive number"),
        ("volume", -0.1, "volume is a number and not negative"),
        ("volume", float("nan"), "volume"),
        ("trades", -1, "trades is not negative"),
        ("taker_buy_volume", 10.0**12, "taker_buy_volume is at most volume"),
        ("taker_buy_quote_volume", 10.0**18, "taker_buy_quote_volume is at most quote_volume"),
    ],
)
def test_an_insane_row_makes_the_day_invalid(day: pl.DataFrame, column: str, value: float, message: str) -> None:
    result = verdict(set_row(day, 77, column, value))
    assert result.verdict == "invalid"
    assert message in result.reason
    assert "2024-01-01 01:17" in result.reason


def test_all_complaints_come_at_once(day: pl.DataFrame) -> None:
    result = verdict(set_row(set_row(day, 3, "volume", -1.0), 5, "open", -1.0))
    assert "volume is a number and not negative" in result.reason
    assert "open is a positive number" in result.reason


def test_rows_twice_or_out_of_order_or_off_the_grid_are_invalid(day: pl.DataFrame) -> None:
    assert verdict(pl.concat([day, day.tail(1)])).verdict == "invalid"
    assert verdict(day.reverse()).verdict == "invalid"
    shifted = day.with_columns(pl.col("open_time") + pl.duration(milliseconds=1))
    assert verdict(shifted).verdict == "invalid"


def test_an_odd_close_time_is_tolerated_where_the_engine_stopped(
    day: pl.DataFrame, control_totals: ControlTotals
) -> None:
    cut = day.with_columns(
        pl.when(pl.int_range(pl.len()) == 9)
        .then(pl.col("close_time") - pl.duration(milliseconds=18_353))
        .otherwise(pl.col("close_time"))
        .alias("close_time")
    )
    assert verdict(cut, control_totals).verdict == "complete"


def test_a_bad_day_stops_only_itself(shared_sandbox: Sandbox, control_totals: ControlTotals) -> None:
    days = partitions_between(dt.date(2024, 1, 1), dt.date(2024, 1, 4), MINUTES.interval)
    rows = shared_sandbox.rows("spot", "BTCUSDT", "1m", days[0].start, days[-1].end)
    candles = set_row(parse_page(MINUTES.market, body_of(rows)), 1_500, "low", 10**9)
    result = validate_partitions(MINUTES, candles, days, ReferenceData(LATER, control_totals))
    assert [one.verdict for one in result] == ["complete", "invalid", "complete"]


def test_a_period_that_is_not_over_is_unfinished(shared_sandbox: Sandbox, control_totals: ControlTotals) -> None:
    three_days = parse_series("spot/BTCUSDT/3d")
    month = partition_for_key("2024-01-01", three_days.interval)
    rows = shared_sandbox.rows("spot", "BTCUSDT", "3d", month.start, month.end)
    candles = parse_page(three_days.market, body_of(rows))
    closes = rows[-1][6] + 1
    assert (
        validate_partitions(three_days, candles, [month], ReferenceData(closes - 1, control_totals))[0].verdict
        == "unfinished"
    )
    assert (
        validate_partitions(three_days, candles, [month], ReferenceData(closes, control_totals))[0].verdict
        == "complete"
    )


@pytest.mark.parametrize("interval", ["3d", "1w", "1M"])
def test_a_coarse_candle_that_is_missing_is_found(
    shared_sandbox: Sandbox, control_totals: ControlTotals, interval: str
) -> None:
    series = parse_series(f"spot/BTCUSDT/{interval}")
    month = partition_for_key("2024-05-01", series.interval)
    rows = shared_sandbox.rows("spot", "BTCUSDT", series.interval.api_name, month.start, month.end)
    whole = parse_page(series.market, body_of(rows))
    reference = ReferenceData(LATER, control_totals)
    assert validate_partitions(series, whole, [month], reference)[0].verdict == "complete"
    for row in range(whole.height):
        result = validate_partitions(series, whole.filter(pl.int_range(pl.len()) != row), [month], reference)[0]
        assert result.verdict == "lost", row


def test_the_recorded_outage_is_a_hole_of_eighty_minutes_and_lost_where_no_sums_prove_it(recorded: Path) -> None:
    for day, verdict_, missing in (
        ("2023-03-23", "unproved", 0),
        ("2023-03-24", "lost", 80),
        ("2023-03-25", "unproved", 0),
    ):
        rows = archive_rows(recorded / "spot" / f"BTCUSDT-1m-{day}.zip")
        partition = partition_for_key(day, MINUTES.interval)
        result = judge_alone(MINUTES, parse_page(MINUTES.market, body_of(rows)), [partition])[0]
        assert result.verdict == verdict_, result.reason
        assert sum(end - start for start, end in result.missing) == missing * MINUTE


def test_recorded_candles_of_every_market_are_sane(recorded: Path) -> None:
    files = {
        "spot/ARBUSDT/1m": "spot/ARBUSDT-1m-2023-07-25.zip",
        "spot/ARBUSDT/15m": "spot/ARBUSDT-15m-2023-07-25.zip",
        "usdm/BTCUSDT/1m": "usdm/BTCUSDT-1m-2022-09-05.zip",
        "usdm/ETHUSDT/1h": "usdm/ETHUSDT-1h-2022-08-24.zip",
        "coinm/BTCUSD_PERP/1m": "coinm/BTCUSD_PERP-1m-2022-10-24.zip",
    }
    for name, file in files.items():
        series = parse_series(name)
        rows = archive_rows(recorded / file)
        candles = parse_page(series.market, body_of(rows))
        day = partition_for_key(file[-14:-4], series.interval)
        assert judge_alone(series, candles, [day])[0].verdict == "unproved"


def test_33_hours_of_2018_are_absent_and_the_other_days_sane(recorded: Path) -> None:
    series = parse_series("spot/BTCUSDT/1h")
    rows = json.loads((recorded / "spot" / "REST_spot_BTCUSDT_1h_2018-02-01.json").read_text())
    days = partitions_between(dt.date(2018, 2, 5), dt.date(2018, 2, 12), series.interval)
    result = judge_alone(series, parse_page(series.market, body_of(rows)), days)
    assert [one.partition.key for one in result if not one.is_accepted] == ["2018-02-08", "2018-02-09"]
    assert sum(end - start for one in result for start, end in one.missing) == 33 * 60 * MINUTE


def test_the_schema_is_the_description_of_the_table() -> None:
    for market in MARKETS.values():
        schema = candle_schema(market, MINUTES.interval)
        assert list(schema.columns) == list(columns(market))
        assert all(column.description for column in schema.columns.values())


def test_only_known_verdicts_are_accepted() -> None:
    assert ACCEPTED.isdisjoint({"lost", "unfinished", "invalid", "unreachable"})


def test_a_day_of_seconds_has_86400_candles(shared_sandbox: Sandbox) -> None:
    series: Series = parse_series("spot/BTCUSDT/1s")
    day = partition_for_key("2024-01-01", series.interval)
    rows = shared_sandbox.rows("spot", "BTCUSDT", "1s", day.start, day.start + DAY)
    reference = ReferenceData(LATER, books_of(shared_sandbox, series, day.start, day.end))
    (result,) = validate_partitions(series, parse_page(series.market, body_of(rows)), [day], reference)
    assert (result.verdict, result.candles.height) == ("complete", 86_400)
