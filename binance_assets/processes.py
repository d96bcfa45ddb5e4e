"""Processes of this host, as files that outlive them name them."""

from __future__ import annotations

import os


def is_alive(pid: int) -> bool:
    """Whether a process with the number ``pid`` runs on this host."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
