"""The chain of sources by which partitions are fetched, and which of two results is the better one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import polars as pl

from binance_assets.candles.columns import empty_candles
from binance_assets.completeness.reference_data import Evidence
from binance_assets.completeness.validation import judge, outside_life
from binance_assets.exchange.archive import Unpacked
from binance_assets.exchange.archive_files import (
    ArchiveFile,
    every_file,
    single_files,
    worthwhile_files,
)
from binance_assets.exchange.errors import ExchangeError
from binance_assets.exchange.session import Exchange
from binance_assets.ingest.blocks import _BLOCK_ROWS, _blocks, _failed, read_file
from binance_assets.ingest.reference import asked_again
from binance_assets.model.partitions import Period
from binance_assets.model.results import REST, Judged, Origin
from binance_assets.model.series import Series
from binance_assets.settings import Source


@dataclass(slots=True)
class _Task:
    """What a call of :func:`download` works with."""

    exchange: Exchange
    series: Series
    evidence: Evidence

    def judge(self, candles: pl.DataFrame, periods: Sequence[Period], origin: Origin = REST) -> list[Judged]:
        return judge(self.series, candles, periods, self.evidence, origin) if periods else []


Way = Callable[[_Task, Sequence[Period]], Iterator[Judged]]


"""One way to get at periods: yields a verdict on each."""


def _finished(task: _Task, periods: Sequence[Period], source: Source) -> Iterator[Judged]:
    """The verdicts on periods that are over: without a request where there was no life, then way after way.

    A period is settled with the first good verdict; one that is doubtful on every way gets the best of them.
    """
    left = []
    for period in periods:
        outside = outside_life(task.series, period, task.evidence.life)
        if outside is None:
            left.append(period)
        else:
            yield outside
    best: dict[Period, Judged] = {}
    for way, cares_for in _WAYS[source]:
        worth = [period for period in left if period not in best or cares_for(best[period])]
        for judged in way(task, worth) if worth else ():
            better = _better(task, best.get(judged.period), judged)
            best[judged.period] = better
            if better.accepted and not better.doubtful:
                yield best.pop(judged.period)
                left.remove(judged.period)
    yield from (best[period] for period in left)


def _better(task: _Task, first: Judged | None, second: Judged) -> Judged:
    """The better of two verdicts on a period, or that on what they have together."""
    if first is None:
        return second
    if second.accepted and not second.doubtful:
        return replace(second, reason=f"from {second.origin.told}, because of {first.origin.told}: {first.reason}")
    if first.missing and second.missing and first.missing != second.missing:
        both = pl.concat([first.candles, second.candles]).unique("open_time", keep="last").sort("open_time")
        sources = dict.fromkeys((first.origin.source, second.origin.source))
        file = first.origin if first.origin.file else second.origin
        (together,) = task.judge(both, [first.period], replace(file, source="+".join(sources)))
        if together.accepted and not together.doubtful:
            told = f"{first.origin.told} and {second.origin.told} together, each with candles that the other lacks"
            return replace(together, reason=f"from {told}")
        return min(first, second, together, key=_doubt)
    return min(first, second, key=_doubt)


# The better kind of verdict first; what is nearer to the exchange's own sums is better.
_RANKS: Final = (
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


def _doubt(judged: Judged) -> tuple[int, int]:
    """How little a verdict is worth; the first of equals is the better one."""
    rank = _RANKS.index(judged.verdict) if judged.verdict in _RANKS else len(_RANKS)
    return rank, sum(end - start for start, end in judged.missing)


def _by_rest(task: _Task, periods: Sequence[Period]) -> Iterator[Judged]:
    for block in _blocks(task.exchange, task.series, periods):
        failed = _failed(block)
        answered = [period for period in block.periods if period not in failed]
        judged = {one.period: one for one in task.judge(block.candles, answered)}
        for period in block.periods:
            yield judged[period] if period in judged else unavailable(task.series, period, failed[period])


def _by_rest_again(task: _Task, periods: Sequence[Period]) -> Iterator[Judged]:
    """A second look, at the books too: an answer may have been short only once."""
    task.evidence = asked_again(task.exchange, task.series, periods, task.evidence)
    yield from _by_rest(task, periods)


def _by_archive(choose: Callable[[Series, Sequence[Period], int], list[ArchiveFile]], only: bool = False) -> Way:
    """The way by those files of the archive that ``choose`` names.

    Args:
        choose: Of the functions of :mod:`binance_assets.exchange.archive_files`.
        only: Whether there is no other way for periods that have no file: they are then told.
    """

    def way(task: _Task, periods: Sequence[Period]) -> Iterator[Judged]:
        files = choose(task.series, periods, task.evidence.now) if task.exchange.archive_fits else []
        held: list[tuple[ArchiveFile, Origin, pl.DataFrame]] = []
        for file, outcome in task.exchange.archive.stream(files, lambda file, found: _read_file(task, file, found)):
            if isinstance(outcome, ExchangeError):
                for period in file.periods:
                    yield replace(unavailable(task.series, period, outcome), origin=Origin("archive", file.name))
                continue
            held.append((file, *outcome))
            if sum(frame.height for _, _, frame in held) >= _BLOCK_ROWS:
                yield from _judge_files(task, held)
                held = []
        yield from _judge_files(task, held)
        if only:
            covered = {period for file in files for period in file.periods}
            for period in periods:
                if period not in covered:
                    reason = "the archive has no file of it, or not yet"
                    if not task.exchange.archive_fits:
                        reason = "the archive is Binance's own and the API is not; set BINANCE_ARCHIVE_URL"
                    yield Judged(period, "unreachable", empty_candles(task.series.market), (), reason)

    return way


def _read_file(task: _Task, file: ArchiveFile, unpacked: Unpacked) -> tuple[Origin, pl.DataFrame]:
    origin = Origin("archive", file.name, unpacked.sha256, unpacked.modified)
    return origin, read_file(task.exchange, file, unpacked)


def _judge_files(task: _Task, held: Sequence[tuple[ArchiveFile, Origin, pl.DataFrame]]) -> Iterator[Judged]:
    if not held:
        return
    origins = {period: origin for file, origin, _ in held for period in file.periods}
    candles = pl.concat([frame for _, _, frame in held])
    for judged in task.judge(candles, sorted(origins)):
        yield replace(judged, origin=origins[judged.period])


def _any(judged: Judged) -> bool:
    return True


def _doubtful(judged: Judged) -> bool:
    return judged.doubtful


def _doubtful_or_unreachable(judged: Judged) -> bool:
    return judged.doubtful or judged.verdict == "unreachable"


# By which ways, in which order, and for which of the verdicts so far each of them is worth it.
_WAYS: Final[dict[Source, tuple[tuple[Way, Callable[[Judged], bool]], ...]]] = {
    "rest": ((_by_rest, _any), (_by_rest_again, _doubtful), (_by_archive(single_files), _doubtful)),
    "auto": (
        (_by_archive(worthwhile_files), _any),
        (_by_rest, _any),
        (_by_rest_again, _doubtful),
        (_by_archive(single_files), _doubtful_or_unreachable),
    ),
    "archive": ((_by_archive(every_file, only=True), _any), (_by_archive(single_files), _any), (_by_rest, _doubtful)),
}


def unavailable(series: Series, period: Period, error: ExchangeError) -> Judged:
    """The verdict on a period that an error keeps from us."""
    return Judged(period, error.policy.verdict, empty_candles(series.market), (), str(error))
