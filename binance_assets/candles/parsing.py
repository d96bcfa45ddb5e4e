"""Parsing of klines responses and archive files into typed Polars frames; the only error is ValueError.

The public functions turn every other exception into one: a fault of Polars in one page must cost that page only.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from functools import wraps
from typing import Any, Final, NoReturn, ParamSpec, TypeVar

import polars as pl

from binance_assets.candles.columns import TIME, columns, empty_candles
from binance_assets.model.intervals import Interval
from binance_assets.model.markets import AMOUNT_DECIMALS, ROW_FIELDS, Market
from binance_assets.model.outside import printable
from binance_assets.model.timestamps import CANDLE_TIMES

# Names of the fields of a line that are not columns of the table: the empty first ones and Binance's unused last one.
_EMPTY_FIELDS: Final = ("empty_1", "empty_2")
_UNUSED_FIELD: Final = "unused"

_TIMES: Final = ("open_time", "close_time")

_INTEGERS: Final = (*_TIMES, "trades")

# Per millisecond. A time in microseconds is never in CANDLE_TIMES, so the unit follows from the first time.
_MICROSECONDS: Final = 1_000

# The brackets before a row become the commas after its empty fields, so that nothing between them is lost.
_BRACKETS_TO_LINES: Final = bytes.maketrans(b"[]", b",\n")

# What is left of a row of a klines response without its digits and dots.
_DIGITS_AND_DOTS: Final = b"0123456789."
_ROW_SKELETON: Final = b'[,"","","","","",,"",,"","",""],'

# What a CSV without them cannot hold: numbers that Polars reads and that are not plain decimals, such as +1, 1e5, inf.
# Polars also ignores a carriage return after one. Searching for these bytes takes half as long as removing all digits.
_BYTES_OF_OTHER_NUMBERS: Final = (b"+", b"-", b"e", b"E", b"n", b"N", b" ", b"\t", b"\r")

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_HEADER: Final = re.compile(rb"[A-Za-z_ ]+(,[A-Za-z_ ]+){11}(\n|\Z)")
_OPEN_TIME: Final = re.compile(r'"?([0-9]{13,16})"?')
_DECIMAL: Final = re.compile(r"-?([0-9]+\.?[0-9]*|\.[0-9]+)")

# Whole part and decimals of an amount, at most as many as the totals count, and zeros.
_AMOUNT: Final = rf"([0-9]{{1,20}})(?:\.([0-9]{{1,{AMOUNT_DECIMALS}}})0*)?"
_PLAIN_AMOUNT: Final = re.compile(_AMOUNT)
_QUOTED_AMOUNT: Final = re.compile(f'"{_AMOUNT}"')
_AMOUNT_FIELDS: Final = (5, 7, 9, 10)

_NOT_A_NUMBER: Final = "a field is not a number of the expected kind"
_NOT_A_CANDLE: Final = "a line is not a candle"
_MOST_SHOWN: Final = 40

Arguments = ParamSpec("Arguments")
Parsed = TypeVar("Parsed")


def _with_value_errors_only(parse: Callable[Arguments, Parsed]) -> Callable[Arguments, Parsed]:
    """Return the function with each exception as a ``ValueError``, also a panic of Polars, not an ``Exception``."""

    @wraps(parse)
    def parse_or_refuse(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Parsed:
        try:
            return parse(*args, **kwargs)
        except ValueError:
            raise
        except (Exception, pl.exceptions.PanicException) as error:
            raise ValueError(f"{type(error).__name__}: {printable(error)}") from error

    return parse_or_refuse


@_with_value_errors_only
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


@_with_value_errors_only
def parse_rows(market: Market, rows: bytes) -> pl.DataFrame:
    """Parse the lines of :func:`csv_rows`, of one page or of several, into a table with the columns of ``market``.

    Exact repeats of a row are dropped.

    Raises:
        ValueError: A field is empty or not a number of the expected kind, or a time is not one of ``CANDLE_TIMES``.
    """
    if not rows:
        return empty_candles(market)
    schema = dict.fromkeys(_EMPTY_FIELDS, pl.String()) | _raw_schema(market, pl.String(), pl.Float64())
    return _typed(market, _integers_from_text(_read(rows, schema, _NOT_A_NUMBER, quote='"')))


@_with_value_errors_only
def parse_archive(market: Market, text: bytes) -> pl.DataFrame:
    """Parse a CSV of the public archive into a table with the columns of ``market``.

    Some files have a header row and some do not, and spot files count in microseconds from 2025 on. Both may change
    when Binance publishes a file again, so both are detected. Windows line ends, blank lines at the end, and a
    byte order mark are allowed.
    Exact repeats of a row are dropped.

    Raises:
        ValueError: The text is not a CSV of candles.
    """
    lines = _lines_without_header(text)
    if not lines:
        return empty_candles(market)
    if any(byte in lines for byte in _BYTES_OF_OTHER_NUMBERS):
        lines = _checked_lines(lines)
    raw = _read_archive(lines, _raw_schema(market, pl.Int64(), pl.String()))
    return _typed(market, raw, 1 if raw["open_time"][0] in CANDLE_TIMES else _MICROSECONDS)


def exact_amounts(lines: bytes) -> dict[int, tuple[int, ...]]:
    """Return the amounts of candles as their text has them, in units of the last decimal, by open time, ms UTC.

    The table holds them as Float64, which rounds the eighth decimal from 67 million on. A candle is left out if one of
    its amounts is not a plain decimal, or was a number instead of a string in a response, as Binance never sends it.

    Args:
        lines: The lines of :func:`csv_rows`, or an archive file. Lines that are not candles are ignored.
    """
    is_response = lines.startswith(b",,")
    pattern = _QUOTED_AMOUNT if is_response else _PLAIN_AMOUNT
    amounts: dict[int, tuple[int, ...]] = {}
    for line in lines.decode("latin-1").split("\n"):
        fields = line.split(",")[len(_EMPTY_FIELDS) if is_response else 0 :]
        if len(fields) != ROW_FIELDS or not (opens := _OPEN_TIME.fullmatch(fields[0])):
            continue
        found = [pattern.fullmatch(fields[index]) for index in _AMOUNT_FIELDS]
        units = tuple(int(match[1] + (match[2] or "").ljust(AMOUNT_DECIMALS, "0")) for match in found if match)
        if len(units) == len(_AMOUNT_FIELDS):
            time = int(opens[1])
            amounts[time if time in CANDLE_TIMES else time // _MICROSECONDS] = units
    return amounts


def drop_repeats(candles: pl.DataFrame) -> pl.DataFrame:
    """Return the table without exact repeats of a row; different rows with the same open time are kept.

    Binance has published files with repeated rows (binance-public-data, issues 191, 203 and 259).
    """
    opens = candles["open_time"].to_physical()
    return candles if (opens.diff().slice(1) > 0).all() else candles.unique(maintain_order=True)


def _raw_schema(market: Market, integer: pl.DataType, unused: pl.DataType) -> dict[str, pl.DataType]:
    types = {name: integer if name in _INTEGERS else dtype for name, dtype in columns(market).items()}
    return {**types, _UNUSED_FIELD: unused}


def _read(lines: bytes, schema: dict[str, pl.DataType], refusal: str, quote: str | None) -> pl.DataFrame:
    """Read lines of CSV; ``refusal`` is the reason if a field is not of the type of its column.

    A field in quotes must be in them as a whole: Polars removes the first and the last byte before it reads a number.

    Raises:
        ValueError: A field is empty or not of the type of its column, or an empty first field is not empty.
    """
    try:
        raw = pl.read_csv(lines, has_header=False, schema=schema, quote_char=quote)
    except pl.exceptions.PolarsError:
        raise ValueError(refusal) from None
    if raw.is_empty():
        raise ValueError(refusal)
    for name, nulls in zip(raw.columns, raw.null_count().row(0), strict=True):
        if name in _EMPTY_FIELDS:
            if nulls < raw.height:
                raise ValueError("there is something between the rows")
        elif nulls and name != _UNUSED_FIELD:
            raise ValueError("a field is empty")
    return raw


def _read_archive(lines: bytes, schema: dict[str, pl.DataType]) -> pl.DataFrame:
    """Read lines of an archive file; those that Polars cannot read are checked one by one, which names the defect.

    Raises:
        ValueError: A line is not a candle.
    """
    try:
        raw = _read(lines, schema, _NOT_A_CANDLE, quote=None)
        if not raw[_UNUSED_FIELD].null_count():  # it is null in a line with one field too few
            return raw
    except ValueError:
        pass
    return _read(_checked_lines(lines), schema, _NOT_A_CANDLE, quote=None)


def _integers_from_text(raw: pl.DataFrame) -> pl.DataFrame:
    """Return a table with integers, which ``raw`` has as text.

    Raises:
        ValueError: One of them is not an integer as JSON has it: Polars would also read one with leading zeros.
    """
    text = pl.col(_INTEGERS).str
    leading_zeros = raw.select((text.starts_with("0") & (text.len_bytes() > 1)).any()).row(0)
    if any(leading_zeros):
        raise ValueError(_NOT_A_NUMBER)
    try:
        return raw.with_columns(pl.col(_INTEGERS).cast(pl.Int64()))
    except pl.exceptions.PolarsError:
        raise ValueError(_NOT_A_NUMBER) from None


def _typed(market: Market, raw: pl.DataFrame, divisor: int = 1) -> pl.DataFrame:
    """Return the table of a raw one, whose times are divided by ``divisor``.

    Raises:
        ValueError: A time is not one of ``CANDLE_TIMES``.
    """
    for name in _TIMES:
        limits = pl.Series([raw[name].min(), raw[name].max()], dtype=pl.Int64)
        if any(time // divisor not in CANDLE_TIMES for time in limits):
            raise ValueError(_wrong_times(raw[name], divisor))
    times = [pl.col(name) if divisor == 1 else pl.col(name) // divisor for name in _TIMES]
    return drop_repeats(raw.select(list(columns(market))).with_columns(time.cast(TIME) for time in times))


def _wrong_times(times: pl.Series, divisor: int) -> str:
    """Return what is wrong with times of which some, divided by ``divisor``, are not in ``CANDLE_TIMES``."""
    if any(time in CANDLE_TIMES for time in times) and any(time // _MICROSECONDS in CANDLE_TIMES for time in times):
        return "some times are in milliseconds and some in microseconds"
    wrong = next(time for time in times if time // divisor not in CANDLE_TIMES)
    # A far time is shown as a number, because Python's calendar ends with the year 9999.
    return f"{times.name} {wrong} is not a time from 2017 to 2099"


def _lines_without_header(text: bytes) -> bytes:
    """Return the lines of an archive file that must be candles, each with a line end."""
    text = text.removeprefix(_BYTE_ORDER_MARK)
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
        return f'"{value}"'
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("a field is neither a number nor a string")
    if not math.isfinite(value):
        raise ValueError("a field is a number that is too large")
    return str(value)


def _shown(text: str) -> str:
    """Return a field for a message, in one line and not too long."""
    return ascii(text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "...")


@_with_value_errors_only
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
