"""Waiting for a user interface."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

WORKSPACE = """\
load_from:
  - python_module:
      module_name: binance_assets.definitions
      location_name: binance_assets
"""


def until(seconds: float, found: Callable[[], Any]) -> Any:
    """What ``found`` returns as soon as it is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := found():
            return result
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s: {found}")
