"""One measured process: wall time, CPU time, and peak memory with its children, within a time limit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.race.drivers.task import FINISHED_FILE

_POLL_SECONDS: Final = 0.02
_POLLS_PER_SAMPLE: Final = 5
_OUTPUT_FILE: Final = "output.txt"
TIMED_OUT: Final = -1


@dataclass(frozen=True)
class Measured:
    """What a process did.

    Attributes:
        exit_code: Its exit code; :data:`TIMED_OUT` if it was ended at the time limit.
        seconds: Wall time.
        cpu: User and system time, children included, s.
        megabytes: Peak of its memory, children included, in 10**6 bytes.
        text: What it printed, standard error included.
        reports: What its driver reported about missing or wrong candles.
    """

    exit_code: int
    seconds: float
    cpu: float
    megabytes: float
    text: str
    reports: tuple[str, ...]


def run_measured(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], limit: float, until_finish: bool
) -> Measured:
    """Run a driver in ``folder`` and measure it.

    Args:
        command: The command line.
        folder: Its working folder.
        environment: Its environment.
        limit: Seconds after which it is ended.
        until_finish: Whether to measure until the driver's ``finish``, and not until the end of the process.
    """
    with (folder / _OUTPUT_FILE).open("wb") as output:
        began = time.time()
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        exit_code, cpu, peak = _wait(process, began + limit)
        seconds = time.time() - began
    finished = _read_finished(folder)
    if until_finish and finished:
        seconds, cpu = finished["at"] - began, finished["cpu"]
    text = (folder / _OUTPUT_FILE).read_text(errors="replace")
    return Measured(exit_code, seconds, cpu, peak / 1e6, text, tuple(finished.get("reports", ())))


def _wait(process: subprocess.Popen[bytes], deadline: float) -> tuple[int, float, int]:
    """Return the exit code, the CPU seconds, and the peak of the memory in bytes."""
    root, peak, polls, timed_out = psutil.Process(process.pid), 0, 0, False
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            exit_code = os.waitstatus_to_exitcode(status)
            process.returncode = exit_code
            return TIMED_OUT if timed_out else exit_code, usage.ru_utime + usage.ru_stime, peak
        if polls % _POLLS_PER_SAMPLE == 0:
            peak = max(peak, _memory(root))
        if time.time() > deadline and not timed_out:
            timed_out = True
            os.killpg(process.pid, signal.SIGKILL)
        polls += 1
        time.sleep(_POLL_SECONDS)


def _memory(root: psutil.Process) -> int:
    total = 0
    with suppress(psutil.Error):
        for process in [root, *root.children(recursive=True)]:
            with suppress(psutil.Error):
                total += _memory_of(process)
    return total


def _memory_of(process: psutil.Process) -> int:
    if sys.platform == "linux":
        return int(process.memory_full_info().pss)
    return int(process.memory_info().rss)


def _read_finished(folder: Path) -> dict[str, Any]:
    try:
        finished: dict[str, Any] = json.loads((folder / FINISHED_FILE).read_text())
    except FileNotFoundError:
        return {}
    return finished
