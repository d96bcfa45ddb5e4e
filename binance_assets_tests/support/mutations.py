"""Mutated copies of good inputs: what the fuzzer and the hostile tests send to a border."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Final

_NUMBER: Final = re.compile(rb"[0-9]+")

_NUMBERS: Final = (
    *(b"0", b"-0", b"-1", b"+1", b"01", b"1.", b".1", b"1e5", b"1e999", b"-1e999", b"1e-400", b"NaN", b"inf"),
    *(b"2147483648", b"9223372036854775807", b"9223372036854775808", b"18446744073709551616", b"8200000000000000"),
    *(b"1" + b"0" * 30, b"9" * 5_000, "²".encode(), "\u0663".encode(), b"0x10", b"1_000", b"null", b"true", b'"1"'),
)

_FRAGMENTS: Final = (
    *(b"", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\r\n", b"\n", b" ", b"\t", b"\x1b[2J", b"\xed\xa0\x80"),
    *("\u202e".encode(), b"[", b"]", b"{", b"}", b'"', b"'", b",", b":", b"\\", b"&a", b"*a", b"<<", b"#"),
    *(b"-", b"%", b"../", b"|", b"<b>"),
    *(b"[" * 5_000, b"{" * 500, b'{"a":' * 2_000, b"," * 100, b"0" * 1_000),
)

_BYTES: Final = (0, 1, 0x7F, 0x80, 0xFE, 0xFF)

Mutation = Callable[[random.Random, bytearray, Sequence[bytes]], None]


def mutate(rng: random.Random, samples: Sequence[bytes]) -> bytes:
    """Return a copy of one of ``samples`` with a few random changes; sometimes only random bytes.

    Args:
        rng: Source of all choices: the same state gives the same bytes.
        samples: Good inputs of the border.
    """
    if rng.random() < 0.01:
        return rng.randbytes(rng.choice((0, 1, 8, 100, 4_096)))
    content = bytearray(rng.choice(samples))
    for _ in range(min(8, 1 + int(rng.expovariate(0.8)))):
        rng.choice(_MUTATIONS)(rng, content, samples)
    return bytes(content)


def _flip_bit(rng: random.Random, content: bytearray, _samples: Sequence[bytes]) -> None:
    if content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def _set_byte(rng: random.Random, content: bytearray, _samples: Sequence[bytes]) -> None:
    if content:
        content[rng.randrange(len(content))] = rng.choice((*_BYTES, rng.randrange(256)))


def _set_integer(rng: random.Random, content: bytearray, _samples: Sequence[bytes]) -> None:
    """Overwrite 2, 4 or 8 bytes with the number of a size, an offset or a count."""
    width = rng.choice((2, 4, 8))
    if len(content) >= width:
        at = rng.randrange(len(content) - width + 1)
        end = 2 ** (8 * width)
        number = rng.choice((0, 1, end // 2, end - 1, len(content), rng.randrange(end)))
        content[at : at + width] = (number % end).to_bytes(width, "little")


def _set_varint(rng: random.Random, content: bytearray, _samples: Sequence[bytes]) -> None:
    """Overwrite some bytes with a large number as Parquet's footers encode it, seven bits a byte."""
    if content:
        at, length = rng.randrange(len(content)), rng.randrange(1, 10)
        content[at : at + length] = b"\xff" * (length - 1) + b"\x7f"


def _truncate(rng: random.Random, content: bytearray, _samples: Sequence[bytes]) -> None:
    del content[rng.randrange(len(content) + 1) :]


def _delete(rng: random.Random, content: bytearray, _samples: Sequence[bytes]) -> None:
    at = rng.randrange(len(content) + 1)
    del content[at : at + rng.choice((1, 2, 10, 100))]


def _repeat(rng: random.Random, content: bytearray, _samples: Sequence[bytes]) -> None:
    at = rng.randrange(len(content) + 1)
    content[at:at] = content[at : at + rng.choice((1, 10, 100, 1_000))]


def _insert(rng: random.Random, content: bytearray, _samples: Sequence[bytes]) -> None:
    at = rng.randrange(len(content) + 1)
    content[at:at] = rng.choice(_FRAGMENTS)


def _replace_number(rng: random.Random, content: bytearray, _samples: Sequence[bytes]) -> None:
    at = rng.randrange(len(content) + 1)
    number = _NUMBER.search(content, at) or _NUMBER.search(content)
    if number is not None:
        content[number.start() : number.end()] = rng.choice(_NUMBERS)


def _splice(rng: random.Random, content: bytearray, samples: Sequence[bytes]) -> None:
    other = rng.choice(samples)
    content[rng.randrange(len(content) + 1) :] = other[rng.randrange(len(other) + 1) :]


_MUTATIONS: Final[tuple[Mutation, ...]] = (
    *(_flip_bit, _set_byte, _set_integer, _set_varint, _truncate),
    *(_delete, _repeat, _insert, _replace_number, _replace_number, _splice),
)
