"""The demo: a month of three series from the sandbox, through Dagster, into ``./demo``.

The sandbox runs in a process of its own, so that its work does not slow down the client. Everything that the demo
writes is in one folder, which can be deleted.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
import requests

from binance_assets.cli.output import build_table, candles_per_second, print_table
from binance_assets.model.markets import COINM, MARKETS, SPOT, USDM
from binance_assets.model.series import Series, parse_series
from binance_assets.settings import ConfigurationError
from binance_assets.storage.universe_editor import track

FOLDER: Final = "demo"

_SERIES: Final = tuple(
    parse_series(f"{market}/{symbol}/1m")
    for market, symbol in ((SPOT, "BTCUSDT"), (USDM, "ETHUSDT"), (COINM, "BTCUSD_PERP"))
)
_START: Final = "2024-01-01"
_END: Final = "2024-02-01"
_RTT_MS: Final = 100
_START_TIMEOUT: Final = 30  # seconds
_TABLE_WIDTH: Final = 130

_UI: Final = [sys.executable, "-m", "binance_assets", "ui"]

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
  every day in the Dagster UI         make demo-ui
  the Parquet files                   {FOLDER}/lake
  a market as one table               pl.scan_parquet("{FOLDER}/lake/market=spot/")

These candles are synthetic, and their files record that; a lake of real candles refuses them."""


def run_demo(folder: Path, with_ui: bool) -> int:
    """Run the demo and print its table.

    Args:
        folder: The folder in which the demo creates its own.
        with_ui: Whether to serve the Dagster UI on the result afterwards, until interrupted.

    Returns:
        The exit code: 0 if every requested partition is in the demo's lake, else 1.

    Raises:
        ConfigurationError: The sandbox does not start, or a download fails before it has an outcome.
    """
    home = folder / FOLDER
    _write_configuration(home)
    with sandbox_process(home / "sandbox.log", _RTT_MS) as url:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("BINANCE_")}
        environment = inherited | demo_environment(home, url)
        click.echo(f"The sandbox exchange runs at {url}, with round trips of {_RTT_MS} ms.")
        click.echo(f"Downloading 1m candles from {_START} to {_END} through Dagster into {FOLDER}/ ...\n")
        outcomes = {series: _download(home, environment, series) for series in _SERIES}
        _print_outcomes(outcomes)
        click.echo(_WHERE_NEXT)
        if with_ui:
            subprocess.run(_UI, cwd=home, env=environment, check=False)
    return 0 if all(outcome["days_present"] == outcome["days_asked"] for outcome in outcomes.values()) else 1


def demo_environment(home: Path, url: str) -> dict[str, str]:
    """Return the environment variables of every process that works in the demo's folder.

    Args:
        home: The demo's folder.
        url: The URL of the sandbox.
    """
    return {
        **{f"BINANCE_{name.upper()}_URL": url for name in MARKETS},
        "BINANCE_ARCHIVE_URL": url,
        "BINANCE_ASSETS_SOURCE": "rest",  # the table shows warm-up and workers, which only REST has
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
    track(home / "universe.yaml", _SERIES)


@contextmanager
def sandbox_process(log: Path, rtt_ms: float) -> Iterator[str]:
    """Run a sandbox exchange in a process of its own for the length of the block; yield its URL.

    Args:
        log: File for the output of the process.
        rtt_ms: Round-trip time of its responses, ms.

    Raises:
        ConfigurationError: The sandbox does not respond in time.
    """
    port = _free_port()
    command = [sys.executable, "-m", "binance_assets", "sandbox", "--port", str(port), "--rtt-ms", str(rtt_ms)]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(process, f"{url}{SPOT.api}/ping", log)
        yield url
    finally:
        process.terminate()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    session = requests.Session()
    session.trust_env = False  # a proxy would look for the sandbox on its own machine
    while process.poll() is None and time.monotonic() < deadline:
        try:
            session.get(url, timeout=1)
            return
        except requests.RequestException:
            time.sleep(0.1)
    last_line = log.read_text().strip().splitlines()[-1:] or ["no message"]
    raise ConfigurationError(f"the sandbox does not respond at {url}: {last_line[0]}; see {log}")


def _download(home: Path, environment: Mapping[str, str], series: Series) -> dict[str, Any]:
    """Download a series in a process of its own; return the outcome that its ``--json`` prints."""
    result = subprocess.run(
        [sys.executable, "-m", "binance_assets", *_arguments(series)],
        cwd=home,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if not result.stdout:
        raise ConfigurationError(f"the download of {series} failed with exit code {result.returncode}")
    outcome: dict[str, Any] = json.loads(result.stdout)[str(series)]
    return outcome


def _arguments(series: Series) -> Sequence[str]:
    request = ["download", series.symbol, "--market", series.market.name, "--interval", series.interval.name]
    return [*request, "--start", _START, "--end", _END, "--refresh", "--json"]


def _print_outcomes(outcomes: Mapping[Series, Mapping[str, Any]]) -> None:
    names = ("warm-up", "workers", "duration", "round trip", "candles", "candles/s", "complete")
    table = build_table(["market", "symbol", "interval", "month"], names)
    for series, outcome in outcomes.items():
        table.add_row(
            *str(series).split("/"),
            _START[:7],
            str(outcome["warmup"]),
            str(outcome["workers"]),
            f"{outcome['seconds']:.1f} s",
            f"{outcome['rtt_ms'] or 0:.0f} ms",
            f"{outcome['rows']:,}",
            candles_per_second(outcome),
            f"{outcome['days_present'] - sum(outcome['verdicts'].values())} of {outcome['days_asked']} days",
        )
    print_table(table, min_width=_TABLE_WIDTH)
