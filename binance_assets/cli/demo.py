"""The demo: a month of three series from the sandbox, through Dagster, into ``./demo``.

The sandbox runs in a process of its own, so that what is measured is the client. Everything that the demo writes
lives in one folder, which can be deleted.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import requests
from rich.console import Console
from rich.table import Table

from binance_assets.model.markets import COINM, MARKETS, SPOT, USDM
from binance_assets.model.series import parse_series
from binance_assets.settings import ConfigurationError
from binance_assets.storage.universe_editor import track

FOLDER: Final = "demo"


_ROUND_TRIP_MS: Final = 100


_SERIES: Final = ((SPOT, "BTCUSDT"), (USDM, "ETHUSDT"), (COINM, "BTCUSD_PERP"))


_START, _END = "2024-01-01", "2024-02-01"


_START_SECONDS: Final = 30


def run_demo(folder: Path, with_ui: bool) -> int:
    """Run the demo in ``folder`` and print its table.

    Args:
        folder: Where the demo's own folder is made.
        with_ui: Whether to open Dagster on the demo afterwards, until interrupted.

    Returns:
        The exit code: 0 where every day is there.

    Raises:
        ConfigurationError: The sandbox could not be started.
    """
    home = folder / FOLDER
    _write_configuration(home)
    with sandbox_process(home / "sandbox.log", _ROUND_TRIP_MS) as url:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("BINANCE_")}
        environment = inherited | settings_of(home, url)
        print(f"The sandbox exchange answers at {url}, with round trips of {_ROUND_TRIP_MS} ms.")
        print(f"Downloading 1m candles from {_START} to {_END} through Dagster into {FOLDER}/ ...\n")
        outcomes = [_download(home, environment, market.name, symbol) for market, symbol in _SERIES]
        _print_table(outcomes)
        print(_WHERE_NEXT)
        if with_ui:
            subprocess.run(_UI, cwd=home, env=environment, check=False)
    return 0 if all(found["days_present"] == found["days_asked"] for _, found in outcomes) else 1


_UI: Final = [sys.executable, "-m", "dagster", "dev", "-w", "workspace.yaml"]


_WORKSPACE: Final = """\
load_from:
  - python_module:
      module_name: binance_assets.definitions
      location_name: binance_assets
"""


_INSTANCE: Final = """\
run_queue:
  dequeue_interval_seconds: 1
telemetry:
  enabled: false
nux:
  enabled: false
"""


_WHERE_NEXT: Final = f"""
Where to look next:
  every day of it in the Dagster UI   make demo-ui
  the Parquet files                   {FOLDER}/lake
  a market as one table               pl.scan_parquet("{FOLDER}/lake/market=spot/")

These candles are synthetic and say so; a lake of real candles refuses them."""


def settings_of(home: Path, url: str) -> dict[str, str]:
    """The environment variables of everything that works in the demo's folder.

    Args:
        home: The demo's folder.
        url: The sandbox.
    """
    return {
        **{f"BINANCE_{name.upper()}_URL": url for name in MARKETS},
        "BINANCE_ARCHIVE_URL": url,
        "BINANCE_ASSETS_SOURCE": "rest",  # whose warm-up and weight the table shows
        "BINANCE_ASSETS_LAKE": "lake",
        "BINANCE_ASSETS_UNIVERSE": "universe.yaml",
        "BINANCE_ASSETS_LEDGER": "ledger.sqlite",
        "DAGSTER_HOME": str(home / "dagster"),
        "NO_PROXY": "127.0.0.1",
    }


def _write_configuration(home: Path) -> None:
    (home / "dagster").mkdir(parents=True, exist_ok=True)
    (home / "dagster" / "dagster.yaml").write_text(_INSTANCE)
    (home / "workspace.yaml").write_text(_WORKSPACE)
    track(home / "universe.yaml", [parse_series(f"{market}/{symbol}/1m") for market, symbol in _SERIES])


@contextmanager
def sandbox_process(log: Path, rtt_ms: float) -> Iterator[str]:
    """A sandbox exchange in a process of its own: its URL, for the length of the block.

    Args:
        log: What the process prints goes there.
        rtt_ms: Round-trip time of its answers.

    Raises:
        ConfigurationError: It does not answer.
    """
    port = _free_port()
    command = [sys.executable, "-m", "binance_assets", "sandbox", "--port", str(port), "--rtt-ms", str(rtt_ms)]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        _await(process, f"{url}{SPOT.api}/ping", log)
        yield url
    finally:
        process.terminate()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    session = requests.Session()
    session.trust_env = False  # a proxy would look for the sandbox on its own machine
    while process.poll() is None and time.monotonic() < deadline:
        try:
            session.get(url, timeout=1)
            return
        except requests.RequestException:
            time.sleep(0.1)
    last = log.read_text().strip().splitlines()[-1:] or ["no message"]
    raise ConfigurationError(f"the sandbox does not answer at {url}: {last[0]}; see {log}")


def _download(home: Path, environment: Mapping[str, str], market: str, symbol: str) -> tuple[str, dict[str, Any]]:
    command = [sys.executable, "-m", "binance_assets", "download", symbol, "--market", market, "--interval", "1m"]
    command += ["--start", _START, "--end", _END, "--refresh", "--json"]
    result = subprocess.run(command, cwd=home, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if not result.stdout:
        raise ConfigurationError(f"the download of {market}/{symbol}/1m ended with code {result.returncode}")
    name, found = next(iter(json.loads(result.stdout).items()))
    return name, found


def _print_table(outcomes: list[tuple[str, dict[str, Any]]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("market", "symbol", "interval", "period"):
        table.add_column(name, no_wrap=True)
    for name in ("warm-up", "workers", "duration", "round trip", "candles", "candles/s", "complete"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, found in outcomes:
        table.add_row(
            *name.split("/"),
            _START[:7],
            str(found["warmup"]),
            str(found["workers"]),
            f"{found['seconds']:.1f} s",
            f"{found['rtt_ms'] or 0:.0f} ms",
            f"{found['rows']:,}",
            f"{found['rows'] / found['seconds']:,.0f}" if found["seconds"] else "-",
            f"{found['days_present']} of {found['days_asked']} days",
        )
    Console(width=max(130, Console().width)).print(table)
