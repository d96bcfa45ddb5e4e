"""Requests for partitions: which are requested, which of them are in the lake, which must be fetched."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from binance_assets.exchange.archive_files import REQUESTS_PER_FILE, all_files, cheaper_files
from binance_assets.exchange.session import Exchange
from binance_assets.ingest.blocks import plan_rest_pages
from binance_assets.ingest.download import SAFETY_MS
from binance_assets.model.intervals import Interval
from binance_assets.model.markets import Market
from binance_assets.model.partitions import (
    FIRST_DAY,
    Partition,
    last_finished_end,
    partition_first_day,
    partitions_between,
)
from binance_assets.model.series import Series
from binance_assets.model.timestamps import to_date
from binance_assets.settings import ConfigurationError, Source
from binance_assets.storage.lake import Lake, StoredPartition


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a download takes if nothing goes wrong, without the few requests for time, limit and control totals.

    Attributes:
        requests: Number of requests, to the API and to the archive.
        weight: Request weight.
        files: Number of files of the archive.
    """

    requests: int
    weight: int
    files: int


def forecast(series: Series, partitions: Sequence[Partition], source: Source, now: int) -> Forecast:
    """Return what it takes to fetch ``partitions`` (ascending) from ``source`` at ``now``, ms UTC."""
    choose_files = {"rest": lambda *_: [], "auto": cheaper_files, "archive": all_files}[source]
    files = choose_files(series, partitions, now)
    covered = {partition for file in files for partition in file.partitions}
    by_rest = [] if source == "archive" else [partition for partition in partitions if partition not in covered]
    pages = plan_rest_pages(series, by_rest)
    return Forecast(REQUESTS_PER_FILE * len(files) + len(pages), sum(page.weight for page in pages), len(files))


class BadRequest(ConfigurationError):
    """The requested dates are not valid; the message is one line that says how to fix them."""


@dataclass(frozen=True, slots=True)
class DownloadRequest:
    """What a user requests.

    Attributes:
        series: The series, all of one market; at least one.
        start: First day; None for that of the first candle.
        end: Day after the last one; None for the end of the last finished partition.
        refresh: Whether to fetch partitions again that are in the lake.
    """

    series: tuple[Series, ...]
    start: dt.date | None
    end: dt.date | None
    refresh: bool

    @property
    def market(self) -> Market:
        """The market of all series."""
        return self.series[0].market


@dataclass(frozen=True, slots=True)
class DownloadPlan:
    """What one series lacks.

    Attributes:
        series: The series.
        asked: All requested partitions, ascending.
        present: Those of them that are in the lake, with their files.
        missing: Those that must be fetched.
    """

    series: Series
    asked: tuple[Partition, ...]
    present: tuple[tuple[Partition, StoredPartition], ...]
    missing: tuple[Partition, ...]

    def forecast(self, source: Source) -> Forecast:
        """Return what it takes to fetch the missing partitions from ``source`` now."""
        return forecast(self.series, self.missing, source, int(time.time() * 1_000))


def check_dates(request: DownloadRequest) -> None:
    """Refuse dates that cannot be valid, before any request is sent.

    Raises:
        BadRequest: The message says which date is wrong, and why.
    """
    multi_day = next((series.interval for series in request.series if series.interval.is_multi_day), None)
    for option, day in (("--start", request.start), ("--end", request.end)):
        if day and multi_day and day.day != 1:
            raise BadRequest(f"{option} {day}: {multi_day} is kept by months, so give the first of a month")
    if request.start and request.start < FIRST_DAY:
        raise BadRequest(f"--start {request.start}: partitions begin on {FIRST_DAY}")
    if request.start and request.end and request.end <= request.start:
        raise BadRequest(f"--end {request.end} is not after --start {request.start}; the end is excluded")


def plan_request(
    request: DownloadRequest, lake: Lake, exchange: Exchange, known: Sequence[Series], source: Source
) -> list[DownloadPlan]:
    """Return what each series of ``request`` lacks.

    Requests are sent only for what cannot be known otherwise: the time, if a date is open or recent; the first
    candle, if no start is given; whether a symbol exists, if it was never tracked.

    Args:
        request: The request, with dates that passed :func:`check_dates`.
        lake: Where accepted partitions are.
        exchange: The market.
        known: Series whose symbols are known to exist.
        source: Where candles are to come from; with ``archive`` no symbol is looked up.

    Raises:
        BadRequest: A date is today or later by the server's clock, or there is nothing to fetch between the dates.
        ExchangeError: The exchange cannot be reached, or it has no such symbol.
        LakeError: The lake holds candles of another venue.
    """
    first_opens: dict[Series, int | None] = {}
    if request.start is None:
        first_opens = dict(
            exchange.map_concurrently(
                request.series, lambda series: lake.first_open(series) or exchange.symbols.first_open_time(series)
            )
        )
    plans = [_plan_series(request, series, lake, exchange, first_opens) for series in request.series]
    if any(plan.missing for plan in plans):
        lake.check_venue(exchange.venue)
    unknown = [plan.series for plan in plans if not plan.present and plan.series not in (*known, *first_opens)]
    if source == "archive":
        return plans
    for _ in exchange.map_concurrently(unknown, exchange.symbols.check_exists):
        pass
    return plans


def _plan_series(
    request: DownloadRequest,
    series: Series,
    lake: Lake,
    exchange: Exchange,
    first_opens: Mapping[Series, int | None],
) -> DownloadPlan:
    end = _end(request, series.interval, exchange)
    start = request.start or _first_day(series, first_opens[series])
    asked = tuple(partitions_between(start, end, series.interval)) if start else ()
    if not asked and (request.start or request.end):
        begins = f"begins on {start}" if start else "has no candles"
        raise BadRequest(f"nothing to fetch: {series} {begins}, and its last finished partition ends on {end}")
    stored = [(partition, lake.stored(series, partition)) for partition in asked]
    present = tuple((partition, found) for partition, found in stored if found is not None)
    missing = asked if request.refresh else tuple(partition for partition, found in stored if found is None)
    return DownloadPlan(series, asked, present, missing)


def _end(request: DownloadRequest, interval: Interval, exchange: Exchange) -> dt.date:
    if request.end and request.end < dt.datetime.now(dt.UTC).date() - dt.timedelta(days=2):
        return request.end  # in the past, however wrong this host's clock may be
    now = exchange.now()
    today = to_date(now)
    if request.end and request.end > today:
        raise BadRequest(f"--end {request.end} is later than today ({today}, UTC); the end is excluded")
    if request.start and request.start >= today:
        raise BadRequest(f"--start {request.start} is not before today ({today}, UTC)")
    return request.end or last_finished_end(now - SAFETY_MS, interval)


def _first_day(series: Series, first_open: int | None) -> dt.date | None:
    return None if first_open is None else max(FIRST_DAY, partition_first_day(to_date(first_open), series.interval))
