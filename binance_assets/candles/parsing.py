"""From the bytes of a klines answer to a typed Polars frame, or a ``ValueError``; nothing else comes out."""

from __future__ import annotations

import json
from functools import cache
from typing import Any, Final

import polars as pl

from binance_assets.candles.columns import TIME, columns, empty_candles
from binance_assets.model.intervals import Interval
from binance_assets.model.markets import ROW_FIELDS, Market

_NOTHING, _UNUSED = "nothing", "unused"


# As milliseconds this were the year 33658.
_LEAST_MICROSECONDS: Final = 10**15


_BRACKETS_TO_LINES: Final = bytes.maketrans(b"]", b"\n")


def csv_rows(body: bytes) -> bytes:
    """The rows of a klines answer as lines of CSV, each with an empty first field and a line end.

    As CSV a page is read in less than half the time of a JSON parser, many pages are read in one call, and both
    without the interpreter lock. What is not plain enough for that is read as JSON, which has the last word.

    Raises:
        ValueError: The body is not a list of rows of numbers.
    """
    if body == b"[]":
        return b""
    if body.startswith(b"[[") and body.endswith(b"]]") and b" " not in body and b"\n" not in body:
        lines = b"," + body.translate(_BRACKETS_TO_LINES, b'["')[:-1]
        # A row with too few fields would be filled up with nulls, and make up for one with too many.
        if lines.count(b",") == lines.count(b"\n") * ROW_FIELDS:
            return lines
    return _csv_from_json(body)


def count_rows(rows: bytes) -> int:
    """How many candles the lines of :func:`csv_rows` hold."""
    return rows.count(b"\n")


def parse_rows(market: Market, rows: bytes) -> pl.DataFrame:
    """The table that lines of :func:`csv_rows` hold.

    Raises:
        ValueError: A field is empty or not the number that it should be.
    """
    if not rows:
        return empty_candles(market)
    try:
        raw = pl.read_csv(rows, has_header=False, schema=_raw_schema(market), quote_char=None).drop(_NOTHING)
    except pl.exceptions.PolarsError:
        raise ValueError("a field is not the number that it should be") from None
    if any(raw.null_count().row(0)):
        raise ValueError("a field is empty")
    return _typed(market, raw)


def _typed(market: Market, raw: pl.DataFrame) -> pl.DataFrame:
    times = [pl.col(name).cast(TIME) for name in ("open_time", "close_time")]
    return raw.select(list(columns(market))).with_columns(times)


@cache
def _raw_schema(market: Market) -> dict[str, pl.DataType]:
    types = {name: pl.Int64() if dtype == TIME else dtype for name, dtype in columns(market).items()}
    return {_NOTHING: pl.String(), **types, _UNUSED: pl.String()}


def parse_archive(market: Market, text: bytes) -> pl.DataFrame:
    """The table in a CSV of the public archive.

    Some files have a header row and some have none, and spot files count in microseconds from 2025 on; both may change
    when a file is issued anew, so both are looked at.

    Raises:
        ValueError: The text is not what the archive's files hold.
    """
    lines = text if text[:1].isdigit() else text.partition(b"\n")[2]
    if not lines:
        return empty_candles(market)
    schema = {name: dtype for name, dtype in _raw_schema(market).items() if name != _NOTHING}
    try:
        raw = pl.read_csv(lines, has_header=False, schema=schema, quote_char=None)
    except pl.exceptions.PolarsError:
        raise ValueError("a line is no candle") from None
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
        raise ValueError("a field is neither a number nor a text")
    text = str(value)
    if not text.isascii() or not text.isprintable() or "," in text or " " in text:
        raise ValueError("a field is not the number that it should be")
    return text


def check_window(frame: pl.DataFrame, interval: Interval, start: int, end: int) -> None:
    """Hold a table against the window that was asked for.

    Args:
        frame: One page, or several that follow each other.
        interval: The interval that was asked.
        start: First open time that was asked, ms UTC.
        end: End of the window, ms UTC, excluded.

    Raises:
        ValueError: A candle lies outside the window or off the grid, comes twice or out of order.
    """
    if frame.is_empty():
        return
    opens = frame["open_time"].to_physical()
    if frame.height > 1 and not (opens.diff().slice(1) > 0).all():
        raise ValueError("candles come twice or out of order")
    if opens[0] < start or opens[-1] >= end:
        raise ValueError("candles lie outside the window that was asked for")
    if not (interval.is_month or interval.has_symbol_phase) and ((opens - interval.anchor) % interval.step != 0).any():
        raise ValueError(f"candles lie off the grid of {interval}")
