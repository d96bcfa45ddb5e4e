"""What a test run leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil

from binance_assets_tests.support.leftovers import TRACKER, end_processes_left_by, kill_group
from binance_assets_tests.support.polling import until

SEMAPHORE = """
import multiprocessing, time
lock = multiprocessing.get_context("spawn").Lock()
print(lock._semlock.name, flush=True)
time.sleep(600)
"""


def test_a_process_that_runs_on_after_its_run_is_named_and_killed(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "600"], env={"TMPDIR": str(tmp_path), "PATH": os.environ["PATH"]}) as process:
        assert end_processes_left_by(tmp_path / "of another run", 0) == []
        assert process.poll() is None
        assert end_processes_left_by(tmp_path, 0) == ["sleep 600"]
        assert not psutil.pid_exists(process.pid)


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
