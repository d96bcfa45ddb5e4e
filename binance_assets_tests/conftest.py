"""Fixtures for all tests: the sandbox exchange, settings for it, recorded candles, instances, the command line."""

from __future__ import annotations

import datetime as dt
import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NoReturn

import dagster as dg
import hypothesis
import pytest

from binance_assets.exchange.session import Exchange
from binance_assets.ingest.download import download
from binance_assets.model.partitions import partitions_between
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import parse_series
from binance_assets.orchestration.dagster_internals.event_storage import migrations_read_once
from binance_assets.sandbox import Sandbox, SandboxOptions, running_sandbox
from binance_assets.settings import Settings, read_settings
from binance_assets_tests.support.environment import Fetch, Open, Run, cli_environment, environment_of
from binance_assets_tests.support.exchange import quick_retrier
from binance_assets_tests.support.instances import copy_state_of_working_folder, new_instance
from binance_assets_tests.support.leftovers import end_processes_left_by, new_temporary_folder
from binance_assets_tests.support.postgres_server import PostgresServer, missing_postgres, running_postgres
from binance_assets_tests.support.recorded import RECORDED, missing_recordings, missing_zips
from binance_assets_tests.support.redis_server import RedisServer, missing_redis, running_redis
from binance_assets_tests.support.s3_server import S3Server, missing_s3, running_s3
from binance_assets_tests.support.warm_python import WarmPython, warm_python_server

Report = pytest.CollectReport

# The order in which the tiers run, and the files that take longest. The slowest files come first, so that at the
# end no worker is still busy with a long file while the others are idle.
_TIERS = ("services", "servers", "package", "exports", "deploy", "e2e", "hostile", "integration", "unit")
# Tiers of tests that a mark puts there, whatever their folder.
_MARKED_TIERS = ("services", "servers")
_SLOWEST_FIRST = (
    "test_cluster", "test_postgres_ui", "test_bucket_commands", "test_bucket_lake", "test_postgres_ledger",
    "test_browser", "test_user_interface", "test_cli", "test_documentation", "test_crashes", "test_launch", "test_dg",
    "test_terminal", "test_examples",
    "test_archive", "test_evidence", "test_lake_crashes", "test_download", "test_planted_defects",
)  # fmt: skip
# The files of these tiers mostly wait, those of integration mostly compute. They alternate, so that some worker
# computes whenever others wait.
_WAITING_TIERS = ("e2e", "hostile")

_TESTS = Path(__file__).parent

# Temporary folders are in memory where there is room for those of a whole run: the tests make thousands of files, and
# SQLite waits for the disk at each commit.
_MEMORY = Path("/dev/shm")
_ROOM = 4 * 1024**3
_TEMPORARY = pytest.StashKey[Path]()
_LEFT = pytest.StashKey[list[str]]()

# A run keeps what it makes until the test ends, so a collection per 700 new objects finds next to nothing.
gc.set_threshold(20_000, 20, 100)

# A test run that `nohup` or a script started in the background ignores SIGHUP or SIGINT, and so would every process
# that a test starts and sends such a signal to.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# `deadline=None`: under load an example may take longer than any useful bound. CI tests the same examples in each run,
# so that a pull request fails only because of its own change.
hypothesis.settings.register_profile("default", deadline=None, print_blob=True, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.register_profile("slow", parent=hypothesis.settings.get_profile("default"), max_examples=20)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or "default")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Use two workers more than there are cores: many tests wait for a process, a server, or the next minute.

    Each worker costs about eight seconds of CPU time of its own: imports, the collection, empty instances, patterns.
    The tests of servers wait most, for the daemon of Dagster above all.
    """
    return (os.cpu_count() or 1) + (3 if config.getoption("markexpr") == "servers" else 2)


def pytest_configure(config: pytest.Config) -> None:
    """Choose where temporary folders are, unless the variable of pytest does; workers inherit the choice.

    The environments of the tiers for packages and exports stay on the disk: they are large, and made of hard links.
    """
    if hasattr(config, "workerinput"):
        return
    signal.signal(signal.SIGTERM, _interrupt)
    is_large = config.getoption("markexpr") in ("package", "exports")
    has_room = os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free >= _ROOM
    parent = _MEMORY if has_room and not is_large else Path(tempfile.gettempdir())
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(parent))
    config.stash[_TEMPORARY] = new_temporary_folder(parent)


def _interrupt(_number: int, _frame: object) -> NoReturn:
    """End a run that is terminated as Ctrl-C does, so that it leaves nothing behind.

    The next signal is ignored: `timeout` and `make` pass on the same one.
    """
    signal.signal(signal.SIGTERM, lambda *_: None)
    raise KeyboardInterrupt


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """End the processes that a run has left behind, and let it fail; its workers have ended before."""
    if folder := session.config.stash.get(_TEMPORARY, None):
        patience = 2 if session.exitstatus == pytest.ExitCode.INTERRUPTED else 60
        session.config.stash[_LEFT] = end_processes_left_by(folder, patience)
        if session.config.stash[_LEFT]:
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name the processes that a run has left behind."""
    for command in config.stash.get(_LEFT, []):
        terminalreporter.line(f"left behind and killed: {command}", red=True)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove what killed processes have left in the folder for temporary files."""
    if folder := config.stash.get(_TEMPORARY, None):
        shutil.rmtree(folder, ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Report, Report]:
    """Let each worker begin with other files of a folder.

    In a new checkout, pytest has to compile every test file. A worker loads what another one has compiled already.
    """
    report = yield
    if isinstance(collector, pytest.Directory) and report.result:
        worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
        first = len(report.result) * worker // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
        report.result = [*report.result[first:], *report.result[:first]]
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its tier, and put the files into the order in which workers take them.

    Raises:
        pytest.UsageError: A test belongs to no tier, so that no target would run it.
    """
    for item in items:
        if (tier := _tier(item)) not in _TIERS:
            raise pytest.UsageError(
                f"{item.nodeid} is in no tier; move it to a folder of {', '.join(_TIERS[len(_MARKED_TIERS) :])}"
            )
        item.add_marker(tier)
    places = _places({(_tier(item), item.path) for item in items})
    items.sort(key=lambda item: places[_tier(item), item.path])


def pytest_collection_finish() -> None:
    """Leave what is imported and collected out of later garbage collections: pytest runs five at the end alone."""
    gc.freeze()


def _tier(item: pytest.Item) -> str:
    """Return the tier whose mark a test has, otherwise the folder of the test."""
    marked = (tier for tier in _MARKED_TIERS if item.get_closest_marker(tier))
    return next(marked, _folder(item.path))


@cache
def _folder(path: Path) -> str:
    """Return the folder of a test file; a file has up to 250 tests."""
    return path.relative_to(_TESTS).parts[0]


def _places(files: Iterable[tuple[str, Path]]) -> dict[tuple[str, Path], tuple[int, ...]]:
    """Return the place of each file, given with its tier, in the order in which workers take them."""
    waiting = _TIERS.index(_WAITING_TIERS[0])
    counts = Counter[bool]()
    places: dict[tuple[str, Path], tuple[int, ...]] = {}
    for tier, path in sorted(files, key=_slowest_first):
        number = _TIERS.index(tier)
        if tier in _WAITING_TIERS or tier == "integration":
            is_waiting = tier in _WAITING_TIERS
            counts[is_waiting] += 1
            places[tier, path] = (waiting, counts[is_waiting], number)
        else:
            places[tier, path] = (number, len(places))
    return places


def _slowest_first(file: tuple[str, Path]) -> tuple[int, int, Path]:
    tier, path = file
    slow = _SLOWEST_FIRST.index(path.stem) if path.stem in _SLOWEST_FIRST else len(_SLOWEST_FIRST)
    return _TIERS.index(tier), slow, path


@pytest.fixture(scope="session", autouse=True)
def _without_telemetry() -> Iterator[None]:
    """Turn off Dagster's telemetry, because temporary instances have no dagster.yaml that does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_DISABLE_TELEMETRY", "1")
        yield


@pytest.fixture(scope="session", autouse=True)
def _migrations_are_read_once() -> Iterator[None]:
    """Read the scripts of Dagster's migrations once per process; each instance that is opened reads them several times.

    Reading them takes more than a third of the time of a short command.
    """
    with migrations_read_once():
        yield


@pytest.fixture(autouse=True)
def _restored_environment() -> Iterator[None]:
    """Restore the environment after each test: a command that runs in this process reads its .env into it."""
    before = dict(os.environ)
    yield
    after = dict(os.environ)
    for name in after.keys() - before.keys():
        del os.environ[name]
    os.environ.update({name: value for name, value in before.items() if after.get(name) != value})


@pytest.fixture(scope="session")
def recorded() -> Path:
    """The complete folder of recorded candles; without it the test is skipped."""
    if reason := missing_recordings():
        pytest.skip(reason)
    return RECORDED


@pytest.fixture(scope="session")
def recorded_zips() -> Path:
    """A folder that has at least the zips among the recorded candles; without it the test is skipped."""
    if reason := missing_zips():
        pytest.skip(reason)
    return RECORDED


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server that all tests of a worker share; without one the test is skipped, except where CI is set."""
    if reason := missing_postgres():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    with running_postgres() as running:
        yield running


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """Return a server that speaks S3 with a bucket for each test; the test is skipped where none is installed."""
    if reason := missing_s3():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    with running_s3() as running:
        yield running


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    """A Redis server that all tests of a worker share; without one the test is skipped, except where CI is set."""
    if reason := missing_redis():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    with running_redis() as running:
        yield running


@pytest.fixture(scope="module")
def shared_sandbox() -> Iterator[Sandbox]:
    """The sandbox that all tests of a module share."""
    with running_sandbox(SandboxOptions()) as running:
        yield running


@pytest.fixture
def sandbox(shared_sandbox: Sandbox) -> Sandbox:
    """The sandbox of the module, without faults and with an empty request log."""
    shared_sandbox.faults.clear()
    shared_sandbox.requests.clear()
    return shared_sandbox


@pytest.fixture
def settings(sandbox: Sandbox, tmp_path: Path) -> Settings:
    """Settings that point to the sandbox and to a temporary folder."""
    return read_settings(environment_of(sandbox, tmp_path))


@pytest.fixture
def open_exchange(settings: Settings) -> Iterator[Open]:
    """A function that opens the exchange of a series; all are closed after the test."""
    opened: list[Exchange] = []

    def open_exchange_of(series: str) -> Exchange:
        opened.append(Exchange(parse_series(series).market, settings, retrier=quick_retrier()))
        return opened[-1]

    yield open_exchange_of
    for exchange in opened:
        exchange.close()


@pytest.fixture
def fetch(open_exchange: Open) -> Fetch:
    """A function that downloads a series from one day to another, the end excluded; its results are in order."""

    def fetch_series(name: str, start: str, end: str) -> list[PartitionResult]:
        series = parse_series(name)
        first, last = dt.date.fromisoformat(start), dt.date.fromisoformat(end)
        days = download(open_exchange(name), series, partitions_between(first, last, series.interval))
        return sorted(days, key=lambda day: day.partition)

    return fetch_series


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """A real Dagster instance on SQLite files."""
    with new_instance(tmp_path / "dagster") as opened:
        yield opened


@pytest.fixture
def suspend(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A function that makes the system's clocks show a suspension: only the time since the boot goes on."""
    read, suspended = time.clock_gettime, [0.0]
    monkeypatch.setattr(
        time, "clock_gettime", lambda clock: read(clock) + (clock == time.CLOCK_BOOTTIME) * suspended[0]
    )

    def suspend_for(seconds: float) -> None:
        suspended[0] += seconds

    return suspend_for


@pytest.fixture
def plot() -> None:
    """The extra ``plot``, for a test of a module that uses ``without_plot``."""


@pytest.fixture
def without_plot(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No extra ``plot``: a run over one partition draws a chart, which takes longer than the rest of the run."""
    if "plot" not in request.fixturenames:
        monkeypatch.setitem(sys.modules, "matplotlib", None)


@pytest.fixture
def new_state(tmp_path: Path) -> None:
    """The empty databases of the instance of the test's temporary folder; creating them takes half a second."""
    copy_state_of_working_folder(tmp_path)


@pytest.fixture(scope="session")
def warm_python() -> Iterator[WarmPython]:
    """Starts Python processes that have already imported Dagster."""
    with warm_python_server() as warm:
        yield warm


@pytest.fixture
def run_cli(sandbox: Sandbox, tmp_path: Path, warm_python: WarmPython) -> Run:
    """A function that runs ``binance-assets`` against the sandbox, as a process in the test's temporary folder."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return warm_python.run(
            ["-m", "binance_assets", *arguments],
            cwd=tmp_path,
            env=cli_environment(sandbox, tmp_path) | environment,
            timeout=120,
        )

    return run
