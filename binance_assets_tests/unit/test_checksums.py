"""The checksums of a file: which bytes they prove, and what a file without them is."""

from __future__ import annotations

import zlib

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from binance_assets.storage.checksums import fill_in, footer_is_intact, is_intact
from binance_assets.storage.parquet_files import to_parquet

FILE = to_parquet(pl.DataFrame({"open_time": range(50)}), {"layout": "2"})
LENGTH = 8 + int.from_bytes(FILE[-8:-4], "little")
FOOTER = FILE[-LENGTH:]


def test_the_checksums_are_those_that_the_documentation_describes() -> None:
    body = b"%08x" % zlib.crc32(FILE[:-LENGTH])
    assert b"body_crc32\x18\x08" + body in FOOTER
    start = FOOTER.index(b"footer_crc32\x18\x08") + len("footer_crc32") + 2
    blank = FOOTER[:start] + b"00000000" + FOOTER[start + 8 :]
    assert FOOTER[start : start + 8] == b"%08x" % zlib.crc32(blank)


@given(st.integers(0, 8 * len(FILE) - 1))
def test_every_flipped_bit_is_found(bit: int) -> None:
    changed = FILE[: bit // 8] + bytes([FILE[bit // 8] ^ 1 << bit % 8]) + FILE[bit // 8 + 1 :]
    footer = changed[-LENGTH:]
    assert is_intact(FILE, FOOTER)
    assert not is_intact(changed, footer)
    if bit // 8 < len(FILE) - LENGTH:
        assert footer_is_intact(footer)
    else:
        assert not footer_is_intact(footer)


def test_a_footer_without_a_checksum_is_neither_intact_nor_damaged() -> None:
    assert footer_is_intact(b"PAR1") is None
    assert not is_intact(b"PAR1PAR1", b"PAR1")
    with pytest.raises(ValueError, match="no place for its checksums"):
        fill_in(memoryview(bytearray(b"PAR1PAR1")), 4)
