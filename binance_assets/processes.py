"""Whether a process of this host still runs.

Process IDs are reused, so an ID alone does not identify a process; together with the start time it does. Run tags
hold both; leases and names of temporary files hold only the ID, because they expire.
"""

from __future__ import annotations

import os
from typing import Final

import psutil

# The boot time that Linux reports may differ by a second between two reads while the system clock is being adjusted.
# A process ID is never reused that fast.
_TOLERANCE_SECONDS: Final = 2


def is_alive(pid: int, started: str | None = None) -> bool:
    """Return whether the process ``pid`` runs on this host.

    Args:
        pid: The process ID. Some time after the process ends, the system gives its ID to another one.
        started: What :func:`process_start_time` returned while the process lived. None, an empty string, or a
            string that is not a number means that the start time is unknown; then the ID alone decides.
    """
    try:
        if not psutil.pid_exists(pid):
            return False
    except OverflowError:  # larger than any process ID
        return False
    if not started or not started.isdigit():
        return True
    current = process_start_time(pid)
    return current is None or abs(int(current) - int(started)) <= _TOLERANCE_SECONDS * _ticks_per_second()


def process_start_time(pid: int) -> str | None:
    """Return when the process ``pid`` started, as a number in the system's clock ticks; None if that is unknown.

    On Linux the ticks count from the boot, as in ``/proc/<pid>/stat``: the kernel stores this number, and adjustments
    of the system clock do not change it. Run tags of earlier versions hold exactly this string, so they stay
    comparable. Other systems store an absolute time; there the ticks count from the epoch.
    """
    try:
        created = psutil.Process(pid).create_time()
    except (psutil.Error, ValueError):  # no such process, no permission to read it, or not a process ID
        return None
    zero = psutil.boot_time() if psutil.LINUX else 0.0
    return str(round((created - zero) * _ticks_per_second()))


def _ticks_per_second() -> int:
    return os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100  # Windows has no such setting
