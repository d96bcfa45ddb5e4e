"""Warm processes behave as processes that ``subprocess`` starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from binance_assets_tests.support.warm_python import WarmPython

REPORT = """\
import atexit, os, signal, sys, threading
atexit.register(print, "at the end")
print(os.getpid(), os.getcwd(), sorted(os.environ), sys.argv[1:], sys.path[0], __name__, file=sys.stderr)
print(os.getpgrp() == os.getpid(), os.getsid(0) == os.getpid(), len(os.listdir("/proc/self/task")))
print("dagster" in sys.modules, "polars" in sys.modules)
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, sorted(map(int, os.listdir("/proc/self/fd")))[:3])
sys.exit(3)
"""
SLEEP = "import time; print('sleeps', flush=True); time.sleep(60)"


@pytest.mark.parametrize("own_session", [False, True])
def test_a_process_has_its_own_id_folder_environment_arguments_and_exit_code(
    warm_python: WarmPython, tmp_path: Path, own_session: bool
) -> None:
    (tmp_path / "report.py").write_text(REPORT)
    arguments = [str(tmp_path / "report.py"), "a", "b c"]
    process = warm_python.start(arguments, tmp_path, {"NAME": "value"}, start_new_session=own_session)
    out, errors = process.communicate(60)
    assert process.returncode == 3
    assert errors.split() == f"{process.pid} {tmp_path} ['NAME'] ['a', 'b c'] {tmp_path} __main__".split()
    assert out.splitlines() == [f"{own_session} {own_session} 1", "True False", "True [0, 1, 2]", "at the end"]


def test_a_module_is_run_as_the_interpreter_runs_it(warm_python: WarmPython, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import sys; print(__name__, sys.path[0], sys.argv)")
    cold = subprocess.run(
        [sys.executable, "-m", "program", "x"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    warm = warm_python.run(["-m", "program", "x"], tmp_path, {}, timeout=60)
    assert (warm.returncode, warm.stdout, warm.stderr) == (0, cold.stdout, cold.stderr)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_process_and_is_its_exit_code(
    warm_python: WarmPython, tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "sleep.py").write_text(SLEEP)
    process = warm_python.start([str(tmp_path / "sleep.py")], tmp_path, {}, start_new_session=True)
    other = warm_python.start([str(tmp_path / "sleep.py")], tmp_path, {})
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.1)
    os.killpg(process.pid, number)
    assert process.wait(60) == -number
    assert other.poll() is None
    other.kill()
    assert other.wait(60) == -signal.SIGKILL
    for ended in (process, other):
        ended.communicate()


def test_an_error_is_a_traceback_and_exit_code_1(warm_python: WarmPython, tmp_path: Path) -> None:
    (tmp_path / "fails.py").write_text("raise ValueError('no')")
    failed = warm_python.run([str(tmp_path / "fails.py")], tmp_path, {}, timeout=60)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith("Traceback")
    assert failed.stderr.endswith("ValueError: no\n")
