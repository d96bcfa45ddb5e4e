"""Each fault in a quarter of all responses: the engine returns the exact rows, or a refused partition with a reason."""

from __future__ import annotations

import datetime as dt
import time

import pytest

from binance_assets.exchange.session import Exchange
from binance_assets.ingest.download import download
from binance_assets.model.partitions import partitions_between
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import parse_series
from binance_assets.model.timestamps import MINUTE, to_ms
from binance_assets.sandbox import Fault, Sandbox, SandboxOptions, running_sandbox
from binance_assets.settings import Settings
from binance_assets_tests.support.exchange import expected_candles, pointed_to, quick_retrier, with_short_timeouts

ROWS = ("missing_row", "empty", "doubled_row", "contradicting_row", "unordered", "off_grid", "microseconds",
        "stray_bracket", "outside", "bad_prices", "negative_volume")  # fmt: skip
BODIES = ("broken_json", "truncated_json", "json_object", "nested", "fields_11", "fields_13", "nan", "empty_strings",
          "null", "numbers_as_strings", "strings_as_numbers")  # fmt: skip
CONNECTIONS = ("reset", "reset_amid_body", "truncated_body", "hang")
STATUSES = (408, 500, 502, 503, "503-no-code", 403, 429)

# After each of these the client waits for seconds, so their tests use a coarser interval, which has fewer pages.
SLOW_FAULTS = ("hang", 403, 429)


def fetch_week(settings: Settings, name: str) -> list[PartitionResult]:
    series = parse_series(name)
    exchange = Exchange(series.market, with_short_timeouts(settings, seconds=1), retrier=quick_retrier())
    try:
        days = partitions_between(dt.date(2024, 1, 1), dt.date(2024, 1, 8), series.interval)
        return list(download(exchange, series, days))
    finally:
        exchange.close()


def assert_exact_or_refused(sandbox: Sandbox, name: str, results: list[PartitionResult]) -> None:
    assert len(results) == 7
    for result in results:
        if result.is_accepted:
            expected = expected_candles(sandbox, name, result.partition.start, result.partition.end)
            assert result.candles.equals(expected), result.partition
        else:
            assert result.verdict in {"lost", "invalid", "unreachable"}
            assert result.reason
            assert "\n" not in result.reason


def interval_for(fault: int | str) -> str:
    return "3m" if fault in SLOW_FAULTS else "1m"


@pytest.mark.parametrize("kind", [*ROWS, *BODIES, *CONNECTIONS])
def test_each_fault_alone_leaves_partitions_exact_or_refused(sandbox: Sandbox, settings: Settings, kind: str) -> None:
    sandbox.faults.add(Fault(kind, share=0.25))
    name = f"coinm/BTCUSD_PERP/{interval_for(kind)}"
    assert_exact_or_refused(sandbox, name, fetch_week(settings, name))


@pytest.mark.parametrize("status", STATUSES)
def test_each_error_status_alone_leaves_partitions_exact_or_refused(
    sandbox: Sandbox, settings: Settings, status: int | str
) -> None:
    sandbox.faults.add(Fault("status", value=status, share=0.25, seconds=1))
    name = f"usdm/ETHUSDT/{interval_for(status)}"
    assert_exact_or_refused(sandbox, name, fetch_week(settings, name))


@pytest.mark.parametrize("name", ["spot/BTCUSDT/1m", "usdm/ETHUSDT/1m", "coinm/BTCUSD_PERP/1m"])
def test_all_faults_together_leave_partitions_exact_or_refused(sandbox: Sandbox, settings: Settings, name: str) -> None:
    add_all_faults(sandbox)
    assert_exact_or_refused(sandbox, name, fetch_week(settings, name))


def add_all_faults(sandbox: Sandbox) -> None:
    """Add all faults, so that together they corrupt a quarter of all responses."""
    share = 0.25 / len([*ROWS, *BODIES, *CONNECTIONS, *STATUSES])
    for kind in (*ROWS, *BODIES, *CONNECTIONS):
        sandbox.faults.add(Fault(kind, share=share))
    for status in STATUSES:
        sandbox.faults.add(Fault("status", value=status, share=share, seconds=1))


def test_a_restricted_location_among_all_faults_ends_the_run_and_keeps_exact_partitions(
    sandbox: Sandbox, settings: Settings
) -> None:
    add_all_faults(sandbox)
    sandbox.faults.add(Fault("status", value=451, start=to_ms(dt.date(2024, 1, 5)), end=to_ms(dt.date(2024, 1, 6))))
    results = fetch_week(settings, "spot/BTCUSDT/1m")
    assert_exact_or_refused(sandbox, "spot/BTCUSDT/1m", results)
    last = results[-1]
    assert (last.verdict, "data-api.binance.vision" in last.reason) == ("unreachable", True)


@pytest.mark.parametrize("path", ["time", "exchangeInfo"])
@pytest.mark.parametrize("kind", ["hang", "reset", "broken_json", "json_object", "null"])
def test_a_fault_of_time_or_exchange_info_does_not_prevent_the_download(
    sandbox: Sandbox, settings: Settings, path: str, kind: str
) -> None:
    sandbox.faults.add(Fault(kind, path=path, times=1))
    results = fetch_week(settings, "spot/BTCUSDT/1h")
    assert {result.verdict for result in results} == {"complete"}
    assert_exact_or_refused(sandbox, "spot/BTCUSDT/1h", results)


def test_after_a_429_no_request_is_sent_before_the_retry_after(settings: Settings) -> None:
    offset = 55_000 - int(time.time() * 1_000) % MINUTE  # the Retry-After is the rest of the minute
    with running_sandbox(SandboxOptions(clock_offset_ms=offset)) as sandbox:
        sandbox.faults.add(Fault("status", value=429, times=1))
        results = fetch_week(pointed_to(settings, sandbox.url), "spot/BTCUSDT/1m")
        assert_exact_or_refused(sandbox, "spot/BTCUSDT/1m", results)
        assert {result.verdict for result in results} == {"complete"}
        page_requests = [request for request in sandbox.requests if request.path.endswith("/klines")]
        position = next(position for position, request in enumerate(page_requests) if request.status == 429)
        rejected, later = page_requests[position], page_requests[position + 1 :]
        assert all(request.at_ms - rejected.at_ms >= 1_000 for request in later)


def test_a_ban_among_good_responses_ends_the_run_and_keeps_exact_partitions(
    sandbox: Sandbox, settings: Settings
) -> None:
    sandbox.faults.add(Fault("status", value=418, share=0.25, seconds=1))  # a ban of a second lasts two minutes
    short_patience = Settings.model_validate(settings.model_dump() | {"ban_patience": 5})
    results = fetch_week(short_patience, "usdm/ETHUSDT/3m")
    assert_exact_or_refused(sandbox, "usdm/ETHUSDT/3m", results)
    assert {"unreachable"} == {result.verdict for result in results if not result.is_accepted}
    assert sum(request.status == 418 for request in sandbox.requests) == 1


def test_a_ban_longer_than_the_ban_patience_ends_the_run_and_reports_its_end(
    sandbox: Sandbox, settings: Settings
) -> None:
    sandbox.faults.add(Fault("status", value=418))
    short_patience = Settings.model_validate(settings.model_dump() | {"ban_patience": 5})
    results = fetch_week(short_patience, "spot/BTCUSDT/1m")
    assert {result.verdict for result in results} == {"unreachable"}
    assert "banned until" in results[0].reason
    assert sum(request.status == 418 for request in sandbox.requests) == 1
