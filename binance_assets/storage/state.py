"""The files that belong to a lake but hold no candles: marker, cached first candles, coverage, temporary files.

They lie in ``<lake>.state``, beside the lake. Polars reads every file below a folder that it scans, and DuckDB reads
every ``**/*.parquet``, hidden folders included. So nothing but candles may lie in the lake.

Where the lake is a mount point or its parent folder cannot be written, they lie in ``<lake>/.state`` instead: a file
can only be replaced atomically within one file system. The globs of the README then need ``market=*`` in front.

Layout 1 had these files in the lake. They are read there until the first write moves them.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
import uuid
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Final

from binance_assets.model.markets import Market
from binance_assets.processes import is_alive
from binance_assets.storage.locks import file_lock

_INCOMING_NAME: Final = re.compile(r"(?P<pid>\d+)-[0-9a-f]+-(?P<host>.+)")
_STALE_SECONDS: Final = 24 * 3600

_MARKER: Final = "lake.json"
_FIRST_CANDLES: Final = "first_candles.json"
_COVERAGE: Final = "coverage"
_FILE_INDEX: Final = "files"
_INCOMING: Final = "incoming"
_DAMAGED: Final = "damaged"

# Where layout 1 had them, below the lake.
_LAYOUT_1: Final = {_MARKER: "_lake.json", _FIRST_CANDLES: "_first_candles.json", _COVERAGE: "_coverage"}
_LAYOUT_1_INCOMING: Final = ".incoming"


class LakeState:
    """The files beside a lake. Nothing is created before the first write.

    Args:
        root: The folder of the lake.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def folder(self) -> Path:
        """The folder of these files, whether it exists or not."""
        inside = self._root / ".state"
        if os.path.ismount(self._root) or inside.is_dir():
            return inside
        real = self._root.resolve()  # the lake may be a symbolic link into another file system
        return real.with_name(f"{real.name}.state")

    def create(self) -> None:
        """Create the folder, move the files of layout 1 into it, and remove stale temporary files.

        Raises:
            OSError: The lake cannot be written.
        """
        try:
            (self.folder / _INCOMING).mkdir(parents=True, exist_ok=True)
        except PermissionError:
            (self._root / ".state" / _INCOMING).mkdir(parents=True, exist_ok=True)
        _remove_stale_files(self.folder / _INCOMING)
        if any((self._root / name).exists() for name in (*_LAYOUT_1.values(), _LAYOUT_1_INCOMING)):
            with file_lock(self._lock):
                self._move_files_of_layout_1()

    def create_lake(self) -> None:
        """Create the folder of the lake; forget the marker and the first candles of a lake that the user deleted.

        Raises:
            OSError: The lake cannot be written.
        """
        if not os.path.lexists(self._root):
            with file_lock(self._lock):
                if not os.path.lexists(self._root):
                    for name in (_MARKER, _FIRST_CANDLES):
                        (self.folder / name).unlink(missing_ok=True)
                    self._root.mkdir(parents=True)
        self._root.mkdir(exist_ok=True)

    def marker(self) -> dict[str, object] | None:
        """Return the content of the marker; None if there is none.

        Raises:
            OSError, ValueError: It cannot be read, or is not an object.
        """
        text = self._read(_MARKER)
        if text is None:
            return None
        content = json.loads(text)
        if not isinstance(content, dict):
            raise ValueError("it is not an object")
        return content

    @property
    def marker_path(self) -> Path:
        """The path of the marker, whether it exists or not."""
        new, old = self.folder / _MARKER, self._root / _LAYOUT_1[_MARKER]
        return old if old.exists() and not new.exists() else new

    def write_marker(self, venue: str, layout: int) -> None:
        """Write the marker, unless there is one of another venue, which another process may have just written.

        Raises:
            OSError: It cannot be written.
            ValueError: There is one that cannot be read.
        """
        content = {"origin": venue, "layout": layout}
        if self.marker() == content:
            return
        with file_lock(self._lock):
            existing = self.marker()
            if existing is None or existing.get("origin") == venue:
                self.replace(self.folder / _MARKER, (json.dumps(content) + "\n").encode())

    def first_opens(self) -> dict[str, int]:
        """Return the cached open times of the first candles, ms UTC, by name of the series."""
        try:
            cached = json.loads(self._read(_FIRST_CANDLES) or "{}")
            return {str(name): int(first) for name, first in cached.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}  # only a cache: the times can be requested again

    def remember_first_open(self, name: str, first: int) -> None:
        """Cache the open time of the first candle of the series ``name``, ms UTC.

        Raises:
            OSError: The file cannot be written.
        """
        with file_lock(self._lock):
            text = json.dumps(self.first_opens() | {name: first}, indent=1, ensure_ascii=False) + "\n"
            self.replace(self.folder / _FIRST_CANDLES, text.encode())

    def coverage_path(self, market: Market) -> Path:
        """Return the path of a market's coverage, whether it exists or not."""
        return self.folder / _COVERAGE / f"{market.name}.parquet"

    def file_index_path(self, market: Market) -> Path:
        """Return the path of the index of a market's files, whether it exists or not."""
        return self.folder / _FILE_INDEX / f"{market.name}.parquet"

    def replace(self, target: Path, content: bytes) -> None:
        """Replace ``target`` with ``content`` atomically; return once both the file and its name are on the disk.

        Raises:
            OSError: It cannot be written; ``target`` is unchanged.
        """
        create_folder(target.parent)
        incoming = self._incoming()
        incoming.parent.mkdir(parents=True, exist_ok=True)
        try:
            with incoming.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            incoming.replace(target)
        finally:
            with suppress(OSError):
                incoming.unlink()
        sync_folder(target.parent)

    def keep_damaged(self, path: Path) -> Path:
        """Copy a damaged file of the lake, so that replacing it destroys nothing; return the path of the copy.

        The copy of an earlier damage of the same file is kept too; the number of the copy follows the name.

        Raises:
            OSError: It cannot be copied.
        """
        content, first = path.read_bytes(), self.folder / _DAMAGED / path.relative_to(self._root)
        copies = (first.with_name(f"{first.name}.{number}") if number > 1 else first for number in count(1))
        copy = next(copy for copy in copies if not copy.exists() or copy.read_bytes() == content)
        if not copy.exists():
            self.replace(copy, content)
        return copy

    def check_writable(self) -> None:
        """Fail, before anything is fetched, if no file can be written.

        Raises:
            OSError: A temporary file cannot be written.
        """
        probe = self._incoming()
        probe.touch()
        probe.unlink()

    @property
    def _lock(self) -> Path:
        return self.folder / _INCOMING / ".lock"

    def _read(self, name: str) -> str | None:
        """Return the text of a file, which may still lie where layout 1 had it; None if it does not exist."""
        new, old = self.folder / name, self._root / _LAYOUT_1[name]
        for path in (new, old, new):  # another process may move it between the first two
            with suppress(FileNotFoundError):
                return path.read_text(encoding="utf-8")
        return None

    def _move_files_of_layout_1(self) -> None:
        for name, name_1 in _LAYOUT_1.items():
            _move(self._root / name_1, self.folder / name)
        incoming = self._root / _LAYOUT_1_INCOMING
        _remove_stale_files(incoming)
        with suppress(OSError):  # absent, or a process of an earlier version is writing
            (incoming / ".lock").unlink(missing_ok=True)
            incoming.rmdir()

    def _incoming(self) -> Path:
        return self.folder / _INCOMING / f"{os.getpid()}-{uuid.uuid4().hex}-{socket.gethostname()}"


def create_folder(folder: Path) -> None:
    """Create a folder where it does not exist; return once its name, and those of its parents, are on the disk.

    Raises:
        OSError: It cannot be created.
    """
    if folder.is_dir():
        return
    create_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Return once the names of the files in ``folder`` are on the disk; Windows does so by itself.

    Raises:
        OSError: The folder cannot be read.
    """
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _move(source: Path, target: Path) -> None:
    """Move a file or folder of layout 1; where the target exists, it is newer, so only remove the source."""
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        for path in source.iterdir():
            _move(path, target / path.name)
        with suppress(OSError):  # a process of an earlier version has just written into it
            source.rmdir()
    elif target.exists():
        source.unlink(missing_ok=True)
    elif source.exists():
        source.replace(target)


def _remove_stale_files(incoming: Path) -> None:
    """Remove temporary files of processes that died, and those that are older than a day."""
    for path in incoming.iterdir() if incoming.is_dir() else ():
        if _is_stale(path):
            path.unlink(missing_ok=True)


def _is_stale(path: Path) -> bool:
    match = _INCOMING_NAME.fullmatch(path.name)
    if match is None:
        return False
    if match["host"] == socket.gethostname() and not is_alive(int(match["pid"])):
        return True
    try:
        return time.time() - path.stat().st_mtime > _STALE_SECONDS
    except FileNotFoundError:  # its writer has just finished
        return False
