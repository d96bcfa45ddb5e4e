"""Processes that are killed, share a budget, or write at the same time, and disks that are full or read-only."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import random
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
import requests

from binance_assets.model.series import parse_series
from binance_assets.model.timestamps import MINUTE
from binance_assets.orchestration.instance import open_instance
from binance_assets.orchestration.interrupted import HIDDEN_HOST_TAG, IDENTITY_TAG, fail_runs_of_dead_processes
from binance_assets.orchestration.sensors import interrupted_runs_sensor
from binance_assets.processes import process_start_time
from binance_assets.sandbox import Sandbox, SandboxOptions, running_sandbox
from binance_assets.storage.lake import Lake, LakeError
from binance_assets_tests.support.dagster_dev import dagster_dev
from binance_assets_tests.support.environment import CHECKOUT, Fetch, Run, cli_environment, without_progress
from binance_assets_tests.support.exchange import expected_candles
from binance_assets_tests.support.lakes import keys, temporary_files
from binance_assets_tests.support.polling import until
from binance_assets_tests.support.user_interface import UserInterface
from binance_assets_tests.support.warm_python import WarmProcess, WarmPython

NAME = "spot/BTCUSDT/1m"
SERIES = parse_series(NAME)
FOLDER = "market=spot/symbol=BTCUSDT/interval=1m"
START, END = dt.date(2024, 1, 1), dt.date(2024, 3, 11)
DAYS = (END - START).days


@pytest.fixture(scope="module")
def slow() -> Iterator[Sandbox]:
    """A sandbox with round trips so long that a test can act while a download is running."""
    with running_sandbox(SandboxOptions(rtt_ms=60)) as running:
        yield running


Start = Callable[..., WarmProcess]


@pytest.fixture
def start_download(warm_python: WarmPython) -> Start:
    """Starts a download from a sandbox into a folder, as a process."""

    def start_process(
        sandbox: Sandbox,
        folder: Path,
        start: dt.date = START,
        end: dt.date = END,
        *more: str,
        **environment: str,
    ) -> WarmProcess:
        return warm_python.start(
            ["-m", "binance_assets", "download", SERIES.symbol, "--market", "spot", "--interval", "1m",
             "--start", str(start), "--end", str(end), "--source", "rest", "--json", *more],
            cwd=folder, env=cli_environment(sandbox, folder) | environment,
        )  # fmt: skip

    return start_process


def assert_files_are_exact(sandbox: Sandbox, lake: Lake) -> list[str]:
    """Compare every partition in the lake with the exchange's own candles; return their keys."""
    held = list(lake.stored_partitions(SERIES))
    for partition, _, candles in lake.read_each(SERIES, held):
        expected = expected_day(sandbox, partition.start, partition.end)
        assert isinstance(candles, pl.DataFrame), candles
        assert candles.equals(expected), partition
    return [partition.key for partition in held]


@cache
def expected_day(sandbox: Sandbox, start: int, end: int) -> pl.DataFrame:
    """Return the exchange's own candles of a day; the test compares them again after each kill."""
    return expected_candles(sandbox, NAME, start, end)


def has_begun(process: WarmProcess, sandbox: Sandbox) -> bool:
    """Return whether a download has sent a request, or has ended."""
    return bool(sandbox.requests) or process.poll() is not None


@pytest.mark.usefixtures("new_state")
def test_a_download_that_is_killed_repeatedly_leaves_only_whole_files_and_loses_none(
    start_download: Start, slow: Sandbox, tmp_path: Path
) -> None:
    lake, rng, kills = Lake(tmp_path / "lake"), random.Random(), 0
    stored: list[str] = []
    while len(stored) < DAYS and kills < 8:
        slow.requests.clear()
        process = start_download(slow, tmp_path)
        until(60, partial(has_begun, process, slow))
        # Counted from its first request; the whole download takes more than a second from there.
        pause = rng.uniform(0, 1.5) if kills else rng.uniform(0, 0.3)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(pause)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate()
        now = assert_files_are_exact(slow, lake)
        assert set(now) >= set(stored), f"killed after {pause} s"
        stored = now
    assert kills > 0
    process = start_download(slow, tmp_path)
    printed, errors = process.communicate(timeout=250)
    assert process.returncode == 0, errors
    assert json.loads(printed)[NAME]["days_present"] == DAYS
    assert len(assert_files_are_exact(slow, lake)) == DAYS
    assert temporary_files(lake) == []
    with contextlib.chdir(tmp_path), open_instance(tmp_path, {}) as instance:
        assert len(instance.get_materialized_partitions(dg.AssetKey(list(SERIES.key)))) == DAYS
        statuses = Counter(run.status.value for run in instance.get_runs())
    assert set(statuses) <= {"SUCCESS", "FAILURE"}, statuses


@pytest.mark.usefixtures("new_state")
def test_the_next_command_fails_a_killed_run_and_names_its_process(
    start_download: Start, slow: Sandbox, tmp_path: Path
) -> None:
    process = start_download(slow, tmp_path)
    folder = tmp_path / "lake" / FOLDER
    until(60, lambda: any(folder.glob("*.parquet")))
    process.kill()
    process.communicate()
    with contextlib.chdir(tmp_path), open_instance(tmp_path, {}) as instance:
        known = instance.get_materialized_partitions(dg.AssetKey(list(SERIES.key)))
    written = keys(Lake(tmp_path / "lake"), SERIES)
    # The events follow the file: a kill between the two leaves stored partitions that Dagster does not know.
    assert written
    assert known <= set(written)
    start_download(slow, tmp_path).communicate(timeout=250)
    with contextlib.chdir(tmp_path), open_instance(tmp_path, {}) as instance:
        killed = next(run for run in instance.get_runs() if f"/{process.pid}/" in run.tags[IDENTITY_TAG])
        assert killed.status == dg.DagsterRunStatus.FAILURE
        assert killed.tags[HIDDEN_HOST_TAG] == os.uname().nodename
        assert len(instance.get_materialized_partitions(dg.AssetKey(list(SERIES.key)))) == DAYS


STARTING = dg.DagsterRunStatus.STARTING

UI_UNIVERSE = "series:\n  - {market: spot, symbols: [BTCUSDT], intervals: [1m], source: rest}\n"


@pytest.mark.servers
@pytest.mark.timeout(600)
def test_a_run_that_is_killed_with_all_other_processes_is_failed_by_the_sensor_and_retried(
    slow: Sandbox, tmp_path: Path
) -> None:
    folder = tmp_path / "ui"
    folder.mkdir()
    (folder / "dagster.yaml").write_text((CHECKOUT / "dagster.yaml").read_text())
    (folder / "universe.yaml").write_text(UI_UNIVERSE)
    first, last = "2022-01-01", "2022-12-31"
    with dagster_dev(slow, folder) as dev:
        ui = UserInterface(dev)
        dev.wait_until_ready()
        until(240, ui.is_loaded)
        run = ui.launch("BTCUSDT", first, last)
        until(240, lambda: ui.stored("BTCUSDT", first, last))
        with contextlib.chdir(folder), open_instance(folder, {"DAGSTER_HOME": str(folder)}) as instance:
            assert interrupted_runs(instance) == "no run was interrupted"
            assert status_of(instance, run) == "STARTED"
            dev.kill()
            kept = ui.stored("BTCUSDT", first, last)
            assert len(kept) < 365
            # The system ends the processes in a moment.
            assert until(120, lambda: tick if "killed" in (tick := interrupted_runs(instance)) else "").endswith(": 1")
            assert status_of(instance, run) == "FAILURE"
            assert interrupted_runs(instance) == "no run was interrupted"
            # One of the coverage, killed before it was a process of its own: Dagster fails it after three minutes.
            starting = {other.run_id for other in instance.get_runs(dg.RunsFilter(statuses=[STARTING]))}
        dev.start()
        dev.wait_until_ready()
        until(240, lambda: len(ui.stored("BTCUSDT", first, last)) == 365)

        def others() -> dict[str, str]:  # also those of the coverage
            return {number: status for number, status in ui.runs().items() if number not in starting}

        until(240, lambda: set(others().values()) == {"SUCCESS", "FAILURE"})
        assert [number for number, status in others().items() if status == "FAILURE"] == [run]
        assert not [path for path in (folder / ".dagster" / "binance_assets_runs").iterdir() if path.name == run]


def interrupted_runs(instance: dg.DagsterInstance) -> str:
    """Evaluate the sensor; return what its tick says."""
    result = interrupted_runs_sensor().evaluate_tick(dg.build_sensor_context(instance))
    assert not result.run_requests
    return str(result.skip_message)


def test_a_reused_process_id_does_not_keep_a_run_alive(
    instance: dg.DagsterInstance,
) -> None:
    def run(start_time: str) -> dg.DagsterRun:
        tags = {"binance_assets/host": socket.gethostname(), "binance_assets/process": str(os.getpid())}
        return instance.create_run_for_job(
            candle_job(), tags=tags | {"binance_assets/process_began": start_time}, status=dg.DagsterRunStatus.STARTED
        )

    other, this = run("1"), run(process_start_time(os.getpid()) or "")
    assert fail_runs_of_dead_processes(instance) == 1
    statuses = [status_of(instance, started.run_id) for started in (other, this)]
    assert statuses == ["FAILURE", "STARTED"]


def status_of(instance: dg.DagsterInstance, run_id: str) -> str:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status.value


def candle_job() -> dg.JobDefinition:
    @dg.job
    def spot_daily() -> None:
        pass

    return spot_daily


def test_two_writers_of_the_same_partitions_leave_whole_files(
    start_download: Start, slow: Sandbox, tmp_path: Path
) -> None:
    week = (START, START + dt.timedelta(7), "--refresh")
    processes = [start_download(slow, tmp_path, *week) for _ in range(2)]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert len(assert_files_are_exact(slow, Lake(tmp_path / "lake"))) == 7


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 kB, which only the test uses."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("this user may not mount a small disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_an_error_in_one_line_and_keeps_the_written_files(
    sandbox: Sandbox, fetch: Fetch, small_disk: Path
) -> None:
    lake = Lake(small_disk / "lake")
    lake.prepare("sandbox")
    results = fetch(NAME, "2024-01-01", "2024-01-10")
    written: list[str] = []

    def write_all() -> None:
        for result in results:
            lake.write(SERIES, result)
            written.append(result.partition.key)

    with pytest.raises(LakeError, match="cannot be written") as raised:
        write_all()
    assert "\n" not in str(raised.value)
    assert written
    assert assert_files_are_exact(sandbox, lake) == written
    assert temporary_files(lake) == []


def test_a_lake_that_becomes_read_only_is_an_error_in_one_line_and_keeps_its_files(
    fetch: Fetch, run_cli: Run, small_disk: Path
) -> None:
    lake = Lake(small_disk / "lake")
    lake.prepare("sandbox")
    for result in fetch("spot/BTCUSDT/1h", "2024-01-01", "2024-01-03"):
        lake.write(parse_series("spot/BTCUSDT/1h"), result)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    week = ("BTCUSDT", "--market", "spot", "--interval", "1h", "--start", "2024-01-01", "--end", "2024-01-08")
    refused = run_cli("download", *week, BINANCE_ASSETS_LAKE=str(lake.root))
    assert refused.returncode == 2
    (line,) = without_progress(refused.stderr)
    assert "cannot be written" in line
    assert "Read-only" in line
    assert keys(lake, parse_series("spot/BTCUSDT/1h")) == ["2024-01-01", "2024-01-02"]


def test_three_processes_on_one_small_budget_get_no_429_and_waste_no_weight(
    start_download: Start, tmp_path: Path
) -> None:
    offset = 40_000 - int(time.time() * 1_000) % MINUTE
    with running_sandbox(
        SandboxOptions(rtt_ms=20, limits={"spot": 600, "futures": 240}, clock_offset_ms=offset)
    ) as limited:
        # Another program has spent 240 of 600, so that a slow machine spends the rest in the 20 s of the first minute.
        for _ in range(3):
            assert requests.get(f"{limited.url}/api/v3/ticker/24hr", timeout=60).ok
        starts = [START, START + dt.timedelta(100), START + dt.timedelta(200)]
        folders = [tmp_path / str(number) for number in range(3)]
        for folder in folders:
            folder.mkdir()
        shared = {"BINANCE_ASSETS_LEDGER": str(tmp_path / "ledger.sqlite")}
        running = [
            start_download(limited, folder, start, start + dt.timedelta(41), **shared)
            for folder, start in zip(folders, starts, strict=True)
        ]
        for process in running:
            _, errors = process.communicate(timeout=250)
            assert process.returncode == 0, errors
        assert {request.status for request in limited.requests} == {200}
        used = Counter[int]()
        for request in limited.requests:
            used[request.at_ms // MINUTE] += request.weight
        first, *_, last = sorted(used)
        assert last > first  # more than one minute: 60 pages per process, and the requests before them
        assert 0.97 * 600 <= used[first] <= 600
