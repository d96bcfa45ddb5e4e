"""What a user does with Dagster's web server, as the requests that clicks send."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import requests

from binance_assets.model.series import parse_series
from binance_assets.storage.lake import Lake
from binance_assets_tests.support.lakes import keys
from binance_assets_tests.support.polling import until

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
  __typename ... on TerminateRunFailure { message } ... on PythonError { message } } }"""
RUNS = "{ runsOrError { ... on Runs { results { runId status } } } }"
BACKFILL_STATUS = """
query($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }"""
PARTITIONS = """
query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode { assetPartitionStatuses {
  ... on TimePartitionStatuses { ranges { status startKey endKey } } } } } }"""

LOCATIONS = "{ workspaceOrError { ... on Workspace { locationEntries { locationOrLoadError { __typename } } } } }"
RELOAD = 'mutation { reloadRepositoryLocation(repositoryLocationName: "binance_assets") { __typename } }'


class WebServer(Protocol):
    """A web server of Dagster whose runs write the lake ``lake`` in a folder."""

    url: str
    folder: Path


class UserInterface:
    """What a user does with the web server of a ``dagster dev`` or of a cluster.

    Args:
        dev: The Dagster.

    Attributes:
        backfills: The ids of the backfills that it launched, in their order.
    """

    def __init__(self, dev: WebServer) -> None:
        self.backfills: list[str] = []
        self._url = dev.url
        self._lake = Lake(dev.folder / "lake")

    def query(self, query: str, **variables: Any) -> dict[str, Any]:
        body = {"query": query, "variables": variables}
        response = requests.post(f"{self._url}/graphql", json=body, timeout=60).json()
        assert "errors" not in response, response
        return dict(response["data"])

    def is_loaded(self) -> bool:
        """Return whether the code location is loaded."""
        return "assetNodeOrError" in self.query(PARTITIONS, key={"path": ["spot", "BTCUSDT", "1m"]})

    def reload_if_broken(self) -> None:
        """Reload the code location if it cannot be reached: Dagster does not start a killed code server again."""
        entries = self.query(LOCATIONS)["workspaceOrError"]["locationEntries"]
        if any((entry["locationOrLoadError"] or {}).get("__typename") == "PythonError" for entry in entries):
            self.query(RELOAD)

    def launch(self, symbol: str, first: str, last: str, more_tags: Mapping[str, str] | None = None) -> str:
        """Materialize a range of one asset in one run; return the run's id."""
        selector = {
            "repositoryLocationName": "binance_assets",
            "repositoryName": "__repository__",
            "pipelineName": "spot_daily",
            "assetSelection": [{"path": ["spot", symbol, "1m"]}],
            "assetCheckSelection": [{"assetKey": {"path": ["spot", symbol, "1m"]}, "name": "gap_free"}],
        }
        tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
        tags |= more_tags or {}
        params = {
            "selector": selector,
            "mode": "default",
            "runConfigData": "{}",
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
        }
        launched = self.query(LAUNCH, params=params)["launchPipelineExecution"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return str(launched["run"]["runId"])

    def backfill(self, symbols: Sequence[str], days: Sequence[str]) -> str:
        """Launch a backfill of the 1m assets of symbols; return its id."""
        params = {
            "assetSelection": [{"path": ["spot", symbol, "1m"]} for symbol in symbols],
            "partitionNames": days,
            "tags": [],
        }
        launched = self.query(BACKFILL, params=params)["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        self.backfills.append(str(launched["backfillId"]))
        return self.backfills[-1]

    def terminate(self, run: str) -> None:
        """Terminate a run; return before it has ended."""
        error = self.error_of_terminating(run)
        assert not error, error

    def error_of_terminating(self, run: str) -> str:
        """Terminate a run; return why that is not possible now, otherwise an empty text."""
        answer = self.query(TERMINATE, run=run)["terminateRun"]
        return "" if answer["__typename"] == "TerminateRunSuccess" else str(answer.get("message", answer))

    def backfill_status(self, backfill: str) -> str:
        return str(self.query(BACKFILL_STATUS, id=backfill)["partitionBackfillOrError"]["status"])

    def runs(self) -> dict[str, str]:
        """Return the status of every run, by its id."""
        return {str(run["runId"]): str(run["status"]) for run in self.query(RUNS)["runsOrError"]["results"]}

    def status(self, run: str) -> str:
        """Return the status of a run; an empty text if there is none."""
        return self.runs().get(run, "")

    def final_status(self, run: str, seconds: float = 120) -> str:
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
