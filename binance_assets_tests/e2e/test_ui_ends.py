"""The user interface ends with everything that it started, however it is ended."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from binance_assets.processes import end_processes
from binance_assets.sandbox import Sandbox
from binance_assets_tests.support.dagster_dev import STOP_SECONDS
from binance_assets_tests.support.environment import cli_environment
from binance_assets_tests.support.polling import until

# What `demo --ui` does at its end, in a process that handles signals as the command line does.
_DEMO_UI = """
import os, signal, sys
from pathlib import Path
from binance_assets.cli import demo, main
signal.signal(signal.SIGTERM, main._interrupt)
sys.exit(demo._serve_ui(Path.cwd(), dict(os.environ)))
"""


@pytest.mark.servers
@pytest.mark.timeout(600)
def test_sigterm_ends_the_demos_user_interface_with_all_its_children(sandbox: Sandbox, tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            # As in the background of a script, where SIGINT is ignored.
            ["sh", "-c", 'trap "" INT; exec "$0" "$@"', sys.executable, "-c", _DEMO_UI],
            cwd=tmp_path, env=cli_environment(sandbox, tmp_path), stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    started: dict[int, psutil.Process] = {}

    def has_daemon() -> bool:
        """Look for the daemon, which ``dagster dev`` starts last, a moment before it watches its children."""
        for child in psutil.Process(process.pid).children(recursive=True):
            started.setdefault(child.pid, child)
        return any(part.endswith("._daemon") for child in list(started.values()) for part in _command(child))

    try:
        until(240, has_daemon)
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_SECONDS)
        _, running = psutil.wait_procs(started.values(), timeout=60)
        assert [_command(child) for child in running] == []
        printed = (tmp_path / "log").read_text()
        assert process.returncode == 130
        assert "The Dagster UI ends. The demo stays in demo/, which can be deleted.\n" in printed
        assert "error" not in printed.lower()
    finally:
        for child in started.values():
            if child.is_running():
                child.kill()
        process.kill()
        process.wait()


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


@pytest.mark.parametrize("ignores", [False, True])
def test_children_are_ended_and_killed_if_they_do_not_end(ignores: bool) -> None:
    trap = 'trap "" TERM; ' if ignores else ""
    program = f"{trap}echo ready; while :; do sleep 0.05; done"
    with subprocess.Popen(["sh", "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdout is not None
        child.stdout.readline()
        handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        try:
            end_processes([child], patience=0.5)
        finally:
            for number, handler in zip((signal.SIGINT, signal.SIGTERM), handlers, strict=True):
                signal.signal(number, handler)
        assert child.returncode == (-signal.SIGKILL if ignores else -signal.SIGTERM)
