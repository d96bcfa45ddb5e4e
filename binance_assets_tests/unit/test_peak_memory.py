"""The peak of a process's memory is its own, also where the process that started it needed more."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.peak_memory import peak_megabytes

NEEDED = 150_000_000
PROGRAM = f"import sys; grown = bytes(range(250)) * {NEEDED // 250}; del grown; print(flush=True); sys.stdin.read()"


def test_the_peak_is_that_of_the_program_after_it_has_freed_the_memory_and_not_that_of_its_parent() -> None:
    grown = bytes(range(250)) * (2 * NEEDED // 250)
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        peak = peak_megabytes(process.pid)
    assert NEEDED / 1e6 < peak < len(grown) / 1e6
    assert peak_megabytes(process.pid) == 0
