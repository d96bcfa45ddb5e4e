"""Suspensions: whole days on which a symbol was not traded, although it was traded before and after.

Binance delists symbols and lists them again: USDC pairs from 2022-09-29 to 2023-03-12 (binance-public-data, issue 415),
Terra in May 2022. A day counts as suspended only if neither source has a candle of it, neither ``1d`` nor of the series
itself, and a ``1d`` candle shows trading before and after it. For ``3d``, ``1w`` and ``1M``, whose candles may hold the
trades of other days as well, the ``1h`` candles show the gap. Only days without a ``1d`` candle are looked at, in a few
requests for each gap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

import polars as pl

from binance_assets.completeness.reference_data import ReferenceData
from binance_assets.exchange.archive_files import all_files, probes
from binance_assets.exchange.errors import ExchangeError, NoFile
from binance_assets.exchange.session import Exchange
from binance_assets.ingest.blocks import read_file
from binance_assets.ingest.daily import daily_series, day_partitions, merge_days
from binance_assets.model.intervals import parse_interval
from binance_assets.model.series import Series
from binance_assets.model.timestamps import DAY

_HOURLY: Final = parse_interval("1h")
# Requests for a candle in a gap. Each one that finds a candle cuts the gap in two.
_MOST_PROBES: Final = 12


def with_suspensions(
    exchange: Exchange,
    series: Series,
    empty: Sequence[int],
    reference: ReferenceData,
    first_open: Callable[[], int | None],
) -> ReferenceData:
    """Return the reference data with those of the days without a ``1d`` candle on which trading was suspended.

    Args:
        exchange: The market.
        series: The series.
        empty: The days of which neither source has a ``1d`` candle, ms UTC, ascending.
        reference: The reference data.
        first_open: Requests the open time of the first candle of the series, ms UTC; None if it is unknown.

    Raises:
        Cancelled: The exchange was closed.
    """
    suspended = set[int]()
    try:
        for gap in merge_days(empty):
            if _traded_before(gap, reference, first_open) and _traded_after(exchange, series, gap, reference):
                if _has_longer_candle(exchange, series, gap):
                    continue
                probed = Series(series.market, series.symbol, _HOURLY) if series.interval.is_multi_day else series
                by_rest = _empty_by_rest(exchange, probed, gap)
                suspended.update(_empty_in_archive(exchange, probed, by_rest, reference.now))
    except ExchangeError:  # what cannot be proved is not claimed; the days are fetched like all others
        pass
    return replace(reference, control_totals=reference.control_totals.with_suspended(suspended))


def _traded_before(gap: tuple[int, int], reference: ReferenceData, first_open: Callable[[], int | None]) -> bool:
    """Return whether the symbol was traded before the gap; request its first candle if the totals do not show it.

    Raises:
        ExchangeError: The request failed.
    """
    known = reference.control_totals.first
    if known is not None and known < gap[0]:
        return True
    first = first_open()
    return first is not None and first < gap[0]


def _traded_after(exchange: Exchange, series: Series, gap: tuple[int, int], reference: ReferenceData) -> bool:
    """Return whether the symbol was traded after the gap; asks for a candle if the control totals do not show it.

    Raises:
        ExchangeError: The request failed.
    """
    if reference.control_totals.extends_to(gap[1]):
        return True
    end = reference.now // DAY * DAY
    return gap[1] < end and exchange.symbols.open_time_between(daily_series(series), gap[1], end) is not None


def _has_longer_candle(exchange: Exchange, series: Series, gap: tuple[int, int]) -> bool:
    """Return whether the series has candles longer than a day, and one of them lies within the gap.

    A candle that reaches into the gap from outside may hold the trades of other days.

    Raises:
        ExchangeError: The request failed.
    """
    start, end = gap[0], gap[1] - series.interval.step + 1
    if not series.interval.is_multi_day or start >= end:
        return False
    return exchange.symbols.open_time_between(series, start, end) is not None


def _empty_by_rest(exchange: Exchange, series: Series, gap: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the parts of the gap, in whole days, of which the API has no candle of the series.

    Raises:
        ExchangeError: A request failed.
    """
    empty, pending = [], [gap]
    for _ in range(_MOST_PROBES):
        if not pending:
            break
        start, end = pending.pop()
        found = exchange.symbols.open_time_between(series, start, end)
        if found is None:
            empty.append((start, end))
        else:
            day = found // DAY * DAY
            pending += [part for part in ((start, day), (day + DAY, end)) if part[0] < part[1]]
    return sorted(empty)


def _empty_in_archive(exchange: Exchange, series: Series, gaps: Iterable[tuple[int, int]], now: int) -> set[int]:
    """Return the days of ``gaps`` of which the archive has no candle of the series.

    Raises:
        ExchangeError: A file could not be read.
    """
    days = day_partitions(gaps)
    traded = set[int]()
    files = all_files(series, days, now)
    files = [*(file for file in files if file.monthly), *probes([file for file in files if not file.monthly])]
    for _, outcome in exchange.archive.stream(files, lambda file, content: read_file(exchange, file, content)):
        if isinstance(outcome, pl.DataFrame):
            traded |= {time // DAY * DAY for time in outcome["open_time"].to_physical()}
        elif not isinstance(outcome, NoFile):
            raise outcome
    return {day.start for day in days} - traded
