"""Two thousand series: the third table of ``python -m benchmarks.run``, or ``python -m benchmarks.scale`` alone.

How it measures:

- A folder has a universe of 1,998 series: 666 symbols of two markets, each with 1m and 1d, and 1h derived from 1m. The
  lake holds five years of 1m of 500 symbols, and the recent files of all others, with a candle for each day: what is
  measured depends on files and footers, not on rows. The instance has two weeks of materializations and fifty past runs
  of each market. Preparing all that takes two minutes.
- A second folder has a universe of 2,000 entries with a symbol each, and no lake: what is measured there are commands
  that read and edit the file, and the plan of a download of all of them.
- *Before* is what commit af4929a took on two busy cores: compare magnitudes only.
- Seconds of the CPU are those of a process of its own, children excluded. *A tick* is the second one in its process,
  with nothing new: the first one after a start reads more.
- *Answers* is the time from the start of ``binance-assets ui`` until a query returns all assets. It and the dry run
  are in seconds of the clock, so they say little on a busy machine; the CPU of their processes stands beside them.
"""

from __future__ import annotations

import datetime as dt
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import dagster as dg
import polars as pl
import requests
from rich.console import Console
from rich.table import Table

from binance_assets.candles.columns import columns
from binance_assets.model.markets import MARKETS
from binance_assets.model.partitions import partitions_between
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import Series
from binance_assets.orchestration.catch_up import CATCH_UP_TAG
from binance_assets.orchestration.dagster_internals.event_writes import report_materializations
from binance_assets.orchestration.instance import open_instance
from binance_assets.orchestration.keys import asset_key
from binance_assets.orchestration.partitions import range_tags
from binance_assets.sandbox import SandboxOptions, running_sandbox
from binance_assets.storage.lake import Lake
from binance_assets.storage.metadata import encode, entries_of
from binance_assets.storage.parquet_files import to_parquet
from binance_assets.storage.spans import by_span
from binance_assets.storage.universe import read_universe

_SYMBOLS: Final = {"spot": 400, "usdm": 266}
_DEEP: Final = 500  # symbols with five years of 1m
_YEARS: Final = 5
_RECENT_DAYS: Final = 14
_PAST_RUNS: Final = 50
_ROUND_TRIP_MS: Final = 100
_NOBODY: Final = "http://127.0.0.1:9"
_UI_SECONDS: Final = 120
_PROCESSES: Final = multiprocessing.get_context("spawn")
_ENTRIES: Final = 2_000
_ASSETS: Final = "{ assetNodes { id } }"
_SILENT: Final = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True)
class ScaleRow:
    """One line of the table.

    Attributes:
        what: What was measured.
        before: What it took in commit af4929a, seconds; an empty string if that was not measured.
        seconds: What it takes, seconds.
        target: What it may take at most, seconds.
    """

    what: str
    before: str
    seconds: float
    target: float


def scale_rows() -> list[ScaleRow]:
    """Prepare two thousand series, and measure what takes longer the more there are."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _report("2,000 series: writing a lake of 34,000 files")
        _in_folder(folder, prepare)
        _report("2,000 series: measuring")
        location = _in_folder(folder, load_location)
        ticks = _in_folder(folder, tick_all)
        coverage = _in_folder(folder, refresh_coverage)
        spot = [f"S{number:03}USDT" for number in range(1, _SYMBOLS["spot"] + 1)]
        dry_run, dry_run_cpu = _with_cpu(lambda: _download_dry_run(folder, spot, "1m", "1d"))
        answers, answers_cpu = _with_cpu(lambda: _ui_answers(folder))
        entries = folder / "entries"
        entries.mkdir()
        _in_folder(entries, write_entries)
        new = ("NEWUSDT", "--market", "spot", "--interval", "1h")
        _, series_cpu = _with_cpu(lambda: _run(entries, _NOBODY, "series"))
        _, track_cpu = _with_cpu(lambda: _run(entries, _NOBODY, "track", *new, "--no-check"))
        _, untrack_cpu = _with_cpu(lambda: _run(entries, _NOBODY, "untrack", *new))
        every = [f"S{number:04}USDT" for number in range(_ENTRIES)]
        all_missing, all_missing_cpu = _with_cpu(lambda: _download_dry_run(entries, every, "1m"))
    return [
        ScaleRow("code location loads, CPU", "9.4", location, 5),
        ScaleRow(f"user interface answers; CPU of its processes {answers_cpu:.1f} s", "20", answers, 10),
        *(ScaleRow(f"a tick of {name} at rest, CPU", "", seconds, 1) for name, seconds in ticks.items()),
        ScaleRow(f"download --dry-run of 800 series, five years; CPU {dry_run_cpu:.1f} s", "", dry_run, 10),
        ScaleRow(
            f"download --dry-run of 2,000 series, five years, none stored; CPU {all_missing_cpu:.1f} s",
            "",
            all_missing,
            10,
        ),
        ScaleRow("series, of a universe of 2,000 entries, CPU", "", series_cpu, 5),
        ScaleRow("track, in a universe of 2,000 entries, CPU", "", track_cpu, 5),
        ScaleRow("untrack, in a universe of 2,000 entries, CPU", "", untrack_cpu, 5),
        ScaleRow("coverage refresh, five years, nothing new, CPU", "98", coverage, 10),
    ]


def print_scale_rows(console: Console, rows: Sequence[ScaleRow]) -> None:
    """Print the table."""
    table = Table(title="two thousand series", box=None, pad_edge=False, header_style="bold")
    table.add_column("work", no_wrap=True)
    for name in ("before, s", "seconds", "target", "met"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        met = "yes" if row.seconds <= row.target else "[bold red]no[/]"
        table.add_row(row.what, row.before, f"{row.seconds:.2f}", f"<= {row.target:g}", met)
    console.print(table)


def _report(text: str) -> None:
    print(text, flush=True)


# -- what is prepared -----------------------------------------------------------------------------------------


def prepare() -> None:
    """Write the universe, the lake, and the history of the working folder."""
    lines = ["series:"]
    for market, count in _SYMBOLS.items():
        symbols = ", ".join(f"S{number:03}USDT" for number in range(1, count + 1))
        lines.append(f"  - {{market: {market}, symbols: [{symbols}], intervals: [1m, 1d], derive: [1h]}}")
    Path("universe.yaml").write_text("\n".join(lines) + "\n")
    universe = read_universe(Path("universe.yaml"))
    every = [*universe.series, *(derived.series for derived in universe.derived)]
    today = dt.datetime.now(dt.UTC).date()
    _write_lake(every, today)
    with open_instance(Path(), {}) as instance:
        for series in every:
            days = partitions_between(today - dt.timedelta(_RECENT_DAYS), today, series.interval)
            report_materializations(
                instance, [dg.AssetMaterialization(asset_key(series), partition=day.key) for day in days]
            )
        for market in _SYMBOLS:
            keys = frozenset(asset_key(series) for series in universe.series if series.market.name == market)
            for number in range(_PAST_RUNS):
                instance.add_run(_past_run(market, keys, today - dt.timedelta(1 + number % _RECENT_DAYS)))


def _past_run(market: str, keys: frozenset[dg.AssetKey], day: dt.date) -> dg.DagsterRun:
    return dg.DagsterRun(
        f"{market}_daily",
        run_id=str(uuid.uuid4()),
        status=dg.DagsterRunStatus.SUCCESS,
        asset_selection=keys,
        tags={**range_tags(day.isoformat(), day.isoformat()), CATCH_UP_TAG: market},
    )


def _write_lake(every: Sequence[Series], today: dt.date) -> None:
    lake, deep = Lake(Path("lake")), 0
    lake.prepare("sandbox")
    files: dict[tuple[Any, ...], list[tuple[str, pl.DataFrame, dict[str, str]]]] = {}
    for series in every:
        is_deep = series.interval.name == "1m" and deep < _DEEP
        deep += is_deep
        start = today.replace(year=today.year - _YEARS, day=1) if is_deep else today - dt.timedelta(2 * _RECENT_DAYS)
        key = series.market, series.interval, start
        files[key] = files.get(key) or _files_of(series, start, today)
        folder = Path(str(lake.folder(series)))
        folder.mkdir(parents=True)
        for name, table, metadata in files[key]:
            content = to_parquet(table, {**metadata, "series": str(series)})
            (folder / f"{name}.parquet").write_bytes(content)


def _files_of(series: Series, start: dt.date, end: dt.date) -> list[tuple[str, pl.DataFrame, dict[str, str]]]:
    """Return the files of a series, with a candle for each day: name, table, and metadata."""
    found = []
    for name, partitions in by_span(partitions_between(start, end, series.interval), series.interval).items():
        rows = [{column: day.start if column.endswith("time") else 1 for column in columns(series.market)}
                for day in partitions]  # fmt: skip
        table = pl.DataFrame(rows).cast(dict(columns(series.market)))  # type: ignore[arg-type]
        results = [PartitionResult(day, "complete", table[number]) for number, day in enumerate(partitions)]
        entries = dict(zip(partitions, entries_of(results), strict=True))
        found.append((name, table, encode(series, "sandbox", entries)))
    return found


# -- what is measured -----------------------------------------------------------------------------------------


def load_location() -> float:
    """Return the seconds of the CPU that a new process has taken when the code location of its folder is loaded."""
    from binance_assets.definitions import candle_definitions

    candle_definitions().get_repository_def().load_all_definitions()
    return _cpu()


def tick_all() -> dict[str, float]:
    """Return the seconds of the CPU of a tick of each sensor that runs by default, and of each catch-up."""
    from binance_assets.definitions import candle_definitions

    repository, seconds = candle_definitions().get_repository_def(), {}
    at = dt.datetime.now(dt.UTC).replace(hour=0, minute=37)
    with open_instance(Path(), {}) as instance:
        for sensor in repository.sensor_defs:
            cursor: str | None = None
            if sensor.default_status == dg.DefaultSensorStatus.STOPPED:
                continue
            for _ in range(2):
                before = _cpu()
                context = dg.build_sensor_context(instance, cursor=cursor, repository_def=repository)
                cursor = sensor.evaluate_tick(context).cursor
                seconds[sensor.name] = _cpu() - before
        for name in (f"{market}_catch_up" for market in _SYMBOLS):
            for _ in range(2):
                before = _cpu()
                schedule = dg.build_schedule_context(instance, scheduled_execution_time=at, repository_def=repository)
                repository.get_schedule_def(name).evaluate_tick(schedule)
                seconds[name] = _cpu() - before
    return seconds


def refresh_coverage() -> float:
    """Return the seconds of the CPU of the refreshes of the coverage of all markets, when nothing is new."""
    from binance_assets.definitions import candle_definitions

    job = candle_definitions().get_repository_def().get_job("__ASSET_JOB")
    before = 0.0
    with open_instance(Path(), {}) as instance:
        for _ in range(2):
            before = _cpu()
            for market in _SYMBOLS:
                coverage = job.get_subset(asset_selection={dg.AssetKey([market, "coverage"])})
                coverage.execute_in_process(run_config=_SILENT, instance=instance)
    return _cpu() - before


def write_entries() -> None:
    """Write a universe in which each symbol has an entry of its own."""
    entries = [f"  - {{market: spot, symbols: [S{number:04}USDT], intervals: [1m]}}" for number in range(_ENTRIES)]
    Path("universe.yaml").write_text("\n".join(["series:", *entries]) + "\n")


def _download_dry_run(folder: Path, symbols: Sequence[str], *intervals: str) -> float:
    """Return the seconds of the clock that it takes to plan five years of spot."""
    end = dt.datetime.now(dt.UTC).date()
    options = [option for interval in intervals for option in ("--interval", interval)]
    options += ["--start", f"{end.year - _YEARS}-12-01", "--end", end.isoformat(), "--dry-run"]
    with running_sandbox(SandboxOptions(rtt_ms=_ROUND_TRIP_MS)) as sandbox:
        return _run(folder, sandbox.url, "download", *symbols, "--market", "spot", *options)


def _run(folder: Path, url: str, *arguments: str) -> float:
    """Run a command in ``folder``, and return the seconds of the clock that it takes."""
    began = time.perf_counter()
    environment = _environment(url, folder)
    subprocess.run([*_PROGRAM, *arguments], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def _ui_answers(folder: Path) -> float:
    """Return the seconds of the clock from the start of the user interface until it has all assets."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    began = time.perf_counter()
    command = [*_PROGRAM, "ui", "--port", str(port)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=folder, env=_environment(_NOBODY, folder), **quiet)  # type: ignore[call-overload]
    try:
        while time.perf_counter() - began < _UI_SECONDS:
            if _has_assets(f"http://127.0.0.1:{port}/graphql"):
                break
            time.sleep(0.1)
        return time.perf_counter() - began
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(_UI_SECONDS)


def _has_assets(address: str) -> bool:
    try:
        answer = requests.post(address, json={"query": _ASSETS}, timeout=_UI_SECONDS).json()
    except requests.RequestException:
        return False
    return len(answer["data"]["assetNodes"]) > len(_SYMBOLS)


_PROGRAM: Final = (sys.executable, "-m", "binance_assets")


def _environment(url: str, folder: Path) -> dict[str, str]:
    """Return the environment of a program that asks only the exchange at ``url``."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("BINANCE_", "DAGSTER_"))}
    hosts = {f"BINANCE_{name.upper()}_URL": url for name in (*MARKETS, "archive")}
    return {**inherited, **hosts, "BINANCE_ASSETS_LEDGER": str(folder / "ledger.sqlite")}


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _with_cpu(measure: Callable[[], float]) -> tuple[float, float]:
    """Return what ``measure`` returns, and the seconds of the CPU of the processes that it starts and waits for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = measure()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _in_folder(folder: Path, work: Callable[[], Any]) -> Any:
    """Return the result of ``work`` in a new process with the working folder ``folder``."""
    with ProcessPoolExecutor(1, mp_context=_PROCESSES, initializer=os.chdir, initargs=(folder,)) as processes:
        return processes.submit(work).result()


if __name__ == "__main__":
    print_scale_rows(Console(), scale_rows())
