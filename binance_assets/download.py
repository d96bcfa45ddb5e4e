"""From periods to judged tables: plan, fetch, assemble, validate. Knows no files and no Dagster.

exchange = Exchange(SPOT, read_settings(os.environ))
series = parse_series("spot/BTCUSDT/1m")
for day in download(exchange, series, periods_between(date(2024, 1, 1), date(2024, 2, 1), series.interval)):
    print(day.period, day.verdict, day.candles.height)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import polars as pl

from binance_assets.candles.parsing import check_page, empty_candles, parse_page
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
        yield from (_unavailable(series, period, error) for period in periods)
        return
    finished = [period for period in periods if over_at(period, series.interval) <= now]
    for block, candles, errors in _blocks(exchange, series, finished):
        for judged in _judge_block(exchange, series, block, candles, errors, now):
            if exchange.closed:
                raise Stopped
            yield judged
    for period in periods[len(finished) :]:
        yield Judged(period, "unfinished", empty_candles(series.market), (), "it is not over yet")


def plan(series: Series, periods: Sequence[Period]) -> list[Page]:
    """The requests that bring ``periods``."""
    return plan_pages(series.market, series.interval, spans(periods))


Block = tuple[list[Period], pl.DataFrame, list[tuple[Page, ExchangeError]]]


def _blocks(exchange: Exchange, series: Series, periods: Sequence[Period]) -> Iterator[Block]:
    """Runs of whole periods with all that was answered, and the pages that were not."""

    def read(page: Page, body: bytes) -> pl.DataFrame:
        frame = parse_page(series.market, body)
        check_page(frame, series.interval, page.start, page.end)
        return frame

    frames: list[pl.DataFrame] = []
    errors: list[tuple[Page, ExchangeError]] = []
    done = 0
    for page, outcome in exchange.stream(series, plan(series, periods), read):
        if isinstance(outcome, ExchangeError):
            errors.append((page, outcome))
        else:
            frames.append(outcome)
        if sum(frame.height for frame in frames) < _BLOCK_ROWS:
            continue
        ready = done
        while ready < len(periods) and periods[ready].end <= page.end:
            ready += 1
        if ready > done:
            candles = pl.concat(frames)
            yield list(periods[done:ready]), candles, errors
            # What lies behind the block belongs to a period that the next pages complete.
            rest = pl.col("open_time").to_physical() >= periods[ready - 1].end
            frames, errors = [candles.filter(rest)], errors[-1:]
            done = ready
    if done < len(periods):
        yield list(periods[done:]), pl.concat([empty_candles(series.market), *frames]), errors


def _judge_block(
    exchange: Exchange,
    series: Series,
    periods: Sequence[Period],
    candles: pl.DataFrame,
    errors: Sequence[tuple[Page, ExchangeError]],
    now: int,
) -> Iterator[Judged]:
    failed = {period: error for page, error in errors for period in periods if _overlap(page, period)}
    answered = [period for period in periods if period not in failed]
    judged = {verdict.period: verdict for verdict in judge(series, candles, answered, now)} if answered else {}
    doubtful = [period for period, verdict in judged.items() if verdict.verdict in ("lost", "invalid")]
    if doubtful:
        judged |= {again.period: again for again in _look_again(exchange, series, [judged[p] for p in doubtful], now)}
    for period in periods:
        yield judged[period] if period in judged else _unavailable(series, period, failed[period])


def _look_again(exchange: Exchange, series: Series, doubtful: Sequence[Judged], now: int) -> Iterator[Judged]:
    """Ask once more for periods with holes or nonsense; an answer may have been short only once."""
    periods = [first.period for first in doubtful]
    by_period = {first.period: first for first in doubtful}
    for block, candles, errors in _blocks(exchange, series, periods):
        failed = {period for page, _ in errors for period in block if _overlap(page, period)}
        for period in block:
            first = by_period[period]
            if period in failed:
                yield first
                continue
            second = judge(series, candles, [period], now)[0]
            if first.verdict == second.verdict == "lost":
                second = judge(series, _union(first.candles, second.candles), [period], now)[0]
            yield second


def _union(first: pl.DataFrame, second: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([first, second]).unique("open_time", keep="last").sort("open_time")


def _overlap(page: Page, period: Period) -> bool:
    return page.start < period.end and period.start < page.end


def _unavailable(series: Series, period: Period, error: ExchangeError) -> Judged:
    return Judged(period, error.policy.verdict, empty_candles(series.market), (), str(error))
