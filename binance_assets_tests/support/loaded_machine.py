"""What a bound in seconds means on a machine that other programs use, or on a slow one."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Final

_ALLOWANCE: Final = 0.5  # seconds that a process computes at its end on an idle machine, and more
_TRIES: Final = 3
_REFERENCE: Final = (
    "import sys, time; time.sleep(float(sys.argv[1])); sum(number * number for number in range(8_000_000))"
)
"""A process that waits, and then computes for half a second on an idle machine."""


def at_most(seconds: float, measured: Sequence[float]) -> bool:
    """Return whether something that mostly waits took so many seconds at most, in its quickest case.

    Where a machine is busy, each case is late. Then the quickest case is compared with a process that waits for so many
    seconds and computes for half a second, at the same load.

    Args:
        seconds: The bound, on an idle machine.
        measured: How long each case took, seconds.
    """
    quickest = min(measured)
    return quickest < seconds + _ALLOWANCE or quickest < max(_reference(seconds) for _ in range(_TRIES))


def _reference(seconds: float) -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", _REFERENCE, str(seconds)], check=True)
    return time.monotonic() - began
