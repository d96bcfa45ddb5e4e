"""Loading of ``1d`` candles as evidence: row by row, from the API or from the archive.

A row that breaks a rule is no evidence for its own day, and leaves the other days as they are. The same holds for a
request or a file that fails: it costs its own days only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from binance_assets.candles.columns import empty_candles
from binance_assets.candles.parsing import csv_rows, exact_amounts, parse_archive, parse_rows
from binance_assets.candles.schema import every_rule
from binance_assets.completeness.control_totals import Totals, totals_by_day, with_exact_amounts
from binance_assets.exchange.archive import ArchiveContent
from binance_assets.exchange.archive_files import ArchiveFile, daily_files, probes
from binance_assets.exchange.errors import ExchangeError, NoConnection, NoFile, NotSent
from binance_assets.exchange.pages import Page, plan_pages
from binance_assets.exchange.session import Exchange
from binance_assets.ingest.blocks import check_venue, read_days
from binance_assets.model.intervals import DAILY
from binance_assets.model.markets import Market
from binance_assets.model.partitions import Partition, merge_ranges, partitions_between
from binance_assets.model.series import Series
from binance_assets.model.timestamps import DAY, to_date, to_ms


@dataclass(frozen=True, slots=True)
class DailyCandles:
    """The ``1d`` candles of some days.

    Attributes:
        totals: What each candle that follows the rules says was traded, by its open time, ms UTC.
        errors: Why the candle of a day is not known, by the day, ms UTC. A day without a candle and without an error is
            one for which the source has none.
        absent: The days among ``errors`` whose file does not exist in the archive, ms UTC.
        failure: The first error by which a request or a file failed, other than a missing file; None if there was no
            such error.
    """

    totals: Mapping[int, Totals] = field(default_factory=dict)
    errors: Mapping[int, str] = field(default_factory=dict)
    absent: frozenset[int] = frozenset()
    failure: ExchangeError | None = None

    @property
    def days(self) -> frozenset[int]:
        """The days that have a candle, ms UTC."""
        return frozenset(self.totals)

    def updated(self, other: DailyCandles) -> DailyCandles:
        """Return these candles with those of ``other`` in place of older ones; a known candle ends the day's error."""
        totals = {**self.totals, **other.totals}
        errors = {day: error for day, error in {**self.errors, **other.errors}.items() if day not in totals}
        absent = (self.absent - other.errors.keys()) | other.absent
        return DailyCandles(totals, errors, absent - totals.keys(), self.failure or other.failure)


def daily_series(series: Series) -> Series:
    """Return the ``1d`` series of the symbol."""
    return Series(series.market, series.symbol, DAILY)


def daily_from_rest(exchange: Exchange, series: Series, days: Sequence[tuple[int, int]]) -> DailyCandles:
    """Return the ``1d`` candles that open in ``days`` (ms UTC, ascending and disjoint), by REST.

    After an error that ends the run, the remaining requests are not sent.

    Raises:
        Cancelled: The exchange was closed.
    """
    daily, result = daily_series(series), DailyCandles()
    for page in plan_pages(series.market, DAILY, days):
        if result.failure is not None and result.failure.policy.ends_run:
            part = _failed([(page.start, page.end)], result.failure)
        else:
            try:
                part = exchange.klines(daily, page, lambda page, body: read_daily_page(daily, page, body))
            except ExchangeError as error:
                part = _failed([(page.start, page.end)], error)
        result = result.updated(part)
    return result


def daily_from_archive(exchange: Exchange, series: Series, days: Sequence[tuple[int, int]], now: int) -> DailyCandles:
    """Return the same candles from the archive, which serves every location.

    Days whose monthly file is missing or damaged come from their daily files.

    Args:
        exchange: The market.
        series: The series.
        days: The days, ms UTC, ascending and disjoint.
        now: The server's time, ms UTC.

    Raises:
        Cancelled: The exchange was closed.
    """
    result = DailyCandles()
    if not exchange.archive_matches_api:
        return result
    daily, archived = daily_series(series), to_ms(series.market.archived)
    wanted = [partition for partition in day_partitions(days) if partition.start >= archived]

    def to_read_again(outcomes: Sequence[tuple[ArchiveFile, DailyCandles | ExchangeError]]) -> set[int]:
        return _days_to_read_again(exchange, [(file, _part_of(file, outcome)) for file, outcome in outcomes], now)

    for file, outcome in read_days(
        exchange, daily, wanted, now, lambda file, content: read_daily_file(exchange, file, content), to_read_again
    ):
        result = result.updated(_part_of(file, outcome))
    return result


def merge_days(days: Iterable[int]) -> list[tuple[int, int]]:
    """Return the ranges of contiguous ``days`` (ms UTC), ascending and half-open."""
    return merge_ranges(Partition(day, day + DAY) for day in sorted(days))


def day_partitions(ranges: Iterable[tuple[int, int]]) -> list[Partition]:
    """Return the daily partitions in ``ranges`` (ms UTC, half-open), in their order."""
    return [partition for start, end in ranges for partition in partitions_between(to_date(start), to_date(end), DAILY)]


def _part_of(file: ArchiveFile, outcome: DailyCandles | ExchangeError) -> DailyCandles:
    return _failed(merge_ranges(file.partitions), outcome) if isinstance(outcome, ExchangeError) else outcome


def _days_to_read_again(exchange: Exchange, files: Sequence[tuple[ArchiveFile, DailyCandles]], now: int) -> set[int]:
    """Return the days (ms UTC) to read from daily files: those of bad rows, of bad months, and of some missing months.

    A missing month counts if some of its daily files exist, or if that is not known. It is probed only within the
    trading of the symbol, as far as the files show it, or where it touches it: not one month before a listing in the
    middle of a month.
    """
    if any(isinstance(part.failure, (NoConnection, NotSent)) for _, part in files):
        return set()
    again = {day for file, part in files if file.monthly for day in part.errors.keys() - part.absent}
    days = {day for _, part in files for day in part.days}
    if not days:
        return again
    missing = [
        file
        for file, part in files
        if file.monthly and part.absent and file.end >= min(days) and file.start <= max(days) + DAY
    ]
    probed = probes([day for file in missing for day in daily_files(file.series, file.partitions, now)])
    found = [file.start for file, exists in exchange.archive.existence(probed) if exists is not False]
    return again | {
        day.start
        for file in missing
        if any(file.start <= start < file.end for start in found)
        for day in file.partitions
    }


def _failed(ranges: Iterable[tuple[int, int]], error: ExchangeError) -> DailyCandles:
    """Return the result of days that could not be fetched because of ``error``."""
    errors = {day: str(error) for start, end in ranges for day in range(start // DAY * DAY, end, DAY)}
    if isinstance(error, NoFile):
        return DailyCandles(errors=errors, absent=frozenset(errors))
    return DailyCandles(errors=errors, failure=error)


def read_daily_page(daily: Series, page: Page, body: bytes) -> DailyCandles:
    """Return the candles of a klines response of ``1d``, as far as they follow the rules.

    Raises:
        ValueError: The response is not a list of rows.
    """
    unread = set[int | None]()
    try:
        lines = csv_rows(body)
        candles = parse_rows(daily.market, lines)
    except ValueError:
        rows = json.loads(body)
        if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
            raise
        readable = [_readable_line(daily.market, row) for row in rows]
        unread = {_day_of(row) for row, line in zip(rows, readable, strict=True) if not line}
        lines = b"".join(readable)
        candles = parse_rows(daily.market, lines)
    return _valid_days(daily.market, candles, lines, (page.start, page.end), "the API", unread)


def _readable_line(market: Market, row: object) -> bytes:
    """Return the row of a klines response as the line that :func:`csv_rows` makes of it; empty if it is no candle."""
    try:
        line = csv_rows(json.dumps([row], separators=(",", ":")).encode())
        parse_rows(market, line)
        return line
    except ValueError:
        return b""


def _day_of(row: list[object]) -> int | None:
    """Return the day of a row that could not be parsed, ms UTC; None if its open time cannot be read either."""
    return row[0] // DAY * DAY if row and isinstance(row[0], int) and not isinstance(row[0], bool) else None


def read_daily_file(exchange: Exchange, file: ArchiveFile, content: ArchiveContent) -> DailyCandles:
    """Return the candles of a file of ``1d``, as far as they follow the rules.

    Raises:
        ValueError: The file is from another venue than the API.
    """
    check_venue(exchange)
    market, window, unread = file.series.market, (file.start, file.end), set[int | None]()
    try:
        candles = parse_archive(market, content.text)
    except ValueError:
        lines = [line for line in content.text.splitlines(keepends=True) if line[:1].isdigit()]
        frames = [_parse_line(market, line) for line in lines]
        candles = pl.concat([empty_candles(market), *(frame for frame in frames if frame is not None)])
        unread = {None for frame in frames if frame is None} or {None}
    part = _valid_days(market, candles, content.text, window, file.name, unread)
    wanted = {partition.start for partition in file.partitions}
    return DailyCandles(
        {day: totals for day, totals in part.totals.items() if day in wanted},
        {day: error for day, error in part.errors.items() if day in wanted},
    )


def _parse_line(market: Market, line: bytes) -> pl.DataFrame | None:
    try:
        return parse_archive(market, line)
    except ValueError:
        return None


def _valid_days(
    market: Market,
    candles: pl.DataFrame,
    text: bytes,
    window: tuple[int, int],
    source: str,
    unread: Iterable[int | None] = (),
) -> DailyCandles:
    """Return the totals of those of ``candles`` that can be evidence, and why the days of the others have none.

    Exact repeats count once. If two different rows claim the same day, neither of them counts.

    Args:
        market: The market.
        candles: Rows in any order.
        text: The text that they were parsed from, which has their amounts to the last decimal.
        window: The requested time, ``(start, end)`` in ms UTC.
        source: Where they come from, for the errors.
        unread: The days of rows that could not be parsed, ms UTC; None stands for a day that is not known, and then
            every day of the window without a candle gets an error.
    """
    candles = candles.unique(maintain_order=True)
    opens = pl.col("open_time").to_physical()
    is_valid = every_rule(market, DAILY) & (opens >= window[0]) & (opens < window[1]) & pl.col("open_time").is_unique()
    candles = candles.sort("open_time")
    valid = candles.select(is_valid.fill_null(False)).to_series()
    bad = set[int]()
    if not valid.all():
        bad = {time // DAY * DAY for time in candles.filter(~valid)["open_time"].to_physical()}
        candles = candles.filter(valid)
    known, exact = totals_by_day(market, candles), exact_amounts(text)
    bad |= {day for day in unread if day is not None}
    if None in unread:
        bad |= set(range(window[0] // DAY * DAY, window[1], DAY))
    error = f"the row of this day among the 1d candles of {source} breaks the rules for rows"
    totals = {day: with_exact_amounts(totals, exact.get(day)) for day, totals in known.items()}
    return DailyCandles(totals, dict.fromkeys(sorted(bad - known.keys()), error))
