"""Environment variables and types that tests share."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from binance_assets.exchange.session import Exchange
from binance_assets.model.results import PartitionResult
from binance_assets.sandbox import Sandbox

CHECKOUT = Path(__file__).resolve().parents[2]
"""The folder of the checkout."""

RECORDED = CHECKOUT.parent / "shared" / "data"


Open = Callable[[str], Exchange]


Fetch = Callable[[str, str, str], list[PartitionResult]]


Run = Callable[..., "subprocess.CompletedProcess[str]"]


def environment_of(sandbox: Sandbox, folder: Path) -> dict[str, str]:
    """The environment variables that point the project to ``sandbox`` and keep its files in ``folder``."""
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
    """The environment of a command line that works in ``folder``."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("BINANCE_", "DAGSTER_"))}
    return inherited | environment_of(sandbox, folder) | {"COLUMNS": "200", "DAGSTER_DISABLE_TELEMETRY": "1"}
