"""Completeness over real HTTP: control totals, trading spans, outages, and the requests that they take."""

from __future__ import annotations

import datetime as dt
import json
import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import hypothesis
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from binance_assets.candles.columns import PRICES, empty_candles
from binance_assets.completeness.control_totals import ControlTotals, Totals, combine, discrepancy, totals_by_day
from binance_assets.completeness.outages import known_outages, outages_within
from binance_assets.completeness.reference_data import ReferenceData
from binance_assets.completeness.validation import validate_partitions
from binance_assets.model.markets import COINM, MARKETS, SPOT, USDM, Market
from binance_assets.model.partitions import partition_for_key
from binance_assets.model.series import parse_series
from binance_assets.model.timestamps import DAY, HOUR, MINUTE, to_ms
from binance_assets.sandbox import Fault, Sandbox, SandboxOptions, running_sandbox
from binance_assets.settings import Settings, Source, read_settings
from binance_assets.storage.lake import Lake
from binance_assets_tests.support.candles import body_of, parse_page
from binance_assets_tests.support.environment import environment_of
from binance_assets_tests.support.exchange import (
    ALL_SOURCES,
    assert_exact,
    days_of,
    expected_candles,
    klines,
    verdicts,
    with_short_timeouts,
)
from binance_assets_tests.support.lakes import state_folder, stored

BTC = "spot/BTCUSDT/1m"
JAN_2 = to_ms(dt.date(2024, 1, 2))
NOON = JAN_2 + 12 * HOUR


# -- gaps -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def replaying(recorded_zips: Path) -> Iterator[Sandbox]:
    with running_sandbox(SandboxOptions(replay=recorded_zips)) as running:
        yield running


@pytest.mark.parametrize("source", ["rest", "archive", "auto"])
def test_recorded_outage_is_accepted_with_its_gap_and_named_in_the_file(
    replaying: Sandbox, tmp_path: Path, source: Source
) -> None:
    settings = read_settings(environment_of(replaying, tmp_path))
    (day,) = days_of(settings, BTC, "2023-03-24", "2023-03-25", source)
    assert (day.verdict, day.is_accepted, day.candles.height) == ("outage", True, 1_360)
    first = to_ms(dt.date(2023, 3, 24)) + 12 * HOUR + 40 * MINUTE
    assert day.missing == ((first, first + 80 * MINUTE),)
    lake, series = Lake(settings.lake), parse_series(BTC)
    lake.prepare("sandbox")
    written = lake.write(series, day)
    entry = stored(lake, series, "2023-03-24")
    assert entry == written
    assert entry.missing == [["2023-03-24T12:40:00Z", "2023-03-24T14:00:00Z"]]
    assert "nothing was traded (spot outage of 2023-03-24 12:39 to 2023-03-24 14:00)" in str(entry.note)


def quiet_minute(sandbox: Sandbox) -> int:
    """The open time of a minute of 2 January in which nothing was traded."""
    return next(int(row[0]) for row in sandbox.rows("spot", "BTCUSDT", "1m", JAN_2, JAN_2 + DAY) if row[8] == 0)


def test_gap_without_trades_is_an_outage_even_if_no_outage_is_known(sandbox: Sandbox, settings: Settings) -> None:
    quiet = quiet_minute(sandbox)
    for path in ALL_SOURCES:
        sandbox.faults.add(Fault("missing_row", start=quiet, end=quiet + MINUTE, path=path, interval="1m"))
    (day,) = days_of(settings, BTC, "2024-01-02", "2024-01-03")
    assert (day.verdict, day.missing) == ("outage", ((quiet, quiet + MINUTE),))
    assert "and nothing was traded; no known outage explains it" in day.reason


def test_minute_without_trades_that_one_response_lacked_is_not_an_outage(sandbox: Sandbox, settings: Settings) -> None:
    quiet = quiet_minute(sandbox)
    sandbox.faults.add(Fault("missing_row", start=quiet, end=quiet + MINUTE, interval="1m", times=1))
    (day,) = days_of(settings, BTC, "2024-01-02", "2024-01-03")
    assert (day.verdict, day.provenance.source, day.missing) == ("complete", "rest", ())
    assert "because of rest: no candles for" in day.reason
    assert_exact(sandbox, BTC, [day])


def test_minute_without_trades_that_rest_lacks_comes_from_the_archive(sandbox: Sandbox, settings: Settings) -> None:
    quiet = quiet_minute(sandbox)
    sandbox.faults.add(Fault("missing_row", start=quiet, end=quiet + MINUTE, interval="1m"))
    (day,) = days_of(settings, BTC, "2024-01-02", "2024-01-03")
    assert (day.verdict, day.provenance.source) == ("complete", "archive")
    assert_exact(sandbox, BTC, [day])


@pytest.mark.parametrize("name", [BTC, "usdm/ETHUSDT/1m", "coinm/BTCUSD_PERP/1h"])
@pytest.mark.parametrize("source", ["rest", "archive", "auto"])
def test_candle_that_neither_source_has_is_lost_with_its_trades(
    sandbox: Sandbox, settings: Settings, name: str, source: Source
) -> None:
    series = parse_series(name)
    step = series.interval.step
    for path in ALL_SOURCES:
        sandbox.faults.add(
            Fault("missing_row", start=NOON, end=NOON + step, path=path, interval=series.interval.api_name)
        )
    before, day, after = days_of(settings, name, "2024-01-01", "2024-01-04", source)
    assert (before.verdict, day.verdict, after.verdict) == ("complete", "lost", "complete")
    assert day.missing == ((NOON, NOON + step),)
    assert "and their trades are missing" in day.reason
    assert (day.is_accepted, day.can_override) == (False, True)


# -- control totals -------------------------------------------------------------------------------------------------


def test_totals_that_differ_are_accepted_with_a_reason_or_refused_if_strict(
    sandbox: Sandbox, settings: Settings
) -> None:
    for path in ALL_SOURCES:
        sandbox.faults.add(Fault("doubled_amounts", interval="1d", start=JAN_2, end=JAN_2 + 1, path=path))
        for interval in ("1h", "4h"):  # otherwise they would confirm the day
            sandbox.faults.add(Fault("missing_row", interval=interval, path=path))
    for strict in (False, True):
        before, day, after = days_of(settings, BTC, "2024-01-01", "2024-01-04", strict=strict)
        assert (before.verdict, day.verdict, after.verdict) == ("complete", "unbalanced", "complete")
        assert (day.is_accepted, day.can_override) == (not strict, strict)
        assert "no candle is missing, but the totals differ from the 1d candle: volume" in day.reason
        assert_exact(sandbox, BTC, [before, day, after])


def test_a_day_is_unbalanced_if_any_of_its_totals_differs_by_one(shared_sandbox: Sandbox) -> None:
    series = parse_series(BTC)
    partition = partition_for_key("2024-01-02", series.interval)
    candles = expected_candles(shared_sandbox, BTC, partition.start, partition.end)
    daily = expected_candles(shared_sandbox, "spot/BTCUSDT/1d", partition.start, partition.end)
    for column in ("trades", *SPOT.value_columns):
        changed = daily.with_columns(pl.col(column) + 1)
        (result,) = validate_partitions(
            series, candles, [partition], ReferenceData(partition.end, ControlTotals(totals_by_day(SPOT, changed)))
        )
        assert (result.verdict, column in result.reason) == ("unbalanced", True)


def test_without_control_totals_a_day_is_unproved_and_one_with_a_gap_unreachable(
    sandbox: Sandbox, settings: Settings
) -> None:
    sandbox.faults.add(Fault("status", value=500, interval="1d"))
    sandbox.faults.add(Fault("status", value=404, interval="1d", path="archive"))
    for path in ALL_SOURCES:
        sandbox.faults.add(Fault("missing_row", start=NOON, end=NOON + MINUTE, path=path, interval="1m"))
    before, day, after = days_of(settings, BTC, "2024-01-01", "2024-01-04")
    assert (before.verdict, day.verdict, after.verdict) == ("unproved", "unreachable", "unproved")
    assert "HTTP 500" in before.reason
    assert "that could prove that nothing was traded are not available" in day.reason
    assert_exact(sandbox, BTC, [before, after])


def test_control_totals_come_from_the_archive_if_the_api_fails(sandbox: Sandbox, settings: Settings) -> None:
    sandbox.faults.add(Fault("hang", interval="1d"))
    days = days_of(with_short_timeouts(settings), BTC, "2024-01-01", "2024-01-04")
    assert verdicts(days) == ["complete"] * 3


def test_daily_candle_that_one_response_lacked_is_requested_again(sandbox: Sandbox, settings: Settings) -> None:
    sandbox.faults.add(Fault("missing_row", interval="1d", start=JAN_2, end=JAN_2 + 1, times=1))
    assert verdicts(days_of(settings, BTC, "2024-01-01", "2024-01-04")) == ["complete"] * 3
    assert len(klines(sandbox, "1d")) == 2


def test_control_totals_that_were_fetched_again_also_prove_the_next_source(
    sandbox: Sandbox, settings: Settings
) -> None:
    sandbox.faults.add(Fault("doubled_amounts", interval="1d", start=JAN_2, end=JAN_2 + 1, times=1))
    sandbox.faults.add(Fault("missing_row", start=NOON, end=NOON + MINUTE, interval="1m"))
    (day,) = days_of(settings, BTC, "2024-01-02", "2024-01-03")
    assert (day.verdict, day.provenance.source) == ("complete", "archive")
    assert len(klines(sandbox, "1d")) == 2


def test_without_a_1d_candle_a_day_is_unproved_and_one_with_a_gap_lost(sandbox: Sandbox, settings: Settings) -> None:
    for path in ALL_SOURCES:
        sandbox.faults.add(Fault("missing_row", interval="1d", start=JAN_2, end=JAN_2 + DAY + 1, path=path))
        sandbox.faults.add(Fault("missing_row", start=NOON, end=NOON + MINUTE, path=path, interval="1m"))
    before, gap, no_gap = days_of(settings, BTC, "2024-01-01", "2024-01-04")
    assert (before.verdict, gap.verdict, no_gap.verdict) == ("complete", "lost", "unproved")
    assert "there is no 1d candle" in gap.reason
    assert "there is no 1d candle" in no_gap.reason


def test_control_totals_of_a_year_take_one_request(sandbox: Sandbox, settings: Settings) -> None:
    days = days_of(settings, "spot/ETHUSDT/1h", "2023-01-01", "2024-01-01")
    assert verdicts(days) == ["complete"] * 365
    assert len(klines(sandbox, "1d")) == 1


# -- trading span ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["rest", "archive", "auto"])
@pytest.mark.parametrize(
    ("name", "day", "rows"),
    [
        ("spot/ARBUSDT/1m", "2023-03-23", 540),
        ("spot/ARBUSDT/1h", "2023-03-23", 9),
        ("spot/ARBUSDT/12h", "2023-03-23", 1),
        ("usdm/ARBUSDT/15m", "2023-03-23", 34),
        ("usdm/BTCUSDT_260327/4h", "2025-09-26", 4),
        ("coinm/SOLUSD_PERP/30m", "2021-07-28", 34),
    ],
)
def test_symbol_listed_during_a_day_has_nothing_to_fetch_before(
    sandbox: Sandbox, settings: Settings, name: str, day: str, rows: int, source: Source
) -> None:
    listed = dt.date.fromisoformat(day)
    days = days_of(settings, name, f"{listed - dt.timedelta(60)}", f"{listed + dt.timedelta(2)}", source)
    assert verdicts(days) == ["before_listing"] * 60 + ["listing", "complete"]
    assert [day.candles.height for day in days[:61]] == [0] * 60 + [rows]
    assert not any(day.missing for day in days)
    assert_exact(sandbox, name, days)
    windows = [request.params for request in klines(sandbox, parse_series(name).interval.api_name)]
    early = [window for window in windows if int(window["startTime"]) < to_ms(listed)]
    # One row shows when a symbol begins; on COIN-M its 1d candles show it.
    assert [(window["startTime"], window["limit"]) for window in early] == ([] if "coinm" in name else [("0", "1")])


def test_symbol_listed_at_midnight_has_a_complete_first_day(sandbox: Sandbox, settings: Settings) -> None:
    days = days_of(settings, "spot/ALGOUSDT/1h", "2019-06-20", "2019-06-24")
    assert verdicts(days) == ["before_listing", "before_listing", "complete", "complete"]


def test_candle_missing_from_the_day_of_listing_is_lost(sandbox: Sandbox, settings: Settings) -> None:
    late = to_ms(dt.date(2023, 3, 23)) + 20 * HOUR
    for path in ALL_SOURCES:
        sandbox.faults.add(Fault("missing_row", start=late, end=late + MINUTE, path=path, interval="1m"))
    (day,) = days_of(settings, "spot/ARBUSDT/1m", "2023-03-23", "2023-03-24")
    assert (day.verdict, day.missing) == ("lost", ((late, late + MINUTE),))


def test_first_candle_is_cached_in_the_lake_and_requested_once(sandbox: Sandbox, settings: Settings) -> None:
    name, lake = "spot/ARBUSDT/1m", Lake(settings.lake)
    lake.prepare("sandbox")

    def lookups() -> int:
        return sum(request.params.get("startTime") == "0" for request in klines(sandbox, "1m"))

    for _ in range(2):
        days = days_of(settings, name, "2023-03-20", "2023-03-25", listing_cache=lake)
        assert verdicts(days) == ["before_listing"] * 3 + ["listing", "complete"]
        assert lookups() == 1
    listed = to_ms(dt.date(2023, 3, 23)) + 15 * HOUR
    assert json.loads((state_folder(lake) / "first_candles.json").read_text()) == {name: listed}


def test_days_within_the_trading_span_request_neither_its_start_nor_its_end(
    sandbox: Sandbox, settings: Settings
) -> None:
    assert verdicts(days_of(settings, BTC, "2024-01-02", "2024-01-03")) == ["complete"]
    windows = [request.params for request in klines(sandbox, "1m")]
    assert windows
    assert "1" not in {window["limit"] for window in windows}
    assert all("startTime" in window and window["startTime"] != "0" for window in windows)


@pytest.mark.parametrize("source", ["rest", "archive", "auto"])
@pytest.mark.parametrize(
    ("name", "delivered"),
    [
        ("coinm/BTCUSD_200925/1h", "2020-09-25"),
        ("coinm/BTCUSD_200925/1m", "2020-09-25"),
        ("usdm/BTCUSDT_260327/15m", "2026-03-27"),
    ],
)
def test_contract_ends_with_its_delivery_and_has_nothing_to_fetch_after(
    sandbox: Sandbox, settings: Settings, name: str, delivered: str, source: Source
) -> None:
    last = dt.date.fromisoformat(delivered)
    days = days_of(settings, name, f"{last - dt.timedelta(1)}", f"{last + dt.timedelta(31)}", source)
    assert verdicts(days) == ["complete"] + ["delisted"] * 31
    per_hour = HOUR // parse_series(name).interval.step
    assert [day.candles.height for day in days] == [24 * per_hour, 8 * per_hour] + [0] * 30
    assert not any(day.missing for day in days)
    assert_exact(sandbox, name, days)
    requests = klines(sandbox, parse_series(name).interval.api_name)
    starts = [int(request.params.get("startTime", 0)) for request in requests]
    assert all(start < to_ms(last) + DAY for start in starts)


def test_candle_missing_from_the_last_day_of_a_contract_is_lost(sandbox: Sandbox, settings: Settings) -> None:
    late = to_ms(dt.date(2020, 9, 25)) + 7 * HOUR
    for path in ALL_SOURCES:
        sandbox.faults.add(Fault("missing_row", start=late - HOUR, end=late, path=path, interval="1h"))
    days = days_of(settings, "coinm/BTCUSD_200925/1h", "2020-09-24", "2020-09-28")
    assert verdicts(days) == ["complete", "lost", "delisted", "delisted"]
    assert days[1].missing == ((late - HOUR, late),)


# -- candles longer than a day --------------------------------------------------------------------------------------


@pytest.mark.parametrize("interval", ["3d", "1w", "1M"])
@pytest.mark.parametrize(
    ("symbol", "before"),
    [("spot/ARBUSDT", "2023-02-01"), ("usdm/ARBUSDT", "2023-02-01"), ("coinm/SOLUSD_PERP", "2021-06-01")],
)
def test_multi_day_candles_are_proved_by_daily_candles_from_the_month_of_listing_on(
    sandbox: Sandbox, settings: Settings, symbol: str, before: str, interval: str
) -> None:
    name = f"{symbol}/{interval}"
    end = dt.date.fromisoformat(before) + dt.timedelta(124)
    days = days_of(settings, name, before, f"{end.replace(day=1)}")
    # The 1M candle opens with the month, so the month of listing lacks nothing.
    month_of_listing = "complete" if interval == "1M" else "listing"
    assert verdicts(days) == ["before_listing", month_of_listing, "complete", "complete"], [day.reason for day in days]
    assert_exact(sandbox, name, days)


@pytest.mark.parametrize(("interval", "rows"), [("3d", 8), ("1w", 3), ("1M", 1)])
def test_multi_day_candles_of_a_contract_end_with_its_delivery(
    sandbox: Sandbox, settings: Settings, interval: str, rows: int
) -> None:
    name = f"coinm/BTCUSD_200925/{interval}"
    august, september, october = days_of(settings, name, "2020-08-01", "2020-11-01")
    assert verdicts([august, september, october]) == ["complete", "delisted", "delisted"], september.reason
    assert (september.candles.height, october.candles.height) == (rows, 0)
    assert_exact(sandbox, name, [august, september, october])


@pytest.mark.parametrize("interval", ["3d", "1w", "1M"])
@pytest.mark.parametrize("symbol", ["spot/ARBUSDT", "coinm/SOLUSD_PERP"])
def test_multi_day_candle_that_neither_source_has_is_lost(
    sandbox: Sandbox, settings: Settings, symbol: str, interval: str
) -> None:
    start = to_ms(dt.date(2023, 5, 1))
    name = f"{symbol}/{interval}"
    second = expected_candles(sandbox, name, start, start + 31 * DAY)["open_time"].to_physical()[
        0 if interval == "1M" else 1
    ]
    for path in ALL_SOURCES:
        sandbox.faults.add(Fault("missing_row", start=second, end=second + 1, path=path, interval=interval))
    april, may, june = days_of(settings, name, "2023-04-01", "2023-07-01")
    assert (april.verdict, may.verdict, june.verdict) == ("complete", "lost", "complete"), may.reason
    assert may.missing[0][0] == second


@pytest.mark.parametrize("interval", ["3d", "1w", "1M"])
def test_multi_day_candle_that_differs_from_its_days_is_unbalanced(
    sandbox: Sandbox, settings: Settings, interval: str
) -> None:
    day = to_ms(dt.date(2023, 5, 17))
    for path in ALL_SOURCES:
        sandbox.faults.add(Fault("doubled_amounts", start=day, end=day + 1, interval="1d", path=path))
    months = days_of(settings, f"spot/ETHUSDT/{interval}", "2023-04-01", "2023-07-01")
    assert verdicts(months) == ["complete", "unbalanced", "complete"], [month.reason for month in months]


# -- arithmetic -----------------------------------------------------------------------------------------------------


def candles_with(market: Market, trades: list[int], units: list[int]) -> pl.DataFrame:
    """A day of candles with these trades, and these units of the eighth decimal in each of their amounts."""
    step = DAY // len(trades)
    amounts = pl.Series([unit / 10**8 for unit in units])  # correctly rounded, as if parsed from text
    return pl.DataFrame(
        {
            "open_time": pl.Series([JAN_2 + step * i for i in range(len(trades))]).cast(pl.Datetime("ms", "UTC")),
            "trades": pl.Series(trades),
            **dict.fromkeys(PRICES, 1.0),
            **dict.fromkeys(market.value_columns, amounts),
        }
    )


def units_of(amount: int, count: int, rng: random.Random, kind: str) -> list[int]:
    if kind == "equal":  # all rounding errors have the same sign
        return [amount] * count
    if kind == "tiny and huge":
        return [rng.choice((1, amount)) for _ in range(count)]
    return [rng.randint(0, amount) for _ in range(count)]


@hypothesis.settings(max_examples=60, deadline=None)
@given(
    market=st.sampled_from(list(MARKETS.values())),
    count=st.sampled_from([1, 2, 24, 1_440, 86_400]),
    amount=st.integers(0, 10**15),
    kind=st.sampled_from(["equal", "tiny and huge", "random"]),
    seed=st.integers(0, 2**32),
)
def test_sum_of_floats_always_agrees_with_the_exact_total(
    market: Market, count: int, amount: int, kind: str, seed: int
) -> None:
    units = units_of(amount, count, random.Random(seed), kind)
    trades = [unit % 1_000 for unit in units]
    exact = Totals(sum(trades), (sum(units),) * 4)
    (ours,) = totals_by_day(market, candles_with(market, trades, units)).values()
    assert discrepancy(market, ours, exact) is None


@given(
    market=st.sampled_from([SPOT, USDM, COINM]),
    units=st.lists(st.integers(0, 10**9), min_size=1, max_size=50),
    trades=st.integers(0, 10**9),
    column=st.integers(0, 3),
)
def test_discrepancy_of_one_trade_or_of_the_last_decimal_is_found(
    market: Market, units: list[int], trades: int, column: int
) -> None:
    (ours,) = totals_by_day(market, candles_with(market, [trades, *[0] * (len(units) - 1)], units)).values()
    exact = sum(units)
    amounts = [exact] * 4
    assert discrepancy(market, ours, Totals(trades, tuple(amounts))) is None
    assert "trades of" in str(discrepancy(market, ours, Totals(trades + 1, tuple(amounts))))
    # COIN-M rounds the base volume of every candle, so the last decimals of a sum of many are unknown.
    off_by = (len(units) + 1) // 2 + 1 if market is COINM and column in (1, 3) else 1
    for off in (off_by, -off_by):
        amounts[column] = exact + off
        assert market.value_columns[column] in str(discrepancy(market, ours, Totals(trades, tuple(amounts))))


@given(parts=st.lists(st.floats(0, 100), min_size=1, max_size=1_440))
def test_base_volumes_that_coinm_rounded_in_every_candle_agree(parts: list[float]) -> None:
    units = [round(part * 10**8) for part in parts]
    (ours,) = totals_by_day(COINM, candles_with(COINM, [1] * len(units), units)).values()
    base = round(sum(parts) * 10**8)
    assert discrepancy(COINM, ours, Totals(len(units), (ours.amounts[0], base, ours.amounts[2], base))) is None


@given(days=st.lists(st.lists(st.integers(0, 10**12), min_size=1, max_size=5), min_size=1, max_size=40))
def test_totals_of_days_are_combined_exactly(days: list[list[int]]) -> None:
    by_day = {JAN_2 + i * DAY: Totals(len(units), (sum(units),) * 4) for i, units in enumerate(days)}
    flat = [unit for units in days for unit in units]
    whole = combine(by_day, JAN_2, JAN_2 + len(days) * DAY)
    assert (whole.trades, whole.amounts) == (len(flat), (sum(flat),) * 4)


def test_control_totals_cover_only_the_days_that_they_have(shared_sandbox: Sandbox) -> None:
    end = JAN_2 + 10 * DAY
    rows = shared_sandbox.rows("spot", "BTCUSDT", "1d", JAN_2, end)
    control_totals = ControlTotals(totals_by_day(SPOT, parse_page(SPOT, body_of(rows[:4] + rows[5:]))))
    assert (control_totals.first, control_totals.has_day(JAN_2 + 3 * DAY), control_totals.has_day(JAN_2 + 4 * DAY)) == (
        JAN_2,
        True,
        False,
    )
    known = control_totals.totals_for(JAN_2, JAN_2 + 4 * DAY)
    assert known is not None
    assert known.trades == sum(row[8] for row in rows[:4])
    assert control_totals.totals_for(JAN_2, end) is None
    assert control_totals.totals_for(JAN_2 - DAY, JAN_2 + DAY) is None
    from_listing = control_totals.totals_for(JAN_2 - 3 * DAY, JAN_2 + DAY, includes_first_trade=True)
    assert from_listing is not None
    assert from_listing.trades == rows[0][8]
    assert ControlTotals(totals_by_day(SPOT, empty_candles(SPOT))).totals_for(JAN_2, JAN_2 + DAY) is None


# -- known outages --------------------------------------------------------------------------------------------------


def test_known_outages_are_ascending_and_disjoint() -> None:
    outages = known_outages()
    assert len(outages) == 35
    assert all(outage.stop < outage.resume for outage in outages)
    assert all(before.resume < after.stop for before, after in pairwise(outages))
    assert {outage.market for outage in outages} == {"spot"}


def test_known_outages_are_the_recorded_ones(recorded: Path) -> None:
    entries = json.loads((recorded / "known_spot_outages.json").read_text())["outages"]
    spans = [tuple(dt.datetime.fromisoformat(entry[name]) for name in ("stop", "resume")) for entry in entries]
    assert [(from_ms(outage.stop), from_ms(outage.resume)) for outage in known_outages()] == spans


def from_ms(time: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(time / 1_000, dt.UTC)


@given(st.integers(to_ms(dt.date(2017, 8, 1)), to_ms(dt.date(2024, 1, 1))), st.integers(1, 40 * DAY))
def test_outage_is_found_where_it_overlaps_a_gap_on_its_own_market(start: int, length: int) -> None:
    named = outages_within(SPOT, [(start, start + length)])
    for outage in known_outages():
        overlaps = max(outage.stop, start) < min(outage.resume, start + length)
        assert (outage in named) == overlaps
    assert outages_within(USDM, [(start, start + length)]) == []
