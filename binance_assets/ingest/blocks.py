"""Blocks: the pages and files of many partitions, parsed together into one table of whole partitions."""

from __future__ import annotations

import math
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Final, TypeVar

import polars as pl

from binance_assets.candles.columns import empty_candles
from binance_assets.candles.parsing import check_window, count_rows, csv_rows, drop_repeats, parse_archive, parse_rows
from binance_assets.exchange.archive import ArchiveContent
from binance_assets.exchange.archive_files import ArchiveFile, all_files, daily_files
from binance_assets.exchange.errors import Cancelled, ExchangeError
from binance_assets.exchange.pages import Page, plan_pages
from binance_assets.exchange.session import Exchange
from binance_assets.model.partitions import Partition, merge_ranges
from binance_assets.model.series import Series

Result = TypeVar("Result")

BLOCK_ROWS: Final = 45_000
"""Rows from which a block is validated: about a month of 1m, up to which a Pandera call costs the same."""

BLOCK_SECONDS: Final = 1.0
"""How long whole partitions may wait for more of their block. A fast network fills a block sooner, so this costs it
nothing; on a slow one, or while request weight is spent, the first day is not held for the sake of the thirtieth."""

_PAUSE_SECONDS: Final = 0.25

# Empty and failed pages count too, so that partitions before a listing get their result early as well.
_BLOCK_PAGES: Final = 200


def plan_rest_pages(series: Series, partitions: Sequence[Partition]) -> list[Page]:
    """Return the requests that fetch ``partitions`` (ascending) by REST."""
    return plan_pages(series.market, series.interval, merge_ranges(partitions))


def start_early(exchange: Exchange, series: Series, partitions: Sequence[Partition]) -> None:
    """Send the first requests that :func:`fetch_blocks` will send for ``partitions``, while it is not called yet.

    Raises:
        Cancelled: The exchange was closed.
    """
    exchange.start_early(series, plan_rest_pages(series, partitions), _read_lines)


@dataclass(frozen=True, slots=True)
class Block:
    """Whole partitions, and everything that was received for them.

    Attributes:
        partitions: The partitions, ascending.
        candles: Their candles, with the columns of the market; may hold candles of neighboring partitions too.
        page_errors: The pages that could not be fetched, with the error.
    """

    partitions: list[Partition]
    candles: pl.DataFrame
    page_errors: list[tuple[Page, ExchangeError]]

    def partition_errors(self) -> dict[Partition, ExchangeError]:
        """Return the partitions that overlap a failed page, each with the page's error."""
        failed: dict[Partition, ExchangeError] = {}
        for page, error in self.page_errors:
            first = bisect_right(self.partitions, page.start, key=lambda partition: partition.end)
            last = bisect_left(self.partitions, page.end, key=lambda partition: partition.start)
            failed |= dict.fromkeys(self.partitions[first:last], error)
        return failed


def fetch_blocks(exchange: Exchange, series: Series, partitions: Sequence[Partition]) -> Iterator[Block]:
    """Fetch ``partitions`` (ascending) by REST and yield them in blocks, in order, each partition once.

    Pages are collected as they arrive and parsed together: parsing forty pages in one call costs as much as parsing
    one. But no whole partition waits for long; see :data:`BLOCK_SECONDS`.

    Raises:
        Cancelled: The exchange was closed; the partitions that had arrived as a whole were yielded before.
    """
    collected = _Collected(exchange, series, partitions)
    pages = exchange.stream_with_pauses(series, plan_rest_pages(series, partitions), _read_lines, _PAUSE_SECONDS)
    try:
        for item in pages:
            if item is not None:
                collected.add(*item)
            if collected.is_due:
                yield from collected.take()
    except Cancelled:
        yield from collected.take()
        raise
    yield from collected.take_rest()


class _Collected:
    """The pages that have arrived and are not in a block yet."""

    def __init__(self, exchange: Exchange, series: Series, partitions: Sequence[Partition]) -> None:
        self._exchange = exchange
        self._series = series
        self._partitions = partitions
        self._taken = 0
        self._responses: list[tuple[Page, bytes]] = []
        self._errors: list[tuple[Page, ExchangeError]] = []
        self._rows = 0
        self._end = 0  # of the last page, ms UTC
        self._began = math.inf  # when the first of the pages arrived

    def add(self, page: Page, outcome: bytes | ExchangeError) -> None:
        """Add a page, in order."""
        self._end, self._began = page.end, min(self._began, time.monotonic())
        if isinstance(outcome, ExchangeError):
            self._errors.append((page, outcome))
        else:
            self._responses.append((page, outcome))
            self._rows += count_rows(outcome)

    @property
    def is_due(self) -> bool:
        """Whether the pages are a block: they are many, or the first has waited long enough."""
        if self._rows >= BLOCK_ROWS or len(self._responses) + len(self._errors) >= _BLOCK_PAGES:
            return True
        return time.monotonic() - self._began >= BLOCK_SECONDS

    def take(self) -> Iterator[Block]:
        """Yield a block of the partitions that have arrived as a whole, if there are any."""
        end = bisect_right(self._partitions, self._end, lo=self._taken, key=lambda partition: partition.end)
        if end > self._taken:
            yield self._block(end)
            # The last pages may also hold the start of the next partition.
            finished = self._partitions[end - 1].end
            self._responses = [(page, body) for page, body in self._responses if page.end > finished]
            self._errors = [(page, error) for page, error in self._errors if page.end > finished]
            self._taken, self._rows = end, 0
            self._began = time.monotonic() if self._responses or self._errors else math.inf

    def take_rest(self) -> Iterator[Block]:
        """Yield a block of all partitions that are left, if there are any."""
        if self._taken < len(self._partitions):
            yield self._block(len(self._partitions))

    def _block(self, end: int) -> Block:
        partitions = list(self._partitions[self._taken : end])
        return _read_block(self._exchange, self._series, partitions, self._responses, self._errors)


def _read_lines(page: Page, body: bytes) -> bytes:
    return csv_rows(body)


def _read_block(
    exchange: Exchange,
    series: Series,
    partitions: list[Partition],
    responses: Sequence[tuple[Page, bytes]],
    errors: Sequence[tuple[Page, ExchangeError]],
) -> Block:
    try:
        candles = parse_rows(series.market, b"".join(rows for _, rows in responses))
        if responses:
            check_window(candles, series.interval, responses[0][0].start, responses[-1][0].end)
        return Block(partitions, candles, list(errors))
    except ValueError:
        candles, failed = _read_page_by_page(exchange, series, responses)
        return Block(partitions, candles, [*errors, *failed])


def _read_page_by_page(
    exchange: Exchange, series: Series, responses: Sequence[tuple[Page, bytes]]
) -> tuple[pl.DataFrame, list[tuple[Page, ExchangeError]]]:
    """Find the pages that do not hold what was requested, and fetch them again.

    Rows that are still wrong are kept, so that only the partitions that they belong to are refused.

    Returns:
        The candles of all pages, in order of time, and the pages that could not be read at all.
    """
    frames: dict[Page, pl.DataFrame] = {}
    bad: list[Page] = []
    for page, rows in responses:
        try:
            frames[page] = parse_rows(series.market, rows)
            check_window(frames[page], series.interval, page.start, page.end)
        except ValueError:
            bad.append(page)

    failed: list[tuple[Page, ExchangeError]] = []
    for page, outcome in exchange.stream(series, bad, lambda page, body: read_page(series, page, body)):
        if not isinstance(outcome, ExchangeError):
            frames[page] = outcome
        elif page not in frames:
            failed.append((page, outcome))
    in_order = [frames[page] for page, _ in responses if page in frames]
    return drop_repeats(pl.concat([empty_candles(series.market), *in_order])), failed


def read_page(series: Series, page: Page, body: bytes) -> pl.DataFrame:
    """Return the candles of a klines response, with the columns of the market.

    Raises:
        ValueError: They are not the candles that the page requested.
    """
    candles = parse_rows(series.market, csv_rows(body))
    check_window(candles, series.interval, page.start, page.end)
    return candles


def days_of_failed_months(outcomes: Sequence[tuple[ArchiveFile, object]]) -> set[int]:
    """Return the days (ms UTC) that are wanted from monthly files which are missing or cannot be read."""
    return {
        day.start
        for file, outcome in outcomes
        if file.monthly and isinstance(outcome, ExchangeError)
        for day in file.partitions
    }


def read_file(exchange: Exchange, file: ArchiveFile, content: ArchiveContent) -> pl.DataFrame:
    """Return the candles of a file of the archive, with the columns of its market.

    Raises:
        ValueError: They are not candles of the file's series and range, or they are from another venue than the API.
    """
    check_venue(exchange)
    candles = parse_archive(file.series.market, content.text)
    check_window(candles, file.series.interval, file.start, file.end)
    return candles


def read_days(
    exchange: Exchange,
    series: Series,
    days: Sequence[Partition],
    now: int,
    read: Callable[[ArchiveFile, ArchiveContent], Result],
    to_read_again: Callable[[Sequence[tuple[ArchiveFile, Result | ExchangeError]]], Set[int]] = days_of_failed_months,
) -> list[tuple[ArchiveFile, Result | ExchangeError]]:
    """Return what the archive's files of ``days`` hold: monthly files first, then daily ones in place of bad months.

    Args:
        exchange: The market.
        series: A series of an interval of at most a day.
        days: The days, ascending.
        now: The server's time, ms UTC.
        read: Reads the content of a file; a ``ValueError`` means that the content is not valid.
        to_read_again: Returns the days (ms UTC) to read from daily files, given the first files and their outcomes.

    Returns:
        Each file with its result, or with the error that took its place; a later result of a day counts.

    Raises:
        Cancelled: The exchange was closed.
    """
    first = list(exchange.archive.stream(all_files(series, days, now), read))
    again = to_read_again(first)
    single = daily_files(series, [day for day in days if day.start in again], now)
    return [*first, *exchange.archive.stream(single, read)]


def check_venue(exchange: Exchange) -> None:
    """Check that the files of the archive are from the same venue as the API, as far as the API has named it.

    Raises:
        ValueError: They are not.
    """
    if exchange.cached_venue not in (None, exchange.archive.venue):
        raise ValueError("it is from another venue than the API; set BINANCE_ARCHIVE_URL")
