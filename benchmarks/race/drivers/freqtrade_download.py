"""freqtrade: ``download-data``, its API pointed at the sandbox by ``ccxt_config`` of its configuration.

The address of the archive is written into a function of freqtrade, so the driver replaces the host in what that
function returns.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from freqtrade.exchange import binance_public_data
from freqtrade.main import main as run_freqtrade

from benchmarks.race.drivers.ccxt_options import exchange_options, unified_symbol
from benchmarks.race.drivers.task import Task, finish, read_task

_ARCHIVE: Final = "https://data.binance.vision"


def point_archive_at(url: str) -> None:
    """Replace the host of the archive."""
    original = binance_public_data.binance_vision_ohlcv_zip_url

    def replaced(*arguments: Any) -> str:
        address: str = original(*arguments)
        return address.replace(_ARCHIVE, url)

    binance_public_data.binance_vision_ohlcv_zip_url = replaced


def configuration(task: Task) -> dict[str, Any]:
    """Return the content of freqtrade's configuration file."""
    exchange = {
        "name": "binance",
        "ccxt_config": exchange_options(task),
        "pair_whitelist": [unified_symbol(task)],
        "only_from_ccxt": task.source == "rest",
    }
    return {"stake_currency": "USDT", "dry_run": True, "exchange": exchange, "dataformat_ohlcv": "parquet"}


def arguments(task: Task) -> list[str]:
    """Return the command line; of futures, only the candles of the contract and not those of its mark price."""
    mode = ["--trading-mode", "spot" if task.market == "spot" else "futures"]
    kinds = [] if task.market == "spot" else ["--candle-types", "futures"]
    days = f"{task.start:%Y%m%d}-{task.end:%Y%m%d}"
    files = ["--config", "config.json", "--userdir", "user_data", "--datadir", "candles"]
    return ["download-data", *files, *mode, *kinds, "--timeframes", "1m", "--timerange", days]


def main() -> None:
    """Download the candles of the task, and end with freqtrade's exit code."""
    task = read_task()
    point_archive_at(task.url)
    for folder in ("user_data", "candles"):
        Path(folder).mkdir()
    Path("config.json").write_text(json.dumps(configuration(task)))
    try:
        run_freqtrade(arguments(task))
    finally:
        finish()


if __name__ == "__main__":
    main()
