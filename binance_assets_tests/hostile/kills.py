"""Kills the processes of a working Dagster again and again, and checks that nothing is lost or half written.

A ``binance-assets ui`` with its default sensors works on a backfill over REST and the archive, with a derived series.
Random processes of it are killed: the daemon, the web server, the code server, runs, or all of them as when the power
fails::

    python -m binance_assets_tests.hostile.kills --kills 100
"""

from __future__ import annotations

import argparse
import datetime as dt
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import polars as pl
import psutil
import requests

from binance_assets.candles.resampling import resample
from binance_assets.model.series import Series, parse_any_series
from binance_assets.sandbox import Sandbox, SandboxOptions, running_sandbox
from binance_assets.storage.lake import Lake
from binance_assets_tests.support.dagster_dev import DagsterDev, dagster_dev
from binance_assets_tests.support.environment import CHECKOUT
from binance_assets_tests.support.exchange import expected_candles
from binance_assets_tests.support.lakes import temporary_files
from binance_assets_tests.support.polling import until
from binance_assets_tests.support.user_interface import ENDED, UserInterface

UNIVERSE: Final = """\
series:
  - {market: spot, symbols: [BTCUSDT], intervals: [1m], source: rest, derive: [45m]}
  - {market: spot, symbols: [ETHUSDT], intervals: [1m], source: archive}
"""
FETCHED: Final = ("spot/BTCUSDT/1m", "spot/ETHUSDT/1m")
DERIVED: Final = "spot/BTCUSDT/45m"
FIRST: Final = dt.date(2023, 1, 1)

# How long a kill waits at most, seconds: long enough for the next run to start, short enough to meet it at work.
_LONGEST_PAUSE: Final = 3.0
# How long nothing may happen, seconds: Dagster waits three minutes for a run that was killed while it started.
_LONGEST_STALL: Final = 400
_POWER_FAILURE: Final = 0.2  # the part of the kills that end all processes

_RUN: Final = "run"
_KINDS: Final = {  # by a part of the command line
    "_daemon run": "daemon",
    "orchestration.user_interface": "web server",
    "code-server": "code server",
    "api grpc": "code server",
    "binance_assets ui": "main process",
    "spawn_main": _RUN,
}
_WORKING: Final = ("REQUESTED", "CANCELING")

Answer = TypeVar("Answer")


class Victims:
    """A Dagster whose processes are killed.

    Attributes:
        kills: How many processes were killed, by kind.
        stored: The keys of the stored partitions, by series.
    """

    def __init__(self, dev: DagsterDev, sandbox: Sandbox, rng: random.Random) -> None:
        self.kills = Counter[str]()
        self.stored: dict[str, set[str]] = {}
        self._dev = dev
        self._sandbox = sandbox
        self._rng = rng
        self._lake = Lake(dev.folder / "lake")

    def kill_at_work(self, work: Callable[[], object]) -> None:
        """Wait until a run works, kill a process or all of them, and check the lake.

        Args:
            work: Launches runs unless some are at work.
        """

        def is_at_work() -> bool:
            work()
            return any(kind == _RUN for _, kind in self._processes())

        until(_LONGEST_STALL, lambda: self.with_dagster(is_at_work))
        time.sleep(self._rng.uniform(0, _LONGEST_PAUSE))
        processes = self._processes()
        all_of_them = self._rng.random() < _POWER_FAILURE
        for process, kind in processes if all_of_them else self._rng.sample(processes, min(1, len(processes))):
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
            self.kills[kind] += 1
        self.check_lake()

    def check_lake(self) -> int:
        """Compare every stored partition with the exchange's own candles; return their number.

        Raises:
            AssertionError: A partition is lost or has other candles.
        """
        total = 0
        for name in (*FETCHED, DERIVED):
            series = parse_any_series(name)
            assert self._lake.damaged(series) == []
            held = list(self._lake.stored_partitions(series))
            new = [partition for partition in held if partition.key not in self.stored.get(name, ())]
            for partition, _, candles in self._lake.read_each(series, new):
                assert isinstance(candles, pl.DataFrame), candles
                assert candles.equals(self._expected(series, partition.start, partition.end)), (name, partition)
            keys = {partition.key for partition in held}
            assert keys >= self.stored.get(name, set()), f"{name} lost partitions"
            self.stored[name] = keys
            total += len(keys)
        return total

    def with_dagster(self, ask: Callable[[], Answer]) -> Answer | None:
        """Return the answer of ``ask``; None while Dagster is not there, which is then started again."""
        if not self._dev.is_running:  # as an operator or systemd does
            self._dev.kill()
            self._dev.start()
            self._dev.wait_until_ready()
        try:
            return ask()
        except (requests.RequestException, AssertionError):
            return None

    def _expected(self, series: Series, start: int, end: int) -> pl.DataFrame:
        if str(series) != DERIVED:
            return expected_candles(self._sandbox, str(series), start, end)
        return resample(series.market, expected_candles(self._sandbox, FETCHED[0], start, end), series.interval)

    def _processes(self) -> list[tuple[psutil.Process, str]]:
        """Return the processes that work in the folder, each with its kind."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("DAGSTER_HOME") == str(self._dev.folder):
                    found.append((process, _kind(process.cmdline())))
            except psutil.Error:
                continue
        return found


def _kind(command: Sequence[str]) -> str:
    line = " ".join(command)
    return next((kind for part, kind in _KINDS.items() if part in line), "other")


class Backfills:
    """Backfills over the same days, one after the other: of what is missing, or of everything again."""

    def __init__(self, ui: UserInterface, victims: Victims, days: int) -> None:
        self._ui = ui
        self._victims = victims
        self._keys = [str(FIRST + dt.timedelta(number)) for number in range(days)]

    def keep_working(self, again: bool = False) -> bool:
        """Launch a backfill of what is missing, unless one is working; return whether anything is missing.

        Args:
            again: Whether to fetch everything again if nothing is missing, so that there is something to kill.
        """
        self._ui.reload_if_broken()
        self._victims.check_lake()
        missing = set(self._keys) - (self._victims.stored[FETCHED[0]] & self._victims.stored[FETCHED[1]])
        wanted = missing or (self._keys if again else [])
        if wanted and (not self._ui.backfills or self._ui.backfill_status(self._ui.backfills[-1]) not in _WORKING):
            self._ui.backfill([name.split("/")[1] for name in FETCHED], sorted(wanted))
        return bool(missing)


def kill_repeatedly(kills: int, days: int, seed: int, folder: Path) -> str:
    """Kill processes of a Dagster that works on backfills, then let it finish; return what happened, in one line.

    Raises:
        AssertionError: A partition was lost or is wrong, or the work did not end.
    """
    (folder / "dagster.yaml").write_text((CHECKOUT / "dagster.yaml").read_text())
    (folder / "universe.yaml").write_text(UNIVERSE)
    with running_sandbox(SandboxOptions(rtt_ms=30)) as sandbox, dagster_dev(sandbox, folder) as dev:
        ui, victims = UserInterface(dev), Victims(dev, sandbox, random.Random(seed))
        backfills = Backfills(ui, victims, days)
        dev.wait_until_ready()
        until(120, ui.is_loaded)
        while sum(victims.kills.values()) < kills:
            victims.kill_at_work(lambda: backfills.keep_working(again=True))
            print(f"{sum(victims.kills.values())} kills, {victims.check_lake()} partitions", flush=True)
        until(900, lambda: victims.with_dagster(lambda: not backfills.keep_working()))
        until(300, lambda: victims.with_dagster(lambda: victims.check_lake() == days * len((*FETCHED, DERIVED))))
        until(300, lambda: victims.with_dagster(lambda: not _unfinished(ui)))
        victims.stored.clear()  # to compare also what was fetched again
        total = victims.check_lake()
        assert temporary_files(Lake(folder / "lake")) == []
    summary = f"{sum(victims.kills.values())} kills ({dict(victims.kills)})"
    return f"{summary}, {len(ui.backfills)} backfills, {total} partitions"


def _unfinished(ui: UserInterface) -> list[str]:
    """Return the runs that Dagster believes to be at work."""
    return [run for run, status in ui.runs().items() if status not in ENDED]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the kills as a command."""
    parser = argparse.ArgumentParser(description="Kill the processes of a working Dagster.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args(arguments)
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        try:
            print(kill_repeatedly(options.kills, options.days, options.seed, Path(folder)))
        except AssertionError:
            print((Path(folder) / "log").read_text()[-5_000:], file=sys.stderr)
            raise
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
