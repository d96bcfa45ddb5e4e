"""Processes that are killed, share a budget, or write at the same time; disks that are full."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from binance_assets.model.partitions import partition_for_key
from binance_assets.model.series import parse_series
from binance_assets.model.timestamps import MINUTE
from binance_assets.orchestration.instance import open_instance
from binance_assets.orchestration.runs import fail_runs_of_dead_processes
from binance_assets.processes import process_start_time
from binance_assets.sandbox import Sandbox, SandboxOptions, running_sandbox
from binance_assets.storage.lake import Lake, LakeError
from binance_assets_tests.support.environment import Fetch, Run, cli_environment
from binance_assets_tests.support.exchange import truth

NAME = "spot/BTCUSDT/1m"
SERIES = parse_series(NAME)
START, END = dt.date(2024, 1, 1), dt.date(2024, 5, 1)
DAYS = (END - START).days


@pytest.fixture(scope="module")
def slow() -> Iterator[Sandbox]:
    """An exchange far enough away that a download can be met under way."""
    with running_sandbox(SandboxOptions(rtt_ms=60)) as served:
        yield served


def start_download(
    sandbox: Sandbox, folder: Path, start: dt.date = START, end: dt.date = END, *more: str
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "binance_assets", "download", SERIES.symbol, "--market", "spot", "--interval", "1m",
         "--start", str(start), "--end", str(end), "--source", "rest", "--json", *more],
        cwd=folder, env=cli_environment(sandbox, folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def assert_all_whole(sandbox: Sandbox, lake: Lake) -> list[str]:
    """Every file in the lake is the whole truth of its day; returns the days."""
    keys = lake.keys(SERIES)
    for key in keys:
        partition = partition_for_key(key, SERIES.interval)
        assert lake.read(SERIES, partition).equals(truth(sandbox, NAME, partition.start, partition.end)), key
    return keys


def test_a_download_that_is_killed_again_and_again_loses_and_tears_nothing(slow: Sandbox, tmp_path: Path) -> None:
    lake, chance, kills = Lake(tmp_path / "lake"), random.Random(), 0
    have: list[str] = []
    while len(have) < DAYS and kills < 12:
        process = start_download(slow, tmp_path)
        pause = chance.uniform(2, 5)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(pause)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate()
        now = assert_all_whole(slow, lake)
        assert set(now) >= set(have), f"killed after {pause} s"
        have = now
    process = start_download(slow, tmp_path)
    message, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert json.loads(message)[NAME]["days_present"] == DAYS
    assert len(assert_all_whole(slow, lake)) == DAYS
    assert list((lake.root / ".incoming").iterdir()) == []
    with contextlib.chdir(tmp_path), open_instance(tmp_path, {}) as instance:
        assert len(instance.get_materialized_partitions(dg.AssetKey(list(SERIES.key)))) == DAYS
        ended = Counter(run.status.value for run in instance.get_runs())
    assert set(ended) <= {"SUCCESS", "FAILURE"}, ended


def test_a_killed_run_is_failed_by_the_next_call_and_names_its_process(slow: Sandbox, tmp_path: Path) -> None:
    process = start_download(slow, tmp_path)
    folder = tmp_path / "lake/market=spot/symbol=BTCUSDT/interval=1m"
    deadline = time.monotonic() + 60
    while not list(folder.glob("*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.communicate()
    with contextlib.chdir(tmp_path), open_instance(tmp_path, {}) as instance:
        known = instance.get_materialized_partitions(dg.AssetKey(list(SERIES.key)))
    written = Lake(tmp_path / "lake").keys(SERIES)
    # The event follows the file: a kill between the two leaves a day that is there and that Dagster asks for again.
    assert known <= set(written)
    assert len(written) - len(known) <= 1
    start_download(slow, tmp_path, START, START + dt.timedelta(1)).communicate(timeout=60)
    with contextlib.chdir(tmp_path), open_instance(tmp_path, {}) as instance:
        killed = next(run for run in instance.get_runs() if run.tags["binance_assets/process"] == str(process.pid))
        assert killed.status == dg.DagsterRunStatus.FAILURE
        assert killed.tags["binance_assets/host"] == os.uname().nodename


def test_a_process_number_that_was_given_to_another_process_does_not_keep_a_run_alive(
    instance: dg.DagsterInstance,
) -> None:
    def run(began: str) -> dg.DagsterRun:
        tags = {"binance_assets/host": socket.gethostname(), "binance_assets/process": str(os.getpid())}
        return instance.create_run_for_job(
            candle_job(), tags=tags | {"binance_assets/process_began": began}, status=dg.DagsterRunStatus.STARTED
        )

    other, this = run("1"), run(process_start_time(os.getpid()) or "")
    assert fail_runs_of_dead_processes(instance) == 1
    statuses = [instance.get_run_by_id(each.run_id).status.value for each in (other, this)]  # type: ignore[union-attr]
    assert statuses == ["FAILURE", "STARTED"]


def candle_job() -> dg.JobDefinition:
    @dg.job
    def spot_daily() -> None:
        pass

    return spot_daily


def test_two_writers_of_the_same_days_leave_whole_files(slow: Sandbox, tmp_path: Path) -> None:
    week = (START, START + dt.timedelta(7), "--refresh")
    both = [start_download(slow, tmp_path, *week) for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert len(assert_all_whole(slow, Lake(tmp_path / "lake"))) == 7


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own with 256 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("this user may not mount a small disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_told_in_one_line_and_leaves_the_old_files(
    sandbox: Sandbox, fetch: Fetch, small_disk: Path
) -> None:
    lake = Lake(small_disk / "lake")
    lake.prepare("sandbox")
    days = fetch(NAME, "2024-01-01", "2024-01-10")
    written: list[str] = []

    def write_all() -> None:
        for day in days:
            lake.write(SERIES, day)
            written.append(day.partition.key)

    with pytest.raises(LakeError, match="cannot be written") as raised:
        write_all()
    assert "\n" not in str(raised.value)
    assert written
    assert assert_all_whole(sandbox, lake) == written
    assert list((lake.root / ".incoming").iterdir()) == []


def test_a_lake_that_turns_read_only_is_told_in_one_line_and_keeps_its_files(
    sandbox: Sandbox, run_cli: Run, small_disk: Path
) -> None:
    elsewhere = {"BINANCE_ASSETS_LAKE": str(small_disk / "lake")}
    week = ("BTCUSDT", "--market", "spot", "--interval", "1h", "--start", "2024-01-01")
    assert run_cli("download", *week, "--end", "2024-01-03", **elsewhere).returncode == 0
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    result = run_cli("download", *week, "--end", "2024-01-08", **elsewhere)
    assert result.returncode == 2
    (line,) = result.stderr.strip().splitlines()
    assert "cannot be written" in line
    assert "Read-only" in line
    files = sorted(path.stem for path in (small_disk / "lake").rglob("*.parquet"))
    assert files == ["2024-01-01", "2024-01-02"]


def test_three_processes_on_one_small_budget_draw_no_429_and_waste_nothing(tmp_path: Path) -> None:
    offset = 45_000 - int(time.time() * 1_000) % MINUTE
    with running_sandbox(SandboxOptions(rtt_ms=20, limits={"spot": 120, "futures": 60}, clock_offset_ms=offset)) as few:
        starts = [START, START + dt.timedelta(40), START + dt.timedelta(80)]
        folders = [tmp_path / str(number) for number in range(3)]
        for folder in folders:
            folder.mkdir()
        shared = {"BINANCE_ASSETS_LEDGER": str(tmp_path / "ledger.sqlite")}
        environments = [cli_environment(few, folder) | shared for folder in folders]
        running = [
            subprocess.Popen(
                [sys.executable, "-m", "binance_assets", "download", "BTCUSDT", "--market", "spot",
                 "--interval", "1m", "--start", str(start), "--end", str(start + dt.timedelta(18)), "--source", "rest",
                 "--json"],
                cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for folder, environment, start in zip(folders, environments, starts, strict=True)
        ]  # fmt: skip
        for process in running:
            _, errors = process.communicate(timeout=100)
            assert process.returncode == 0, errors
        assert {request.status for request in few.requests} == {200}
        spent = Counter[int]()
        for request in few.requests:
            spent[request.at_ms // MINUTE] += request.weight
        first, *_, last = sorted(spent)
        assert last > first  # more than one minute allows: 27 pages each, and what they ask before
        assert 0.97 * 120 <= spent[first] <= 120
