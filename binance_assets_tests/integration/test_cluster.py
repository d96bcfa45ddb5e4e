"""A cluster: workers on two hosts, and what happens when a run, a process, a host, Postgres, or the broker ends."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec

import dagster as dg
import pytest

from binance_assets.model.partitions import partitions_between
from binance_assets.model.series import parse_series
from binance_assets.model.timestamps import HOUR, MINUTE, to_ms
from binance_assets.orchestration.dagster_internals.runs import RequeueRun
from binance_assets.orchestration.keys import asset_key
from binance_assets.orchestration.worker_runs import WORKER_TAG
from binance_assets.sandbox import Fault, Sandbox, SandboxOptions, running_sandbox
from binance_assets.storage.lake import Lake
from binance_assets_tests.support.cluster import Cluster
from binance_assets_tests.support.environment import cli_environment
from binance_assets_tests.support.exchange import expected_candles
from binance_assets_tests.support.lakes import read
from binance_assets_tests.support.polling import until
from binance_assets_tests.support.postgres_server import PostgresServer
from binance_assets_tests.support.redis_server import RedisServer
from binance_assets_tests.support.user_interface import ENDED, UserInterface

pytestmark = [
    pytest.mark.services,
    pytest.mark.timeout(600),
    pytest.mark.skipif(find_spec("dagster_celery") is None, reason="dagster-celery is not installed"),
]

SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT", "SOLUSDT")
KEYS = [str(dt.date(2024, 1, 1) + dt.timedelta(days)) for days in range(60)]
SUMMER = [str(dt.date(2024, 6, 1) + dt.timedelta(days)) for days in range(20)]
AUTUMN = [str(dt.date(2024, 10, 1) + dt.timedelta(days)) for days in range(20)]
UNIVERSE = f"series:\n  - {{market: spot, symbols: [{', '.join(SYMBOLS)}], intervals: [1m], source: rest}}\n"
BINANCE_LIMIT = 6_000
# A host counts as dead after 10 seconds instead of 40, and nothing waits for seconds before it looks again.
QUICKER = {
    "run_launcher.config": {"silence_seconds": 10, "pickup_seconds": 6},
    "run_monitoring": {"poll_interval_seconds": 1},
    "run_queue": {"user_code_failure_retry_delay": 1},
}


@pytest.fixture(scope="module")
def slow_sandbox() -> Iterator[Sandbox]:
    """The exchange with Binance's limits, slow enough for a run to be in progress when something happens to it."""
    with running_sandbox(SandboxOptions(rtt_ms=150)) as running:
        yield running


@contextmanager
def hanging_from(sandbox: Sandbox, symbols: Sequence[str], day: str) -> Iterator[None]:
    """Respond to no request for a day of symbols, so that no run over it ends before something happens to it."""
    first = to_ms(dt.date.fromisoformat(day))
    for symbol in symbols:
        sandbox.faults.add(Fault("hang", symbol=symbol, start=first, end=first + HOUR, path="klines", interval="1m"))
    try:
        yield
    finally:
        sandbox.faults.clear()


@pytest.fixture(scope="module")
def database(postgres: PostgresServer) -> str:
    """Dagster's storage, and the ledger that both hosts share."""
    return postgres.new_database()


@pytest.fixture(scope="module")
def cluster(
    slow_sandbox: Sandbox, database: str, redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """Two hosts with two processes for runs each; a test that needs the daemon starts it."""
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "universe.yaml").write_text(UNIVERSE)
    environment = cli_environment(slow_sandbox, folder) | {
        "DAGSTER_POSTGRES_URL": database,
        "DAGSTER_CELERY_BROKER_URL": redis.url,
        "BINANCE_ASSETS_LEDGER": database,
        "BINANCE_ASSETS_MAX_WORKERS": "1",
        "BINANCE_ASSETS_READ_TIMEOUT": "300",  # a request that hangs does so until something happens to its run
    }
    cluster = Cluster(folder, environment, QUICKER)
    try:
        cluster.start_worker("north")
        cluster.start_worker("south")
        cluster.start_servers()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def ui(cluster: Cluster) -> UserInterface:
    return UserInterface(cluster)


def runs_of(cluster: Cluster, symbol: str) -> list[dg.DagsterRun]:
    """Return the runs over a symbol, newest first."""
    key = asset_key(parse_series(f"spot/{symbol}/1m"))
    return [run for run in cluster.instance().get_runs() if run.asset_selection and key in run.asset_selection]


def run_with(cluster: Cluster, run_id: str) -> dg.DagsterRun:
    run = cluster.instance().get_run_by_id(run_id)
    assert run is not None
    return run


def host_of(run: dg.DagsterRun) -> str:
    """Return the host that executes a run; an empty text if no worker has taken it."""
    return run.tags.get(WORKER_TAG, "").partition("@")[2]


def messages(cluster: Cluster, run_id: str) -> list[str]:
    entries = cluster.instance().all_logs(run_id)
    return [str(entry.get_dagster_event().message) for entry in entries if entry.is_dagster_event]


def materialized(cluster: Cluster, symbol: str, keys: list[str]) -> list[str]:
    """Return the days of a symbol among keys that were materialized, ascending; no two runs recorded the same day.

    A killed process may have written a day that it could not record. The sensor ``lake_state`` then reports it outside
    a run, if it looks before the retry is planned, which fetches it again.
    """
    days = dg.AssetRecordsFilter(asset_key(parse_series(f"spot/{symbol}/1m")), asset_partitions=keys)
    found = cluster.instance().fetch_materializations(days, limit=500).records
    by_runs = sorted(str(record.partition_key) for record in found if record.run_id)
    assert by_runs == sorted(set(by_runs)), symbol
    return sorted({str(record.partition_key) for record in found})


def has_status(cluster: Cluster, run_id: str, status: str) -> bool:
    return str(run_with(cluster, run_id).status.value) == status


def terminate_in_the_queue(ui: UserInterface, run: str) -> None:
    """Terminate a run that goes back to the queue again and again.

    Dagster terminates a run that is in the queue or has started, but not while the daemon launches it (1.13.27): the
    answer says so, and a user tries again, or forces it.
    """

    def is_terminated() -> bool:
        error = ui.error_of_terminating(run)
        assert error in {"", f"Run {run} could not be terminated due to having status STARTING."}
        return not error

    until(120, is_terminated)


def answers(ui: UserInterface) -> bool:
    """Return whether the web server answers; after a restart of Postgres, its next queries find connections gone."""
    with suppress(KeyError, AssertionError):
        return bool(ui.runs() and ui.backfill_status(ui.backfills[0]) and ui.partitions(SYMBOLS[0], "2024"))
    return False


def assert_green_once(cluster: Cluster, sandbox: Sandbox, ui: UserInterface, keys: list[str]) -> None:
    """Assert that one run recorded each day, and that the lake has exactly the candles of the exchange."""
    lake = Lake(cluster.folder / "lake")
    first, end = dt.date.fromisoformat(keys[0]), dt.date.fromisoformat(keys[-1]) + dt.timedelta(1)
    for symbol in SYMBOLS:
        series = parse_series(f"spot/{symbol}/1m")
        assert materialized(cluster, symbol, keys) == keys, symbol
        assert ui.partitions(symbol, keys[0][:4])[-1] == ("MATERIALIZED", keys[0], keys[-1])
        for partition in partitions_between(first, end, series.interval):
            expected = expected_candles(sandbox, str(series), partition.start, partition.end)
            assert read(lake, series, partition.key).equals(expected), (symbol, partition)


def test_backfills_of_four_series_run_on_both_hosts_while_broker_and_postgres_are_restarted(
    cluster: Cluster, ui: UserInterface, slow_sandbox: Sandbox, postgres: PostgresServer, redis: RedisServer
) -> None:
    def stored() -> list[int]:
        return [len(ui.stored(symbol, KEYS[0], KEYS[-1])) for symbol in SYMBOLS]

    for symbol in SYMBOLS:
        ui.backfill([symbol], KEYS)
    cluster.start_daemon()  # it looks for backfills at once, and then every thirty seconds
    until(240, lambda: sum(stored()) >= 8)
    redis.stop()
    redis.start()
    until(120, lambda: all(stored()))
    postgres.stop()
    postgres.start()
    until(240, lambda: stored() == [len(KEYS)] * len(SYMBOLS))
    runs = {symbol: runs_of(cluster, symbol) for symbol in SYMBOLS}
    until(120, lambda: all(runs_of(cluster, symbol)[0].is_success for symbol in SYMBOLS))
    assert {host_of(of_symbol[0]) for of_symbol in runs.values()} == {"north", "south"}
    until(120, lambda: answers(ui))
    assert_green_once(cluster, slow_sandbox, ui, KEYS)


def test_a_run_is_terminated_a_child_and_a_host_are_killed_and_every_day_is_green_once(
    cluster: Cluster, ui: UserInterface, slow_sandbox: Sandbox
) -> None:
    cluster.start_daemon()

    def stored(symbol: str) -> int:
        return len(ui.stored(symbol, SUMMER[0], SUMMER[-1]))

    with hanging_from(slow_sandbox, SYMBOLS, SUMMER[10]):
        launched = {symbol: ui.launch(symbol, SUMMER[0], SUMMER[-1]) for symbol in SYMBOLS}
        until(240, lambda: all(stored(symbol) >= 2 for symbol in SYMBOLS))
        by_host: dict[str, list[str]] = {"north": [], "south": []}
        for symbol, run in launched.items():
            by_host[host_of(run_with(cluster, run))].append(symbol)
        terminated, orphan = by_host["north"]

        ui.terminate(launched[terminated])
        until(120, lambda: has_status(cluster, launched[terminated], "CANCELED"))
        kept = ui.stored(terminated, SUMMER[0], SUMMER[-1])
        assert 2 <= len(kept) < len(SUMMER)

        texts = messages(cluster, launched[orphan])
        started = next(text for text in texts if text.startswith("Started process for run"))
        cluster.process_of_run("north", int(re.findall(r"\d+", started)[0])).kill()
        cluster.kill("south")
    cluster.start_worker("south")  # it has the name of the one that died, and must not answer for it
    for symbol in (orphan, *by_host["south"]):
        until(120, lambda run=launched[symbol]: has_status(cluster, run, "FAILURE"))  # type: ignore[misc]
    assert any("has ended without a report" in text for text in messages(cluster, launched[orphan]))
    for symbol in by_host["south"]:
        assert any("its host is down or cut off" in text for text in messages(cluster, launched[symbol]))
    until(240, lambda: all(stored(symbol) == len(SUMMER) for symbol in (orphan, *by_host["south"])))
    for symbol in (orphan, *by_host["south"]):
        until(120, lambda symbol=symbol: runs_of(cluster, symbol)[0].is_success)  # type: ignore[misc]
        assert len(runs_of(cluster, symbol)) == 3  # that of the backfill, the one that failed, and its retry
    assert len(runs_of(cluster, terminated)) == 2

    rest = [key for key in SUMMER if key not in kept]
    assert ui.final_status(ui.launch(terminated, rest[0], rest[-1]), 120) == "SUCCESS"
    assert_green_once(cluster, slow_sandbox, ui, SUMMER)


def test_a_worker_that_is_stopped_interrupts_its_run_which_goes_on_elsewhere(
    cluster: Cluster, ui: UserInterface, slow_sandbox: Sandbox
) -> None:
    cluster.start_daemon()
    with hanging_from(slow_sandbox, [SYMBOLS[1]], AUTUMN[10]):
        run = ui.launch(SYMBOLS[1], AUTUMN[0], AUTUMN[-1])
        until(120, lambda: len(ui.stored(SYMBOLS[1], AUTUMN[0], AUTUMN[-1])) >= 2)
        cluster.terminate_worker(host_of(run_with(cluster, run)))
    until(120, lambda: has_status(cluster, run, "FAILURE"))
    until(240, lambda: runs_of(cluster, SYMBOLS[1])[0].is_success)
    retry = runs_of(cluster, SYMBOLS[1])[0]
    assert retry.parent_run_id == run
    assert host_of(retry) != host_of(run_with(cluster, run))
    assert materialized(cluster, SYMBOLS[1], AUTUMN) == AUTUMN


def test_a_run_that_no_worker_takes_goes_back_to_the_queue_and_can_be_canceled_there(
    cluster: Cluster, ui: UserInterface
) -> None:
    cluster.start_daemon()
    day = "2024-12-01"
    run = ui.launch(SYMBOLS[0], day, day, {"dagster-celery/queue": "nobody"})
    line = "no worker took the run within 6 s: start workers on the queue nobody, or wait until one is free"
    until(240, lambda: any(line in str(entry) for entry in cluster.instance().all_logs(run)))
    assert run_with(cluster, run).status in {dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING}
    terminate_in_the_queue(ui, run)
    assert ui.final_status(run, 60) == "CANCELED"
    assert ui.stored(SYMBOLS[0], day, day) == []


def test_a_run_waits_in_the_queue_while_the_broker_is_away_and_its_page_says_why(
    cluster: Cluster, ui: UserInterface, redis: RedisServer
) -> None:
    cluster.start_daemon()
    redis.stop()
    try:
        run = ui.launch(SYMBOLS[0], "2024-09-01", "2024-09-01")
        lines = re.compile(rf"{RequeueRun.__name__}: the broker redis://:\*\*@127.0.0.1:\d+/0 is away: .*refused")
        instance = cluster.instance()
        until(240, lambda: any(lines.search(str(entry)) for entry in instance.all_logs(run)))
        assert not any("secret-word" in str(entry) for entry in instance.all_logs(run))
        assert run_with(cluster, run).status in {dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING}
    finally:
        redis.start()
    assert ui.final_status(run, 120) == "SUCCESS"  # the workers may need half a minute to find the broker again


def test_at_the_end_no_run_is_in_progress_and_no_request_was_one_too_many(
    cluster: Cluster, ui: UserInterface, slow_sandbox: Sandbox
) -> None:
    until(120, lambda: {ui.backfill_status(backfill) for backfill in ui.backfills} == {"COMPLETED_SUCCESS"})
    until(120, lambda: set(ui.runs().values()) <= ENDED)
    assert list(ui.runs().values()).count("CANCELED") == 2
    # No response has another status; 0 is that of the requests to which a test let no response come.
    assert {request.status for request in slow_sandbox.requests} - {0} == {200}
    spent: dict[int, int] = {}
    for request in slow_sandbox.requests:
        spent[request.at_ms // MINUTE] = spent.get(request.at_ms // MINUTE, 0) + request.weight
    assert max(spent.values()) <= BINANCE_LIMIT
