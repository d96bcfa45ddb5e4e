"""What a click in Dagster's user interface sends, sent to a real ``dagster dev`` with its daemon and run workers."""

from __future__ import annotations

import datetime as dt
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from binance_assets.model.timestamps import DAY, HOUR, MINUTE, to_ms
from binance_assets.sandbox import Fault, Sandbox
from binance_assets_tests.support.environment import cli_environment
from binance_assets_tests.support.user_interface import WORKSPACE, until

UNIVERSE = """\
series:
  - {market: spot, symbols: [BTCUSDT], intervals: [1m], source: rest}
  - {market: spot, symbols: [ETHUSDT], intervals: [1m], source: auto}
"""
CONFIG = "run_queue: {dequeue_interval_seconds: 1}\ntelemetry: {enabled: false}\n"
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}

LAUNCH = """
mutation($params: ExecutionParams!) { launchPipelineExecution(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  ... on RunConfigValidationInvalid { errors { message } } } }"""
BACKFILL = """
mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
TERMINATE = """
mutation($run: String!) { terminateRun(runId: $run) {
  __typename ... on TerminateRunFailure { message } } }"""
RUNS = "{ runsOrError { ... on Runs { results { runId status } } } }"
PARTITIONS = """
query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode { assetPartitionStatuses {
  ... on TimePartitionStatuses { ranges { status startKey endKey } } } } } }"""


class UserInterface:
    """The web server of a ``dagster dev`` and the folder that it works in."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        response = requests.post(
            f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=30
        ).json()
        assert "errors" not in response, response
        return dict(response["data"])

    def launch(self, symbol: str, first: str, last: str) -> str:
        """Materialize a range of one asset in one run; returns the run's id."""
        selector = {
            "repositoryLocationName": "binance_assets",
            "repositoryName": "__repository__",
            "pipelineName": "spot_daily",
            "assetSelection": [{"path": ["spot", symbol, "1m"]}],
            "assetCheckSelection": [{"assetKey": {"path": ["spot", symbol, "1m"]}, "name": "gap_free"}],
        }
        tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
        params = {
            "selector": selector,
            "mode": "default",
            "runConfigData": "{}",
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
        }
        launched = self.ask(LAUNCH, params=params)["launchPipelineExecution"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return str(launched["run"]["runId"])

    def status(self, run: str) -> str:
        results = self.ask(RUNS)["runsOrError"]["results"]
        return next((str(found["status"]) for found in results if found["runId"] == run), "")

    def ended(self, run: str, seconds: float = 60) -> str:
        return str(until(seconds, lambda: self.status(run) if self.status(run) in ENDED else ""))

    def partitions(self, symbol: str) -> list[tuple[str, str, str]]:
        node = self.ask(PARTITIONS, key={"path": ["spot", symbol, "1m"]})["assetNodeOrError"]
        ranges = node["assetPartitionStatuses"]["ranges"]
        return [(found["status"], found["startKey"], found["endKey"]) for found in ranges]

    def files(self, symbol: str) -> int:
        return len(list((self.folder / f"lake/market=spot/symbol={symbol}/interval=1m").glob("*.parquet")))


@pytest.fixture(scope="module")
def ui(shared_sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[UserInterface]:
    with dagster_dev(shared_sandbox, working_folder(tmp_path_factory.mktemp("ui"))) as served:
        yield served


def working_folder(folder: Path) -> Path:
    (folder / "home").mkdir()
    (folder / "home" / "dagster.yaml").write_text(CONFIG)
    (folder / "universe.yaml").write_text(UNIVERSE)
    (folder / "workspace.yaml").write_text(WORKSPACE)
    return folder


@contextmanager
def dagster_dev(sandbox: Sandbox, folder: Path) -> Iterator[UserInterface]:
    """A ``dagster dev`` that works in ``folder``; at the end it is told to stop; a run under way goes on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "dagster", "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port)],
        cwd=folder, env=cli_environment(sandbox, folder) | {"DAGSTER_HOME": str(folder / "home")},
        stdout=(folder / "log").open("a"), stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    served = UserInterface(f"http://127.0.0.1:{port}", folder)

    def responses() -> bool:
        try:
            return requests.get(f"{served.url}/server_info", timeout=2).ok
        except requests.RequestException:
            return False

    try:
        until(60, responses)
        until(30, lambda: "assetNodeOrError" in served.ask(PARTITIONS, key={"path": ["spot", "BTCUSDT", "1m"]}))
        yield served
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.usefixtures("sandbox")
def test_a_single_day(ui: UserInterface) -> None:
    assert ui.ended(ui.launch("BTCUSDT", "2024-01-01", "2024-01-01")) == "SUCCESS"
    assert ui.partitions("BTCUSDT") == [("MATERIALIZED", "2024-01-01", "2024-01-01")]


def test_a_backfill_of_two_assets_with_a_bad_day_fails_only_that_day(ui: UserInterface, sandbox: Sandbox) -> None:
    noon = to_ms(dt.date(2024, 2, 4)) + 12 * HOUR
    for path in ("klines", "archive"):
        sandbox.faults.add(
            Fault("missing_row", symbol="ETHUSDT", start=noon, end=noon + MINUTE, path=path, interval="1m")
        )
    days = [f"2024-02-{day:02}" for day in range(1, 11)]
    params = {
        "assetSelection": [{"path": ["spot", symbol, "1m"]} for symbol in ("BTCUSDT", "ETHUSDT")],
        "partitionNames": days,
        "tags": [],
    }
    launched = ui.ask(BACKFILL, params=params)["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    until(90, lambda: ui.files("ETHUSDT") == 9)
    until(30, lambda: ("FAILED", "2024-02-04", "2024-02-04") in ui.partitions("ETHUSDT"))
    assert ui.partitions("ETHUSDT") == [
        ("MATERIALIZED", "2024-02-01", "2024-02-03"),
        ("FAILED", "2024-02-04", "2024-02-04"),
        ("MATERIALIZED", "2024-02-05", "2024-02-10"),
    ]
    assert ("MATERIALIZED", "2024-02-01", "2024-02-10") in ui.partitions("BTCUSDT")


@pytest.mark.parametrize(("symbol", "path"), [("BTCUSDT", "klines"), ("ETHUSDT", "archive")])
def test_terminate_ends_a_run_as_canceled_while_a_socket_hangs_and_keeps_what_was_finished(
    ui: UserInterface, sandbox: Sandbox, symbol: str, path: str
) -> None:
    hang = to_ms(dt.date(2024, 6, 1)) + 20 * DAY
    sandbox.faults.add(Fault("hang", start=hang, end=hang + 1, path=path, interval="1m"))
    before = ui.files(symbol)
    run = ui.launch(symbol, "2024-04-01", "2024-06-30")
    until(60, lambda: ui.files(symbol) >= before + 10)
    began = time.monotonic()
    assert ui.ask(TERMINATE, run=run)["terminateRun"]["__typename"] == "TerminateRunSuccess"
    assert ui.ended(run, 20) == "CANCELED"
    assert time.monotonic() - began < 3  # two seconds, and what asking for it adds
    done = [found for found in ui.partitions(symbol) if found[1] == "2024-04-01"]
    assert done
    assert done[0][0] == "MATERIALIZED"
    assert ui.files(symbol) >= before + 10


@pytest.mark.usefixtures("sandbox")
@pytest.mark.timeout(300)
def test_a_backfill_over_months_of_two_assets_survives_a_restart_of_the_daemon(
    shared_sandbox: Sandbox, tmp_path: Path
) -> None:
    folder = working_folder(tmp_path)
    days = [str(dt.date(2022, 1, 1) + dt.timedelta(n)) for n in range(200)]
    params = {
        "assetSelection": [{"path": ["spot", symbol, "1m"]} for symbol in ("BTCUSDT", "ETHUSDT")],
        "partitionNames": days,
        "tags": [],
    }
    with dagster_dev(shared_sandbox, folder) as first:
        launched = first.ask(BACKFILL, params=params)["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        until(90, lambda: first.files("BTCUSDT") + first.files("ETHUSDT") > 20)
    with dagster_dev(shared_sandbox, folder) as second:
        status = """query($id: String!) { partitionBackfillOrError(backfillId: $id) {
            ... on PartitionBackfill { status } } }"""

        def over() -> bool:
            found = second.ask(status, id=launched["backfillId"])["partitionBackfillOrError"]["status"]
            return found in {"COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"}

        until(150, over)
        for symbol in ("BTCUSDT", "ETHUSDT"):
            assert second.partitions(symbol) == [("MATERIALIZED", days[0], days[-1])]
            assert second.files(symbol) == len(days)
