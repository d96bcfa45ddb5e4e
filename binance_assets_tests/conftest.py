"""What tests share: the sandbox exchange, settings that point to it, recorded candles, instances, the command line."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from binance_assets.exchange.session import Exchange
from binance_assets.ingest.download import download
from binance_assets.model.partitions import partitions_between
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import parse_series
from binance_assets.sandbox import Sandbox, SandboxOptions, running_sandbox
from binance_assets.settings import Settings, read_settings
from binance_assets_tests.support.environment import RECORDED, Fetch, Open, Run, cli_environment, environment_of
from binance_assets_tests.support.exchange import quick_retrier
from binance_assets_tests.support.instances import new_instance

# Files whose tests mostly wait for other processes.
_SLOWEST_FIRST = ("test_user_interface", "test_browser", "test_crashes", "test_cli")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slowest files: at the end no worker waits for another one that has just begun them."""
    order = {name: place for place, name in enumerate(_SLOWEST_FIRST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


@pytest.fixture(scope="session", autouse=True)
def _without_telemetry() -> Iterator[None]:
    """Temporary instances have no dagster.yaml that switches it off."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_DISABLE_TELEMETRY", "1")
        yield


@pytest.fixture(scope="session")
def recorded() -> Path:
    """The folder of recorded candles; the test is skipped where it does not lie beside the checkout."""
    if not RECORDED.is_dir():
        pytest.skip("no recorded candles beside the checkout")
    return RECORDED


@pytest.fixture(scope="module")
def shared_sandbox() -> Iterator[Sandbox]:
    """One sandbox for a module's tests; its faults are cleared by :func:`sandbox`."""
    with running_sandbox(SandboxOptions()) as served:
        yield served


@pytest.fixture
def sandbox(shared_sandbox: Sandbox) -> Sandbox:
    """A sandbox without faults, whose log of requests is empty."""
    shared_sandbox.faults.clear()
    shared_sandbox.requests.clear()
    return shared_sandbox


@pytest.fixture
def settings(sandbox: Sandbox, tmp_path: Path) -> Settings:
    """Settings that point to the sandbox and to a temporary folder."""
    return read_settings(environment_of(sandbox, tmp_path))


@pytest.fixture
def open_exchange(settings: Settings) -> Iterator[Open]:
    """Opens exchanges by market name and closes them after the test."""
    opened: list[Exchange] = []

    def open_one(series: str) -> Exchange:
        opened.append(Exchange(parse_series(series).market, settings, retrier=quick_retrier()))
        return opened[-1]

    yield open_one
    for exchange in opened:
        exchange.close()


@pytest.fixture
def fetch(open_exchange: Open) -> Fetch:
    """Downloads a series from one day to another, the end excluded, and returns the days in order."""

    def fetch_one(name: str, start: str, end: str) -> list[PartitionResult]:
        series = parse_series(name)
        first, last = dt.date.fromisoformat(start), dt.date.fromisoformat(end)
        days = download(open_exchange(name), series, partitions_between(first, last, series.interval))
        return sorted(days, key=lambda day: day.partition)

    return fetch_one


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """A real Dagster instance on SQLite files."""
    with new_instance(tmp_path / "dagster") as opened:
        yield opened


@pytest.fixture
def run_cli(sandbox: Sandbox, tmp_path: Path) -> Run:
    """Runs ``binance-assets`` as a process of its own in a folder of its own, against the sandbox."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "binance_assets", *arguments],
            cwd=tmp_path,
            env=cli_environment(sandbox, tmp_path) | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return run
