"""Pages, zips, and CSVs from outside: each is a table or a ValueError, whatever its bytes, and costs bounded memory."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from binance_assets.candles.columns import columns
from binance_assets.candles.parsing import check_window, csv_rows, parse_archive, parse_rows
from binance_assets.exchange.archive import unzip
from binance_assets.exchange.archive_files import ArchiveFile, most_csv_bytes
from binance_assets.model.markets import COINM, SANDBOX_HEADER, SPOT
from binance_assets.model.series import parse_series
from binance_assets.model.timestamps import CANDLE_TIMES
from binance_assets.sandbox import Sandbox
from binance_assets.settings import Settings
from binance_assets_tests.support.exchange import assert_exact, days_of
from binance_assets_tests.support.file_server import serving, sidecar_of, zip_of
from binance_assets_tests.support.memory import most_memory

HOURS: Final = parse_series("spot/BTCUSDT/1h")
FILE: Final = ArchiveFile.named(HOURS, "BTCUSDT-1h-2024-01-02.zip")
CSV: Final = "BTCUSDT-1h-2024-01-02.csv"
MOST: Final = most_csv_bytes(FILE)

OPEN_TIME: Final = 1_704_153_600_000
FIELDS: Final = [str(OPEN_TIME), "1", "2", "1", "2", "5", str(OPEN_TIME + 3_599_999), "8", "3", "2", "3", "0"]
TEXT: Final = b",".join(field.encode() for field in FIELDS) + b"\n"
ZIP: Final = zip_of({CSV: TEXT})

# Values for each field of a row, in a page and in a file. Each is a number that is too large, or no number at all.
HOSTILE_FIELDS: Final = [
    *("8200000000000000", "8300000000000000", "9223372036854775807", "-9223372036854775808", "1" + "0" * 30),
    *("1e999", "-1e999", "1e-999", "NaN", "Infinity", "-Infinity", "inf", "nan", "null", "true", "1_000", "0x10"),
    *(
        "",
        " ",
        "-",
        "-0",
        "+1",
        "1.",
        ".1",
        "..",
        "1" * 5_000,
        "1." + "0" * 5_000 + "1",
        "²",
        "\u0661",
        "\0",
        "\x1b[2J",
    ),
    *("[]", "{}", "[" * 5_000, '"', "'", ",", "\n", "\r", "\r\n", "\u2028", "=cmd()", "\ud800"),
]


def as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def page_of(fields: list[str], quoted: tuple[int, ...] = (1, 2, 3, 4, 5, 7, 9, 10, 11)) -> bytes:
    texts = (f'"{field}"' if place in quoted else field for place, field in enumerate(fields))
    return as_bytes(f"[[{','.join(texts)}]]")


def with_field(place: int, value: str) -> list[str]:
    return [*FIELDS[:place], value, *FIELDS[place + 1 :]]


def table_or_reason(parse: Callable[[], pl.DataFrame]) -> tuple[pl.DataFrame | None, str]:
    """Return the table, or None and the text of the ValueError; any other error is a failure."""
    try:
        return parse(), ""
    except ValueError as error:
        return None, str(error)


def assert_is_table_or_one_line(parse: Callable[[], pl.DataFrame]) -> None:
    table, reason = table_or_reason(parse)
    assert reason.isprintable(), reason
    assert len(reason) < 400
    if table is None:
        return
    assert dict(table.schema) == columns(SPOT)
    for name in ("open_time", "close_time"):
        assert all(time in CANDLE_TIMES for time in table[name].to_physical())


@pytest.mark.parametrize("place", range(12))
def test_a_hostile_field_makes_a_table_or_a_value_error(place: int) -> None:
    for value in HOSTILE_FIELDS:
        fields = with_field(place, value)
        line = as_bytes(",".join(fields)) + b"\n"
        for text in (line, TEXT + line, line + TEXT, line.rstrip(b"\n")):
            assert_is_table_or_one_line(lambda: parse_archive(SPOT, text))  # noqa: B023
        for body in (page_of(fields), page_of(fields, quoted=tuple(range(12))), page_of(fields, quoted=())):
            assert_is_table_or_one_line(lambda: parse_rows(SPOT, csv_rows(body)))  # noqa: B023
            assert_is_table_or_one_line(lambda: parse_rows(SPOT, csv_rows(body.replace(b",", b", "))))  # noqa: B023


@pytest.mark.parametrize("time", [8_200_000_000_000_000, 8_300_000_000_000_000, 2**63 - 1])
def test_a_close_time_far_in_the_future_is_named(time: int) -> None:
    fields = with_field(6, str(time))
    with pytest.raises(ValueError, match=f"close_time {time} is not a time from 2017 to 2099"):
        parse_archive(SPOT, ",".join(fields).encode())
    with pytest.raises(ValueError, match=f"close_time {time} is not a time from 2017 to 2099"):
        parse_rows(SPOT, csv_rows(page_of(fields)))


@pytest.mark.parametrize(
    "body",
    [b"[" * 100_000, b"{" * 100_000, b'{"a":' * 100_000, b"[[" + b"1," * 20_000 + b"1]]", b"\xff\xfe[[]]", b"1e999"],
    ids=["lists", "braces", "objects", "a long row", "not UTF-8", "a number"],
)
def test_a_page_that_is_something_else_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z"):
        csv_rows(body)
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z"):
        parse_rows(SPOT, body)
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z"):
        parse_archive(SPOT, body)


def test_a_panic_of_polars_is_a_value_error_that_names_it() -> None:
    class Broken(pl.DataFrame):
        def is_empty(self) -> bool:
            raise pl.exceptions.PanicException("index out of bounds\nnote: \x1b[31m")

    with pytest.raises(ValueError, match=r"\APanicException: index out of bounds note: \[31m\Z"):
        check_window(Broken(), HOURS.interval, 0, 1)


@given(st.binary(max_size=2_000), st.sampled_from([SPOT, COINM]))
def test_any_bytes_are_a_table_or_a_value_error(body: bytes, market: Any) -> None:
    with suppress(ValueError):
        assert dict(parse_rows(market, csv_rows(body)).schema) == columns(market)
    with suppress(ValueError):
        assert dict(parse_archive(market, body).schema) == columns(market)


@given(st.lists(st.tuples(st.integers(0, 11), st.sampled_from(HOSTILE_FIELDS)), min_size=1, max_size=4))
def test_rows_of_hostile_fields_are_a_table_or_a_value_error(changes: list[tuple[int, str]]) -> None:
    fields = FIELDS
    for place, value in changes:
        fields = [*fields[:place], value, *fields[place + 1 :]]
    assert_is_table_or_one_line(lambda: parse_archive(SPOT, TEXT + as_bytes(",".join(fields))))
    assert_is_table_or_one_line(lambda: parse_rows(SPOT, csv_rows(page_of(fields))))


# Zips


def packed(method: int, text: bytes = TEXT) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr(zipfile.ZipInfo(CSV), text, method)
    return buffer.getvalue()


def patched(offset: int, value: bytes, central_offset: int | None = None, body: bytes = ZIP) -> bytes:
    """Return a zip with other bytes in the header of its member, and in that of the central directory."""
    changed = bytearray(body)
    start = body.index(b"PK\x01\x02") + (offset + 2 if central_offset is None else central_offset)
    changed[offset : offset + len(value)] = value
    changed[start : start + len(value)] = value
    return bytes(changed)


def damaged(method: int) -> bytes:
    """Return a zip whose compressed bytes are damaged in the middle."""
    body = bytearray(packed(method, TEXT * 20))
    middle = (30 + len(CSV) + body.index(b"PK\x01\x02")) // 2
    body[middle : middle + 8] = b"\xff" * 8
    return bytes(body)


def in_end_record(offset: int, value: bytes) -> bytes:
    changed, start = bytearray(ZIP), ZIP.index(b"PK\x05\x06") + offset
    changed[start : start + len(value)] = value
    return bytes(changed)


def with_zip64(size: int) -> bytes:
    """Return a zip whose central directory gives the size of the member in a field for large files."""
    extra = struct.pack("<HHQ", 1, 8, size)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        info = zipfile.ZipInfo(CSV)
        archive.writestr(info, TEXT, zipfile.ZIP_DEFLATED)
        info.extra = struct.pack("<HHQ", 0x7777, 8, size)  # of a kind that the writer keeps; renamed below
    body = bytearray(buffer.getvalue().replace(struct.pack("<HHQ", 0x7777, 8, size), extra))
    start = body.index(b"PK\x01\x02")
    body[start + 24 : start + 28] = b"\xff" * 4
    return bytes(body)


MEGABYTE: Final = 1_000_000


def bomb(claimed: int) -> bytes:
    """Return a zip of 300 MB of zeros that claims to hold ``claimed`` bytes; built from one megabyte, repeated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(MEGABYTE)) + packer.flush(zlib.Z_FULL_FLUSH)
    data = block * 300 + packer.flush()
    name = CSV.encode()
    fields = (20, 0, zipfile.ZIP_DEFLATED, 0, 33, 0, len(data), claimed, len(name), 0)
    local = struct.pack("<4s5H3I2H", b"PK\x03\x04", *fields) + name + data
    central = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, *fields, 0, 0, 0, 0, 0) + name
    return local + central + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, len(central), len(local), 0)


ODD_ZIPS: Final = {
    "compressed 4 GB": patched(18, b"\xfe\xff\xff\xff"),
    "on disk 7": in_end_record(4, b"\x07\0\x07\0"),
    "of 65,000 files": in_end_record(8, b"\xe8\xfd\xe8\xfd"),
}
"""Zips that lie about something of which the content does not depend."""

HOSTILE_ZIPS: Final = {
    "encrypted": patched(6, b"\x01"),
    "strongly encrypted": patched(6, b"\x41"),
    "patch data": patched(6, b"\x20"),
    "damaged deflate": damaged(zipfile.ZIP_DEFLATED),
    "bzip2": packed(zipfile.ZIP_BZIP2),
    "damaged bzip2": damaged(zipfile.ZIP_BZIP2),
    "lzma": packed(zipfile.ZIP_LZMA),
    "damaged lzma": damaged(zipfile.ZIP_LZMA),
    **{f"method {method}": patched(8, bytes([method, 0])) for method in (1, 6, 9, 93, 97, 98, 99)},
    "version 99": patched(4, b"\x63"),
    "wrong CRC": patched(14, b"\0\0\0\0"),
    "smaller than it is": patched(22, b"\x01\0\0\0"),
    "larger than it is": patched(22, b"\xff\xff\0\0"),
    "of 4 GB": patched(22, b"\xfe\xff\xff\xff"),
    "header elsewhere": in_end_record(16, b"\xff\xff\0\0"),
    "zip64 of 2^63": with_zip64(2**63),
    "zip64 of 1 TB": with_zip64(2**40),
    "truncated": ZIP[:-9],
    "nothing": b"",
    "not a zip": TEXT,
    "bomb": bomb(300 * MEGABYTE),
    "bomb that lies": bomb(len(TEXT)),
    "bomb within its bound": bomb(MOST),
    "name of 60 kB": zip_of({"\x1b[2J\n" * 10_000: TEXT}),
}


@pytest.mark.parametrize("name", HOSTILE_ZIPS)
def test_a_hostile_zip_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(ValueError, match=r"\Athe (zip|file in the zip) ") as refusal:
        unzip(HOSTILE_ZIPS[name], CSV, MOST)
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 400


@pytest.mark.parametrize("name", ODD_ZIPS)
def test_an_odd_zip_is_its_content_or_a_value_error(name: str) -> None:
    with suppress(ValueError):
        assert unzip(ODD_ZIPS[name], CSV, MOST) == TEXT


@pytest.mark.parametrize("claimed", [300 * MEGABYTE, len(TEXT), MOST])
def test_a_bomb_of_300_mb_is_not_unpacked(claimed: int) -> None:
    body = bomb(claimed)
    with most_memory(5 * MEGABYTE), pytest.raises(ValueError, match=r"larger than|cannot be read"):
        unzip(body, CSV, MOST)


def test_a_file_as_large_as_its_bound_is_read_and_one_byte_more_is_refused() -> None:
    text = TEXT.ljust(MOST, b"\n")
    assert unzip(zip_of({CSV: text}), CSV, MOST) == text
    with pytest.raises(ValueError, match=f"larger than the {MOST:,} bytes that its candles can take"):
        unzip(zip_of({CSV: text + b"\n"}), CSV, MOST)


@pytest.mark.parametrize("name", ["BTCUSDT-1m-2024-01.zip", "BTCUSDT-1m-2024-01-02.zip"])
def test_the_bound_holds_the_longest_lines_twice(name: str) -> None:
    file = ArchiveFile.named(parse_series("spot/BTCUSDT/1m"), name)
    longest = ",".join(["1735689600000000"] * 2 + ["123456789012.12345678"] * 8 + ["1234567890", "0\n"])
    candles = (file.end - file.start) // 60_000
    assert candles * 2 * len(longest) < most_csv_bytes(file) < 30 * MEGABYTE


@given(
    st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]),
    st.lists(st.tuples(st.integers(0, 300), st.binary(max_size=4), st.integers(0, 4)), min_size=1, max_size=3),
)
def test_a_mutated_zip_is_its_content_or_a_value_error(method: int, changes: list[tuple[int, bytes, int]]) -> None:
    body = packed(method)
    for position, patch, cut in changes:
        body = body[:position] + patch + body[position + cut :]
    with suppress(ValueError):
        assert unzip(body, CSV, MOST) == TEXT


# A zip in a run

# A day of 1m costs fewer requests from the archive than from the REST API of futures.
MINUTES: Final = "usdm/BTCUSDT/1m"
DAY_OF_MINUTES: Final = ArchiveFile.named(parse_series(MINUTES), "BTCUSDT-1m-2024-01-02.zip")


@pytest.mark.parametrize("name", ["encrypted", "damaged bzip2", "damaged lzma", "bomb"])
def test_after_a_hostile_zip_the_candles_come_from_rest(settings: Settings, sandbox: Sandbox, name: str) -> None:
    body = HOSTILE_ZIPS[name].replace(b"-1h-", b"-1m-")
    files = {DAY_OF_MINUTES.path: body, f"{DAY_OF_MINUTES.path}.CHECKSUM": sidecar_of(body, DAY_OF_MINUTES.name)}
    with serving(files, {SANDBOX_HEADER: "1"}) as url:
        with_file = settings.model_copy(update={"archive_url": url})
        (day,) = days_of(with_file, MINUTES, "2024-01-02", "2024-01-03", "auto")
    assert (day.verdict, day.provenance.source) == ("complete", "rest"), day.reason
    assert_exact(sandbox, MINUTES, [day])
