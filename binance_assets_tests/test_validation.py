"""Which periods are to be trusted."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import polars as pl
import pytest

from binance_assets.candles.columns import columns, empty_candles
from binance_assets.candles.resampling import derive
from binance_assets.candles.schema import candle_schema
from binance_assets.completeness.control_totals import Books
from binance_assets.completeness.reference_data import Evidence, Life
from binance_assets.completeness.validation import judge
from binance_assets.model.intervals import parse_interval
from binance_assets.model.markets import MARKETS
from binance_assets.model.partitions import Period, period_of, periods_between
from binance_assets.model.results import ACCEPTED, Judged, tell_spans
from binance_assets.model.series import Series, parse_series
from binance_assets.model.timestamps import DAY, MINUTE, to_ms
from binance_assets.sandbox import Sandbox
from binance_assets_tests.test_parsing import archive_rows, body_of, parse_page

MINUTES = parse_series("spot/BTCUSDT/1m")
DAY_ONE = period_of("2024-01-01", MINUTES.interval)
LATER = to_ms(dt.date(2030, 1, 1))


@pytest.fixture(scope="module")
def day(shared_sandbox: Sandbox) -> pl.DataFrame:
    """A sound day of 1m candles."""
    return parse_page(MINUTES.market, body_of(shared_sandbox.rows("spot", "BTCUSDT", "1m", DAY_ONE.start, DAY_ONE.end)))


@pytest.fixture(scope="module")
def books(shared_sandbox: Sandbox) -> Books:
    """What the exchange says was traded from December 2023 to July 2024."""
    return books_of(shared_sandbox, MINUTES, to_ms(dt.date(2023, 12, 1)), to_ms(dt.date(2024, 7, 1)))


def books_of(sandbox: Sandbox, series: Series, start: int, end: int) -> Books:
    rows = sandbox.rows(series.market.name, series.symbol, "1d", start, end)
    return Books(series.market, parse_page(series.market, body_of(rows)))


def judge_alone(series: Series, candles: pl.DataFrame, periods: list[Period], now: int = LATER) -> list[Judged]:
    """Judge without the exchange's sums."""
    return judge(series, candles, periods, Evidence(now, Books(series.market)))


def verdict(candles: pl.DataFrame, books: Books | None = None) -> Judged:
    """The verdict on day one, by ``books`` where there are any."""
    (judged,) = judge(MINUTES, candles, [DAY_ONE], Evidence(LATER, books or Books(MINUTES.market)))
    return judged


def set_row(candles: pl.DataFrame, row: int, column: str, value: float) -> pl.DataFrame:
    changed = pl.when(pl.int_range(pl.len()) == row).then(pl.lit(value)).otherwise(pl.col(column))
    return candles.with_columns(changed.cast(candles.schema[column]).alias(column))


def test_a_day_without_a_hole_whose_sums_are_those_of_the_exchange_is_complete(day: pl.DataFrame, books: Books) -> None:
    judged = verdict(day, books)
    assert (judged.verdict, judged.accepted, judged.missing) == ("complete", True, ())
    assert (judged.reason, judged.doubtful) == ("", False)
    assert judged.candles.equals(day)


def summed(candles: pl.DataFrame) -> pl.DataFrame:
    """The 1d candle of day one if just these candles had been traded."""
    return derive(MINUTES.market, candles, parse_interval("1d"))


def test_sums_that_stop_with_the_candles_prove_nothing_until_trading_is_seen_to_go_on(
    day: pl.DataFrame, books: Books
) -> None:
    served = day.head(1_410)
    stalled = verdict(served, Books(MINUTES.market, summed(served)))
    assert (stalled.verdict, stalled.accepted) == ("unfinished", False)
    gone_on = pl.concat([summed(served), books.daily.filter(pl.col("open_time") > served["open_time"][-1])])
    assert verdict(served, Books(MINUTES.market, gone_on)).verdict == "outage"
    assert verdict(served, books).verdict == "lost"  # and what is known to be lost is not unfinished


def test_a_hole_at_the_beginning_proves_nothing_while_the_first_candle_is_unknown(day: pl.DataFrame) -> None:
    traded = day.tail(540)
    unknown = Evidence(LATER, Books(MINUTES.market, summed(traded)), Life(unknown="it answered 500"))
    (judged,) = judge(MINUTES, traded, [DAY_ONE], unknown)
    assert (judged.verdict, judged.accepted) == ("unreachable", False)
    assert "it answered 500" in judged.reason
    known = Evidence(LATER, Books(MINUTES.market, summed(traded)), Life(first=DAY_ONE.start + 900 * MINUTE))
    assert judge(MINUTES, traded, [DAY_ONE], known)[0].verdict == "listing"


@pytest.mark.parametrize("interval", ["3d", "1w"])
def test_the_month_into_which_only_the_last_candle_reaches_is_delisted(books: Books, interval: str) -> None:
    series = parse_series(f"spot/BTCUSDT/{interval}")
    month = period_of("2024-06-01", series.interval)
    ended = Evidence(LATER, books, Life(end=month.start + 2 * DAY))  # the week's candle opened on 27 May
    (judged,) = judge(series, empty_candles(series.market), [month], ended)
    assert (judged.verdict, judged.accepted) == ("delisted", True)


def test_a_day_without_a_hole_is_accepted_unproved_where_there_are_no_sums(day: pl.DataFrame) -> None:
    judged = verdict(day)
    assert (judged.verdict, judged.accepted, judged.missing) == ("unproved", True, ())
    assert judged.candles.equals(day)


def test_a_missing_candle_makes_the_day_lost_and_is_named(day: pl.DataFrame, books: Books) -> None:
    judged = verdict(day.filter(pl.int_range(pl.len()) != 760), books)
    assert (judged.verdict, judged.accepted) == ("lost", False)
    assert judged.missing == ((DAY_ONE.start + 760 * MINUTE, DAY_ONE.start + 761 * MINUTE),)
    assert "2024-01-01 12:40 to 12:41" in judged.reason
    assert "trades of" in judged.reason


@pytest.mark.parametrize(("first", "last"), [(0, 1), (1439, 1440), (100, 200), (0, 1440)])
@pytest.mark.parametrize("with_books", [True, False])
def test_a_hole_anywhere_is_found(day: pl.DataFrame, books: Books, first: int, last: int, with_books: bool) -> None:
    row = pl.int_range(pl.len())
    judged = verdict(day.filter((row < first) | (row >= last)), books if with_books else None)
    assert judged.verdict == "lost"
    assert judged.missing == ((DAY_ONE.start + first * MINUTE, DAY_ONE.start + last * MINUTE),)


def test_scattered_holes_are_spans(day: pl.DataFrame) -> None:
    judged = verdict(day.filter(pl.int_range(pl.len()).is_in([5, 6, 9]).not_()))
    assert [(start - DAY_ONE.start) // MINUTE for start, _ in judged.missing] == [5, 9]
    assert tell_spans(judged.missing) == "2024-01-01 00:05 to 00:07, 2024-01-01 00:09 to 00:10"


@pytest.mark.parametrize(
    ("column", "value", "complaint"),
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
def test_an_insane_row_makes_the_day_invalid(day: pl.DataFrame, column: str, value: float, complaint: str) -> None:
    judged = verdict(set_row(day, 77, column, value))
    assert judged.verdict == "invalid"
    assert complaint in judged.reason
    assert "2024-01-01 01:17" in judged.reason


def test_all_complaints_come_at_once(day: pl.DataFrame) -> None:
    judged = verdict(set_row(set_row(day, 3, "volume", -1.0), 5, "open", -1.0))
    assert "volume is a number and not negative" in judged.reason
    assert "open is a positive number" in judged.reason


def test_rows_twice_or_out_of_order_or_off_the_grid_are_invalid(day: pl.DataFrame) -> None:
    assert verdict(pl.concat([day, day.tail(1)])).verdict == "invalid"
    assert verdict(day.reverse()).verdict == "invalid"
    shifted = day.with_columns(pl.col("open_time") + pl.duration(milliseconds=1))
    assert verdict(shifted).verdict == "invalid"


def test_an_odd_close_time_is_tolerated_where_the_engine_stopped(day: pl.DataFrame, books: Books) -> None:
    cut = day.with_columns(
        pl.when(pl.int_range(pl.len()) == 9)
        .then(pl.col("close_time") - pl.duration(milliseconds=18_353))
        .otherwise(pl.col("close_time"))
        .alias("close_time")
    )
    assert verdict(cut, books).verdict == "complete"


def test_a_bad_day_stops_only_itself(shared_sandbox: Sandbox, books: Books) -> None:
    days = periods_between(dt.date(2024, 1, 1), dt.date(2024, 1, 4), MINUTES.interval)
    rows = shared_sandbox.rows("spot", "BTCUSDT", "1m", days[0].start, days[-1].end)
    candles = set_row(parse_page(MINUTES.market, body_of(rows)), 1_500, "low", 10**9)
    judged = judge(MINUTES, candles, days, Evidence(LATER, books))
    assert [one.verdict for one in judged] == ["complete", "invalid", "complete"]


def test_a_period_that_is_not_over_is_unfinished(shared_sandbox: Sandbox, books: Books) -> None:
    three_days = parse_series("spot/BTCUSDT/3d")
    month = period_of("2024-01-01", three_days.interval)
    rows = shared_sandbox.rows("spot", "BTCUSDT", "3d", month.start, month.end)
    candles = parse_page(three_days.market, body_of(rows))
    closes = rows[-1][6] + 1
    assert judge(three_days, candles, [month], Evidence(closes - 1, books))[0].verdict == "unfinished"
    assert judge(three_days, candles, [month], Evidence(closes, books))[0].verdict == "complete"


@pytest.mark.parametrize("interval", ["3d", "1w", "1M"])
def test_a_coarse_candle_that_is_missing_is_found(shared_sandbox: Sandbox, books: Books, interval: str) -> None:
    series = parse_series(f"spot/BTCUSDT/{interval}")
    month = period_of("2024-05-01", series.interval)
    rows = shared_sandbox.rows("spot", "BTCUSDT", series.interval.wire, month.start, month.end)
    whole = parse_page(series.market, body_of(rows))
    evidence = Evidence(LATER, books)
    assert judge(series, whole, [month], evidence)[0].verdict == "complete"
    for row in range(whole.height):
        judged = judge(series, whole.filter(pl.int_range(pl.len()) != row), [month], evidence)[0]
        assert judged.verdict == "lost", row


def test_the_recorded_outage_is_a_hole_of_eighty_minutes_and_lost_where_no_sums_prove_it(recorded: Path) -> None:
    for day, verdict_, missing in (
        ("2023-03-23", "unproved", 0),
        ("2023-03-24", "lost", 80),
        ("2023-03-25", "unproved", 0),
    ):
        rows = archive_rows(recorded / "spot" / f"BTCUSDT-1m-{day}.zip")
        period = period_of(day, MINUTES.interval)
        judged = judge_alone(MINUTES, parse_page(MINUTES.market, body_of(rows)), [period])[0]
        assert judged.verdict == verdict_, judged.reason
        assert sum(end - start for start, end in judged.missing) == missing * MINUTE


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
        day = period_of(file[-14:-4], series.interval)
        assert judge_alone(series, candles, [day])[0].verdict == "unproved"


def test_33_hours_of_2018_are_absent_and_the_other_days_sane(recorded: Path) -> None:
    series = parse_series("spot/BTCUSDT/1h")
    rows = json.loads((recorded / "spot" / "REST_spot_BTCUSDT_1h_2018-02-01.json").read_text())
    days = periods_between(dt.date(2018, 2, 5), dt.date(2018, 2, 12), series.interval)
    judged = judge_alone(series, parse_page(series.market, body_of(rows)), days)
    assert [one.period.key for one in judged if not one.accepted] == ["2018-02-08", "2018-02-09"]
    assert sum(end - start for one in judged for start, end in one.missing) == 33 * 60 * MINUTE


def test_the_schema_is_the_description_of_the_table() -> None:
    for market in MARKETS.values():
        schema = candle_schema(market, MINUTES.interval)
        assert list(schema.columns) == list(columns(market))
        assert all(column.description for column in schema.columns.values())


def test_only_known_verdicts_are_accepted() -> None:
    assert ACCEPTED.isdisjoint({"lost", "unfinished", "invalid", "unreachable"})


def test_a_day_of_seconds_has_86400_candles(shared_sandbox: Sandbox) -> None:
    series: Series = parse_series("spot/BTCUSDT/1s")
    day = period_of("2024-01-01", series.interval)
    rows = shared_sandbox.rows("spot", "BTCUSDT", "1s", day.start, day.start + DAY)
    evidence = Evidence(LATER, books_of(shared_sandbox, series, day.start, day.end))
    (judged,) = judge(series, parse_page(series.market, body_of(rows)), [day], evidence)
    assert (judged.verdict, judged.candles.height) == ("complete", 86_400)
