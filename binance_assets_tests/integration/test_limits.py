"""The weight budget over real HTTP: with other programs on the same IP, and with a share of the limit."""

from __future__ import annotations

import datetime as dt
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import requests

from binance_assets.exchange.session import Exchange
from binance_assets.ingest.download import download
from binance_assets.model.markets import SPOT
from binance_assets.model.partitions import partitions_between
from binance_assets.model.series import parse_series
from binance_assets.model.timestamps import MINUTE
from binance_assets.sandbox import Sandbox, ServedRequest
from binance_assets.settings import Settings
from binance_assets_tests.support.exchange import SMALL_LIMIT, assert_complete_and_exact, end_of_a_minute

OURS, THEIRS = "BTCUSDT", "ETHUSDT"


@contextmanager
def another_program(sandbox: Sandbox, users: int) -> Iterator[None]:
    """Run another program on the same IP, which sends requests as fast as it can and obeys Retry-After.

    It has spent 240 of the minute's weight before this yields: what is left then does not depend on the speed of the
    machine.
    """
    stop = threading.Event()
    for _ in range(3):  # the prices of all symbols cost 80
        assert requests.get(f"{sandbox.url}/api/v3/ticker/24hr", timeout=60).ok

    def send_requests() -> None:
        session = requests.Session()
        while not stop.is_set():
            window: dict[str, str | int] = {"symbol": THEIRS, "interval": "1h", "limit": 1}
            response = session.get(f"{sandbox.url}/api/v3/klines", params=window, timeout=60)
            stop.wait(float(response.headers.get("Retry-After", 0)))

    threads = [threading.Thread(target=send_requests) for _ in range(users)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def by_minute(sandbox: Sandbox) -> dict[int, list[ServedRequest]]:
    """Return our own requests by minute of the sandbox's clock."""
    minutes: dict[int, list[ServedRequest]] = {}
    for request in sandbox.requests:
        if request.params.get("symbol") != THEIRS and not request.path.endswith("/ticker/24hr"):
            minutes.setdefault(request.at_ms // MINUTE, []).append(request)
    return minutes


@pytest.mark.parametrize(
    ("rtt_ms", "end"),
    [
        # 199 pages cost 398. The first minute has 360 left at most. The other program sends about six requests per
        # round trip: two minutes have enough, and 288 pages would need a third minute.
        (60, dt.date(2024, 5, 18)),
        (200, dt.date(2024, 7, 19)),  # 288 pages cost 576
    ],
)
def test_other_programs_on_the_ip_cause_at_most_one_429_a_minute(
    settings: Settings, rtt_ms: float, end: dt.date
) -> None:
    with end_of_a_minute(settings, rtt_ms=rtt_ms) as (sandbox, sandbox_settings):
        series = parse_series(f"spot/{OURS}/1m")
        exchange = Exchange(series.market, sandbox_settings)
        days = partitions_between(dt.date(2024, 1, 1), end, series.interval)
        with another_program(sandbox, users=6):
            results = list(download(exchange, series, days))
        exchange.close()
        assert_complete_and_exact(sandbox, str(series), results)
        minutes = by_minute(sandbox)
        assert len(minutes) > 1, minutes.keys()  # one minute is not enough beside another program
        for own_requests in minutes.values():
            statuses = Counter(request.status for request in own_requests)
            assert statuses[429] <= 1
            assert set(statuses) <= {200, 429}


def test_hosts_of_one_ledger_share_a_budget_only_behind_the_same_public_ip(settings: Settings) -> None:
    day = partitions_between(dt.date(2024, 1, 1), dt.date(2024, 1, 2), parse_series(f"spot/{OURS}/1h").interval)
    for egress in ("", "203.0.113.7", "203.0.113.8", "203.0.113.7"):
        host = Settings.model_validate(settings.model_dump() | {"egress": egress})
        exchange = Exchange(SPOT, host)
        assert len(list(download(exchange, parse_series(f"spot/{OURS}/1h"), day))) == 1
        exchange.close()
    assert isinstance(settings.ledger, Path)
    with closing(sqlite3.connect(settings.ledger)) as database:
        addresses = {address for (address,) in database.execute("SELECT address FROM minute")}
    host_and_port = settings.spot_url.removeprefix("http://")
    names = {"", " from 203.0.113.7", " from 203.0.113.8"}
    assert addresses == {host_and_port + name for name in names}


def test_a_share_leaves_the_rest_of_every_minute_to_other_programs(settings: Settings) -> None:
    with end_of_a_minute(settings) as (sandbox, sandbox_settings):
        series = parse_series(f"spot/{OURS}/1m")
        exchange = Exchange(
            series.market, Settings.model_validate(sandbox_settings.model_dump() | {"weight_share": 0.2})
        )
        # 80 pages cost 160, and 23 the time, the limit, and the control totals. Few enough for a slow machine.
        days = partitions_between(dt.date(2024, 1, 1), dt.date(2024, 2, 25), series.interval)
        assert_complete_and_exact(sandbox, str(series), list(download(exchange, series, days)))
        exchange.close()
        spent = [sum(request.weight for request in own_requests) for own_requests in by_minute(sandbox).values()]
        assert 0.97 * SMALL_LIMIT / 5 <= spent[0] <= SMALL_LIMIT / 5
        assert len(spent) == 2
        assert {request.status for request in sandbox.requests} == {200}
