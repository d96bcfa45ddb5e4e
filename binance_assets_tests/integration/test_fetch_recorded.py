"""``make recorded`` keeps only files with the pinned hash, whatever the archive sends."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from binance_assets.sandbox import Fault, Sandbox
from binance_assets.settings import Settings
from binance_assets_tests.support.environment import CHECKOUT, cli_environment
from binance_assets_tests.support.exchange import with_short_timeouts
from binance_assets_tests.support.fetch_recorded import ZIPS, RecordedZip, fetch_zips
from binance_assets_tests.support.polling import until
from binance_assets_tests.support.recorded import RECORDED, missing_zips, recorded_folder


def sandbox_zip(sandbox: Sandbox, series: str, date: str) -> RecordedZip:
    """Return a day of the sandbox's archive with the hash that it has there."""
    path = RecordedZip(series, date, "").in_archive.path
    response = requests.get(sandbox.url + path, timeout=60)
    response.raise_for_status()
    sandbox.requests.clear()
    return RecordedZip(series, date, hashlib.sha256(response.content).hexdigest())


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_file_is_fetched_once_and_has_the_bytes_of_the_archive(
    sandbox: Sandbox, settings: Settings, tmp_path: Path
) -> None:
    wanted = sandbox_zip(sandbox, "usdm/ETHUSDT/1h", "2024-01-02")
    assert fetch_zips([wanted], tmp_path, settings) == []
    path = tmp_path / "usdm" / "ETHUSDT-1h-2024-01-02.zip"
    assert files_in(tmp_path) == [path]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == wanted.sha256
    assert len(sandbox.requests) == 1
    assert fetch_zips([wanted], tmp_path, settings) == []
    assert len(sandbox.requests) == 1


def test_a_file_with_another_hash_is_refused_and_not_kept(sandbox: Sandbox, settings: Settings, tmp_path: Path) -> None:
    wanted = sandbox_zip(sandbox, "spot/BTCUSDT/1m", "2024-01-01")
    other = RecordedZip(wanted.series, wanted.date, "0" * 64)
    (problem,) = fetch_zips([other], tmp_path, settings)
    assert "refused" in problem
    assert wanted.sha256 in problem
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("kind", ["truncated_body", "reset", "reset_amid_body", "hang"])
def test_a_broken_transfer_leaves_no_file_and_the_next_run_fetches_it(
    sandbox: Sandbox, settings: Settings, tmp_path: Path, kind: str
) -> None:
    days = [sandbox_zip(sandbox, "spot/BTCUSDT/1m", date) for date in ("2024-01-01", "2024-01-02")]
    sandbox.faults.add(Fault(kind, path="archive", times=1))
    problems = fetch_zips(days, tmp_path, with_short_timeouts(settings))
    assert len(problems) == 1
    assert "2024-01-01" in problems[0]
    assert files_in(tmp_path) == [days[1].path_in(tmp_path)]
    assert fetch_zips(days, tmp_path, settings) == []
    assert len(files_in(tmp_path)) == 2


def test_a_damaged_file_is_fetched_again(sandbox: Sandbox, settings: Settings, tmp_path: Path) -> None:
    wanted = sandbox_zip(sandbox, "spot/BTCUSDT/1m", "2024-01-01")
    assert fetch_zips([wanted], tmp_path, settings) == []
    path = wanted.path_in(tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    assert fetch_zips([wanted], tmp_path, settings) == []
    assert hashlib.sha256(path.read_bytes()).hexdigest() == wanted.sha256


def test_an_interrupted_program_leaves_no_file(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.faults.add(Fault("hang", path="archive"))
    program = [sys.executable, "-m", "binance_assets_tests.support.fetch_recorded", str(tmp_path / "recorded")]
    process = subprocess.Popen(program, cwd=CHECKOUT, env=cli_environment(sandbox, tmp_path))
    until(120, lambda: sandbox.requests)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert not (tmp_path / "recorded").exists()


def test_the_program_names_every_file_that_the_sandbox_has_with_other_candles(sandbox: Sandbox, tmp_path: Path) -> None:
    program = [sys.executable, "-m", "binance_assets_tests.support.fetch_recorded", str(tmp_path / "recorded")]
    environment = cli_environment(sandbox, tmp_path)
    result = subprocess.run(
        program, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 1
    assert [line.partition(":")[0] for line in result.stderr.splitlines()[1:]] == [
        wanted.in_archive.name for wanted in ZIPS
    ]
    assert not (tmp_path / "recorded").exists()


def test_the_pinned_hashes_are_those_of_the_recorded_files() -> None:
    if reason := missing_zips():
        pytest.skip(reason)
    for wanted in ZIPS:
        assert hashlib.sha256(wanted.path_in(RECORDED).read_bytes()).hexdigest() == wanted.sha256, wanted
    assert len(ZIPS) == len(list(RECORDED.glob("*/*.zip")))


def test_the_setting_names_the_folder_relative_to_the_checkout() -> None:
    assert recorded_folder({"BINANCE_ASSETS_RECORDED": "some/where"}) == CHECKOUT / "some" / "where"
    assert recorded_folder({"BINANCE_ASSETS_RECORDED": str(CHECKOUT)}) == CHECKOUT
