"""Measure what the command ``export`` takes for ten years of 1m, by target: ``python -m benchmarks.exports``.

How it measures: a synthetic lake of one series is written once, ten years with a gap of an hour in each month. Each
target is a process of its own, from its start to its end. The peak of its memory is read until it ends; CPU time is
user and system time. Exits with 1 if a target needs more memory than the limit.
"""

from __future__ import annotations

import datetime as dt
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl
from rich.console import Console
from rich.table import Table

from benchmarks.peak_memory import peak_megabytes
from binance_assets.candles.columns import columns
from binance_assets.exports.choices import MISSING_BY_TARGET
from binance_assets.model.partitions import Partition, next_month, partitions_between
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import Series, parse_series
from binance_assets.model.timestamps import HOUR
from binance_assets.storage.lake import Lake

MAX_MEGABYTES: Final = 500
SERIES: Final = "spot/BTCUSDT/1m"
FIRST, END = dt.date(2017, 7, 1), dt.date(2027, 7, 1)  # the first partition is the earliest that there can be
_POLL_SECONDS: Final = 0.02
_MOST_PRINTED: Final = 2_000  # characters


def main() -> None:
    """Write the lake, export it to each target, and print the table."""
    table = Table("target", "missing", "peak MB", "CPU s", "wall s", "MB written", box=None)
    worst = 0.0
    with tempfile.TemporaryDirectory(prefix="exports-") as name:
        folder = Path(name)
        write_lake(Lake(folder / "lake"), FIRST, END)
        for target, choices in MISSING_BY_TARGET.items():
            for missing in (choices[0], "flat"):
                run = run_export(folder, target, "--missing", missing)
                numbers = f"{run.megabytes:.0f}", f"{run.cpu:.1f}", f"{run.seconds:.1f}", f"{run.written:.0f}"
                table.add_row(target, missing, *numbers)
                worst = max(worst, run.megabytes)
    Console().print(table)
    sys.exit(worst > MAX_MEGABYTES)


@dataclass(frozen=True)
class ExportRun:
    """What an export took.

    Attributes:
        megabytes: The peak memory of its process.
        cpu: User and system time, s.
        seconds: From its start to its end.
        written: The size of its files, MB.
    """

    megabytes: float
    cpu: float
    seconds: float
    written: float


def run_export(folder: Path, target: str, *options: str) -> ExportRun:
    """Export the series of the lake in a folder, in a process of its own, and remove what it wrote.

    Raises:
        RuntimeError: The export failed.
    """
    output = folder / target
    command = [sys.executable, "-m", "binance_assets", "export", SERIES, "--to", target, "-o", str(output), *options]
    began = time.monotonic()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "BINANCE_ASSETS_LAKE": str(folder / "lake")},
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
    try:
        peak, status, usage = _wait(process.pid)
    except BaseException:
        process.kill()
        raise
    wall = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"the export to {target} failed: {(folder / 'log').read_text()[-_MOST_PRINTED:].strip()}")
    files = [path for path in output.rglob("*") if path.is_file()]
    written = sum(path.stat().st_size for path in files) / 1_000_000
    shutil.rmtree(output)
    return ExportRun(peak, usage.ru_utime + usage.ru_stime, wall, written)


def _wait(process: int) -> tuple[float, int, resource.struct_rusage]:
    """Wait for a process; return the peak of its memory in MB, its status, and what it used."""
    peak = 0.0
    while True:
        peak = max(peak, peak_megabytes(process))
        ended, status, usage = os.wait4(process, os.WNOHANG)
        if ended:
            return peak, status, usage
        time.sleep(_POLL_SECONDS)


def write_lake(lake: Lake, first: dt.date, end: dt.date) -> None:
    """Write all months from one first of a month to another, which is excluded."""
    lake.prepare("sandbox")
    series, month = parse_series(SERIES), first
    while month < end:
        days = partitions_between(month, next_month(month), series.interval)
        lake.write_all(series, [_day(series, day, day is days[9]) for day in days])
        month = next_month(month)


def _day(series: Series, day: Partition, has_gap: bool) -> PartitionResult:
    """Return a day of candles with as many digits as those of Binance; its eleventh hour may be missing."""
    noise = pl.col("open_time") // 1_000 * 7_919
    price = 6_000_000 + noise % 100_003
    amount = ((noise % 1_000_003) / 100_000).round(5)
    volumes = {name: (amount * (place + 1)).round(5) for place, name in enumerate(series.market.value_columns)}
    opens = pl.int_range(day.start, day.end, series.interval.step, dtype=pl.Int64, eager=True)
    candles = opens.to_frame("open_time").select(
        "open_time",
        open=(price / 100).round(2),
        high=((price + 5_000) / 100).round(2),
        low=((price - 5_000) / 100).round(2),
        close=((price + noise % 997) / 100).round(2),
        close_time=pl.col("open_time") + series.interval.step - 1,
        trades=noise % 1_000,
        **volumes,
    )
    candles = candles.select(list(columns(series.market))).cast(dict(columns(series.market)))  # type: ignore[arg-type]
    if not has_gap:
        return PartitionResult(day, "complete", candles, strict=False)
    gap = (day.start + 10 * HOUR, day.start + 11 * HOUR)
    kept = candles.filter(~pl.col("open_time").to_physical().is_between(gap[0], gap[1] - 1))
    return PartitionResult(day, "outage", kept, (gap,), strict=False)


if __name__ == "__main__":
    main()
