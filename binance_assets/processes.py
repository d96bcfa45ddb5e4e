"""Whether a process of this host still runs.

Process numbers are reused, so a number alone does not identify a process; its start time does. Both are stored by
other modules as plain strings (run tags, leases, names of temporary files).
"""

from __future__ import annotations

import os
from typing import Final

import psutil

# The boot time that Linux reports may differ by a second between two reads while the system clock is being adjusted.
# A process number is never reused that fast.
_TOLERANCE_SECONDS: Final = 2


def is_alive(pid: int, started: str | None = None) -> bool:
    """Return whether the process ``pid`` runs on this host.

    Args:
        pid: The process number. The system gives it to another process some time after the end of this one.
        started: What :func:`process_start_time` returned while the process lived. None, an empty string or a string
            that is no number means that the start time is unknown; then the number alone decides.
    """
    try:
        if not psutil.pid_exists(pid):
            return False
    except OverflowError:  # larger than any process number
        return False
    if not started or not started.isdigit():
        return True
    now = process_start_time(pid)
    return now is None or abs(int(now) - int(started)) <= _TOLERANCE_SECONDS * _ticks_per_second()


def process_start_time(pid: int) -> str | None:
    """Return when the process ``pid`` started, as a number in the system's clock ticks; None if that is unknown.

    On Linux the ticks count from the boot, as in ``/proc/<pid>/stat``: the kernel stores this number, and adjustments
    of the system clock do not change it. Run tags of earlier versions hold exactly this string, so they stay
    comparable. Other systems store an absolute time; there the ticks count from the epoch.
    """
    try:
        created = psutil.Process(pid).create_time()
    except (psutil.Error, ValueError):  # no such process, no permission to ask, or not a process number
        return None
    origin = psutil.boot_time() if psutil.LINUX else 0.0
    return str(round((created - origin) * _ticks_per_second()))


def _ticks_per_second() -> int:
    return os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100  # Windows has no such setting
