"""Parsing of klines responses and archive files into typed Polars frames; the only error is ValueError."""

from __future__ import annotations

import json
from functools import cache
from typing import Any, Final

import polars as pl

from binance_assets.candles.columns import TIME, columns, empty_candles
from binance_assets.model.intervals import Interval
from binance_assets.model.markets import ROW_FIELDS, Market

# Names of the fields of a line that are not columns of the table: the empty first one and Binance's unused last one.
_EMPTY_FIELD, _UNUSED_FIELD = "empty", "unused"

# Read as milliseconds, this is a date in the year 33658.
_LEAST_MICROSECONDS: Final = 10**15

_BRACKETS_TO_LINES: Final = bytes.maketrans(b"]", b"\n")

_NOT_A_NUMBER: Final = "a field is not a number of the expected kind"


def csv_rows(body: bytes) -> bytes:
    """Return the rows of a klines response as lines of CSV, each with an empty first field and a line end.

    Polars reads a page as CSV in less than half the time of a JSON parser, reads many pages in one call, and does both
    without the interpreter lock. Any body that is not in Binance's compact form is parsed as JSON, which decides
    whether it is valid.

    Raises:
        ValueError: The body is not a list of rows of numbers.
    """
    if body == b"[]":
        return b""
    if body.startswith(b"[[") and body.endswith(b"]]") and b" " not in body and b"\n" not in body:
        lines = b"," + body.translate(_BRACKETS_TO_LINES, b'["')[:-1]
        # Polars fills a row with too few fields with nulls, so one such row could hide another with too many.
        if lines.count(b",") == lines.count(b"\n") * ROW_FIELDS:
            return lines
    return _csv_from_json(body)


def count_rows(rows: bytes) -> int:
    """Return the number of candles in the lines of :func:`csv_rows`."""
    return rows.count(b"\n")


def parse_rows(market: Market, rows: bytes) -> pl.DataFrame:
    """Parse the lines of :func:`csv_rows`, of one page or of several, into a table with the columns of ``market``.

    Raises:
        ValueError: A field is empty or not a number of the expected kind.
    """
    if not rows:
        return empty_candles(market)
    try:
        raw = pl.read_csv(rows, has_header=False, schema=_raw_schema(market), quote_char=None).drop(_EMPTY_FIELD)
    except pl.exceptions.PolarsError:
        raise ValueError(_NOT_A_NUMBER) from None
    if any(raw.null_count().row(0)):
        raise ValueError("a field is empty")
    return _typed(market, raw)


def _typed(market: Market, raw: pl.DataFrame) -> pl.DataFrame:
    times = [pl.col(name).cast(TIME) for name in ("open_time", "close_time")]
    return raw.select(list(columns(market))).with_columns(times)


@cache
def _raw_schema(market: Market) -> dict[str, pl.DataType]:
    types = {name: pl.Int64() if dtype == TIME else dtype for name, dtype in columns(market).items()}
    return {_EMPTY_FIELD: pl.String(), **types, _UNUSED_FIELD: pl.String()}


def parse_archive(market: Market, text: bytes) -> pl.DataFrame:
    """Parse a CSV of the public archive into a table with the columns of ``market``.

    Some files have a header row and some do not, and spot files count in microseconds from 2025 on. Both may change
    when Binance publishes a file again, so both are detected.

    Raises:
        ValueError: The text is not a CSV of candles.
    """
    lines = text if text[:1].isdigit() else text.partition(b"\n")[2]
    if not lines:
        return empty_candles(market)
    schema = {name: dtype for name, dtype in _raw_schema(market).items() if name != _EMPTY_FIELD}
    try:
        raw = pl.read_csv(lines, has_header=False, schema=schema, quote_char=None)
    except pl.exceptions.PolarsError:
        raise ValueError("a line is not a candle") from None
    if any(raw.null_count().row(0)):
        raise ValueError("a field is empty")
    if raw["open_time"][0] >= _LEAST_MICROSECONDS:
        raw = raw.with_columns(pl.col("open_time", "close_time") // 1_000)
    return _typed(market, raw)


def _csv_from_json(body: bytes) -> bytes:
    try:
        rows: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == ROW_FIELDS for row in rows):
        raise ValueError(f"not a list of rows of {ROW_FIELDS} fields")
    return "".join(f",{','.join(map(_field, row))}\n" for row in rows).encode()


def _field(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError("a field is neither a number nor a string")
    text = str(value)
    if not text.isascii() or not text.isprintable() or "," in text or " " in text:
        raise ValueError(_NOT_A_NUMBER)
    return text


def check_window(frame: pl.DataFrame, interval: Interval, start: int, end: int) -> None:
    """Check that a table holds only candles of the requested window.

    Args:
        frame: Candles of one page, or of several consecutive ones, with the columns of a market.
        interval: The requested interval.
        start: First requested open time, ms UTC.
        end: End of the window, ms UTC, excluded.

    Raises:
        ValueError: A candle is outside the window, off the grid, repeated or out of order.
    """
    if frame.is_empty():
        return
    opens = frame["open_time"].to_physical()
    if frame.height > 1 and not (opens.diff().slice(1) > 0).all():
        raise ValueError("candles are repeated or out of order")
    if opens[0] < start or opens[-1] >= end:
        raise ValueError("candles are outside the requested window")
    if not (interval.is_month or interval.has_symbol_phase) and ((opens - interval.anchor) % interval.step != 0).any():
        raise ValueError(f"candles are off the grid of {interval}")
