"""The chain of sources by which partitions are fetched, and which of two results of a partition is better."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Final

import polars as pl

from binance_assets.candles.columns import empty_candles
from binance_assets.completeness.outages import unnamed_spans
from binance_assets.completeness.reference_data import ReferenceData
from binance_assets.completeness.validation import outside_trading_span, suspended_result, validate_partitions
from binance_assets.exchange.archive import ArchiveContent
from binance_assets.exchange.archive_files import ArchiveFile, all_files, cheaper_files, daily_files_only
from binance_assets.exchange.errors import ExchangeError, NoFile
from binance_assets.exchange.session import Exchange
from binance_assets.ingest.blocks import BLOCK_ROWS, BLOCK_SECONDS, fetch_blocks, read_file
from binance_assets.ingest.reference import reload_control_totals
from binance_assets.ingest.witnesses import needs_witness, with_witnesses
from binance_assets.model.partitions import Partition
from binance_assets.model.results import REST, PartitionResult, Provenance, Verdict, quality_rank
from binance_assets.model.series import Series
from binance_assets.model.timestamps import DAY, to_ms
from binance_assets.settings import Source

FutureTable = Future[tuple[Provenance, pl.DataFrame]]
"""A file of the archive that is under way: where its candles come from, and the candles."""

# How long the file of a partition may take to appear: those of 2026-07-21 took six days, monthly ones seven.
_LATEST_FILE_MS: Final = 10 * DAY


@dataclass(frozen=True, slots=True)
class SourceTask:
    """What the steps of a chain work with.

    Attributes:
        exchange: The market.
        series: The series.
        reference: What its partitions are validated against.
        started: Files of the archive that are under way already, from :func:`start_files_early`.
    """

    exchange: Exchange
    series: Series
    reference: ReferenceData
    started: Mapping[ArchiveFile, FutureTable] = field(default_factory=dict)

    def validate(
        self, candles: pl.DataFrame, partitions: Sequence[Partition], provenance: Provenance = REST
    ) -> list[PartitionResult]:
        """Validate ``partitions`` (which may be empty), using their rows of ``candles``."""
        return validate_partitions(self.series, candles, partitions, self.reference, provenance) if partitions else []


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What a step of a chain returns.

    Attributes:
        results: The results of partitions, at most one for each, fetched while they are iterated.
        reference: The reference data that they are validated against; the next steps of the chain use it too.
    """

    results: Iterator[PartitionResult]
    reference: ReferenceData


SourceStep = Callable[[SourceTask, Sequence[Partition]], StepOutcome]
"""A function that fetches partitions from one source."""


@dataclass(frozen=True, slots=True)
class ChainLink:
    """A step of a chain, and the partitions that it is taken for.

    Attributes:
        step: The step.
        applies_to: Whether the step is taken for a partition, given its best result so far. A partition without a
            result always gets the step.
    """

    step: SourceStep
    applies_to: Callable[[PartitionResult], bool]


def fetch_finished(task: SourceTask, partitions: Sequence[Partition], source: Source) -> Iterator[PartitionResult]:
    """Yield the results of finished partitions: first those that need no request, then step by step.

    The first conclusive result of a partition is yielded at once. A partition without one is tried by every step that
    applies, and gets the best result of them at the end. If that is doubtful, witnesses are asked about it.
    """
    pending = []
    for partition in partitions:
        empty = outside_trading_span(task.series, partition, task.reference.trading_span)
        if empty is None:
            empty = suspended_result(task.series, partition, task.reference, with_last_candle=True)
        if empty is None:
            pending.append(partition)
        else:
            yield empty
    best: dict[Partition, PartitionResult] = {}
    doubtful: list[PartitionResult] = []
    received: dict[Partition, set[str]] = {}
    for link in _ARCHIVE_ONLY if task.reference.rest_error is not None else SOURCE_CHAINS[source]:
        wanted = [partition for partition in pending if partition not in best or link.applies_to(best[partition])]
        if not wanted:
            continue
        outcome = link.step(task, wanted)
        task = replace(task, reference=outcome.reference)
        for result in outcome.results:
            if result.verdict not in ("unreachable", "invalid"):
                received.setdefault(result.partition, set()).add(result.provenance.source)
            better = _better(task, best.get(result.partition), result)
            best[result.partition] = better
            if better.is_conclusive:
                del best[result.partition]
                pending.remove(result.partition)
                if needs_witness(better, task.reference):
                    doubtful.append(better)
                else:
                    yield better
    doubtful += [best[partition] for partition in pending]
    by_time = sorted(doubtful, key=lambda result: result.partition)
    checked = list(with_witnesses(task.exchange, task.series, by_time, task.reference))
    unproved = {result.partition for result in by_time if result.verdict == "unproved"}
    refuted = [result for result in checked if result.verdict == "unbalanced" and result.partition in unproved]
    replaced = _from_other_source(task, refuted, received)
    for result in checked:
        result = replaced.get(result.partition, result)
        yield with_one_source(task, result, received.get(result.partition, set()))


def _from_other_source(
    task: SourceTask, refuted: Sequence[PartitionResult], received: Mapping[Partition, Set[str]]
) -> dict[Partition, PartitionResult]:
    """Return the results of the source that has not been tried, as far as witnesses confirm them.

    Args:
        task: What the partitions are validated against.
        refuted: The results of partitions without a ``1d`` candle that witnesses refute. They were conclusive before,
            so that no other source was tried.
        received: The sources from which candles were received, by partition.
    """
    confirmed: dict[Partition, PartitionResult] = {}
    steps: dict[str, SourceStep] = {"archive": _archive(daily_files_only), "rest": _rest}
    for source, step in steps.items():
        wanted = [result.partition for result in refuted if source not in received.get(result.partition, set())]
        if not wanted or (source == "rest" and task.reference.rest_error is not None):
            continue
        results = list(step(task, wanted).results)
        for result in with_witnesses(task.exchange, task.series, results, task.reference):
            if result.witnesses:
                confirmed[result.partition] = result
    return confirmed


def with_one_source(task: SourceTask, result: PartitionResult, received: Set[str]) -> PartitionResult:
    """Return the result of a partition, refused if only one source shows an outage that the table does not name.

    Candles that one source lacks without trades may be a defect of that source: a file that ends early looks like an
    outage to the end of the day if its ``1d`` candle ends early too.

    Args:
        task: What the partition was validated against.
        result: Its best result.
        received: The sources from which candles of the partition were received.
    """
    series, reference = task.series, task.reference
    suspended = reference.control_totals.suspended
    if result.verdict != "outage" or len(received) != 1 or not unnamed_spans(series.market, result.missing, suspended):
        return result
    (source,) = received
    other = "rest" if source == "archive" else "archive"
    reason = f"{result.reason}; only {source} shows this, and {other} could not be compared"
    archive_has_none = result.partition.start < to_ms(series.market.archived) or not task.exchange.archive_matches_api
    if other == "archive" and archive_has_none:
        return replace(result, reason=f"{result.reason}; only {source} covers this day")
    is_young = reference.now < result.partition.end + _LATEST_FILE_MS
    verdict: Verdict = "unfinished" if other == "archive" and is_young else "lost"
    return replace(result, verdict=verdict, reason=reason)


def _better(task: SourceTask, first: PartitionResult | None, second: PartitionResult) -> PartitionResult:
    """Return the better of two results of a partition, or the result of their merged candles if that is better."""
    if first is None:
        return second
    merged = None
    if not second.is_conclusive and lack_different_candles(first, second):
        candles, provenance = merge_candles(first, second)
        (merged,) = task.validate(candles, [first.partition], provenance)
    return pick_better(first, second, merged)


def lack_different_candles(first: PartitionResult, second: PartitionResult) -> bool:
    """Return whether both results have gaps, but not the same ones, so that each may fill those of the other."""
    return bool(first.missing and second.missing and first.missing != second.missing)


def merge_candles(first: PartitionResult, second: PartitionResult) -> tuple[pl.DataFrame, Provenance]:
    """Return the candles of both results of a partition; where both have a candle, that of the second.

    Returns:
        The candles, sorted by open time, and a provenance that names both sources and the archive file.
    """
    candles = pl.concat([first.candles, second.candles]).unique("open_time", keep="last").sort("open_time")
    # A result may be a merged one itself: its source is already a list.
    sources = dict.fromkeys(f"{first.provenance.source}+{second.provenance.source}".split("+"))
    file = first.provenance if first.provenance.file else second.provenance
    return candles, replace(file, source="+".join(sources))


def pick_better(
    first: PartitionResult, second: PartitionResult, merged: PartitionResult | None = None
) -> PartitionResult:
    """Return the best result of a partition.

    The reason of a conclusive one says why the first was not enough. The reason of a refused one also names what is
    defective in the other source: where one source has no candles, those of the other may exist in an invalid file.

    Args:
        first: The earlier result, which is not conclusive.
        second: The later result.
        merged: The result of their merged candles; None if they were not merged.
    """
    if second.is_conclusive and first.has_no_file:
        return second  # nothing to remark: the archive often lacks a month, or a recent day
    if second.is_conclusive:
        reason = f"from {second.provenance.label}, because of {first.provenance.label}: {first.reason}"
        return replace(second, reason=reason)
    if merged is None:
        better = min(first, second, key=quality_rank)
        return _with_defect(better, second if better is first else first)
    if merged.is_conclusive:
        both = f"{first.provenance.label} and {second.provenance.label}"
        return replace(merged, reason=f"from {both} together, each with candles that the other lacks")
    return min(first, second, merged, key=quality_rank)


def _with_defect(better: PartitionResult, other: PartitionResult) -> PartitionResult:
    """Return the better result of a partition; if it is refused, its reason also says what is invalid in the other."""
    if better.is_accepted or other.verdict != "invalid" or other.reason in better.reason:
        return better
    return replace(better, reason=f"{better.reason}; {other.provenance.label}: {other.reason}")


def _rest(task: SourceTask, partitions: Sequence[Partition]) -> StepOutcome:
    return StepOutcome(_rest_results(task, partitions), task.reference)


def _rest_again(task: SourceTask, partitions: Sequence[Partition]) -> StepOutcome:
    """Fetch candles and control totals once more, because an earlier response may have been incomplete."""
    reference = reload_control_totals(task.exchange, task.series, partitions, task.reference)
    return _rest(replace(task, reference=reference), partitions)


def _rest_results(task: SourceTask, partitions: Sequence[Partition]) -> Iterator[PartitionResult]:
    for block in fetch_blocks(task.exchange, task.series, partitions):
        errors = block.partition_errors()
        received = [partition for partition in block.partitions if partition not in errors]
        results = {result.partition: result for result in task.validate(block.candles, received)}
        for partition in block.partitions:
            yield results.get(partition) or unavailable(task.series, partition, errors[partition])


def _archive(
    choose_files: Callable[[Series, Sequence[Partition], int], list[ArchiveFile]], reports_absent: bool = False
) -> SourceStep:
    """Return the step that fetches the archive files that ``choose_files`` selects.

    Args:
        choose_files: A function of :mod:`binance_assets.exchange.archive_files`.
        reports_absent: Whether partitions without a file get the result ``unreachable``, because no other source will
            be tried for them; otherwise they get no result.
    """

    def step(task: SourceTask, partitions: Sequence[Partition]) -> StepOutcome:
        matches = task.exchange.archive_matches_api
        files = choose_files(task.series, partitions, task.reference.now) if matches else []
        results = _archive_results(task, files)
        if reports_absent:
            results = chain(results, _absent_results(task, partitions, files))
        return StepOutcome(results, task.reference)

    return step


def _archive_results(task: SourceTask, files: Sequence[ArchiveFile]) -> Iterator[PartitionResult]:
    """Yield the results of the partitions of ``files``; files are validated together, in blocks."""
    held: list[tuple[ArchiveFile, Provenance, pl.DataFrame]] = []
    began = 0.0
    archive = task.exchange.archive
    read = partial(_read_file, task.exchange)
    for file, outcome in archive.stream(files, read, with_checksums=True, started=task.started):
        if isinstance(outcome, ExchangeError):
            provenance = Provenance("archive", file.name)
            for partition in file.partitions:
                result = unavailable(task.series, partition, outcome)
                yield replace(result, provenance=provenance, has_no_file=isinstance(outcome, NoFile))
            continue
        began = began if held else time.monotonic()
        held.append((file, *outcome))
        is_due = time.monotonic() - began >= BLOCK_SECONDS
        if is_due or sum(candles.height for _, _, candles in held) >= BLOCK_ROWS:
            yield from _validate_files(task, held)
            held = []
    yield from _validate_files(task, held)


def _absent_results(
    task: SourceTask, partitions: Sequence[Partition], files: Sequence[ArchiveFile]
) -> Iterator[PartitionResult]:
    """Yield a refused result for each of ``partitions`` that none of ``files`` holds."""
    covered = {partition for file in files for partition in file.partitions}
    reason = "the archive has no file for it, or not yet"
    if not task.exchange.archive_matches_api:
        reason = "the archive is Binance's own and the API is not; set BINANCE_ARCHIVE_URL"
    for partition in partitions:
        if partition not in covered:
            yield PartitionResult(partition, "unreachable", empty_candles(task.series.market), (), reason)


def _read_file(exchange: Exchange, file: ArchiveFile, content: ArchiveContent) -> tuple[Provenance, pl.DataFrame]:
    provenance = Provenance("archive", file.name, content.sha256, content.modified)
    return provenance, read_file(exchange, file, content)


def _validate_files(
    task: SourceTask, held: Sequence[tuple[ArchiveFile, Provenance, pl.DataFrame]]
) -> Iterator[PartitionResult]:
    if not held:
        return
    provenances = {partition: provenance for file, provenance, _ in held for partition in file.partitions}
    candles = pl.concat([frame for _, _, frame in held])
    for result in task.validate(candles, sorted(provenances)):
        yield replace(result, provenance=provenances[result.partition])


def _any_result(result: PartitionResult) -> bool:
    return True


def _needs_second_source(result: PartitionResult) -> bool:
    return result.needs_second_source


def _needs_second_source_or_unreachable(result: PartitionResult) -> bool:
    return result.needs_second_source or result.verdict == "unreachable"


SOURCE_CHAINS: Final[dict[Source, tuple[ChainLink, ...]]] = {
    "rest": (
        ChainLink(_rest, applies_to=_any_result),
        ChainLink(_rest_again, applies_to=_needs_second_source),
        ChainLink(_archive(daily_files_only), applies_to=_needs_second_source),
    ),
    "auto": (
        ChainLink(_archive(cheaper_files), applies_to=_any_result),
        ChainLink(_rest, applies_to=_any_result),
        ChainLink(_rest_again, applies_to=_needs_second_source),
        ChainLink(_archive(daily_files_only), applies_to=_needs_second_source_or_unreachable),
    ),
    "archive": (
        ChainLink(_archive(all_files, reports_absent=True), applies_to=_any_result),
        ChainLink(_archive(daily_files_only), applies_to=_any_result),
        ChainLink(_rest, applies_to=_needs_second_source),
    ),
}
"""The steps by which each source fetches partitions, in order."""

_ARCHIVE_ONLY: Final = SOURCE_CHAINS["archive"][:2]
"""The steps for a symbol that the API does not know."""


_FIRST_FILES: Final = {"archive": all_files, "auto": cheaper_files}
"""How the first step of a chain chooses files, for the sources that begin with the archive."""


def start_files_early(
    exchange: Exchange, series: Series, partitions: Sequence[Partition], source: Source, now: int
) -> dict[ArchiveFile, FutureTable]:
    """Request the first files that :func:`fetch_finished` will fetch, while the reference data is loaded.

    Args:
        exchange: The market.
        series: The series.
        partitions: Those that will be fetched, ascending.
        source: Where they come from; from REST, nothing is started here.
        now: The server's time, ms UTC.

    Returns:
        The files that are under way, for :attr:`SourceTask.started`; none if the range is short.
    """
    choose = _FIRST_FILES.get(source)
    if choose is None or not exchange.archive_matches_api:
        return {}
    return exchange.archive.start_early(choose(series, partitions, now), partial(_read_file, exchange))


def unavailable(series: Series, partition: Partition, error: ExchangeError) -> PartitionResult:
    """Return the result of a partition that could not be fetched because of ``error``."""
    return PartitionResult(partition, error.policy.verdict, empty_candles(series.market), (), str(error))
