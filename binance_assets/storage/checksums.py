"""Checksums in a file of the lake: they prove that its bytes are those that were written.

Two keys of the file's own key-value metadata hold a CRC-32, as eight hex digits:

- ``body_crc32``: of the bytes before the footer.
- ``footer_crc32``: of the footer to the end of the file, with eight zeros in place of this checksum.

They find damage, not forgery. A footer with another checksum is refused: nothing else protects the verdicts in it. A
file without checksums, or with a damaged body, is read with care, see :mod:`binance_assets.storage.rehearsal`.
"""

from __future__ import annotations

import re
import zlib
from typing import Final

PLACEHOLDERS: Final = {"body_crc32": "0" * 8, "footer_crc32": "0" * 8}
"""The metadata with which a file is written before :func:`fill_in`."""

# A pair of key and value in the footer: each is a field of type binary (0x18), its length in a byte, and its text.
_BODY: Final = re.compile(rb"\x18\x0abody_crc32\x18\x08([0-9a-f]{8})")
_FOOTER: Final = re.compile(rb"\x18\x0cfooter_crc32\x18\x08([0-9a-f]{8})")


def fill_in(content: memoryview, footer_length: int) -> None:
    """Write the checksums into a file that was written with ``PLACEHOLDERS``.

    Args:
        content: The file.
        footer_length: Length of its footer to the end of the file.

    Raises:
        ValueError: It has no placeholders.
    """
    body, footer = content[:-footer_length], content[-footer_length:]
    for pattern, checked in ((_BODY, body), (_FOOTER, footer)):
        place = pattern.search(footer)
        if place is None:
            raise ValueError("the file has no place for its checksums")
        footer[place.start(1) : place.end(1)] = b"%08x" % zlib.crc32(checked)


def footer_is_intact(footer: bytes) -> bool | None:
    """Return whether the bytes from the footer to the end of a file are those that were written.

    None if the footer has no checksum, as in layout 1 and in files of development versions of 0.2.0.
    """
    place = _FOOTER.search(footer)
    if place is None:
        return None
    blank = footer[: place.start(1)] + b"0" * 8 + footer[place.end(1) :]
    return place[1] == b"%08x" % zlib.crc32(blank)


def is_intact(content: bytes, footer: bytes) -> bool:
    """Return whether all bytes of a file, which ends with ``footer``, are proved to be those that were written."""
    place = _BODY.search(footer)
    if place is None or not footer_is_intact(footer):
        return False
    return place[1] == b"%08x" % zlib.crc32(memoryview(content)[: -len(footer)])
