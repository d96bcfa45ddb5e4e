"""``download --launch`` against a real ``dagster dev``, whose daemon takes the runs from the queue.

``test_postgres_ui.py`` runs the same tests with the storage of Dagster on a Postgres server.
"""

from __future__ import annotations

import datetime as dt
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from binance_assets.model.timestamps import HOUR, to_ms
from binance_assets.sandbox import Fault, Sandbox
from binance_assets_tests.support.dagster_dev import WORKSPACE, DagsterDev, dagster_dev
from binance_assets_tests.support.environment import CHECKOUT, Run, without_progress
from binance_assets_tests.support.exchange import ALL_SOURCES
from binance_assets_tests.support.polling import until
from binance_assets_tests.support.user_interface import UserInterface
from binance_assets_tests.support.warm_python import WarmPython

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

DOWNLOAD = ("download", "--market", "usdm", "--interval", "1h", "--json")
HEARTBEAT = """
{ instance { daemonHealth { daemonStatus(daemonType: "QUEUED_RUN_COORDINATOR") { lastHeartbeatTime } } } }"""
RUNS = '{ runsOrError(filter: {pipelineName: "usdm_daily"}) { ... on Runs { results { status } } } }'
TWO_SERIES = (*DOWNLOAD, "BTCUSDT", "ETHUSDT", "--start", "2024-01-01", "--end", "2024-03-01")


@pytest.fixture(scope="module")
def started(shared_sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagsterDev]:
    """A ``dagster dev`` with the project's ``dagster.yaml``, in a folder of its own; it may not be ready yet."""
    folder = tmp_path_factory.mktemp("launch")
    shutil.copy(CHECKOUT / "dagster.yaml", folder)
    (folder / "universe.yaml").write_text("series: []\n")
    # A response that hangs does so until the test is over.
    with dagster_dev(shared_sandbox, folder, environment={"BINANCE_ASSETS_READ_TIMEOUT": "300"}) as dev:
        yield dev


class Queue:
    """The command, in the folder and with the environment of a ``dagster dev``."""

    def __init__(self, dev: DagsterDev, warm: WarmPython) -> None:
        self._dev, self._warm = dev, warm
        self._started: list[subprocess.Popen[str]] = []
        self.ui = UserInterface(dev)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the command; its lines can be read while it runs."""
        process = subprocess.Popen(
            [sys.executable, "-m", "binance_assets", *arguments, "--launch"],
            cwd=self._dev.folder, env=self._dev.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        self._started.append(process)
        return process

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Return the exit code, standard output, and standard error."""
        words = ["-m", "binance_assets", *arguments, "--launch"]
        ended = self._warm.run(words, cwd=self._dev.folder, env=self._dev.environment, timeout=400)
        return ended.returncode, ended.stdout, ended.stderr

    def close(self) -> None:
        """Kill what was started and has not ended, because its test failed."""
        for process in self._started:
            process.kill()
            process.communicate()

    def statuses(self) -> list[str]:
        """Return the status of each run of the job, the newest first; sensors launch others."""
        return [str(run["status"]) for run in self.ui.query(RUNS)["runsOrError"]["results"]]


@pytest.fixture
def queue(started: DagsterDev, warm_python: WarmPython) -> Iterator[Queue]:
    started.wait_until_ready()
    queue = Queue(started, warm_python)
    until(120, lambda: queue.ui.query(HEARTBEAT)["instance"]["daemonHealth"]["daemonStatus"]["lastHeartbeatTime"])
    yield queue
    queue.close()


@pytest.fixture
def workspace(started: DagsterDev) -> Iterator[Path]:
    """The file that names the code location; the running Dagster does not read it again."""
    file = started.folder / "workspace.yaml"
    original = file.read_text()
    yield file
    file.write_text(original)


def test_launched_runs_report_what_a_local_download_reports(
    queue: Queue, sandbox: Sandbox, run_cli: Run, new_state: None
) -> None:
    lost = to_ms(dt.date(2024, 2, 4)) + 5 * HOUR
    for path in ALL_SOURCES:
        sandbox.faults.add(
            Fault("missing_row", symbol="ETHUSDT", start=lost, end=lost + HOUR, path=path, interval="1h")
        )
    code, stdout, stderr = queue.run(*TWO_SERIES)
    local = run_cli(*TWO_SERIES)
    assert (code, local.returncode) == (1, 1), stderr
    launched, here = facts(stdout), facts(local.stdout)
    assert launched == here
    assert launched["usdm/ETHUSDT/1h"]["refused"][0]["missing"] == [["2024-02-04T05:00:00Z", "2024-02-04T06:00:00Z"]]
    assert launched["usdm/ETHUSDT/1h"]["days_present"] == 59
    assert all(outcome["requests"] and outcome["rows"] for outcome in json.loads(stdout).values())
    assert sorted(queue.statuses()) == ["FAILURE", "SUCCESS"]  # a run for each series


def facts(stdout: str) -> dict[str, Any]:
    """Return the outcome of each series without what depends on the network and the clock."""
    names = ("days_asked", "days_present", "verdicts", "refused", "rows")
    return {series: {name: outcome[name] for name in names} for series, outcome in json.loads(stdout).items()}


def test_what_is_there_is_not_launched_again(queue: Queue) -> None:
    before = queue.statuses()
    code, stdout, stderr = queue.run(*DOWNLOAD, "BTCUSDT", "--start", "2024-01-01", "--end", "2024-03-01")
    assert (code, without_progress(stderr)) == (0, [])
    assert json.loads(stdout)["usdm/BTCUSDT/1h"]["days_present"] == 60
    assert queue.statuses() == before


def test_a_second_command_follows_the_runs_of_the_first_and_ctrl_c_of_the_first_cancels_them(
    queue: Queue, sandbox: Sandbox
) -> None:
    hang = to_ms(dt.date(2023, 3, 1))
    # A request for the first candle of a symbol covers all days; what it finds is remembered.
    assert queue.run(*DOWNLOAD, "BTCUSDT", "--start", "2024-01-01", "--end", "2024-01-02")[0] == 0
    for path in ALL_SOURCES:
        sandbox.faults.add(Fault("hang", symbol="BTCUSDT", start=hang, end=hang + HOUR, path=path, interval="1h"))
    words = (*DOWNLOAD, "BTCUSDT", "--start", "2023-01-01", "--end", "2023-06-01", "--source", "rest")
    before = len(queue.statuses())
    first = queue.start(*words)
    until(120, lambda: queue.statuses()[:1] == ["STARTED"] and len(queue.statuses()) == before + 1)
    second = queue.start(*words)
    assert second.stderr is not None
    lines: list[str] = []
    while "is under way for the same days; following it" not in "".join(lines):
        lines.append(second.stderr.readline())
        assert lines[-1], lines
    first.send_signal(signal.SIGINT)
    _, stderr = first.communicate(timeout=250)
    assert first.returncode == 130, stderr
    (error,) = without_progress(stderr)
    assert error.startswith("error: interrupted; 1 run was canceled, and ")
    stdout, stderr = second.communicate(timeout=250)
    assert second.returncode == 1
    assert json.loads(stdout)["usdm/BTCUSDT/1h"]["days_present"] < 151
    assert any(line.endswith("was canceled") for line in without_progress(stderr))
    assert (queue.statuses()[0], len(queue.statuses())) == ("CANCELED", before + 1)


def test_a_run_that_cannot_be_launched_is_a_failure_with_its_reason(queue: Queue, workspace: Path) -> None:
    """The daemon knows no code location of that name."""
    workspace.write_text(WORKSPACE.replace("location_name: binance_assets", "location_name: other"))
    words = (*DOWNLOAD, "SOLUSDT", "--start", "2024-01-01", "--end", "2024-01-02")
    code, stdout, stderr = queue.run(*words)
    assert code == 1, stderr
    assert json.loads(stdout)["usdm/SOLUSDT/1h"]["days_present"] == 0
    assert any(line.startswith("error: run ") and "other" in line for line in without_progress(stderr)), stderr
    assert queue.statuses()[0] == "FAILURE"


def test_a_code_location_without_the_series_is_bad_input(queue: Queue, workspace: Path) -> None:
    (workspace.parent / "nothing.py").write_text("import dagster as dg\n\ndefs = dg.Definitions()\n")
    workspace.write_text("load_from: [{python_file: nothing.py}]\n")
    before = queue.statuses()
    words = (*DOWNLOAD, "ADAUSDT", "--start", "2024-01-01", "--end", "2024-01-02")
    code, stdout, stderr = queue.run(*words)
    assert (code, stdout) == (2, "")
    assert any("does not have usdm/ADAUSDT/1h; reload it" in line for line in without_progress(stderr)), stderr
    assert queue.statuses() == before
