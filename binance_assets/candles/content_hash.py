"""The content hash of a table of candles: the same for the same values, however a file encodes them.

It is SHA-256 over the columns in their order: for each the line ``<name> <type> <number of values>``, and its values as
8 bytes each, little-endian. Times are ms since the epoch. Values are compared bit by bit, so -0.0 differs from 0.0, and
NaN equals NaN. The first 12 bytes of the hash are kept, as 16 characters of URL-safe base64.

The values are read in place, by the Arrow C stream interface, whose layout never changes
(https://arrow.apache.org/docs/format/CStreamInterface.html). Polars itself needs NumPy or pyarrow for that. A day of 1m
takes 0.1 ms, and one of 1h 0.01 ms; with Python lists it would take 0.6 ms (measured with Polars 2.1).
"""

from __future__ import annotations

import base64
import ctypes
import hashlib
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import polars as pl

from binance_assets.candles.columns import TIME

_BYTES: Final = 12
_WIDTH: Final = 8
_TYPES: Final[dict[pl.DataType, str]] = {TIME: "datetime[ms]", pl.Int64(): "int64", pl.Float64(): "float64"}


class _Array(ctypes.Structure):
    """``struct ArrowArray`` of the Arrow C data interface."""


_Array._fields_ = (  # it refers to itself
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_Array))),
    ("dictionary", ctypes.c_void_p),
    ("release", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
    ("private_data", ctypes.c_void_p),
)


class _Stream(ctypes.Structure):
    """``struct ArrowArrayStream`` of the Arrow C stream interface."""

    _fields_ = (
        ("get_schema", ctypes.c_void_p),
        ("get_next", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(_Array))),
        ("get_last_error", ctypes.c_void_p),
        ("release", ctypes.c_void_p),
        ("private_data", ctypes.c_void_p),
    )


_pointer_of: Final = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def content_hash(candles: pl.DataFrame) -> str:
    """Return the content hash of a table of candles, as :func:`content_hashes` does for several."""
    return content_hashes(candles, [(0, candles.height)])[0]


def content_hashes(candles: pl.DataFrame, ranges: Sequence[tuple[int, int]]) -> list[str]:
    """Return the content hashes of several ranges of rows of a table; one call is faster than one for each.

    Args:
        candles: The table, with the types of :func:`binance_assets.candles.columns.columns`. A null counts as an absent
            value.
        ranges: First row, and the row after the last one.
    """
    table = candles.rechunk()
    names, types = tuple(table.columns), tuple(table.dtypes)
    capsule = table.__arrow_c_stream__()  # owns the stream, and releases it at the end
    stream, batch = _Stream.from_address(_pointer_of(capsule, b"arrow_array_stream")), _Array()
    has_batch = not stream.get_next(ctypes.addressof(stream), ctypes.byref(batch)) and batch.release
    try:
        children = [batch.children[position].contents for position in range(len(names))] if has_batch else []
        if any(child.null_count for child in children):
            return [_hash_with_nulls(table.slice(start, end - start)) for start, end in ranges]
        addresses = [child.buffers[1] + child.offset * _WIDTH for child in children if child.length]
        return [_hash(_headers(names, types, end - start), addresses, start, end) for start, end in ranges]
    finally:
        if has_batch:
            batch.release(ctypes.addressof(batch))


@lru_cache(maxsize=256)
def _headers(names: tuple[str, ...], types: tuple[pl.DataType, ...], rows: int) -> list[bytes]:
    """Return what precedes the values of each column."""
    return [f"{name} {_TYPES[dtype]} {rows}\n".encode() for name, dtype in zip(names, types, strict=True)]


def _hash(headers: Sequence[bytes], addresses: Sequence[int], start: int, end: int) -> str:
    """Return the hash of rows of columns without nulls, whose values begin at ``addresses`` in memory."""
    if start == end:
        return _to_text(hashlib.sha256(b"".join(headers)))
    digest, buffer = hashlib.sha256(), ctypes.c_char * ((end - start) * _WIDTH)
    for header, address in zip(headers, addresses, strict=True):
        digest.update(header)
        digest.update(buffer.from_address(address + start * _WIDTH))
    return _to_text(digest)


def _hash_with_nulls(table: pl.DataFrame) -> str:
    digest = hashlib.sha256()
    for column in table.get_columns():
        values = column.drop_nulls()
        digest.update(_headers((column.name,), (column.dtype,), len(values))[0])
        digest.update(_bytes_of(values))
    return _to_text(digest)


def _to_text(digest: hashlib._Hash) -> str:
    return base64.urlsafe_b64encode(digest.digest()[:_BYTES]).decode()


def _bytes_of(column: pl.Series) -> bytes:
    values = column.to_physical()
    return struct.pack(f"<{len(values)}{'d' if values.dtype.is_float() else 'q'}", *values)
