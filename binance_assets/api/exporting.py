"""Exporting candles into the files that other tools load: ``export``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, cast

import polars as pl

from binance_assets.api.arguments import Moment, SeriesName, all_series_of, interval_of, lake_at, path_of
from binance_assets.api.gaps import Missing
from binance_assets.api.reading import scan
from binance_assets.exports.choices import chosen_missing
from binance_assets.exports.publication import publication
from binance_assets.exports.target import Candles, File, Item, Target
from binance_assets.exports.targets import TARGETS
from binance_assets.model.bucket_paths import BucketPath, LakePath
from binance_assets.model.intervals import Interval
from binance_assets.model.outside import printable, reason_of
from binance_assets.model.timestamps import to_iso
from binance_assets.settings import ConfigurationError
from binance_assets.storage.lake import Lake, LakeError
from binance_assets.waiting import phase

ExportTarget = Literal["parquet", "csv", "feather", "freqtrade", "backtesting", "nautilus", "qlib", "zipline"]
"""The name of a target; docs/exports.md describes each."""

_DEFAULT_FOLDER: Final = Path("exports")


@dataclass(frozen=True, slots=True)
class ExportedSeries:
    """What became of one series.

    Attributes:
        series: Its name in the lake.
        interval: The interval of the exported candles.
        rows: How many candles were written, filled ones and rows of nulls included.
        first: The first open time, ISO 8601, UTC.
        last: The last open time, ISO 8601, UTC.
        files: The paths of its files, relative to the folder; those of several series are in the list of each.
    """

    series: str
    interval: str
    rows: int
    first: str
    last: str
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote.

    Attributes:
        target: The name of the target.
        folder: The folder.
        series: What became of each series, in the given order.
        files: The size in bytes of each file, by its path relative to the folder.
        missing: What became of gaps.
        load: How the tool loads the files, in one line.
    """

    target: str
    folder: Path
    series: tuple[ExportedSeries, ...]
    files: dict[str, int]
    missing: str
    load: str


def export(
    series: SeriesName | Sequence[SeriesName],
    to: ExportTarget,
    output: str | Path | None = None,
    start: Moment | None = None,
    end: Moment | None = None,
    every: str | Interval | None = None,
    missing: Missing | None = None,
    *,
    allow_missing: bool = False,
    overwrite: bool = False,
    lake: str | LakePath | Lake | None = None,
) -> Exported:
    """Write candles into the files of another tool; docs/exports.md describes the targets.

    Files appear complete or not at all. Files of an earlier export are replaced. Memory does not grow with the range.

    Args:
        series: One or several series, such as ``spot/BTCUSDT/1m``.
        to: The target.
        output: The folder of the files; None for ``exports/`` and the name of the target, in the working folder.
        start: As for :func:`~binance_assets.api.reading.scan`.
        end: As for ``scan``.
        every: As for ``scan``.
        missing: As for ``scan``; None for the default of the target.
        allow_missing: As for ``scan``.
        overwrite: Whether to replace files that no export wrote, or that have changed since.
        lake: As for ``scan``.

    Returns:
        What was written.

    Raises:
        MissingPartitions, MissingCandles, LakeError: As for ``scan``.
        ConfigurationError: An argument or a setting is not valid, the target cannot hold a series, the range has no
            candle, or the folder cannot be written.
    """
    members = all_series_of(series)
    coarse = interval_of(every)
    items = [Item(member, coarse or member.interval) for member in members]
    try:
        gaps = chosen_missing(to, missing)
        target = TARGETS[to]
        claims = _claims(target, items)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    folder = _DEFAULT_FOLDER / to if output is None else path_of(output)
    source = lake_at(lake)
    _check_folder(folder, source)
    with phase("checking what the lake holds"):
        tables = [
            scan(member, start, end, every, cast(Missing, gaps), allow_missing=allow_missing, lake=source)
            for member in members
        ]
    with publication(folder, claims, overwrite) as published:
        try:
            candles = [_counted(item, table) for item, table in zip(items, tables, strict=True)]
            files = list(target.write(candles, published.staging))
        except ValueError as error:
            raise ConfigurationError(str(error)) from None
        sizes = published.publish(files, to)
    return Exported(
        target=to,
        folder=folder,
        series=tuple(_exported(entry, files) for entry in candles),
        files=sizes,
        missing=gaps,
        load=target.load(items[0]).replace("{folder}", str(folder)).replace("{file}", str(folder / files[0].path)),
    )


def _exported(candles: Candles, files: Sequence[File]) -> ExportedSeries:
    series = str(candles.item.series)
    return ExportedSeries(
        series=series,
        interval=candles.item.interval.name,
        rows=candles.rows,
        first=to_iso(candles.first),
        last=to_iso(candles.last),
        files=tuple(file.path for file in files if series in file.series),
    )


def _check_folder(folder: Path, lake: Lake) -> None:
    """Check that a folder is not in the lake, whose readers would take exported files for candles of it.

    Raises:
        ConfigurationError: It is.
    """
    if isinstance(lake.root, BucketPath):
        return
    if Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(lake.root)):
        raise ConfigurationError(
            f"{printable(folder)} is in the folder of the lake, {printable(lake.root)}; choose another output"
        )


def _claims(target: Target, items: Sequence[Item]) -> list[str]:
    """Return the patterns of the files that an export replaces.

    Raises:
        ValueError: The target cannot hold an item, or two items would be the same file.
    """
    for item in items:
        target.check(item)
    claims = target.claims(items)
    for claim in claims:
        if claims.count(claim) > 1:
            owners = " and ".join(str(item.series) for item in items if claim in target.claims([item]))
            raise ValueError(f"{owners} would be the same file {claim}; export them into two folders")
    return claims


def _counted(item: Item, table: pl.LazyFrame) -> Candles:
    """Return a table with its number of rows and its first and last open time.

    Raises:
        LakeError: The candles cannot be read.
        ConfigurationError: There are none.
    """
    time = pl.col("open_time").to_physical()
    with phase(f"counting the candles of {item.series}"):
        asked = table.select(rows=pl.len(), first=time.min(), last=time.max())
        try:
            rows, first, last = asked.collect(engine="streaming").row(0)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise LakeError(f"the candles of {item.series} cannot be read: {reason_of(error)}") from None
    if not rows:
        raise ConfigurationError(f"{item.series} has no candle in the range, so there is nothing to export")
    return Candles(item, table, rows, first, last)
