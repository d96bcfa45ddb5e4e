"""Clocks that are wrong, that are set, or that stand still: none of them decides when a request is sent."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import binance_assets
from binance_assets.boot import boot_clock, seconds_since_boot
from binance_assets.exchange.clock import ServerClock
from binance_assets.exchange.errors import Banned, BannedForLong, Cancelled, RateLimited
from binance_assets.exchange.rate_limit.budget import Budget
from binance_assets.exchange.rate_limit.ledger import Block, Ledger, RateLimitGroup, StoredClock, Transaction
from binance_assets.exchange.session import Exchange
from binance_assets.model.markets import SPOT, limits_address
from binance_assets.model.series import parse_series
from binance_assets.model.timestamps import HOUR, MINUTE
from binance_assets.sandbox import Fault, Sandbox
from binance_assets.settings import Settings
from binance_assets_tests.support.environment import CHECKOUT, environment_of
from binance_assets_tests.support.other_worlds import FAKE_CLOCK_ENVIRONMENT, in_container, with_wall_clock
from binance_assets_tests.support.polling import until

# Asks the exchange for its time, once, as every download does first.
ASK = """
import os
from binance_assets.exchange.errors import ExchangeError
from binance_assets.exchange.session import Exchange
from binance_assets.model.markets import SPOT
from binance_assets.settings import read_settings
exchange = Exchange(SPOT, read_settings({name: value for name, value in os.environ.items() if "BINANCE" in name}))
try:
    exchange.now()
    print("answered")
except ExchangeError as error:
    print(type(error).__name__, error)
exchange.close()
"""
HOUR_OFF = ["+1h", "-1h"]


@contextmanager
def asking(sandbox: Sandbox, folder: Path, *before: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process that asks for the time, with the words ``before`` in front of its command."""
    inherited = {name: value for name, value in os.environ.items() if "BINANCE" not in name}
    with subprocess.Popen(
        [*before, sys.executable, "-c", ASK],
        cwd=CHECKOUT,
        env=inherited | environment_of(sandbox, folder) | FAKE_CLOCK_ENVIRONMENT | environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def answer(process: subprocess.Popen[str]) -> str:
    return process.communicate(timeout=60)[0].strip()


# -- wall clocks that are wrong -------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", HOUR_OFF)
def test_a_process_whose_wall_clock_is_an_hour_off_sends_nothing_during_a_ban(
    sandbox: Sandbox, tmp_path: Path, offset: str
) -> None:
    sandbox.faults.add(Fault("status", path="time", value=418, seconds=1_800))
    impatient = {"BINANCE_ASSETS_BAN_PATIENCE": "5"}
    with asking(sandbox, tmp_path, **impatient) as first:
        assert answer(first).startswith("BannedForLong")
    assert [request.status for request in sandbox.requests] == [418]
    with asking(sandbox, tmp_path, *with_wall_clock(offset), **impatient) as other:
        assert answer(other).startswith("BannedForLong")
    assert len(sandbox.requests) == 1


def test_processes_whose_wall_clocks_differ_and_change_send_soon_after_the_end_of_a_block_and_not_before(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    seconds = 4
    sandbox.faults.add(Fault("status", path="time", value=429, seconds=seconds, times=1))
    clock = tmp_path / "clock"
    clock.write_text("+0")
    # The wrapper sets the variable FAKETIME, which would take precedence over the file.
    changing = [*with_wall_clock("+0"), "env", "-u", "FAKETIME"]
    with asking(sandbox, tmp_path, *changing, FAKETIME_TIMESTAMP_FILE=str(clock)) as first:
        until(120, lambda: sandbox.requests)
        with (
            asking(sandbox, tmp_path, *with_wall_clock("+1h")) as ahead,
            asking(sandbox, tmp_path, *with_wall_clock("-1h")) as behind,
        ):
            clock.write_text("-1h")
            assert [answer(process) for process in (first, ahead, behind)] == ["answered"] * 3  # within a minute each
    refused, *answered = sandbox.requests
    assert (refused.status, {request.status for request in answered}) == (429, {200})
    assert len(answered) == 3
    assert min(request.at_ms for request in answered) >= refused.at_ms + seconds * 1_000


# -- records of another boot ----------------------------------------------------------------------------------------


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    with closing(Ledger(settings.ledger)) as opened:
        yield opened


def stored(ledger: Ledger, settings: Settings, write: Callable[[Transaction], None]) -> None:
    with ledger.transaction(RateLimitGroup(limits_address(settings.url(SPOT)), SPOT.rate_limit_group)) as transaction:
        write(transaction)


@pytest.mark.parametrize(("left_ms", "banned"), [(10 * MINUTE, True), (-1, False)])
def test_after_a_reboot_one_request_asks_for_the_time_and_the_servers_clock_shows_whether_a_ban_is_over(
    sandbox: Sandbox, settings: Settings, ledger: Ledger, left_ms: int, banned: bool
) -> None:
    ends = sandbox.now_ms() + left_ms
    before = Block(ends=2**50, banned=True, reason="banned before", until=ends, clock="another boot")
    stored(ledger, settings, lambda transaction: transaction.store_block(before))
    exchange = Exchange(SPOT, Settings.model_validate(settings.model_dump() | {"ban_patience": 0}))
    exchange.now()
    assert [request.path.rpartition("/")[2] for request in sandbox.requests] == ["time"]
    if banned:
        with pytest.raises(BannedForLong, match="banned before"):
            exchange.symbols.first_open_time(parse_series("spot/BTCUSDT/1m"))
        assert len(sandbox.requests) == 1
    else:
        exchange.symbols.first_open_time(parse_series("spot/BTCUSDT/1m"))
        assert {request.status for request in sandbox.requests} == {200}
    exchange.close()


@pytest.mark.parametrize(
    ("clock", "age_ms", "used"),
    [(None, 5 * MINUTE, True), (None, HOUR, False), (None, -5 * MINUTE, False), ("another boot", 5 * MINUTE, False)],
)
def test_the_servers_clock_of_another_process_is_used_only_if_it_was_read_lately_and_in_this_boot(
    tmp_path: Path, clock: str | None, age_ms: int, used: bool
) -> None:
    group, server = RateLimitGroup("here", "spot"), ServerClock()
    with closing(Ledger(tmp_path / "ledger.sqlite")) as ledger:
        read_at = int(seconds_since_boot() * 1_000) - age_ms
        with ledger.transaction(group) as transaction:
            transaction.store_clock(StoredClock(7e12, read_at, clock or boot_clock()))
        Budget(ledger, group, server, 100, 1.0, 900, 30).recall_clock()
    assert server.known is used
    assert not used or server.now() == pytest.approx(7e12 + seconds_since_boot() * 1_000, abs=100)


def test_a_block_is_noted_without_the_servers_clock_by_the_length_that_the_response_names(tmp_path: Path) -> None:
    group = RateLimitGroup("here", "spot")
    with closing(Ledger(tmp_path / "ledger.sqlite")) as ledger:
        budget = Budget(ledger, group, ServerClock(), 100, 1.0, 5, 30)
        budget.block(Banned("too much", message="IP banned until 9999999999999.", headers={"Retry-After": "300"}))
        with ledger.transaction(group) as transaction:
            block = transaction.block()
        assert block is not None
        assert block.until is None
        assert block.ends / 1_000 - seconds_since_boot() == pytest.approx(300, abs=10)
        with pytest.raises(BannedForLong, match="banned for 300 s: too much"):
            budget.wait_for_block(threading.Event())


DATE = "Wed, 15 Nov 2023 10:00:00 GMT"
DATE_MS = 1_700_042_400_000
LATER = "Wed, 15 Nov 2023 10:05:00 GMT"


@pytest.mark.parametrize(
    ("headers", "message", "seconds"),
    [
        ({"Retry-After": LATER}, "", 120),
        ({"Retry-After": LATER, "Date": "yesterday"}, "", 120),
        ({}, f"IP banned until {DATE_MS + 300_000}.", 120),
        ({"Retry-After": "300", "Date": "yesterday"}, f"IP banned until {DATE_MS}.", 300),
        ({"Retry-After": LATER, "Date": DATE}, "", 300),
        ({"date": DATE}, f"IP banned until {DATE_MS + 300_000}.", 300),
        ({"Retry-After": "600", "date": DATE}, f"IP banned until {DATE_MS + 300_000}.", 600),
    ],
)
def test_without_the_servers_clock_the_date_of_the_response_shows_how_long_a_ban_lasts(
    tmp_path: Path, headers: dict[str, str], message: str, seconds: int
) -> None:
    group, has_date = RateLimitGroup("here", "spot"), DATE in {headers.get("Date"), headers.get("date")}
    with closing(Ledger(tmp_path / "ledger.sqlite")) as ledger:
        budget = Budget(ledger, group, ServerClock(), 100, 1.0, 5, 30)
        budget.block(Banned("too much", message=message, headers=headers))
        with ledger.transaction(group) as transaction:
            block = transaction.block()
    assert block is not None
    assert block.ends / 1_000 - seconds_since_boot() == pytest.approx(seconds, abs=10)
    assert block.until == (DATE_MS + seconds * 1_000 if has_date else None)


def test_without_any_clock_a_429_lasts_a_whole_minute(tmp_path: Path) -> None:
    group = RateLimitGroup("here", "spot")
    with closing(Ledger(tmp_path / "ledger.sqlite")) as ledger:
        budget = Budget(ledger, group, ServerClock(), 100, 1.0, 5, 30)
        budget.block(RateLimited("too much", headers={"Retry-After": LATER}))
        with ledger.transaction(group) as transaction:
            block = transaction.block()
    assert block is not None
    assert block.ends / 1_000 - seconds_since_boot() == pytest.approx(60, abs=10)


# -- machines that are suspended, and containers with a time of their own -------------------------------------------


def test_the_servers_clock_goes_on_while_the_machine_is_suspended(suspend: Callable[[float], None]) -> None:
    clock, now = ServerClock(), time.monotonic()
    clock.sync(5_000_000, now, now)
    suspend(3_600)
    assert clock.now() == pytest.approx(5_000_000 + HOUR, abs=10_000)
    assert 3_600 <= clock.age < 3_700  # old enough that the next request asks for the time again


def test_a_block_ends_and_a_lease_expires_while_the_machine_is_suspended(
    tmp_path: Path, suspend: Callable[[float], None]
) -> None:
    group, clock, now = RateLimitGroup("here", "spot"), ServerClock(), time.monotonic()
    clock.sync(1_000 * MINUTE, now, now)
    with closing(Ledger(tmp_path / "ledger.sqlite")) as ledger, closing(Ledger(tmp_path / "ledger.sqlite")) as shared:
        crashed, budget = (Budget(file, group, clock, 100, 1.0, 900, 30) for file in (ledger, shared))
        crashed.acquire(60, threading.Event())
        budget.block(RateLimited("too much", headers={"Retry-After": "600"}))
        stop = threading.Event()
        threading.Timer(0.2, stop.set).start()
        with pytest.raises(Cancelled):
            budget.acquire(100, stop)
        suspend(3_600)
        assert budget.spendable_now() == 40  # the lease is dropped with the next claim
        suspend(3_600)
        budget.acquire(40, threading.Event())


def test_a_container_with_a_time_namespace_has_another_clock() -> None:
    program = "from binance_assets.boot import boot_clock, seconds_since_boot as s; print(boot_clock(), s(), sep=';')"
    words = [*in_container(), "unshare", "--time", "--boottime", "1000000", "--fork"]
    result = subprocess.run(
        [*words, sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    if result.returncode:
        pytest.skip("this kernel has no time namespaces")
    clock, seconds = result.stdout.split(";")
    assert clock != boot_clock()
    assert float(seconds) > seconds_since_boot() + 900_000


# -- what may read the wall clock -----------------------------------------------------------------------------------

# These tell a person a time or a day, or plan what the exchange's clock decides in the end. None decides how long to
# wait, what is stale, or who owns something; the sensor waits for a few seconds more or less. The exception is
# `dagster_internals`: Dagster writes the heartbeats of its daemon by the wall clock.
READERS_OF_THE_WALL_CLOCK = {
    "api/arguments.py": 1,
    "api/catalog.py": 1,
    "api/reading.py": 1,
    "cli/options.py": 1,
    "cli/progress.py": 1,
    "cli/status.py": 2,
    "ingest/request.py": 2,
    "orchestration/coverage.py": 1,
    "orchestration/dagster_internals/instance.py": 1,
    "orchestration/lake_state.py": 1,
    "orchestration/scrape.py": 2,
    "orchestration/sensors.py": 1,
    "sandbox/sandbox_exchange.py": 1,
    "storage/lake.py": 1,
    "storage/locks.py": 1,
    "storage/span_folder.py": 1,
    "waiting.py": 1,
}


def test_the_wall_clock_is_read_only_where_nothing_depends_on_it() -> None:
    package, reads = (
        Path(binance_assets.__file__).parent,
        re.compile(r"time\.time(_ns)?\(\)|\.now\(dt\.UTC\)|gmtime\(\)"),
    )
    counts = {str(path.relative_to(package)): len(reads.findall(path.read_text())) for path in package.rglob("*.py")}
    expected = {name: count for name, count in READERS_OF_THE_WALL_CLOCK.items() if count}
    assert {name: count for name, count in counts.items() if count} == expected
