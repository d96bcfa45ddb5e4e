"""The requests that clicks in Dagster's user interface send, to a real ``dagster dev`` with daemon and run workers."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import requests

from binance_assets.model.series import parse_series
from binance_assets.model.timestamps import DAY, HOUR, MINUTE, to_ms
from binance_assets.sandbox import Fault, Sandbox
from binance_assets.storage.lake import Lake
from binance_assets_tests.support.dagster_dev import DagsterDev, dagster_dev
from binance_assets_tests.support.lakes import keys
from binance_assets_tests.support.polling import until

# The tests share one Dagster, which the first test starts and restarts.
pytestmark = pytest.mark.timeout(400)

UNIVERSE = """\
series:
  - {market: spot, symbols: [BTCUSDT], intervals: [1m], source: rest}
  - {market: spot, symbols: [ETHUSDT], intervals: [1m], source: auto}
"""
CONFIG = "run_queue: {dequeue_interval_seconds: 1}\ntelemetry: {enabled: false}\n"
SYMBOLS = ("BTCUSDT", "ETHUSDT")
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}
MONTHS = [str(dt.date(2022, 1, 1) + dt.timedelta(n)) for n in range(200)]
FEBRUARY = [f"2024-02-{day:02}" for day in range(1, 11)]

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
BACKFILL_STATUS = """
query($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }"""
PARTITIONS = """
query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode { assetPartitionStatuses {
  ... on TimePartitionStatuses { ranges { status startKey endKey } } } } } }"""


class UserInterface:
    """What a user does with the web server of a ``dagster dev``.

    Attributes:
        months: Id of the backfill over ``MONTHS``, during which Dagster is restarted.
    """

    def __init__(self, dev: DagsterDev) -> None:
        self.months = ""
        self._url = dev.url
        self._lake = Lake(dev.folder / "lake")

    def query(self, query: str, **variables: Any) -> dict[str, Any]:
        body = {"query": query, "variables": variables}
        response = requests.post(f"{self._url}/graphql", json=body, timeout=30).json()
        assert "errors" not in response, response
        return dict(response["data"])

    def is_loaded(self) -> bool:
        """Return whether the code location is loaded."""
        return "assetNodeOrError" in self.query(PARTITIONS, key={"path": ["spot", "BTCUSDT", "1m"]})

    def launch(self, symbol: str, first: str, last: str) -> str:
        """Materialize a range of one asset in one run; return the run's id."""
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
        launched = self.query(LAUNCH, params=params)["launchPipelineExecution"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return str(launched["run"]["runId"])

    def backfill(self, days: Sequence[str]) -> str:
        """Launch a backfill of both assets; return its id."""
        params = {
            "assetSelection": [{"path": ["spot", symbol, "1m"]} for symbol in SYMBOLS],
            "partitionNames": days,
            "tags": [],
        }
        launched = self.query(BACKFILL, params=params)["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        return str(launched["backfillId"])

    def backfill_status(self, backfill: str) -> str:
        return str(self.query(BACKFILL_STATUS, id=backfill)["partitionBackfillOrError"]["status"])

    def status(self, run: str) -> str:
        results = self.query(RUNS)["runsOrError"]["results"]
        return next((str(result["status"]) for result in results if result["runId"] == run), "")

    def final_status(self, run: str, seconds: float = 60) -> str:
        """Wait until a run has ended, and return its status."""
        until(seconds, lambda: self.status(run) in ENDED)
        return self.status(run)

    def partitions(self, symbol: str, period: str) -> list[tuple[str, str, str]]:
        """Return status, first and last key of the ranges that begin in a year or month, such as ``2024-02``."""
        node = self.query(PARTITIONS, key={"path": ["spot", symbol, "1m"]})["assetNodeOrError"]
        ranges = node["assetPartitionStatuses"]["ranges"]
        return [
            (entry["status"], entry["startKey"], entry["endKey"])
            for entry in ranges
            if entry["startKey"].startswith(period)
        ]

    def stored(self, symbol: str, first: str, last: str) -> list[str]:
        """Return the keys from ``first`` to ``last``, both included, that are in the lake."""
        return [key for key in keys(self._lake, parse_series(f"spot/{symbol}/1m")) if first <= key <= last]


@pytest.fixture(scope="module")
def ui(shared_sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[UserInterface]:
    """A ``dagster dev`` that has two backfills in progress and was restarted during the longer one.

    Dagster looks for backfills when it starts and then every thirty seconds (``DEFAULT_DAEMON_INTERVAL_SECONDS``, not
    configurable in 1.13). So the longer backfill is launched first and its result is checked last; the other one is
    launched just before the restart.
    """
    folder = tmp_path_factory.mktemp("ui")
    (folder / "dagster.yaml").write_text(CONFIG)
    (folder / "universe.yaml").write_text(UNIVERSE)
    noon = to_ms(dt.date(2024, 2, 4)) + 12 * HOUR
    for path in ("klines", "archive"):
        shared_sandbox.faults.add(
            Fault("missing_row", symbol="ETHUSDT", start=noon, end=noon + MINUTE, path=path, interval="1m")
        )
    with dagster_dev(shared_sandbox, folder) as dev:
        ui = UserInterface(dev)
        dev.wait_until_ready()
        until(30, ui.is_loaded)
        ui.months = ui.backfill(MONTHS)
        until(150, lambda: sum(len(ui.stored(symbol, MONTHS[0], MONTHS[-1])) for symbol in SYMBOLS) > 20)
        assert ui.backfill_status(ui.months) == "REQUESTED"
        ui.backfill(FEBRUARY)
        dev.stop()
        dev.start()
        dev.wait_until_ready()
        until(30, ui.is_loaded)
        yield ui


def test_a_single_day_is_materialized_by_one_run(ui: UserInterface) -> None:
    assert ui.final_status(ui.launch("BTCUSDT", "2024-01-01", "2024-01-01")) == "SUCCESS"
    assert ui.partitions("BTCUSDT", "2024-01") == [("MATERIALIZED", "2024-01-01", "2024-01-01")]


def test_a_backfill_of_two_assets_with_a_bad_day_fails_only_that_day(ui: UserInterface) -> None:
    until(90, lambda: len(ui.stored("ETHUSDT", FEBRUARY[0], FEBRUARY[-1])) == 9)
    until(30, lambda: ("FAILED", "2024-02-04", "2024-02-04") in ui.partitions("ETHUSDT", "2024-02"))
    assert ui.partitions("ETHUSDT", "2024-02") == [
        ("MATERIALIZED", "2024-02-01", "2024-02-03"),
        ("FAILED", "2024-02-04", "2024-02-04"),
        ("MATERIALIZED", "2024-02-05", "2024-02-10"),
    ]
    assert ui.partitions("BTCUSDT", "2024-02") == [("MATERIALIZED", "2024-02-01", "2024-02-10")]


@pytest.mark.parametrize(("symbol", "path"), [("BTCUSDT", "klines"), ("ETHUSDT", "archive")])
def test_terminate_ends_a_run_as_canceled_while_a_socket_hangs_and_keeps_what_was_finished(
    ui: UserInterface, shared_sandbox: Sandbox, symbol: str, path: str
) -> None:
    hang = to_ms(dt.date(2024, 6, 1)) + 20 * DAY
    shared_sandbox.faults.add(Fault("hang", symbol=symbol, start=hang, end=hang + 1, path=path, interval="1m"))
    run = ui.launch(symbol, "2024-04-01", "2024-06-30")
    until(60, lambda: len(ui.stored(symbol, "2024-04-01", "2024-06-30")) >= 10)
    began = time.monotonic()
    assert ui.query(TERMINATE, run=run)["terminateRun"]["__typename"] == "TerminateRunSuccess"
    assert ui.final_status(run, 20) == "CANCELED"
    assert time.monotonic() - began < 3  # two seconds, and the time that the requests take
    done = [entry for entry in ui.partitions(symbol, "2024-04") if entry[1] == "2024-04-01"]
    assert done
    assert done[0][0] == "MATERIALIZED"
    assert len(ui.stored(symbol, "2024-04-01", "2024-06-30")) >= 10


def test_a_backfill_over_months_of_two_assets_survives_a_restart_of_the_daemon(ui: UserInterface) -> None:
    until(150, lambda: ui.backfill_status(ui.months) in {"COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"})
    for symbol in SYMBOLS:
        assert ui.partitions(symbol, "2022") == [("MATERIALIZED", MONTHS[0], MONTHS[-1])]
        assert ui.stored(symbol, MONTHS[0], MONTHS[-1]) == MONTHS
