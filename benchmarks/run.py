"""Measure speed and memory beside their targets.

``python -m benchmarks.run [--runs N] [--bulk | --sustained | --memory]``

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
- *Dagster run* is ``binance-assets download`` as a process in an empty folder, from its start to its end. Where its
  target is a ratio, it is that of its CPU time to the CPU time of the same download with commit af4929a, right after
  it; the smallest of ``--runs`` counts, because other processes of the machine only add to it.
- Runs from the archive get zips that were built before, from a server that only sends them.
- A whole market is measured on forty symbols, by two commands at once, each with half of them; and on twenty, to show
  that the time is proportional to their number.
- The second table compares the files of the lake with those of version 0.1.0, see :mod:`benchmarks.lake`; the third
  measures two thousand series, see :mod:`benchmarks.scale`; the fourth what a user notices, see
  :mod:`benchmarks.users`.

``--bulk`` measures only the Dagster runs. ``--sustained`` and ``--memory`` measure these instead, because they take
minutes. Sustained: a download that needs
more weight than two minutes allow; the result is the weight that the sandbox counted in each full minute, that is, in
all minutes but the last. Memory: the peak (``ru_maxrss``) of a process that runs the engine and nothing else.
"""

from __future__ import annotations

import argparse
import datetime as dt
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import requests
import urllib3
from rich.console import Console
from rich.table import Table

from benchmarks.lake import LakeRow, lake_rows, print_lake_rows
from benchmarks.scale import print_scale_rows, scale_rows
from benchmarks.static_archive import build_archive, static_archive
from benchmarks.users import print_user_rows, user_rows
from benchmarks.whole_runs import EARLIER, Download, WholeRun, earlier_version
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
MAX_RUN_RATIO: Final = 0.42
MAX_ARCHIVE_RUN_RATIO: Final = 0.36
MAX_MANY_SERIES_RATIO: Final = 0.5
MAX_PARTITION_MS: Final = 4
MAX_MARKET_SECONDS: Final = 600
MAX_FIRST_FILE_SECONDS: Final = {"year": 3, "ten years": 5, "market": 10}
MAX_ARCHIVE_SECONDS: Final = 0.7
MIN_SHARE: Final = 0.97
MAX_MEMORY_MB: Final = 400
MAX_GROWTH: Final = 1.2

_SERIES_COUNT: Final = 200
_MARKET_SERIES: Final = 40  # measured; a market has ten times as many
_MARKET_FACTOR: Final = 10
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
    result: str
    target: str
    met: bool
    speed: str = ""
    workers: str = ""
    requests: str = ""
    weight: str = ""
    bound: str = ""


_YEAR: Final = (dt.date(2024, 1, 1), dt.date(2025, 1, 1))
YEAR_OF_SPOT: Final = Workload("spot/BTCUSDT/1m", *_YEAR)
_ENGINE_WORKLOADS: Final = (YEAR_OF_SPOT, Workload("usdm/ETHUSDT/1m", *_YEAR), Workload("coinm/BTCUSD_PERP/1m", *_YEAR))
_WARM_UP: Final = Workload("spot/BTCUSDT/1m", dt.date(2024, 1, 1), dt.date(2024, 2, 1))
_MANY_WORKLOADS: Final = [
    Workload(f"spot/S{number:03d}USDT/1m", dt.date(2024, 1, 1), dt.date(2024, 1, 2))
    for number in range(1, _SERIES_COUNT + 1)
]
_MARKET_WORKLOADS: Final = [Workload(f"spot/S{number:03d}USDT/1m", *_YEAR) for number in range(1, _MARKET_SERIES + 1)]
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


@dataclass(frozen=True)
class Hosts:
    """The addresses that a download uses: those of the APIs and of the archive."""

    apis: str
    archive: str


def pair_row(title: str, workloads: Sequence[Workload], source: Source, runs: int, most: float) -> Row:
    """Measure a Dagster run against the same run with the earlier version, in pairs."""
    pairs = []
    with earlier_version() as earlier, archive_of(workloads if source == "archive" else []) as archive:
        for number in range(1, runs + 1):
            run = _whole_run(workloads, source, archive, {})
            before = _whole_run(workloads, source, archive, earlier) if earlier else None
            report(f"  {number} of {runs}: {run.cpu:.1f} s of CPU" + (f", before {before.cpu:.1f} s" if before else ""))
            pairs.append((run, before))
    best = min((run for run, _ in pairs), key=lambda run: run.cpu)
    earlier_cpu = min((before.cpu for _, before in pairs if before), default=None)
    ratio = None if earlier_cpu is None else best.cpu / earlier_cpu
    return Row(
        workload=title,
        seconds=spread([run.seconds for run, _ in pairs]),
        result=f"CPU {best.cpu:.1f} s, " + (f"{ratio:.2f} x {EARLIER}" if ratio else f"no {EARLIER} here"),
        target=f"<= {most} x {EARLIER}",
        met=ratio is not None and ratio <= most,
    )


def peak_row(title: str, workloads: Sequence[Workload], source: Source, first_file: str) -> Row:
    """Measure when the first file of a Dagster run is there, and the peak memory of its process."""
    with archive_of(workloads if source == "archive" else []) as archive:
        run = _whole_run(workloads, source, archive, {}, only_first_file=first_file != "year")
    seconds, most = run.first_file or run.seconds, MAX_FIRST_FILE_SECONDS[first_file]
    report(f"  first file after {seconds:.2f} s")
    return Row(
        workload=title,
        seconds=f"{run.seconds:.2f}",
        result=f"first file {seconds:.1f} s, {run.megabytes:.0f} MB",
        target=f"<= {most} s, <= {MAX_MEMORY_MB} MB",
        met=seconds <= most and run.megabytes <= MAX_MEMORY_MB,
    )


def market_rows() -> Iterator[Row]:
    """Measure many series from the archive: half of them, and all, by two commands at once."""
    with archive_of(_MARKET_WORKLOADS) as archive:
        half = _two_commands(_MARKET_WORKLOADS[: _MARKET_SERIES // 2], archive)
        all_of_them = _two_commands(_MARKET_WORKLOADS, archive)
    cpus = [sum(run.cpu for run in runs) for runs in (half, all_of_them)]
    seconds = [max(run.seconds for run in runs) for runs in (half, all_of_them)]
    partitions = sum(len(workload.partitions) for workload in _MARKET_WORKLOADS)
    per_partition = (cpus[1] - cpus[0]) / (partitions / 2) * 1_000
    megabytes = max(run.megabytes for run in all_of_them)
    yield Row(
        workload=f"{_MARKET_SERIES} spot series, year, archive, CPU for each partition",
        seconds=f"{seconds[1]:.1f}",
        result=f"{per_partition:.1f} ms, {megabytes:.0f} MB",
        target=f"<= {MAX_PARTITION_MS} ms, <= {MAX_MEMORY_MB} MB",
        met=per_partition <= MAX_PARTITION_MS and megabytes <= MAX_MEMORY_MB,
    )
    market = seconds[1] * _MARKET_FACTOR
    yield Row(
        workload=f"{_MARKET_SERIES * _MARKET_FACTOR} spot series, year, archive, two commands",
        seconds=f"{market:.0f}",
        result=f"{market / 60:.1f} min; {_MARKET_SERIES} take {seconds[1] / seconds[0]:.2f} x {_MARKET_SERIES // 2}",
        target=f"<= {MAX_MARKET_SECONDS / 60:.0f} min",
        met=market <= MAX_MARKET_SECONDS,
    )


def _two_commands(workloads: Sequence[Workload], archive: str) -> list[WholeRun]:
    """Run two downloads at once, each of every other series, into one lake and one instance."""
    with sandbox_with() as sandbox, tempfile.TemporaryDirectory() as name:
        folder, hosts = Path(name), Hosts(sandbox.url, archive)
        _open_instance(folder)
        downloads = [_download(part, "archive", hosts, folder) for part in (workloads[::2], workloads[1::2])]
        runs = [download.wait() for download in downloads]
        _check(runs, workloads, folder)
    report(f"  {len(workloads)} series: {max(run.seconds for run in runs):.1f} s")
    return runs


def _open_instance(folder: Path) -> None:
    """Create the databases of Dagster, so that this is not measured for two processes at once."""
    (folder / "universe.yaml").write_text("series: []\n")
    command = [sys.executable, "-m", "binance_assets", "series"]
    subprocess.run(command, cwd=folder, capture_output=True, check=True, env=environment_of("http://localhost", folder))


def _whole_run(
    workloads: Sequence[Workload],
    source: Source,
    archive: str,
    variables: Mapping[str, str],
    only_first_file: bool = False,
) -> WholeRun:
    """Measure one download of series of one market with the same days, in a folder of its own."""
    rendered = workloads if source == "rest" else []
    with sandbox_with(*rendered) as sandbox, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wait_for_minute()
        download = _download(workloads, source, Hosts(sandbox.url, archive or sandbox.url), folder, variables)
        run = download.wait(only_first_file)
        if not only_first_file:
            _check([run], workloads, folder)
    return run


def _download(
    workloads: Sequence[Workload],
    source: Source,
    hosts: Hosts,
    folder: Path,
    variables: Mapping[str, str] | None = None,
) -> Download:
    first = workloads[0]
    arguments = [*(workload.series.symbol for workload in workloads), "--market", first.series.market.name]
    arguments += ["--interval", str(first.series.interval), "--source", source]
    arguments += ["--start", first.start.isoformat(), "--end", first.end.isoformat()]
    environment = environment_of(hosts.apis, folder) | {"BINANCE_ARCHIVE_URL": hosts.archive} | dict(variables or {})
    return Download(arguments, environment, folder)


def _check(runs: Sequence[WholeRun], workloads: Sequence[Workload], folder: Path) -> None:
    for run in runs:
        if run.code:
            last = (folder / "errors.txt").read_text().strip().splitlines()[-1:] or ["no message"]
            raise BenchmarkError(f"the download ended with code {run.code}: {last[0]}")
    series = {path.parent for path in (folder / "lake").rglob("*.parquet")}
    if len(series) != len(workloads):
        raise BenchmarkError(f"{len(series)} series of {len(workloads)} were written")


@contextmanager
def archive_of(workloads: Sequence[Workload]) -> Iterator[str]:
    """Serve the archive files of series, built before; yield the address, which is empty without series."""
    if not workloads:
        yield ""
        return
    report(f"  building the archive of {len(workloads)} series")
    with tempfile.TemporaryDirectory() as name:
        folder, now = Path(name), int(time.time() * 1_000)
        build_archive(folder, [workload.name for workload in workloads], workloads[0].partitions, now)
        with static_archive(folder, ROUND_TRIP_MS) as url:
            yield url


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
    for workload in (YEAR_OF_SPOT, _SINCE_THE_FIRST_DAY):
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
        if options.bulk:
            rows = _bulk_rows(options.runs)
        elif not (options.memory or options.sustained):
            rows = _engine_rows(options.runs) + _bulk_rows(options.runs)
    except BenchmarkError as error:
        sys.exit(f"error: {error}")
    console.print(_table(rows))
    if not (options.memory or options.sustained or options.bulk):
        print_lake_rows(console, _lake_rows())
        print_scale_rows(console, scale_rows())
        report("what a user notices")
        print_user_rows(console, list(user_rows()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run", description="Measure speed and memory beside their targets."
    )
    parser.add_argument("--runs", type=int, default=3, help="pairs of engine and bound (default: 3)")
    parser.add_argument("--bulk", action="store_true", help="measure only the Dagster runs; 10 minutes")
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


def _engine_rows(runs: int) -> list[Row]:
    with sandbox_with() as sandbox, tempfile.TemporaryDirectory() as folder:
        run_engine(_WARM_UP, sandbox.url, Path(folder))
    rows = [_announced(workload, lambda workload: engine_row(workload, runs)) for workload in _ENGINE_WORKLOADS]
    report("spot/BTCUSDT/1m, year, from the archive")
    rows.append(archive_row(YEAR_OF_SPOT, runs))
    return rows


def _bulk_rows(runs: int) -> list[Row]:
    pairs: list[tuple[str, Sequence[Workload], Source, float]] = [
        (f"{YEAR_OF_SPOT.name}, year, Dagster run", [YEAR_OF_SPOT], "rest", MAX_RUN_RATIO),
        (f"{YEAR_OF_SPOT.name}, year, archive, Dagster run", [YEAR_OF_SPOT], "archive", MAX_ARCHIVE_RUN_RATIO),
        (f"{_SERIES_COUNT} spot series, day, Dagster run", _MANY_WORKLOADS, "rest", MAX_MANY_SERIES_RATIO),
    ]
    rows = []
    for title, workloads, source, most in pairs:
        report(title)
        rows.append(pair_row(title, workloads, source, runs, most))
    first_files: list[tuple[str, Sequence[Workload], Source, str]] = [
        (f"{YEAR_OF_SPOT.name}, year, first file", [YEAR_OF_SPOT], "rest", "year"),
        (f"{YEAR_OF_SPOT.name}, ten years, first file", [_SINCE_THE_FIRST_DAY], "rest", "ten years"),
        (f"{_MARKET_SERIES} spot series, year, archive, first file", _MARKET_WORKLOADS, "archive", "market"),
    ]
    for title, workloads, source, length in first_files:
        report(title)
        rows.append(peak_row(title, workloads, source, length))
    report(f"{_MARKET_SERIES} series, a year, from the archive, by two commands")
    return rows + list(market_rows())


def _lake_rows() -> list[LakeRow]:
    report("files of a month against files of a day")
    with sandbox_with() as sandbox, tempfile.TemporaryDirectory() as folder:
        options, series = DownloadOptions(source="archive"), YEAR_OF_SPOT.series
        with closing(Exchange(series.market, settings_of(sandbox.url, Path(folder)))) as exchange:
            results = list(download(exchange, series, YEAR_OF_SPOT.partitions, options))
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
