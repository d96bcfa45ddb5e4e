"""The sandbox behaves like the exchange in everything that the project depends on, and injects faults on request."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from binance_assets.model.intervals import INTERVALS, parse_interval
from binance_assets.model.markets import COINM, MARKETS, SANDBOX_HEADER, SPOT, USDM, USED_WEIGHT_HEADER, Market
from binance_assets.model.timestamps import DAY, HOUR, MINUTE, SECOND
from binance_assets.sandbox import Fault, Sandbox, SandboxOptions, running_sandbox
from binance_assets_tests.support.recorded import RECORDED, missing_recordings

Row = list[Any]

needs_recordings = pytest.mark.skipif(missing_recordings() is not None, reason=missing_recordings() or "")


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * SECOND


JAN = ms("2024-01-01")
HIGH_LIMITS = {"spot": 10**9, "futures": 10**9}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with running_sandbox(SandboxOptions(limits=HIGH_LIMITS)) as running:
        yield running


@pytest.fixture
def faulty_sandbox(sandbox: Sandbox) -> Iterator[Sandbox]:
    yield sandbox
    sandbox.faults.clear()


@pytest.fixture(scope="module")
def replay() -> Iterator[Sandbox]:
    with running_sandbox(SandboxOptions(limits=HIGH_LIMITS, replay=RECORDED)) as running:
        yield running


def get_klines(
    sandbox: Sandbox, market: Market = SPOT, symbol: str = "BTCUSDT", interval: str = "1m", **params: int | str
) -> requests.Response:
    query = {"symbol": symbol, "interval": interval, **params}
    return requests.get(f"{sandbox.url}{market.api}/klines", params=query, timeout=60)


def rows(sandbox: Sandbox, *args: Any, **params: Any) -> list[Row]:
    response = get_klines(sandbox, *args, **params)
    assert response.status_code == 200, response.text
    served: list[Row] = response.json()
    return served


def open_times(candles: Sequence[Row]) -> list[int]:
    return [row[0] for row in candles]


def offset_to(moment: str) -> int:
    """Return the clock offset that sets the sandbox's clock to ``moment``."""
    return ms(moment) - time.time_ns() // 1_000_000


def aggregate(parts: Sequence[Row]) -> Row:
    """Return the prices and sums of the candle that Binance makes of finer candles, see :func:`row_values`."""
    traded = [row for row in parts if row[8]] or parts

    def column_sum(field: int) -> Decimal:
        return sum((Decimal(row[field]) for row in parts), Decimal(0))

    return [
        Decimal(traded[0][1]),
        max(Decimal(row[2]) for row in traded),
        min(Decimal(row[3]) for row in traded),
        Decimal(traded[-1][4]),
        column_sum(5),
        column_sum(7),
        sum(row[8] for row in parts),
        column_sum(9),
        column_sum(10),
    ]


def row_values(row: Row) -> Row:
    """Return the prices and sums of a row: all fields but the times and the last, unused one."""
    return [row[8] if field == 8 else Decimal(row[field]) for field in (1, 2, 3, 4, 5, 7, 8, 9, 10)]


# --- the rows of a window -------------------------------------------------------------------------


@pytest.mark.parametrize(("market", "symbol"), [(SPOT, "BTCUSDT"), (USDM, "BTCUSDT"), (COINM, "BTCUSD_PERP")], ids=str)
def test_a_window_is_inclusive_at_both_ends(sandbox: Sandbox, market: Market, symbol: str) -> None:
    actual = rows(sandbox, market, symbol, startTime=JAN, endTime=JAN + 3 * MINUTE)
    assert open_times(actual) == [JAN, JAN + MINUTE, JAN + 2 * MINUTE, JAN + 3 * MINUTE]
    assert open_times(rows(sandbox, market, symbol, startTime=JAN, endTime=JAN)) == [JAN]
    assert open_times(rows(sandbox, market, symbol, startTime=JAN + 1, endTime=JAN + 2 * MINUTE - 1)) == [JAN + MINUTE]


@pytest.mark.parametrize("market", [SPOT, USDM], ids=str)
def test_spot_and_usdm_return_the_oldest_rows_of_a_wide_window(sandbox: Sandbox, market: Market) -> None:
    actual = rows(sandbox, market, startTime=JAN, endTime=JAN + DAY, limit=3)
    assert open_times(actual) == [JAN, JAN + MINUTE, JAN + 2 * MINUTE]


def test_coinm_returns_the_newest_rows_of_a_wide_window(sandbox: Sandbox) -> None:
    actual = rows(sandbox, COINM, "BTCUSD_PERP", startTime=JAN, endTime=JAN + DAY, limit=3)
    assert open_times(actual) == [JAN + DAY - 2 * MINUTE, JAN + DAY - MINUTE, JAN + DAY]


def test_coinm_extends_an_open_window_to_200_days(sandbox: Sandbox) -> None:
    after = rows(sandbox, COINM, "BTCUSD_PERP", "1d", startTime=JAN, limit=1500)
    assert (after[0][0], after[-1][0], len(after)) == (JAN, JAN + 200 * DAY, 201)
    before = rows(sandbox, COINM, "BTCUSD_PERP", "1d", endTime=JAN, limit=1500)
    assert (before[0][0], before[-1][0]) == (JAN - 200 * DAY, JAN)


def test_coinm_rejects_windows_longer_than_200_days(sandbox: Sandbox) -> None:
    exactly = get_klines(sandbox, COINM, "BTCUSD_PERP", "1d", startTime=JAN, endTime=JAN + 200 * DAY)
    assert exactly.status_code == 200
    rejected = get_klines(sandbox, COINM, "BTCUSD_PERP", "1d", startTime=JAN, endTime=JAN + 200 * DAY + 1)
    assert rejected.status_code == 400
    assert rejected.json() == {"code": -4088, "msg": "Maximum time interval is 200 days."}


@pytest.mark.parametrize("market", [SPOT, USDM], ids=str)
def test_a_window_without_start_returns_the_newest_rows(sandbox: Sandbox, market: Market) -> None:
    assert open_times(rows(sandbox, market, endTime=JAN, limit=2)) == [JAN - MINUTE, JAN]
    before = sandbox.now_ms()
    newest = rows(sandbox, market, limit=2)
    assert newest[-1][0] in (before // MINUTE * MINUTE, sandbox.now_ms() // MINUTE * MINUTE)


def test_the_default_limit_is_500_and_spot_caps_at_1000(sandbox: Sandbox) -> None:
    assert len(rows(sandbox, startTime=JAN)) == 500
    assert len(rows(sandbox, startTime=JAN, limit=1001)) == 1000
    assert len(rows(sandbox, USDM, startTime=JAN, limit=1500)) == 1500


def test_an_end_in_the_future_means_now(sandbox: Sandbox) -> None:
    actual = rows(sandbox, startTime=sandbox.now_ms() - 3 * MINUTE, endTime=sandbox.now_ms() + DAY)
    assert 3 <= len(actual) <= 4
    for interval in INTERVALS:
        assert rows(sandbox, interval=interval.api_name, startTime=sandbox.now_ms() + 40 * DAY) == []
        assert rows(sandbox, interval=interval.api_name, startTime=10**20 - 1, endTime=10**20 - 1) == []
        assert rows(sandbox, interval=interval.api_name, startTime=0, endTime=0) == []


def test_consecutive_pages_are_contiguous(sandbox: Sandbox) -> None:
    pages = [rows(sandbox, startTime=JAN + i * 700 * MINUTE, limit=700) for i in range(5)]
    assert [row for page in pages for row in page] == sandbox.rows("spot", "BTCUSDT", "1m", JAN, JAN + 3500 * MINUTE)


def test_spot_accepts_microseconds(sandbox: Sandbox) -> None:
    assert open_times(rows(sandbox, startTime=JAN * 1000, endTime=JAN * 1000)) == [JAN]


# --- the candles -----------------------------------------------------------------------------------------

NUMBER = {places: re.compile(rf"\d+\.\d{{{places}}}" if places else r"\d+") for places in (0, 1, 2, 3, 5, 8)}


@pytest.mark.parametrize(
    ("market", "symbol", "places"),
    [
        (SPOT, "BTCUSDT", (8, 8, 8)),
        (SPOT, "PEPEUSDT", (8, 8, 8)),
        (USDM, "1000SHIBUSDT", (2, 3, 5)),
        (COINM, "BTCUSD_PERP", (1, 0, 8)),
    ],
)
def test_rows_have_binances_number_format(
    sandbox: Sandbox, market: Market, symbol: str, places: tuple[int, int, int]
) -> None:
    price, volume, value = places
    text = get_klines(sandbox, market, symbol, startTime=JAN, endTime=JAN + 100 * MINUTE - 1, limit=100).text
    assert " " not in text
    for i, row in enumerate(json.loads(text)):
        assert len(row) == 12
        assert (row[0], row[6], row[11]) == (JAN + i * MINUTE, JAN + (i + 1) * MINUTE - 1, "0")
        assert isinstance(row[8], int)
        expected = {1: price, 2: price, 3: price, 4: price, 5: volume, 7: value, 9: volume, 10: value}
        assert all(NUMBER[digits].fullmatch(row[field]) for field, digits in expected.items())


SYMBOLS = [
    ("spot", "BTCUSDT"),
    ("spot", "ARBUSDT"),
    ("spot", "PEPEUSDT"),
    ("spot", "S001USDT"),
    ("usdm", "ETHUSDT"),
    ("usdm", "1000SHIBUSDT"),
    ("coinm", "BTCUSD_PERP"),
    ("coinm", "ADAUSD_PERP"),
]


@pytest.mark.parametrize(("market", "symbol"), SYMBOLS)
def test_all_intervals_of_a_symbol_agree(sandbox: Sandbox, market: str, symbol: str) -> None:
    day = ms("2024-02-28")
    minutes = sandbox.rows(market, symbol, "1m", day, day + DAY)
    assert len(minutes) == 1440
    for interval in MARKETS[market].intervals:
        if MINUTE < interval.step <= DAY:
            coarse = sandbox.rows(market, symbol, interval.name, day, day + DAY)
            size = interval.step // MINUTE
            assert len(coarse) * size == 1440
            for i, row in enumerate(coarse):
                assert row_values(row) == aggregate(minutes[i * size : (i + 1) * size]), interval
    if market == "spot":
        seconds = sandbox.rows(market, symbol, "1s", day, day + HOUR)
        for i, row in enumerate(minutes[:60]):
            assert row_values(row) == aggregate(seconds[i * 60 : (i + 1) * 60])


@pytest.mark.parametrize("interval", ["3d", "1w", "1mo"])
@pytest.mark.parametrize(("market", "symbol"), SYMBOLS)
def test_multi_day_candles_are_aggregates_of_days(sandbox: Sandbox, market: str, symbol: str, interval: str) -> None:
    end = ms("2026-01-01")
    days = sandbox.rows(market, symbol, "1d", 0, end)
    coarse = sandbox.rows(market, symbol, interval, 0, end - 31 * DAY)
    by_open = {row[0]: row for row in days}
    for row in coarse:
        members = [by_open[time] for time in range(row[0], row[6], DAY) if time in by_open]
        assert row_values(row) == aggregate(members)
    assert [row[6] + 1 for row in coarse[:-1]] == open_times(coarse)[1:]


@pytest.mark.parametrize(("market", "symbol"), SYMBOLS)
def test_candles_are_consistent(sandbox: Sandbox, market: str, symbol: str) -> None:
    quiet = 0
    for name in ("1s", "1m", "1h", "1d", "1mo"):
        if name == "1s" and market != "spot":
            continue
        start = ms("2023-06-01")
        steps = 24 if name == "1mo" else 3000
        step = parse_interval(name).step
        for row in sandbox.rows(market, symbol, name, start, min(start + steps * step, ms("2026-06-01"))):
            low, high = Decimal(row[3]), Decimal(row[2])
            assert 0 < low <= min(Decimal(row[1]), Decimal(row[4])) <= max(Decimal(row[1]), Decimal(row[4])) <= high
            assert 0 <= Decimal(row[9]) <= Decimal(row[5])
            assert 0 <= Decimal(row[10]) <= Decimal(row[7])
            if not row[8]:
                quiet += 1
                assert low == high
                assert not Decimal(row[5])
                assert not Decimal(row[7])
            elif market != "coinm":
                assert low <= Decimal(row[7]) / Decimal(row[5]) <= high
    assert quiet > 0


def test_prices_do_not_jump_at_midnight(sandbox: Sandbox) -> None:
    days = sandbox.rows("spot", "BTCUSDT", "1d", JAN, JAN + 100 * DAY)
    assert [row[1] for row in days[1:]] == [row[4] for row in days[:-1]]


def test_candles_are_deterministic(sandbox: Sandbox) -> None:
    with running_sandbox() as other:
        for market, symbol in SYMBOLS:
            query = (market, symbol, "15m", JAN, JAN + 5 * DAY)
            assert other.rows(*query) == sandbox.rows(*query)
    last_hour = sandbox.rows("spot", "ETHUSDT", "1s", JAN + DAY - HOUR, JAN + DAY)
    assert aggregate(last_hour) == row_values(sandbox.rows("spot", "ETHUSDT", "1h", JAN + DAY - HOUR, JAN + DAY)[0])


def test_the_unfinished_candle_is_returned() -> None:
    options = SandboxOptions(clock_offset_ms=offset_to("2025-06-11T10:30:30"))
    with running_sandbox(options) as sandbox:
        now = ms("2025-06-11T10:30:30")
        for interval in INTERVALS[1:]:
            row = rows(sandbox, interval=interval.api_name, limit=1)[0]
            assert row[0] <= now < row[6]
        second = ms("2025-06-11T10:30:10")
        hour = rows(sandbox, interval="1h", limit=1)[0]
        done = sandbox.rows("spot", "BTCUSDT", "1m", hour[0], ms("2025-06-11T10:30:00"))
        traded_since = sandbox.rows("spot", "BTCUSDT", "1s", ms("2025-06-11T10:30:00"), second)
        assert Decimal(hour[5]) >= aggregate([*done, *traded_since])[4]
        options.clock_offset_ms += DAY
        finished = sandbox.rows("spot", "BTCUSDT", "1h", hour[0], hour[0] + 1)[0]
        assert Decimal(finished[5]) > Decimal(hour[5])
        assert finished[1] == hour[1]


def test_unfinished_candles_of_all_intervals_agree() -> None:
    with running_sandbox(SandboxOptions(clock_offset_ms=offset_to("2025-06-11T10:30:30.5"))) as sandbox:
        while True:  # repeat until all requests fall into one second of the clock
            second = sandbox.now_ms() // SECOND
            day = aggregate(sandbox.rows("spot", "SOLUSDT", "1s", ms("2025-06-11"), sandbox.now_ms() + 1))
            row = row_values(sandbox.rows("spot", "SOLUSDT", "1d", ms("2025-06-11"), sandbox.now_ms())[-1])
            days = sandbox.rows("spot", "SOLUSDT", "1d", ms("2025-06-01"), sandbox.now_ms())
            month = row_values(sandbox.rows("spot", "SOLUSDT", "1M", ms("2025-06-01"), sandbox.now_ms())[-1])
            if sandbox.now_ms() // SECOND == second:
                break
        assert row == day
        assert month == aggregate(days)


def test_candles_begin_at_the_listing_time(sandbox: Sandbox) -> None:
    listed = ms("2017-08-17T04:00:00")
    for interval, first in (
        ("1m", listed),
        ("1h", listed),
        ("12h", ms("2017-08-17")),
        ("1d", ms("2017-08-17")),
        ("3d", ms("2017-08-17")),
        ("1w", ms("2017-08-14")),
        ("1M", ms("2017-08-01")),
    ):
        assert rows(sandbox, interval=interval, startTime=0, limit=1)[0][0] == first
    assert rows(sandbox, startTime=0, endTime=listed - 1) == []
    hours = sandbox.rows("spot", "BTCUSDT", "1h", 0, ms("2017-08-18"))
    assert len(hours) == 20
    assert row_values(sandbox.rows("spot", "BTCUSDT", "1d", 0, ms("2017-08-18"))[0]) == aggregate(hours)
    half = sandbox.rows("usdm", "1000SHIBUSDT", "1h", 0, ms("2021-05-10T12:00:00"))
    minutes = sandbox.rows("usdm", "1000SHIBUSDT", "1m", 0, ms("2021-05-10T12:00:00"))
    assert (open_times(half), len(minutes)) == ([ms("2021-05-10T11:00:00")], 30)
    assert row_values(half[0]) == aggregate(minutes)


@pytest.mark.parametrize(("symbol", "phase"), [("BTCUSDT", 1), ("SOLUSDT", 2), ("DOTUSDT", 0), ("XRPUSDT", 0)])
def test_3d_candles_depend_on_the_day_of_listing(sandbox: Sandbox, symbol: str, phase: int) -> None:
    actual = rows(sandbox, symbol=symbol, interval="3d", startTime=JAN, limit=50)
    assert {time // DAY % 3 for time in open_times(actual)} == {phase}


def test_a_delivered_contract_keeps_its_candles_but_is_not_listed(sandbox: Sandbox) -> None:
    delivered = ms("2020-09-25T08:00:00")
    info = requests.get(f"{sandbox.url}/dapi/v1/exchangeInfo", timeout=60).json()
    assert "BTCUSD_200925" not in {entry["symbol"] for entry in info["symbols"]}
    actual = rows(sandbox, COINM, "BTCUSD_200925", startTime=delivered - HOUR, endTime=delivered + DAY)
    assert (len(actual), actual[-1][0]) == (60, delivered - MINUTE)
    day = sandbox.rows("coinm", "BTCUSD_200925", "1d", ms("2020-09-25"), ms("2020-09-27"))
    hours = sandbox.rows("coinm", "BTCUSD_200925", "1h", ms("2020-09-25"), ms("2020-09-27"))
    assert (len(day), len(hours)) == (1, 8)
    assert row_values(day[0]) == aggregate(hours)
    assert rows(sandbox, COINM, "BTCUSD_200925", limit=5) == actual[-5:]


# --- rejected requests ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("market", "params", "code", "message"),
    [
        (SPOT, {"symbol": ""}, -1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed."),
        (USDM, {"interval": ""}, -1102, "Mandatory parameter 'interval' was not sent, was empty/null, or malformed."),
        (SPOT, {"interval": "7m"}, -1120, "Invalid interval."),
        (SPOT, {"interval": "1mo"}, -1120, "Invalid interval."),
        (USDM, {"interval": "1s"}, -1120, "Invalid interval."),
        (SPOT, {"symbol": "NOSUCHUSDT"}, -1121, "Invalid symbol."),
        (SPOT, {"symbol": "btcusdt"}, -1121, "Invalid symbol."),
        (SPOT, {"limit": "many"}, -1100, None),
        (SPOT, {"startTime": "-5"}, -1100, None),
        (SPOT, {"startTime": ""}, -1105, None),
        (USDM, {"limit": "1501"}, -1130, "Data sent for parameter 'limit' is not valid."),
        (SPOT, {"color": "1"}, -1104, "Not all sent parameters were read; read '2' parameter(s) but was sent '3'."),
    ],
)
def test_invalid_requests_get_binances_errors(
    sandbox: Sandbox, market: Market, params: dict[str, str], code: int, message: str | None
) -> None:
    query = {"symbol": "BTCUSDT", "interval": "1m"} | params
    response = requests.get(f"{sandbox.url}{market.api}/klines", params=query, timeout=60)
    assert response.status_code == 400
    assert response.json()["code"] == code
    assert message is None or response.json()["msg"] == message
    assert int(response.headers[USED_WEIGHT_HEADER]) >= 1


def test_futures_accept_lower_case_and_non_latin_symbols(sandbox: Sandbox) -> None:
    assert rows(sandbox, USDM, "btcusdt", startTime=JAN, limit=1) == rows(sandbox, USDM, startTime=JAN, limit=1)
    assert len(rows(sandbox, COINM, "btcusd_perp", limit=1)) == 1
    assert len(rows(sandbox, USDM, "币安人生USDT", limit=1)) == 1


def test_unknown_paths_are_not_found(sandbox: Sandbox) -> None:
    response = requests.get(f"{sandbox.url}/api/v1/klines", timeout=60)
    assert response.status_code == 404
    assert response.headers[SANDBOX_HEADER] == "1"


# --- the other endpoints ---------------------------------------------------------------------------------


@pytest.mark.parametrize("market", MARKETS.values(), ids=str)
def test_exchange_info_contains_symbols_and_the_weight_limit(market: Market) -> None:
    with running_sandbox(SandboxOptions(limits={"spot": 1234, "futures": 777})) as sandbox:
        info = requests.get(f"{sandbox.url}{market.api}/exchangeInfo", timeout=60).json()
        assert abs(info["serverTime"] - sandbox.now_ms()) < 5000
    weight = next(limit for limit in info["rateLimits"] if limit["rateLimitType"] == "REQUEST_WEIGHT")
    assert weight["limit"] == (1234 if market is SPOT else 777)
    assert (weight["interval"], weight["intervalNum"]) == ("MINUTE", 1)
    by_symbol = {entry["symbol"]: entry for entry in info["symbols"]}
    if market is COINM:
        contract = by_symbol["BTCUSD_PERP"]
        assert contract["contractStatus"] == "TRADING"
        assert "status" not in contract
        assert (contract["contractSize"], by_symbol["ETHUSD_PERP"]["contractSize"]) == (100, 10)
    else:
        assert by_symbol["S300USDT"]["status"] == "TRADING"
        assert (by_symbol["BTCUSDT"]["baseAsset"], by_symbol["BTCUSDT"]["quoteAsset"]) == ("BTC", "USDT")
    if market is USDM:
        contract = by_symbol["BTCUSDT"]
        assert (contract["pair"], contract["contractType"]) == ("BTCUSDT", "PERPETUAL")
        assert (contract["onboardDate"], contract["deliveryDate"]) == (ms("2019-09-08T17:00:00"), 4133404800000)


@pytest.mark.parametrize("market", MARKETS.values(), ids=str)
def test_every_response_has_sandbox_date_and_weight_headers(market: Market) -> None:
    with running_sandbox(SandboxOptions(clock_offset_ms=offset_to("2025-03-04T05:06:07"))) as sandbox:
        paths = [f"{market.api}/{name}" for name in ("time", "ping", "exchangeInfo", "klines")]
        responses = [requests.get(sandbox.url + path, timeout=60) for path in paths]
    used = [int(response.headers[USED_WEIGHT_HEADER]) for response in responses]
    default = 2 if market is SPOT else 5
    assert used == [1, 2, 2 + market.info_weight, 2 + market.info_weight + default]
    assert responses[3].status_code == 400
    for response in responses:
        assert response.headers[SANDBOX_HEADER] == "1"
        assert response.headers["Content-Type"].startswith("application/json")
        assert (
            abs(parsedate_to_datetime(response.headers["Date"]).timestamp() * 1000 - ms("2025-03-04T05:06:07")) < 9000
        )
        assert response.headers["Date"].count("GMT") == 1
        assert "Server" not in response.headers
        assert ("x-mbx-used-weight" in response.headers) == (market is SPOT)
    assert abs(responses[0].json()["serverTime"] - ms("2025-03-04T05:06:07")) < 9000
    assert responses[1].json() == {}


# --- limits ----------------------------------------------------------------------------------------------


FUTURES_WEIGHTS = ((1, 1), (99, 1), (100, 2), (499, 2), (500, 5), (1000, 5), (1001, 10), (1500, 10))


@pytest.mark.parametrize(
    ("market", "weights"),
    [(SPOT, ((1, 2), (1000, 2))), (USDM, FUTURES_WEIGHTS), (COINM, FUTURES_WEIGHTS)],
    ids=["spot", "usdm", "coinm"],
)
def test_the_request_weight_depends_on_the_limit(market: Market, weights: tuple[tuple[int, int], ...]) -> None:
    with running_sandbox(SandboxOptions(clock_offset_ms=offset_to("2025-01-01T00:00:05"))) as sandbox:
        used = 0
        for limit, weight in weights:
            response = get_klines(sandbox, market, "BTCUSD_PERP" if market is COINM else "BTCUSDT", "1h", limit=limit)
            used += weight
            assert int(response.headers[USED_WEIGHT_HEADER]) == used
            assert sandbox.requests[-1].weight == weight


@pytest.mark.parametrize("params", [{"limit": 1501}, {}], ids=["too many rows", "no limit"])
def test_rejected_requests_and_requests_without_limit_cost_weight(params: dict[str, Any]) -> None:
    with running_sandbox(SandboxOptions(clock_offset_ms=offset_to("2025-01-01T00:00:05"))) as sandbox:
        response = get_klines(sandbox, USDM, **params)
        assert int(response.headers[USED_WEIGHT_HEADER]) == (10 if params else 5)
        assert response.status_code == (400 if params else 200)


def test_exceeding_the_weight_limit_leads_to_429_and_then_418() -> None:
    options = SandboxOptions(limits={"spot": 10}, clock_offset_ms=offset_to("2025-01-01T00:00:05"))
    with running_sandbox(options) as sandbox:
        responses = [get_klines(sandbox, limit=1) for _ in range(18)]
        assert [response.status_code for response in responses] == [200] * 5 + [429] * 11 + [418] * 2
        rejected, banned = responses[5], responses[-1]
        assert rejected.json() == {
            "code": -1003,
            "msg": "Too much request weight used; current limit is 10 request weight per 1 MINUTE. "
            "Please use WebSocket Streams for live updates to avoid polling the API.",
        }
        assert 45 <= int(rejected.headers["Retry-After"]) <= 55
        assert banned.json()["code"] == -1003
        until = re.fullmatch(
            r"Way too much request weight used; IP banned until (\d+)\. "
            r"Please use WebSocket Streams for live updates to avoid bans\.",
            banned.json()["msg"],
        )
        assert until is not None
        assert 110_000 < int(until[1]) - sandbox.now_ms() <= 120_000
        assert 110 <= int(banned.headers["Retry-After"]) <= 120
        assert [int(response.headers[USED_WEIGHT_HEADER]) for response in responses] == list(range(2, 38, 2))
        assert get_klines(sandbox, USDM, limit=1).status_code == 200
        options.clock_offset_ms += MINUTE
        assert get_klines(sandbox, limit=1).status_code == 418
        options.clock_offset_ms += MINUTE
        assert get_klines(sandbox, limit=1).status_code == 200


def test_the_weight_counter_resets_every_minute() -> None:
    options = SandboxOptions(limits={"spot": 2}, clock_offset_ms=offset_to("2025-01-01T00:00:30"))
    with running_sandbox(options) as sandbox:
        assert [get_klines(sandbox, limit=1).status_code for _ in range(2)] == [200, 429]
        options.clock_offset_ms = offset_to("2025-01-01T00:01:00")
        response = get_klines(sandbox, limit=1)
        assert (response.status_code, response.headers[USED_WEIGHT_HEADER]) == (200, "2")


def test_usdm_and_coinm_share_a_weight_limit() -> None:
    with running_sandbox(SandboxOptions(clock_offset_ms=offset_to("2025-01-01T00:00:05"))) as sandbox:
        get_klines(sandbox, USDM, limit=1500)
        assert get_klines(sandbox, COINM, "BTCUSD_PERP", limit=1).headers[USED_WEIGHT_HEADER] == "11"
        assert get_klines(sandbox, limit=1).headers[USED_WEIGHT_HEADER] == "2"


def test_the_round_trip_time_is_configurable() -> None:
    with running_sandbox(SandboxOptions(rtt_ms=60, jitter_ms=10)) as sandbox:
        seconds = []
        for _ in range(5):
            begin = time.perf_counter()
            get_klines(sandbox, limit=1)
            seconds.append(time.perf_counter() - begin)
        assert 0.06 <= min(seconds) < 1  # a machine under load adds to some of them


# --- the sandbox's own endpoints -------------------------------------------------------------------------


def test_requests_are_logged() -> None:
    with running_sandbox() as sandbox:
        get_klines(sandbox, limit=1)
        get_klines(sandbox, symbol="NOSUCHUSDT")
        served = sandbox.requests
        assert [(request.path, request.status, request.weight) for request in served] == [
            ("/api/v3/klines", 200, 2),
            ("/api/v3/klines", 400, 2),
        ]
        assert served[0].params == {"symbol": "BTCUSDT", "interval": "1m", "limit": "1"}
        assert abs(served[0].at_ms - sandbox.now_ms()) < 5000
        summary = requests.get(f"{sandbox.url}/sandbox/requests", timeout=60).json()
        assert summary == {"count": 2, "by_status": {"200": 1, "400": 1}, "weight": {"spot": 4}}


def test_faults_can_be_set_over_http(faulty_sandbox: Sandbox) -> None:
    def post(faults: object) -> requests.Response:
        return requests.post(f"{faulty_sandbox.url}/sandbox/faults", json=faults, timeout=60)

    assert post([asdict(Fault("empty"))]).status_code == 200
    assert rows(faulty_sandbox, limit=5) == []
    assert post([]).status_code == 200
    assert len(rows(faulty_sandbox, limit=5)) == 5
    assert post([{"kind": "no such"}]).status_code == 400
    assert post([{"kind": "empty", "color": 1}]).status_code == 400
    assert post({"kind": "empty"}).status_code == 400


# --- faults ----------------------------------------------------------------------------------------------

WINDOW: dict[str, Any] = {"startTime": JAN, "endTime": JAN + 10 * MINUTE - 1, "limit": 1000}


def test_unknown_fault_kinds_and_invalid_statuses_are_rejected() -> None:
    with pytest.raises(ValueError, match="unknown fault kind 'no such'"):
        Fault("no such")
    with pytest.raises(ValueError, match="status 42"):
        Fault("status", value=42)


def test_rows_can_be_missing_in_any_interval(faulty_sandbox: Sandbox) -> None:
    faulty_sandbox.faults.add(Fault("missing_row", start=JAN + 3 * MINUTE, end=JAN + 5 * MINUTE))
    expected = faulty_sandbox.rows("spot", "BTCUSDT", "1m", JAN, JAN + 10 * MINUTE)
    assert rows(faulty_sandbox, **WINDOW) == expected[:3] + expected[5:]
    faulty_sandbox.faults.add(Fault("missing_row", start=JAN, end=JAN + DAY))
    assert open_times(rows(faulty_sandbox, interval="1d", startTime=JAN - DAY, endTime=JAN + DAY)) == [
        JAN - DAY,
        JAN + DAY,
    ]


def corrupted_window(sandbox: Sandbox, kind: str, value: int | None = None) -> tuple[Any, list[Row]]:
    """Return the JSON value of ten minutes with a fault in the fifth minute, and the expected rows."""
    sandbox.faults.add(Fault(kind, start=JAN + 4 * MINUTE, end=JAN + 5 * MINUTE, value=value))
    return get_klines(sandbox, **WINDOW).json(), sandbox.rows("spot", "BTCUSDT", "1m", JAN, JAN + 10 * MINUTE)


def test_a_response_can_be_empty(faulty_sandbox: Sandbox) -> None:
    assert corrupted_window(faulty_sandbox, "empty")[0] == []


def test_a_row_can_be_duplicated(faulty_sandbox: Sandbox) -> None:
    actual, expected = corrupted_window(faulty_sandbox, "doubled_row")
    assert actual == [*expected[:5], *expected[4:]]


def test_rows_can_be_out_of_order(faulty_sandbox: Sandbox) -> None:
    actual, expected = corrupted_window(faulty_sandbox, "unordered")
    assert actual != expected
    assert sorted(actual) == expected


@pytest.mark.parametrize("shift", [None, 250])
def test_a_row_can_be_off_the_grid(faulty_sandbox: Sandbox, shift: int | None) -> None:
    actual, expected = corrupted_window(faulty_sandbox, "off_grid", shift)
    assert actual[4][0] == expected[4][0] + (shift or 1)
    assert actual[:4] + actual[5:] == expected[:4] + expected[5:]


def test_a_row_before_the_window_can_be_added(faulty_sandbox: Sandbox) -> None:
    actual, expected = corrupted_window(faulty_sandbox, "outside")
    assert actual[1:] == expected
    assert actual[0][0] == JAN - MINUTE


def test_prices_can_be_inconsistent(faulty_sandbox: Sandbox) -> None:
    actual, expected = corrupted_window(faulty_sandbox, "bad_prices")
    assert Decimal(actual[4][3]) > Decimal(actual[4][2])
    assert actual[:4] + actual[5:] == expected[:4] + expected[5:]


def test_a_volume_can_be_negative(faulty_sandbox: Sandbox) -> None:
    assert Decimal(corrupted_window(faulty_sandbox, "negative_volume")[0][4][5]) < 0


@pytest.mark.parametrize(("kind", "value"), [("nan", "NaN"), ("empty_strings", ""), ("null", None)])
def test_a_price_can_be_not_a_number(faulty_sandbox: Sandbox, kind: str, value: str | None) -> None:
    actual, expected = corrupted_window(faulty_sandbox, kind)
    assert actual[4][4] == value
    assert actual[:4] + actual[5:] == expected[:4] + expected[5:]


def test_the_layout_can_be_different(faulty_sandbox: Sandbox) -> None:
    def corrupt(kind: str) -> tuple[Any, list[Row]]:
        faulty_sandbox.faults.clear()
        return corrupted_window(faulty_sandbox, kind)

    value, expected = corrupt("json_object")
    assert value == {"data": expected}
    assert corrupt("nested")[0] == [expected]
    assert corrupt("fields_11")[0] == [row[:11] for row in expected]
    assert {len(row) for row in corrupt("fields_13")[0]} == {13}
    assert {type(field) for row in corrupt("numbers_as_strings")[0] for field in row} == {str}
    assert {type(field) for row in corrupt("strings_as_numbers")[0] for field in row} == {int, float}


@pytest.mark.parametrize("kind", ["broken_json", "truncated_json"])
def test_json_can_be_invalid_in_a_complete_response(faulty_sandbox: Sandbox, kind: str) -> None:
    faulty_sandbox.faults.add(Fault(kind))
    response = get_klines(faulty_sandbox, **WINDOW)
    assert response.status_code == 200
    assert int(response.headers["Content-Length"]) == len(response.content)
    with pytest.raises(ValueError, match=r"(?i)expecting|unterminated|delimiter|property name"):
        json.loads(response.content)


@pytest.mark.parametrize(
    ("value", "status", "code"),
    [(408, 408, -1007), (418, 418, -1003), (429, 429, -1003), (451, 451, 0), (500, 500, -1000), (503, 503, -1008)],
)
def test_an_error_status_has_binances_body(faulty_sandbox: Sandbox, value: int, status: int, code: int) -> None:
    faulty_sandbox.faults.add(Fault("status", value=value))
    response = get_klines(faulty_sandbox, **WINDOW)
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert ("Retry-After" in response.headers) == (status in (418, 429))
    assert response.headers[SANDBOX_HEADER] == "1"


def test_some_error_bodies_are_not_json_or_lack_a_code(faulty_sandbox: Sandbox) -> None:
    for status in (403, 502):
        faulty_sandbox.faults.replace([Fault("status", value=status)])
        response = get_klines(faulty_sandbox, **WINDOW)
        assert response.status_code == status
        assert response.headers["Content-Type"] == "text/html"
        assert response.text.lower().startswith("<html>")
    faulty_sandbox.faults.replace([Fault("status", value="503-no-code")])
    response = get_klines(faulty_sandbox, **WINDOW)
    assert response.status_code == 503
    assert "code" not in response.json()
    assert "msg" in response.json()


def test_a_symbol_can_be_reported_as_invalid(faulty_sandbox: Sandbox) -> None:
    faulty_sandbox.faults.add(Fault("invalid_symbol", symbol="ETHUSDT"))
    response = get_klines(faulty_sandbox, symbol="ETHUSDT")
    assert (response.status_code, response.json()) == (400, {"code": -1121, "msg": "Invalid symbol."})
    assert get_klines(faulty_sandbox).status_code == 200


def test_a_body_can_be_shorter_than_its_content_length(faulty_sandbox: Sandbox) -> None:
    faulty_sandbox.faults.add(Fault("truncated_body"))
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
        get_klines(faulty_sandbox, **WINDOW)


def test_a_connection_can_be_reset_before_the_response(faulty_sandbox: Sandbox) -> None:
    faulty_sandbox.faults.add(Fault("reset", times=1))
    with pytest.raises(requests.exceptions.ConnectionError, match="reset"):
        get_klines(faulty_sandbox, **WINDOW)
    assert faulty_sandbox.requests[-1].status == 0
    assert get_klines(faulty_sandbox, **WINDOW).status_code == 200


def test_a_connection_can_be_reset_within_the_body(faulty_sandbox: Sandbox) -> None:
    faulty_sandbox.faults.add(Fault("reset_amid_body"))
    with requests.get(
        f"{faulty_sandbox.url}/api/v3/klines",
        params={"symbol": "BTCUSDT", "interval": "1m", "limit": "1000"},
        stream=True,
        timeout=60,
    ) as response:
        assert response.status_code == 200
        with pytest.raises(requests.exceptions.RequestException, match="reset"):
            _ = response.content


def test_a_request_can_hang(faulty_sandbox: Sandbox) -> None:
    faulty_sandbox.faults.add(Fault("hang", times=1))
    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.get(f"{faulty_sandbox.url}/api/v3/klines?symbol=BTCUSDT&interval=1m", timeout=0.3)
    assert get_klines(faulty_sandbox).status_code == 200


def test_a_hanging_request_does_not_delay_the_shutdown() -> None:
    with running_sandbox() as sandbox:
        sandbox.faults.add(Fault("hang"))
        errors: list[Exception] = []

        def hang() -> None:
            try:
                get_klines(sandbox)
            except requests.exceptions.ConnectionError as error:
                errors.append(error)

        client = threading.Thread(target=hang)
        client.start()
        while not sandbox.requests:
            time.sleep(0.01)
    client.join()  # the hanging has no end of its own
    assert len(errors) == 1


def test_a_fault_affects_only_what_it_selects(faulty_sandbox: Sandbox) -> None:
    def is_empty(market: Market, symbol: str, start: int, end: int) -> bool:
        return not rows(faulty_sandbox, market, symbol, startTime=start, endTime=end)

    faulty_sandbox.faults.add(Fault("empty", market="usdm", symbol="ETHUSDT", start=JAN, end=JAN + HOUR))
    assert is_empty(USDM, "ETHUSDT", JAN, JAN + MINUTE)
    assert is_empty(USDM, "ethusdt", JAN - HOUR, JAN)
    assert not is_empty(SPOT, "ETHUSDT", JAN, JAN + MINUTE)
    assert not is_empty(USDM, "BTCUSDT", JAN, JAN + MINUTE)
    assert not is_empty(USDM, "ETHUSDT", JAN + HOUR, JAN + 2 * HOUR)
    assert not is_empty(USDM, "ETHUSDT", JAN - HOUR, JAN - 1)


def test_a_fault_can_be_limited_in_number_and_share(faulty_sandbox: Sandbox) -> None:
    faulty_sandbox.faults.add(Fault("empty", times=2))
    assert [len(rows(faulty_sandbox, limit=1)) for _ in range(4)] == [0, 0, 1, 1]

    def row_counts() -> list[int]:
        faulty_sandbox.faults.replace([Fault("empty", share=0.3)])
        return [len(rows(faulty_sandbox, limit=1)) for _ in range(100)]

    first = row_counts()
    assert 15 <= first.count(0) <= 45
    assert row_counts() == first


def test_a_fault_can_affect_another_endpoint(faulty_sandbox: Sandbox) -> None:
    faulty_sandbox.faults.add(Fault("status", value=500, path="exchangeInfo"))
    assert requests.get(f"{faulty_sandbox.url}/api/v3/exchangeInfo", timeout=60).status_code == 500
    assert get_klines(faulty_sandbox, limit=1).status_code == 200


def test_faults_do_not_change_the_expected_rows(faulty_sandbox: Sandbox) -> None:
    faulty_sandbox.faults.add(Fault("empty"))
    assert len(faulty_sandbox.rows("spot", "BTCUSDT", "1m", JAN, JAN + HOUR)) == 60


# --- replay ----------------------------------------------------------------------------------------------


def recorded_csv(name: str) -> list[Row]:
    """Return the rows of a recorded archive file as klines sends them."""
    path = RECORDED / name
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            text = archive.read(archive.namelist()[0]).decode()
    else:
        text = path.read_text("utf-8")
    lines = [line for line in csv.reader(io.StringIO(text)) if line[0].isdigit()]
    unit = 1000 if len(lines[0][0]) == 16 else 1
    return [
        [int(row[0]) // unit, *row[1:6], int(row[6]) // unit, row[7], int(row[8]), *row[9:11], "0"] for row in lines
    ]


@needs_recordings
@pytest.mark.parametrize(
    "name",
    [
        "spot/BTCUSDT-1m-2020-01-02.zip",
        "spot/BTCUSDT-1m-2023-03-24.zip",
        "spot/BTCUSDT-15m-2023-03-24.zip",
        "spot/ARBUSDT-1m-2023-07-25.zip",
        "spot/BTCUSDT-1h-2024-12.csv",
        "spot/BTCUSDT-1h-2025-01.csv",
        "usdm/BTCUSDT-1m-2022-09-05.zip",
        "usdm/ETHUSDT-1h-2022-08-24.zip",
        "coinm/BTCUSD_PERP-1m-2022-10-24.zip",
    ],
)
def test_archive_files_are_replayed_row_for_row(replay: Sandbox, name: str) -> None:
    market, file = name.split("/")
    symbol, interval, _ = file.split("-", 2)
    expected = recorded_csv(name)
    assert replay.rows(market, symbol, interval, expected[0][0], expected[-1][0] + 1) == expected


@needs_recordings
@pytest.mark.parametrize("path", sorted((RECORDED / "spot").glob("REST_*.json")), ids=lambda path: path.name)
def test_recorded_rest_rows_are_replayed(replay: Sandbox, path: Path) -> None:
    _, market, symbol, interval, _ = path.stem.split("_")
    expected = json.loads(path.read_text("utf-8"))
    assert replay.rows(market, symbol, interval, expected[0][0], expected[-1][0] + 1) == expected


@needs_recordings
@pytest.mark.parametrize("path", sorted(RECORDED.glob("*/gct_*klines*.json")), ids=lambda path: path.name)
def test_recorded_requests_get_their_recorded_responses(replay: Sandbox, path: Path) -> None:
    pair = json.loads(path.read_text("utf-8"))
    if "startTime" not in pair["query"]:
        pytest.skip("the recorded request is for the newest rows of its day")
    response = requests.get(f"{replay.url}{pair['path']}?{pair['query']}", timeout=60)
    assert response.json() == pair["body"]


@needs_recordings
def test_the_outage_of_2023_stays_a_gap(replay: Sandbox) -> None:
    day = ms("2023-03-24")
    minutes = rows(replay, startTime=day, endTime=day + DAY - 1, limit=1000)
    minutes += rows(replay, startTime=minutes[-1][0] + 1, endTime=day + DAY - 1, limit=1000)
    assert len(minutes) == 1360
    assert not {ms("2023-03-24T12:40:00"), ms("2023-03-24T13:59:00")} & set(open_times(minutes))
    assert rows(replay, startTime=ms("2023-03-24T12:40:00"), endTime=ms("2023-03-24T13:59:59")) == []


@needs_recordings
def test_days_that_were_not_recorded_are_aggregated(replay: Sandbox) -> None:
    day = ms("2023-07-25")
    minutes = replay.rows("spot", "ARBUSDT", "1m", day, day + DAY)
    (row,) = replay.rows("spot", "ARBUSDT", "1d", day, day + DAY)
    assert row_values(row) == aggregate(minutes)
    assert (row[0], row[6], len(row)) == (day, day + DAY - 1, 12)
    assert replay.rows("spot", "BTCUSDT", "1d", ms("2020-01-01"), ms("2020-01-03"))[1][5] == str(
        sum(Decimal(row[5]) for row in recorded_csv("spot/BTCUSDT-1m-2020-01-02.zip"))
    )


@needs_recordings
def test_recorded_symbols_have_no_synthetic_rows(replay: Sandbox) -> None:
    assert rows(replay, interval="5m", startTime=JAN, limit=5) == []
    assert rows(replay, symbol="ARBUSDT", startTime=JAN, limit=5) == []
    assert len(rows(replay, symbol="ETHUSDT", startTime=JAN, limit=5)) == 5
    info = requests.get(f"{replay.url}/api/v3/exchangeInfo?symbol=ETHBTC", timeout=60).json()
    assert [entry["baseAsset"] for entry in info["symbols"]] == ["ETH"]


def test_an_unreadable_recording_is_reported_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"), running_sandbox(SandboxOptions(replay=tmp_path / "no")):
        pass
    (tmp_path / "spot").mkdir()
    (tmp_path / "spot" / "BTCUSDT-1m-2024-01-01.csv").write_text("1,2,3\n")
    with (
        pytest.raises(ValueError, match=r"BTCUSDT-1m-2024-01-01\.csv"),
        running_sandbox(SandboxOptions(replay=tmp_path)),
    ):
        pass


def test_replayed_rows_keep_their_number_format(tmp_path: Path) -> None:
    (tmp_path / "usdm").mkdir()
    header = "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,x,ignore\n"
    line = "1704067200000000,2,2.50,1,2.0,33013,1704067259999999,66026.0,7,0,0,8123\n"
    (tmp_path / "usdm" / "NEWUSDT-1m-2024-01-01.csv").write_text(header + line)
    with running_sandbox(SandboxOptions(replay=tmp_path)) as sandbox:
        response = get_klines(sandbox, USDM, "NEWUSDT", startTime=0)
        assert response.text == '[[1704067200000,"2","2.50","1","2.0","33013",1704067259999,"66026.0",7,"0","0","0"]]'
        assert sandbox.rows("usdm", "NEWUSDT", "1d", 0, sandbox.now_ms())[0][5:9] == [
            "33013", 1704153599999, "66026.0", 7
        ]  # fmt: skip


# --- serving ---------------------------------------------------------------------------------------------


def test_requesting_the_rows_of_an_unknown_symbol_raises(sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match="no symbol NOSUCH"):
        sandbox.rows("spot", "NOSUCH", "1m", JAN, JAN + DAY)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_serve_prints_its_address_and_stops_without_output(ending: signal.Signals) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = f"from binance_assets.sandbox import SandboxOptions, serve\nserve(SandboxOptions(), {port})"
    checkout = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    command = [sys.executable, "-c", program]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        url = f"http://127.0.0.1:{port}"
        for setting in ("BINANCE_SPOT_URL", "BINANCE_USDM_URL", "BINANCE_COINM_URL"):
            assert f"{setting}={url}" in line
        for _ in range(100):
            try:
                assert requests.get(f"{url}/api/v3/ping", timeout=60).json() == {}
                break
            except requests.exceptions.ConnectionError:
                time.sleep(0.05)
        process.send_signal(ending)
        assert process.wait(60) == 0
        assert process.stdout.read() == ""


# --- rows with other totals, suspensions, removed symbols ----------------------------------------


def test_rows_can_have_one_trade_more(faulty_sandbox: Sandbox) -> None:
    actual, expected = corrupted_window(faulty_sandbox, "one_trade_more")
    assert actual[4][8] == expected[4][8] + 1
    assert actual[:4] + actual[5:] == expected[:4] + expected[5:]


def test_rows_can_have_doubled_amounts(faulty_sandbox: Sandbox) -> None:
    actual, expected = corrupted_window(faulty_sandbox, "doubled_amounts")
    assert [Decimal(actual[4][field]) for field in (5, 7, 9, 10)] == [
        2 * Decimal(expected[4][field]) for field in (5, 7, 9, 10)
    ]
    assert actual[4][:5] == expected[4][:5]
    assert actual[:4] + actual[5:] == expected[:4] + expected[5:]


SUSPENDED, RESUMED = ms("2022-09-29"), ms("2023-03-12")


@pytest.mark.parametrize("interval", ["1m", "1h", "1d"])
def test_a_suspended_symbol_has_no_candles_until_it_is_traded_again(sandbox: Sandbox, interval: str) -> None:
    window = {"startTime": SUSPENDED - DAY, "endTime": RESUMED + DAY - 1}
    oldest = rows(sandbox, SPOT, "USDCUSDT", interval, limit=1000, **window)
    step = parse_interval(interval).step
    assert oldest[0][0] == SUSPENDED - DAY
    assert not any(SUSPENDED <= row[0] < RESUMED for row in oldest)
    assert rows(sandbox, SPOT, "USDCUSDT", interval, startTime=SUSPENDED, endTime=RESUMED - 1) == []
    assert rows(sandbox, SPOT, "USDCUSDT", interval, startTime=SUSPENDED, limit=1)[0][0] == RESUMED
    assert rows(sandbox, SPOT, "USDCUSDT", interval, endTime=RESUMED - 1, limit=1)[0][0] == SUSPENDED - step


@pytest.mark.parametrize("interval", ["3d", "1w", "1M"])
def test_longer_candles_of_a_suspended_symbol_are_the_sums_of_its_traded_days(sandbox: Sandbox, interval: str) -> None:
    window = {"startTime": ms("2022-08-01"), "endTime": ms("2023-05-01") - 1}
    candles = rows(sandbox, SPOT, "USDCUSDT", interval, limit=1000, **window)
    days = rows(sandbox, SPOT, "USDCUSDT", "1d", limit=1000, startTime=candles[0][0], endTime=candles[-1][6])
    for candle in candles:
        members = [day for day in days if candle[0] <= day[0] <= candle[6]]
        assert members
        assert candle[8] == sum(day[8] for day in members)
        assert Decimal(candle[5]) == sum(Decimal(day[5]) for day in members)
        assert (candle[1], candle[4]) == (members[0][1], members[-1][4])
    assert sum(candle[8] for candle in candles) == sum(day[8] for day in days)


@pytest.mark.parametrize(
    ("market", "symbol", "last_day"), [(USDM, "BTCUSDT_210326", "2021-03-26"), (SPOT, "SRMUSDT", "2022-11-28")]
)
def test_klines_does_not_know_a_removed_symbol_but_the_archive_has_its_files(
    sandbox: Sandbox, market: Market, symbol: str, last_day: str
) -> None:
    response = get_klines(sandbox, market, symbol, limit=1)
    assert (response.status_code, response.json()["code"]) == (400, -1121)
    folder = f"{sandbox.url}/data/{market.archive}/daily/klines/{symbol}/1d"
    assert requests.get(f"{folder}/{symbol}-1d-{last_day}.zip", timeout=60).status_code == 200
    after = datetime.fromtimestamp(ms(last_day) // SECOND, UTC).replace(hour=0).date().replace(day=29)
    assert requests.get(f"{folder}/{symbol}-1d-{after}.zip", timeout=60).status_code == 404
