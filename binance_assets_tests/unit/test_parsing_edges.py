"""The exact lines of a klines response, archive files with and without a header, and the edges of a window."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from binance_assets.candles import parsing
from binance_assets.candles.columns import columns
from binance_assets.model.intervals import parse_interval
from binance_assets.model.markets import COINM, SPOT, USDM, Market
from binance_assets.model.timestamps import CANDLE_TIMES, DAY, HOUR, MINUTE
from binance_assets_tests.support.candles import body_of, expected

MINUTES = parse_interval("1m")
OPEN_TIME = 1_735_689_600_000  # 2025-01-01
ROW: list[Any] = [
    OPEN_TIME, "1.5", "4.25", "0.5", "2.0", "100.00000001", OPEN_TIME + 59_999, "200.5", 7, "50.0", "100.25", "0"
]  # fmt: skip
LINE = b",".join(str(field).encode() for field in ROW)
HEADER = b"open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker,ignore"


def row_at(time: int) -> list[Any]:
    return [time, *ROW[1:6], time + 59_999, *ROW[7:]]


def frame(*opens: int) -> pl.DataFrame:
    """Return candles that open at ``opens`` and differ in their number of trades."""
    rows = [[*row_at(time)[:8], n, *ROW[9:]] for n, time in enumerate(opens)]
    return parsing.parse_rows(SPOT, parsing.csv_rows(body_of(rows)))


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (",\n", ":")])
def test_rows_become_lines_with_two_empty_fields_first_however_they_are_laid_out(separators: tuple[str, str]) -> None:
    body = json.dumps([ROW, ROW], separators=separators).encode()
    lines = parsing.csv_rows(body)
    assert lines.replace(b'"', b"") == b",," + LINE + b"\n,," + LINE + b"\n"
    assert parsing.count_rows(lines) == 2


def test_a_compact_response_keeps_its_digits_as_they_were_sent() -> None:
    line = body_of([ROW])[2:-2]
    first, second = line.replace(b"1.5", b"1.500"), line.replace(b"1.5", b"1.500000000000000000001")
    lines = parsing.csv_rows(b"[[" + first + b"],[" + second + b"]]")
    assert lines == b",," + first + b"\n,," + second + b"\n"
    assert parsing.parse_rows(SPOT, lines).equals(expected(SPOT, [ROW]))


@pytest.mark.parametrize("body", [b"[]", b"[ ]", b"[]\n"])
def test_a_response_without_rows_has_no_lines(body: bytes) -> None:
    assert parsing.csv_rows(body) == b""
    assert parsing.count_rows(b"") == 0
    assert parsing.parse_rows(COINM, b"").schema == columns(COINM)


def test_lines_of_several_pages_are_one_table() -> None:
    lines = parsing.csv_rows(body_of([ROW])) + parsing.csv_rows(body_of([row_at(OPEN_TIME + MINUTE)]))
    assert parsing.parse_rows(USDM, lines).equals(expected(USDM, [ROW, row_at(OPEN_TIME + MINUTE)]))


@pytest.mark.parametrize("field_count", [11, 13])
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_a_row_must_have_twelve_fields(field_count: int, separators: tuple[str, str]) -> None:
    row = [*ROW, "0"][:field_count]
    with pytest.raises(ValueError, match="12 fields"):
        parsing.csv_rows(json.dumps([ROW, row], separators=separators).encode())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[[",
        b"]]",
        b"[[]",
        b"[" + LINE + b"]",
        b"[[" + LINE + b"]",
        b"[" + LINE + b"]]",
        b"[[" + LINE + b"],",
        b'{"code": -1121, "msg": "Invalid symbol."}',
        b'"' + LINE + b'"',
        b"[" * 100_000 + b" ",
    ],
)
def test_a_body_that_is_not_a_list_of_rows_has_no_lines(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"JSON|rows"):
        parsing.csv_rows(body)


@pytest.mark.parametrize(
    "odd",
    [
        True,
        False,
        None,
        [],
        {},
        "",
        "dear",
        "1,5",
        "1 5",
        " 1.5",
        "1.5 ",
        "1\n5",
        "1\u00a05",
        "\u0661",
        "\x7f1",
        '"1.5"',
    ],
)
def test_a_field_that_is_not_a_plain_number_is_refused(odd: Any) -> None:
    row = [*ROW[:4], odd, *ROW[5:]]
    with pytest.raises(ValueError, match="field"):
        parsing.parse_rows(SPOT, parsing.csv_rows(json.dumps([row], indent=1).encode()))


@pytest.mark.parametrize("position", range(11))
def test_no_column_may_be_empty_but_the_unused_last_field_may_be_anything(position: int) -> None:
    lines = [b"", b"", *LINE.split(b",")]
    lines[position + 2] = b""
    with pytest.raises(ValueError, match="empty"):
        parsing.parse_rows(SPOT, b",".join(lines) + b"\n")
    for unused in ("anything", "", None, 1.5, True, [1]):
        lines_of_row = parsing.csv_rows(body_of([[*ROW[:11], unused]]))
        assert parsing.parse_rows(SPOT, lines_of_row).equals(expected(SPOT, [ROW])), unused


# Files of the archive


@pytest.mark.parametrize("market", [SPOT, USDM, COINM])
@pytest.mark.parametrize("header", [b"", HEADER + b"\n"])
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_an_archive_file_is_the_same_table_with_and_without_a_header(market: Market, header: bytes, end: bytes) -> None:
    following = row_at(OPEN_TIME + MINUTE)
    text = header + LINE + b"\n" + ",".join(map(str, following)).encode() + end
    assert parsing.parse_archive(market, text).equals(expected(market, [ROW, following]))


@pytest.mark.parametrize("text", [b"", HEADER, HEADER + b"\n"])
def test_an_archive_file_without_rows_is_an_empty_table(text: bytes) -> None:
    table = parsing.parse_archive(COINM, text)
    assert (table.height, table.schema) == (0, columns(COINM))


def test_microseconds_of_an_archive_file_become_milliseconds() -> None:
    fields = [*ROW[:6], (OPEN_TIME + 60_000) * 1_000 - 1, *ROW[7:]]
    fields[0] = OPEN_TIME * 1_000
    text = ",".join(map(str, fields)).encode()
    assert parsing.parse_archive(SPOT, text).equals(expected(SPOT, [ROW]))


@pytest.mark.parametrize(
    ("time", "read_as"),
    [
        (CANDLE_TIMES[0], CANDLE_TIMES[0]),
        (CANDLE_TIMES[-1], CANDLE_TIMES[-1]),
        (CANDLE_TIMES[0] * 1_000, CANDLE_TIMES[0]),
        (CANDLE_TIMES[-1] * 1_000 + 999, CANDLE_TIMES[-1]),
    ],
)
def test_a_time_of_sixteen_digits_counts_microseconds(time: int, read_as: int) -> None:
    table = parsing.parse_archive(SPOT, line_of(time))
    assert table["open_time"].to_physical().to_list() == [read_as]
    assert table["close_time"].to_physical().to_list() == [read_as]


@pytest.mark.parametrize(
    "time", [CANDLE_TIMES[0] * 1_000 - 1, CANDLE_TIMES.stop * 1_000, 10**14, 10**15 - 1, 10**15, OPEN_TIME * 10**6]
)
def test_a_time_that_is_in_range_in_neither_unit_is_refused(time: int) -> None:
    with pytest.raises(ValueError, match=r"open_time .* is not a time from 2017 to 2099"):
        parsing.parse_archive(SPOT, line_of(time))


@pytest.mark.parametrize("odd", [0, 1, 2])
def test_a_file_with_times_in_mixed_units_is_refused(odd: int) -> None:
    lines = [line_of((OPEN_TIME + n * MINUTE) * (1_000 if n == odd else 1)) for n in range(3)]
    with pytest.raises(ValueError, match="some times are in milliseconds and some in microseconds"):
        parsing.parse_archive(SPOT, b"\n".join(lines))


@pytest.mark.parametrize("unit", [1, 1_000])
def test_the_first_time_that_is_out_of_range_is_named(unit: int) -> None:
    far = CANDLE_TIMES.stop * unit + 5
    lines = [line_of(time) for time in (OPEN_TIME * unit, far, far + 1)]
    with pytest.raises(ValueError, match=f"open_time {far} is not a time from 2017 to 2099"):
        parsing.parse_archive(SPOT, b"\n".join(lines))


def line_of(time: int) -> bytes:
    return ",".join(map(str, [time, *ROW[1:6], time, *ROW[7:]])).encode()


@pytest.mark.parametrize("header", [b"", HEADER + b"\r\n"])
@pytest.mark.parametrize("end", [b"", b"\r\n", b"\r\n\r\n", b"\n\r\n"])
def test_an_archive_file_may_have_windows_line_ends(header: bytes, end: bytes) -> None:
    following = row_at(OPEN_TIME + MINUTE)
    text = header + LINE + b"\r\n" + ",".join(map(str, following)).encode() + end
    assert parsing.parse_archive(SPOT, text).equals(expected(SPOT, [ROW, following]))


@pytest.mark.parametrize("end", [b"\n\n", b"\n\n\n"])
def test_blank_lines_at_the_end_of_an_archive_file_are_no_rows(end: bytes) -> None:
    assert parsing.parse_archive(SPOT, LINE + end).equals(expected(SPOT, [ROW]))
    assert parsing.parse_archive(SPOT, HEADER + end).height == 0


@pytest.mark.parametrize("unused", [b"", b"junk", b"-7961.72", b"[1]", b"\xff", b'"0"', b"1e5", b"\x85"])
def test_the_unused_last_field_of_an_archive_file_may_be_anything(unused: bytes) -> None:
    text = LINE + b"\n" + LINE.replace(b"%d" % OPEN_TIME, b"%d" % (OPEN_TIME + MINUTE)).removesuffix(b"0") + unused
    assert parsing.parse_archive(SPOT, text)["trades"].to_list() == [7, 7]


def test_a_file_with_nan_is_a_table_so_that_the_schema_refuses_only_its_day() -> None:
    table = parsing.parse_archive(SPOT, LINE.replace(b"1.5", b"NaN", 1))
    assert table["open"].is_nan().to_list() == [True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LINE + b",0", "line"),
        (LINE.replace(b"1.5", b"dear", 1), "line"),
        (LINE.replace(b"1.5", b'"1.5"', 1), "line"),
        (LINE.replace(b"1.5", b"", 1), "empty"),
        (LINE[:-2], "line"),  # too few fields
        (LINE + b"\n" + LINE[:-2], "line 2 is not a candle: it has 11 fields instead of 12"),
        (LINE + b",0\n" + LINE[:-2], "line 1 is not a candle: it has 13 fields instead of 12"),
        (HEADER + b"\n" + HEADER, "line 1 is not a candle: 'open_time' is not a number"),
        (LINE + b"\n\n" + LINE, "line 2"),
        (b"\n" + LINE, "line 1"),
        (b'"' + LINE + b'"', "line 1"),
        (b" " + LINE, "line 1"),
        (LINE + b"\r" + LINE, "line 1"),
        (b"<html><body>Please sign in.</body></html>", "line 1"),
        (b"Not Found", "line 1"),
        (HEADER.replace(b"count", b"trades,count") + b"\n" + LINE, "line"),
        (LINE.replace(b",7,", b",7.0,"), "line"),
        (LINE.replace(b",7,", b",9223372036854775808,"), "line"),
        *[
            (LINE.replace(b"1.5", odd, 1), "line 1 is not a candle: .* is not a number")
            for odd in (
                b"+1.5",
                b"1e5",
                b"1.5e0",
                b"inf",
                b"-inf",
                b"nan",
                b"Infinity",
                b" 1.5",
                b"1.5 ",
                b"1[5",
                b"0x1",
                b"1_5",
                b"-",
                b"--1",
                b"1.5;",
                b"\xb2",
                b"\x001",
            )
        ],
        *[(LINE.replace(b"1.5", odd, 1), "line") for odd in (b".", b"1.5.0", b"..", b"1..5")],
    ],
)
def test_an_archive_file_with_a_bad_line_is_refused(text: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parsing.parse_archive(SPOT, text)


@pytest.mark.parametrize("position", [0, 1, 5, 6, 8, 10])
def test_no_other_byte_is_part_of_a_number_in_a_page_or_in_a_file(position: int) -> None:
    fields = LINE.split(b",")
    number = fields[position]
    for byte in set(range(256)) - set(b"0123456789.,\n"):
        odd = bytes([byte])
        for text in (odd + number, number + odd, number[:1] + odd + number[1:]):
            if text == b"-" + number:
                continue
            line = b",".join([*fields[:position], text, *fields[position + 1 :]])
            with pytest.raises(ValueError, match=r"."):
                parsing.parse_archive(SPOT, line)
            # JSON allows white space around a number without quotes, and an exponent.
            for body in [json_row(line, position)] + [json_row(line)] * (odd not in b" \t\r\neE"):
                with pytest.raises(ValueError, match=r"."):
                    parsing.parse_rows(SPOT, parsing.csv_rows(body))


def json_row(line: bytes, in_quotes: int | None = None) -> bytes:
    """Return a klines response with the fields of ``line``, without quotes but for one."""
    fields = [b'"%s"' % field if n == in_quotes else field for n, field in enumerate(line.split(b","))]
    return b"[[" + b",".join(fields) + b"]]"


# The requested window


def test_a_window_includes_its_start_and_excludes_its_end() -> None:
    table = frame(OPEN_TIME, OPEN_TIME + MINUTE)
    parsing.check_window(table, MINUTES, OPEN_TIME, OPEN_TIME + MINUTE + 1)
    with pytest.raises(ValueError, match="window"):
        parsing.check_window(table, MINUTES, OPEN_TIME, OPEN_TIME + MINUTE)
    with pytest.raises(ValueError, match="window"):
        parsing.check_window(table, MINUTES, OPEN_TIME + 1, OPEN_TIME + HOUR)


def test_a_single_candle_and_no_candle_are_checked_as_well() -> None:
    parsing.check_window(frame(), MINUTES, 0, 0)
    parsing.check_window(frame(OPEN_TIME), MINUTES, OPEN_TIME, OPEN_TIME + 1)
    with pytest.raises(ValueError, match="window"):
        parsing.check_window(frame(OPEN_TIME), MINUTES, OPEN_TIME + 1, OPEN_TIME + MINUTE)
    with pytest.raises(ValueError, match="grid of 1m"):
        parsing.check_window(frame(OPEN_TIME + 1), MINUTES, OPEN_TIME, OPEN_TIME + MINUTE)


@pytest.mark.parametrize("opens", [(0, 0), (0, 1, 1), (1, 0), (0, 2, 1, 3), (0, 1, 2, 0)])
def test_candles_must_ascend(opens: tuple[int, ...]) -> None:
    table = frame(*(OPEN_TIME + minute * MINUTE for minute in opens))
    with pytest.raises(ValueError, match="out of order"):
        parsing.check_window(table, MINUTES, OPEN_TIME, OPEN_TIME + HOUR)


@pytest.mark.parametrize(
    ("interval", "open_time", "is_on_grid"),
    [
        ("1m", OPEN_TIME + HOUR, True),
        ("1h", OPEN_TIME + HOUR, True),
        ("1h", OPEN_TIME + MINUTE, False),
        ("1d", OPEN_TIME, True),
        ("1d", OPEN_TIME + HOUR, False),
        ("1w", OPEN_TIME - 2 * DAY, True),  # Monday, 30 December 2024
        ("1w", OPEN_TIME, False),
        # The grid of 3d differs from symbol to symbol, and months differ in length: the schema checks those.
        ("3d", OPEN_TIME, True),
        ("3d", OPEN_TIME + DAY, True),
        ("3d", OPEN_TIME + 2 * DAY, True),
        ("1mo", OPEN_TIME, True),
    ],
)
def test_candles_must_open_on_the_grid_of_their_interval(interval: str, open_time: int, is_on_grid: bool) -> None:
    window = (OPEN_TIME - 7 * DAY, OPEN_TIME + 7 * DAY)
    if is_on_grid:
        parsing.check_window(frame(open_time), parse_interval(interval), *window)
    else:
        with pytest.raises(ValueError, match=f"grid of {interval}"):
            parsing.check_window(frame(open_time), parse_interval(interval), *window)


def test_one_candle_off_the_grid_is_enough() -> None:
    table = frame(OPEN_TIME, OPEN_TIME + MINUTE, OPEN_TIME + 2 * MINUTE + 1, OPEN_TIME + 3 * MINUTE)
    with pytest.raises(ValueError, match="grid of 1m"):
        parsing.check_window(table, MINUTES, OPEN_TIME, OPEN_TIME + HOUR)


# -- amounts to the last decimal --------------------------------------------------------------------------------------

EXACT = (10_000_000_001, 20_050_000_000, 5_000_000_000, 10_025_000_000)
"""The amounts of ``ROW`` in units of the eighth decimal."""


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize("time", [OPEN_TIME, str(OPEN_TIME)])
def test_amounts_of_a_response_are_exact_however_it_is_laid_out(separators: tuple[str, str], time: int | str) -> None:
    body = json.dumps([[time, *ROW[1:]]], separators=separators).encode()
    assert parsing.exact_amounts(parsing.csv_rows(body)) == {OPEN_TIME: EXACT}


def test_amounts_of_a_file_are_exact_with_and_without_header_in_both_units_of_time() -> None:
    microseconds = LINE.replace(str(OPEN_TIME).encode(), f"{OPEN_TIME}000".encode(), 1)
    for line in (LINE, microseconds):
        for text in (line, line + b"\n", HEADER + b"\n" + line + b"\n", HEADER + b"\r\n" + line + b"\r\n\r\n"):
            assert parsing.exact_amounts(text) == {OPEN_TIME: EXACT}


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("0", 0),
        ("7", 700_000_000),
        ("0.10", 10_000_000),
        ("5123456789.12345678", 512_345_678_912_345_678),  # Float64 ends with ...5712
        ("5123456789.1234567800", 512_345_678_912_345_678),
        ("5123456789.123456781", None),  # more decimals than the totals count
        ("1e5", None),
        ("-1", None),
        ("", None),
        ("1.", None),
        ("9" * 21, None),
    ],
)
def test_an_amount_is_exact_if_it_is_a_plain_decimal(text: str, units: int | None) -> None:
    line = LINE.replace(b",200.5,", f",{text},".encode(), 1)
    expected_amounts = {} if units is None else {OPEN_TIME: (EXACT[0], units, *EXACT[2:])}
    assert parsing.exact_amounts(line) == expected_amounts
    quoted = b",," + line.replace(f",{text},".encode(), f',"{text}",'.encode())
    for amount in (b"100.00000001", b"50.0", b"100.25"):
        quoted = quoted.replace(b"," + amount + b",", b',"' + amount + b'",')
    assert parsing.exact_amounts(quoted) == expected_amounts


def test_an_amount_that_was_a_number_in_json_is_not_exact() -> None:
    """Python reads such a number as Float64, so its text is lost."""
    body = body_of([[*ROW[:7], 5123456789.12345678, *ROW[8:]]])
    assert parsing.exact_amounts(parsing.csv_rows(body)) == {}


@given(st.binary() | st.lists(st.sampled_from([LINE, b",", b"\n", b'"', b"9" * 30])).map(b"".join))
def test_any_bytes_have_exact_amounts_or_none(text: bytes) -> None:
    for time, amounts in parsing.exact_amounts(text).items():
        assert time > 0
        assert len(amounts) == 4
