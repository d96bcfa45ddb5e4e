"""From periods to judged tables: plan, fetch, assemble, validate. Knows no files and no Dagster.

exchange = Exchange(SPOT, read_settings(os.environ))
series = parse_series("spot/BTCUSDT/1m")
for day in download(exchange, series, periods_between(date(2024, 1, 1), date(2024, 2, 1), series.interval)):
    print(day.period, day.verdict, day.candles.height)
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from binance_assets.candles.parsing import check_window, count_rows, csv_rows, empty_candles, parse_rows
from binance_assets.candles.validation import Judged, judge
from binance_assets.exchange.budget import Stopped
from binance_assets.exchange.errors import ExchangeError
from binance_assets.exchange.exchange import Exchange
from binance_assets.exchange.paging import Page, plan_pages
from binance_assets.periods import Period, over_at, spans
from binance_assets.series import Series

SAFETY_MS: Final = 2_000
"""A candle counts as finished this long after its close, ms: the exchange may still be writing it."""

# About a month of 1m: a Pandera call costs the same up to this size.
_BLOCK_ROWS: Final = 45_000
# Pages may be empty or lost; so that days before a listing get their verdict too, they count as well.
_BLOCK_PAGES: Final = 200


def download(exchange: Exchange, series: Series, periods: Sequence[Period]) -> Iterator[Judged]:
    """Fetch and judge ``periods``, each exactly once, in order; those that are not over come last.

    What cannot be had is refused with its reason, it never raises; the other periods go on. Memory is bounded by
    what is fetched ahead and one block of about 45,000 candles, however long the range.

    Args:
        exchange: The market of the series.
        series: What to fetch.
        periods: Ascending, without duplicates; they need not be contiguous.

    Yields:
        A verdict for each period; accepted ones carry a table with the columns of
        :func:`binance_assets.candles.schema.columns`.

    Raises:
        Stopped: The exchange was closed meanwhile.
    """
    try:
        now = exchange.now() - SAFETY_MS
    except ExchangeError as error:
        yield from (unavailable(series, period, error) for period in periods)
        return
    finished = [period for period in periods if over_at(period, series.interval) <= now]
    for block in _blocks(exchange, series, finished):
        for judged in _judge_block(exchange, series, block, now):
            if exchange.closed:
                raise Stopped
            yield judged
    for period in periods[len(finished) :]:
        yield Judged(period, "unfinished", empty_candles(series.market), (), "it is not over yet")


def plan(series: Series, periods: Sequence[Period]) -> list[Page]:
    """The requests that bring ``periods``."""
    return plan_pages(series.market, series.interval, spans(periods))


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

    def read(page: Page, body: bytes) -> pl.DataFrame:
        frame = parse_rows(series.market, csv_rows(body))
        check_window(frame, series.interval, page.start, page.end)
        return frame

    lost: list[tuple[Page, ExchangeError]] = []
    for page, outcome in exchange.stream(series, bad, read):
        if not isinstance(outcome, ExchangeError):
            frames[page] = outcome
        elif page not in frames:
            lost.append((page, outcome))
    in_order = [frames[page] for page, _ in answers if page in frames]
    return pl.concat([empty_candles(series.market), *in_order]), lost


def _judge_block(exchange: Exchange, series: Series, block: _Block, now: int) -> Iterator[Judged]:
    failed = _failed(block)
    answered = [period for period in block.periods if period not in failed]
    judged = {one.period: one for one in judge(series, block.candles, answered, now)} if answered else {}
    doubtful = [one for one in judged.values() if one.verdict in ("lost", "invalid")]
    if doubtful:
        judged |= {again.period: again for again in _look_again(exchange, series, doubtful, now)}
    for period in block.periods:
        yield judged[period] if period in judged else unavailable(series, period, failed[period])


def _failed(block: _Block) -> dict[Period, ExchangeError]:
    failed: dict[Period, ExchangeError] = {}
    for page, error in block.errors:
        first = bisect_right(block.periods, page.start, key=lambda period: period.end)
        last = bisect_left(block.periods, page.end, key=lambda period: period.start)
        failed |= dict.fromkeys(block.periods[first:last], error)
    return failed


def _look_again(exchange: Exchange, series: Series, doubtful: Sequence[Judged], now: int) -> Iterator[Judged]:
    """Ask once more for periods with holes or nonsense; an answer may have been short only once."""
    before = {first.period: first for first in doubtful}
    for block in _blocks(exchange, series, list(before)):
        failed = _failed(block)
        answered = [period for period in block.periods if period not in failed]
        for second in judge(series, block.candles, answered, now) if answered else []:
            first = before[second.period]
            if first.verdict == second.verdict == "lost" and first.missing != second.missing:
                union = _union(first.candles, second.candles)
                yield judge(series, union, [second.period], now)[0]
            else:
                yield second


def _union(first: pl.DataFrame, second: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([first, second]).unique("open_time", keep="last").sort("open_time")


def unavailable(series: Series, period: Period, error: ExchangeError) -> Judged:
    """The verdict on a period that an error keeps from us."""
    return Judged(period, error.policy.verdict, empty_candles(series.market), (), str(error))
