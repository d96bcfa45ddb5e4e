"""A second process that reads the ends of files: with 100,000 files, that keeps a core busy for seconds.

The process reads a series at a time and answers with the rows that the file index gets from it. It writes nothing. What
it cannot read, this process reads again, so errors are the same with and without it. It has a session of its own, so
that Ctrl-C in a terminal reaches only the process that ends it.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self, cast

import polars as pl

_MOST_SERIES: Final = 20  # of a request
_SHARE: Final = 4
_LENGTH_BYTES: Final = 8
_MOST_ANSWERED: Final = 1 << 30
_SECONDS_TO_END: Final = 5


class FooterReader:
    """Reads series from the end of a queue in a second process, while others take them from its beginning.

    It is a context manager: at its end, the process has ended.

    Args:
        lake: The folder of the lake.
        first: Key of the first partition; files of earlier spans are left out.
        last: Key of the last partition; files of later spans are left out.
        waiting: The names of the series that are not read yet.
    """

    def __init__(self, lake: Path, first: str, last: str, waiting: deque[str]) -> None:
        self._settings = {"lake": str(lake), "first": first, "last": last}
        self._waiting = waiting
        self._tables: list[pl.DataFrame] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._work, name="footer-reader", daemon=True)

    def __enter__(self) -> Self:
        """Start the process; without a second core, or if it cannot be started, everything waits for others."""
        if _cores() > 1:
            with suppress(OSError):
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", __name__],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,  # it is only a cache of what this process could read
                    env={**os.environ, "POLARS_MAX_THREADS": "1"},
                    start_new_session=True,
                )
                self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the process, whatever it does."""
        if self._process is None:
            return
        self._waiting.clear()
        self._process.kill()
        self._thread.join(_SECONDS_TO_END)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                cast("BinaryIO", pipe).close()

    def tables(self) -> list[pl.DataFrame]:
        """Wait for what the process reads; return it. The queue has again what it could not read."""
        if self._process is not None:
            self._thread.join()
        tables, self._tables = self._tables, []
        return tables

    def _work(self) -> None:
        while names := _taken(self._waiting):
            try:
                self._tables.append(self._ask(names))
            except (Exception, pl.exceptions.PanicException):  # whatever it is: these series are not read
                self._waiting.extend(reversed(names))
                return

    def _ask(self, names: list[str]) -> pl.DataFrame:
        """Return what the process reads of some series.

        Raises:
            OSError, ValueError, polars.exceptions.PolarsError: It cannot read them, or it has ended.
        """
        process = cast("subprocess.Popen[bytes]", self._process)
        requests, answers = cast("tuple[BinaryIO, BinaryIO]", (process.stdin, process.stdout))
        requests.write(json.dumps({**self._settings, "series": names}).encode() + b"\n")
        requests.flush()
        length = int.from_bytes(answers.read(_LENGTH_BYTES), "little")
        if not 0 < length <= _MOST_ANSWERED:
            raise ValueError("the series could not be read")
        return pl.read_ipc_stream(io.BytesIO(answers.read(length)))


def _taken(waiting: deque[str]) -> list[str]:
    """Take some series from the end of a queue, fewer the fewer are left for all; none if it is empty."""
    names: list[str] = []
    count = max(1, min(_MOST_SERIES, len(waiting) // _SHARE))
    with suppress(IndexError):  # others take the last one
        while len(names) < count:
            names.append(waiting.pop())
    return names


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer each request with the rows of its series, or with nothing if they cannot be read, until there are none."""
    for line in requests:
        content = b""
        with suppress(Exception):  # the other process finds out why
            content = _read(**json.loads(line))
        answers.write(len(content).to_bytes(_LENGTH_BYTES, "little") + content)
        answers.flush()


def _read(lake: str, first: str, last: str, series: list[str]) -> bytes:
    """Return the rows of the file index of some series, as an IPC stream.

    Raises:
        OSError, LaterLayout, LakeError: A file may not be read, or a later version wrote it.
    """
    from binance_assets.model.series import parse_any_series
    from binance_assets.storage.file_index import read_rows
    from binance_assets.storage.lake import Lake
    from binance_assets.storage.span_folder import SpanFolder
    from binance_assets.storage.state import LakeState

    root, content = Path(lake), io.BytesIO()
    paths = {member: Lake(root).folder(member) for member in map(parse_any_series, series)}
    folders = [(member, SpanFolder(path, member, LakeState(root))) for member, path in paths.items()]
    read_rows(folders, first, last).write_ipc_stream(content, compression="uncompressed")
    return content.getvalue()


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        _serve(sys.stdin.buffer, sys.stdout.buffer)
