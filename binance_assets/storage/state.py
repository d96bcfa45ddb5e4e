"""The files that belong to a lake but hold no candles: marker, cached first candles, coverage, temporary files.

They lie in ``<lake>.state``, beside the lake. Polars reads every file below a folder that it scans, and DuckDB reads
every ``**/*.parquet``, hidden folders included. So nothing but candles may lie in the lake.

Where the lake is a mount point or its parent folder cannot be written, they lie in ``<lake>/.state`` instead: a file
can only be replaced atomically within one file system. The globs of the documentation then need ``market=*`` in front.

Layout 1 had these files in the lake. They are read there until the first write moves them.
"""

from __future__ import annotations

import json
import os
import re
import threading
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

from binance_assets.model.markets import Market
from binance_assets.model.outside import whole_number
from binance_assets.model.timestamps import CANDLE_TIMES
from binance_assets.storage.locks import LOCK_NAME, check_locks_between_hosts, file_lock, own_file, taken_over

# A temporary file is locked by its writer. Those of earlier versions, with process and host in the name, are not.
_INCOMING_NAME: Final = re.compile(r"[0-9a-f]{32}\.part")
_OLD_INCOMING_NAME: Final = re.compile(r"\d+-[0-9a-f]+-.+")
_STALE_SECONDS: Final = 24 * 3600

_MARKER: Final = "lake.json"
_FIRST_CANDLES: Final = "first_candles.json"
_COVERAGE: Final = "coverage"
_FILE_INDEX: Final = "files"
_INCOMING: Final = "incoming"
_DAMAGED: Final = "damaged"
_LOCK_NOTES: Final = "locks"

# Where layout 1 had them, below the lake.
_LAYOUT_1: Final = {_MARKER: "_lake.json", _FIRST_CANDLES: "_first_candles.json", _COVERAGE: "_coverage"}
_LAYOUT_1_INCOMING: Final = ".incoming"


# What the files can have: a marker a few lines, the first candles a line for each of a million series.
_MOST_MARKER: Final = 65_536
_MOST_FIRST_CANDLES: Final = 100_000_000


@dataclass(frozen=True, slots=True)
class Marker:
    """What the marker of a lake says.

    Attributes:
        venue: The venue of the lake's candles.
        layout: The layout of the lake.
        hosts: The exchange that its candles are from, by name of the market, and that of the ``archive``, as
            :func:`binance_assets.model.markets.exchange_at` names it. Version 0.1.0 did not write it.
    """

    venue: str
    layout: int
    hosts: dict[str, str]

    @classmethod
    def parse(cls, text: str) -> Marker:
        """Return the marker with the given text.

        Raises:
            ValueError: It is not a marker.
        """
        content = _parse_object(text)
        venue, hosts = content.get("origin"), content.get("hosts", {})
        layout = whole_number(content.get("layout", 1), range(1, 1_000_000))
        if not isinstance(venue, str) or layout is None:
            raise ValueError("it names no venue and layout")
        if not isinstance(hosts, dict) or not all(isinstance(host, str) for host in hosts.values()):
            raise ValueError("its hosts are not names")
        return cls(venue, layout, hosts)

    @property
    def text(self) -> str:
        """The text of the file."""
        content: dict[str, object] = {"origin": self.venue, "layout": self.layout}
        return json.dumps(content | ({"hosts": self.hosts} if self.hosts else {})) + "\n"

    def updated(self, wanted: Marker) -> Marker:
        """Return the marker to write where there is this one; it stays as it is if its venue is another."""
        if self.venue != wanted.venue:
            return self
        return Marker(self.venue, wanted.layout, wanted.hosts | self.hosts)


class LakeState:
    """The files beside a lake. Nothing is created before the first write.

    Args:
        root: The folder of the lake.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._locks_reach_other_hosts = False  # until it is checked
        self._added: dict[str, int] = {}  # first candles that are not written yet
        self._adding = threading.Lock()

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
            create_folder(self.folder / _INCOMING)
        except PermissionError:
            create_folder(self._root / ".state" / _INCOMING)
        self._remove_stale_files(self.folder / _INCOMING)
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
                    create_folder(self._root)
        self._root.mkdir(exist_ok=True)

    def marker(self) -> Marker | None:
        """Return the marker; None if there is none.

        Raises:
            OSError, ValueError: It cannot be read, or is not a marker.
        """
        text = self._read(_MARKER, _MOST_MARKER)
        return None if text is None else Marker.parse(text)

    def stamp(self) -> object:
        """Return what changes when the marker changes, or when the folder of the lake or of these files is replaced."""
        stamps: list[object] = []
        for path in (self._root, self.folder / _INCOMING, self.marker_path):
            try:
                status = path.stat()
            except OSError:
                return None
            stamps.append((status.st_dev, status.st_ino))
        return stamps, status.st_size, status.st_mtime_ns

    @property
    def marker_path(self) -> Path:
        """The path of the marker, whether it exists or not."""
        new, old = self.folder / _MARKER, self._root / _LAYOUT_1[_MARKER]
        return old if old.exists() and not new.exists() else new

    def write_marker(self, venue: str, layout: int, hosts: Mapping[str, str] | None = None) -> Marker:
        """Write the marker, unless there is one of another venue, which another process may have just written.

        No process changes what it says of the venue and the hosts, so it stays as returned.

        Args:
            venue: The venue.
            layout: The layout of the lake.
            hosts: The exchange by market, and that of the archive; those that the marker has already stay.

        Returns:
            The marker that there is now.

        Raises:
            OSError: It cannot be written.
            ValueError: There is one that cannot be read.
        """
        wanted = Marker(venue, layout, dict(hosts or {}))
        existing = self.marker()
        if existing is not None and existing.updated(wanted) == existing:
            return existing
        with file_lock(self._lock):
            updated = (self.marker() or wanted).updated(wanted)
            self.replace(self.folder / _MARKER, updated.text.encode())
        return updated

    def first_opens(self) -> dict[str, int]:
        """Return the cached open times of the first candles, ms UTC, by name of the series."""
        try:
            cached = _parse_object(self._read(_FIRST_CANDLES, _MOST_FIRST_CANDLES) or "{}")
        except (OSError, ValueError):
            return {}  # only a cache: the times can be requested again
        opens = {name: whole_number(first, range(CANDLE_TIMES.stop)) for name, first in cached.items()}
        return {name: first for name, first in opens.items() if first is not None}

    def remember_first_open(self, name: str, first: int) -> None:
        """Cache the open time of the first candle of the series ``name``, ms UTC.

        What other threads add while one waits for the lock is written by one of them for all, because each write
        replaces the whole file.

        Raises:
            OSError: The file cannot be written.
        """
        with self._adding:
            self._added[name] = first
        with file_lock(self._lock):
            with self._adding:
                added, self._added = self._added, {}
            if added:
                text = _lines_of(self.first_opens() | added)
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
        with own_file(incoming) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            if os.name == "nt":
                file.close()  # Windows cannot rename an open file
            incoming.replace(target)
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
        """Fail, before anything is fetched, if no file can be written, or if locks do not reach other hosts.

        Raises:
            OSError: A temporary file cannot be written or locked.
        """
        if not self._locks_reach_other_hosts:
            check_locks_between_hosts(self._root, self.folder)
            self._locks_reach_other_hosts = True
        with own_file(self._incoming()):
            pass

    def lock_note(self, folder: Path) -> Path:
        """Return the file in which the holder of the lock of a series says who it is; ``folder`` is that of the series.

        The lock file itself stays empty: it is in the lake, where Polars reads every other file.
        """
        return self.folder / _LOCK_NOTES / ",".join(folder.relative_to(self._root).parts)

    @property
    def _lock(self) -> Path:
        return self.folder / _INCOMING / LOCK_NAME

    def _read(self, name: str, most: int) -> str | None:
        """Return the text of a file, which may still lie where layout 1 had it; None if it does not exist.

        Raises:
            OSError: It cannot be read.
            ValueError: It has more than ``most`` bytes, or is not UTF-8.
        """
        new, old = self.folder / name, self._root / _LAYOUT_1[name]
        for path in (new, old, new):  # another process may move it between the first two
            with suppress(FileNotFoundError), path.open("rb") as file:
                content = file.read(most + 1)
                if len(content) > most:
                    raise ValueError(f"it is larger than {most:,} bytes")
                return content.decode()
        return None

    def _move_files_of_layout_1(self) -> None:
        for name, name_1 in _LAYOUT_1.items():
            _move(self._root / name_1, self.folder / name)
        incoming = self._root / _LAYOUT_1_INCOMING
        self._remove_stale_files(incoming)
        with suppress(OSError):  # absent, or a process of an earlier version is writing
            (incoming / ".lock").unlink(missing_ok=True)
            incoming.rmdir()

    def _incoming(self) -> Path:
        return self.folder / _INCOMING / f"{uuid.uuid4().hex}.part"

    def _remove_stale_files(self, incoming: Path) -> None:
        """Remove temporary files whose writer has died, and those of earlier versions that are older than a day."""
        for path in incoming.iterdir() if incoming.is_dir() else ():
            if _INCOMING_NAME.fullmatch(path.name):
                with taken_over(path) as abandoned:
                    if abandoned:
                        path.unlink(missing_ok=True)
            elif _OLD_INCOMING_NAME.fullmatch(path.name):
                with suppress(FileNotFoundError):  # its writer has just finished
                    if self._file_time() - path.stat().st_mtime > _STALE_SECONDS:
                        path.unlink()

    def _file_time(self) -> float:
        """Return the time that the file system gives to a new file, seconds; the clock of this process may differ."""
        with own_file(self._incoming()) as file:
            return os.fstat(file.fileno()).st_mtime


def _lines_of(opens: Mapping[str, int]) -> str:
    """Return a JSON object with a line for each series, in a third of the time that the ``indent`` of Python takes."""
    lines = ",\n".join(f" {json.dumps(name, ensure_ascii=False)}: {first}" for name, first in opens.items())
    return f"{{\n{lines}\n}}\n"


def _parse_object(text: str) -> dict[str, Any]:
    """Return the members of a JSON object.

    Raises:
        ValueError: The text is not one.
    """
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if not isinstance(content, dict):
        raise ValueError("it is not an object")
    return content


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
