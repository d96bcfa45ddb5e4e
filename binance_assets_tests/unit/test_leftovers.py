"""What a test run leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from binance_assets_tests.support.leftovers import TRACKER, end_processes_left_by, kill_group, new_temporary_folder
from binance_assets_tests.support.polling import until

SEMAPHORE = """
import multiprocessing, time
lock = multiprocessing.get_context("spawn").Lock()
print(lock._semlock.name, flush=True)
time.sleep(600)
"""


def test_a_process_that_runs_on_after_its_run_is_named_and_killed(tmp_path: Path) -> None:
    environment = {"TMPDIR": str(tmp_path / "of its user"), "PATH": os.environ["PATH"]}
    command = ["sh", "-c", "sleep 600 >/dev/null 2>&1 & echo $!"]  # the worker that started it has ended
    started = psutil.Process(int(subprocess.run(command, env=environment, capture_output=True, check=True).stdout))
    until(60, lambda: started.cmdline() == ["sleep", "600"])
    assert end_processes_left_by(tmp_path / "of another run", 0) == []
    assert started.is_running()
    assert end_processes_left_by(tmp_path, 0) == ["sleep 600"]
    assert not started.is_running()


def test_a_killed_group_leaves_no_semaphore() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SEMAPHORE], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        semaphore = Path("/dev/shm") / f"sem.{process.stdout.readline().strip().removeprefix('/')}"
        assert semaphore.exists()
        until(60, lambda: any(TRACKER in child.cmdline()[-1] for child in psutil.Process(process.pid).children()))
        kill_group(process.pid)
        assert process.wait() == -9
    assert not semaphore.exists()


def test_a_long_path_for_temporary_files_is_not_used_because_sockets_could_not_be_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 80)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", None)  # what the variable named before is restored with it
    monkeypatch.setenv("TMPDIR", str(long))
    folder = new_temporary_folder(long)
    try:
        assert folder.parent == Path("/tmp")
        assert tempfile.gettempdir() == os.environ["TMPDIR"] == str(folder)
    finally:
        folder.rmdir()
