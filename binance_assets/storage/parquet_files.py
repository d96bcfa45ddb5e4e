"""Files of the lake as Parquet: writing them with checksums, and reading them, whatever state they are in."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import polars as pl

from binance_assets.model.outside import printable
from binance_assets.storage.checksums import PLACEHOLDERS, fill_in, footer_is_intact, is_intact
from binance_assets.storage.parquet_reads import Read, read
from binance_assets.storage.rehearsal import Unreadable, rehearse

__all__ = [
    "FIRST_READ",
    "Unreadable",
    "file_metadata",
    "footer_length",
    "intact_table",
    "read_all",
    "read_blocks",
    "read_footer",
    "to_cache_file",
    "to_parquet",
]

# Ten days of 1m: a reader of one day of a month decodes a third of the file, and compression hardly suffers. Files of
# 1h and coarser are one group. Measured with a month of 1m: 2.8 ms for a day; 5.6 ms with one group for all.
_ROW_GROUP: Final = 14_400

# The end of a Parquet file: the length of the footer and the magic bytes. No footer of ours comes near the bound.
_TAIL: Final = 8
_MAGIC: Final = b"PAR1"
FIRST_READ: Final = 65_536
"""How many bytes of the end of a file are read first."""
_MAX_FOOTER: Final = 16_000_000


def to_parquet(table: pl.DataFrame, metadata: Mapping[str, str]) -> bytes:
    """Return a Parquet file: zstd, statistics, row groups of ten days of 1m, and its checksums."""
    from arro3.io import write_parquet  # only writes need it

    buffer = io.BytesIO()
    integers = [name for name, dtype in table.schema.items() if dtype.is_integer() or dtype.is_temporal()]
    write_parquet(
        table,
        buffer,
        compression="zstd(1)",  # level 3 takes a fifth more time and saves half a percent of the bytes
        max_row_group_size=_ROW_GROUP,
        # Prices and amounts hardly repeat, and times differ by a constant: dictionaries would cost a third more bytes.
        dictionary_enabled=False,
        column_encoding=dict.fromkeys(integers, "delta_binary_packed"),
        key_value_metadata=dict(metadata) | PLACEHOLDERS,
    )
    return _with_checksums(buffer)


def to_cache_file(table: pl.DataFrame) -> bytes:
    """Return a Parquet file of a table that holds no candles, with checksums; lists take a third of the memory."""
    buffer = io.BytesIO()
    table.write_parquet(
        buffer, compression="zstd", compression_level=1, row_group_size=_ROW_GROUP, metadata=PLACEHOLDERS
    )
    return _with_checksums(buffer)


def _with_checksums(buffer: io.BytesIO) -> bytes:
    with buffer.getbuffer() as content:
        fill_in(content, _footer_length(content))
    return buffer.getvalue()


def footer_length(end: bytes, size: int) -> int:
    """Return the number of bytes from the footer to the end of a file, given its last bytes; 0 if it is not Parquet."""
    length = _footer_length(end)
    return 0 if end[-len(_MAGIC) :] != _MAGIC or length > min(size, _MAX_FOOTER) else length


def read_footer(path: Path) -> tuple[bytes, int]:
    """Return the bytes from the footer to the end of a Parquet file, and the size of the file in bytes.

    The file is opened once, so that both belong to the same version of it. What is not Parquet gives an empty footer.

    Raises:
        OSError: The file does not exist or may not be read.
    """
    with open(path, "rb", buffering=0) as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - FIRST_READ))
        end = file.read()
        length = footer_length(end, size)
        if length > len(end):
            file.seek(size - length)
            end = file.read()
        return end[-length:] if length else b"", size


def _footer_length(end: bytes | memoryview) -> int:
    return _TAIL + int.from_bytes(end[-_TAIL : -len(_MAGIC)], "little")


def file_metadata(footer: bytes) -> dict[str, str]:
    """Return the key-value metadata of a file, given its bytes from the footer to the end.

    Of an intact file of layout 2 it has what :func:`binance_assets.storage.metadata.decode` reads.

    Raises:
        Unreadable: It cannot be read.
        OSError: No process can be started to try it.
    """
    if not footer:
        raise Unreadable("its end is not that of a Parquet file")
    is_proved = footer_is_intact(footer)
    if is_proved is False:
        raise Unreadable("its footer is not the one that was written")
    if is_proved and (texts := _texts_of(footer)) is not None:
        return texts
    metadata: dict[str, str] = _read("metadata", footer, is_proved is True)
    return metadata


def _texts_of(footer: bytes) -> dict[str, str] | None:
    """Return the metadata of a file of the lake, given its intact footer; None if it is elsewhere.

    Polars reads the statistics of all columns first, which takes five times as long. The pairs of key and value come
    after them, so the last place of a key is the one that counts.
    """
    texts = {}
    for key, pattern in _PLACES.items():
        found = footer.rfind(pattern)
        start, length = _length_at(footer, found + len(pattern))
        end = start + length
        if found < 0 or footer[end : end + 1] != b"\0":
            return None
        try:
            texts[key] = footer[start:end].decode()
        except UnicodeDecodeError:
            return None
    return texts


def _length_at(footer: bytes, place: int) -> tuple[int, int]:
    """Return where a text begins, given the place of its length, and the length: seven bits in each byte."""
    length = shift = 0
    for byte in footer[place : place + _MOST_LENGTH_BYTES]:
        place += 1
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    return place, length


# A pair in the footer: its key and its value, each a field of type binary (0x18), its length, and its text.
_PLACES: Final = {
    key: b"\x18" + bytes([len(key)]) + key.encode() + b"\x18" for key in ("layout", "series", "venue", "partitions")
}
_MOST_LENGTH_BYTES: Final = 4


def read_all(content: bytes, footer: bytes) -> pl.DataFrame:
    """Return all rows of a file, given its content and its footer.

    Raises:
        Unreadable: Some of it cannot be read.
        OSError: No process can be started to try it.
    """
    table: pl.DataFrame = _read("table", content, is_intact(content, footer))
    return table


def intact_table(content: bytes) -> pl.DataFrame | None:
    """Return all rows of a file that :func:`to_parquet` wrote; None if its bytes are not exactly those."""
    length = footer_length(content[-FIRST_READ:], len(content))
    footer = content[-length:] if length else b""
    if not is_intact(content, footer):
        return None
    with suppress(Unreadable):
        return read_all(content, footer)
    return None


def read_blocks(content: bytes, footer: bytes, rows: int) -> tuple[list[pl.DataFrame], str | None]:
    """Return those row groups of a damaged file that can be read, and why the first other one cannot.

    Args:
        content: The content of the file.
        footer: Its footer.
        rows: How many rows it has.

    Raises:
        OSError: No process can be started to try it.
    """
    is_proved, blocks, reason = is_intact(content, footer), list[pl.DataFrame](), None
    for first in range(0, rows, _ROW_GROUP):
        try:
            blocks.append(_read("rows", content, is_proved, first, _ROW_GROUP))
        except Unreadable as error:
            reason = reason or str(error)
    return blocks, reason


def _read(kind: Read, content: bytes, is_proved: bool, first: int = 0, count: int = 0) -> Any:
    """Return what a read returns; rehearse it unless the bytes are proved to be those that were written."""
    if not is_proved:
        rehearse(kind, content, first, count)
    try:
        return read(kind, content, first, count)
    except (Exception, pl.exceptions.PanicException) as error:
        raise Unreadable(printable(error)) from None
