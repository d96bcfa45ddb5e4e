"""Loading of reference data: the exchange's own ``1d`` candles, and when the series begins and ends."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import polars as pl

from binance_assets.candles.columns import empty_candles
from binance_assets.completeness.control_totals import ControlTotals
from binance_assets.completeness.reference_data import ReferenceData, TradingSpan
from binance_assets.exchange.archive_files import all_files
from binance_assets.exchange.errors import ExchangeError, NoFile, UnknownSymbol
from binance_assets.exchange.pages import plan_pages
from binance_assets.exchange.session import Exchange
from binance_assets.ingest.blocks import read_file, read_page
from binance_assets.ingest.options import DownloadOptions, ListingCache
from binance_assets.model.intervals import DAILY
from binance_assets.model.partitions import Partition, merge_ranges, partitions_between
from binance_assets.model.series import Series
from binance_assets.model.timestamps import DAY, to_date, to_ms


def load_reference(
    exchange: Exchange, series: Series, partitions: Sequence[Partition], now: int, options: DownloadOptions
) -> ReferenceData:
    """Load the reference data for ``partitions`` in as few requests as possible: one for up to 1000 days, rarely more.

    The control totals cover one day before the first partition. If that day has a candle, the symbol was traded before,
    and the first candle is not requested. In the same way, the end is requested only if the last day has no candle.

    Args:
        exchange: The market.
        series: The series.
        partitions: The partitions to validate, ascending, all finished at ``now``.
        now: The server time, ms UTC.
        options: How the partitions are fetched and validated.

    Raises:
        ExchangeError: An error that ends the run, because no other request can succeed either.
        Cancelled: The exchange was closed.
    """
    if not partitions:
        return ReferenceData(now, ControlTotals(series.market), strict=options.strict)
    days = _days(series, partitions, now)
    try:
        control_totals = ControlTotals(series.market, _daily_candles(exchange, series, days))
    except ExchangeError as error:
        if isinstance(error, UnknownSymbol) or (error.policy.ends_run and not options.uses_archive):
            raise
        try:
            control_totals = ControlTotals(series.market, _archived_daily_candles(exchange, series, days, now))
        except ExchangeError:
            if error.policy.ends_run:
                raise error from None
            return ReferenceData(
                now, ControlTotals(series.market), strict=options.strict, control_totals_error=str(error)
            )
    trading_span = _trading_span(exchange, series, partitions, days, control_totals, options.listing_cache)
    reference = ReferenceData(now, control_totals, trading_span, options.strict)
    if not _covers_trading(reference, days):
        return reload_control_totals(exchange, series, partitions, reference)
    return reference


def _covers_trading(reference: ReferenceData, days: Sequence[tuple[int, int]]) -> bool:
    """Return whether the control totals have every one of ``days`` on which the series was traded."""
    trading_span = reference.trading_span
    first = max(days[0][0] + DAY, trading_span.first or 0) // DAY * DAY
    end = min(days[-1][1], trading_span.end or reference.now)
    return all(reference.control_totals.covers(max(start + DAY, first), min(stop, end)) for start, stop in days)


def reload_control_totals(
    exchange: Exchange, series: Series, partitions: Sequence[Partition], reference: ReferenceData
) -> ReferenceData:
    """Return the reference data with control totals that were fetched again for ``partitions``."""
    try:
        daily = _daily_candles(exchange, series, _days(series, partitions, reference.now))
    except ExchangeError:
        return reference
    return replace(reference, control_totals=reference.control_totals.merged_with(daily), control_totals_error=None)


def _days(series: Series, partitions: Sequence[Partition], now: int) -> list[tuple[int, int]]:
    """Return the ranges of days whose totals prove ``partitions``, ms UTC, ascending and disjoint.

    One more day at both ends shows whether the symbol was traded before and after.
    """
    overhang = series.interval.step if series.interval.is_multi_day else 0  # of the last candle over the partition
    ranges: list[tuple[int, int]] = []
    for start, end in merge_ranges(partitions):
        start, end = start - DAY, min(end + overhang + DAY, now // DAY * DAY)
        if ranges and start <= ranges[-1][1]:
            start = ranges.pop()[0]
        ranges.append((start, end))
    return ranges


def _daily_candles(exchange: Exchange, series: Series, days: Sequence[tuple[int, int]]) -> pl.DataFrame:
    """Return the ``1d`` candles of the symbol that open in ``days``, ascending, by REST."""
    daily = Series(series.market, series.symbol, DAILY)
    pages = plan_pages(series.market, DAILY, days)
    frames = (exchange.klines(daily, page, lambda page, body: read_page(daily, page, body)) for page in pages)
    return pl.concat([empty_candles(series.market), *frames])


def _archived_daily_candles(
    exchange: Exchange, series: Series, days: Sequence[tuple[int, int]], now: int
) -> pl.DataFrame:
    """Return the same candles from the archive, for locations that the API does not serve."""
    if not exchange.archive_matches_api:
        return empty_candles(series.market)
    daily = Series(series.market, series.symbol, DAILY)
    first = max(to_date(days[0][0]), series.market.archived)
    files = all_files(daily, partitions_between(first, to_date(days[-1][1]), DAILY), now)
    frames, no_file = [empty_candles(series.market)], None
    for _, outcome in exchange.archive.stream(files, lambda file, content: read_file(exchange, file, content)):
        if isinstance(outcome, NoFile):
            no_file = outcome  # a month before the listing, or a day whose file is late
        elif isinstance(outcome, ExchangeError):
            raise outcome
        else:
            frames.append(outcome)
    if no_file is not None and len(frames) == 1:
        raise no_file
    return pl.concat(frames)


def _trading_span(
    exchange: Exchange,
    series: Series,
    partitions: Sequence[Partition],
    days: Sequence[tuple[int, int]],
    control_totals: ControlTotals,
    listing_cache: ListingCache | None,
) -> TradingSpan:
    """Return when the series begins and ends, requesting only what the control totals of ``days`` do not show.

    Raises:
        ExchangeError: An error that ends the run, while there are no control totals either.
    """
    first, end, unknown_because = None, None, None
    try:
        if not control_totals.has_day(days[0][0]):
            first = _first_open(exchange, series, control_totals, listing_cache)
            unknown_because = None if first is not None else "the exchange reports no first candle"
    except ExchangeError as error:
        if error.policy.ends_run and not control_totals.daily.height:
            raise
        unknown_because = str(error)
    if not control_totals.has_day(days[-1][1] - DAY):
        with suppress(ExchangeError):  # without a known end, a gap at the end of a partition is not accepted
            end = exchange.symbols.final_close_time(series)
    if first is not None and first < partitions[0].start:
        first = None
    if end is not None and control_totals.extends_to(end):
        end = None  # the control totals show later trading, so the reported end is wrong
    return TradingSpan(first, end, unknown_because)


def _first_open(
    exchange: Exchange, series: Series, control_totals: ControlTotals, listing_cache: ListingCache | None
) -> int | None:
    """Return when the first candle opens, ms UTC; None if it is unknown.

    A response may have been incomplete, and the cache may hold a time from such a response. So a time that the control
    totals contradict is ignored: with it, traded days would silently count as before the listing.
    """
    cached = listing_cache.first_open(series) if listing_cache else None
    if cached is not None and _is_plausible(series, control_totals, cached):
        return cached
    first = exchange.symbols.first_open_time(series)
    if first is None or not _is_plausible(series, control_totals, first):
        return None
    if listing_cache:
        listing_cache.remember_first_open(series, first)
    return first


def _is_plausible(series: Series, control_totals: ControlTotals, first: int) -> bool:
    """Return whether ``first`` (ms UTC) is neither before the market opened nor later than the first control total."""
    opened = to_ms(series.market.opened) - (series.interval.step if series.interval.is_multi_day else 0)
    return first >= opened and (control_totals.first is None or control_totals.first >= first // DAY * DAY)
