"""A dead exchange: a run stops asking after a bounded number of requests, and says what it did not ask for."""

from __future__ import annotations

import datetime as dt
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import dagster as dg
import pytest

from binance_assets.cli.progress import ProgressView
from binance_assets.definitions import definitions_for
from binance_assets.exchange.archive_files import ArchiveFile
from binance_assets.exchange.circuit import Circuit
from binance_assets.exchange.errors import (
    Blocked,
    ExchangeError,
    NoConnection,
    NotSent,
    RefusedRequest,
    ServerError,
    UnexpectedContent,
    UnexpectedResponse,
)
from binance_assets.exchange.retry import Retrier
from binance_assets.exchange.session import Exchange
from binance_assets.ingest.download import download
from binance_assets.ingest.options import DownloadOptions
from binance_assets.ingest.request import DownloadPlan
from binance_assets.model.markets import SPOT
from binance_assets.model.partitions import Partition, partitions_between
from binance_assets.model.results import PartitionResult, group_by_reason
from binance_assets.model.series import Series, parse_series
from binance_assets.orchestration.backfill import fetch_missing
from binance_assets.orchestration.checks import format_refused
from binance_assets.orchestration.resources import Exchanges
from binance_assets.sandbox import Sandbox
from binance_assets.settings import Settings, Source
from binance_assets.storage.lake import Lake
from binance_assets_tests.support.exchange import quick_retrier
from binance_assets_tests.support.hostile_server import HostileServer, Pieces, answer, hostile_server, market_script
from binance_assets_tests.support.instances import QuickBinanceResource, with_quick_retries

NAMES = [f"spot/S{number:02}USDT/1m" for number in range(8)]
DAYS = partitions_between(dt.date(2024, 1, 1), dt.date(2024, 2, 1), parse_series(NAMES[0]).interval)
WORKERS = 4
ATTEMPTS = NoConnection.policy.attempts
# Five failed calls, those in flight at that moment (of the workers, and for the limit), and ten calls one at a time.
MOST_REQUESTS = ATTEMPTS * (5 + WORKERS + 1 + 10)


def settings_for(server: HostileServer, folder: Path) -> Settings:
    urls = dict.fromkeys(("spot_url", "usdm_url", "coinm_url", "archive_url"), server.url)
    values = {"ledger": folder / "ledger.sqlite", "max_workers": WORKERS, "lake": folder / "lake"}
    return Settings.model_validate({**urls, **values, "universe": folder / "universe.yaml"})


def only_time(page: Callable[[str], Pieces]) -> Callable[[str], Pieces]:
    """Return a script that responds to ``/time`` only, and by ``page`` elsewhere."""
    good = market_script(page)
    return lambda path: good(path) if "/time" in path else page(path)


def fetch(exchange: Exchange, name: str, source: Source, days: Sequence[Partition] = DAYS) -> list[PartitionResult]:
    return list(download(exchange, parse_series(name), days, DownloadOptions(source)))


def assert_reported_in_few_lines(results: list[PartitionResult], is_asked: bool) -> None:
    assert {result.verdict for result in results} <= {"unreachable", "invalid"}
    groups = group_by_reason(results)
    assert len(groups) <= 3
    assert is_asked or all("not requested, because an earlier request failed: " in group[0].reason for group in groups)
    assert sum(map(len, groups)) == len(DAYS)
    assert "\n" not in format_refused(results)
    assert len(format_refused(results)) < 1_000


DEAD: dict[str, Callable[[str], Pieces]] = {
    "500": lambda path: answer(b"{}", status="500 Bad"),
    "a broken body": lambda path: iter([b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nx"]),
    "garbage": lambda path: iter([b"garbage\r\n\r\n"]),
    "a login page": lambda path: answer(b"<html>log in</html>"),
}


@pytest.mark.parametrize("source", ["rest", "auto"])
def test_a_server_that_is_dead_from_the_start_is_asked_for_its_time_once(tmp_path: Path, source: Source) -> None:
    with hostile_server() as server:
        exchange = Exchange(SPOT, settings_for(server, tmp_path), retrier=quick_retrier())
        for name in NAMES:
            results = fetch(exchange, name, source)
            assert_reported_in_few_lines(results, is_asked=name == NAMES[0] or source == "auto")
        exchange.close()
        assert server.counts("/time") == ATTEMPTS
        # The archive is asked for its time instead: five failed calls, and two one at a time.
        assert len(server.paths) <= ATTEMPTS * (1 if source == "rest" else 1 + 5 + 2)


@pytest.mark.parametrize("name", [None, *DEAD])
def test_a_server_that_dies_is_asked_a_bounded_number_of_times_for_all_series(tmp_path: Path, name: str | None) -> None:
    with hostile_server() as server:
        server.script = only_time(DEAD[name] if name else lambda path: iter([]))
        exchange = Exchange(SPOT, settings_for(server, tmp_path), retrier=quick_retrier())
        for number, series in enumerate(NAMES):
            assert_reported_in_few_lines(fetch(exchange, series, "rest"), is_asked=number < 5)
        requests = exchange.metrics().requests
        exchange.close()
        assert server.counts("/klines") + server.counts("/exchangeInfo") <= MOST_REQUESTS
        assert requests == len(server.paths)


def test_a_dagster_run_over_many_series_of_a_dead_server_asks_as_little(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    with hostile_server() as server, ProgressView(0) as view:
        server.script = only_time(lambda path: iter([]))
        settings = settings_for(server, tmp_path)
        sources: dict[Series, Source] = {parse_series(name): "rest" for name in NAMES[:3]}
        defs = definitions_for(settings, sources, view, Exchanges())
        assets = [defs.get_assets_def(dg.AssetKey(name.split("/"))) for name in NAMES[:3]]
        resources = {**(defs.resources or {}), "binance": QuickBinanceResource(settings=settings)}
        tags = {"dagster/asset_partition_range_start": "2024-01-01", "dagster/asset_partition_range_end": "2024-01-31"}
        result = dg.materialize(assets, resources=resources, instance=instance, tags=tags, raise_on_error=False)
        assert not result.success
        assert server.counts("/klines") + server.counts("/exchangeInfo") <= MOST_REQUESTS
        checks = [str(check.description) for check in result.get_asset_check_evaluations()]
        assert len(checks) == 3
        assert all("\n" not in check and len(check) < 1_500 for check in checks)
        assert any("not requested, because an earlier request failed: " in check for check in checks)


def fetch_in_runs(
    settings: Settings, instance: dg.DagsterInstance, wanted: Mapping[str, Sequence[Partition]]
) -> ProgressView:
    """Fetch other days of each series, which takes a run for each, as one command does."""
    plans = [DownloadPlan(parse_series(name), tuple(days), (), tuple(days)) for name, days in wanted.items()]
    with ProgressView(0) as view, closing(Exchanges(series=len(plans))) as exchanges:
        definitions = definitions_for(settings, {plan.series: "rest" for plan in plans}, view, exchanges)
        definitions = with_quick_retries(definitions, settings, exchanges)
        assert not fetch_missing(instance, definitions, Lake(settings.lake), plans, False, view)
    assert len(instance.get_runs()) == len(plans)
    return view


@pytest.mark.parametrize("is_dead_from_the_start", [True, False])
def test_all_runs_of_a_command_together_ask_a_dead_server_no_more_than_one_run(
    tmp_path: Path, instance: dg.DagsterInstance, is_dead_from_the_start: bool
) -> None:
    with hostile_server() as server:
        server.script = None if is_dead_from_the_start else only_time(lambda path: iter([]))
        wanted = {name: DAYS[: 14 + number] for number, name in enumerate(NAMES[:4])}
        view = fetch_in_runs(settings_for(server, tmp_path), instance, wanted)
        assert server.counts("/time") == (ATTEMPTS if is_dead_from_the_start else 1)
        assert server.counts("/klines") + server.counts("/exchangeInfo") <= MOST_REQUESTS
    last = view.refused[parse_series(NAMES[3])]
    assert len(last) == 17
    assert all("not requested, because an earlier request failed: " in result.reason for result in last)


def test_the_runs_of_a_command_ask_for_the_time_and_the_limit_once(
    settings: Settings, sandbox: Sandbox, instance: dg.DagsterInstance
) -> None:
    view = fetch_in_runs(settings, instance, {"spot/BTCUSDT/1h": DAYS[:1], "spot/ETHUSDT/1h": DAYS[:2]})
    assert not view.refused
    lake = Lake(settings.lake)
    assert [len(lake.stored_partitions(series)) for series in view.metrics] == [1, 2]
    ends = Counter(request.path.rpartition("/")[2] for request in sandbox.requests)
    assert (ends["time"], ends["exchangeInfo"]) == (1, 1)


def test_a_symbol_whose_pages_are_no_candles_does_not_stop_the_next_one(tmp_path: Path) -> None:
    bad, good = NAMES[:2]
    with hostile_server() as server:
        symbol = parse_series(bad).symbol
        server.script = market_script(lambda path: answer(b"[[1, 2]]" if symbol in path else b"[]"))
        exchange = Exchange(SPOT, settings_for(server, tmp_path), retrier=quick_retrier())
        refused, others = (fetch(exchange, name, "rest", DAYS[:14]) for name in (bad, good))  # 21 pages each
        exchange.close()
    assert {result.verdict for result in refused} == {"invalid"}
    assert not any("not asked" in result.reason for result in [*refused, *others])


def test_a_retry_is_not_sent_to_a_host_that_was_found_dead_in_between(tmp_path: Path) -> None:
    with hostile_server() as server:
        server.script = only_time(lambda path: iter([]))
        dead = NoConnection("dead")

        def find_dead(seconds: float, stop: threading.Event) -> bool:
            exchange._circuit.trip(dead)
            return False

        exchange = Exchange(SPOT, settings_for(server, tmp_path), retrier=Retrier(find_dead))
        exchange.now()
        with pytest.raises(NotSent, match="dead"):
            exchange.symbols.check_exists(parse_series(NAMES[0]))
        exchange.close()
        assert server.counts("/klines") == 1


# -- the archive -----------------------------------------------------------------------------------------------------

DATE = "Date: Mon, 01 Jan 2024 00:00:00 GMT"
FILES = [ArchiveFile.named(parse_series(NAMES[0]), f"S00USDT-1m-2024-01-{day:02}.zip") for day in range(1, 29)]


@contextmanager
def opened(server: HostileServer, folder: Path) -> Iterator[Exchange]:
    exchange = Exchange(SPOT, settings_for(server, folder), retrier=quick_retrier())
    try:
        yield exchange
    finally:
        exchange.close()


def test_a_403_is_a_failure_of_the_archive_for_its_time_as_for_its_files(tmp_path: Path) -> None:
    refusal = answer(b"<html>403</html>", DATE, status="403 Forbidden")
    with hostile_server(lambda path: refusal) as server, opened(server, tmp_path) as exchange:
        with pytest.raises(Blocked):
            exchange.archive.now()
        for file in FILES[:10]:
            ((_, outcome),) = exchange.archive.existence([file])
            assert isinstance(outcome, (Blocked, NotSent))
            with pytest.raises((Blocked, NotSent)):
                exchange.archive.now()
        assert len(server.paths) == Blocked.policy.attempts * (5 + 2)


def test_checksums_of_other_files_do_not_stop_the_archive(tmp_path: Path) -> None:
    with hostile_server(lambda path: answer(b"0" * 64 + b"  other.zip")) as server:
        with opened(server, tmp_path) as exchange:
            outcomes = [outcome for _, outcome in exchange.archive.checksums(FILES[:12])]
        assert {type(outcome) for outcome in outcomes} == {UnexpectedContent}


@pytest.mark.parametrize(
    "response",
    [answer(b"x" * 5_000), answer(b""), b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nx"],
    ids=["large", "empty", "cut off"],
)
def test_a_file_whose_checksum_cannot_be_read_exists(tmp_path: Path, response: bytes) -> None:
    with hostile_server(lambda path: iter([response])) as server, opened(server, tmp_path) as exchange:
        assert [outcome for _, outcome in exchange.archive.existence(FILES[:2])] == [True, True]
        assert len(server.paths) == 2


def test_after_a_failure_of_the_archive_it_is_unknown_whether_a_file_exists(tmp_path: Path) -> None:
    with hostile_server(lambda path: answer(b"", status="500 Bad")) as server, opened(server, tmp_path) as exchange:
        ((_, outcome),) = exchange.archive.existence(FILES[:1])
        assert isinstance(outcome, ServerError)


@pytest.mark.parametrize("status", ["200 OK", "404 Not Found"])
def test_a_response_of_the_archive_without_a_date_is_reported_with_its_status(tmp_path: Path, status: str) -> None:
    response = answer(b"", "Date: yesterday", status=status)
    with hostile_server(lambda path: response) as server, opened(server, tmp_path) as exchange:
        with pytest.raises(UnexpectedResponse, match=r"no valid Date header; check .*BINANCE_ARCHIVE_URL") as caught:
            exchange.archive.now()
        assert (caught.value.status, caught.value.headers["Date"]) == (int(status[:3]), "yesterday")


def test_without_the_api_the_archive_is_asked_once_whose_candles_it_has(tmp_path: Path) -> None:
    restricted = answer(b"{}", status="451 Restricted")
    with hostile_server() as server, opened(server, tmp_path) as exchange:
        server.script = lambda path: answer(b"", DATE) if path == "/" else restricted
        for _ in range(3):
            assert exchange.venue == "binance"
            assert set(exchange.hosts) == {"spot", "archive"}
        assert server.paths.count("/") == 1


# -- the rule --------------------------------------------------------------------------------------------------------


class Calls:
    """Calls through a circuit, to a host that a test turns off and on."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sent = 0
        self.error: ExchangeError | None = None
        self.circuit = Circuit(failures=5, probes=10, clock=lambda: self.now)

    def attempt(self) -> str:
        self.sent += 1
        if self.error is not None:
            raise self.error
        return "candles"

    def call(self) -> str:
        try:
            return self.circuit.call(self.attempt)
        except ExchangeError as error:
            return type(error).__name__


def test_a_host_is_dead_after_so_many_failed_calls_in_a_row_and_asked_once_a_minute() -> None:
    calls = Calls()
    calls.error = NoConnection("gone")
    assert [calls.call() for _ in range(40)] == ["NoConnection"] * 15 + ["NotSent"] * 25
    calls.now += 59
    assert calls.call() == "NotSent"
    calls.now += 2
    assert [calls.call() for _ in range(5)] == ["NoConnection"] + ["NotSent"] * 4
    assert calls.sent == 16
    calls.now += 61
    calls.error = None
    assert [calls.call() for _ in range(5)] == ["candles"] * 5


def test_a_slow_failure_counts_as_dead_after_a_minute_of_asking() -> None:
    calls = Calls()
    calls.error = NoConnection("gone")
    outcomes = []
    for _ in range(10):
        outcomes.append(calls.call())
        calls.now += 31
    assert outcomes[:8] == ["NoConnection"] * 7 + ["NotSent"]


def test_one_success_or_one_response_of_the_host_starts_the_count_again() -> None:
    calls = Calls()
    for _ in range(5):
        calls.error = NoConnection("gone")
        assert [calls.call() for _ in range(14)] == ["NoConnection"] * 14
        calls.error = RefusedRequest("no", status=400)
        assert calls.call() == "RefusedRequest"


def test_the_reason_of_what_was_not_asked_names_the_first_error_once() -> None:
    error = NotSent.after(NotSent.after(NoConnection("gone")))
    assert str(error) == "not requested, because an earlier request failed: gone"
