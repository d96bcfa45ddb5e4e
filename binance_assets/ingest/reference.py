"""Loading of reference data: the exchange's own ``1d`` candles, and when the series begins and ends."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from binance_assets.completeness.control_totals import ControlTotals
from binance_assets.completeness.reference_data import ReferenceData, TradingSpan
from binance_assets.exchange.errors import ExchangeError, UnknownSymbol
from binance_assets.exchange.session import Exchange
from binance_assets.exchange.symbols import delivery_time
from binance_assets.ingest.archived_span import archived_close, archived_first_open, is_archived
from binance_assets.ingest.daily import DailyCandles, daily_from_archive, daily_from_rest, merge_days
from binance_assets.ingest.options import DownloadOptions
from binance_assets.ingest.suspensions import with_suspensions
from binance_assets.model.partitions import Partition, merge_ranges
from binance_assets.model.series import Series
from binance_assets.model.timestamps import DAY, to_ms


def load_reference(
    exchange: Exchange, series: Series, partitions: Sequence[Partition], now: int, options: DownloadOptions
) -> ReferenceData:
    """Load the reference data for ``partitions`` in as few requests as possible: one for up to 1000 days, rarely more.

    The control totals cover one day before the first partition. If that day has a candle, the symbol was traded before,
    and the first candle is not requested. In the same way, the end is requested only if the last day has no candle.

    Days of trading whose ``1d`` candle the response lacks, or has in a row that breaks a rule, are requested once more,
    and then taken from the archive.

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
        return ReferenceData(now, ControlTotals(), strict=options.strict)
    days = _days(series, partitions, now)
    daily, archived_days, rest_error = _load_daily(exchange, series, days, now, options)
    if daily.failure is not None and not daily.failure.policy.ends_run:
        error = str(daily.failure)
        return ReferenceData(now, ControlTotals(), strict=options.strict, control_totals_error=error)
    control_totals = ControlTotals(daily.totals)
    trading_span = _trading_span(exchange, series, partitions, days, control_totals, bool(daily.errors), now, options)
    reference = ReferenceData(
        now,
        control_totals,
        trading_span,
        options.strict,
        daily_errors=daily.errors,
        archived_days=archived_days,
        rest_error=rest_error,
    )
    if daily.failure is not None:  # the archive has been asked about all days already
        return reference
    return _with_missing_days(exchange, series, days, reference, options)


def _load_daily(
    exchange: Exchange, series: Series, days: Sequence[tuple[int, int]], now: int, options: DownloadOptions
) -> tuple[DailyCandles, frozenset[int], str | None]:
    """Return the ``1d`` candles of ``days``, from the archive where the API fails.

    Returns:
        The candles, with the API's error if it ends the run, or if no source has candles; the days whose candles come
        from the archive, ms UTC; and why the API does not know the symbol, None if it does.

    Raises:
        ExchangeError: The API's error, if it ends the run and the archive cannot replace the API.
    """
    daily = daily_from_rest(exchange, series, days)
    error = daily.failure
    if error is None:
        return daily, frozenset(), None
    if error.policy.ends_run and not options.uses_archive:
        raise error
    archived = daily_from_archive(exchange, series, merge_days(daily.errors), now)
    unknown = str(error) if isinstance(error, UnknownSymbol) else None
    if not archived.totals and not _has_damaged_file(archived):
        if error.policy.ends_run and not _exists_in_archive(exchange, series, error, now):
            raise error
        if not daily.totals and unknown is None:
            return daily, frozenset(), None
    no_row = f"the archive has no 1d candle of this day, and the API has none either: {error}"
    errors = {day: archived.errors.get(day, no_row) for day in daily.errors}
    replaced = replace(daily, errors=errors, failure=error if error.policy.ends_run else None)
    return replaced.updated(replace(archived, failure=None)), archived.days, unknown


def _exists_in_archive(exchange: Exchange, series: Series, error: ExchangeError, now: int) -> bool:
    """Return whether the archive has the symbol, although it has no ``1d`` candle of the requested days.

    A symbol other than a delivery contract is looked up only if the API does not know it (``error``), because this
    takes a request for each month.
    """
    if not exchange.archive_matches_api or not (
        isinstance(error, UnknownSymbol) or delivery_time(series.symbol) is not None
    ):
        return False
    try:
        return is_archived(exchange, series, now)
    except ExchangeError:
        return False


def _has_damaged_file(archived: DailyCandles) -> bool:
    """Return whether the archive responded with files that cannot be read, so that the symbol exists there."""
    return archived.failure is not None and archived.failure.policy.verdict == "invalid"


def _with_missing_days(
    exchange: Exchange,
    series: Series,
    days: Sequence[tuple[int, int]],
    reference: ReferenceData,
    options: DownloadOptions,
) -> ReferenceData:
    """Return the reference data with the days of trading that it lacks, as far as another request explains them."""
    missing = _missing_days(reference, days)
    if missing:
        reference = updated_reference(
            reference, daily_from_rest(exchange, series, merge_days(missing)), is_archive=False
        )
        missing = _missing_days(reference, days)
    if not missing:
        return reference
    archived = daily_from_archive(exchange, series, merge_days(missing), reference.now)
    unknown = archived.days | reference.daily_errors.keys() | (archived.errors.keys() - archived.absent)
    # Where the API responded without a candle, a missing file is no reason: then the day has no candle.
    no_file = archived.absent - reference.daily_errors.keys()
    errors = {day: error for day, error in archived.errors.items() if day not in no_file}
    reference = updated_reference(reference, replace(archived, errors=errors), is_archive=True)
    empty = [day for day in missing if day not in unknown and day >= to_ms(series.market.archived)]
    if not empty or not exchange.archive_matches_api:
        return reference

    def first_open() -> int | None:
        return _first_open(exchange, series, reference.control_totals, reference.now, options)

    return with_suspensions(exchange, series, empty, reference, first_open)


def _missing_days(reference: ReferenceData, days: Sequence[tuple[int, int]]) -> list[int]:
    """Return those of ``days`` on which the series was traded, as far as known, and that have no ``1d`` candle."""
    trading_span, has_day = reference.trading_span, reference.control_totals.has_day
    first = max(days[0][0] + DAY, trading_span.first or 0) // DAY * DAY
    last_end = min(days[-1][1], trading_span.end or reference.now)
    return [
        day
        for start, stop in days
        for day in range(max(start + DAY, first), min(stop, last_end), DAY)
        if not has_day(day)
    ]


def updated_reference(reference: ReferenceData, daily: DailyCandles, is_archive: bool) -> ReferenceData:
    """Return the reference data with newer ``1d`` candles."""
    known, received = reference.control_totals, daily.days
    errors = {day: error for day, error in {**reference.daily_errors, **daily.errors}.items() if day not in received}
    archived = reference.archived_days | received if is_archive else reference.archived_days - received
    return replace(
        reference,
        control_totals=known.merged_with(daily.totals),
        control_totals_error=None if received else reference.control_totals_error,
        daily_errors={day: error for day, error in errors.items() if not known.has_day(day)},
        archived_days=archived,
    )


def reload_control_totals(
    exchange: Exchange, series: Series, partitions: Sequence[Partition], reference: ReferenceData
) -> ReferenceData:
    """Return the reference data with control totals that were fetched again for ``partitions``."""
    daily = daily_from_rest(exchange, series, _days(series, partitions, reference.now))
    return updated_reference(reference, daily, is_archive=False)


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


def _trading_span(
    exchange: Exchange,
    series: Series,
    partitions: Sequence[Partition],
    days: Sequence[tuple[int, int]],
    control_totals: ControlTotals,
    is_replaced: bool,
    now: int,
    options: DownloadOptions,
) -> TradingSpan:
    """Return when the series begins and ends, requesting only what the control totals of ``days`` do not show.

    Args:
        exchange: The market.
        series: The series.
        partitions: The partitions to validate.
        days: The ranges of days that were requested.
        control_totals: The control totals of these days.
        is_replaced: Whether the archive replaces the API, so that an error of the API does not end the run.
        now: The server time, ms UTC.
        options: How the partitions are fetched and validated.

    Raises:
        ExchangeError: An error that ends the run, while there are no control totals either.
    """
    first, end, unknown_because = None, None, None
    try:
        if not control_totals.has_day(days[0][0]):
            first = _first_open(exchange, series, control_totals, now, options)
            unknown_because = None if first is not None else "the exchange reports no first candle"
    except ExchangeError as error:
        if error.policy.ends_run and control_totals.first is None and not is_replaced:
            raise
        unknown_because = str(error)
    if not control_totals.has_day(days[-1][1] - DAY):
        with suppress(ExchangeError):  # without a known end, a gap at the end of a partition is not accepted
            end = _final_close(exchange, series, control_totals, now, options)
    if first is not None and first < partitions[0].start:
        first = None
    if end is not None and control_totals.extends_to(end):
        end = None  # the control totals show later trading, so the reported end is wrong
    return TradingSpan(first, end, unknown_because)


def _final_close(
    exchange: Exchange, series: Series, control_totals: ControlTotals, now: int, options: DownloadOptions
) -> int | None:
    """Return when trading of the series ended, ms UTC, from the archive if the API cannot report it.

    Returns:
        The time; None if trading goes on, or if the end is unknown.

    Raises:
        ExchangeError: Neither source could report it.
    """
    try:
        return exchange.symbols.final_close_time(series)
    except ExchangeError as error:
        if not options.uses_archive or not error.policy.ends_run or not exchange.archive_matches_api:
            raise
        return archived_close(exchange, series, control_totals.last, now)


def _first_open(
    exchange: Exchange, series: Series, control_totals: ControlTotals, now: int, options: DownloadOptions
) -> int | None:
    """Return when the first candle opens, ms UTC; None if it is unknown.

    A response may have been incomplete, and the cache may hold a time from such a response. So a time that the control
    totals contradict is ignored: with it, traded days would silently count as before the listing.

    Raises:
        ExchangeError: The request failed.
    """
    cached = options.listing_cache.first_open(series) if options.listing_cache else None
    if cached is not None and _is_plausible(series, control_totals, cached):
        return cached
    try:
        first = exchange.symbols.first_open_time(series)
    except ExchangeError as error:
        # No source will ever know more about these than the archive does. Other symbols are not looked up, because it
        # would take a request for each month of the archive.
        is_bounded = isinstance(error, UnknownSymbol) or delivery_time(series.symbol) is not None
        if not (is_bounded and error.policy.ends_run and options.uses_archive and exchange.archive_matches_api):
            raise
        first = archived_first_open(exchange, series, now)
    if first is None or not _is_plausible(series, control_totals, first):
        return None
    if options.listing_cache:
        options.listing_cache.remember_first_open(series, first)
    return first


def _is_plausible(series: Series, control_totals: ControlTotals, first: int) -> bool:
    """Return whether ``first`` (ms UTC) is neither before the market opened nor later than the first control total."""
    opened = to_ms(series.market.opened) - (series.interval.step if series.interval.is_multi_day else 0)
    return first >= opened and (control_totals.first is None or control_totals.first >= first // DAY * DAY)
