"""Locks between processes, each held on a lock file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold the lock on the file ``path`` within the ``with`` statement; wait while another process or thread holds it.

    The operating system releases the lock when the process ends, even after a crash. The wait polls, so an interrupt
    ends it. The empty file may remain; that does not mean that the lock is held.

    A process that cannot write to the folder continues without the lock: it cannot replace a file there either, and a
    failed write has an error message of its own.

    Version 0.1.0 locked the folder itself, so a process of that version and one of a later version do not exclude each
    other.

    Args:
        path: The lock file. Its folder is created where it does not exist.

    Raises:
        OSError: The folder or the lock file cannot be created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _acquire(path):
        yield


def _acquire(path: Path) -> AbstractContextManager[object]:
    from filelock import FileLock  # only edits need it, and importing it takes time that every command would pay

    try:
        return FileLock(path).acquire()
    except OSError:
        if os.access(path.parent, os.W_OK):
            raise
        return nullcontext()
