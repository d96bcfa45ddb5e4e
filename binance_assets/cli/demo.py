"""The demo: a month of three series with three defects, from the sandbox, through Dagster, into ``./demo``.

The sandbox runs in a process of its own, so that its work does not slow down the client. Everything that the demo
writes is in one folder, which can be deleted. The defects are what happens to real data: the exchange was down, one
source lost a candle, both sources lost one.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import requests

from binance_assets.cli.exit_codes import INTERRUPTED
from binance_assets.cli.output import build_table, candles_per_second, print_table
from binance_assets.cli.progress import Display
from binance_assets.model.markets import COINM, MARKETS, SPOT, USDM
from binance_assets.model.series import Series, parse_series
from binance_assets.model.timestamps import DAY, HOUR, MINUTE, to_date, to_ms
from binance_assets.processes import end_processes
from binance_assets.settings import ConfigurationError
from binance_assets.storage.universe_editor import track
from binance_assets.waiting import phase

FOLDER: Final = "demo"

if TYPE_CHECKING:
    from binance_assets.cli.json_output import Outcome

_SERIES: Final = tuple(
    parse_series(f"{market}/{symbol}/1m")
    for market, symbol in ((SPOT, "BTCUSDT"), (USDM, "ETHUSDT"), (COINM, "BTCUSD_PERP"))
)
_START: Final = "2023-03-01"
_END: Final = "2023-04-01"
_RTT_MS: Final = 100
_START_TIMEOUT: Final = 30  # seconds
_UI_END_SECONDS: Final = 30
_TABLE_WIDTH: Final = 130

_PROGRAM: Final = [sys.executable, "-m", "binance_assets"]
_OF_USER: Final = ("BINANCE_", "DAGSTER_HOME")  # variables that would lead out of the demo's folder

# The defects. The outage is a real one of all of spot, which the table of known outages names.
_OUTAGE: Final = (to_ms(dt.date(2023, 3, 24)) + 12 * HOUR + 40 * MINUTE, to_ms(dt.date(2023, 3, 24)) + 14 * HOUR)
_HEALED: Final = to_ms(dt.date(2023, 3, 8)) + 9 * HOUR
_LOST: Final = to_ms(dt.date(2023, 3, 15)) + 16 * HOUR
_SOURCES: Final = ("klines", "archive")

_COMMANDS: Final = (
    (
        "What the lake has, and what it lacks; the days after March are missing, because nobody asked for them:",
        "status",
    ),
    (
        "The exchange was down and nothing was traded: accepted, with the name of the outage.",
        "show spot/BTCUSDT/1m 2023-03-24 --rows 0",
    ),
    ("One candle was lost in the API: it is healed from the archive.", "show coinm/BTCUSD_PERP/1m 2023-03-08 --rows 0"),
    (
        "One candle was lost in both sources, with its trades: refused, not written.",
        "show usdm/ETHUSDT/1m 2023-03-15",
    ),
    ("Validate all of it again, from the files and the exchange:", "verify"),
)

_WORKSPACE: Final = """\
load_from:
  - python_module:
      module_name: binance_assets.definitions
      location_name: binance_assets
"""

_WHERE_NEXT: Final = f"""
Where to look next:
  every day in the Dagster UI         binance-assets demo --ui
  the Parquet files                   {FOLDER}/lake
  a market as one table               pl.scan_parquet("{FOLDER}/lake/market=spot/")

These candles are synthetic, and their files record that; a lake of real candles refuses them."""


def run_demo(folder: Path, with_ui: bool) -> int:
    """Run the demo and print what became of the month and its defects.

    Args:
        folder: The folder in which the demo creates its own.
        with_ui: Whether to serve the Dagster UI on the result afterwards, until interrupted.

    Returns:
        The exit code: 0 if every day is in the demo's lake except the one that has to be refused, else 1; 130 if the UI
        was interrupted, and that of the UI if it failed.

    Raises:
        ConfigurationError: The sandbox does not start, or a download fails before it has an outcome.
    """
    home = folder / FOLDER
    _write_configuration(home)
    with ExitStack() as until_the_end:
        with Display("the demo"), phase("starting the sandbox exchange"):
            url = until_the_end.enter_context(sandbox_process(home / "sandbox.log", _RTT_MS))
            _plant_defects(url)
        # Without DAGSTER_HOME, the commands of a user who goes on in the folder find the runs of the demo.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OF_USER)}
        environment = inherited | demo_environment(home, url)
        click.echo(f"The sandbox exchange runs at {url}, with round trips of {_RTT_MS} ms. It has three defects.")
        click.echo(f"Downloading 1m candles from {_START} to {_END} through Dagster into {FOLDER}/ ...\n")
        outcomes = {series: _download(home, environment, series) for series in _SERIES}
        _print_outcomes(outcomes)
        for title, arguments in _COMMANDS:
            click.echo(f"\n{title}\n$ binance-assets {arguments}")
            subprocess.run([*_PROGRAM, *arguments.split()], cwd=home, env=environment, check=False)
        click.echo(_WHERE_NEXT)
        if with_ui and (code := _serve_ui(home, environment)):
            return code
    refused = [day["day"] for outcome in outcomes.values() for day in outcome["refused"]]
    return 0 if refused == [to_date(_LOST).isoformat()] else 1


def _serve_ui(home: Path, environment: Mapping[str, str]) -> int:
    """Serve the user interface until it ends, or until this process is interrupted; return the exit code."""
    process = subprocess.Popen([*_PROGRAM, "ui"], cwd=home, env=environment)
    try:
        code = process.wait()
        return code if code >= 0 else 1  # a signal ended it
    except KeyboardInterrupt:  # the normal end, after everything else is done
        click.echo(f"\nThe Dagster UI ends. The demo stays in {FOLDER}/, which can be deleted.", err=True)
        return INTERRUPTED
    finally:
        # It ends its own children, which takes some seconds. If it were killed, they would go on.
        end_processes([process], _UI_END_SECONDS)


def _plant_defects(url: str) -> None:
    """Give the sandbox the three defects of the demo."""
    faults: list[dict[str, Any]] = []
    for path in _SOURCES:
        outage = {"market": "spot", "start": _OUTAGE[0], "end": _OUTAGE[1], "path": path}
        faults.append({"kind": "missing_row", "interval": "1m", **outage})
        day = {"market": "spot", "start": _day_of(_OUTAGE[0]), "end": _day_of(_OUTAGE[0]) + 1, "path": path}
        faults.append({"kind": "other_totals", "interval": "1d", "value": _totals_without_outage(url), **day})
        lost = {"market": "usdm", "start": _LOST, "end": _LOST + MINUTE, "path": path}
        faults.append({"kind": "missing_row", "interval": "1m", **lost})
    healed = {"market": "coinm", "start": _HEALED, "end": _HEALED + MINUTE, "path": "klines"}
    faults.append({"kind": "missing_row", "interval": "1m", **healed})
    with _session() as session:
        session.post(f"{url}/sandbox/faults", json=faults, timeout=_START_TIMEOUT).raise_for_status()


def _day_of(time_ms: int) -> int:
    return time_ms - time_ms % DAY


def _totals_without_outage(url: str) -> str:
    """Return the fields of the outage's day as if its minutes had no trades, for the fault ``other_totals``."""
    start, rows = _day_of(_OUTAGE[0]), []
    with _session() as session:
        for first in range(start, start + DAY, DAY // 2):
            window: dict[str, str | int] = {
                "symbol": "BTCUSDT",
                "interval": "1m",
                "startTime": first,
                "endTime": first + DAY // 2 - 1,
            }
            response = session.get(f"{url}{SPOT.api}/klines", params={**window, "limit": 1_000}, timeout=_START_TIMEOUT)
            rows += response.json()
    kept = [row for row in rows if not _OUTAGE[0] <= row[0] < _OUTAGE[1]]
    sums = {field: sum(Decimal(row[field]) for row in kept) for field in (5, 7, 8, 9, 10)}
    high, low = max(Decimal(row[2]) for row in kept), min(Decimal(row[3]) for row in kept)
    prices = [kept[0][1], str(high), str(low), kept[-1][4]]
    return json.dumps([*prices, str(sums[5]), str(sums[7]), int(sums[8]), str(sums[9]), str(sums[10])])


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
        "NO_PROXY": "127.0.0.1",
    }


def _write_configuration(home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
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


def _session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # a proxy would look for the sandbox on its own machine
    return session


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    with _session() as session:
        while process.poll() is None and time.monotonic() < deadline:
            try:
                session.get(url, timeout=1)
                return
            except requests.RequestException:
                time.sleep(0.1)
    last_line = log.read_text().strip().splitlines()[-1:] or ["no message"]
    raise ConfigurationError(f"the sandbox does not respond at {url}: {last_line[0]}; see {log}")


def _download(home: Path, environment: Mapping[str, str], series: Series) -> Outcome:
    """Download a series in a process of its own; return the outcome that its ``--json`` prints."""
    result = subprocess.run(
        [*_PROGRAM, *_arguments(series)],
        cwd=home,
        env=environment,
        stdout=subprocess.PIPE,  # its progress is shown
        text=True,
        check=False,
    )
    if not result.stdout:
        raise ConfigurationError(f"the download of {series} failed with exit code {result.returncode}")
    outcome: Outcome = json.loads(result.stdout)[str(series)]
    return outcome


def _arguments(series: Series) -> Sequence[str]:
    request = ["download", series.symbol, "--market", series.market.name, "--interval", series.interval.name]
    return [*request, "--start", _START, "--end", _END, "--refresh", "--json"]


def _print_outcomes(outcomes: Mapping[Series, Outcome]) -> None:
    names = ("warm-up", "workers", "duration", "round trip", "candles", "candles/s", "written")
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
            f"{outcome['days_present']} of {outcome['days_asked']} days",
        )
    print_table(table, min_width=_TABLE_WIDTH)
