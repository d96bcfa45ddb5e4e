"""Every fault at a quarter of all answers: the exact right rows, or refused days that say why. Nothing else."""

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
from binance_assets_tests.support.exchange import truth

ROWS = ("missing_row", "empty", "doubled_row", "unordered", "off_grid", "outside", "bad_prices", "negative_volume")
BODIES = ("broken_json", "truncated_json", "json_object", "nested", "fields_11", "fields_13", "nan", "empty_strings",
          "null", "numbers_as_strings", "strings_as_numbers")  # fmt: skip
CONNECTIONS = ("reset", "reset_amid_body", "truncated_body", "hang")
STATUSES = (408, 500, 502, 503, "503-no-code", 403, 429, 418)


def impatient(settings: Settings) -> Settings:
    return Settings.model_validate(settings.model_dump() | {"connect_timeout": 1, "read_timeout": 1})


def fetch_week(settings: Settings, name: str) -> list[PartitionResult]:
    series = parse_series(name)
    exchange = Exchange(series.market, impatient(settings))
    try:
        days = partitions_between(dt.date(2024, 1, 1), dt.date(2024, 1, 8), series.interval)
        return list(download(exchange, series, days))
    finally:
        exchange.close()


def assert_right_or_refused(sandbox: Sandbox, name: str, days: list[PartitionResult]) -> None:
    assert len(days) == 7
    for day in days:
        if day.is_accepted:
            assert day.candles.equals(truth(sandbox, name, day.partition.start, day.partition.end)), day.partition
        else:
            assert day.verdict in {"lost", "invalid", "unreachable"}
            assert day.reason
            assert "\n" not in day.reason


@pytest.mark.parametrize("kind", [*ROWS, *BODIES, *CONNECTIONS])
def test_each_fault_alone(sandbox: Sandbox, settings: Settings, kind: str) -> None:
    sandbox.faults.add(Fault(kind, share=0.25))
    assert_right_or_refused(sandbox, "coinm/BTCUSD_PERP/1m", fetch_week(settings, "coinm/BTCUSD_PERP/1m"))


@pytest.mark.parametrize("status", STATUSES)
def test_each_status_alone(sandbox: Sandbox, settings: Settings, status: int | str) -> None:
    sandbox.faults.add(Fault("status", value=status, share=0.25, seconds=1))
    assert_right_or_refused(sandbox, "usdm/ETHUSDT/1m", fetch_week(settings, "usdm/ETHUSDT/1m"))


@pytest.mark.parametrize("name", ["spot/BTCUSDT/1m", "usdm/ETHUSDT/1m", "coinm/BTCUSD_PERP/1m"])
def test_all_of_them_mixed(sandbox: Sandbox, settings: Settings, name: str) -> None:
    mix_all(sandbox)
    assert_right_or_refused(sandbox, name, fetch_week(settings, name))


def mix_all(sandbox: Sandbox) -> None:
    """Every fault at once, so that a quarter of all answers is spoiled."""
    share = 0.25 / len([*ROWS, *BODIES, *CONNECTIONS, *STATUSES])
    for kind in (*ROWS, *BODIES, *CONNECTIONS):
        sandbox.faults.add(Fault(kind, share=share))
    for status in STATUSES:
        sandbox.faults.add(Fault("status", value=status, share=share, seconds=1))


def test_a_location_that_is_refused_amid_the_mix_ends_the_run_and_keeps_what_was_right(
    sandbox: Sandbox, settings: Settings
) -> None:
    mix_all(sandbox)
    sandbox.faults.add(Fault("status", value=451, start=to_ms(dt.date(2024, 1, 5)), end=to_ms(dt.date(2024, 1, 6))))
    days = fetch_week(settings, "spot/BTCUSDT/1m")
    assert_right_or_refused(sandbox, "spot/BTCUSDT/1m", days)
    last = days[-1]
    assert (last.verdict, "data-api.binance.vision" in last.reason) == ("unreachable", True)


@pytest.mark.parametrize("path", ["time", "exchangeInfo"])
@pytest.mark.parametrize("kind", ["hang", "reset", "broken_json", "json_object", "null"])
def test_what_the_exchange_says_of_itself_may_fail_too(
    sandbox: Sandbox, settings: Settings, path: str, kind: str
) -> None:
    sandbox.faults.add(Fault(kind, path=path, times=1))
    days = fetch_week(settings, "spot/BTCUSDT/1h")
    assert {day.verdict for day in days} == {"complete"}
    assert_right_or_refused(sandbox, "spot/BTCUSDT/1h", days)


def test_after_a_429_nothing_is_asked_before_its_time(settings: Settings) -> None:
    offset = 52_000 - int(time.time() * 1_000) % MINUTE
    with running_sandbox(SandboxOptions(clock_offset_ms=offset)) as served:
        served.faults.add(Fault("status", value=429, times=1))
        urls = dict.fromkeys(("spot_url", "usdm_url", "coinm_url", "archive_url"), served.url)
        elsewhere = Settings.model_validate(settings.model_dump() | urls)
        days = fetch_week(elsewhere, "spot/BTCUSDT/1m")
        assert_right_or_refused(served, "spot/BTCUSDT/1m", days)
        assert {day.verdict for day in days} == {"complete"}
        klines = [request for request in served.requests if request.path.endswith("/klines")]
        refused = next(position for position, request in enumerate(klines) if request.status == 429)
        begun = [request.at_ms for request in klines[refused + 1 :]]
        assert all(at - klines[refused].at_ms >= 1_000 for at in begun)


def test_a_ban_longer_than_the_patience_ends_the_run_and_says_until_when(sandbox: Sandbox, settings: Settings) -> None:
    sandbox.faults.add(Fault("status", value=418))
    hasty = Settings.model_validate(settings.model_dump() | {"ban_patience": 5})
    days = fetch_week(hasty, "spot/BTCUSDT/1m")
    assert {day.verdict for day in days} == {"unreachable"}
    assert "banned until" in days[0].reason
    assert sum(request.status == 418 for request in sandbox.requests) == 1
