"""Parsing of klines responses and archive files into typed Polars frames; the only error is ValueError."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection
from typing import Any, Final, NoReturn

import polars as pl

from binance_assets.candles.columns import TIME, columns, empty_candles
from binance_assets.model.intervals import Interval
from binance_assets.model.markets import ROW_FIELDS, Market
from binance_assets.model.timestamps import CANDLE_TIMES

# Names of the fields of a line that are not columns of the table: the empty first ones and Binance's unused last one.
_EMPTY_FIELDS: Final = ("empty_1", "empty_2")
_UNUSED_FIELD: Final = "unused"

_TIMES: Final = ("open_time", "close_time")

# Polars reads them as text first, because it reads an integer with leading zeros too, which JSON does not allow.
_INTEGERS: Final = (*_TIMES, "trades")

# Every time in CANDLE_TIMES has this many digits, so a time in microseconds is never a time in milliseconds as well.
_MILLISECOND_DIGITS: Final = 13
_MICROSECOND_DIGITS: Final = 16

# The brackets before a row become the commas after its empty fields, so that nothing between them is lost.
_BRACKETS_TO_LINES: Final = bytes.maketrans(b"[]", b",\n")

# What is left of a row without its digits and dots: in a klines response, and in a line of an archive file.
_DIGITS_AND_DOTS: Final = b"0123456789."
_ROW_SKELETON: Final = b'[,"","","","","",,"",,"","",""],'
_LINE_SKELETON: Final = b"," * (ROW_FIELDS - 1) + b"\n"

_HEADER: Final = re.compile(rb"[A-Za-z_ ]+(,[A-Za-z_ ]+){11}(\n|\Z)")
_DECIMAL: Final = re.compile(r"-?([0-9]+\.?[0-9]*|\.[0-9]+)")

_NOT_A_NUMBER: Final = "a field is not a number of the expected kind"
_NOT_A_CANDLE: Final = "a line is not a candle"
_MOST_SHOWN: Final = 40


def csv_rows(body: bytes) -> bytes:
    """Return the rows of a klines response as lines of CSV, each with two empty fields first and a line end.

    Polars reads a page as CSV in less than half the time of a JSON parser, reads many pages in one call, and does both
    without the interpreter lock. Any body that is not in Binance's compact form, with unsigned plain numbers only, is
    parsed as JSON, which decides whether it is valid. Digits in the wrong place, such as ``"1"0,`` or ``],1[``, are
    left in the lines, and :func:`parse_rows` refuses them.

    Raises:
        ValueError: The body is not a list of rows of numbers.
    """
    if body == b"[]":
        return b""
    skeleton = body.translate(None, _DIGITS_AND_DOTS)
    rows = _ROW_SKELETON * (len(skeleton) // len(_ROW_SKELETON))
    if rows and skeleton == b"[" + rows[:-1] + b"]" and body.endswith(b"]]"):
        return body.translate(_BRACKETS_TO_LINES)[:-1]
    return _csv_from_json(body)


def count_rows(rows: bytes) -> int:
    """Return the number of candles in the lines of :func:`csv_rows`."""
    return rows.count(b"\n")


def parse_rows(market: Market, rows: bytes) -> pl.DataFrame:
    """Parse the lines of :func:`csv_rows`, of one page or of several, into a table with the columns of ``market``.

    Exact repeats of a row are dropped.

    Raises:
        ValueError: A field is empty or not a number of the expected kind, or a time is not one of ``CANDLE_TIMES``.
    """
    if not rows:
        return empty_candles(market)
    schema = dict.fromkeys(_EMPTY_FIELDS, pl.String()) | _raw_schema(market, pl.Float64())
    raw = _read_text(rows, schema, _NOT_A_NUMBER, quote='"')
    return _typed(market, raw, _NOT_A_NUMBER, may_be_microseconds=False)


def parse_archive(market: Market, text: bytes) -> pl.DataFrame:
    """Parse a CSV of the public archive into a table with the columns of ``market``.

    Some files have a header row and some do not, and spot files count in microseconds from 2025 on. Both may change
    when Binance publishes a file again, so both are detected. Windows line ends and blank lines at the end are allowed.
    Exact repeats of a row are dropped.

    Raises:
        ValueError: The text is not a CSV of candles.
    """
    lines = _lines_without_header(text)
    if not lines:
        return empty_candles(market)
    skeleton = lines.translate(None, _DIGITS_AND_DOTS)
    if skeleton != _LINE_SKELETON * (len(skeleton) // len(_LINE_SKELETON)):
        lines = _checked_lines(lines)
    raw = _read_text(lines, _raw_schema(market, pl.String()), _NOT_A_CANDLE, quote=None)
    return _typed(market, raw, _NOT_A_CANDLE, may_be_microseconds=True)


def drop_repeats(candles: pl.DataFrame) -> pl.DataFrame:
    """Return the table without exact repeats of a row; different rows with the same open time are kept.

    Binance has published files with repeated rows (binance-public-data, issues 191, 203 and 259).
    """
    opens = candles["open_time"].to_physical()
    return candles if (opens.diff().slice(1) > 0).all() else candles.unique(maintain_order=True)


def _raw_schema(market: Market, unused: pl.DataType) -> dict[str, pl.DataType]:
    types = {name: pl.String() if name in _INTEGERS else dtype for name, dtype in columns(market).items()}
    return {**types, _UNUSED_FIELD: unused}


def _read_text(lines: bytes, schema: dict[str, pl.DataType], refusal: str, quote: str | None) -> pl.DataFrame:
    """Read lines into a table in which the integers are text; ``refusal`` is the reason if a field is not a number.

    A field in quotes must be in them as a whole: Polars removes the first and the last byte before it reads a number.
    """
    try:
        return pl.read_csv(lines, has_header=False, schema=schema, quote_char=quote)
    except pl.exceptions.PolarsError:
        raise ValueError(refusal) from None


def _typed(market: Market, raw: pl.DataFrame, refusal: str, may_be_microseconds: bool) -> pl.DataFrame:
    """Return the table of a raw one, in which the integers are text; ``refusal`` is the reason if one is not.

    Raises:
        ValueError: A field is empty, an integer is not one, or a time is not one of ``CANDLE_TIMES``.
    """
    _check_fields(raw, columns(market))
    shortest, longest, has_leading_zero = raw.select(_shortest_time(), _longest_time(), _has_leading_zero()).row(0)
    if has_leading_zero:
        raise ValueError(refusal)
    if (shortest, longest) == (_MILLISECOND_DIGITS, _MICROSECOND_DIGITS):
        raise ValueError("some times are in milliseconds and some in microseconds")
    in_microseconds = may_be_microseconds and shortest == longest == _MICROSECOND_DIGITS
    try:
        table = raw.select(_column(name, in_microseconds) for name in columns(market))
    except pl.exceptions.PolarsError:
        raise ValueError(refusal) from None
    for name in _TIMES:
        _check_times(name, table[name].to_physical())
    if (shortest, longest) not in ((_MILLISECOND_DIGITS,) * 2, (_MICROSECOND_DIGITS,) * 2):
        raise ValueError(refusal)  # a leading zero
    return drop_repeats(table)


def _check_fields(raw: pl.DataFrame, names: Collection[str]) -> None:
    """Check that every field of the columns ``names`` is filled, and that the empty first fields are empty.

    Raises:
        ValueError: A field is empty, or there is something between the rows of a response.
    """
    for name, nulls in zip(raw.columns, raw.null_count().row(0), strict=True):
        if nulls and name in names:
            raise ValueError("a field is empty")
        if nulls < raw.height and name in _EMPTY_FIELDS:
            raise ValueError("there is something between the rows")


def _shortest_time() -> pl.Expr:
    return pl.min_horizontal(*(pl.col(name).str.len_bytes().min() for name in _TIMES)).alias("shortest")


def _longest_time() -> pl.Expr:
    return pl.max_horizontal(*(pl.col(name).str.len_bytes().max() for name in _TIMES)).alias("longest")


def _has_leading_zero() -> pl.Expr:
    """Return whether a number of trades has a leading zero; times with one have too many digits."""
    trades = pl.col("trades")
    return (trades.str.starts_with("0") & (trades.str.len_bytes() > 1)).any()


def _column(name: str, in_microseconds: bool) -> pl.Expr:
    """Return the column ``name`` of a raw table, in the type of the candle table."""
    if name not in _INTEGERS:
        return pl.col(name)
    number = pl.col(name).cast(pl.Int64())
    if name not in _TIMES:
        return number
    return (number // 1_000 if in_microseconds else number).cast(TIME)


def _check_times(name: str, times: pl.Series) -> None:
    """Check times in ms: Python's calendar ends with the year 9999, so a far time could not even be shown.

    Raises:
        ValueError: One of ``times`` is not one of ``CANDLE_TIMES``.
    """
    for time in (times.min(), times.max()):
        if time not in CANDLE_TIMES:
            raise ValueError(f"{name} {time!s} is not a time in ms from 2017 to 2099")


def _lines_without_header(text: bytes) -> bytes:
    """Return the lines of an archive file that must be candles, each with a line end."""
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n")
    header = _HEADER.match(text)
    if header:
        text = text[header.end() :]
    if text.endswith(b"\n\n") or not text.endswith(b"\n"):
        text = text.rstrip(b"\n") + b"\n"
    return b"" if text == b"\n" else text


def _checked_lines(lines: bytes) -> bytes:
    """Return lines of an archive file after a check of each field; the unused one may be anything.

    Raises:
        ValueError: A line has too few or too many fields, or one of them is not a plain decimal.
    """
    checked = []
    for number, line in enumerate(lines.decode("latin-1")[:-1].split("\n"), 1):
        fields = line.split(",")
        if len(fields) != ROW_FIELDS:
            raise ValueError(f"line {number} is not a candle: it has {len(fields)} fields instead of {ROW_FIELDS}")
        for field in fields[:-1]:
            # The schema refuses a NaN, and with it only the partition of its candle instead of the whole file.
            if not _DECIMAL.fullmatch(field) and field != "NaN":
                problem = f"{_shown(field)} is not a number" if field else "a field is empty"
                raise ValueError(f"line {number} is not a candle: {problem}")
        checked.append(",".join([*fields[:-1], "0\n"]))
    return "".join(checked).encode()


def _csv_from_json(body: bytes) -> bytes:
    try:
        rows: Any = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == ROW_FIELDS for row in rows):
        raise ValueError(f"not a list of rows of {ROW_FIELDS} fields")
    return "".join(f",,{','.join(map(_field, row[:-1]))},0\n" for row in rows).encode()  # the last field is unused


def _refuse_constant(name: str) -> NoReturn:
    """Refuse NaN and Infinity, which Python reads and JSON does not have."""
    raise ValueError(f"{name} is not JSON")


def _field(value: Any) -> str:
    """Return the text of a field that is a JSON number, or a string with a plain decimal."""
    if isinstance(value, str):
        if not _DECIMAL.fullmatch(value):
            raise ValueError(f"{_NOT_A_NUMBER}: {_shown(value)}")
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("a field is neither a number nor a string")
    elif not math.isfinite(value):
        raise ValueError("a field is a number that is too large")
    return str(value)


def _shown(text: str) -> str:
    """Return a field for a message, in one line and not too long."""
    return ascii(text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "...")


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
