"""From what was answered to a table that is held against what was asked: a page of the API, a file of the archive."""

from __future__ import annotations

import polars as pl

from binance_assets.candles.parsing import check_window, csv_rows, parse_archive, parse_rows
from binance_assets.exchange.archive import Unpacked
from binance_assets.exchange.exchange import Exchange
from binance_assets.exchange.files import ArchiveFile
from binance_assets.exchange.paging import Page
from binance_assets.series import Series


def read_page(series: Series, page: Page, body: bytes) -> pl.DataFrame:
    """The candles of a klines answer.

    Raises:
        ValueError: They are not those that the page asked for.
    """
    candles = parse_rows(series.market, csv_rows(body))
    check_window(candles, series.interval, page.start, page.end)
    return candles


def read_file(exchange: Exchange, file: ArchiveFile, unpacked: Unpacked) -> pl.DataFrame:
    """The candles of a file of the archive.

    Raises:
        ValueError: They are not those of the file's series and span, or not of the exchange that the API is of.
    """
    if exchange.known_origin not in ("", exchange.archive.origin):
        raise ValueError("it is of another exchange than the API is; set BINANCE_ARCHIVE_URL")
    candles = parse_archive(file.series.market, unpacked.text)
    check_window(candles, file.series.interval, file.start, file.end)
    return candles
