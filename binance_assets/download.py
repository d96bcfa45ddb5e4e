"""From periods to judged tables: plan, fetch, assemble, validate, prove. Knows no files and no Dagster.

exchange = Exchange(SPOT, read_settings(os.environ))
series = parse_series("spot/BTCUSDT/1m")
for day in download(exchange, series, periods_between(date(2024, 1, 1), date(2024, 2, 1), series.interval)):
    print(day.period, day.verdict, day.candles.height)
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import polars as pl

from binance_assets.candles.parsing import check_window, count_rows, csv_rows, empty_candles, parse_rows
from binance_assets.candles.validation import REST, Evidence, Judged, Origin, judge, outside_life
from binance_assets.exchange.archive import Unpacked
from binance_assets.exchange.budget import Stopped
from binance_assets.exchange.errors import ExchangeError
from binance_assets.exchange.exchange import Exchange
from binance_assets.exchange.files import (
    REQUESTS_PER_FILE,
    ArchiveFile,
    every_file,
    single_files,
    worthwhile_files,
)
from binance_assets.exchange.paging import Page, plan_pages
from binance_assets.periods import Period, over_at, spans
from binance_assets.proof import Memory, asked_again, gather
from binance_assets.reading import read_file, read_page
from binance_assets.series import Series
from binance_assets.settings import Source

SAFETY_MS: Final = 2_000
"""A candle counts as finished this long after its close, ms: the exchange may still be writing it."""

# About a month of 1m: a Pandera call costs the same up to this size.
_BLOCK_ROWS: Final = 45_000
# Pages may be empty or lost; so that days before a listing get their verdict too, they count as well.
_BLOCK_PAGES: Final = 200
_CHUNK_ROWS: Final = 600_000


def download(
    exchange: Exchange,
    series: Series,
    periods: Sequence[Period],
    source: Source = "rest",
    strict: bool = False,
    memory: Memory | None = None,
) -> Iterator[Judged]:
    """Fetch, judge and prove ``periods``, each exactly once.

    What cannot be had is refused with its reason, it never raises; the other periods go on. Memory is bounded by
    what is fetched ahead and one block of about 45,000 candles, however long the range. Of each year of 1m (or as
    many candles) first come days without a life, then those that one source settles, in order, then those that needed
    another; what is not over comes last.

    Args:
        exchange: The market of the series.
        series: What to fetch.
        periods: Ascending, without duplicates; they need not be contiguous.
        source: ``rest``, ``archive``, or ``auto`` for the archive where that takes fewer requests. Whichever it is, the
            other one is asked before a period counts as lost.
        strict: Whether to refuse periods whose sums differ from the exchange's own.
        memory: Where the first candles of series are remembered.

    Yields:
        A verdict for each period; accepted ones carry a table with the columns of
        :func:`binance_assets.candles.schema.columns`.

    Raises:
        Stopped: The exchange was closed meanwhile.
    """
    try:
        now = _now(exchange, source)
        finished = [period for period in periods if over_at(period, series.interval) <= now]
        evidence = gather(exchange, series, finished, now, strict, memory, archived=source != "rest")
    except ExchangeError as error:
        yield from (unavailable(series, period, error) for period in periods)
        return
    for chunk in _chunks(series, finished):
        for judged in _finished(_Task(exchange, series, evidence), chunk, source):
            if exchange.closed:
                raise Stopped
            yield judged
    for period in periods[len(finished) :]:
        yield Judged(period, "unfinished", empty_candles(series.market), (), "it is not over yet")


def _chunks(series: Series, periods: Sequence[Period]) -> Iterator[Sequence[Period]]:
    """The periods by about a year of 1m: doubtful tables are kept to the end of their chunk."""
    if not periods:
        return
    rows = max(1, (periods[0].end - periods[0].start) // series.interval.step)
    size = max(1, _CHUNK_ROWS // rows)
    for first in range(0, len(periods), size):
        yield periods[first : first + size]


def _now(exchange: Exchange, source: Source) -> int:
    """The time at which candles count as finished, ms UTC; the archive has one too, where the API serves nobody."""
    try:
        return exchange.now() - SAFETY_MS
    except ExchangeError:
        if source == "rest":
            raise
        return exchange.archive.now() - SAFETY_MS


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a download takes if nothing goes wrong, without the few requests for time, limit and sums.

    Attributes:
        requests: Requests, to the API and the archive.
        weight: Request weight.
        files: Files of the archive.
    """

    requests: int
    weight: int
    files: int


def forecast(series: Series, periods: Sequence[Period], source: Source, now: int) -> Forecast:
    """What it takes to bring ``periods`` from ``source`` at ``now``, ms UTC."""
    choose = {"rest": lambda *_: [], "auto": worthwhile_files, "archive": every_file}[source]
    files = choose(series, periods, now)
    held = {period for file in files for period in file.periods}
    pages = [] if source == "archive" else plan(series, [period for period in periods if period not in held])
    return Forecast(REQUESTS_PER_FILE * len(files) + len(pages), sum(page.weight for page in pages), len(files))


def plan(series: Series, periods: Sequence[Period]) -> list[Page]:
    """The requests that bring ``periods`` by REST."""
    return plan_pages(series.market, series.interval, spans(periods))


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
        choose: Of the functions of :mod:`binance_assets.exchange.files`.
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


@dataclass(frozen=True, slots=True)
class _Block:
    """Whole periods and all that was answered for them."""

    periods: list[Period]
    candles: pl.DataFrame
    errors: list[tuple[Page, ExchangeError]]


def _blocks(exchange: Exchange, series: Series, periods: Sequence[Period]) -> Iterator[_Block]:
    """Runs of whole periods. Pages are collected as they come, and read together: one call costs as much as forty."""
    answers: list[tuple[Page, bytes]] = []
    errors: list[tuple[Page, ExchangeError]] = []
    first, rows = 0, 0
    for page, outcome in exchange.stream(series, plan(series, periods), lambda _, body: csv_rows(body)):
        if isinstance(outcome, ExchangeError):
            errors.append((page, outcome))
        else:
            answers.append((page, outcome))
            rows += count_rows(outcome)
        if rows < _BLOCK_ROWS and len(answers) + len(errors) < _BLOCK_PAGES:
            continue
        end = bisect_right(periods, page.end, lo=first, key=lambda period: period.end)
        if end > first:
            yield _read_block(exchange, series, list(periods[first:end]), answers, errors)
            # The last pages may hold the beginning of the next period.
            judged = periods[end - 1].end
            answers = [(page, found) for page, found in answers if page.end > judged]
            errors = [(page, error) for page, error in errors if page.end > judged]
            first, rows = end, 0
    if first < len(periods):
        yield _read_block(exchange, series, list(periods[first:]), answers, errors)


def _read_block(
    exchange: Exchange,
    series: Series,
    periods: list[Period],
    answers: Sequence[tuple[Page, bytes]],
    errors: Sequence[tuple[Page, ExchangeError]],
) -> _Block:
    try:
        candles = parse_rows(series.market, b"".join(rows for _, rows in answers))
        if answers:
            check_window(candles, series.interval, answers[0][0].start, answers[-1][0].end)
        return _Block(periods, candles, list(errors))
    except ValueError:
        candles, lost = _read_page_by_page(exchange, series, answers)
        return _Block(periods, candles, [*errors, *lost])


def _read_page_by_page(
    exchange: Exchange, series: Series, answers: Sequence[tuple[Page, bytes]]
) -> tuple[pl.DataFrame, list[tuple[Page, ExchangeError]]]:
    """Find the pages that are not what was asked for, and ask for them again.

    Rows that stay odd are kept, so that they refuse the days that they belong to and no others.
    """
    frames: dict[Page, pl.DataFrame] = {}
    bad: list[Page] = []
    for page, rows in answers:
        try:
            frames[page] = parse_rows(series.market, rows)
            check_window(frames[page], series.interval, page.start, page.end)
        except ValueError:
            bad.append(page)

    lost: list[tuple[Page, ExchangeError]] = []
    for page, outcome in exchange.stream(series, bad, lambda page, body: read_page(series, page, body)):
        if not isinstance(outcome, ExchangeError):
            frames[page] = outcome
        elif page not in frames:
            lost.append((page, outcome))
    in_order = [frames[page] for page, _ in answers if page in frames]
    return pl.concat([empty_candles(series.market), *in_order]), lost


def _failed(block: _Block) -> dict[Period, ExchangeError]:
    failed: dict[Period, ExchangeError] = {}
    for page, error in block.errors:
        first = bisect_right(block.periods, page.start, key=lambda period: period.end)
        last = bisect_left(block.periods, page.end, key=lambda period: period.start)
        failed |= dict.fromkeys(block.periods[first:last], error)
    return failed


def unavailable(series: Series, period: Period, error: ExchangeError) -> Judged:
    """The verdict on a period that an error keeps from us."""
    return Judged(period, error.policy.verdict, empty_candles(series.market), (), str(error))
