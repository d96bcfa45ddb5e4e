"""Resampling: derived candles equal Binance's own candles of the coarser interval, to the last decimal."""

from __future__ import annotations

import datetime as dt
import math
from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from binance_assets.candles.columns import columns, empty_candles
from binance_assets.candles.resampling import resample, resample_as_before
from binance_assets.candles.schema import candle_schema
from binance_assets.model.intervals import Interval, parse_derived_interval, parse_interval
from binance_assets.model.markets import COINM, MARKETS, SPOT, USDM, Market
from binance_assets.model.timestamps import DAY, HOUR, MINUTE, to_ms
from binance_assets.sandbox import Sandbox
from binance_assets_tests.support.candles import archive_rows, expected

DERIVED_ONLY = ["10m", "45m", "90m"]
FIRST = to_ms(dt.date(2024, 1, 1))
CENT = Decimal("0.01")
LOT = Decimal("0.00000001")
WITH_ALL_DECIMALS = 2**26  # up to here adjacent Float64 values are closer than a lot


def recorded_candles(folder: Path, market: Market, file: str) -> pl.DataFrame:
    return expected(market, archive_rows(folder / market.name / f"{file}.zip"))


def candle(minute: int, prices: Sequence[float], trades: int, amount: float = 1.0) -> tuple[object, ...]:
    start = FIRST + minute * MINUTE
    return (start, *prices, amount, start + MINUTE - 1, amount, trades, amount, amount)


def table(candles: Sequence[tuple[object, ...]]) -> pl.DataFrame:
    raw = pl.DataFrame(candles, schema=list(columns(SPOT)), orient="row")
    return raw.cast(dict(columns(SPOT)))  # type: ignore[arg-type]


def opens(candles: pl.DataFrame) -> list[int]:
    return candles["open_time"].to_physical().to_list()


# -- against the exchange's own candles -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("symbol", "interval", "day"),
    [("ARBUSDT", "15m", "2023-07-25"), ("BTCUSDT", "15m", "2023-03-24"), ("BTCUSDT", "1h", "2023-03-24")],
)
def test_recorded_minutes_give_the_exchanges_own_candles_bit_for_bit(
    recorded_zips: Path, symbol: str, interval: str, day: str
) -> None:
    minutes = recorded_candles(recorded_zips, SPOT, f"{symbol}-1m-{day}")
    own = recorded_candles(recorded_zips, SPOT, f"{symbol}-{interval}-{day}")
    assert resample(SPOT, minutes, parse_interval(interval)).equals(own)


def test_recorded_15m_candles_give_the_recorded_hours(recorded_zips: Path) -> None:
    quarters = recorded_candles(recorded_zips, SPOT, "BTCUSDT-15m-2023-03-24")
    assert resample(SPOT, quarters, parse_interval("1h")).equals(
        recorded_candles(recorded_zips, SPOT, "BTCUSDT-1h-2023-03-24")
    )


def test_minute_without_trades_does_not_set_the_open_of_recorded_15m_candles(recorded_zips: Path) -> None:
    minutes = recorded_candles(recorded_zips, SPOT, "ARBUSDT-1m-2023-07-25")
    quarters = recorded_candles(recorded_zips, SPOT, "ARBUSDT-15m-2023-07-25")
    plain = minutes.group_by_dynamic("open_time", every="15m").agg(pl.col("open").first())
    differing = plain.filter(plain["open"] != quarters["open"])["open_time"]
    assert len(differing) > 0  # otherwise the recording proves nothing
    firsts = minutes.filter(pl.col("open_time").is_in(differing.implode()))
    assert firsts["trades"].to_list() == [0] * len(differing)


def test_outage_of_2023_cuts_a_candle_short_and_leaves_out_the_next(recorded_zips: Path) -> None:
    minutes = recorded_candles(recorded_zips, SPOT, "BTCUSDT-1m-2023-03-24")
    hours = resample(SPOT, minutes, parse_interval("1h"))
    assert len(hours) == 23
    assert to_ms(dt.date(2023, 3, 24)) + 13 * HOUR not in opens(hours)
    stopped = hours.filter(pl.col("open_time").dt.hour() == 12).row(0, named=True)
    assert int(stopped["close_time"].timestamp() * 1_000) == 1_679_661_581_646
    assert stopped["trades"] == 0
    assert stopped["open"] == stopped["high"] == stopped["low"] == stopped["close"]


@pytest.mark.parametrize(
    ("market", "file"),
    [
        (SPOT, "ARBUSDT-1m-2023-07-25"),
        (SPOT, "BTCUSDT-1m-2023-03-24"),
        (USDM, "BTCUSDT-1m-2022-09-05"),
        (COINM, "BTCUSD_PERP-1m-2022-10-24"),
    ],
)
@pytest.mark.parametrize("interval", ["5m", *DERIVED_ONLY, "8h", "1d"])
def test_candles_from_recorded_minutes_follow_the_schema_and_are_exact_sums(
    recorded_zips: Path, market: Market, file: str, interval: str
) -> None:
    rows = archive_rows(recorded_zips / market.name / f"{file}.zip")
    coarser = parse_derived_interval(interval)
    derived = resample(market, expected(market, rows), coarser)
    candle_schema(market, coarser).validate(derived, lazy=True)
    slots: defaultdict[int, list[list[Any]]] = defaultdict(list)
    for row in rows:
        slots[coarser.slot_start(coarser.slot(row[0]))].append(row)
    assert opens(derived) == list(slots)
    assert derived["trades"].to_list() == [sum(row[8] for row in within) for within in slots.values()]
    for name, column in zip(market.value_columns, (5, 7, 9, 10), strict=True):
        for derived_amount, within in zip(derived[name], slots.values(), strict=True):
            amounts = [Decimal(row[column]) for row in within]
            exact = float(sum(amounts))
            assert abs(derived_amount - exact) <= (math.ulp(exact) if max(amounts) > WITH_ALL_DECIMALS else 0)


# -- against the sandbox, which adds whole numbers ------------------------------------------------------------------


@pytest.mark.parametrize(("market", "symbol"), [("spot", "BTCUSDT"), ("usdm", "ETHUSDT"), ("coinm", "BTCUSD_PERP")])
@pytest.mark.parametrize("interval", ["3m", "5m", "15m", "1h", "4h", "1d"])
def test_synthetic_minutes_give_the_sandboxs_own_candles(
    shared_sandbox: Sandbox, market: str, symbol: str, interval: str
) -> None:
    def rows(name: str) -> pl.DataFrame:
        return expected(MARKETS[market], shared_sandbox.rows(market, symbol, name, FIRST, FIRST + 3 * DAY))

    assert resample(MARKETS[market], rows("1m"), parse_interval(interval)).equals(rows(interval))


def test_synthetic_seconds_give_minutes(shared_sandbox: Sandbox) -> None:
    seconds, minutes = (
        expected(SPOT, shared_sandbox.rows("spot", "BTCUSDT", interval, FIRST, FIRST + 6 * HOUR))
        for interval in ("1s", "1m")
    )
    assert resample(SPOT, seconds, parse_interval("1m")).equals(minutes)


# -- the rules one by one -------------------------------------------------------------------------------------------


def test_candles_without_trades_count_only_if_there_are_no_others() -> None:
    quiet = [candle(0, (9, 9, 9, 9), 0), candle(1, (9, 9, 9, 9), 0)]
    busy = [candle(2, (5, 7, 4, 6), 3), candle(3, (6, 8, 5, 5), 2), candle(4, (5, 5, 5, 5), 0)]
    prices = ["open", "high", "low", "close", "trades"]
    assert resample(SPOT, table([*quiet, *busy]), parse_interval("5m")).select(prices).rows() == [(5, 8, 4, 5, 5)]
    assert resample(SPOT, table(quiet), parse_interval("5m")).select(prices).rows() == [(9, 9, 9, 9, 0)]


def test_derived_candle_closes_with_its_last_candle_and_opens_on_the_grid() -> None:
    derived = resample(SPOT, table([candle(7, (1, 1, 1, 1), 1), candle(8, (1, 1, 1, 1), 1)]), parse_interval("5m"))
    assert opens(derived) == [FIRST + 5 * MINUTE]
    assert derived["close_time"].to_physical().to_list() == [FIRST + 9 * MINUTE - 1]


def test_sums_have_no_binary_rounding_noise() -> None:
    derived = resample(SPOT, table([candle(n, (1, 1, 1, 1), 1, 0.1) for n in range(3)]), parse_interval("3m"))
    assert derived["volume"].to_list() == [0.3]
    assert 0.1 + 0.1 + 0.1 != 0.3


units_below_all_decimals = st.integers(0, WITH_ALL_DECIMALS * 10**8 - 1)


@example([5_200_000_000_000_001, 4_000_000_000_000_001, 6_700_000_000_000_003])
@given(st.lists(units_below_all_decimals | st.integers(0, 10**8), min_size=1, max_size=60))
def test_a_sum_is_the_float_nearest_to_the_sum_of_the_decimals(units: list[int]) -> None:
    amounts = [LOT * unit for unit in units]
    minutes = table([candle(n, (1, 1, 1, 1), 1, float(amount)) for n, amount in enumerate(amounts)])
    assert resample(SPOT, minutes, parse_interval("1h"))["quote_volume"].to_list() == [float(sum(amounts))]


def test_the_sums_of_earlier_versions_differ_in_the_last_bit_at_most() -> None:
    amounts = [52_000_000.00000001, 40_000_000.00000001, 67_000_000.00000003]
    minutes = table([candle(n, (1, 1, 1, 1), 1, amount) for n, amount in enumerate(amounts)])
    now, before = (form(SPOT, minutes, parse_interval("3m"))["volume"][0] for form in (resample, resample_as_before))
    assert now != before
    assert abs(now - before) <= 2 * math.ulp(now)


@pytest.mark.parametrize("market", MARKETS.values(), ids=str)
def test_no_candles_give_an_empty_table_with_every_column(market: Market) -> None:
    derived = resample(market, empty_candles(market), parse_interval("1h"))
    assert derived.is_empty()
    assert dict(derived.schema) == columns(market)
    assert derived.columns == list(columns(market))


@pytest.mark.parametrize("interval", [*DERIVED_ONLY, "1h", "8h", "1d"])
def test_every_slot_of_the_grid_has_a_candle(interval: str) -> None:
    coarser = parse_derived_interval(interval)
    minutes = table([candle(n, (1, 1, 1, 1), 1) for n in range(3 * 1440)])
    derived = resample(SPOT, minutes, coarser)
    assert opens(derived) == list(coarser.open_times(FIRST, FIRST + 3 * DAY))
    assert derived["volume"].unique().to_list() == [coarser.step / MINUTE]
    assert (derived["close_time"] - derived["open_time"]).unique().dt.total_milliseconds().to_list() == [
        coarser.step - 1
    ]


# -- properties of any candles --------------------------------------------------------------------------------------


def decimal(amount: float) -> Decimal:
    """Return an amount with Binance's eight decimals."""
    return Decimal(amount).quantize(LOT)


def drawn_candle(minute: int, close: int, size: int, trades: int) -> tuple[object, ...]:
    """Return a valid candle; without trades it is flat. The quote volume has no more than eight decimals."""
    spread = 0 if trades == 0 else size % 50
    prices = [float(CENT * value) for value in (close - spread // 2, close + spread, close - spread, close)]
    size = size // 10**6 if trades else 0
    start = FIRST + minute * MINUTE
    volume, quote = float(LOT * 100 * size), float(LOT * size * close)
    return (start, *prices, volume, start + MINUTE - 1, quote, trades, volume, quote)


def drawn_table(drawn: list[tuple[int, int, int, int]]) -> pl.DataFrame:
    """Return the drawn candles in order of time; one without trades repeats the last close."""
    candles, last_close = [], drawn[0][1]
    for minute, close, size, trades in sorted(drawn):
        last_close = close if trades else last_close
        candles.append(drawn_candle(minute, last_close, size, trades))
    return table(candles)


minutes_of_two_days = st.lists(
    st.tuples(st.integers(0, 2 * 1440 - 1), st.integers(100, 10**7), st.integers(0, 10**14), st.integers(0, 3)),
    min_size=1,
    max_size=60,
    unique_by=lambda parts: parts[0],
).map(drawn_table)

chains = st.sampled_from([("5m", "1h"), ("5m", "10m"), ("15m", "45m"), ("45m", "90m"), ("1h", "1d"), ("3m", "1d")])


@given(minutes_of_two_days, chains)
def test_resampling_in_two_steps_equals_one_step(minutes: pl.DataFrame, chain: tuple[str, str]) -> None:
    finer, coarser = map(parse_derived_interval, chain)
    assert resample(SPOT, resample(SPOT, minutes, finer), coarser).equals(resample(SPOT, minutes, coarser))


@given(minutes_of_two_days, st.sampled_from(["5m", *DERIVED_ONLY, "1h", "1d"]).map(parse_derived_interval))
def test_derived_candles_follow_the_schema_and_lose_nothing(minutes: pl.DataFrame, interval: Interval) -> None:
    derived = resample(SPOT, minutes, interval)
    candle_schema(SPOT, interval).validate(derived, lazy=True)
    assert opens(derived) == sorted({time - time % interval.step for time in opens(minutes)})
    assert derived["trades"].sum() == minutes["trades"].sum()
    for name in SPOT.value_columns:
        assert sum(map(decimal, derived[name])) == sum(map(decimal, minutes[name]))


@given(minutes_of_two_days)
def test_day_is_resampled_to_the_same_candles_alone_and_among_others(minutes: pl.DataFrame) -> None:
    first = pl.col("open_time").dt.date() == dt.date(2024, 1, 1)
    whole = resample(SPOT, minutes, parse_derived_interval("90m"))
    alone = [resample(SPOT, minutes.filter(part), parse_derived_interval("90m")) for part in (first, ~first)]
    assert pl.concat(alone).equals(whole)
