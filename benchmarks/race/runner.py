"""Running one contestant: its driver in an empty folder, measured, and its candles compared with the truth."""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import polars as pl

from benchmarks.environments import Environments
from benchmarks.race.comparison import Comparison, Response, alarming_lines, compare, normalized_lines, response_to_hole
from benchmarks.race.contestants import Contestant
from benchmarks.race.drivers.task import Task, write_task
from benchmarks.race.exchange import Counters, RaceExchange
from benchmarks.race.measured_process import Measured, run_measured
from benchmarks.race.outputs import Output, read_output
from benchmarks.race.workloads import SYMBOL, Hole, Workload, truth_of
from binance_assets.model.markets import parse_market

LIMIT_SECONDS: Final = 180
_PROJECT: Final = Path(__file__).resolve().parents[2]
_MINUTE_SECONDS: Final = 60
_FREE_SHARE: Final = 0.6  # of a minute's weight that must be left when a run begins


@dataclass(frozen=True)
class Run:
    """One run of a contestant.

    Attributes:
        contestant: The contestant.
        workload: What it downloaded.
        measured: Time, memory and output of its process.
        counters: What the sandbox counted meanwhile.
        comparison: What its candles are worth; None if it delivered none.
    """

    contestant: Contestant
    workload: Workload
    measured: Measured
    counters: Counters
    comparison: Comparison | None


@dataclass(frozen=True)
class HoleRun:
    """One run of a contestant with a planted hole."""

    run: Run
    hole: Hole
    response: Response
    alarms: tuple[str, ...]


class Runner:
    """Runs contestants, one after another.

    Args:
        exchange: The exchange that they download from.
        environments: Their environments.
        limit: Seconds after which a run is ended.
    """

    def __init__(self, exchange: RaceExchange, environments: Environments, limit: float = LIMIT_SECONDS) -> None:
        """Run nothing yet."""
        self._exchange = exchange
        self._environments = environments
        self._limit = limit
        self._used: Counter[tuple[str, int]] = Counter()
        self._usual_lines: dict[str, set[str]] = {}

    def race(self, contestant: Contestant, workload: Workload) -> Run:
        """Run a contestant without any fault."""
        self._exchange.plant([])
        run = self._run(contestant, workload, truth_of(workload), None)
        self._usual_lines.setdefault(contestant.key, set()).update(normalized_lines(run.measured.text))
        return run

    def race_with_hole(self, contestant: Contestant, hole: Hole) -> HoleRun:
        """Run a contestant with a planted hole; :meth:`race` must have run it before, without one."""
        self._exchange.plant(hole.faults)
        try:
            run = self._run(contestant, hole.workload, hole.truth(), hole)
        finally:
            self._exchange.plant([])
        alarms = tuple(alarming_lines(run.measured.text, self._usual_lines.get(contestant.key, set())))
        process = run.measured
        response = response_to_hole(run.comparison, hole.is_repairable, process.exit_code, process.reports, alarms)
        return HoleRun(run, hole, response, alarms)

    def _run(self, contestant: Contestant, workload: Workload, truth: pl.DataFrame, hole: Hole | None) -> Run:
        self._exchange.list_files(workload, hole)
        python = self._environments.python(contestant.package)
        self._wait_for_weight(workload.market)
        with tempfile.TemporaryDirectory(prefix="race-") as name:
            folder = Path(name)
            write_task(self._task(contestant, workload), folder)
            command = [python, "-m", f"benchmarks.race.drivers.{contestant.driver}"]
            before = self._exchange.counters()
            until_finish = contestant.output is Output.ROWS
            measured = run_measured(command, folder, driver_environment(folder), self._limit, until_finish)
            counters = self._exchange.counters().since(before)
            candles = read_output(contestant.output, folder)
            measured = replace(measured, text=measured.text.replace(name, "."))
        self._used[workload.market, _minute()] += counters.weight
        comparison = None if candles is None else compare(candles, truth, *workload.range_ms)
        return Run(contestant, workload, measured, counters, comparison)

    def _task(self, contestant: Contestant, workload: Workload) -> Task:
        exchange = self._exchange
        return Task(
            market=workload.market, symbol=SYMBOL, start=workload.start, end=workload.end, url=exchange.url,
            listing_url=exchange.listing.url, source=contestant.source,
        )  # fmt: skip

    def _wait_for_weight(self, market: str) -> None:
        """Wait for the next UTC minute if earlier runs used much of this one's weight."""
        limit = parse_market(market).weight_limit
        if self._used[market, _minute()] > (1 - _FREE_SHARE) * limit:
            time.sleep(_MINUTE_SECONDS - time.time() % _MINUTE_SECONDS + 0.1)


def _minute() -> int:
    return int(time.time()) // _MINUTE_SECONDS


def driver_environment(folder: Path) -> dict[str, str]:
    """Return the environment of a driver: the project to import, and a home folder of its own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("BINANCE_", "DAGSTER_"))}
    return {**inherited, "PYTHONPATH": str(_PROJECT), "HOME": str(folder), "NO_PROXY": "127.0.0.1"}
