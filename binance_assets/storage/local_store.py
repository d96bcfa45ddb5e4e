"""A lake in a folder of this machine: files, locks, and temporary files.

What belongs to the lake but is no candle lies in ``<lake>.state``, beside it. Polars reads every file below a folder
that it scans, and DuckDB reads every ``**/*.parquet``, hidden folders included. So nothing but candles may lie in the
lake.

Where the lake is a mount point or its parent folder cannot be written, these files lie in ``<lake>/.state`` instead: a
file can only be replaced atomically within one file system. The globs of the documentation then need ``market=*`` in
front.

Layout 1 had these files in the lake. They are read there until the first write moves them.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

import polars as pl

from binance_assets.storage.durable_folders import create_folder, sync_folder
from binance_assets.storage.locks import LOCK_NAME, check_locks_between_hosts, file_lock, own_file, taken_over
from binance_assets.storage.parquet_files import read_footer
from binance_assets.storage.store import (
    COVERAGE,
    FIRST_CANDLES,
    INCOMING,
    MARKER,
    Content,
    FolderView,
    Identity,
    OpenedFile,
    Store,
    TooLarge,
)

T = TypeVar("T")

# A temporary file is locked by its writer. Those of earlier versions, with process and host in the name, are not.
_INCOMING_NAME: Final = re.compile(r"[0-9a-f]{32}\.part")
_OLD_INCOMING_NAME: Final = re.compile(r"\d+-[0-9a-f]+-.+")
_STALE_SECONDS: Final = 24 * 3600

_LOCK_NOTES: Final = "locks"
_OLD_LOCK_NAME: Final = ".lock"

# Where layout 1 had them, below the lake.
_LAYOUT_1: Final = {MARKER: "_lake.json", FIRST_CANDLES: "_first_candles.json", COVERAGE: "_coverage"}
_LAYOUT_1_INCOMING: Final = ".incoming"


class _LocalView(FolderView):
    is_snapshot = False

    def __init__(self, folder: Path) -> None:
        self._folder = os.fspath(folder)

    def names(self) -> Iterable[str]:
        try:
            return os.listdir(self._folder)
        except (FileNotFoundError, NotADirectoryError):
            return ()

    def identity(self, name: str) -> Identity | None:
        try:
            status = os.stat(f"{self._folder}/{name}")  # a path per file would take longer
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Identity(status.st_ino, status.st_size, status.st_mtime_ns)


class LocalStore(Store[Path]):
    """A lake in a folder. Nothing is created before the first write.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._locks_reach_other_hosts = False  # until it is checked

    @property
    def state_folder(self) -> Path:
        """The folder of the other files, whether it exists or not."""
        inside = self.root / ".state"
        if os.path.ismount(self.root) or inside.is_dir():
            return inside
        real = self.root.resolve()  # the lake may be a symbolic link into another file system
        return real.with_name(f"{real.name}.state")

    # Reading ------------------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        """Return whether anything is there."""
        return self.root.exists()

    def is_usable(self) -> bool:
        """Return whether the lake is a folder, or can become one."""
        return self.root.is_dir() or not self.root.exists()

    def series_folders(self) -> Iterable[Path]:
        """Return the folders of series."""
        return self.root.glob("market=*/symbol=*/interval=*")

    def view(self, folder: Path) -> FolderView:
        """Return the files directly in a folder."""
        return _LocalView(folder)

    def views(self, folders: Sequence[Path], above: Path) -> dict[Path, FolderView]:
        """Return a view of each folder."""
        return {folder: _LocalView(folder) for folder in folders}

    def open_all(self, paths: Sequence[Path], whole: bool = False) -> Iterator[OpenedFile]:
        """Yield the ends of files; what lies before them is read only when it is needed."""
        return (OpenedFile(*read_footer(path)) for path in paths)

    def read(self, path: Path, most: int | None = None) -> Content:
        """Return a file."""
        if most is None:
            return Content(path.read_bytes(), None)
        with path.open("rb") as file:
            content = file.read(most + 1)
        if len(content) > most:
            raise TooLarge(most, None)
        return Content(content, None)

    def read_state(self, name: str, most: int) -> Content | None:
        """Return a file beside the lake, which may still lie where layout 1 had it; None if there is none."""
        new, old = self.state_folder / name, self.root / _LAYOUT_1[name]
        for path in (new, old, new):  # another process may move it between the first two
            with suppress(FileNotFoundError):
                return self.read(path, most)
        return None

    def find_state(self, name: str) -> Path:
        """Return where a file beside the lake is, or would be."""
        new, old = self.state_folder / name, self.root / _LAYOUT_1[name]
        return old if old.exists() and not new.exists() else new

    def scan(self, path: Path) -> pl.LazyFrame:
        """Return the rows of a file lazily."""
        return pl.scan_parquet(path, hive_partitioning=False, glob=False)

    def collect(self, table: pl.LazyFrame) -> pl.DataFrame:
        """Return a table in memory."""
        return table.collect(engine="streaming")

    # Writing ------------------------------------------------------------------------------------------------------

    def exclusively(self, folder: Path, attempt: Callable[[], T]) -> T:
        """Return what ``attempt`` returns, holding the lock of the folder."""
        if folder == self.state_folder:
            with file_lock(folder / INCOMING / LOCK_NAME):
                return attempt()
        create_folder(folder)
        with file_lock(folder / LOCK_NAME, self.lock_note(folder)):
            result = attempt()
            _remove_old_lock(folder)
        return result

    def replace(self, path: Path, content: bytes, before: str | None) -> None:
        """Replace a file atomically; the lock keeps others out."""
        self.overwrite(path, content)

    def overwrite(self, path: Path, content: bytes) -> None:
        """Replace a file atomically; return once both the file and its name are on the disk.

        Raises:
            OSError: It cannot be written; ``path`` is unchanged.
        """
        create_folder(path.parent)
        incoming = self._incoming()
        incoming.parent.mkdir(parents=True, exist_ok=True)
        with own_file(incoming) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            if os.name == "nt":
                file.close()  # Windows cannot rename an open file
            incoming.replace(path)
        sync_folder(path.parent)

    def remove(self, paths: Sequence[Path]) -> None:
        """Remove files of one folder."""
        for path in paths:
            path.unlink()
        if paths:
            sync_folder(paths[0].parent)

    def create_lake(self) -> None:
        """Create the folder of the lake; forget the marker and the first candles of a lake that the user deleted."""
        if not os.path.lexists(self.root):
            with file_lock(self.state_folder / INCOMING / LOCK_NAME):
                if not os.path.lexists(self.root):
                    for name in (MARKER, FIRST_CANDLES):
                        (self.state_folder / name).unlink(missing_ok=True)
                    create_folder(self.root)
        self.root.mkdir(exist_ok=True)

    def create_state(self) -> None:
        """Create the folder, move the files of layout 1 into it, and remove stale temporary files."""
        try:
            create_folder(self.state_folder / INCOMING)
        except PermissionError:
            create_folder(self.root / ".state" / INCOMING)
        self._remove_stale_files(self.state_folder / INCOMING)
        if any((self.root / name).exists() for name in (*_LAYOUT_1.values(), _LAYOUT_1_INCOMING)):
            with file_lock(self.state_folder / INCOMING / LOCK_NAME):
                self._move_files_of_layout_1()

    def check_writable(self) -> None:
        """Fail if no file can be written, or if locks do not reach other hosts.

        Raises:
            OSError: A temporary file cannot be written or locked.
        """
        if not self._locks_reach_other_hosts:
            check_locks_between_hosts(self.root, self.state_folder)
            self._locks_reach_other_hosts = True
        with own_file(self._incoming()):
            pass

    def stamp(self) -> object:
        """Return what changes when the marker changes, or when the folder of the lake or of these files is replaced."""
        stamps: list[object] = []
        for path in (self.root, self.state_folder / INCOMING, self.find_state(MARKER)):
            try:
                status = path.stat()
            except OSError:
                return None
            stamps.append((status.st_dev, status.st_ino))
        return stamps, status.st_size, status.st_mtime_ns

    def lock_note(self, folder: Path) -> Path:
        """Return the file in which the holder of the lock of a series writes who it is.

        The lock file itself stays empty: it is in the lake, where Polars reads every other file.
        """
        return self.state_folder / _LOCK_NOTES / ",".join(folder.relative_to(self.root).parts)

    def _move_files_of_layout_1(self) -> None:
        for name, name_1 in _LAYOUT_1.items():
            _move(self.root / name_1, self.state_folder / name)
        incoming = self.root / _LAYOUT_1_INCOMING
        self._remove_stale_files(incoming)
        with suppress(OSError):  # absent, or a process of an earlier version is writing
            (incoming / ".lock").unlink(missing_ok=True)
            incoming.rmdir()

    def _incoming(self) -> Path:
        return self.state_folder / INCOMING / f"{uuid.uuid4().hex}.part"

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


def _remove_old_lock(folder: Path) -> None:
    """Delete the lock file of development versions of 0.2.0, unless a process holds it."""
    old = folder / _OLD_LOCK_NAME
    with taken_over(old) as is_free:
        if is_free:
            old.unlink(missing_ok=True)


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
