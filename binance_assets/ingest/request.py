"""Requests of users: which partitions are requested, which of them are in the lake, which must be fetched."""

from __future__ import annotations

import datetime as dt
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import polars as pl

from binance_assets.exchange.archive_files import (
    REQUESTS_PER_FILE,
    all_files,
    cheaper_files,
    monthly_files,
    partitions_outside,
)
from binance_assets.exchange.errors import ExchangeError, UnknownSymbol, refuses_location
from binance_assets.exchange.session import Exchange
from binance_assets.exchange.symbols import delivery_time
from binance_assets.ingest.archived_span import LONGEST_CONTRACT, archived_first_open, is_archived
from binance_assets.ingest.blocks import plan_rest_pages
from binance_assets.ingest.daily import daily_series
from binance_assets.ingest.download import SAFETY_MS
from binance_assets.ingest.market_symbols import why_unknown
from binance_assets.model.intervals import DAILY, Interval
from binance_assets.model.markets import Market
from binance_assets.model.partitions import (
    FIRST_DAY,
    Partition,
    last_finished_end,
    next_partition_first_day,
    partition_first_day,
    partitions_between,
)
from binance_assets.model.series import Series
from binance_assets.model.timestamps import DAY, to_date, to_ms
from binance_assets.settings import ConfigurationError, Source
from binance_assets.storage.file_index import stored_in
from binance_assets.storage.lake import Lake

# How often the archive is searched for the first and the last day of a symbol, and how many files of single days are
# looked up each time because their month has no file yet.
_LOOKS: Final = 2
_DAYS_WITHOUT_MONTH: Final = 40


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a download costs if nothing fails, without the few requests for time, limit and control totals.

    Attributes:
        requests: Number of requests, to the API and to the archive.
        weight: Request weight.
        files: Number of files of the archive.
        is_bound: Whether these are the most that there can be, because the archive is searched for what it has.
    """

    requests: int
    weight: int
    files: int
    is_bound: bool = False


def forecast(series: Series, partitions: Sequence[Partition], source: Source, now: int) -> Forecast:
    """Return what fetching ``partitions`` (ascending) from ``source`` costs at ``now``, ms UTC."""
    choose_files = {"rest": lambda *_: [], "auto": cheaper_files, "archive": all_files}[source]
    files = choose_files(series, partitions, now)
    by_rest = [] if source == "archive" else partitions_outside(files, partitions)
    pages = plan_rest_pages(series, by_rest)
    return Forecast(REQUESTS_PER_FILE * len(files) + len(pages), sum(page.weight for page in pages), len(files))


def forecast_from_archive_only(series: Series, partitions: Sequence[Partition], now: int) -> Forecast:
    """Return what fetching ``partitions`` (ascending) costs at most at ``now`` if the API has no candles of the symbol.

    The archive is asked for all files of the range, those of the ``1d`` candles included, and, before and after the
    range, whether it has more: that shows when the symbol began and ended. Files that do not exist take one request.
    """
    if not partitions:
        return Forecast(0, 0, 0, is_bound=True)
    files = len(all_files(series, partitions, now))
    days = _days_between(to_date(partitions[0].start), to_date(partitions[-1].end))
    proofs = len(all_files(daily_series(series), days, now))
    delivery = delivery_time(series.symbol)
    earliest, latest = to_ms(series.market.archived), now
    if delivery is not None:
        earliest, latest = max(earliest, delivery - LONGEST_CONTRACT), min(now, delivery + DAY)
    ever = _days_between(to_date(earliest).replace(day=1), to_date(latest))
    months = len(monthly_files(daily_series(series), ever, now))
    looks = _LOOKS * (months + _DAYS_WITHOUT_MONTH)
    return Forecast(REQUESTS_PER_FILE * (files + proofs) + looks, 0, files, is_bound=True)


@lru_cache(maxsize=8)  # the series of a request mostly have the same range
def _days_between(start: dt.date, end: dt.date) -> tuple[Partition, ...]:
    return tuple(partitions_between(start, end, DAILY))


@dataclass(frozen=True, slots=True)
class DownloadRequest:
    """What a user requests.

    Attributes:
        series: The series, all of one market; at least one.
        start: First day, UTC; None for that of the first candle.
        end: Day after the last one, UTC; None for the end of the last finished partition.
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
    """The requested partitions of one series, and which of them the lake lacks.

    Attributes:
        series: The series.
        requested: All requested partitions, ascending.
        present: Those of them that are in the lake.
        missing: Those that must be fetched.
        doubted: Those that are present, but that nothing proved; they are validated again without a request for
            candles.
        is_archived_only: Whether the API has refused to serve the symbol, so that only the archive has its candles.
    """

    series: Series
    requested: tuple[Partition, ...]
    present: tuple[Partition, ...]
    missing: tuple[Partition, ...]
    doubted: tuple[Partition, ...] = ()
    is_archived_only: bool = False

    @property
    def pending(self) -> tuple[Partition, ...]:
        """The partitions that a run has to look at, ascending: missing ones and those in doubt."""
        return tuple(sorted({*self.missing, *self.doubted})) if self.doubted else self.missing

    def forecast(self, source: Source) -> Forecast:
        """Return what fetching the missing partitions from ``source`` costs now, by this host's clock."""
        now = int(time.time() * 1_000)
        if self.is_archived_only and source != "rest":
            return forecast_from_archive_only(self.series, self.missing, now)
        return forecast(self.series, self.missing, source, now)


def plan_request(
    request: DownloadRequest,
    lake: Lake,
    exchange: Exchange,
    known: Sequence[Series],
    source: Source,
    ended: Mapping[Series, dt.date] | None = None,
    *,
    is_priced: bool = False,
) -> list[DownloadPlan]:
    """Return what each series of ``request`` lacks.

    Requests are sent only for what cannot be known otherwise: the time, unless the end is more than two days ago;
    the first candle, if no start is given; whether a symbol exists, if it is not ``known`` and nothing of it is stored.
    Where the API does not serve this location, the archive is asked instead, unless ``source`` is ``rest``.

    Args:
        request: The request, with dates that passed :func:`binance_assets.ingest.dates.check_dates`.
        lake: Where accepted partitions are.
        exchange: The market.
        known: Series whose symbols are known to exist.
        source: Where candles come from; with ``archive`` no request checks whether a symbol exists.
        ended: The last day, UTC, of series whose symbol is known to be delisted; unless an end is given, no later
            partition of them is requested.
        is_priced: Whether the plans are to forecast their costs. Then the API is also asked which of the known symbols
            it serves, by one request, and one more for each symbol that exchangeInfo does not list.

    Raises:
        ConfigurationError: The market never had one of the symbols; a date is today or later by the server's clock; or
            there is nothing to fetch between the dates.
        ExchangeError: The exchange cannot be reached.
        LakeError: The lake holds candles of another venue.
    """
    try:
        return _plan_known(request, lake, exchange, known, source, ended or {}, is_priced)
    except UnknownSymbol as error:
        symbols = list(dict.fromkeys(series.symbol for series in request.series))
        raise ConfigurationError(_why_unknown(exchange, symbols) or str(error)) from None


def _why_unknown(exchange: Exchange, symbols: Sequence[str]) -> str | None:
    """Return one line that names unknown symbols; None if that cannot be found out."""
    try:
        return why_unknown(exchange, symbols)
    except ExchangeError:
        return None


def _plan_known(
    request: DownloadRequest,
    lake: Lake,
    exchange: Exchange,
    known: Sequence[Series],
    source: Source,
    ended: Mapping[Series, dt.date],
    is_priced: bool,
) -> list[DownloadPlan]:
    """Return the plans of :func:`plan_request`.

    Raises:
        UnknownSymbol: The exchange has no such symbol.
        ConfigurationError, ExchangeError, LakeError: As for :func:`plan_request`.
    """
    first_opens: dict[Series, int | None] = {}
    unseen: list[Series] = []
    archived_only: set[Series] = set()  # threads add to it
    if request.start is None:
        cached = lake.first_opens()
        first_opens = {series: cached.get(str(series)) for series in request.series}
        unseen = [series for series, first in first_opens.items() if first is None]
        first_opens |= exchange.map_concurrently(
            unseen, lambda series: _first_open(exchange, series, source, archived_only)
        )
    index = lake.file_index(request.market, request.series, request.start, request.end)
    held = _Held(index)
    plans = [
        _plan_series(request, series, held, exchange, first_opens, source, ended.get(series))
        for series in request.series
    ]
    over = next((series for series in request.series if series in ended), None)
    if over is not None and not any(plan.requested for plan in plans):
        raise ConfigurationError(f"nothing to fetch: {over} ended on {ended[over]}, because its symbol was delisted")
    if any(plan.pending for plan in plans):
        lake.check_venue(exchange.venue, exchange.hosts)
    exists = {*known, *first_opens}
    is_checked = source != "archive"
    unknown = [plan.series for plan in plans if is_checked and not plan.present and plan.series not in exists]
    for _ in exchange.map_concurrently(unknown, lambda series: _check_exists(exchange, series, source, archived_only)):
        pass
    if is_priced and is_checked:
        asked = {*unseen, *unknown}
        others = [plan.series for plan in plans if plan.missing and plan.series not in asked]
        archived_only |= _not_served(exchange, others, source)
    return [replace(plan, is_archived_only=plan.series in archived_only) for plan in plans]


def present_verdicts(lake: Lake, plans: Sequence[DownloadPlan]) -> dict[Series, Counter[str]]:
    """Return how many of the requested partitions of each plan the lake has now, by verdict.

    The file index remembers what is read here: it is what the next request asks for. After a download of a whole
    market, that would take a minute to read.

    Args:
        lake: The lake.
        plans: Plans over series of one market; at least one.

    Raises:
        LakeError: A file may not be read, or was written by a later version.
    """
    found = {plan.series: Counter[str]() for plan in plans}
    spans = {str(plan.series): (plan.series, plan.requested[0], plan.requested[-1]) for plan in plans if plan.requested}
    if not spans:
        return found
    requested = pl.DataFrame(
        [(name, to_date(first.start), to_date(last.start)) for name, (_, first, last) in spans.items()],
        schema={"series": pl.String, "first": pl.Date, "last": pl.Date},
        orient="row",
    )
    series = [member for member, _, _ in spans.values()]
    start, end = min(requested["first"].to_list()), max(requested["last"].to_list())
    for stored in _spread(lake.file_index(series[0].market, series, start, end)):
        among = stored.join(requested, on="series").filter(pl.col("day").is_between("first", "last"))
        for name, verdict, count in among.group_by("series", "verdict").len().iter_rows():
            found[spans[name][0]][verdict] = count
    return found


def _first_open(exchange: Exchange, series: Series, source: Source, archived_only: set[Series]) -> int | None:
    """Return when the first candle of ``series`` opens, ms UTC; from the archive if the API does not know it.

    Raises:
        ExchangeError: The exchange has no such symbol, or a request failed.
    """
    try:
        return exchange.symbols.first_open_time(series)
    except ExchangeError as error:
        if not _archive_may_know(error, exchange, source):
            raise
        first = _archived_first_open(exchange, series, _now(exchange, source))
        if first is None:
            raise
        archived_only.add(series)
        return first


def _archived_first_open(exchange: Exchange, series: Series, now: int) -> int | None:
    """Return when the first candle opens according to the archive, ms UTC, or when the archive of the market begins."""
    first = archived_first_open(exchange, series, now)
    if first is None and is_archived(exchange, series, now):
        return to_ms(series.market.archived)
    return first


def _check_exists(exchange: Exchange, series: Series, source: Source, archived_only: set[Series]) -> None:
    """Check that the API or, if ``source`` allows it, the archive knows the symbol; add it to the latter's.

    Raises:
        ExchangeError: The exchange has no such symbol, or a request failed.
    """
    try:
        exchange.symbols.check_exists(series)
    except ExchangeError as error:
        if not _archive_may_know(error, exchange, source):
            raise
        if not is_archived(exchange, series, _now(exchange, source)):
            raise
        archived_only.add(series)


def _not_served(exchange: Exchange, series: Sequence[Series], source: Source) -> set[Series]:
    """Return those of ``series`` that the API does not serve, so that only the archive can have their candles.

    The API serves what exchangeInfo lists, and for a while what it lists no longer; only klines shows the latter.

    Raises:
        ExchangeError: A request failed.
    """
    if not series:
        return set()
    try:
        listed = exchange.symbols.listed()
    except ExchangeError as error:
        if not _archive_may_know(error, exchange, source):
            raise
        return set(series)

    def is_served(member: Series) -> bool:
        try:
            exchange.symbols.check_exists(member)
        except ExchangeError as error:
            if not _archive_may_know(error, exchange, source):
                raise
            return False
        return True

    unlisted = [member for member in series if member.symbol not in listed]
    return {member for member, serves in exchange.map_concurrently(unlisted, is_served) if not serves}


def _archive_may_know(error: ExchangeError, exchange: Exchange, source: Source) -> bool:
    """Return whether the archive may know what the API refused to say with ``error``."""
    is_refusal = isinstance(error, UnknownSymbol) or refuses_location(error)
    return is_refusal and source != "rest" and exchange.archive_matches_api


def _now(exchange: Exchange, source: Source) -> int:
    """Return the time at the exchange, ms UTC; that of the archive where the API does not serve this location.

    Raises:
        ExchangeError: A request failed.
    """
    try:
        return exchange.now()
    except ExchangeError as error:
        if not _archive_may_know(error, exchange, source):
            raise
        return exchange.archive.now()


class _Held:
    """What the lake holds of some series.

    Args:
        index: Their file index.
    """

    def __init__(self, index: pl.DataFrame) -> None:
        self._starts, self._doubted = dict[str, pl.Series](), dict[str, pl.Series]()
        for stored in _spread(index):
            self._starts |= _starts_by_series(stored)
            self._doubted |= _starts_by_series(stored.filter("is_in_doubt"))

    def split(
        self, series: Series, partitions: tuple[Partition, ...]
    ) -> tuple[tuple[Partition, ...], tuple[Partition, ...]]:
        """Return those of ``partitions`` that the lake holds, and the others."""
        present = _among(partitions, self._starts.get(str(series)))
        if len(present) in (0, len(partitions)):
            return (partitions, ()) if present else ((), partitions)
        held = frozenset(present)
        return present, tuple(partition for partition in partitions if partition not in held)

    def doubted_among(self, series: Series, partitions: Iterable[Partition]) -> tuple[Partition, ...]:
        """Return those of ``partitions`` that the lake holds, but that nothing proved."""
        return _among(partitions, self._doubted.get(str(series)))


def _spread(index: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Yield the stored partitions of an index, those of some series at a time.

    A table with a row for each day of 2,000 series would take most of the memory of the process.
    """
    names = index["series"].unique()
    for first in range(0, len(names), _SERIES_SPREAD):
        yield stored_in(index.filter(pl.col("series").is_in(names[first : first + _SERIES_SPREAD].implode())))


_SERIES_SPREAD: Final = 100


def _among(partitions: Iterable[Partition], starts: pl.Series | None) -> tuple[Partition, ...]:
    if starts is None:
        return ()
    known = frozenset(starts.to_list())  # not kept: those of 2,000 series over years would take half a gigabyte
    return tuple(partition for partition in partitions if partition.start in known)


def _starts_by_series(stored: pl.DataFrame) -> dict[str, pl.Series]:
    starts = stored.group_by("series").agg(pl.col("day").dt.epoch("ms"))
    return dict(zip(starts["series"], starts["day"], strict=True))


@lru_cache(maxsize=64)  # most series of a request begin or end together
def _requested(start: dt.date, end: dt.date, interval: Interval) -> tuple[Partition, ...]:
    return tuple(partitions_between(start, end, interval))


def _plan_series(
    request: DownloadRequest,
    series: Series,
    held: _Held,
    exchange: Exchange,
    first_opens: Mapping[Series, int | None],
    source: Source,
    last_day: dt.date | None,
) -> DownloadPlan:
    end = _end(request, series.interval, exchange, source)
    is_over = False
    if last_day is not None and request.end is None:
        after = next_partition_first_day(partition_first_day(last_day, series.interval), series.interval)
        end, is_over = min(end, after), True
    start = request.start or _first_day(series, first_opens[series])
    requested = _requested(start, end, series.interval) if start else ()
    if not requested and not is_over and (request.start or request.end):
        begins = f"begins on {start}" if start else "has no candles"
        raise ConfigurationError(f"nothing to fetch: {series} {begins}, and its last finished partition ends on {end}")
    present, absent = held.split(series, requested)
    missing = requested if request.refresh else absent
    doubted = () if request.refresh else held.doubted_among(series, requested)
    return DownloadPlan(series, requested, present, missing, doubted)


def _end(request: DownloadRequest, interval: Interval, exchange: Exchange, source: Source) -> dt.date:
    if request.end and request.end < dt.datetime.now(dt.UTC).date() - dt.timedelta(days=2):
        return request.end  # in the past, even if this host's clock is two days fast
    now = _now(exchange, source)
    today = to_date(now)
    if request.end and request.end > today:
        raise ConfigurationError(f"--end {request.end} is later than today ({today}, UTC); the end is excluded")
    if request.start and request.start >= today:
        raise ConfigurationError(f"--start {request.start} is not before today ({today}, UTC)")
    return request.end or last_finished_end(now - SAFETY_MS, interval)


def _first_day(series: Series, first_open: int | None) -> dt.date | None:
    return None if first_open is None else max(FIRST_DAY, partition_first_day(to_date(first_open), series.interval))
