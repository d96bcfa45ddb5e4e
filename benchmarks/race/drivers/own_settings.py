"""The settings of this project that point it at the sandbox and keep its state in the working folder."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.race.drivers.task import Task


def sandbox_environment(task: Task) -> dict[str, str]:
    """Return this process's environment with the project's own settings for the task."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("BINANCE_", "DAGSTER_"))}
    hosts = {f"BINANCE_{name}_URL": task.url for name in ("SPOT", "USDM", "COINM", "ARCHIVE")}
    ledger = str(Path("ledger.sqlite").absolute())
    return {**inherited, **hosts, "BINANCE_ASSETS_LEDGER": ledger, "BINANCE_ASSETS_SOURCE": task.source}
