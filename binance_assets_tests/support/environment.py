"""The environment variables that point the project to a sandbox, and the types of fixtures that return functions."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from binance_assets.exchange.session import Exchange
from binance_assets.model.results import PartitionResult
from binance_assets.sandbox import Sandbox

CHECKOUT = Path(__file__).resolve().parents[2]
"""The folder of the checkout."""

Open = Callable[[str], Exchange]
"""Opens the exchange of a series."""

Fetch = Callable[[str, str, str], list[PartitionResult]]
"""Downloads a series from one day to another, the end excluded."""

Run = Callable[..., "subprocess.CompletedProcess[str]"]
"""Runs the command line with arguments, and with environment variables as keywords."""


def without_progress(stderr: str) -> list[str]:
    """Return the lines on standard error that do not begin with a time, as those of the progress do.

    Blank lines are left out as well: click prints one after a Ctrl-C.
    """
    return [line for line in stderr.splitlines() if line and not re.match(r"\d\d:\d\d:\d\d ", line)]


def environment_of(sandbox: Sandbox, folder: Path) -> dict[str, str]:
    """Return the environment variables that point the project to ``sandbox`` and keep its files in ``folder``."""
    return {
        "BINANCE_SPOT_URL": sandbox.url,
        "BINANCE_USDM_URL": sandbox.url,
        "BINANCE_COINM_URL": sandbox.url,
        "BINANCE_ARCHIVE_URL": sandbox.url,
        "BINANCE_ASSETS_LAKE": str(folder / "lake"),
        "BINANCE_ASSETS_UNIVERSE": str(folder / "universe.yaml"),
        "BINANCE_ASSETS_LEDGER": str(folder / "ledger.sqlite"),
    }


def cli_environment(sandbox: Sandbox, folder: Path) -> dict[str, str]:
    """Return the whole environment of a process that works in ``folder`` against ``sandbox``.

    The universe is the default one of the folder, which may be absent; one that a variable names may not.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("BINANCE_", "DAGSTER_"))}
    own = environment_of(sandbox, folder) | {"COLUMNS": "200", "DAGSTER_DISABLE_TELEMETRY": "1"}
    return {name: value for name, value in (inherited | own).items() if name != "BINANCE_ASSETS_UNIVERSE"}
