"""Locks between processes, held on lock files of the project's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold the lock file ``path`` for the length of the block; wait while another process or thread holds it.

    The operating system holds the lock, so it is free again when its process ends, also after a crash. The wait polls,
    so an interrupt ends it. The empty file may stay behind, which means nothing.

    A process that cannot write to the folder gets no lock: it cannot replace a file there either, and a failed write
    has a message of its own.

    Version 0.1.0 locked the folder itself. A process of that version and one of a later version do not exclude each
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
