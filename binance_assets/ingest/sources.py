"""The chain of sources by which partitions are fetched, and which of two results is the better one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import polars as pl

from binance_assets.candles.columns import empty_candles
from binance_assets.completeness.reference_data import ReferenceData
from binance_assets.completeness.validation import outside_trading_span, validate_partitions
from binance_assets.exchange.archive import ArchiveContent
from binance_assets.exchange.archive_files import (
    ArchiveFile,
    all_files,
    cheaper_files,
    daily_files_only,
)
from binance_assets.exchange.errors import ExchangeError
from binance_assets.exchange.session import Exchange
from binance_assets.ingest.blocks import BLOCK_ROWS, blocks, failed_partitions, read_file
from binance_assets.ingest.reference import reload_control_totals
from binance_assets.model.partitions import Partition
from binance_assets.model.results import REST, PartitionResult, Provenance
from binance_assets.model.series import Series
from binance_assets.settings import Source


@dataclass(slots=True)
class SourceTask:
    """What a call of :func:`download` works with."""

    exchange: Exchange
    series: Series
    reference: ReferenceData

    def validate_partitions(
        self, candles: pl.DataFrame, partitions: Sequence[Partition], provenance: Provenance = REST
    ) -> list[PartitionResult]:
        return validate_partitions(self.series, candles, partitions, self.reference, provenance) if partitions else []


SourceStep = Callable[[SourceTask, Sequence[Partition]], Iterator[PartitionResult]]


"""One way to get at periods: yields a verdict on each."""


def finished_results(task: SourceTask, partitions: Sequence[Partition], source: Source) -> Iterator[PartitionResult]:
    """The verdicts on periods that are over: without a request where there was no life, then way after way.

    A period is settled with the first good verdict; one that is doubtful on every way gets the best of them.
    """
    left = []
    for partition in partitions:
        outside = outside_trading_span(task.series, partition, task.reference.trading_span)
        if outside is None:
            left.append(partition)
        else:
            yield outside
    best: dict[Partition, PartitionResult] = {}
    for step, applies_to in SOURCE_CHAINS[source]:
        worth = [partition for partition in left if partition not in best or applies_to(best[partition])]
        for result in step(task, worth) if worth else ():
            better = pick_better(task, best.get(result.partition), result)
            best[result.partition] = better
            if better.is_accepted and not better.needs_second_source:
                yield best.pop(result.partition)
                left.remove(result.partition)
    yield from (best[partition] for partition in left)


def pick_better(task: SourceTask, first: PartitionResult | None, second: PartitionResult) -> PartitionResult:
    """The better of two verdicts on a period, or that on what they have together."""
    if first is None:
        return second
    if second.is_accepted and not second.needs_second_source:
        return replace(
            second, reason=f"from {second.provenance.label}, because of {first.provenance.label}: {first.reason}"
        )
    if first.missing and second.missing and first.missing != second.missing:
        both = pl.concat([first.candles, second.candles]).unique("open_time", keep="last").sort("open_time")
        sources = dict.fromkeys((first.provenance.source, second.provenance.source))
        file = first.provenance if first.provenance.file else second.provenance
        (together,) = task.validate_partitions(both, [first.partition], replace(file, source="+".join(sources)))
        if together.is_accepted and not together.needs_second_source:
            message = f"{first.provenance.label} and {second.provenance.label} together, each with candles that the other lacks"
            return replace(together, reason=f"from {message}")
        return min(first, second, together, key=quality_rank)
    return min(first, second, key=quality_rank)


# The better kind of verdict first; what is nearer to the exchange's own sums is better.
VERDICT_ORDER: Final = (
    "complete",
    "listing",
    "delisted",
    "before_listing",
    "unproved",
    "outage",
    "unbalanced",
    "lost",
    "invalid",
)


def quality_rank(result: PartitionResult) -> tuple[int, int]:
    """How little a verdict is worth; the first of equals is the better one."""
    rank = VERDICT_ORDER.index(result.verdict) if result.verdict in VERDICT_ORDER else len(VERDICT_ORDER)
    return rank, sum(end - start for start, end in result.missing)


def _by_rest(task: SourceTask, partitions: Sequence[Partition]) -> Iterator[PartitionResult]:
    for block in blocks(task.exchange, task.series, partitions):
        failed = failed_partitions(block)
        answered = [partition for partition in block.partitions if partition not in failed]
        result = {one.partition: one for one in task.validate_partitions(block.candles, answered)}
        for partition in block.partitions:
            yield result[partition] if partition in result else unavailable(task.series, partition, failed[partition])


def _by_rest_again(task: SourceTask, partitions: Sequence[Partition]) -> Iterator[PartitionResult]:
    """A second look, at the books too: an answer may have been short only once."""
    task.reference = reload_control_totals(task.exchange, task.series, partitions, task.reference)
    yield from _by_rest(task, partitions)


def _by_archive(
    choose: Callable[[Series, Sequence[Partition], int], list[ArchiveFile]], only: bool = False
) -> SourceStep:
    """The way by those files of the archive that ``choose`` names.

    Args:
        choose: Of the functions of :mod:`binance_assets.exchange.archive_files`.
        only: Whether there is no other way for periods that have no file: they are then told.
    """

    def step(task: SourceTask, partitions: Sequence[Partition]) -> Iterator[PartitionResult]:
        files = choose(task.series, partitions, task.reference.now) if task.exchange.archive_matches_api else []
        held: list[tuple[ArchiveFile, Provenance, pl.DataFrame]] = []
        for file, outcome in task.exchange.archive.stream(files, lambda file, found: _read_file(task, file, found)):
            if isinstance(outcome, ExchangeError):
                for partition in file.partitions:
                    yield replace(
                        unavailable(task.series, partition, outcome), provenance=Provenance("archive", file.name)
                    )
                continue
            held.append((file, *outcome))
            if sum(frame.height for _, _, frame in held) >= BLOCK_ROWS:
                yield from _validate_files(task, held)
                held = []
        yield from _validate_files(task, held)
        if only:
            covered = {partition for file in files for partition in file.partitions}
            for partition in partitions:
                if partition not in covered:
                    reason = "the archive has no file of it, or not yet"
                    if not task.exchange.archive_matches_api:
                        reason = "the archive is Binance's own and the API is not; set BINANCE_ARCHIVE_URL"
                    yield PartitionResult(partition, "unreachable", empty_candles(task.series.market), (), reason)

    return step


def _read_file(task: SourceTask, file: ArchiveFile, content: ArchiveContent) -> tuple[Provenance, pl.DataFrame]:
    provenance = Provenance("archive", file.name, content.sha256, content.modified)
    return provenance, read_file(task.exchange, file, content)


def _validate_files(
    task: SourceTask, held: Sequence[tuple[ArchiveFile, Provenance, pl.DataFrame]]
) -> Iterator[PartitionResult]:
    if not held:
        return
    provenances = {partition: provenance for file, provenance, _ in held for partition in file.partitions}
    candles = pl.concat([frame for _, _, frame in held])
    for result in task.validate_partitions(candles, sorted(provenances)):
        yield replace(result, provenance=provenances[result.partition])


def _any(result: PartitionResult) -> bool:
    return True


def _needs_second_source(result: PartitionResult) -> bool:
    return result.needs_second_source


def _needs_second_source_or_unreachable(result: PartitionResult) -> bool:
    return result.needs_second_source or result.verdict == "unreachable"


# By which ways, in which order, and for which of the verdicts so far each of them is worth it.
SOURCE_CHAINS: Final[dict[Source, tuple[tuple[SourceStep, Callable[[PartitionResult], bool]], ...]]] = {
    "rest": (
        (_by_rest, _any),
        (_by_rest_again, _needs_second_source),
        (_by_archive(daily_files_only), _needs_second_source),
    ),
    "auto": (
        (_by_archive(cheaper_files), _any),
        (_by_rest, _any),
        (_by_rest_again, _needs_second_source),
        (_by_archive(daily_files_only), _needs_second_source_or_unreachable),
    ),
    "archive": (
        (_by_archive(all_files, only=True), _any),
        (_by_archive(daily_files_only), _any),
        (_by_rest, _needs_second_source),
    ),
}


def unavailable(series: Series, partition: Partition, error: ExchangeError) -> PartitionResult:
    """The verdict on a period that an error keeps from us."""
    return PartitionResult(partition, error.policy.verdict, empty_candles(series.market), (), str(error))
