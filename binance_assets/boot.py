"""The boot of this machine: which one it is, and the seconds since it began.

The wall clock of a machine may be wrong, and somebody may set it. So nothing here reads it where the system offers
better: Linux and macOS count the seconds since the boot, those of a suspended machine included.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")

# A container may have a time namespace, in which the boot seems to be at another time.
_TIME_NAMESPACE: Final = "/proc/self/ns/time"

_READINGS: Final = 10
_CLOSE_SECONDS: Final = 0.000_1


def seconds_since_boot() -> float:
    """Return the seconds since the boot. All processes with the same :func:`boot_clock` read the same clock.

    The seconds in which the machine was suspended count. The seconds in which a virtual machine was paused do not.
    """
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    if sys.platform == "darwin":
        return time.clock_gettime(time.CLOCK_MONOTONIC)  # counts sleep, which `time.monotonic` may not
    return time.monotonic()


def seconds_suspended() -> float:
    """Return how many seconds ``time.monotonic`` is behind :func:`seconds_since_boot`; only differences matter."""
    for _ in range(_READINGS):
        before, boot, after = time.monotonic(), seconds_since_boot(), time.monotonic()
        if after - before < _CLOSE_SECONDS:  # the system did not stop this thread between the readings
            break
    return boot - (before + after) / 2


@cache
def boot_id() -> str:
    """Return the identity of this boot: a random number of the kernel.

    Other systems than Linux offer none. There, it is the minute of the boot by the wall clock, so setting that clock
    looks like a reboot.
    """
    with suppress(OSError):
        return _BOOT_ID.read_text(encoding="utf-8").strip()
    import psutil  # not needed on Linux

    return f"minute-{round(psutil.boot_time() / 60)}"


@cache
def boot_clock() -> str:
    """Return the identity of the clock that :func:`seconds_since_boot` reads."""
    try:
        return f"{boot_id()} {os.readlink(_TIME_NAMESPACE)}"
    except OSError:
        return boot_id()
