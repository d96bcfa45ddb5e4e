"""Validation of partitions: the schema, the grid, the control totals."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import polars as pl
import pytest

from binance_assets.candles.columns import PRICES, columns, empty_candles
from binance_assets.candles.resampling import resample
from binance_assets.candles.schema import candle_schema
from binance_assets.completeness.control_totals import ControlTotals, Totals, totals_by_day
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
    """A complete day of 1m candles."""
    return parse_page(MINUTES.market, body_of(shared_sandbox.rows("spot", "BTCUSDT", "1m", DAY_ONE.start, DAY_ONE.end)))


@pytest.fixture(scope="module")
def control_totals(shared_sandbox: Sandbox) -> ControlTotals:
    """The exchange's 1d candles from December 2023 to July 2024."""
    return control_totals_of(shared_sandbox, MINUTES, to_ms(dt.date(2023, 12, 1)), to_ms(dt.date(2024, 7, 1)))


def control_totals_of(sandbox: Sandbox, series: Series, start: int, end: int) -> ControlTotals:
    rows = sandbox.rows(series.market.name, series.symbol, "1d", start, end)
    return ControlTotals(totals_by_day(series.market, parse_page(series.market, body_of(rows))))


def validate_without_totals(
    series: Series, candles: pl.DataFrame, partitions: list[Partition], now: int = LATER
) -> list[PartitionResult]:
    """Validate without the exchange's control totals."""
    return validate_partitions(series, candles, partitions, ReferenceData(now, ControlTotals()))


def validate_day(candles: pl.DataFrame, control_totals: ControlTotals | None = None) -> PartitionResult:
    """Validate day one, with ``control_totals`` if given."""
    (result,) = validate_partitions(
        MINUTES, candles, [DAY_ONE], ReferenceData(LATER, control_totals or ControlTotals())
    )
    return result


def set_row(candles: pl.DataFrame, row: int, column: str, value: float) -> pl.DataFrame:
    changed = pl.when(pl.int_range(pl.len()) == row).then(pl.lit(value)).otherwise(pl.col(column))
    return candles.with_columns(changed.cast(candles.schema[column]).alias(column))


def test_day_without_gaps_and_with_matching_totals_is_complete(
    day: pl.DataFrame, control_totals: ControlTotals
) -> None:
    result = validate_day(day, control_totals)
    assert (result.verdict, result.is_accepted, result.missing) == ("complete", True, ())
    assert (result.reason, result.needs_second_source) == ("", False)
    assert result.candles.equals(day)


def daily_totals_of(candles: pl.DataFrame) -> dict[int, Totals]:
    """Return the totals of the 1d candle of day one as if only these candles had been traded."""
    return totals_by_day(MINUTES.market, resample(MINUTES.market, candles, parse_interval("1d")))


def test_gap_at_the_end_is_unfinished_until_later_trading_is_seen(
    day: pl.DataFrame, control_totals: ControlTotals
) -> None:
    received = day.head(1_410)
    stalled = validate_day(received, ControlTotals(daily_totals_of(received)))
    assert (stalled.verdict, stalled.is_accepted) == ("unfinished", False)
    later_trading = control_totals.merged_with(daily_totals_of(received))
    assert validate_day(received, later_trading).verdict == "outage"
    assert validate_day(received, control_totals).verdict == "lost"  # known to be lost, not unfinished


def test_gap_at_the_start_is_unreachable_while_the_first_candle_is_unknown(day: pl.DataFrame) -> None:
    traded = day.tail(540)
    unknown = ReferenceData(
        LATER,
        ControlTotals(daily_totals_of(traded)),
        TradingSpan(first_unknown_because="it responded with 500"),
    )
    (result,) = validate_partitions(MINUTES, traded, [DAY_ONE], unknown)
    assert (result.verdict, result.is_accepted) == ("unreachable", False)
    assert "it responded with 500" in result.reason
    known = ReferenceData(
        LATER, ControlTotals(daily_totals_of(traded)), TradingSpan(first=DAY_ONE.start + 900 * MINUTE)
    )
    assert validate_partitions(MINUTES, traded, [DAY_ONE], known)[0].verdict == "listing"


@pytest.mark.parametrize("interval", ["3d", "1w"])
def test_month_that_only_the_last_candle_reaches_into_is_delisted(control_totals: ControlTotals, interval: str) -> None:
    series = parse_series(f"spot/BTCUSDT/{interval}")
    month = partition_for_key("2024-06-01", series.interval)
    ended = ReferenceData(
        LATER, control_totals, TradingSpan(end=month.start + 2 * DAY)
    )  # the candle of that week opened on 27 May
    (result,) = validate_partitions(series, empty_candles(series.market), [month], ended)
    assert (result.verdict, result.is_accepted) == ("delisted", True)


def test_day_without_gaps_is_accepted_unproved_without_control_totals(day: pl.DataFrame) -> None:
    result = validate_day(day)
    assert (result.verdict, result.is_accepted, result.missing) == ("unproved", True, ())
    assert result.candles.equals(day)


def test_missing_candle_makes_the_day_lost_and_is_named(day: pl.DataFrame, control_totals: ControlTotals) -> None:
    result = validate_day(day.filter(pl.int_range(pl.len()) != 760), control_totals)
    assert (result.verdict, result.is_accepted) == ("lost", False)
    assert result.missing == ((DAY_ONE.start + 760 * MINUTE, DAY_ONE.start + 761 * MINUTE),)
    assert "2024-01-01 12:40 to 12:41" in result.reason
    assert "trades of" in result.reason


@pytest.mark.parametrize(("first", "last"), [(0, 1), (1439, 1440), (100, 200), (0, 1440)])
@pytest.mark.parametrize("with_control_totals", [True, False])
def test_gap_anywhere_is_found(
    day: pl.DataFrame, control_totals: ControlTotals, first: int, last: int, with_control_totals: bool
) -> None:
    row = pl.int_range(pl.len())
    result = validate_day(day.filter((row < first) | (row >= last)), control_totals if with_control_totals else None)
    assert result.verdict == "lost"
    assert result.missing == ((DAY_ONE.start + first * MINUTE, DAY_ONE.start + last * MINUTE),)


def test_scattered_gaps_become_spans(day: pl.DataFrame) -> None:
    result = validate_day(day.filter(pl.int_range(pl.len()).is_in([5, 6, 9]).not_()))
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
        ("volume", 10.0**18, "volume is less than 10^18"),
        ("quote_volume", 10.0**40, "quote_volume is less than 10^18"),  # no integer could hold the sum
        ("volume", float("inf"), "volume is a number and not negative"),
        ("taker_buy_volume", 10.0**12, "taker_buy_volume is at most volume"),
        ("taker_buy_quote_volume", 10.0**18, "taker_buy_quote_volume is at most quote_volume"),
    ],
)
def test_row_that_breaks_a_rule_makes_the_day_invalid(
    day: pl.DataFrame, column: str, value: float, message: str
) -> None:
    result = validate_day(set_row(day, 77, column, value))
    assert result.verdict == "invalid"
    assert message in result.reason
    assert "2024-01-01 01:17" in result.reason


def test_a_row_with_amounts_that_no_integer_holds_costs_its_own_day_only(day: pl.DataFrame) -> None:
    for amount in (1e18, 1e40, 1.7e308):
        amounts = {name: pl.lit(amount) for name in MINUTES.market.value_columns}
        is_row = pl.int_range(pl.len()) == 77
        changed = day.with_columns(
            *(pl.when(is_row).then(value).otherwise(pl.col(name)).alias(name) for name, value in amounts.items()),
            *(pl.when(is_row).then(pl.lit(1.0)).otherwise(pl.col(name)).alias(name) for name in PRICES),
        )
        later = day.with_columns(pl.col("open_time", "close_time") + pl.duration(days=1))
        days = [DAY_ONE, Partition(DAY_ONE.end, DAY_ONE.end + DAY)]
        results = validate_without_totals(MINUTES, pl.concat([changed, later]), days)
        assert [result.verdict for result in results] == ["invalid", "unproved"], results[0].reason


def test_all_broken_rules_are_reported_at_once(day: pl.DataFrame) -> None:
    result = validate_day(set_row(set_row(day, 3, "volume", -1.0), 5, "open", -1.0))
    assert "volume is a number and not negative" in result.reason
    assert "open is a positive number" in result.reason


def test_repeated_unordered_or_off_grid_rows_are_invalid(day: pl.DataFrame) -> None:
    assert validate_day(pl.concat([day, day.tail(1)])).verdict == "invalid"
    assert validate_day(day.reverse()).verdict == "invalid"
    shifted = day.with_columns(pl.col("open_time") + pl.duration(milliseconds=1))
    assert validate_day(shifted).verdict == "invalid"


def cut_short(day: pl.DataFrame, row: int, milliseconds: int = 18_353) -> pl.DataFrame:
    """Let the candle of a row close early."""
    return day.with_columns(
        pl.when(pl.int_range(pl.len()) == row)
        .then(pl.col("close_time") - pl.duration(milliseconds=milliseconds))
        .otherwise(pl.col("close_time"))
        .alias("close_time")
    )


def without_candle(day: pl.DataFrame, row: int) -> tuple[pl.DataFrame, ControlTotals]:
    """Remove a candle; return the other ones, and the control totals of a day on which it was not traded."""
    rest = day.filter(pl.int_range(pl.len()) != row)
    return rest, ControlTotals(daily_totals_of(rest))


@pytest.mark.parametrize("milliseconds", [1, 30_000, 59_999, -1])
def test_close_time_that_is_not_the_end_of_the_candle_is_invalid(
    day: pl.DataFrame, control_totals: ControlTotals, milliseconds: int
) -> None:
    result = validate_day(cut_short(day, 9, milliseconds), control_totals)
    assert (result.verdict, result.reason) == (
        "invalid",
        "broken rules: close_time is not the end of the candle (1 rows, first at 2024-01-01 00:09)",
    )


@pytest.mark.parametrize("milliseconds", [18_353, -1])
def test_close_time_may_differ_where_the_exchange_stopped(day: pl.DataFrame, milliseconds: int) -> None:
    rest, totals = without_candle(day, 10)
    assert validate_day(cut_short(rest, 9, milliseconds), totals).verdict == "outage"
    assert validate_day(cut_short(rest, 8, milliseconds), totals).verdict == "invalid"


def test_invalid_day_does_not_affect_other_days(shared_sandbox: Sandbox, control_totals: ControlTotals) -> None:
    days = partitions_between(dt.date(2024, 1, 1), dt.date(2024, 1, 4), MINUTES.interval)
    rows = shared_sandbox.rows("spot", "BTCUSDT", "1m", days[0].start, days[-1].end)
    candles = set_row(parse_page(MINUTES.market, body_of(rows)), 1_500, "low", 10**9)
    results = validate_partitions(MINUTES, candles, days, ReferenceData(LATER, control_totals))
    assert [result.verdict for result in results] == ["complete", "invalid", "complete"]


def test_partition_is_unfinished_until_its_last_candle_closes(
    shared_sandbox: Sandbox, control_totals: ControlTotals
) -> None:
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
def test_missing_multi_day_candle_is_found(
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


def test_recorded_outage_is_a_gap_of_80_minutes_and_lost_without_control_totals(recorded_zips: Path) -> None:
    for day, expected, missing in (
        ("2023-03-23", "unproved", 0),
        ("2023-03-24", "lost", 80),
        ("2023-03-25", "unproved", 0),
    ):
        rows = archive_rows(recorded_zips / "spot" / f"BTCUSDT-1m-{day}.zip")
        partition = partition_for_key(day, MINUTES.interval)
        result = validate_without_totals(MINUTES, parse_page(MINUTES.market, body_of(rows)), [partition])[0]
        assert result.verdict == expected, result.reason
        assert sum(end - start for start, end in result.missing) == missing * MINUTE


def test_recorded_candles_of_every_market_follow_the_schema(recorded_zips: Path) -> None:
    files = {
        "spot/ARBUSDT/1m": "spot/ARBUSDT-1m-2023-07-25.zip",
        "spot/ARBUSDT/15m": "spot/ARBUSDT-15m-2023-07-25.zip",
        "usdm/BTCUSDT/1m": "usdm/BTCUSDT-1m-2022-09-05.zip",
        "usdm/ETHUSDT/1h": "usdm/ETHUSDT-1h-2022-08-24.zip",
        "coinm/BTCUSD_PERP/1m": "coinm/BTCUSD_PERP-1m-2022-10-24.zip",
    }
    for name, file in files.items():
        series = parse_series(name)
        rows = archive_rows(recorded_zips / file)
        candles = parse_page(series.market, body_of(rows))
        day = partition_for_key(file[-14:-4], series.interval)
        assert validate_without_totals(series, candles, [day])[0].verdict == "unproved"


def test_33_hours_of_2018_are_missing_and_the_other_days_are_accepted(recorded: Path) -> None:
    series = parse_series("spot/BTCUSDT/1h")
    rows = json.loads((recorded / "spot" / "REST_spot_BTCUSDT_1h_2018-02-01.json").read_text())
    days = partitions_between(dt.date(2018, 2, 5), dt.date(2018, 2, 12), series.interval)
    results = validate_without_totals(series, parse_page(series.market, body_of(rows)), days)
    assert [result.partition.key for result in results if not result.is_accepted] == ["2018-02-08", "2018-02-09"]
    assert sum(end - start for result in results for start, end in result.missing) == 33 * 60 * MINUTE


def test_schema_describes_every_column() -> None:
    for market in MARKETS.values():
        schema = candle_schema(market, MINUTES.interval)
        assert list(schema.columns) == list(columns(market))
        assert all(column.description for column in schema.columns.values())


def test_refused_verdicts_are_not_accepted() -> None:
    assert ACCEPTED.isdisjoint({"lost", "unfinished", "invalid", "unreachable"})


def test_day_of_seconds_has_86400_candles(shared_sandbox: Sandbox) -> None:
    series: Series = parse_series("spot/BTCUSDT/1s")
    day = partition_for_key("2024-01-01", series.interval)
    rows = shared_sandbox.rows("spot", "BTCUSDT", "1s", day.start, day.start + DAY)
    reference = ReferenceData(LATER, control_totals_of(shared_sandbox, series, day.start, day.end))
    (result,) = validate_partitions(series, parse_page(series.market, body_of(rows)), [day], reference)
    assert (result.verdict, result.candles.height) == ("complete", 86_400)


# -- prices -----------------------------------------------------------------------------------------------------------


def day_of(sandbox: Sandbox, name: str) -> tuple[Series, pl.DataFrame, pl.DataFrame]:
    """Return a series, its candles of day one, and the 1d candle of that day."""
    series = parse_series(name)
    market, symbol, interval = name.split("/")
    frames = [
        parse_page(series.market, body_of(sandbox.rows(market, symbol, each, DAY_ONE.start, DAY_ONE.end)))
        for each in (interval, "1d")
    ]
    return series, frames[0], frames[1]


def validate_against(series: Series, candles: pl.DataFrame, daily: pl.DataFrame) -> PartitionResult:
    reference = ReferenceData(LATER, ControlTotals(totals_by_day(series.market, daily)))
    (result,) = validate_partitions(series, candles, [DAY_ONE], reference)
    return result


@pytest.mark.parametrize("name", ["spot/BTCUSDT/1m", "usdm/ETHUSDT/1h", "spot/BTCUSDT/12h"])
@pytest.mark.parametrize(("column", "factor"), [("open", 1.001), ("high", 1.1), ("low", 0.9), ("close", 0.999)])
def test_a_day_whose_price_is_not_that_of_the_1d_candle_is_refused(
    shared_sandbox: Sandbox, name: str, column: str, factor: float
) -> None:
    series, candles, daily = day_of(shared_sandbox, name)
    assert validate_against(series, candles, daily).verdict == "complete"
    result = validate_against(series, candles, set_row(daily, 0, column, daily[column][0] * factor))
    assert (result.verdict, result.is_accepted) == ("unbalanced", False)
    prefix = f"no candle is missing, but the prices differ from those of the 1d candle: {column} {daily[column][0]} of "
    assert result.reason.startswith(prefix)


def test_prices_of_coinm_that_differ_from_the_1d_candle_are_noted(shared_sandbox: Sandbox) -> None:
    """No recording shows that they have to be equal there."""
    series, candles, daily = day_of(shared_sandbox, "coinm/BTCUSD_PERP/1m")
    result = validate_against(series, candles, set_row(daily, 0, "high", daily["high"][0] * 1.1))
    assert (result.verdict, result.is_accepted) == ("complete", True)
    assert result.reason.startswith("the prices differ from those of the 1d candle: high ")


@pytest.mark.parametrize("name", ["spot/BTCUSDT/1m", "usdm/ETHUSDT/1h", "coinm/BTCUSD_PERP/1m", "coinm/ETHUSD_PERP/1h"])
@pytest.mark.parametrize(("change", "rule"), [
    ({"high": 0.9, "low": 0.9, "open": 0.9, "close": 0.9}, "at a mean price from low to high"),
    ({"high": 10.0, "low": 10.0, "open": 10.0, "close": 10.0}, "at a mean price from low to high"),
])  # fmt: skip
def test_a_row_whose_mean_price_is_outside_its_prices_is_invalid(
    shared_sandbox: Sandbox, name: str, change: dict[str, float], rule: str
) -> None:
    series, candles, daily = day_of(shared_sandbox, name)
    for column, factor in change.items():
        candles = set_row(candles, 5, column, candles[column][5] * factor)
    result = validate_against(series, candles, daily)
    assert result.verdict == "invalid"
    assert rule in result.reason
