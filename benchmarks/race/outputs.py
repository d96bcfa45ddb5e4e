"""Reading what a tool wrote, in its own format, into one table in the order of its rows."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Final

import polars as pl

from benchmarks.race.drivers.task import KLINE_COLUMNS, ROWS_FILE

_RENAMED: Final = {"date": "open_time", "count": "trades"}
_INTEGERS: Final = ("open_time", "close_time", "trades")


class Output(StrEnum):
    """How a tool delivers candles."""

    ROWS = "rows"
    ARCHIVE_CSV = "CSV"
    PARQUET = "Parquet"


def read_output(output: Output, folder: Path) -> pl.DataFrame | None:
    """Return the candles in ``folder``: ``open_time`` in ms, other values as Float64 or Int64; None if there are none.

    Files are read in the order of their dates.
    """
    tables = [table for table in _READERS[output](folder) if table.height]
    return pl.concat([_canonical(table) for table in tables]) if tables else None


def _read_rows(folder: Path) -> list[pl.DataFrame]:
    path = folder / ROWS_FILE
    return [pl.read_csv(path, infer_schema=False)] if path.exists() else []


def _read_archive_csv(folder: Path) -> list[pl.DataFrame]:
    return [_read_kline_csv(path) for path in sorted(folder.rglob("*-1m-*.csv"), key=lambda path: path.name)]


def _read_kline_csv(path: Path) -> pl.DataFrame:
    with path.open() as file:
        has_header = not file.read(1).isdigit()
    table = pl.read_csv(path, has_header=has_header, infer_schema=False)
    return table.rename(dict(zip(table.columns, KLINE_COLUMNS, strict=True)))


def _read_parquet(folder: Path) -> list[pl.DataFrame]:
    return [pl.read_parquet(path, hive_partitioning=False) for path in sorted(folder.rglob("*.parquet"))]


_READERS: Final[dict[Output, Callable[[Path], list[pl.DataFrame]]]] = {
    Output.ROWS: _read_rows,
    Output.ARCHIVE_CSV: _read_archive_csv,
    Output.PARQUET: _read_parquet,
}


def _canonical(table: pl.DataFrame) -> pl.DataFrame:
    renamed = table.rename({old: new for old, new in _RENAMED.items() if old in table.columns})
    known = renamed.select([name for name in renamed.columns if name in KLINE_COLUMNS and name != "ignore"])
    times = pl.col(pl.Datetime).dt.epoch("ms")
    return known.with_columns(times).with_columns(
        pl.col(name).cast(pl.Int64 if name in _INTEGERS else pl.Float64) for name in known.columns
    )
