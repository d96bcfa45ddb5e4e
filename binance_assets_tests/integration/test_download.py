"""Downloads from the sandbox exchange, over real HTTP: exactly the right rows, or refused partitions with a reason."""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
import threading
from collections import Counter
from collections.abc import Iterator

import hypothesis
import pytest
import requests
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from binance_assets.exchange.errors import Cancelled
from binance_assets.exchange.session import Exchange
from binance_assets.ingest.blocks import plan_rest_pages
from binance_assets.ingest.download import download
from binance_assets.ingest.options import DownloadOptions
from binance_assets.model.markets import COINM, MARKETS
from binance_assets.model.partitions import Partition, next_partition_first_day, partition_for_key, partitions_between
from binance_assets.model.series import Series, parse_series
from binance_assets.model.timestamps import DAY, HOUR, MINUTE, to_ms
from binance_assets.sandbox import Fault, Sandbox, SandboxOptions, ServedRequest, running_sandbox
from binance_assets.settings import Settings, Source
from binance_assets_tests.support.environment import Fetch, Open
from binance_assets_tests.support.exchange import (
    ALL_SOURCES,
    assert_complete_and_exact,
    end_of_a_minute,
    klines,
    quick_retrier,
)
from binance_assets_tests.support.hostile_server import Pieces, answer, hostile_server, market_script

FIRST = to_ms(dt.date(2024, 1, 1))


@pytest.mark.parametrize(
    ("name", "start", "end"),
    [
        ("spot/BTCUSDT/1m", "2024-02-28", "2024-03-02"),
        ("spot/BTCUSDT/1s", "2024-01-01", "2024-01-02"),
        ("spot/ETHUSDT/1h", "2023-12-01", "2024-03-01"),
        ("spot/ETHUSDT/12h", "2023-12-01", "2024-03-01"),
        ("spot/BTCUSDT/1d", "2023-06-01", "2024-03-01"),
        ("spot/SOLUSDT/3d", "2022-01-01", "2024-03-01"),
        ("spot/SOLUSDT/1w", "2022-01-01", "2024-03-01"),
        ("spot/SOLUSDT/1M", "2021-01-01", "2024-03-01"),
        ("usdm/ETHUSDT/1m", "2024-02-28", "2024-03-02"),
        ("usdm/ETHUSDT/1w", "2022-01-01", "2024-03-01"),
        ("coinm/BTCUSD_PERP/1m", "2024-02-28", "2024-03-02"),
        ("coinm/BTCUSD_PERP/4h", "2023-07-01", "2024-03-01"),
        ("coinm/BTCUSD_PERP/1d", "2023-07-01", "2024-03-01"),
        ("coinm/BTCUSD_PERP/3d", "2023-07-01", "2024-03-01"),
        ("coinm/ETHUSD_PERP/1w", "2023-07-01", "2024-03-01"),
        ("coinm/ETHUSD_PERP/1M", "2023-07-01", "2024-03-01"),
        ("usdm/币安人生USDT/1h", "2026-01-01", "2026-01-03"),
    ],
)
def test_every_candle_arrives_as_the_exchange_has_it(
    sandbox: Sandbox, fetch: Fetch, name: str, start: str, end: str
) -> None:
    assert_complete_and_exact(sandbox, name, fetch(name, start, end))


@pytest.mark.parametrize("name", ["spot/BTCUSDT/1m", "usdm/ETHUSDT/1m"])
def test_range_of_many_blocks_requests_every_page_once(
    sandbox: Sandbox, fetch: Fetch, open_exchange: Open, name: str
) -> None:
    days = fetch(name, "2024-01-01", "2024-05-01")
    assert_complete_and_exact(sandbox, name, days)
    windows = [request.params["startTime"] for request in pages_of(sandbox, name)]
    assert (
        len(windows) == len(set(windows)) == len(plan_rest_pages(parse_series(name), [day.partition for day in days]))
    )


def test_scattered_days_are_fetched_together_and_only_they_are_returned(sandbox: Sandbox, open_exchange: Open) -> None:
    name = "spot/BTCUSDT/1h"
    series = parse_series(name)
    days = [partition_for_key(f"2024-01-{n:02}", series.interval) for n in (1, 2, 5, 9, 30)]
    results = list(download(open_exchange(name), series, days))
    assert [result.partition for result in results] == days
    assert_complete_and_exact(sandbox, name, results)
    assert len(pages_of(sandbox, name)) == 1


def pages_of(sandbox: Sandbox, name: str) -> list[ServedRequest]:
    """The requests for candles of the series itself, without those for its control totals."""
    interval = parse_series(name).interval.api_name
    return [
        request
        for request in sandbox.requests
        if request.path.endswith("/klines") and request.params["interval"] == interval
    ]


def test_delivered_contract_is_fetched_even_if_exchange_info_lacks_it(sandbox: Sandbox, fetch: Fetch) -> None:
    days = fetch("coinm/BTCUSD_200925/1h", "2020-09-20", "2020-09-24")
    assert_complete_and_exact(sandbox, "coinm/BTCUSD_200925/1h", days)


def test_today_is_unfinished_by_the_servers_clock_and_sends_no_request(sandbox: Sandbox, open_exchange: Open) -> None:
    name = "spot/BTCUSDT/1h"
    series = parse_series(name)
    today = Partition(sandbox.now_ms() // DAY * DAY, sandbox.now_ms() // DAY * DAY + DAY)
    yesterday = Partition(today.start - DAY, today.start)
    results = list(download(open_exchange(name), series, [yesterday, today]))
    assert [result.verdict for result in results] == ["complete", "unfinished"]
    windows = [request.params for request in sandbox.requests if request.path.endswith("/klines")]
    assert all(int(window["endTime"]) < today.start for window in windows)


@pytest.mark.parametrize("hours", [-36, 36])
def test_wrong_local_clock_does_not_matter(settings: Settings, hours: int) -> None:
    with running_sandbox(SandboxOptions(clock_offset_ms=hours * HOUR)) as shifted:
        values = settings.model_dump() | {"spot_url": shifted.url}
        exchange = Exchange(parse_series("spot/BTCUSDT/1h").market, Settings.model_validate(values))
        series = parse_series("spot/BTCUSDT/1h")
        day = shifted.now_ms() // DAY * DAY
        results = list(download(exchange, series, [Partition(day - DAY, day), Partition(day, day + DAY)]))
        assert [result.verdict for result in results] == ["complete", "unfinished"]
        exchange.close()


@hypothesis.settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_partitions_of_any_series_arrive_complete_and_once(
    shared_sandbox: Sandbox, settings: Settings, data: st.DataObject
) -> None:
    market = data.draw(st.sampled_from(list(MARKETS.values())))
    symbol = data.draw(st.sampled_from(["BTCUSD_PERP", "ETHUSD_PERP"] if market is COINM else ["BTCUSDT", "ETHUSDT"]))
    series = Series(
        market, symbol, data.draw(st.sampled_from([interval for interval in market.intervals if interval.name != "1s"]))
    )
    most = 50 if series.interval.is_multi_day else 6 if series.interval.step < HOUR else 90
    first = dt.date(2021, data.draw(st.integers(1, 12)), 1)
    wanted = data.draw(st.lists(st.booleans(), min_size=1, max_size=most))
    end = first
    for _ in wanted:
        end = next_partition_first_day(end, series.interval)
    every = partitions_between(first, end, series.interval)
    partitions = [partition for partition, is_wanted in zip(every, wanted, strict=True) if is_wanted]
    exchange = Exchange(market, settings)
    try:
        results = list(download(exchange, series, partitions))
    finally:
        exchange.close()
    assert [result.partition for result in results] == partitions
    assert_complete_and_exact(shared_sandbox, str(series), results)


# -- faults ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    ["reset", "reset_amid_body", "truncated_body", "truncated_json", "broken_json", "json_object", "nested", "null",
     "fields_11", "fields_13", "nan", "empty_strings", "doubled_row", "unordered", "off_grid", "outside", "bad_prices",
     "contradicting_row", "microseconds", "stray_bracket", "negative_volume", "missing_row", "empty"],
)  # fmt: skip
def test_fault_that_happens_once_is_recovered_from(sandbox: Sandbox, fetch: Fetch, kind: str) -> None:
    sandbox.faults.add(Fault(kind, times=1, start=FIRST + DAY + 77 * MINUTE, end=FIRST + DAY + 78 * MINUTE))
    assert_complete_and_exact(sandbox, "spot/BTCUSDT/1m", fetch("spot/BTCUSDT/1m", "2024-01-01", "2024-01-04"))


@pytest.mark.parametrize("status", [408, 500, 502, 503, "503-no-code"])
def test_server_error_is_retried(sandbox: Sandbox, fetch: Fetch, status: int | str) -> None:
    sandbox.faults.add(Fault("status", value=status, times=3))
    assert_complete_and_exact(sandbox, "spot/BTCUSDT/1m", fetch("spot/BTCUSDT/1m", "2024-01-01", "2024-01-04"))


@pytest.mark.parametrize("kind", ["numbers_as_strings", "strings_as_numbers"])
def test_numbers_may_arrive_as_text_and_text_as_numbers(sandbox: Sandbox, fetch: Fetch, kind: str) -> None:
    sandbox.faults.add(Fault(kind))
    assert_complete_and_exact(sandbox, "spot/BTCUSDT/1m", fetch("spot/BTCUSDT/1m", "2024-01-01", "2024-01-02"))


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [("missing_row", "lost"), ("bad_prices", "invalid"), ("negative_volume", "invalid"), ("off_grid", "invalid"),
     ("contradicting_row", "invalid")],
)  # fmt: skip
def test_permanent_fault_refuses_its_day_and_no_other(sandbox: Sandbox, fetch: Fetch, kind: str, verdict: str) -> None:
    noon = FIRST + DAY + 12 * HOUR
    for path in ALL_SOURCES:
        sandbox.faults.add(Fault(kind, start=noon, end=noon + MINUTE, interval="1m", path=path))
    days = fetch("usdm/ETHUSDT/1m", "2024-01-01", "2024-01-05")
    assert [day.verdict for day in days] == ["complete", verdict, "complete", "complete"], [day.reason for day in days]
    assert days[1].reason
    if kind == "missing_row":
        assert days[1].missing == ((noon, noon + MINUTE),)


def test_empty_page_in_the_middle_is_a_gap_and_not_the_end(sandbox: Sandbox, fetch: Fetch) -> None:
    for path in ALL_SOURCES:
        sandbox.faults.add(Fault("empty", start=FIRST + DAY, end=FIRST + DAY + 1, interval="1m", path=path))
    days = fetch("spot/BTCUSDT/1m", "2024-01-01", "2024-01-04")
    assert days[1].verdict == "lost"
    assert days[2].verdict == "complete"


def test_page_that_fails_makes_its_days_unreachable_and_the_others_continue(sandbox: Sandbox, fetch: Fetch) -> None:
    hour = FIRST + 2 * DAY + HOUR
    sandbox.faults.add(Fault("status", value=500, start=hour, end=hour + 1, interval="1m"))
    days = fetch("spot/BTCUSDT/1m", "2024-01-01", "2024-01-07")
    assert {day.verdict for day in days} == {"complete", "unreachable"}
    unreachable = [day for day in days if day.verdict == "unreachable"]
    assert partition_for_key("2024-01-03", parse_series("spot/BTCUSDT/1m").interval) in [
        day.partition for day in unreachable
    ]
    assert len(unreachable) <= 2
    assert "HTTP 500" in unreachable[0].reason


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault("status", value=451), "https://data-api.binance.vision"),
        (Fault("invalid_symbol"), "there is no symbol BTCUSDT"),
    ],
)
def test_permanent_error_is_requested_once_and_reported_in_one_line(
    sandbox: Sandbox, fetch: Fetch, fault: Fault, message: str
) -> None:
    sandbox.faults.add(fault)
    days = fetch("spot/BTCUSDT/1m", "2024-01-01", "2024-02-01")
    assert {day.verdict for day in days} == {"unreachable"}
    assert message in days[0].reason
    assert "\n" not in days[0].reason
    assert sum(request.path.endswith("/klines") for request in sandbox.requests) == 1


def test_absent_exchange_makes_all_days_unreachable(settings: Settings) -> None:
    values = settings.model_dump() | {"spot_url": "http://127.0.0.1:9"}
    series = parse_series("spot/BTCUSDT/1d")
    exchange = Exchange(series.market, Settings.model_validate(values), retrier=quick_retrier())
    days = list(
        download(exchange, series, partitions_between(dt.date(2024, 1, 1), dt.date(2024, 2, 1), series.interval))
    )
    assert {day.verdict for day in days} == {"unreachable"}
    assert "no connection" in days[0].reason
    exchange.close()


def test_host_that_accepts_no_connection_is_unreachable_after_the_timeout(settings: Settings) -> None:
    with socket.socket() as listener, contextlib.ExitStack() as clients:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):  # fill its queue, so that further clients have to wait
            client = clients.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        series = parse_series("spot/BTCUSDT/1d")
        exchange = Exchange(series.market, Settings.model_validate(settings.model_dump() | {
            "spot_url": url, "connect_timeout": 0.2, "read_timeout": 30}))  # fmt: skip
        (day,) = download(exchange, series, [partition_for_key("2024-01-01", series.interval)])
        assert (day.verdict, "no connection within 0.2 s" in day.reason) == ("unreachable", True)
        exchange.close()


# -- cost -----------------------------------------------------------------------------------------------------------


def test_warm_up_pages_are_kept_and_metrics_count_every_request(sandbox: Sandbox, open_exchange: Open) -> None:
    name = "spot/BTCUSDT/1m"
    series = parse_series(name)
    exchange = open_exchange(name)
    days = list(
        download(exchange, series, partitions_between(dt.date(2024, 1, 1), dt.date(2024, 1, 8), series.interval))
    )
    assert_complete_and_exact(sandbox, name, days)
    metrics = exchange.metrics()
    assert metrics.warmup == 3
    assert metrics.requests == len(sandbox.requests) == 11 + 3  # and the time, the limit, the control totals
    assert metrics.weight == sum(request.weight for request in sandbox.requests) == 22 + 1 + 20 + 2
    assert metrics.workers >= 1
    assert metrics.rtt_ms


@pytest.mark.parametrize(
    ("name", "end", "early"), [("1m", "2024-06-01", 3), ("1m", "2024-01-31", 0), ("1h", "2024-06-01", 0)]
)
def test_only_of_a_long_range_the_first_pages_are_requested_together_with_the_control_totals(
    settings: Settings, name: str, end: str, early: int
) -> None:
    def page(path: str) -> Pieces:
        if "interval=1d" not in path:
            requested.release()
            return answer(b"[]")
        together.append(sum(requested.acquire(timeout=60) for _ in range(early)))
        return answer(b'{"code": -1121, "msg": "Invalid symbol."}', status="400 Bad Request")

    series, requested, together = parse_series(f"spot/BTCUSDT/{name}"), threading.Semaphore(0), list[int]()
    with hostile_server(market_script(page)) as server:
        exchange = Exchange(series.market, Settings.model_validate(settings.model_dump() | {"spot_url": server.url}))
        partitions = partitions_between(dt.date(2024, 1, 1), dt.date.fromisoformat(end), series.interval)
        results = list(download(exchange, series, partitions))
        exchange.close()
        assert {result.verdict for result in results} == {"unreachable"}
        assert "/time" in server.paths[0]
        assert (together, server.counts("/klines")) == ([early], 1 + early)


@pytest.mark.parametrize(
    ("source", "end", "early"),
    [("archive", "2025-01-01", 4), ("auto", "2025-01-01", 4), ("archive", "2024-05-01", 0), ("rest", "2024-05-01", 0)],
)
def test_only_of_a_long_range_the_first_files_are_requested_together_with_the_control_totals(
    settings: Settings, source: Source, end: str, early: int
) -> None:
    def respond(path: str) -> Pieces:
        requested.release()
        return answer(b"", status="404 Not Found")

    def page(path: str) -> Pieces:
        if "interval=1d" in path and not together:
            together.append(sum(requested.acquire(timeout=60) for _ in range(early)))
            assert early or not requested.acquire(timeout=0.1)
        return answer(b'{"code": -1121, "msg": "Invalid symbol."}', status="400 Bad Request")

    series, requested, together = parse_series("spot/BTCUSDT/1m"), threading.Semaphore(0), list[int]()
    with hostile_server(respond) as archive, hostile_server(market_script(page)) as server:
        urls = {"spot_url": server.url, "archive_url": archive.url, "max_workers": 4}
        exchange = Exchange(series.market, Settings.model_validate(settings.model_dump() | urls))
        partitions = partitions_between(dt.date(2024, 1, 1), dt.date.fromisoformat(end), series.interval)
        next(download(exchange, series, partitions, DownloadOptions(source)), None)
        exchange.close()
        assert together == [early]


@pytest.fixture
def small_limits(settings: Settings) -> Iterator[tuple[Sandbox, Settings]]:
    """A sandbox with small limits and a clock 7 s before the end of a minute, and settings that point to it."""
    with end_of_a_minute(settings, seconds=7) as served:
        yield served


def test_the_whole_weight_of_a_minute_is_used_without_a_429(small_limits: tuple[Sandbox, Settings]) -> None:
    sandbox, settings = small_limits
    series = parse_series("usdm/ETHUSDT/1m")
    exchange = Exchange(series.market, settings)
    # Another program has spent most of the minute, so that a slow machine spends the rest in time as well.
    for _ in range(5):
        assert requests.get(f"{sandbox.url}/fapi/v1/ticker/24hr", timeout=60).ok
    days = partitions_between(dt.date(2024, 1, 1), dt.date(2024, 1, 11), series.interval)
    results = list(download(exchange, series, days))
    assert {result.verdict for result in results} == {"complete"}
    assert {request.status for request in sandbox.requests} == {200}
    used = Counter[int]()
    for request in sandbox.requests:
        used[request.at_ms // MINUTE] += request.weight
    # Of 240 a minute: 200 of the other program, 58 for ten days, 3 for the time, the limit and the control totals.
    assert sum(used.values()) == 261
    assert len(used) == 2
    assert max(used.values()) >= 239  # a page costs 2
    exchange.close()


def test_process_that_starts_in_a_used_up_minute_waits_before_requesting_the_time(
    small_limits: tuple[Sandbox, Settings],
) -> None:
    sandbox, settings = small_limits
    series = parse_series("usdm/ETHUSDT/1m")
    days = partitions_between(dt.date(2024, 1, 1), dt.date(2024, 2, 11), series.interval)  # 41 days cost 238 of 240
    first, second = Exchange(series.market, settings), Exchange(series.market, settings)
    assert {day.verdict for day in download(first, series, days)} == {"complete"}
    assert second.now() // MINUTE > sandbox.requests[0].at_ms // MINUTE
    assert {request.status for request in sandbox.requests} == {200}
    for exchange in (first, second):
        exchange.close()


@pytest.mark.parametrize("kind", ["hang", "reset", "broken_json"])
def test_failing_exchange_info_does_not_stop_a_download(sandbox: Sandbox, settings: Settings, kind: str) -> None:
    sandbox.faults.add(Fault(kind, path="exchangeInfo"))
    short_timeouts = Settings.model_validate(settings.model_dump() | {"connect_timeout": 0.5, "read_timeout": 1})
    series = parse_series("spot/BTCUSDT/1m")
    exchange = Exchange(series.market, short_timeouts, retrier=quick_retrier())
    results = list(
        download(exchange, series, partitions_between(dt.date(2024, 1, 1), dt.date(2024, 1, 8), series.interval))
    )
    assert_complete_and_exact(sandbox, "spot/BTCUSDT/1m", results)
    exchange.close()


def test_bad_row_refuses_its_day_and_not_the_next_one_on_the_same_page(sandbox: Sandbox, fetch: Fetch) -> None:
    late = FIRST + DAY - HOUR
    for path in ALL_SOURCES:
        sandbox.faults.add(Fault("off_grid", start=late, end=late + MINUTE, interval="1m", path=path))
    days = fetch("spot/BTCUSDT/1m", "2024-01-01", "2024-01-04")
    assert [day.verdict for day in days] == ["invalid", "complete", "complete"], [day.reason for day in days]


@pytest.mark.parametrize("name", ["spot/BTCUSDT/1m", "coinm/BTCUSD_PERP/1m"])
@pytest.mark.parametrize("kind", ["microseconds", "stray_bracket"])
def test_page_that_cannot_be_parsed_refuses_its_days_and_no_others(
    sandbox: Sandbox, fetch: Fetch, name: str, kind: str
) -> None:
    noon = FIRST + 3 * DAY + 12 * HOUR
    for path in ALL_SOURCES:
        for minute in range(5):  # broken rules, so that the schema would have to show the far time as well
            start = noon + minute * MINUTE
            sandbox.faults.add(Fault("bad_prices", start=start, end=start + MINUTE, interval="1m", path=path))
        last = noon + 5 * MINUTE
        sandbox.faults.add(Fault(kind, start=last, end=last + MINUTE, interval="1m", path=path))
    days = fetch(name, "2024-01-01", "2024-01-08")
    assert [days[n].verdict for n in (0, 1, 5, 6)] == ["complete"] * 4, [day.reason for day in days]
    assert days[3].verdict == "invalid"
    assert {day.verdict for day in days} == {"complete", "invalid"}
    for day in days:
        assert "\n" not in day.reason
        if day.verdict == "complete":
            assert_complete_and_exact(sandbox, name, [day])


def test_repeated_row_is_used_once_and_its_page_is_not_fetched_again(sandbox: Sandbox, fetch: Fetch) -> None:
    sandbox.faults.add(Fault("doubled_row", interval="1m"))
    assert_complete_and_exact(sandbox, "spot/BTCUSDT/1m", fetch("spot/BTCUSDT/1m", "2024-01-01", "2024-01-04"))
    starts = [request.params["startTime"] for request in klines(sandbox, "1m")]
    assert len(starts) == len(set(starts)) == 5


def test_closing_the_exchange_ends_a_download_even_while_a_socket_hangs(sandbox: Sandbox, open_exchange: Open) -> None:
    sandbox.faults.add(Fault("hang", start=FIRST + 3 * DAY, end=FIRST + 3 * DAY + 1))
    series = parse_series("spot/BTCUSDT/1m")
    exchange = open_exchange("spot/BTCUSDT/1m")
    days = partitions_between(dt.date(2024, 1, 1), dt.date(2024, 1, 20), series.interval)
    threading.Timer(0.5, exchange.close).start()
    with pytest.raises(Cancelled):
        list(download(exchange, series, days))


def test_first_candle_is_found_on_every_market(sandbox: Sandbox, open_exchange: Open) -> None:
    for name, first in {
        "spot/ARBUSDT/1m": "2023-03-23T15:00",
        "spot/ARBUSDT/1w": "2023-03-20T00:00",
        "coinm/BTCUSD_PERP/1m": None,
        "coinm/BTCUSD_PERP/1M": "2020-08-01T00:00",
        "coinm/BTCUSD_PERP/1h": None,
    }.items():
        series = parse_series(name)
        found = open_exchange(name).symbols.first_open_time(series)
        assert found is not None
        assert sandbox.rows(series.market.name, series.symbol, series.interval.api_name, found, found + 1)
        before = sandbox.rows(series.market.name, series.symbol, series.interval.api_name, found - 40 * DAY, found)
        assert before == []
        if first:
            assert found == int(dt.datetime.fromisoformat(first + "+00:00").timestamp() * 1_000)
