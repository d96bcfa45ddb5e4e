"""Waiting for a condition."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def until(seconds: float, check: Callable[[], Result]) -> Result:
    """Return what ``check`` returns as soon as it is true.

    Args:
        seconds: How long to wait.
        check: Called ten times a second.

    Raises:
        AssertionError: No result was true in time.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := check():
            return result
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s: {check}")
