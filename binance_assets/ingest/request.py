"""What a request still lacks: which periods are asked for, which are in the lake, which must be fetched."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from binance_assets.exchange.archive_files import (
    REQUESTS_PER_FILE,
    all_files,
    cheaper_files,
)
from binance_assets.exchange.session import Exchange
from binance_assets.ingest.blocks import plan
from binance_assets.ingest.download import SAFETY_MS
from binance_assets.model.intervals import Interval
from binance_assets.model.markets import Market
from binance_assets.model.partitions import (
    FIRST_DAY,
    Partition,
    first_day_of,
    last_finished_end,
    partitions_between,
)
from binance_assets.model.series import Series
from binance_assets.model.timestamps import to_date
from binance_assets.settings import ConfigurationError, Source
from binance_assets.storage.lake import Lake, StoredPartition


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


def forecast(series: Series, partitions: Sequence[Partition], source: Source, now: int) -> Forecast:
    """What it takes to bring ``partitions`` from ``source`` at ``now``, ms UTC."""
    choose = {"rest": lambda *_: [], "auto": cheaper_files, "archive": all_files}[source]
    files = choose(series, partitions, now)
    held = {partition for file in files for partition in file.partitions}
    pages = (
        [] if source == "archive" else plan(series, [partition for partition in partitions if partition not in held])
    )
    return Forecast(REQUESTS_PER_FILE * len(files) + len(pages), sum(page.weight for page in pages), len(files))


class BadRequest(ConfigurationError):
    """The dates asked for make no sense; the message is one line that names the way out."""


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody asked for.

    Attributes:
        series: The series, all of one market.
        start: First day; None for that of the first candle.
        end: Day after the last; None for the last period that is over.
        refresh: Whether to fetch again what is there.
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
        asked: Every period asked for, ascending.
        present: Those of them that are in the lake, with their files.
        missing: Those that must be fetched.
    """

    series: Series
    asked: tuple[Partition, ...]
    present: tuple[tuple[Partition, StoredPartition], ...]
    missing: tuple[Partition, ...]

    def forecast(self, source: Source) -> Forecast:
        """What it takes to bring what is missing from ``source``."""
        return forecast(self.series, self.missing, source, int(time.time() * 1_000))


def check_dates(request: Request) -> None:
    """Refuse dates that cannot be meant, before anybody is asked.

    Raises:
        BadRequest: The message says which date, and why.
    """
    for name, day in (("--start", request.start), ("--end", request.end)):
        coarse = next((one.interval for one in request.series if one.interval.is_multi_day), None)
        if day and coarse and day.day != 1:
            raise BadRequest(f"{name} {day}: {coarse} is kept by months, so give the first of a month")
    if request.start and request.start < FIRST_DAY:
        raise BadRequest(f"--start {request.start}: partitions begin on {FIRST_DAY}")
    if request.start and request.end and request.end <= request.start:
        raise BadRequest(f"--end {request.end} is not after --start {request.start}; the end is excluded")


def plan_request(
    request: Request, lake: Lake, exchange: Exchange, known: Sequence[Series], source: Source
) -> list[DownloadPlan]:
    """What each series of ``request`` lacks.

    The exchange is asked only for what cannot be known without it: the time, where dates are open or recent; the
    first candle, where no start is given; whether a symbol exists, where it was never tracked.

    Args:
        request: What is asked for; its dates were checked.
        lake: Where finished periods are.
        exchange: The market.
        known: Series whose symbols were proved to exist before.
        source: Where candles are to come from; for the archive alone no symbol is looked up.

    Raises:
        BadRequest: A date is today or later by the server's clock.
        ExchangeError: The exchange could not be asked, or does not know a symbol.
        LakeError: The lake holds candles of another venue.
    """
    opened: dict[Series, int | None] = {}
    if request.start is None:
        opened = dict(
            exchange.map_concurrently(
                request.series, lambda series: lake.first_open(series) or exchange.symbols.first_open_time(series)
            )
        )
    plans = [_plan_series(request, one, lake, exchange, opened) for one in request.series]
    if any(download_plan.missing for download_plan in plans):
        lake.check_venue(exchange.venue)
    unproved = [one.series for one in plans if not one.present and one.series not in (*known, *opened)]
    if source == "archive":
        return plans
    for _ in exchange.map_concurrently(unproved, exchange.symbols.check_exists):
        pass
    return plans


def _plan_series(
    request: Request, series: Series, lake: Lake, exchange: Exchange, opened: Mapping[Series, int | None]
) -> DownloadPlan:
    end = _end(request, series.interval, exchange)
    start = request.start or _first_day(series, opened[series])
    asked = tuple(partitions_between(start, end, series.interval)) if start else ()
    if not asked and (request.start or request.end):
        trading_span = f"begins on {start}" if start else "has no candles"
        raise BadRequest(
            f"nothing to fetch: {series} {trading_span}, and its last partition that is over ends on {end}"
        )
    found = [(partition, lake.stored(series, partition)) for partition in asked]
    present = tuple((partition, stored) for partition, stored in found if stored is not None)
    missing = asked if request.refresh else tuple(partition for partition, stored in found if stored is None)
    return DownloadPlan(series, asked, present, missing)


def _end(request: Request, interval: Interval, exchange: Exchange) -> dt.date:
    if request.end and request.end < dt.datetime.now(dt.UTC).date() - dt.timedelta(days=2):
        return request.end  # past by any clock
    now = exchange.now()
    today = to_date(now)
    if request.end and request.end > today:
        raise BadRequest(f"--end {request.end} is later than today ({today}, UTC); the end is excluded")
    if request.start and request.start >= today:
        raise BadRequest(f"--start {request.start} is not before today ({today}, UTC)")
    return request.end or last_finished_end(now - SAFETY_MS, interval)


def _first_day(series: Series, opened: int | None) -> dt.date | None:
    return None if opened is None else max(FIRST_DAY, first_day_of(to_date(opened), series.interval))
