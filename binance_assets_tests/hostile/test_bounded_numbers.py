"""Numbers of the exchange are believed within bounds: its time, weights, limits, and how long to wait."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binance_assets.exchange.clock import ServerClock
from binance_assets.exchange.errors import (
    Banned,
    BannedForLong,
    Cancelled,
    ExchangeError,
    RateLimited,
    RateLimitedForLong,
    UnexpectedResponse,
)
from binance_assets.exchange.http import used_weight
from binance_assets.exchange.pages import plan_pages
from binance_assets.exchange.rate_limit.budget import Budget
from binance_assets.exchange.rate_limit.ledger import Ledger, RateLimitGroup, StoredLimit
from binance_assets.exchange.rate_limit.policy import (
    believed_limit,
    blocked_for,
    longest_wait,
    number_in_a_row,
)
from binance_assets.exchange.session import Exchange
from binance_assets.model.markets import SPOT, USED_WEIGHT_HEADER
from binance_assets.model.series import parse_series
from binance_assets.model.timestamps import CANDLE_TIMES, DAY, HOUR, MINUTE, SECOND
from binance_assets.settings import Settings
from binance_assets_tests.support.exchange import quick_retrier
from binance_assets_tests.support.hostile_server import HostileServer, Pieces, answer, hostile_server, market_script
from binance_assets_tests.support.polling import until

NOW = 1_700_000_030_000
NEVER_STOPPED = threading.Event()
GROUP = RateLimitGroup("here", "spot")
SERIES = parse_series("spot/BTCUSDT/1h")
ODD_NUMBERS = ["²", "-1", "+5", "1.5", "1e3", "9" * 5_000, "1" + "0" * 30, "", " ", "x", "1, 2", "0x10"]


def settings_for(server: HostileServer, folder: Path, **changes: object) -> Settings:
    urls = dict.fromkeys(("spot_url", "usdm_url", "coinm_url", "archive_url"), server.url)
    values = {**urls, "ledger": folder / "ledger.sqlite", "connect_timeout": 30, "read_timeout": 30}
    return Settings.model_validate({**values, **changes})


@contextmanager
def opened(server: HostileServer, folder: Path, **changes: object) -> Iterator[Exchange]:
    exchange = Exchange(SPOT, settings_for(server, folder, **changes), retrier=quick_retrier())
    try:
        yield exchange
    finally:
        exchange.close()


def fetch_page(exchange: Exchange) -> bytes:
    page = plan_pages(SPOT, SERIES.interval, [(CANDLE_TIMES[0], CANDLE_TIMES[0] + DAY)])[0]
    return exchange.klines(SERIES, page, lambda _, body: body)


# -- the time --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["1e999", "1e30", str(2**63 - 1), "0", "-1", "null", '"²"', "[]", "true", "1.5"])
def test_a_time_that_no_server_can_have_is_an_unexpected_response(tmp_path: Path, value: str) -> None:
    with hostile_server(lambda path: answer(b'{"serverTime": %s}' % value.encode())) as server:
        with opened(server, tmp_path) as exchange, pytest.raises(UnexpectedResponse, match="not a time in ms"):
            exchange.now()
        assert len(server.paths) == UnexpectedResponse.policy.attempts


# -- the weight limit and the used weight ----------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["-5", "1", "2", "599", "60001", "1e999", "null", '"²"', "true", "[" * 9 + "]" * 9])
def test_an_odd_weight_limit_is_ignored_with_one_warning_and_not_stored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, value: str
) -> None:
    with hostile_server(market_script(lambda path: answer(b"[]"), limit=value)) as server:
        with caplog.at_level(logging.WARNING), opened(server, tmp_path) as exchange:
            assert [exchange.weight_limit() for _ in range(3)] == [SPOT.weight_limit] * 3
            assert fetch_page(exchange) == b"[]"
        assert server.counts("/exchangeInfo") == 1
    (warning,) = [record.getMessage() for record in caplog.records if record.name.startswith("binance_assets")]
    assert "which is not believed; the documented limit of 6000 applies" in warning
    assert "\n" not in warning
    with Ledger(tmp_path / "ledger.sqlite").transaction(RateLimitGroup(server.url[7:], "spot")) as transaction:
        assert transaction.limit() is None


@pytest.mark.parametrize("value", [600, 6_000, 60_000])
def test_a_weight_limit_from_a_tenth_to_ten_times_the_documented_one_is_believed(tmp_path: Path, value: int) -> None:
    script = market_script(lambda path: answer(b"[]"), limit=value)
    with hostile_server(script) as server, opened(server, tmp_path) as exchange:
        assert exchange.weight_limit() == value


@pytest.mark.parametrize("stored", [-5, 0, 1, 599, 60_001, 2**62])
def test_an_odd_limit_that_another_version_stored_is_ignored(tmp_path: Path, stored: int) -> None:
    ledger, clock = Ledger(tmp_path / "ledger.sqlite"), ServerClock()
    clock.sync(NOW, time.monotonic(), time.monotonic())
    with ledger.transaction(GROUP) as transaction:
        transaction.store_limit(StoredLimit(stored, NOW))
    budget = Budget(ledger, GROUP, clock, 6_000, 1.0, 900, 30)
    assert budget.known_limit is None
    assert budget.spendable_now() == 6_000
    budget.acquire(20, NEVER_STOPPED)
    ledger.close()


@given(st.one_of(st.integers(), st.floats(), st.text(), st.none(), st.booleans()), st.sampled_from([2_400, 6_000]))
def test_a_believed_limit_is_within_its_bounds(value: object, documented: int) -> None:
    limit = believed_limit(value, documented)
    assert limit is None or documented / 10 <= limit <= documented * 10


@pytest.mark.parametrize("value", [*ODD_NUMBERS, "60001", "99999999"])
def test_a_used_weight_out_of_bounds_counts_as_no_header(value: str) -> None:
    assert used_weight({USED_WEIGHT_HEADER: value}, 6_000) is None


@pytest.mark.parametrize("value", ["0", "1", "6000", "60000"])
def test_a_used_weight_within_sense_counts(value: str) -> None:
    assert used_weight({USED_WEIGHT_HEADER: value}, 6_000) == int(value)


@pytest.mark.parametrize("value", [value for value in ODD_NUMBERS if value.isascii()])
def test_an_odd_used_weight_does_not_stop_a_download(tmp_path: Path, value: str) -> None:
    page = answer(b"[]", f"{USED_WEIGHT_HEADER}: {value}")
    with hostile_server(market_script(lambda path: page)) as server, opened(server, tmp_path) as exchange:
        assert [fetch_page(exchange) for _ in range(3)] == [b"[]"] * 3


# -- how long to wait ------------------------------------------------------------------------------------------------

MINUTE_END = (NOW // MINUTE + 1) * MINUTE


@pytest.mark.parametrize("value", ["0", *ODD_NUMBERS])
def test_a_429_without_a_usable_retry_after_lasts_until_the_minute_ends(value: str) -> None:
    assert NOW + blocked_for(RateLimited("x", headers={"Retry-After": value}), NOW) == MINUTE_END
    assert blocked_for(RateLimited("x", headers={"Retry-After": value}), MINUTE_END - 1) == SECOND
    assert NOW + blocked_for(Banned("x", headers={"Retry-After": value}), NOW) == NOW + 2 * MINUTE


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": formatdate(NOW / 1_000 + 17, usegmt=True)}, 17),
        ({"Retry-After": "Wed, 15 Nov 2023 10:00:30 GMT", "Date": "Wed, 15 Nov 2023 10:00:00 GMT"}, 30),
        ({"Retry-After": "Wed, 15 Nov 2023 10:00:30 GMT", "Date": "²"}, (1_700_042_430_000 - NOW) // 1_000),
        ({"retry-after": "1"}, 1),
        ({"Retry-After": "99999999"}, 3 * 24 * 3_600),
    ],
)
def test_retry_after_is_a_number_of_seconds_or_a_date(headers: dict[str, str], seconds: int) -> None:
    assert NOW + blocked_for(RateLimited("x", headers=headers), NOW) == NOW + seconds * SECOND


@given(
    st.sampled_from([RateLimited, Banned]),
    st.text(max_size=30) | st.integers().map(str) | st.datetimes().map(str),
    st.text(max_size=30) | st.integers().map(lambda number: f"banned until {number}"),
    st.integers(1, 100),
)
def test_a_block_is_never_shorter_than_its_floor_and_never_longer_than_three_days(
    kind: type[RateLimited | Banned], retry_after: str, message: str, number: int
) -> None:
    error = kind("x", message=message, headers={"Retry-After": retry_after, "Date": retry_after})
    lasts = blocked_for(error, NOW, number)
    floor = 2 * MINUTE if kind is Banned else SECOND
    assert min(floor * 2 ** (number - 1), 3 * DAY) <= lasts <= 3 * DAY


def test_blocks_in_a_row_double_until_the_patience_ends() -> None:
    for error, most in ((RateLimited("x", headers={"Retry-After": "0"}), 15), (Banned("x"), 5)):
        now, requests, last = NOW, 0, (0, 0)
        while True:
            requests += 1
            last = (number_in_a_row(last[0], last[1], now), now + blocked_for(error, now, last[0] + 1))
            if (last[1] - now) / SECOND > longest_wait(isinstance(error, Banned), 900):
                break
            now = last[1]
        assert requests <= most
        assert now - NOW < HOUR


def test_a_block_that_has_not_ended_is_the_same_one_and_after_an_hour_it_is_the_first_again() -> None:
    assert number_in_a_row(0, 0, NOW) == 1
    assert number_in_a_row(3, NOW + 1, NOW) == 3
    assert number_in_a_row(3, NOW, NOW) == 4
    assert number_in_a_row(3, NOW - HOUR, NOW) == 4
    assert number_in_a_row(3, NOW - HOUR - 1, NOW) == 1
    assert number_in_a_row(0, NOW, NOW) == 1


def test_all_processes_share_the_number_of_blocks_in_a_row_until_a_request_succeeds(
    tmp_path: Path, suspend: Callable[[float], None]
) -> None:
    clock = ServerClock()
    clock.sync(NOW, time.monotonic(), time.monotonic())
    first, second = (Budget(Ledger(tmp_path / "l.sqlite"), GROUP, clock, 6_000, 1.0, 900, 30) for _ in range(2))
    ledger, short = Ledger(tmp_path / "l.sqlite"), RateLimited("x", headers={"Retry-After": "60"})

    def number() -> int:
        with ledger.transaction(GROUP) as transaction:
            block = transaction.block()
        return block.number if block else 0

    first.block(short)
    second.block(short)  # while the first lasts: a request that was in flight
    assert number() == 1
    for budget, expected in ((second, 2), (first, 3)):
        suspend(61)
        budget.wait_for_block(NEVER_STOPPED)
        budget.block(short)
        assert number() == expected
    suspend(61)
    second.wait_for_block(NEVER_STOPPED)
    second.succeed(sent=time.monotonic() - 60)  # it was sent before the block
    assert number() == 3
    second.succeed(sent=time.monotonic())
    assert number() == 0
    first.block(short)
    assert number() == 1


def test_a_success_says_nothing_of_a_newer_block_that_another_process_has_stored(tmp_path: Path) -> None:
    clock = ServerClock()
    clock.sync(NOW, time.monotonic(), time.monotonic())
    first, second = (Budget(Ledger(tmp_path / "l.sqlite"), GROUP, clock, 6_000, 1.0, 900, 30) for _ in range(2))
    short = RateLimited("x", headers={"Retry-After": "1"})
    first.block(short)
    first.wait_for_block(NEVER_STOPPED)
    sent = time.monotonic()
    second.block(short)  # after the first block, and after the request of the other process was sent
    first.succeed(sent)
    with Ledger(tmp_path / "l.sqlite").transaction(GROUP) as transaction:
        block = transaction.block()
    assert block is not None
    assert block.number == 2


def test_after_a_block_one_request_alone_asks_whether_it_is_over(tmp_path: Path) -> None:
    clock = ServerClock()
    clock.sync(NOW, time.monotonic(), time.monotonic())
    budget = Budget(Ledger(tmp_path / "l.sqlite"), GROUP, clock, 6_000, 1.0, 900, 30)
    budget.block(RateLimited("x", headers={"Retry-After": "1"}))
    budget.acquire(2, NEVER_STOPPED)
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(Cancelled):
        budget.acquire(2, stop)
    budget.succeed(sent=time.monotonic())
    budget.acquire(2, NEVER_STOPPED)


def test_a_server_that_says_retry_after_0_again_and_again_gets_a_handful_of_requests(tmp_path: Path) -> None:
    refusal = answer(b"{}", "Retry-After: 0", status="429 Too Many")
    # Each minute of this server has just begun, so that the first block lasts for the whole minute.
    script = market_script(lambda path: refusal, time_ms=lambda: NOW // MINUTE * MINUTE + SECOND)
    with hostile_server(script) as server, opened(server, tmp_path) as exchange:
        pages = plan_pages(SPOT, SERIES.interval, [(CANDLE_TIMES[0], CANDLE_TIMES[0] + 900 * DAY)])

        def stream() -> None:
            with suppress(Cancelled):
                list(exchange.stream(SERIES, pages, lambda _, body: body))

        thread = threading.Thread(target=stream)
        thread.start()
        until(120, lambda: server.counts("/klines"))
        thread.join(2)
        assert thread.is_alive()
        exchange.close()
        thread.join(60)
        assert len(server.paths) <= 6


@pytest.mark.parametrize(
    ("status", "kind", "begins"),
    [("429 X", RateLimitedForLong, "no requests until 20"), ("418 X", BannedForLong, "banned until 20")],
)
@pytest.mark.parametrize("value", ["99999999", "9" * 11, "3600"])
def test_a_block_longer_than_the_patience_ends_the_run_and_names_setting_and_end(
    tmp_path: Path, status: str, kind: type[ExchangeError], begins: str, value: str
) -> None:
    def page(path: str) -> Pieces:
        return answer(b"{}", f"Retry-After: {value}", status=status)

    with hostile_server(market_script(page)) as server, opened(server, tmp_path) as exchange:
        with pytest.raises(kind, match=r"BINANCE_ASSETS_BAN_PATIENCE \(900 s\)") as caught:
            fetch_page(exchange)
        assert str(caught.value).startswith(begins)
        assert caught.value.policy.ends_run
        assert server.counts("/klines") == 1


def test_the_rest_of_a_minute_is_waited_for_without_patience_too() -> None:
    assert longest_wait(is_ban=False, patience=0) == 60
    assert longest_wait(is_ban=False, patience=900) == 900
    assert longest_wait(is_ban=True, patience=0) == 0
