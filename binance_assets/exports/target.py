"""What a target is: how it names its files, what it refuses, and how candles become its files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from binance_assets.model.intervals import Interval
from binance_assets.model.markets import COINM, Market
from binance_assets.model.series import Series
from binance_assets.waiting import phase


@dataclass(frozen=True, slots=True)
class Item:
    """One series of an export.

    Attributes:
        series: The series in the lake.
        interval: The interval of the exported candles; coarser than that of the series if they are resampled.
    """

    series: Series
    interval: Interval


@dataclass(frozen=True, slots=True)
class Candles:
    """The candles of one series.

    Attributes:
        item: What they are.
        table: The columns of the market, and ``is_filled`` if gaps are filled with flat candles; sorted.
        rows: How many rows the table has, at least one.
        first: The first open time, ms UTC.
        last: The last open time, ms UTC.
    """

    item: Item
    table: pl.LazyFrame
    rows: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class File:
    """A file that was written.

    Attributes:
        path: Relative to the folder of the export, with slashes.
        series: The names of the series whose candles it holds.
    """

    path: str
    series: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """A format.

    Attributes:
        name: Its name on the command line.
        load: Returns how its tool loads what was written, for the first item; ``{folder}`` and ``{file}`` stand for the
            paths.
        claims: Returns glob patterns, relative to the folder: an export of these items replaces whatever matches.
        write: Writes the candles into a folder, and yields each file.
        check: Raises a ValueError if the target cannot hold an item.
    """

    name: str
    load: Callable[[Item], str]
    claims: Callable[[Sequence[Item]], list[str]]
    write: Callable[[Sequence[Candles], Path], Iterator[File]]
    check: Callable[[Item], None]


PathOf = Callable[[Item], str]
"""Returns the path of an item's file, relative to the folder, with slashes."""


def accept_all(item: Item) -> None:
    """Refuse nothing."""


def table_target(
    name: str,
    load: Callable[[Item], str],
    path: PathOf,
    shape: Callable[[Candles], pl.LazyFrame],
    write_table: Callable[[pl.LazyFrame, Path], None],
    check: Callable[[Item], None] = accept_all,
) -> Target:
    """Return a target that writes one table per series.

    Args:
        name: As in :class:`Target`.
        load: As in :class:`Target`.
        path: Returns the path of an item's file, relative to the folder.
        shape: Returns the table with the columns of the format.
        write_table: Writes a table to a path, a batch of rows at a time.
        check: As in :class:`Target`.
    """

    def write(candles: Sequence[Candles], folder: Path) -> Iterator[File]:
        for entry in candles:
            relative = path(entry.item)
            with phase(f"writing {entry.item.series}"):
                (folder / relative).parent.mkdir(parents=True, exist_ok=True)
                write_table(shape(entry), folder / relative)
            yield File(relative, (str(entry.item.series),))

    return Target(name, load, lambda items: [path(item) for item in items], write, check)


def base_volume(market: Market) -> str:
    """Return the column with the traded amount in the base asset; on COIN-M, ``volume`` counts contracts."""
    return "base_volume" if market is COINM else "volume"
