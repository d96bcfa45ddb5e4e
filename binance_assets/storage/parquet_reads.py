"""The calls by which Polars reads a file of the lake; and, as a script, a process that rehearses them.

The script imports nothing of the package, so it starts fast and needs no path to it. It reads requests from its
standard input and answers each with a line. :mod:`binance_assets.storage.rehearsal` starts it.
"""

from __future__ import annotations

import io
import json
import os
import select
import signal
import struct
import sys
from collections.abc import Mapping
from typing import BinaryIO, Final, Literal

import polars as pl

Read = Literal["metadata", "table", "rows"]
"""What is read: the metadata of a footer, all rows of a file, or some of them."""

READS: Final[tuple[Read, ...]] = ("metadata", "table", "rows")

REQUEST: Final = struct.Struct("<BQQQ")
"""The head of a request: the read by its number, length of the bytes that follow, first row, number of rows."""

_MAGIC: Final = b"PAR1"

# What a healthy read never takes. A request that asks for more memory ends the process, which is its purpose.
_MEMORY: Final = 1 << 30
_CPU_SECONDS: Final = 20
_IDLE_SECONDS: Final = 60


def read_metadata(footer: bytes) -> dict[str, str]:
    """Return the key-value metadata of a file, given its bytes from the footer to the end."""
    # Without `None`, Polars looks for credentials of a cloud, which takes longer than reading the metadata.
    return pl.read_parquet_metadata(io.BytesIO(_MAGIC + footer), credential_provider=None)


def read_table(content: bytes) -> pl.DataFrame:
    """Return all rows of a file."""
    return pl.read_parquet(io.BytesIO(content), hive_partitioning=False)


def read_rows(content: bytes, first: int, count: int) -> pl.DataFrame:
    """Return ``count`` rows of a file from number ``first`` on; other row groups are not decoded."""
    return pl.scan_parquet(io.BytesIO(content), hive_partitioning=False).slice(first, count).collect()


def read(kind: Read, content: bytes, first: int = 0, count: int = 0) -> Mapping[str, str] | pl.DataFrame:
    """Return what a read returns.

    Raises:
        Exception, polars.exceptions.PanicException: The bytes cannot be read.
    """
    if kind == "metadata":
        return read_metadata(content)
    return read_table(content) if kind == "table" else read_rows(content, first, count)


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer each request with ``null``, or with the text of its error in JSON, until there are no more."""
    while _is_awaited(requests) and len(head := requests.read(REQUEST.size)) == REQUEST.size:
        number, length, first, count = REQUEST.unpack(head)
        content = requests.read(length)
        error: str | None = None
        _limit_time(_CPU_SECONDS)
        try:
            read(READS[number], content, first, count)
        except (Exception, pl.exceptions.PanicException) as reason:
            error = str(reason).strip() or type(reason).__name__
        _limit_time(0)
        answers.write(json.dumps(error).encode() + b"\n")
        answers.flush()


def _is_awaited(requests: BinaryIO) -> bool:
    """Return whether a request arrives before this process is idle for too long; Windows waits without a limit."""
    return os.name == "nt" or bool(select.select([requests], [], [], _IDLE_SECONDS)[0])


def _limit_time(seconds: float) -> None:
    """End this process after that much CPU time; 0 for no limit."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _limit_memory() -> None:
    """Let this process have little more memory than it has now, where the system can limit it."""
    try:
        import resource

        with open("/proc/self/statm") as pages:
            used = int(pages.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.RLIM_INFINITY))
    except (ImportError, OSError, ValueError):
        pass  # a process that dies for another reason shows the same


def _warm_up() -> None:
    """Read a small file, so that the threads and buffers of Polars count as memory that this process has."""
    file = io.BytesIO()
    pl.DataFrame({"row": [1]}).write_parquet(file)
    read_table(file.getvalue())


if __name__ == "__main__":
    _warm_up()
    _limit_memory()
    _serve(sys.stdin.buffer, sys.stdout.buffer)
