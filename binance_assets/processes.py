"""Which process it is, whether another still runs, and how this one shares memory between its threads.

A process ID is given to other processes later, and each container has process 1. So a process is identified by its
boot, its PID namespace, its ID there, and its start time. Only a process of the same boot and namespace can be seen
from here; all others may be alive. Code that must know of those as well uses a lock that the process holds
(:func:`binance_assets.storage.locks.own_file`).
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import Final, NamedTuple

import psutil

from binance_assets.boot import boot_id

# The boot time that Linux reports may differ by a second between two reads while the system clock is being adjusted,
# and earlier versions stored a start time that depends on it. A process ID is never reused that fast.
_TOLERANCE_SECONDS: Final = 2

# M_ARENA_MAX of malloc.h in glibc.
_M_ARENA_MAX: Final = -8
# With two, a download takes as much memory and one percent more CPU time.
_ARENAS: Final = 1

_NUMBER: Final = re.compile(r"[0-9]{1,19}")
_DEAD_STATES: Final = "ZXx"  # ended, but the parent process has not asked for its exit code


class ProcessIdentity(NamedTuple):
    """What distinguishes a process from all others.

    Attributes:
        boot: The boot of its machine.
        namespace: Its PID namespace; empty on systems that have none.
        pid: Its ID in that namespace.
        began: Its start time, as :func:`process_start_time` returns it; empty if it is unknown.
    """

    boot: str
    namespace: str
    pid: int
    began: str

    def __str__(self) -> str:
        """Return the identity as text, which :func:`parse_identity` reads."""
        return "/".join(map(str, self))


def parse_identity(text: str) -> ProcessIdentity | None:
    """Return the identity that :meth:`ProcessIdentity.__str__` wrote; None for any other text."""
    parts = text.split("/")
    if len(parts) != 4 or not _NUMBER.fullmatch(parts[2]):
        return None
    return ProcessIdentity(parts[0], parts[1], int(parts[2]), parts[3])


def this_process() -> ProcessIdentity:
    """Return the identity of this process."""
    return _identity(os.getpid())  # not the one that was cached before a fork


@lru_cache(maxsize=1)
def _identity(pid: int) -> ProcessIdentity:
    return ProcessIdentity(boot_id(), _namespace(), pid, process_start_time(pid) or "")


def is_proved_dead(process: ProcessIdentity) -> bool:
    """Return whether a process has certainly ended.

    Nothing is proved for a process of another machine, of another boot, or of another container.
    """
    return (process.boot, process.namespace) == (boot_id(), _namespace()) and not is_alive(process.pid, process.began)


def is_alive(pid: int, started: str | None = None) -> bool:
    """Return whether the process ``pid`` runs in this PID namespace.

    Args:
        pid: The process ID. Some time after the process ends, the system gives its ID to another one.
        started: What :func:`process_start_time` returned while the process lived. None, an empty string, or a
            string that is not a number means that the start time is unknown; then the ID alone decides.
    """
    try:
        if not psutil.pid_exists(pid) or _is_zombie(pid):
            return False
    except OverflowError:  # larger than any process ID
        return False
    if not started or not _NUMBER.fullmatch(started):
        return True
    current = process_start_time(pid)
    return current is None or abs(int(current) - int(started)) <= _TOLERANCE_SECONDS * _ticks_per_second()


def process_start_time(pid: int) -> str | None:
    """Return when the process ``pid`` started, as a number in the system's clock ticks; None if that is unknown.

    On Linux the ticks count from the boot, as in ``/proc/<pid>/stat``: the kernel stores this number, and adjustments
    of the system clock do not change it. Run tags of earlier versions hold exactly this string, so they stay
    comparable. Other systems store an absolute time; there the ticks count from the epoch.
    """
    if psutil.LINUX:
        fields = _stat(pid)
        return fields[19] if fields else None
    try:
        return str(round(psutil.Process(pid).create_time() * _ticks_per_second()))
    except (psutil.Error, ValueError):  # no such process, no permission to read it, or not a process ID
        return None


def _is_zombie(pid: int) -> bool:
    fields = _stat(pid) if psutil.LINUX else None
    return fields is not None and fields[0] in _DEAD_STATES


def _stat(pid: int) -> list[str] | None:
    """Return the fields of ``/proc/<pid>/stat`` after the name; None if they are unknown.

    They are unknown as well if ``/proc`` is that of another PID namespace, where ``pid`` is another process.
    """
    with suppress(OSError):
        if os.readlink("/proc/self") == str(os.getpid()):
            return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    return None


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _ticks_per_second() -> int:
    return os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100  # Windows has no such setting


@cache
def limit_arenas() -> bool:
    """Let the threads of this process share the memory that they free; return whether the C library can do that.

    The allocator of glibc gives threads arenas of their own, up to eight per core, and an arena keeps what is freed in
    it. Forty threads that each unpack a file of some megabytes from time to time keep 70 MB in this way. The variable
    ``MALLOC_ARENA_MAX``, by which a user chooses the number of arenas, counts more.
    """
    if sys.platform != "linux" or "MALLOC_ARENA_MAX" in os.environ:
        return False
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS))
    except (OSError, AttributeError):  # another C library
        return False


def end_processes(children: Sequence[subprocess.Popen[bytes]], patience: float = 10.0) -> None:
    """End child processes, and wait until they have ended; interrupts of this process are ignored meanwhile.

    Args:
        children: The children; those that have ended already are left alone.
        patience: How long to wait before the ones that are left are killed, seconds.
    """
    running = [child for child in children if child.poll() is None]
    if not running:
        return
    # A second Ctrl-C would leave them running.
    is_main = threading.current_thread() is threading.main_thread()
    for number in (signal.SIGINT, signal.SIGTERM) if is_main else ():
        signal.signal(number, signal.SIG_IGN)
    for child in running:
        child.terminate()
    deadline = time.monotonic() + patience
    for child in running:
        with suppress(subprocess.TimeoutExpired):
            child.wait(max(0.0, deadline - time.monotonic()))
    for child in running:
        if child.poll() is None:
            child.kill()
            child.wait()
