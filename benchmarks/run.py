"""Measure the sizes to reach: ``python -m benchmarks.run [--runs N] [--sustained | --memory]``.

How it measures:

- Each measurement has its own sandbox exchange, in its own process, with round trips of 100 ms and Binance's weight
  limits, and its own ledger. All counters start at zero, so no measurement pays for an earlier one.
- The sandbox renders the candles before the clock starts: in its own process, without a request and so without weight.
  So only the client is timed, and engine and bound meet the same sandbox.
- Limits count by UTC minute. A measurement waits for the next minute if too little of this one is left, and prints so;
  it then ends within its minute, unless crossing minutes is the point (``--sustained``, ten years).
- *Engine* is ``download()`` over the days: plan, fetch, parse, validate, the first request included; no files, no
  Dagster. One month is fetched before, untimed, so that what Python sets up only once is not part of it; the Dagster
  runs below are whole processes and include everything.
- *Bound* is a bare loop over the same planned requests, right after the engine: as many plain threads as the engine
  had workers, on one ``requests.Session`` with as many connections; the bytes are read and dropped.
- Engine and bound are measured in pairs, ``--runs`` times. The table shows the median and, in brackets, the least and
  the most; the ratio is the median of the ratios of the pairs.
- *Dagster run* is ``binance-assets download`` as a process in an empty folder, from its start to its end.

``--sustained`` and ``--memory`` measure these instead, because they take minutes. Sustained: a download that needs
more weight than two minutes allow; the result is the weight that the sandbox counted in each full minute, which is each
but the last. Memory: the peak (``ru_maxrss``) of a process that runs the engine and nothing else.
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
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import requests
from requests.adapters import HTTPAdapter
from rich.console import Console
from rich.table import Table

from binance_assets.exchange.archive_files import all_files
from binance_assets.exchange.pages import Page
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
MOST_RATIO: Final = 1.7
MOST_RUN_SECONDS: Final = 12
MOST_ARCHIVE_SECONDS: Final = 1
MOST_MANY_SERIES_SECONDS: Final = 40
LEAST_SHARE: Final = 0.97
MOST_MEMORY_MB: Final = 400
MOST_GROWTH: Final = 1.2

_MANY: Final = 200
_MINUTE_SECONDS: Final = 60
_ROOM_SECONDS: Final = 25  # several times longer than an engine or a bound
_PROCESSES: Final = multiprocessing.get_context(
    "spawn"
)  # a fork would copy the locks of threads and the memory of this process


class BenchmarkError(Exception):
    """The measured work failed, so its time means nothing."""


@dataclass(frozen=True)
class Work:
    """Candles of one series from one day to another, the end excluded.

    The name of the series is stored instead of the series, because processes pass it to each other.
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
    """Time, candles and metrics of one engine run."""

    seconds: float
    candles: int
    metrics: Metrics


@dataclass(frozen=True)
class Row:
    """One line of the table, ready to print."""

    work: str
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
_SPOT_YEAR: Final = Work("spot/BTCUSDT/1m", *_YEAR)
_ENGINE_WORKS: Final = (_SPOT_YEAR, Work("usdm/ETHUSDT/1m", *_YEAR), Work("coinm/BTCUSD_PERP/1m", *_YEAR))
_WARM_UP: Final = Work("spot/BTCUSDT/1m", dt.date(2024, 1, 1), dt.date(2024, 2, 1))
_MANY_WORKS: Final = [
    Work(f"spot/S{number:03d}USDT/1m", dt.date(2024, 1, 1), dt.date(2024, 1, 2)) for number in range(1, _MANY + 1)
]
_SUSTAINED_WORKS: Final = (
    Work("spot/BTCUSDT/1s", dt.date(2024, 1, 1), dt.date(2024, 3, 21)),  # spot has too few years of 1m for this
    Work("usdm/BTCUSDT/1m", dt.date(2022, 1, 1), dt.date(2025, 1, 1)),
)
_SINCE_THE_FIRST_DAY: Final = Work("spot/BTCUSDT/1m", dt.date(2017, 8, 18), dt.datetime.now(dt.UTC).date())


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
def sandbox_with(*rendered: Work) -> Iterator[SandboxProcess]:
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


def _serve(connection: Connection, rendered: Sequence[Work]) -> None:
    with running_sandbox(SandboxOptions(rtt_ms=ROUND_TRIP_MS)) as sandbox:
        for work in rendered:
            series = work.series
            for day in work.partitions:
                sandbox.rows(series.market.name, series.symbol, str(series.interval), day.start, day.end)
        connection.send(sandbox.url)
        with suppress(EOFError, KeyboardInterrupt):  # the process that started it has ended
            while connection.recv():
                connection.send(list(sandbox.requests))


def await_room(seconds: float = _ROOM_SECONDS) -> None:
    """Wait for the next UTC minute unless at least ``seconds`` of this one are left."""
    left = _MINUTE_SECONDS - time.time() % _MINUTE_SECONDS
    if left < seconds:
        report(f"  waiting {left:.0f} s for the next UTC minute")
        time.sleep(left + 0.1)


def report(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


# -- engine and bound -----------------------------------------------------------------------------------------


def engine_row(work: Work, runs: int) -> Row:
    """Measure a year of one series: the engine against the bound."""
    pairs = []
    for number in range(1, runs + 1):
        engine = _engine(work)
        bound = _bound(work, engine.metrics.workers)
        report(f"  {number} of {runs}: engine {engine.seconds:.2f} s, bound {bound:.2f} s")
        pairs.append((engine, bound))
    engines = [engine for engine, _ in pairs]
    ratio = statistics.median(engine.seconds / bound for engine, bound in pairs)
    middle = sorted(engines, key=lambda engine: engine.seconds)[(len(engines) - 1) // 2]
    return Row(
        work=f"{work.name}, year, engine",
        seconds=spread([engine.seconds for engine in engines]),
        speed=f"{statistics.median(engine.candles / engine.seconds for engine in engines):,.0f}",
        workers=str(middle.metrics.workers),
        requests=f"{middle.metrics.requests:,}",
        weight=f"{middle.metrics.weight:,}",
        bound=spread([bound for _, bound in pairs]),
        result=f"{spread([engine.seconds / bound for engine, bound in pairs])} x bound",
        target=f"<= {MOST_RATIO} x bound",
        met=ratio <= MOST_RATIO,
    )


def _engine(work: Work) -> EngineRun:
    with sandbox_with(work) as sandbox, tempfile.TemporaryDirectory() as folder:
        await_room()
        return run_engine(work, sandbox.url, Path(folder))


def archive_row(work: Work, runs: int) -> Row:
    """Measure a year of one series from the archive, hashes and control totals included; the zips exist before."""
    engines = []
    for number in range(1, runs + 1):
        with sandbox_with(work) as sandbox, tempfile.TemporaryDirectory() as folder:
            for file in all_files(work.series, work.partitions, to_ms(work.end) + 60 * DAY):
                requests.head(sandbox.url + file.path, timeout=60).raise_for_status()
            engines.append(run_engine(work, sandbox.url, Path(folder), "archive"))
        report(f"  {number} of {runs}: {engines[-1].seconds:.2f} s")
    middle = sorted(engines, key=lambda engine: engine.seconds)[(len(engines) - 1) // 2]
    return Row(
        work=f"{work.name}, year, archive, engine",
        seconds=spread([engine.seconds for engine in engines]),
        speed=f"{statistics.median(engine.candles / engine.seconds for engine in engines):,.0f}",
        workers=str(middle.metrics.workers),
        requests=f"{middle.metrics.requests:,}",
        weight=f"{middle.metrics.weight:,}",
        bound="",
        result=f"{middle.seconds:.2f} s",
        target=f"<= {MOST_ARCHIVE_SECONDS} s",
        met=middle.seconds <= MOST_ARCHIVE_SECONDS,
    )


def run_engine(work: Work, url: str, folder: Path, source: Source = "rest") -> EngineRun:
    """Fetch and validate all of ``work``.

    Raises:
        BenchmarkError: A partition was refused.
    """
    series, candles, refused = work.series, 0, 0
    began = time.perf_counter()
    exchange = Exchange(series.market, settings_of(url, folder))
    try:
        for result in download(exchange, series, work.partitions, DownloadOptions(source)):
            candles += result.candles.height
            refused += not result.is_accepted
        seconds = time.perf_counter() - began
    finally:
        exchange.close()
    if refused:
        raise BenchmarkError(f"{work.name}: {refused} of {len(work.partitions)} days were refused")
    return EngineRun(seconds, candles, exchange.metrics())


def _bound(work: Work, workers: int) -> float:
    with sandbox_with(work) as sandbox:
        await_room()
        return bare_loop(work, sandbox.url, workers)


def bare_loop(work: Work, url: str, workers: int) -> float:
    """Return the seconds that the requests of ``work`` take if the responses are dropped."""
    series = work.series
    session = requests.Session()
    session.mount("http://", HTTPAdapter(pool_connections=1, pool_maxsize=workers))
    session.trust_env = False  # a look-up of proxies for each request would slow the bound and so flatter the engine
    fetch = _fetcher(session, series, url + series.market.api + "/klines")
    began = time.perf_counter()
    with ThreadPoolExecutor(workers) as threads:
        for status in threads.map(fetch, plan_rest_pages(series, work.partitions)):
            if status != requests.codes.ok:
                raise BenchmarkError(f"{work.name}: the bare loop got the status {status}")
    seconds = time.perf_counter() - began
    session.close()
    return seconds


def _fetcher(session: requests.Session, series: Series, address: str) -> Callable[[Page], int]:
    def fetch(page: Page) -> int:
        parameters = {"symbol": series.symbol, "interval": series.interval.api_name, **page.window}
        return session.get(address, params=parameters).status_code

    return fetch


# -- Dagster runs ---------------------------------------------------------------------------------------------


def run_row(title: str, works: Sequence[Work], most_seconds: float) -> Row:
    """Measure one ``binance-assets download`` of series of one market with the same days, as a process."""
    with sandbox_with(*works) as sandbox, tempfile.TemporaryDirectory() as folder:
        await_room()
        began = time.perf_counter()
        outcomes = _download(works, sandbox.url, Path(folder))
        seconds = time.perf_counter() - began
        files = sum(1 for _ in Path(folder).rglob("*.parquet"))
    if files != sum(len(work.partitions) for work in works):
        raise BenchmarkError(f"{title}: {files} files were written")
    report(f"  {seconds:.2f} s")
    return Row(
        work=title,
        seconds=f"{seconds:.2f}",
        speed=f"{sum(found['rows'] for found in outcomes) / seconds:,.0f}",
        workers=str(max(found["workers"] for found in outcomes)),
        requests=f"{sum(found['requests'] for found in outcomes):,}",
        weight=f"{sum(found['weight'] for found in outcomes):,}",
        bound="",
        result=f"{seconds:.1f} s, {files} files",
        target=f"<= {most_seconds} s",
        met=seconds <= most_seconds,
    )


def _download(works: Sequence[Work], url: str, folder: Path) -> list[dict[str, Any]]:
    first = works[0]
    command = [sys.executable, "-m", "binance_assets", "download", *(work.series.symbol for work in works)]
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
    """Return the settings of such a client."""
    return read_settings(environment_of(url, folder))


# -- sustained ------------------------------------------------------------------------------------------------


def sustained_row(work: Work) -> Row:
    """Measure which share of the weight limit a long download uses in each minute."""
    with sandbox_with() as sandbox, tempfile.TemporaryDirectory() as folder:
        await_room()
        run = run_engine(work, sandbox.url, Path(folder))
        served = sandbox.requests()
    shares = shares_of_full_minutes(served, work.series.market)
    refusals = sum(1 for request in served if request.status in (418, 429))
    message = ", ".join(f"{share:.1%}" for share in shares)
    report(f"  {run.seconds:.1f} s, of the limit in each full minute: {message}; refusals: {refusals}")
    return Row(
        work=f"{work.name}, {len(work.partitions):,} days, sustained",
        seconds=f"{run.seconds:.1f}",
        speed="",  # meaningless: the weight of the first minute is used up within seconds
        workers=str(run.metrics.workers),
        requests=f"{run.metrics.requests:,}",
        weight=f"{run.metrics.weight:,}",
        bound="",
        result=f"{message} of the limit, {refusals} x 429",
        target=f">= {LEAST_SHARE:.0%}, 0 x 429",
        met=bool(shares) and min(shares) >= LEAST_SHARE and not refusals,
    )


def shares_of_full_minutes(served: Sequence[ServedRequest], market: Market) -> list[float]:
    """Return the used share of the weight limit in each minute but the last, which had too few requests left."""
    weights: Counter[int] = Counter()
    for request in served:
        weights[request.at_ms // (_MINUTE_SECONDS * 1_000)] += request.weight
    minutes = range(min(weights), max(weights))
    return [weights[minute] / market.weight_limit for minute in minutes]


# -- memory ---------------------------------------------------------------------------------------------------


def memory_rows() -> Iterator[Row]:
    """Measure the peak memory of a year, and of all years since the first candle."""
    a_year = 0.0
    for work in (_SPOT_YEAR, _SINCE_THE_FIRST_DAY):
        megabytes, run = _measured_memory(work)
        a_year = a_year or megabytes
        yield Row(
            work=f"{work.name}, {len(work.partitions):,} days, memory",
            seconds=f"{run.seconds:.2f}",
            speed=f"{run.candles / run.seconds:,.0f}",
            workers=str(run.metrics.workers),
            requests=f"{run.metrics.requests:,}",
            weight=f"{run.metrics.weight:,}",
            bound="",
            result=f"{megabytes:.0f} MB, {megabytes / a_year:.2f} x a year",
            target=f"<= {MOST_MEMORY_MB} MB, <= {MOST_GROWTH} x",
            met=megabytes <= MOST_MEMORY_MB and megabytes / a_year <= MOST_GROWTH,
        )


def _measured_memory(work: Work) -> tuple[float, EngineRun]:
    report(f"{work.name} from {work.start} to {work.end}, memory")
    with sandbox_with() as sandbox, tempfile.TemporaryDirectory() as folder:
        await_room()
        with ProcessPoolExecutor(1, mp_context=_PROCESSES) as processes:
            megabytes, run = processes.submit(_peak_memory, work, sandbox.url, Path(folder)).result()
    report(f"  {megabytes:.0f} MB")
    return megabytes, run


def _peak_memory(work: Work, url: str, folder: Path) -> tuple[float, EngineRun]:
    run = run_engine(work, url, folder)
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
        rows += [_announced(work, sustained_row) for work in _SUSTAINED_WORKS if options.sustained]
        if not (options.memory or options.sustained):
            rows = _default_rows(options.runs)
    except BenchmarkError as error:
        sys.exit(f"error: {error}")
    console.print(_table(rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description="Measure the sizes to reach.")
    parser.add_argument("--runs", type=int, default=3, help="pairs of engine and bound (default: 3)")
    parser.add_argument("--sustained", action="store_true", help="instead: speed at the weight limit; 5 minutes")
    parser.add_argument("--memory", action="store_true", help="instead: peak memory of one and of all years; 2 minutes")
    options = parser.parse_args()
    if options.runs < 1:
        parser.error("--runs must be at least 1")
    return options


def _default_rows(runs: int) -> list[Row]:
    with sandbox_with() as sandbox, tempfile.TemporaryDirectory() as folder:
        run_engine(_WARM_UP, sandbox.url, Path(folder))
    rows = [_announced(work, lambda work: engine_row(work, runs)) for work in _ENGINE_WORKS]
    report("spot/BTCUSDT/1m, year, from the archive")
    rows.append(archive_row(_SPOT_YEAR, runs))
    report("spot/BTCUSDT/1m, year, as one Dagster run")
    rows.append(run_row("spot/BTCUSDT/1m, year, Dagster run", [_SPOT_YEAR], MOST_RUN_SECONDS))
    report(f"{_MANY} series, one day, as one Dagster run")
    rows.append(run_row(f"{_MANY} spot series, day, Dagster run", _MANY_WORKS, MOST_MANY_SERIES_SECONDS))
    return rows


def _announced(work: Work, measure: Callable[[Work], Row]) -> Row:
    report(f"{work.name} from {work.start} to {work.end}")
    return measure(work)


def spread(values: Sequence[float]) -> str:
    """Return the median, with the least and the most in brackets."""
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
        table.add_row(row.work, *numbers, row.result, row.target, "yes" if row.met else "[bold red]no[/]")
    return table


if __name__ == "__main__":
    main()
