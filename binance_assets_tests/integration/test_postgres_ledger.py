"""The ledger on a Postgres server: several hosts with one budget, a server that goes away, and errors in one line."""

from __future__ import annotations

import datetime as dt
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from pydantic import SecretStr

from binance_assets.exchange.clock import ServerClock
from binance_assets.exchange.errors import BannedForLong, Cancelled
from binance_assets.exchange.rate_limit import engines
from binance_assets.exchange.rate_limit.budget import Budget
from binance_assets.exchange.rate_limit.ledger import (
    Ledger,
    LedgerConnectionLost,
    LedgerError,
    RateLimitGroup,
)
from binance_assets.exchange.session import Exchange
from binance_assets.ingest.download import download
from binance_assets.model.markets import SPOT
from binance_assets.model.partitions import partitions_between
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import parse_series
from binance_assets.model.timestamps import MINUTE
from binance_assets.sandbox import SandboxOptions, running_sandbox
from binance_assets.settings import Settings
from binance_assets.waiting import activity
from binance_assets_tests.support.environment import CHECKOUT, cli_environment
from binance_assets_tests.support.exchange import SMALL_LIMIT, assert_complete_and_exact, end_of_a_minute, pointed_to
from binance_assets_tests.support.other_worlds import in_container
from binance_assets_tests.support.polling import until
from binance_assets_tests.support.postgres_server import PostgresServer

pytestmark = pytest.mark.services

GROUP = RateLimitGroup("here", "spot")

DOWNLOAD = """
import datetime as dt, json, os, sys
from binance_assets.exchange.session import Exchange
from binance_assets.ingest.download import download
from binance_assets.model.partitions import partitions_between
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import parse_series
from binance_assets.settings import read_settings

series = parse_series(sys.argv[1])
exchange = Exchange(series.market, read_settings(os.environ))
days = partitions_between(dt.date(2024, 1, 1), dt.date(2024, 5, 18), series.interval)
results = list(download(exchange, series, days))
exchange.close()
print(json.dumps([os.uname().nodename, len([result for result in results if result.verdict == "complete"])]))
"""

BAN = """
import sys, threading
from pydantic import SecretStr
from binance_assets.boot import boot_clock
from binance_assets.exchange.clock import ServerClock
from binance_assets.exchange.errors import Banned
from binance_assets.exchange.rate_limit import engines
from binance_assets.exchange.rate_limit.budget import Budget
from binance_assets.exchange.rate_limit.ledger import Ledger, RateLimitGroup

budget = Budget(Ledger(SecretStr(sys.argv[1])), RateLimitGroup("here", "spot"), ServerClock(), 100, 1.0, 900, 30)
budget.block(Banned("too much", headers={"Retry-After": "300"}))
"""


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.new_database()


def with_ledger(settings: Settings, url: str) -> Settings:
    return Settings.model_validate(settings.model_dump() | {"ledger": url})


@contextmanager
def host(name: str, series: str, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Start the download of a series on a host of its own, and kill it if it still runs at the end."""
    words = [*in_container(name), sys.executable, "-c", DOWNLOAD, series]
    with subprocess.Popen(words, cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.timeout(600)
def test_two_hosts_with_more_weight_than_a_minute_share_it_without_a_429(
    settings: Settings, tmp_path: Path, url: str
) -> None:
    with end_of_a_minute(settings) as (sandbox, _):  # 199 pages of each host cost 398 of the 600
        environment = cli_environment(sandbox, tmp_path) | {"BINANCE_ASSETS_LEDGER": url}
        with (
            host("north", "spot/BTCUSDT/1m", environment) as north,
            host("south", "spot/ETHUSDT/1m", environment) as south,
        ):
            printed = [json.loads(started.communicate(timeout=150)[0]) for started in (north, south)]
        assert printed == [["north", 138], ["south", 138]]
        assert {request.status for request in sandbox.requests} == {200}
        spent: dict[int, int] = {}
        for request in sandbox.requests:
            spent[request.at_ms // MINUTE] = spent.get(request.at_ms // MINUTE, 0) + request.weight
        assert max(spent.values()) <= SMALL_LIMIT
        assert len(spent) > 1


def test_a_ban_stops_a_host_whose_boot_clock_shows_another_time(url: str) -> None:
    other_world = [*in_container("south"), "unshare", "--time", "--boottime", "1000000", "--fork"]
    result = subprocess.run(
        [*other_world, sys.executable, "-c", BAN, url], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    if "unshare" in result.stderr:
        pytest.skip("this kernel has no time namespaces")
    assert result.returncode == 0, result.stderr
    with closing(Ledger(SecretStr(url))) as ledger:
        budget = Budget(ledger, GROUP, ServerClock(), 100, 1.0, 60, 30)
        with pytest.raises(BannedForLong, match="banned for 300 s: too much"):
            budget.wait_for_block(threading.Event())


def test_a_download_waits_for_a_server_that_is_restarted_and_goes_on(
    postgres: PostgresServer, settings: Settings, url: str
) -> None:
    with running_sandbox(SandboxOptions(rtt_ms=50)) as sandbox:
        series = parse_series("spot/BTCUSDT/1m")
        exchange = Exchange(SPOT, with_ledger(pointed_to(settings, sandbox.url), url))
        days = partitions_between(dt.date(2024, 1, 1), dt.date(2024, 3, 1), series.interval)
        results: list[PartitionResult] = []
        exchange.now()
        postgres.stop()  # its connection is idle: the next transaction finds out
        thread = threading.Thread(target=lambda: results.extend(download(exchange, series, days)))
        thread.start()
        try:
            until(120, lambda: "does not respond; waiting" in str(activity().wait))
        finally:
            postgres.start()
        thread.join(60)
        exchange.close()
        assert_complete_and_exact(sandbox, str(series), results)


def test_a_server_that_stays_away_ends_the_run_with_one_line(postgres: PostgresServer, url: str) -> None:
    with closing(Ledger(SecretStr(url), away_seconds=0.1)) as ledger:
        postgres.stop()
        try:
            with pytest.raises(LedgerError) as caught, ledger.transaction(GROUP):
                pass
        finally:
            postgres.start()
        message = str(caught.value)
        assert message.startswith("the ledger on Postgres at 127.0.0.1:")
        assert message.endswith("check the server and BINANCE_ASSETS_LEDGER")
        assert "\n" not in message
        assert "secret-word" not in message
        with ledger.transaction(GROUP) as transaction:  # it is there again, and so is the ledger
            transaction.add_ours(7, 1)


def test_closing_ends_the_wait_for_a_server_that_is_away(postgres: PostgresServer, url: str) -> None:
    ledger, ended = Ledger(SecretStr(url)), []

    def use() -> None:
        with pytest.raises(Cancelled), ledger.transaction(GROUP):
            pass
        ended.append(True)

    postgres.stop()
    try:
        thread = threading.Thread(target=use)
        thread.start()
        until(120, lambda: "does not respond" in str(activity().wait))
        ledger.close()
        thread.join(30)
    finally:
        postgres.start()
    assert ended


def test_closing_ends_the_wait_for_a_lock_that_another_host_holds(
    postgres: PostgresServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_LOCK_SECONDS", 600)  # otherwise the server ends the wait after ten seconds
    ledger, other = Ledger(SecretStr(url)), Ledger(SecretStr(url))
    ended = threading.Event()

    def use() -> None:
        with pytest.raises(Cancelled), ledger.transaction(GROUP):
            pass
        ended.set()

    with closing(other), other.transaction(GROUP):
        threading.Thread(target=use, daemon=True).start()
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'"
        until(120, lambda: postgres.execute(waiting) == [(1,)])
        ledger.close()
        assert ended.wait(60)


def test_closing_an_exchange_waits_for_no_server_that_is_away(
    postgres: PostgresServer, settings: Settings, url: str
) -> None:
    exchange = Exchange(SPOT, with_ledger(settings, url))
    exchange.now()
    series = parse_series("spot/BTCUSDT/1h")
    days = partitions_between(dt.date(2024, 1, 1), dt.date(2024, 2, 1), series.interval)

    def use() -> None:
        with suppress(Cancelled):
            list(download(exchange, series, days))

    threads = [threading.Thread(target=function, daemon=True) for function in (use, exchange.close)]
    postgres.stop()
    try:
        threads[0].start()
        until(120, lambda: "does not respond" in str(activity().wait))
        threads[1].start()
        for thread in threads:
            thread.join(30)  # half of the time for which it would wait for the server
    finally:
        postgres.start()
    assert not any(thread.is_alive() for thread in threads)


def test_a_connection_that_is_lost_in_a_transaction_ends_it_and_the_next_one_works(
    postgres: PostgresServer, url: str
) -> None:
    def lose_the_connection() -> None:
        with ledger.transaction(GROUP) as transaction:
            transaction.add_ours(7, 30)
            postgres.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'binance-assets'"
            )

    with closing(Ledger(SecretStr(url))) as ledger:
        with pytest.raises(LedgerConnectionLost, match="on Postgres"):
            lose_the_connection()
        with ledger.transaction(GROUP) as transaction:
            assert transaction.minute(7, 100).ours == 0


def test_a_server_that_accepts_and_stays_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_CONNECT_SECONDS", 2)  # the least that libpq takes
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql+psycopg2://ada:secret-word@127.0.0.1:{silent.getsockname()[1]}/candles"
        with pytest.raises(LedgerError, match="timeout expired"):
            Ledger(SecretStr(url))


def test_a_connection_has_bounds_for_a_host_that_answers_no_more(url: str) -> None:
    with closing(Ledger(SecretStr(url))) as ledger:
        assert_bounded(ledger._engine._connection.fileno())  # type: ignore[attr-defined]


def assert_bounded(descriptor: int) -> None:
    """Assert that the kernel ends a connection to a silent host after some seconds, also one that is idle."""
    with socket.socket(fileno=os.dup(descriptor)) as shared:
        found = [
            shared.getsockopt(socket.IPPROTO_TCP, option)
            for option in (
                socket.TCP_USER_TIMEOUT,
                socket.TCP_KEEPIDLE,
                socket.TCP_KEEPINTVL,
                socket.TCP_KEEPCNT,
            )
        ]
    assert found == [10_000, 5, 2, 3]


def test_a_host_that_dies_in_a_transaction_does_not_stop_the_others_for_long(
    postgres: PostgresServer, url: str
) -> None:
    with closing(Ledger(SecretStr(url))), closing(Ledger(SecretStr(url))) as other:
        rows = postgres.execute("SHOW idle_in_transaction_session_timeout", url)
        assert rows == [("0",)]  # the default of the server: never
        with other.transaction(GROUP) as transaction:
            engine = transaction._database
            assert engine.execute("SHOW idle_in_transaction_session_timeout").fetchone() == ("10s",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("/test_", "/absent_"), "does not exist"),
        (("127.0.0.1:", "127.0.0.1:1"), "ledger on Postgres cannot be used"),
        (("secret-word", "secret-word%zz"), "libpq cannot read the URL"),
        (("127.0.0.1:", "[::1:"), "libpq cannot read the URL"),
    ],
)
def test_a_server_that_cannot_be_used_at_the_start_is_named_at_once_without_its_password(
    url: str, change: tuple[str, str], words: str
) -> None:
    with pytest.raises(LedgerError, match=words) as caught:
        Ledger(SecretStr(url.replace(*change)))
    assert "secret-word" not in str(caught.value)
    assert "\n" not in str(caught.value)
