"""A download in a terminal, and without one, on a slow network: what it waits for, first files, and Ctrl-C."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from binance_assets.model.series import parse_series
from binance_assets.model.timestamps import MINUTE
from binance_assets.sandbox import Sandbox, SandboxOptions, running_sandbox
from binance_assets.storage.lake import Lake
from binance_assets_tests.support.environment import cli_environment
from binance_assets_tests.support.instances import copy_state_of_working_folder
from binance_assets_tests.support.lakes import keys
from binance_assets_tests.support.polling import until
from binance_assets_tests.support.terminal import open_terminal
from binance_assets_tests.support.warm_python import WarmPython

SERIES = parse_series("spot/BTCUSDT/1m")
# A year: more pages than the weight of a minute buys, with a limit of a tenth of Binance's.
YEAR = ["-m", "binance_assets", "download", "BTCUSDT", "--market", "spot", "--interval", "1m", "--source", "rest",
        "--start", "2023", "--end", "2024"]  # fmt: skip


@pytest.fixture(scope="module")
def slow() -> Iterator[Sandbox]:
    """A sandbox with round trips of a second, a small limit, and a minute of which most is left for both tests."""
    offset = -int(time.time() * 1_000) % MINUTE
    with running_sandbox(SandboxOptions(rtt_ms=1_000, limits={"spot": 600}, clock_offset_ms=offset)) as running:
        yield running


def stored(folder: Path) -> list[str]:
    return keys(Lake(folder / "lake"), SERIES)


def test_without_a_terminal_lines_with_the_time_say_the_same(
    slow: Sandbox, warm_python: WarmPython, tmp_path: Path
) -> None:
    copy_state_of_working_folder(tmp_path)
    process = warm_python.start([*YEAR[:-4], "--start", "2023-01-01", "--end", "2023-01-03"], tmp_path,
                                cli_environment(slow, tmp_path))  # fmt: skip
    stdout, stderr = process.communicate(120)
    assert process.returncode == 0, stderr
    lines = [line for line in stderr.splitlines() if re.match(r"\d\d:\d\d:\d\d ", line)]
    assert any("spot/BTCUSDT/1m: 0 of 2 done" in line for line in lines)
    assert re.search(r"request in flight|loading [A-Z][a-z]+", lines[0])
    header, row = stdout.strip().splitlines()
    waited = float(row.split()[header.split().index("waiting") - 1])
    assert waited >= 0


def test_a_terminal_shows_what_a_slow_download_waits_for_and_ctrl_c_keeps_what_arrived(
    slow: Sandbox, warm_python: WarmPython, tmp_path: Path
) -> None:
    copy_state_of_working_folder(tmp_path)
    environment = cli_environment(slow, tmp_path) | {"TERM": "xterm", "COLUMNS": "160"}
    with open_terminal() as terminal:
        process = warm_python.start(YEAR, tmp_path, environment, terminal=terminal.descriptor)
        terminal.wait_for("planning", 60)
        terminal.wait_for("0/365", 60)

        # Some days are done long before the last. A loaded machine shows the first numbers of a burst of pages late.
        terminal.wait_for(r"\b(?!0/|365/)\d+/365", 60)
        until(120, lambda: stored(tmp_path))
        terminal.wait_for(r"spent; waiting until \d\d:\d\d:\d\d UTC", 60)
        received = sum(request.path.endswith("/klines") for request in slow.requests)
        done = int(re.findall(r"(\d+)/365", terminal.text)[-1])
        assert done >= (received - 60) * 1_000 // 1_440  # of what has arrived, nothing waits for more of its month

        process.send_signal(signal.SIGINT)
        terminal.wait_for("error: interrupted", 60)
        process.communicate(250)
        assert process.returncode == 130
        assert len(stored(tmp_path)) >= done
        assert max(terminal.pauses) < 20  # a loaded machine stops a process for long; idle, it is a tenth of a second
        assert len(terminal.reasons) > 10
        assert all(terminal.reasons)
