"""From pages and files to tables of whole partitions."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from binance_assets.candles.columns import empty_candles
from binance_assets.candles.parsing import check_window, count_rows, csv_rows, parse_archive, parse_rows
from binance_assets.exchange.archive import ArchiveContent
from binance_assets.exchange.archive_files import (
    ArchiveFile,
)
from binance_assets.exchange.errors import ExchangeError
from binance_assets.exchange.pages import Page, plan_pages
from binance_assets.exchange.session import Exchange
from binance_assets.model.partitions import Partition, spans
from binance_assets.model.series import Series

# About a month of 1m: a Pandera call costs the same up to this size.
BLOCK_ROWS: Final = 45_000


# Pages may be empty or lost; so that days before a listing get their verdict too, they count as well.
_BLOCK_PAGES: Final = 200


def plan(series: Series, partitions: Sequence[Partition]) -> list[Page]:
    """The requests that bring ``partitions`` by REST."""
    return plan_pages(series.market, series.interval, spans(partitions))


@dataclass(frozen=True, slots=True)
class _Block:
    """Whole periods and all that was answered for them."""

    partitions: list[Partition]
    candles: pl.DataFrame
    errors: list[tuple[Page, ExchangeError]]


def blocks(exchange: Exchange, series: Series, partitions: Sequence[Partition]) -> Iterator[_Block]:
    """Runs of whole periods. Pages are collected as they come, and read together: one call costs as much as forty."""
    responses: list[tuple[Page, bytes]] = []
    errors: list[tuple[Page, ExchangeError]] = []
    first, rows = 0, 0
    for page, outcome in exchange.stream(series, plan(series, partitions), lambda _, body: csv_rows(body)):
        if isinstance(outcome, ExchangeError):
            errors.append((page, outcome))
        else:
            responses.append((page, outcome))
            rows += count_rows(outcome)
        if rows < BLOCK_ROWS and len(responses) + len(errors) < _BLOCK_PAGES:
            continue
        end = bisect_right(partitions, page.end, lo=first, key=lambda partition: partition.end)
        if end > first:
            yield _read_block(exchange, series, list(partitions[first:end]), responses, errors)
            # The last pages may hold the beginning of the next period.
            result = partitions[end - 1].end
            responses = [(page, found) for page, found in responses if page.end > result]
            errors = [(page, error) for page, error in errors if page.end > result]
            first, rows = end, 0
    if first < len(partitions):
        yield _read_block(exchange, series, list(partitions[first:]), responses, errors)


def _read_block(
    exchange: Exchange,
    series: Series,
    partitions: list[Partition],
    responses: Sequence[tuple[Page, bytes]],
    errors: Sequence[tuple[Page, ExchangeError]],
) -> _Block:
    try:
        candles = parse_rows(series.market, b"".join(rows for _, rows in responses))
        if responses:
            check_window(candles, series.interval, responses[0][0].start, responses[-1][0].end)
        return _Block(partitions, candles, list(errors))
    except ValueError:
        candles, lost = _read_page_by_page(exchange, series, responses)
        return _Block(partitions, candles, [*errors, *lost])


def _read_page_by_page(
    exchange: Exchange, series: Series, responses: Sequence[tuple[Page, bytes]]
) -> tuple[pl.DataFrame, list[tuple[Page, ExchangeError]]]:
    """Find the pages that are not what was asked for, and ask for them again.

    Rows that stay odd are kept, so that they refuse the days that they belong to and no others.
    """
    frames: dict[Page, pl.DataFrame] = {}
    bad: list[Page] = []
    for page, rows in responses:
        try:
            frames[page] = parse_rows(series.market, rows)
            check_window(frames[page], series.interval, page.start, page.end)
        except ValueError:
            bad.append(page)

    lost: list[tuple[Page, ExchangeError]] = []
    for page, outcome in exchange.stream(series, bad, lambda page, body: read_page(series, page, body)):
        if not isinstance(outcome, ExchangeError):
            frames[page] = outcome
        elif page not in frames:
            lost.append((page, outcome))
    in_order = [frames[page] for page, _ in responses if page in frames]
    return pl.concat([empty_candles(series.market), *in_order]), lost


def failed_partitions(block: _Block) -> dict[Partition, ExchangeError]:
    failed: dict[Partition, ExchangeError] = {}
    for page, error in block.errors:
        first = bisect_right(block.partitions, page.start, key=lambda partition: partition.end)
        last = bisect_left(block.partitions, page.end, key=lambda partition: partition.start)
        failed |= dict.fromkeys(block.partitions[first:last], error)
    return failed


def read_page(series: Series, page: Page, body: bytes) -> pl.DataFrame:
    """The candles of a klines answer.

    Raises:
        ValueError: They are not those that the page asked for.
    """
    candles = parse_rows(series.market, csv_rows(body))
    check_window(candles, series.interval, page.start, page.end)
    return candles


def read_file(exchange: Exchange, file: ArchiveFile, content: ArchiveContent) -> pl.DataFrame:
    """The candles of a file of the archive.

    Raises:
        ValueError: They are not those of the file's series and span, or not of the exchange that the API is of.
    """
    if exchange.cached_venue not in (None, exchange.archive.venue):
        raise ValueError("it is of another exchange than the API is; set BINANCE_ARCHIVE_URL")
    candles = parse_archive(file.series.market, content.text)
    check_window(candles, file.series.interval, file.start, file.end)
    return candles
