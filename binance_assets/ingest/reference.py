"""Gathers what a series' periods are held against: the exchange's own ``1d`` candles, and when the series lived."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final, Protocol

import polars as pl

from binance_assets.candles.columns import empty_candles
from binance_assets.completeness.control_totals import ControlTotals
from binance_assets.completeness.reference_data import ReferenceData, TradingSpan
from binance_assets.exchange.archive_files import all_files
from binance_assets.exchange.errors import ExchangeError, NoFile, UnknownSymbol
from binance_assets.exchange.pages import plan_pages
from binance_assets.exchange.session import Exchange
from binance_assets.ingest.blocks import read_file, read_page
from binance_assets.model.intervals import parse_interval
from binance_assets.model.partitions import Partition, partitions_between, spans
from binance_assets.model.series import Series
from binance_assets.model.timestamps import DAY, to_date, to_ms

_DAILY: Final = parse_interval("1d")


class ListingCache(Protocol):
    """Remembers when series begin, so that it is asked once."""

    def first_open(self, series: Series) -> int | None:
        """When the first candle of ``series`` opens, ms UTC; None where it was never asked."""

    def remember_first_open(self, series: Series, first: int) -> None:
        """Keep the answer."""


def load_reference(
    exchange: Exchange,
    series: Series,
    partitions: Sequence[Partition],
    now: int,
    strict: bool = False,
    listing_cache: ListingCache | None = None,
    archived: bool = False,
) -> ReferenceData:
    """The evidence for ``partitions``, in as few requests as it takes: one for up to 1000 days, seldom more.

    The books cover a day more at the front. Where they have it, the symbol was alive before and nobody has to be asked
    for its first candle; likewise its end is asked for only where the last day is not in the books.

    Args:
        exchange: The market.
        series: The series.
        partitions: Those to be judged, ascending, all over at ``now``.
        now: The server's time, ms UTC.
        strict: Whether periods whose sums differ are to be refused.
        listing_cache: Where first candles are remembered.
        archived: Whether the archive may stand in for an API that serves nobody here.

    Raises:
        ExchangeError: One that ends the run: nothing else could be had either.
        Cancelled: The exchange was closed.
    """
    if not partitions:
        return ReferenceData(now, ControlTotals(series.market), strict=strict)
    days = _days(series, partitions, now)
    try:
        control_totals = ControlTotals(series.market, _daily_candles(exchange, series, days))
    except ExchangeError as error:
        if isinstance(error, UnknownSymbol) or (error.policy.ends_run and not archived):
            raise
        try:
            control_totals = ControlTotals(series.market, _archived_days(exchange, series, days, now))
        except ExchangeError:
            if error.policy.ends_run:
                raise error from None
            return ReferenceData(now, ControlTotals(series.market), strict=strict, control_totals_error=str(error))
    trading_span = _trading_span(exchange, series, partitions, days, control_totals, listing_cache)
    reference = ReferenceData(now, control_totals, trading_span, strict)
    first, end = max(days[0][0] + DAY, trading_span.first or 0) // DAY * DAY, min(days[-1][1], trading_span.end or now)
    if any(control_totals.lacks_any(max(start + DAY, first), min(stop, end)) for start, stop in days):
        return reload_control_totals(exchange, series, partitions, reference)
    return reference


def reload_control_totals(
    exchange: Exchange, series: Series, partitions: Sequence[Partition], reference: ReferenceData
) -> ReferenceData:
    """The evidence with books that were asked once more for ``partitions``."""
    try:
        daily = _daily_candles(exchange, series, _days(series, partitions, reference.now))
    except ExchangeError:
        return reference
    return replace(reference, control_totals=reference.control_totals.merged_with(daily), control_totals_error="")


def _days(series: Series, partitions: Sequence[Partition], now: int) -> list[tuple[int, int]]:
    """The spans of days whose sums prove ``partitions``, ms UTC, ascending and disjoint; one more day at both ends shows
    whether the symbol was traded before and after."""
    longest = series.interval.step if series.interval.is_multi_day else 0
    wanted: list[tuple[int, int]] = []
    for start, end in spans(partitions):
        start, end = start - DAY, min(end + longest + DAY, now // DAY * DAY)
        if wanted and start <= wanted[-1][1]:
            start = wanted.pop()[0]
        wanted.append((start, end))
    return wanted


def _daily_candles(exchange: Exchange, series: Series, days: Sequence[tuple[int, int]]) -> pl.DataFrame:
    daily = Series(series.market, series.symbol, _DAILY)
    pages = plan_pages(series.market, _DAILY, days)
    found = (exchange.klines(daily, page, lambda page, body: read_page(daily, page, body)) for page in pages)
    return pl.concat([empty_candles(series.market), *found])


def _archived_days(exchange: Exchange, series: Series, days: Sequence[tuple[int, int]], now: int) -> pl.DataFrame:
    """The same from the archive, for those whom the API does not serve."""
    if not exchange.archive_matches_api:
        return empty_candles(series.market)
    daily = Series(series.market, series.symbol, _DAILY)
    first = max(to_date(days[0][0]), series.market.archived)
    wanted = partitions_between(first, to_date(days[-1][1]), _DAILY)
    files = all_files(daily, wanted, now)
    frames, absent = [empty_candles(series.market)], None
    for _, outcome in exchange.archive.stream(files, lambda file, found: read_file(exchange, file, found)):
        if isinstance(outcome, NoFile):
            absent = outcome  # a month before the listing, or a day that is late
        elif isinstance(outcome, ExchangeError):
            raise outcome
        else:
            frames.append(outcome)
    if absent is not None and len(frames) == 1:
        raise absent
    return pl.concat(frames)


def _trading_span(
    exchange: Exchange,
    series: Series,
    partitions: Sequence[Partition],
    days: Sequence[tuple[int, int]],
    control_totals: ControlTotals,
    listing_cache: ListingCache | None,
) -> TradingSpan:
    first, end, unknown = None, None, ""
    try:
        if not control_totals.has(days[0][0]):
            first = _first_open(exchange, series, control_totals, listing_cache)
            unknown = "" if first is not None else "it has none, as far as the exchange says"
    except ExchangeError as error:
        if error.policy.ends_run and not control_totals.daily.height:
            raise
        unknown = str(error)
    if not control_totals.has(days[-1][1] - DAY):
        with suppress(ExchangeError):  # a hole at the end is not accepted then
            end = exchange.symbols.final_close_time(series)
    if first is not None and first < partitions[0].start:
        first = None
    if end is not None and control_totals.last is not None and control_totals.last >= end:
        end = None  # it goes on in the books, so what was said of its end is wrong
    return TradingSpan(first, end, unknown)


def _first_open(
    exchange: Exchange, series: Series, control_totals: ControlTotals, listing_cache: ListingCache | None
) -> int | None:
    """When the first candle opens, ms UTC; None where nobody knows.

    An answer may have been short, and what is remembered may stem from one. So none is believed that the books
    contradict: days would silently count as before the listing.
    """
    known = listing_cache.first_open(series) if listing_cache else None
    if known is not None and _believable(series, control_totals, known):
        return known
    first = exchange.symbols.first_open_time(series)
    if first is None or not _believable(series, control_totals, first):
        return None
    if listing_cache:
        listing_cache.remember_first_open(series, first)
    return first


def _believable(series: Series, control_totals: ControlTotals, first: int) -> bool:
    opened = to_ms(series.market.opened) - (series.interval.step if series.interval.is_multi_day else 0)
    return first >= opened and (control_totals.first is None or control_totals.first >= first // DAY * DAY)
