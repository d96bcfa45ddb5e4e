"""Measure speed and memory beside their targets: ``python -m benchmarks.run [--runs N] [--sustained | --memory]``.

How it measures:

- Each measurement has its own sandbox exchange, in its own process, with round trips of 100 ms and Binance's weight
  limits, and its own ledger. All counters start at zero, so no measurement pays for an earlier one.
- The sandbox renders the candles before the clock starts, in its own process, without a request and therefore without
  weight. So only the client is timed, and engine and bound use equally prepared sandboxes.
- Limits count per UTC minute. If too little of the current minute is left, a measurement prints that and waits for the
  next one. It then ends within its minute, except where it measures several minutes (``--sustained``, ``--memory``).
- *Engine* is ``download()`` over the days: plan, fetch, parse, validate, from the first request on; no files, no
  Dagster. One month is fetched first, untimed, so that one-time setup of Python is not measured. The Dagster runs below
  are whole processes and include everything.
- *Bound* is a bare loop over the same planned requests, right after the engine: 50 plain threads on one ``urllib3``
  pool with as many connections; the bytes are read and dropped.
- Engine and bound are measured in pairs, ``--runs`` times. The table shows the median and, in brackets, the minimum and
  the maximum; the ratio is the median of the ratios of the pairs.
- *Dagster run* is ``binance-assets download`` as a process in an empty folder, from its start to its end.

- The second table compares the files of the lake with those of version 0.1.0, see :mod:`benchmarks.lake`; the third
  measures two thousand series, see :mod:`benchmarks.scale`.

``--sustained`` and ``--memory`` measure these instead, because they take minutes. Sustained: a download that needs
more weight than two minutes allow; the result is the weight that the sandbox counted in each full minute, that is, in
all minutes but the last. Memory: the peak (``ru_maxrss``) of a process that runs the engine and nothing else.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import requests
import urllib3
from rich.console import Console
from rich.table import Table

from benchmarks.lake import LakeRow, lake_rows, print_lake_rows
from benchmarks.scale import print_scale_rows, scale_rows
from binance_assets.exchange.archive_files import all_files
from binance_assets.exchange.pages import Page, klines_parameters
from binance_assets.exchange.session import Exchange
from binance_assets.exchange.usage import Metrics
from binance_assets.ingest.blocks import plan_rest_pages
from binance_assets.ingest.download import download
from binance_assets.ingest.options import DownloadOptions
from binance_assets.model.markets import MARKETS, Market
from binance_assets.model.partitions import Partition, partitions_between
from binance_assets.model.series import Series, parse_series
from binance_assets.model.timestamps import DAY, to_ms
from binance_assets.sandbox import SandboxOptions, ServedRequest, running_sandbox
from binance_assets.settings import Settings, Source, read_settings

ROUND_TRIP_MS: Final = 100
BOUND_THREADS: Final = 50
MAX_RATIO: Final = {"spot": 1.4, "usdm": 1.25, "coinm": 1.25}
MAX_RUN_SECONDS: Final = 12
MAX_ARCHIVE_SECONDS: Final = 0.7
MAX_MANY_SERIES_SECONDS: Final = 40
MIN_SHARE: Final = 0.97
MAX_MEMORY_MB: Final = 400
MAX_GROWTH: Final = 1.2

_SERIES_COUNT: Final = 200
_MINUTE_SECONDS: Final = 60
_NEEDED_SECONDS: Final = 25  # several times longer than a run of the engine or of the bound
# A fork would copy the locks of threads and the memory of this process.
_PROCESSES: Final = multiprocessing.get_context("spawn")


class BenchmarkError(Exception):
    """A measured download failed, so its time means nothing."""


@dataclass(frozen=True)
class Workload:
    """The candles to download in a measurement: one series from one day to another, the end excluded.

    The name of the series is stored instead of the series, because processes send it to each other.
    """

    name: str
    start: dt.date
    end: dt.date

    @property
    def series(self) -> Series:
        """The series that ``name`` spells."""
        return parse_series(self.name)

    @property
    def partitions(self) -> list[Partition]:
        """All partitions of the series from start to end."""
        return partitions_between(self.start, self.end, self.series.interval)


@dataclass(frozen=True)
class EngineRun:
    """Time, CPU of this process (user and system), candles and metrics of one engine run."""

    seconds: float
    cpu_seconds: float
    candles: int
    metrics: Metrics


@dataclass(frozen=True)
class Row:
    """One line of the table, ready to print."""

    workload: str
    seconds: str
    speed: str
    workers: str
    requests: str
    weight: str
    bound: str
    result: str
    target: str
    met: bool


_YEAR: Final = (dt.date(2024, 1, 1), dt.date(2025, 1, 1))
_SPOT_YEAR: Final = Workload("spot/BTCUSDT/1m", *_YEAR)
_ENGINE_WORKLOADS: Final = (_SPOT_YEAR, Workload("usdm/ETHUSDT/1m", *_YEAR), Workload("coinm/BTCUSD_PERP/1m", *_YEAR))
_WARM_UP: Final = Workload("spot/BTCUSDT/1m", dt.date(2024, 1, 1), dt.date(2024, 2, 1))
_MANY_WORKLOADS: Final = [
    Workload(f"spot/S{number:03d}USDT/1m", dt.date(2024, 1, 1), dt.date(2024, 1, 2))
    for number in range(1, _SERIES_COUNT + 1)
]
_SUSTAINED_WORKLOADS: Final = (
    Workload(
        "spot/BTCUSDT/1s", dt.date(2024, 1, 1), dt.date(2024, 3, 21)
    ),  # all 1m candles of spot need too little weight
    Workload("usdm/BTCUSDT/1m", dt.date(2022, 1, 1), dt.date(2025, 1, 1)),
)
_SINCE_THE_FIRST_DAY: Final = Workload("spot/BTCUSDT/1m", dt.date(2017, 8, 18), dt.datetime.now(dt.UTC).date())


# -- the sandbox ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SandboxProcess:
    """A sandbox exchange in another process."""

    url: str
    _connection: Connection

    def requests(self) -> list[ServedRequest]:
        """Return the requests served so far."""
        self._connection.send("requests")
        served: list[ServedRequest] = self._connection.recv()
        return served


@contextmanager
def sandbox_with(*rendered: Workload) -> Iterator[SandboxProcess]:
    """Start a sandbox that has rendered these candles, and stop it at the end."""
    ours, theirs = _PROCESSES.Pipe()
    process = _PROCESSES.Process(target=_serve, args=(theirs, rendered), daemon=True)
    process.start()
    theirs.close()
    try:
        yield SandboxProcess(ours.recv(), ours)
    finally:
        process.terminate()
        process.join()


def _serve(connection: Connection, rendered: Sequence[Workload]) -> None:
    with running_sandbox(SandboxOptions(rtt_ms=ROUND_TRIP_MS)) as sandbox:
        for workload in rendered:
            series = workload.series
            for day in workload.partitions:
                sandbox.rows(series.market.name, series.symbol, str(series.interval), day.start, day.end)
            sandbox.rows(
                series.market.name, series.symbol, "1d", to_ms(workload.start) - DAY, to_ms(workload.end) + DAY
            )
        connection.send(sandbox.url)
        with suppress(EOFError, KeyboardInterrupt):  # the parent process has ended
            while connection.recv():
                connection.send(list(sandbox.requests))


def wait_for_minute(seconds: float = _NEEDED_SECONDS) -> None:
    """Wait for the next UTC minute unless at least ``seconds`` of this one are left."""
    left = _MINUTE_SECONDS - time.time() % _MINUTE_SECONDS
    if left < seconds:
        report(f"  waiting {left:.0f} s for the next UTC minute")
        time.sleep(left + 0.1)


def report(text: str) -> None:
    """Print a line without buffering."""
    print(text, flush=True)


# -- engine and bound -----------------------------------------------------------------------------------------


def engine_row(workload: Workload, runs: int) -> Row:
    """Measure a year of one series: the engine against the bound."""
    pairs = []
    for number in range(1, runs + 1):
        engine = _engine(workload)
        bound = _bound(workload)
        times = f"engine {engine.seconds:.2f} s, CPU {engine.cpu_seconds:.2f} s, bound {bound:.2f} s"
        report(f"  {number} of {runs}: {times}, ratio {engine.seconds / bound:.2f}")
        pairs.append((engine, bound))
    engines = [engine for engine, _ in pairs]
    ratio = statistics.median(engine.seconds / bound for engine, bound in pairs)
    middle = sorted(engines, key=lambda engine: engine.seconds)[(len(engines) - 1) // 2]
    most = MAX_RATIO[workload.series.market.name]
    return Row(
        workload=f"{workload.name}, year, engine",
        seconds=spread([engine.seconds for engine in engines]),
        speed=f"{statistics.median(engine.candles / engine.seconds for engine in engines):,.0f}",
        workers=str(middle.metrics.workers),
        requests=f"{middle.metrics.requests:,}",
        weight=f"{middle.metrics.weight:,}",
        bound=spread([bound for _, bound in pairs]),
        result=f"{spread([engine.seconds / bound for engine, bound in pairs])} x bound",
        target=f"<= {most} x bound",
        met=ratio <= most,
    )


def _engine(workload: Workload) -> EngineRun:
    with sandbox_with(workload) as sandbox, tempfile.TemporaryDirectory() as folder:
        wait_for_minute()
        return run_engine(workload, sandbox.url, Path(folder))


def archive_row(workload: Workload, runs: int) -> Row:
    """Measure a year of one series from the archive, with hashes and control totals; the zips are built before."""
    engines = []
    for number in range(1, runs + 1):
        with sandbox_with(workload) as sandbox, tempfile.TemporaryDirectory() as folder:
            for file in all_files(workload.series, workload.partitions, to_ms(workload.end) + 60 * DAY):
                requests.head(sandbox.url + file.path, timeout=60).raise_for_status()
            engines.append(run_engine(workload, sandbox.url, Path(folder), "archive"))
        report(f"  {number} of {runs}: {engines[-1].seconds:.2f} s, CPU {engines[-1].cpu_seconds:.2f} s")
    middle = sorted(engines, key=lambda engine: engine.seconds)[(len(engines) - 1) // 2]
    return Row(
        workload=f"{workload.name}, year, archive, engine",
        seconds=spread([engine.seconds for engine in engines]),
        speed=f"{statistics.median(engine.candles / engine.seconds for engine in engines):,.0f}",
        workers=str(middle.metrics.workers),
        requests=f"{middle.metrics.requests:,}",
        weight=f"{middle.metrics.weight:,}",
        bound="",
        result=f"{middle.seconds:.2f} s",
        target=f"<= {MAX_ARCHIVE_SECONDS} s",
        met=middle.seconds <= MAX_ARCHIVE_SECONDS,
    )


def run_engine(workload: Workload, url: str, folder: Path, source: Source = "rest") -> EngineRun:
    """Fetch and validate the whole workload.

    Raises:
        BenchmarkError: A partition was refused.
    """
    series, candles, refused = workload.series, 0, 0
    began, cpu_began = time.perf_counter(), time.process_time()
    exchange = Exchange(series.market, settings_of(url, folder))
    try:
        for result in download(exchange, series, workload.partitions, DownloadOptions(source)):
            candles += result.candles.height
            refused += not result.is_accepted
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    finally:
        exchange.close()
    if refused:
        raise BenchmarkError(f"{workload.name}: {refused} of {len(workload.partitions)} days were refused")
    return EngineRun(seconds, cpu_seconds, candles, exchange.metrics())


def _bound(workload: Workload) -> float:
    with sandbox_with(workload) as sandbox:
        wait_for_minute()
        return run_bare_loop(workload, sandbox.url)


def run_bare_loop(workload: Workload, url: str) -> float:
    """Return the seconds that the requests of a workload take if the responses are dropped.

    Raises:
        BenchmarkError: A response has another status than 200.
    """
    series = workload.series
    pages = plan_rest_pages(series, workload.partitions)
    with urllib3.PoolManager(num_pools=1, maxsize=BOUND_THREADS) as pool:
        fetch = _fetcher(pool, series, url + series.market.api + "/klines")
        began = time.perf_counter()
        with ThreadPoolExecutor(BOUND_THREADS) as threads:
            for status in threads.map(fetch, pages):
                if status != HTTPStatus.OK:
                    raise BenchmarkError(f"{workload.name}: the bare loop got the status {status}")
        return time.perf_counter() - began


def _fetcher(pool: urllib3.PoolManager, series: Series, address: str) -> Callable[[Page], int]:
    headers = {"Accept-Encoding": "gzip, deflate"}  # those of the engine

    def fetch(page: Page) -> int:
        query = urlencode(klines_parameters(series, page.window))
        return pool.request("GET", f"{address}?{query}", headers=headers, decode_content=False, retries=False).status

    return fetch


# -- Dagster runs ---------------------------------------------------------------------------------------------


def run_row(title: str, workloads: Sequence[Workload], max_seconds: float) -> Row:
    """Measure one ``binance-assets download`` of series of one market with the same days, as a process."""
    with sandbox_with(*workloads) as sandbox, tempfile.TemporaryDirectory() as folder:
        wait_for_minute()
        began = time.perf_counter()
        outcomes = _download(workloads, sandbox.url, Path(folder))
        seconds = time.perf_counter() - began
        files = sum(1 for _ in (Path(folder) / "lake").rglob("*.parquet"))
    partitions = sum(outcome["days_present"] for outcome in outcomes)
    if partitions != sum(len(workload.partitions) for workload in workloads):
        raise BenchmarkError(f"{title}: {partitions} partitions were written")
    report(f"  {seconds:.2f} s")
    return Row(
        workload=title,
        seconds=f"{seconds:.2f}",
        speed=f"{sum(outcome['rows'] for outcome in outcomes) / seconds:,.0f}",
        workers=str(max(outcome["workers"] for outcome in outcomes)),
        requests=f"{sum(outcome['requests'] for outcome in outcomes):,}",
        weight=f"{sum(outcome['weight'] for outcome in outcomes):,}",
        bound="",
        result=f"{seconds:.1f} s, {files} files",
        target=f"<= {max_seconds} s",
        met=seconds <= max_seconds,
    )


def _download(workloads: Sequence[Workload], url: str, folder: Path) -> list[dict[str, Any]]:
    first = workloads[0]
    command = [sys.executable, "-m", "binance_assets", "download", *(workload.series.symbol for workload in workloads)]
    command += ["--market", first.series.market.name, "--interval", str(first.series.interval), "--json"]
    command += ["--start", first.start.isoformat(), "--end", first.end.isoformat(), "--source", "rest"]
    result = subprocess.run(
        command, cwd=folder, env=environment_of(url, folder), capture_output=True, text=True, check=False
    )
    if result.returncode:
        last = result.stderr.strip().splitlines()[-1:] or ["no message"]
        raise BenchmarkError(f"the download ended with code {result.returncode}: {last[0]}")
    outcomes: dict[str, dict[str, Any]] = json.loads(result.stdout)
    return list(outcomes.values())


def environment_of(url: str, folder: Path) -> dict[str, str]:
    """Return the environment of a client that uses only the sandbox and keeps its ledger in ``folder``."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("BINANCE_", "DAGSTER_"))}
    hosts = {f"BINANCE_{name.upper()}_URL": url for name in (*MARKETS, "archive")}
    return {**inherited, **hosts, "BINANCE_ASSETS_LEDGER": str(folder / "ledger.sqlite")}


def settings_of(url: str, folder: Path) -> Settings:
    """Return the settings of a client with :func:`environment_of`."""
    return read_settings(environment_of(url, folder))


# -- sustained ------------------------------------------------------------------------------------------------


def sustained_row(workload: Workload) -> Row:
    """Measure the share of the weight limit that a long download uses in each minute."""
    with sandbox_with() as sandbox, tempfile.TemporaryDirectory() as folder:
        wait_for_minute()
        run = run_engine(workload, sandbox.url, Path(folder))
        served = sandbox.requests()
    shares = shares_of_full_minutes(served, workload.series.market)
    rejections = sum(1 for request in served if request.status in (418, 429))
    message = ", ".join(f"{share:.1%}" for share in shares)
    report(f"  {run.seconds:.1f} s, of the limit in each full minute: {message}; rejections: {rejections}")
    return Row(
        workload=f"{workload.name}, {len(workload.partitions):,} days, sustained",
        seconds=f"{run.seconds:.1f}",
        speed="",  # meaningless, because the weight of the first minute is used up within seconds
        workers=str(run.metrics.workers),
        requests=f"{run.metrics.requests:,}",
        weight=f"{run.metrics.weight:,}",
        bound="",
        result=f"{message} of the limit, {rejections} x 429",
        target=f">= {MIN_SHARE:.0%}, 0 x 429",
        met=bool(shares) and min(shares) >= MIN_SHARE and not rejections,
    )


def shares_of_full_minutes(served: Sequence[ServedRequest], market: Market) -> list[float]:
    """Return the used share of the weight limit in each minute but the last, in which too few requests were left."""
    weights: Counter[int] = Counter()
    for request in served:
        weights[request.at_ms // (_MINUTE_SECONDS * 1_000)] += request.weight
    minutes = range(min(weights), max(weights))
    return [weights[minute] / market.weight_limit for minute in minutes]


# -- memory ---------------------------------------------------------------------------------------------------


def memory_rows() -> Iterator[Row]:
    """Measure the peak memory of a year, and of all years since the first candle."""
    year_megabytes = 0.0
    for workload in (_SPOT_YEAR, _SINCE_THE_FIRST_DAY):
        megabytes, run = _measured_memory(workload)
        year_megabytes = year_megabytes or megabytes
        yield Row(
            workload=f"{workload.name}, {len(workload.partitions):,} days, memory",
            seconds=f"{run.seconds:.2f}",
            speed=f"{run.candles / run.seconds:,.0f}",
            workers=str(run.metrics.workers),
            requests=f"{run.metrics.requests:,}",
            weight=f"{run.metrics.weight:,}",
            bound="",
            result=f"{megabytes:.0f} MB, {megabytes / year_megabytes:.2f} x a year",
            target=f"<= {MAX_MEMORY_MB} MB, <= {MAX_GROWTH} x",
            met=megabytes <= MAX_MEMORY_MB and megabytes / year_megabytes <= MAX_GROWTH,
        )


def _measured_memory(workload: Workload) -> tuple[float, EngineRun]:
    report(f"{workload.name} from {workload.start} to {workload.end}, memory")
    with sandbox_with() as sandbox, tempfile.TemporaryDirectory() as folder:
        wait_for_minute()
        with ProcessPoolExecutor(1, mp_context=_PROCESSES) as processes:
            megabytes, run = processes.submit(_peak_memory, workload, sandbox.url, Path(folder)).result()
    report(f"  {megabytes:.0f} MB")
    return megabytes, run


def _peak_memory(workload: Workload, url: str, folder: Path) -> tuple[float, EngineRun]:
    run = run_engine(workload, url, folder)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, run


# -- the table ------------------------------------------------------------------------------------------------


def main() -> None:
    """Measure and print the table."""
    options = _options()
    console = Console(width=max(190, Console().width))
    try:
        # Memory comes first: on Linux the peak of a new process starts at the size of the process that started it.
        rows = list(memory_rows()) if options.memory else []
        rows += [_announced(workload, sustained_row) for workload in _SUSTAINED_WORKLOADS if options.sustained]
        if not (options.memory or options.sustained):
            rows = _default_rows(options.runs)
    except BenchmarkError as error:
        sys.exit(f"error: {error}")
    console.print(_table(rows))
    if not (options.memory or options.sustained):
        print_lake_rows(console, _lake_rows())
        print_scale_rows(console, scale_rows())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run", description="Measure speed and memory beside their targets."
    )
    parser.add_argument("--runs", type=int, default=3, help="pairs of engine and bound (default: 3)")
    parser.add_argument(
        "--sustained", action="store_true", help="measure the speed at the weight limit instead; 5 minutes"
    )
    parser.add_argument(
        "--memory", action="store_true", help="measure the peak memory of one and of all years instead; 2 minutes"
    )
    options = parser.parse_args()
    if options.runs < 1:
        parser.error("--runs must be at least 1")
    return options


def _default_rows(runs: int) -> list[Row]:
    with sandbox_with() as sandbox, tempfile.TemporaryDirectory() as folder:
        run_engine(_WARM_UP, sandbox.url, Path(folder))
    rows = [_announced(workload, lambda workload: engine_row(workload, runs)) for workload in _ENGINE_WORKLOADS]
    report("spot/BTCUSDT/1m, year, from the archive")
    rows.append(archive_row(_SPOT_YEAR, runs))
    report("spot/BTCUSDT/1m, year, as one Dagster run")
    rows.append(run_row("spot/BTCUSDT/1m, year, Dagster run", [_SPOT_YEAR], MAX_RUN_SECONDS))
    report(f"{_SERIES_COUNT} series, one day, as one Dagster run")
    rows.append(run_row(f"{_SERIES_COUNT} spot series, day, Dagster run", _MANY_WORKLOADS, MAX_MANY_SERIES_SECONDS))
    return rows


def _lake_rows() -> list[LakeRow]:
    report("files of a month against files of a day")
    with sandbox_with() as sandbox, tempfile.TemporaryDirectory() as folder:
        options, series = DownloadOptions(source="archive"), _SPOT_YEAR.series
        with closing(Exchange(series.market, settings_of(sandbox.url, Path(folder)))) as exchange:
            results = list(download(exchange, series, _SPOT_YEAR.partitions, options))
    return lake_rows(sorted(results, key=lambda result: result.partition))


def _announced(workload: Workload, measure: Callable[[Workload], Row]) -> Row:
    report(f"{workload.name} from {workload.start} to {workload.end}")
    return measure(workload)


def spread(values: Sequence[float]) -> str:
    """Return the median, with minimum and maximum in brackets."""
    middle = f"{statistics.median(values):.2f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.2f}-{max(values):.2f})"


def _table(rows: Sequence[Row]) -> Table:
    title = f"sandbox exchange, round trips of {ROUND_TRIP_MS} ms, weight limits enforced, {os.cpu_count()} cores"
    table = Table(title=title, box=None, pad_edge=False, header_style="bold")
    table.add_column("work", no_wrap=True)
    for name in ("seconds", "candles/s", "workers", "requests", "weight", "bound, s", "result", "target", "met"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        numbers = (row.seconds, row.speed, row.workers, row.requests, row.weight, row.bound)
        table.add_row(row.workload, *numbers, row.result, row.target, "yes" if row.met else "[bold red]no[/]")
    return table


if __name__ == "__main__":
    main()
