"""A process is alive only if its number and its start time agree; start times stored by earlier versions count too."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from binance_assets.processes import is_alive, limit_arenas, process_start_time


def dead_process() -> int:
    """Return the number of a process that has just ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def start_ticks_from_proc() -> str:
    """Return what earlier versions stored: field 22 of ``/proc/<pid>/stat``, read as they read it."""
    return Path(f"/proc/{os.getpid()}/stat").read_text().rpartition(")")[2].split()[19]


def test_only_glibc_limits_the_arenas_of_threads_unless_the_user_does(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_arenas.cache_clear()
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    assert limit_arenas() == (platform.libc_ver()[0] == "glibc")
    limit_arenas.cache_clear()
    monkeypatch.setenv("MALLOC_ARENA_MAX", "4")
    assert not limit_arenas()


def test_this_process_is_alive_with_and_without_its_start_time() -> None:
    assert is_alive(os.getpid())
    assert is_alive(os.getpid(), process_start_time(os.getpid()))


@pytest.mark.parametrize("pid", [-1, 2**22 + 1, 10**12])
def test_an_unused_process_number_is_not_alive(pid: int) -> None:
    assert not is_alive(pid)
    assert process_start_time(pid) is None


def test_a_dead_process_is_not_alive_and_has_no_start_time() -> None:
    pid = dead_process()
    assert not is_alive(pid)
    assert not is_alive(pid, "12345")
    assert process_start_time(pid) is None


def test_a_reused_number_is_not_the_process_that_was_stored() -> None:
    started = int(process_start_time(os.getpid()) or 0)
    ticks = os.sysconf("SC_CLK_TCK")
    assert not is_alive(os.getpid(), "1")
    assert not is_alive(os.getpid(), str(started - 3 * ticks))
    assert not is_alive(os.getpid(), str(started + 3 * ticks))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="earlier versions stored start times on Linux only")
def test_a_start_time_stored_by_an_earlier_version_keeps_a_live_process_alive() -> None:
    assert is_alive(os.getpid(), start_ticks_from_proc())
    assert abs(int(process_start_time(os.getpid()) or 0) - int(start_ticks_from_proc())) <= os.sysconf("SC_CLK_TCK")


def test_a_start_time_survives_a_boot_time_that_moves_by_a_second() -> None:
    started = int(process_start_time(os.getpid()) or 0)
    ticks = os.sysconf("SC_CLK_TCK")
    assert is_alive(os.getpid(), str(started - ticks))
    assert is_alive(os.getpid(), str(started + ticks))


@pytest.mark.parametrize("started", [None, "", "unknown"])
def test_without_a_usable_start_time_the_number_decides(started: str | None) -> None:
    assert is_alive(os.getpid(), started)
    assert not is_alive(dead_process(), started)
