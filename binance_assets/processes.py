"""Processes of this host: whether one still lives, and how they keep out of each other's way."""

from __future__ import annotations

import os
from pathlib import Path


def is_alive(pid: int, began: str = "") -> bool:
    """Whether a process with the number ``pid`` runs on this host.

    Args:
        pid: Its number, which the system gives to another process some time after its end.
        began: What :func:`process_start_time` said of it when it lived; empty where that is not known.
    """
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return not began or process_start_time(pid) in ("", began)


def process_start_time(pid: int) -> str:
    """When the process began, in the system's own count; empty where the system does not tell (it has no ``/proc``)."""
    try:
        # The name of the program stands in parentheses and may hold anything; what counts comes behind it.
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return after_name[19]
    except (OSError, IndexError):
        return ""
