"""Files that people and the program both edit: replaced as a whole, under a lock, with their rights kept."""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from binance_assets.storage.durable_folders import sync_folder
from binance_assets.storage.locks import file_lock


@contextmanager
def edit_lock(path: Path) -> Iterator[None]:
    """Keep other processes from editing the file at the same time.

    Raises:
        OSError: The lock cannot be taken.
    """
    target = _target(path)  # so that a process that edits the file by another link waits too
    with file_lock(target.with_name(f".{target.name}.lock")):
        yield


def replace_file(path: Path, content: str | bytes, check: Callable[[Path], object] = lambda path: None) -> None:
    """Replace the file with ``content``; return once it is on the disk.

    A symbolic link stays one: the file to which it leads is replaced. Its mode stays, and its owner and group if this
    user may give files to them.

    Args:
        path: The file, which may be absent.
        content: Its new content; a text is written as UTF-8.
        check: Reads the new file before it gets its name; raises if it is not valid.

    Raises:
        OSError: The file cannot be written.
        Exception: What ``check`` raised.
    """
    target = _target(path)
    incoming = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        with incoming.open("xb") as file:
            _copy_rights(target, incoming)
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        check(incoming)
        os.replace(incoming, target)
        sync_folder(target.parent)
    finally:
        with suppress(OSError):
            incoming.unlink()


def _target(path: Path) -> Path:
    """Return the file to which ``path`` leads, whether it exists or not."""
    return Path(os.path.realpath(path))


def _copy_rights(source: Path, target: Path) -> None:
    """Give ``target`` the owner, the group, and the mode of ``source``, if that exists."""
    try:
        status = source.stat()
    except FileNotFoundError:
        return
    if hasattr(os, "chown"):
        for owner, group in ((status.st_uid, -1), (-1, status.st_gid)):
            with suppress(PermissionError):  # only root may give files away
                os.chown(target, owner, group)
    target.chmod(stat.S_IMODE(status.st_mode))  # last, because a change of the owner takes bits away
