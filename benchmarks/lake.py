"""Files of a month against files of a day: the second table of ``python -m benchmarks.run``.

How it measures:

- A year of 1m candles is fetched from the sandbox once. Every symbol of the lakes has these candles.
- *Layout 1* is written as version 0.1.0 wrote it: a file for each day, with Polars. *Layout 2* is written by the writer
  that the runs use.
- Ten symbols are written, and the time and the CPU time of this process are measured. For a hundred symbols, the files
  of each of the ten are linked under ten names: a scan opens and reads them as it would other files.
- Scans are those of a user: Polars over the folder of the market. Each is timed twice in this process; the faster one
  counts, so that files come from memory and not from the disk.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl
from rich.console import Console
from rich.table import Table

from binance_assets.model.markets import SPOT
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import Series
from binance_assets.storage.lake import Lake
from binance_assets.storage.writer import PartitionWriter

MIN_SCAN_RATIO: Final = 5
MIN_BYTES_SAVED: Final = 0.30
MAX_CPU_RATIO: Final = 1 / 3

_WRITTEN: Final = 10
_SCANNED: Final = 100
_INTERVAL: Final = SPOT.intervals[1]

Scan = Callable[[Path], pl.LazyFrame]


@dataclass(frozen=True)
class LakeRow:
    """One line of the table: a measurement of both layouts.

    Attributes:
        what: What was measured.
        layout_1: The result of layout 1.
        layout_2: The result of layout 2.
        ratio: How they compare.
        target: What the ratio should be; an empty string without a target.
        met: Whether it is.
    """

    what: str
    layout_1: str
    layout_2: str
    ratio: str
    target: str = ""
    met: bool = True


@dataclass(frozen=True)
class Written:
    """What writing a lake took: seconds of the clock and of the CPU, bytes and number of its files."""

    seconds: float
    cpu: float
    size: int
    files: int


def lake_rows(results: Sequence[PartitionResult]) -> list[LakeRow]:
    """Measure writing and scanning lakes of both layouts.

    Args:
        results: The days of a year of 1m, ascending.
    """
    with tempfile.TemporaryDirectory() as folder:
        lakes = [Path(folder) / "layout_1", Path(folder) / "layout_2"]
        old, new = (
            _measure_write(lakes[0], _write_layout_1, results),
            _measure_write(lakes[1], _write_layout_2, results),
        )
        rows = [
            LakeRow(
                f"write {_WRITTEN} symbol-years, CPU",
                f"{old.cpu:.1f} s",
                f"{new.cpu:.1f} s",
                f"{new.cpu / old.cpu:.2f} x",
                f"<= {MAX_CPU_RATIO:.2f} x",
                new.cpu <= old.cpu * MAX_CPU_RATIO,
            ),
            LakeRow(
                f"write {_WRITTEN} symbol-years, clock",
                f"{old.seconds:.1f} s",
                f"{new.seconds:.1f} s",
                f"{new.seconds / old.seconds:.2f} x",
            ),
            LakeRow(
                f"{_WRITTEN} symbol-years, files",
                f"{old.files:,} files, {old.size / 1e6:.0f} MB",
                f"{new.files:,} files, {new.size / 1e6:.0f} MB",
                f"{1 - new.size / old.size:.1%} fewer bytes",
                f">= {MIN_BYTES_SAVED:.0%}",
                new.size <= old.size * (1 - MIN_BYTES_SAVED),
            ),
        ]
        rows += [_scan_row(name, scan, lakes, _WRITTEN, 0) for name, scan in _SCANS.items()]
        for lake in lakes:
            _link_symbols(lake)
        rows += [_scan_row(name, scan, lakes, _SCANNED, _targets[name]) for name, scan in _SCANS.items()]
    return rows


def _measure_write(
    root: Path, write: Callable[[Lake, Series, Sequence[PartitionResult]], None], results: Sequence[PartitionResult]
) -> Written:
    lake = Lake(root)
    lake.prepare("sandbox")
    seconds, cpu = time.perf_counter(), time.process_time()
    for number in range(_WRITTEN):
        write(lake, Series(SPOT, f"S{number:03}USDT", _INTERVAL), results)
    seconds, cpu = time.perf_counter() - seconds, time.process_time() - cpu
    files = list(root.rglob("*.parquet"))
    return Written(seconds, cpu, sum(path.stat().st_size for path in files), len(files))


def _write_layout_1(lake: Lake, series: Series, results: Sequence[PartitionResult]) -> None:
    folder = Path(str(lake.folder(series)))
    folder.mkdir(parents=True)
    for result in results:
        names = ("missing", "note", "archive_file", "archive_sha256", "archive_modified", "derived_from")
        metadata = {"series": str(series), "source": "rest", "verdict": result.verdict, **dict.fromkeys(names, "")}
        incoming = folder.parent / "incoming"
        result.candles.write_parquet(incoming, compression="zstd", statistics=True, metadata=metadata)
        with incoming.open("rb") as file:
            os.fsync(file.fileno())
        incoming.replace(folder / f"{result.partition}.parquet")


def _write_layout_2(lake: Lake, series: Series, results: Sequence[PartitionResult]) -> None:
    writer = PartitionWriter(lake, series)
    for result in results:
        writer.add(result)
    writer.flush()


def _link_symbols(root: Path) -> None:
    for number in range(_WRITTEN, _SCANNED):
        source = root / "market=spot" / f"symbol=S{number % _WRITTEN:03}USDT"
        shutil.copytree(source, source.with_name(f"symbol=S{number:03}USDT"), copy_function=os.link)


def _market(root: Path) -> pl.LazyFrame:
    return pl.scan_parquet(root / "market=spot")


def _between(first: str, last: str) -> pl.Expr:
    start, end = (pl.lit(text).str.to_datetime("%Y-%m-%d", time_zone="UTC") for text in (first, last))
    return pl.col("open_time").is_between(start, end, closed="left")


_close: Final = pl.col("close").mean()
_SCANS: Final[dict[str, Scan]] = {
    "one symbol, a week": lambda root: (
        _market(root).filter(_between("2024-05-06", "2024-05-13"), symbol="S003USDT").select(_close)
    ),
    "one symbol, the year": lambda root: _market(root).filter(symbol="S003USDT").select(_close),
    "all symbols, a day": lambda root: (
        _market(root).filter(_between("2024-05-06", "2024-05-07")).group_by("symbol").agg(_close)
    ),
    "all symbols, the year": lambda root: _market(root).group_by("symbol").agg(_close),
}
# A scan of everything decodes every candle in either layout, so it gains less than a scan that has to find some.
_targets: Final = {name: 0 if name == "all symbols, the year" else MIN_SCAN_RATIO for name in _SCANS}


def _scan_row(name: str, scan: Scan, lakes: Sequence[Path], symbols: int, target: float) -> LakeRow:
    old, new = (min(_seconds(scan, lake) for _ in range(2)) for lake in lakes)
    return LakeRow(
        f"scan {symbols} symbol-years: {name}",
        f"{1_000 * old:,.0f} ms",
        f"{1_000 * new:,.0f} ms",
        f"{old / new:.1f} x faster",
        f">= {target} x" if target else "",
        old >= new * target,
    )


def _seconds(scan: Scan, root: Path) -> float:
    began = time.perf_counter()
    scan(root).collect()
    return time.perf_counter() - began


def print_lake_rows(console: Console, rows: Sequence[LakeRow]) -> None:
    """Print the table."""
    table = Table("lake, 1m", "a file per day", "a file per month", "ratio", "target", "met", box=None, pad_edge=False)
    for row in rows:
        met = "" if not row.target else "yes" if row.met else "NO"
        table.add_row(row.what, row.layout_1, row.layout_2, row.ratio, row.target, met)
    console.print(table)
