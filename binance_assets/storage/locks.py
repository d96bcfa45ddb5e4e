"""Locks between processes, each held on a file of our own.

A lock file keeps other processes out (:func:`file_lock`). A process can also lock a file of its own while it lives, so
that others can tell that the file is in use (:func:`own_file`, :func:`taken_over`). The operating system releases both
when the process ends, even after a crash. Processes of other containers that share the file see the same lock.

On Linux and macOS these are locks of ``flock``. NFS passes them on to its server, unless it is mounted without locks;
:func:`check_locks_between_hosts` refuses that. No lock is on a folder, or on a file with a name that somebody would
choose: a cron job that runs ``flock . binance-assets ...`` must not wait for itself.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from binance_assets.model.outside import printable
from binance_assets.waiting import Wait, waits

LOCK_NAME: Final = ".binance-assets.lock"
"""Name of the lock file of a folder."""

_PATIENCE_SECONDS: Final = 120.0
_FIRST_NOTICE_SECONDS: Final = 5.0
_NOTICE_SECONDS: Final = 30.0
_FIRST_PAUSE_SECONDS: Final = 0.005
_LONGEST_PAUSE_SECONDS: Final = 0.05

_NOTE_LENGTH: Final = 300
_UNSUPPORTED: Final = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}

_MOUNTS: Final = Path("/proc/self/mountinfo")
# Mounts whose locks hold on this host only: the types of the file system, and the options that say so.
_LOCAL_LOCKS: Final = (
    ({"nfs", "nfs4"}, {"nolock", "local_lock=all", "local_lock=flock"}),
    ({"cifs", "smb3"}, {"nobrl"}),
)

_OCTAL: Final = re.compile(r"\\([0-7]{3})")  # how a space is written in that file

_log = logging.getLogger(__name__)


class LockTimeout(TimeoutError):
    """Another process holds a lock for too long; the message names it and the way out."""


class LocksUnsupported(OSError):
    """The file system has no locks that all its users see; the message names it and the way out."""


@contextmanager
def file_lock(path: Path, note: Path | None = None, patience: float | None = None) -> Iterator[None]:
    """Hold the lock on the file ``path`` within the ``with`` statement; wait while another process or thread holds it.

    The operating system releases the lock when the process ends, even after a crash. The wait polls, so an interrupt
    ends it. The empty file remains; that does not mean that the lock is held.

    A process that cannot write to the folder continues without the lock: it cannot replace a file there either, and a
    failed write has an error message of its own.

    Version 0.1.0 locked the folder itself, and development versions of 0.2.0 a file ``.lock`` in it. A process of those
    and one of this version do not exclude each other.

    Args:
        path: The lock file. Its folder is created where it does not exist.
        note: The file in which the holder says who it is; None for the lock file itself.
        patience: How long to wait, seconds; None for two minutes.

    Raises:
        LockTimeout: Another process still holds the lock.
        LocksUnsupported: The file system has no locks.
        OSError: The folder or the lock file cannot be created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = _wait_for(path, note or path, _PATIENCE_SECONDS if patience is None else patience)
    except (LockTimeout, LocksUnsupported):
        raise
    except OSError:
        if os.access(path.parent, os.W_OK):
            raise
        yield
        return
    try:
        _write_note(descriptor if note is None else note)
        yield
    finally:
        _erase_note(descriptor if note is None else note)
        os.close(descriptor)


@contextmanager
def own_file(path: Path) -> Iterator[BinaryIO]:
    """Create a file, and keep it locked until it is closed, so that others can tell that its writer lives.

    It stays locked under another name, too. At the end, the file is removed unless it was renamed. Windows cannot
    rename an open file; there it is not locked.

    Args:
        path: The file, under a name that no other process uses.

    Raises:
        LocksUnsupported: The file system has no locks.
        OSError: The file cannot be created.
    """
    try:
        if sys.platform == "win32":
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        else:
            descriptor = _wait_for(path, path, _PATIENCE_SECONDS)  # new, it may look abandoned to another process
        with os.fdopen(descriptor, "wb") as file:
            yield file
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


@contextmanager
def taken_over(path: Path) -> Iterator[bool]:
    """Yield whether the process that created ``path`` with :func:`own_file` has ended; then it is ours meanwhile."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:  # its owner has just removed or renamed it, or another user owns it
        yield False
        return
    try:
        yield sys.platform != "win32" and _try_to_lock(descriptor, path) and _is_at(descriptor, path)
    finally:
        os.close(descriptor)


def check_locks_between_hosts(*folders: Path) -> None:
    """Refuse folders on a network file system whose locks hold on this host only.

    Raises:
        LocksUnsupported: The message names the mount and the option.
    """
    try:
        mounts = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return  # only Linux says how a file system is mounted
    for folder in folders:
        reason = local_locks(mounts, os.path.realpath(folder))
        if reason is not None:
            raise LocksUnsupported(reason)


def local_locks(mounts: str, path: str) -> str | None:
    """Return why locks below ``path`` hold on this host only; None if nothing says so.

    Args:
        mounts: The content of ``/proc/self/mountinfo``, see proc(5).
        path: An absolute path without symbolic links.
    """
    found: tuple[str, str, set[str]] | None = None
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        try:
            point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields.split(" ")[4])
            kind, _, options = rest.split(" ")[:3]
        except (IndexError, ValueError):
            continue
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and (found is None or len(point) >= len(found[0])):  # of two mounts at one place the later one counts
            found = point, kind, set(options.split(","))
    if found is not None:
        point, kind, options_found = found
        for kinds, local in _LOCAL_LOCKS:
            if kind in kinds and (named := sorted(local & options_found)):
                return (
                    f"{printable(point)} is mounted with {named[0]}, so its locks do not reach other hosts; "
                    f"mount it without {named[0]}, or use a folder on a local disk"
                )
    return None


def _wait_for(path: Path, note: Path, patience: float) -> int:
    """Wait for the lock and return the descriptor of the lock file; closing it releases the lock."""
    began, notice, pause = time.monotonic(), _FIRST_NOTICE_SECONDS, _FIRST_PAUSE_SECONDS
    with waits() as announce:
        while (descriptor := _lock_at_once(path)) is None:
            waited = time.monotonic() - began
            if waited >= patience:
                raise LockTimeout(
                    f"{path} is still locked by {_holder(note)} after {patience:g} s; "
                    "let that process finish or end it, then try again"
                )
            if waited >= notice:
                notice = waited + _NOTICE_SECONDS
                _log.warning("waiting for %s, locked by %s", path, _holder(note))
            reason = f"waiting for {path}, locked by {_holder(note)}, at most"
            announce(Wait.of_seconds(reason, patience - waited))
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)
    return descriptor


def _lock_at_once(path: Path) -> int | None:
    """Return the descriptor of the locked file; None if another process or thread holds the lock."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if _try_to_lock(descriptor, path) and _is_at(descriptor, path):
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _is_at(descriptor: int, path: Path) -> bool:
    """Return whether the open file is still the one at ``path``; another one may have been created there since."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _try_to_lock(descriptor: int, path: Path) -> bool:
    """Lock an open file; return whether no other descriptor holds its lock."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(descriptor, 1 << 30, os.SEEK_SET)  # a byte beyond the note, which others then cannot read
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            raise LocksUnsupported(
                f"the file system of {path.parent} has no locks ({os.strerror(error.errno)}); "
                "mount it with locks, or use a folder on a local disk"
            ) from None
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            return False
        raise
    return True


def _write_note(target: int | Path) -> None:
    """Write who holds the lock, for the message of a process that waits for it."""
    program = Path(sys.argv[0] or "python").name
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    text = f"process {os.getpid()} ({program}) on host {socket.gethostname()}, since {since}\n".encode(errors="replace")
    with suppress(OSError):  # a full disk, for example: the lock is held all the same
        if isinstance(target, int):
            os.ftruncate(target, 0)
            os.lseek(target, 0, os.SEEK_SET)
            os.write(target, text)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text)


def _erase_note(target: int | Path) -> None:
    with suppress(OSError):
        if isinstance(target, int):
            os.ftruncate(target, 0)
        else:
            target.unlink()


def _holder(note: Path) -> str:
    """Return who holds a lock, in words. A program that is not ours leaves no note."""
    with suppress(OSError):
        with note.open("rb") as file:
            text = printable(file.read(4 * _NOTE_LENGTH).decode(errors="replace"), _NOTE_LENGTH)
        if text:
            return text
    return "another program, which `fuser` can name"
