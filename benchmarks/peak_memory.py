"""The peak of the memory of a running process, from the moment at which its program was loaded.

``ru_maxrss`` of a child begins with the peak of the process that started it (Linux keeps it when a program is loaded),
so it cannot measure a program that needs less than the one that measures it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_PEAK: Final = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


def peak_megabytes(process: int) -> float:
    """Return the peak so far, in 10**6 bytes; 0 if the process has ended, or where there is no ``/proc``.

    Args:
        process: The process ID.
    """
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    found = _PEAK.search(status)
    return int(found[1]) * 1_024 / 1e6 if found else 0.0
