"""Rehearsals: bytes of unknown health are read first by a process that may die of it.

Polars believes the sizes that a Parquet file names. A damaged one can make it ask for gigabytes, and then the process
ends at once, without an exception: seen with a list in the footer and with a count in a page. No check of headers can
rule that out, because the pages are compressed. So a file is read in this process only if its checksums prove that it
is as it was written (:mod:`binance_assets.storage.checksums`), or if the same read of the same bytes has just
succeeded in another process. Such a rehearsal is for damaged files and for those without checksums. Layout 1 and
development versions of 0.2.0 wrote none; ``migrate`` adds them.

One process per process of ours is enough. It starts with the first rehearsal, in 0.2 s, and ends when it is idle for a
minute or when this process ends.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, cast

from binance_assets.model.outside import printable
from binance_assets.storage import parquet_reads
from binance_assets.storage.parquet_reads import READS, REQUEST, Read

# How a process ends that asks for too much memory or time, or touches memory that it does not have. Any other end, such
# as a kill by a person or by the system, says nothing of the bytes.
_FATAL: Final = frozenset(
    -getattr(signal, name)
    for name in ("SIGABRT", "SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGTRAP", "SIGPROF")
    if hasattr(signal, name)
)
_WINDOWS_FATAL: Final = 0xC0000000
_SECONDS_TO_END: Final = 5


class Unreadable(Exception):
    """The bytes cannot be read; the message says why in one line."""


class _Died(Exception):
    """The process ended before it answered."""

    def __init__(self, code: int, was_new: bool) -> None:
        super().__init__(f"the process that reads files of unknown health ended with code {code}")
        self.proves_damage = was_new and (code in _FATAL or code >= _WINDOWS_FATAL)


def rehearse(kind: Read, content: bytes, first: int = 0, count: int = 0) -> None:
    """Return if a read (see :mod:`binance_assets.storage.parquet_reads`) succeeds in a process of its own.

    Raises:
        Unreadable: The read fails, or the process dies of it.
        OSError: The process cannot be started, or was killed twice; that says nothing of the bytes.
    """
    with _helper.lock:
        try:
            error = _helper.ask(kind, content, first, count)
        except _Died as death:
            if death.proves_damage:
                raise Unreadable(_DIED) from None
            error = _ask_again(kind, content, first, count)
    if error is not None:
        raise Unreadable(printable(error))


_DIED: Final = "Polars asks for more memory or time than a file of the lake needs"


def _ask_again(kind: Read, content: bytes, first: int, count: int) -> str | None:
    """Ask a new process: the previous one may have died of what it had read before, or was killed."""
    try:
        return _helper.ask(kind, content, first, count)
    except _Died as death:
        if death.proves_damage:
            return _DIED
        raise OSError(str(death)) from None


class _Helper:
    """The process that reads first. Its lock is held while it is asked.

    Attributes:
        lock: The lock.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._answered = False

    def ask(self, kind: Read, content: bytes, first: int, count: int) -> str | None:
        """Return the error of a read; None if it succeeds.

        Raises:
            _Died: The process ended.
            OSError: It cannot be started.
        """
        process = self._started()
        requests, answers = cast("tuple[BinaryIO, BinaryIO]", (process.stdin, process.stdout))
        was_new, answer = not self._answered, b""
        with suppress(BrokenPipeError):
            requests.write(REQUEST.pack(READS.index(kind), len(content), first, count))
            requests.write(content)
            requests.flush()
            answer = answers.readline()
        if not answer.endswith(b"\n"):
            self.end()
            raise _Died(process.returncode, was_new)
        self._answered = True
        error: str | None = json.loads(answer)
        return error

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._answered = False
            # `-P` keeps the modules beside the script from hiding those of the standard library. A session of its own
            # keeps Ctrl-C in a terminal from ending it, which would look like a damaged file.
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", str(Path(parquet_reads.__file__))],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,  # panics of Polars; the reason is part of the answer
                    env={**os.environ, "POLARS_MAX_THREADS": "1"},
                    start_new_session=True,
                )
            except FileNotFoundError as error:  # which elsewhere means that a file of the lake was replaced
                raise OSError(f"no process can be started to read a file of unknown health: {error}") from None
        return self._process

    def end(self) -> None:
        """End the process; wait until it has ended."""
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        try:
            process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _forget() -> None:
    """Use a new process in a fork of this one, which must not share the pipes."""
    global _helper
    _helper = _Helper()


_helper = _Helper()
atexit.register(lambda: _helper.end())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
