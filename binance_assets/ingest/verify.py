"""Looks at the lake again as if nothing in it were known: files, schema, grid, sums, and the other source."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final, Literal

import polars as pl

from binance_assets.candles.columns import columns
from binance_assets.completeness.reference_data import ReferenceData
from binance_assets.completeness.validation import validate_partitions
from binance_assets.exchange.session import Exchange
from binance_assets.ingest.derive import derived_day
from binance_assets.ingest.download import SAFETY_MS, download
from binance_assets.ingest.reference import load_reference
from binance_assets.model.partitions import Partition
from binance_assets.model.results import ACCEPTED, PartitionResult
from binance_assets.model.series import Series
from binance_assets.model.timestamps import to_date, to_text
from binance_assets.storage.lake import Lake, StoredPartition
from binance_assets.storage.universe import Derived

# Where no source is named, one day in so many is compared with the source that it did not come from.
_SAMPLED: Final = 30


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in the lake that is not as it should be.

    Attributes:
        series: The series.
        partition: The partition.
        message: What is wrong, in one line.
    """

    series: Series
    partition: Partition
    message: str


def verify(
    lake: Lake,
    exchange: Exchange,
    series: Series,
    partitions: Sequence[Partition],
    against: Literal["rest", "archive"] | None,
    done: Callable[[int], None],
) -> Iterator[Finding]:
    """Look at ``partitions`` of a series again. Nothing is changed.

    Args:
        lake: The lake.
        exchange: The market of the series.
        series: The series.
        partitions: Which partitions, ascending.
        against: The source with which every candle is compared; None compares a sample, one day in thirty, with
            the source that the day did not come from.
        done: Told how many partitions were looked at, from time to time.

    Yields:
        What differs, in order of time for each of the steps.

    Raises:
        ExchangeError: The exchange's time or sums cannot be had, so nothing can be proved.
        Cancelled: The exchange was closed.
    """
    reference = load_reference(exchange, series, partitions, exchange.now() - SAFETY_MS, archived=True)
    sampled: list[tuple[Partition, str]] = []
    for _, month in groupby(partitions, key=lambda partition: to_date(partition.start).replace(day=1)):
        members = list(month)
        sound: list[tuple[Partition, StoredPartition, pl.DataFrame]] = []
        for partition in members:
            found = _read(lake, series, partition)
            if isinstance(found, str):
                yield Finding(series, partition, found)
            else:
                sound.append((partition, *found))
        yield from _validate_again(series, sound, reference)
        sampled += [(partition, stored.source) for partition, stored, _ in sound]
        done(len(members))
    yield from _compared(lake, exchange, series, _sample(sampled, against), must=against is not None)


def verify_derived(
    lake: Lake, derived: Derived, partitions: Sequence[Partition], done: Callable[[int], None]
) -> Iterator[Finding]:
    """Look at partitions of a derived series again: make each anew and compare. Nothing is changed, nobody is asked.

    Args:
        lake: The lake.
        derived: The series and its source.
        partitions: Which partitions.
        done: Told how many partitions were looked at.

    Yields:
        What differs, in order of time.
    """
    for partition in partitions:
        found = _read(lake, derived.series, partition)
        if isinstance(found, str):
            yield Finding(derived.series, partition, found)
        else:
            result = derived_day(lake, derived, partition)
            message = "" if result.is_accepted else f"it cannot be made again: {result.reason}"
            message = message or _difference(found[1], result.candles, str(derived.source))
            if message:
                yield Finding(derived.series, partition, message)
        done(1)


def _read(lake: Lake, series: Series, partition: Partition) -> tuple[StoredPartition, pl.DataFrame] | str:
    """The file and its table, or what keeps it from being read as one."""
    path = lake.path(series, partition)
    if not path.exists():
        return "there is no file"
    stored = lake.stored(series, partition)
    if stored is None:
        return "its metadata is not that of an accepted file of this series"
    try:
        candles = lake.read(series, partition)
    except (OSError, pl.exceptions.PolarsError) as error:
        return f"it cannot be read: {str(error).splitlines()[0]}"
    if dict(candles.schema) != columns(series.market):
        return "its columns are not those of the schema"
    if candles.height != stored.rows:
        return f"it has {candles.height:,} candles, and its metadata says {stored.rows:,}"
    return stored, candles


def _validate_again(
    series: Series, sound: Sequence[tuple[Partition, StoredPartition, pl.DataFrame]], reference: ReferenceData
) -> Iterator[Finding]:
    if not sound:
        return
    known = {partition: stored for partition, stored, _ in sound}
    for result in validate_partitions(series, pl.concat([candles for _, _, candles in sound]), list(known), reference):
        stored = known[result.partition]
        if _disagrees(result, stored):
            yield Finding(series, result.partition, f"it was {stored.verdict} and is {result.verdict}: {result.reason}")


def _disagrees(result: PartitionResult, stored: StoredPartition) -> bool:
    if result.verdict == stored.verdict or (stored.verdict == "unproved" and result.verdict in ACCEPTED):
        return False
    return result.verdict != "unproved"  # which says that nothing can be said just now


def _sample(
    there: Sequence[tuple[Partition, str]], against: Literal["rest", "archive"] | None
) -> dict[str, list[Partition]]:
    """Which periods to compare with which source."""
    if against is not None:
        return {against: [partition for partition, _ in there]}
    chosen: dict[str, list[Partition]] = {"rest": [], "archive": []}
    for partition, source in there[_SAMPLED // 2 :: _SAMPLED] or there[:1]:
        chosen["archive" if source == "rest" else "rest"].append(partition)
    return chosen


def _compared(
    lake: Lake, exchange: Exchange, series: Series, chosen: dict[str, list[Partition]], must: bool
) -> Iterator[Finding]:
    """What differs from other sources; of a sample it is none that the other source does not have a day."""
    for source, partitions in chosen.items():
        for result in download(exchange, series, partitions, "rest" if source == "rest" else "archive"):
            of_source = result.provenance.source == source and result.verdict != "unreachable"
            lifeless = result.candles.is_empty() and result.is_accepted  # before the listing, say: no source has any
            if of_source or (lifeless and must):
                message = _difference(lake.read(series, result.partition), result.candles, source)
            else:
                message = f"it cannot be compared with {source}: {result.reason}" if must else ""
            if message:
                yield Finding(series, result.partition, message)


def _difference(ours: pl.DataFrame, theirs: pl.DataFrame, source: str) -> str:
    if ours.equals(theirs):
        return ""
    only_ours = ours.join(theirs, on="open_time", how="anti").height
    only_theirs = theirs.join(ours, on="open_time", how="anti").height
    if only_ours or only_theirs:
        return f"{source} has {only_theirs:,} candles that the lake lacks, and lacks {only_ours:,} that it has"
    changed = ours.filter(~pl.struct(ours.columns).is_in(theirs.to_struct().implode()))
    first = to_text(changed["open_time"].to_physical()[0])
    return f"{changed.height:,} candles differ from those of {source}, the first at {first}"
