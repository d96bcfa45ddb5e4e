"""Verification of the lake: files, schema, grid, control totals and the other source, as if nothing were known yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final, Literal

import polars as pl

from binance_assets.candles.resampling import resample_as_before
from binance_assets.completeness.reference_data import ReferenceData
from binance_assets.completeness.validation import validate_partitions
from binance_assets.exchange.session import Exchange
from binance_assets.ingest.cross_check import cross_check
from binance_assets.ingest.derive import derive_partitions
from binance_assets.ingest.download import SAFETY_MS, download
from binance_assets.ingest.options import DownloadOptions
from binance_assets.ingest.reference import load_reference
from binance_assets.ingest.witnesses import with_witnesses
from binance_assets.model.partitions import Partition
from binance_assets.model.results import PartitionResult, Provenance, quality_rank
from binance_assets.model.series import Series
from binance_assets.model.timestamps import to_date, to_text
from binance_assets.storage.lake import Lake, StoredPartition
from binance_assets.storage.universe import Derived

# Without a named source, one in this many partitions is compared with the source that it did not come from.
_SAMPLED: Final = 30

ComparedSource = Literal["rest", "archive"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A difference between the lake and what it should hold.

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
    against: ComparedSource | None,
    strict: bool,
    on_progress: Callable[[int], None],
    deep: bool = False,
) -> Iterator[Finding]:
    """Verify partitions of a fetched series; do not change the lake.

    A partition that a download would refuse is a finding, unless a person accepted it with that verdict.

    Args:
        lake: The lake.
        exchange: The market of the series.
        series: The series.
        partitions: The partitions, ascending.
        against: The source with which every partition is compared; None compares a sample, one partition in thirty,
            with the source that it did not come from.
        strict: Whether a download refuses ``unbalanced`` partitions.
        on_progress: Called with the number of partitions verified since the last call.
        deep: Whether to compare every partition with the source that it did not come from, unless ``against`` names
            one, and with the exchange's own coarser candles.

    Yields:
        The differences: first those of files and totals, then those from the other source, each in order of time.

    Raises:
        ExchangeError: The exchange's time or control totals are not available, so that nothing can be proved.
        Cancelled: The exchange was closed.
    """
    now = exchange.now() - SAFETY_MS
    reference = load_reference(exchange, series, partitions, now, DownloadOptions(source="auto", strict=strict))
    sources: list[tuple[Partition, str]] = []
    contents = lake.read_each(series, partitions)
    for _, month in groupby(contents, key=lambda content: to_date(content.partition.start).replace(day=1)):
        members = list(month)
        readable: list[tuple[Partition, StoredPartition, pl.DataFrame]] = []
        for partition, entry, candles in members:
            if entry is None or isinstance(candles, str):
                yield Finding(series, partition, str(candles))
            else:
                readable.append((partition, entry, candles))
        yield from _validate_again(exchange, series, readable, reference)
        if deep:
            for partition, message in cross_check(exchange, series, {part: frame for part, _, frame in readable}):
                yield Finding(series, partition, message)
        sources += [(partition, stored.source) for partition, stored, _ in readable]
        on_progress(len(members))
    chosen = _choose(sources, against, 1 if deep else _SAMPLED)
    yield from _compare_sources(lake, exchange, series, chosen, is_sample=against is None and not deep)


def verify_derived(
    lake: Lake, derived: Derived, partitions: Sequence[Partition], on_progress: Callable[[int], None]
) -> Iterator[Finding]:
    """Verify partitions of a derived series: derive each again and compare. Send no request; do not change the lake.

    Args:
        lake: The lake.
        derived: The derived series and its base series.
        partitions: The partitions, ascending.
        on_progress: Called with the number of partitions verified since the last call.

    Yields:
        The differences, in order of the partitions.
    """
    contents = lake.read_each(derived.series, partitions)
    results = derive_partitions(lake, derived, partitions)
    for (partition, _, candles), result in zip(contents, results, strict=True):
        if isinstance(candles, str):
            yield Finding(derived.series, partition, candles)
        else:
            message = f"it cannot be derived again: {result.reason}"
            if result.is_accepted:
                message = _difference(candles, result.candles, str(derived.base)) or ""
            if message and not (result.is_accepted and _is_as_before(lake, derived, partition, candles)):
                yield Finding(derived.series, partition, message)
        on_progress(1)


def _is_as_before(lake: Lake, derived: Derived, partition: Partition, candles: pl.DataFrame) -> bool:
    """Return whether stored candles are what an earlier version derived from the base, as exactly as it could."""
    base = lake.read(derived.base, [partition])
    return candles.equals(resample_as_before(derived.series.market, base, derived.series.interval))


def _validate_again(
    exchange: Exchange,
    series: Series,
    readable: Sequence[tuple[Partition, StoredPartition, pl.DataFrame]],
    reference: ReferenceData,
) -> Iterator[Finding]:
    if not readable:
        return
    known = {partition: stored for partition, stored, _ in readable}
    candles = pl.concat([frame for _, _, frame in readable])
    results = validate_partitions(series, candles, list(known), reference)
    changed = [
        replace(result, provenance=Provenance(known[result.partition].source))
        for result in results
        if result.verdict != known[result.partition].verdict or not result.is_accepted
    ]
    for result in with_witnesses(exchange, series, changed, reference):
        stored = known[result.partition]
        message = _disagreement(result, stored)
        if message is not None:
            yield Finding(series, result.partition, message)


def _disagreement(result: PartitionResult, stored: StoredPartition) -> str | None:
    """Return how the verdict of the stored candles differs from the stored one, in one line; None if it does not."""
    if result.verdict == stored.verdict:
        is_fine = result.is_accepted or stored.accepted_by is not None
        return None if is_fine else f"it is {result.verdict}, which is refused now: {result.reason}"
    if result.verdict == "unproved":  # nothing can be proved at the moment
        return None
    # The next download stores the better verdict of a partition in doubt; nobody has to do anything about it.
    may_improve = stored.is_in_doubt or stored.accepted_by is not None
    if may_improve and result.is_accepted and quality_rank(result) <= stored.quality:
        return None
    return f"it was {stored.verdict} and is {result.verdict}: {result.reason}"


def _choose(
    sources: Sequence[tuple[Partition, str]], against: ComparedSource | None, every: int
) -> dict[str, list[Partition]]:
    """Return the partitions to compare with each source.

    Args:
        sources: The partitions, each with the source that it came from.
        against: The source for all of them; None chooses some, and the other source for each.
        every: Of how many partitions one is chosen.
    """
    if against is not None:
        return {against: [partition for partition, _ in sources]}
    chosen: dict[str, list[Partition]] = {"rest": [], "archive": []}
    for partition, source in sources[every // 2 :: every] or sources[:1]:
        chosen["archive" if source == "rest" else "rest"].append(partition)
    return chosen


def _compare_sources(
    lake: Lake, exchange: Exchange, series: Series, chosen: dict[str, list[Partition]], is_sample: bool
) -> Iterator[Finding]:
    """Yield how the lake differs from other sources; a partition of a sample that the other source lacks is skipped."""
    for source, partitions in chosen.items():
        options = DownloadOptions(source="rest" if source == "rest" else "archive")
        for result in download(exchange, series, partitions, options):
            is_from_source = result.provenance.source == source and result.verdict != "unreachable"
            is_empty = result.candles.is_empty() and result.is_accepted  # e.g. before_listing: no source has candles
            if is_from_source or (is_empty and not is_sample):
                message = _difference(lake.read(series, [result.partition]), result.candles, source)
            else:
                message = None if is_sample else f"it cannot be compared with {source}: {result.reason}"
            if message:
                yield Finding(series, result.partition, message)


def _difference(ours: pl.DataFrame, theirs: pl.DataFrame, source: str) -> str | None:
    """Return how two tables of a partition differ, in one line; None if they are equal."""
    if ours.equals(theirs):
        return None
    only_ours = ours.join(theirs, on="open_time", how="anti").height
    only_theirs = theirs.join(ours, on="open_time", how="anti").height
    if only_ours or only_theirs:
        return f"{source} has {only_theirs:,} candles that the lake lacks, and lacks {only_ours:,} that the lake has"
    changed = ours.filter(~pl.struct(ours.columns).is_in(theirs.to_struct().implode()))
    if changed.is_empty():
        return f"its candles are those of {source}, but repeated or in another order"
    first = to_text(changed["open_time"].to_physical()[0])
    return f"{changed.height:,} candles differ from those of {source}, the first at {first}"
