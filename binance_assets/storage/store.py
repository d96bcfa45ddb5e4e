"""The interface to what holds the files of a lake: a folder of this machine, or a bucket of an object store.

A file is only ever replaced as a whole. Who replaces one reads it, changes it, and replaces it within
:meth:`Store.exclusively`. A folder keeps others out with a lock. A bucket has no locks: there, a file is replaced only
if it is still the version that was read, and otherwise all of it is done again with what is there now.

Here belongs the interface. What does not belong here: what the files hold.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, TypeVar

import polars as pl

from binance_assets.model.bucket_paths import LakePath

T = TypeVar("T")
P = TypeVar("P", bound=LakePath)
"""The paths of a store: those of files, or of objects in a bucket."""

# Where a lake has its other files, below the folder beside it.
MARKER: Final = "lake.json"
FIRST_CANDLES: Final = "first_candles.json"
COVERAGE: Final = "coverage"
FILE_INDEX: Final = "files"
INCOMING: Final = "incoming"
DAMAGED: Final = "damaged"

MOST_BYTES: Final = 1 << 30
"""The most bytes of a file of the lake, which has a few megabytes; a larger one counts as damaged."""


class StoreError(Exception):
    """The store cannot be used, so nothing is known of its files; the message is one line with the way out."""


class TooLarge(ValueError):
    """A file has more bytes than it may have, so it was not read.

    Args:
        most: The most bytes.
        version: As in :class:`Content`, so that the file can be replaced.
    """

    def __init__(self, most: int, version: str | None) -> None:
        super().__init__(f"it is larger than {most:,} bytes")
        self.version = version


class Changed(Exception):
    """A file is not, or no longer, the version that was to be replaced."""


class Content(NamedTuple):
    """A file as it was read.

    Attributes:
        data: Its bytes.
        version: What :meth:`Store.replace` compares; None in a folder, where a lock is held instead.
    """

    data: bytes
    version: str | None


class Identity(NamedTuple):
    """What is another for another content of a file, without reading it.

    Attributes:
        inode: The inode; in a bucket, 64 bits of the hash of the ETag.
        size: The size in bytes.
        modified_ns: When it was modified, ns since the epoch; 0 in a bucket, whose ETag suffices.
    """

    inode: int
    size: int
    modified_ns: int


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """The end of a Parquet file, and where it costs no more, all of the file.

    Attributes:
        footer: The bytes from the footer to the end; empty for what is not Parquet.
        size: The size of the file in bytes.
        version: As in :class:`Content`.
        content: All bytes; None if they have to be read separately.
    """

    footer: bytes
    size: int
    version: str | None = None
    content: bytes | None = None


class FolderView(ABC):
    """The files directly in a folder."""

    is_snapshot: bool
    """Whether the files were listed once, all at the same time; otherwise each call looks again."""

    @abstractmethod
    def names(self) -> Iterable[str]:
        """Return the names of the files; none if there is no such folder."""

    @abstractmethod
    def identity(self, name: str) -> Identity | None:
        """Return the identity of a file; None if there is none."""


class Store(ABC, Generic[P]):
    """What holds the files of a lake.

    Every method may raise :class:`StoreError`, and OSError where it reads or writes a file of this machine.
    """

    root: P
    """The folder of the candles."""

    @property
    @abstractmethod
    def state_folder(self) -> P:
        """The folder of the other files."""

    # Reading ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def exists(self) -> bool:
        """Return whether anything is there, also something else than a lake."""

    @abstractmethod
    def is_usable(self) -> bool:
        """Return whether there is, or can be, a lake: no file is in its place."""

    @abstractmethod
    def series_folders(self) -> Iterable[P]:
        """Return the folders ``market=…/symbol=…/interval=…`` of the lake, in any order."""

    @abstractmethod
    def view(self, folder: P) -> FolderView:
        """Return the files directly in a folder, whether it exists or not."""

    @abstractmethod
    def views(self, folders: Sequence[P], above: P) -> dict[P, FolderView]:
        """Return a view of each folder; all of them are below ``above``, which may be listed at once."""

    @abstractmethod
    def open_all(self, paths: Sequence[P], whole: bool = False) -> Iterator[OpenedFile]:
        """Yield the ends of Parquet files, in the given order.

        Args:
            paths: The files.
            whole: Whether all of their bytes are needed as well.

        Raises:
            FileNotFoundError: There is no such file.
        """

    @abstractmethod
    def read(self, path: P, most: int | None = None) -> Content:
        """Return a file.

        Args:
            path: The file.
            most: The most bytes that it can have; None for what a file of the lake can have.

        Raises:
            FileNotFoundError: There is no such file.
            TooLarge: It has more than ``most`` bytes.
        """

    @abstractmethod
    def read_state(self, name: str, most: int) -> Content | None:
        """Return a file beside the lake; None if there is none.

        Raises:
            TooLarge: It has more than ``most`` bytes.
        """

    @abstractmethod
    def find_state(self, name: str) -> P:
        """Return where a file beside the lake is, or would be."""

    @abstractmethod
    def scan(self, path: P) -> pl.LazyFrame:
        """Return the rows of a Parquet file lazily."""

    @abstractmethod
    def collect(self, table: pl.LazyFrame) -> pl.DataFrame:
        """Return a table of :meth:`scan` in memory."""

    # Writing ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def exclusively(self, folder: P, attempt: Callable[[], T]) -> T:
        """Return what ``attempt`` returns, which reads and replaces files of a folder; nobody else replaces them.

        Args:
            folder: The folder of a series, or the folder beside the lake.
            attempt: It reads what it replaces; in a bucket it is repeated if :meth:`replace` finds another version.
        """

    @abstractmethod
    def replace(self, path: P, content: bytes, before: str | None) -> None:
        """Replace a file that was read within :meth:`exclusively`, or create it, atomically and durably.

        Args:
            path: The file.
            content: Its new content.
            before: The version that was read; None if there was no file, and in a folder.

        Raises:
            Changed: In a bucket, the file is not that version.
        """

    @abstractmethod
    def overwrite(self, path: P, content: bytes) -> None:
        """Replace a file, whatever it holds, atomically and durably."""

    @abstractmethod
    def remove(self, paths: Sequence[P]) -> None:
        """Remove files of one folder durably."""

    @abstractmethod
    def create_lake(self) -> None:
        """Create the folder of the lake; forget marker and first candles of a lake that the user deleted."""

    @abstractmethod
    def create_state(self) -> None:
        """Create the folder beside the lake, and remove what died writers left."""

    @abstractmethod
    def check_writable(self) -> None:
        """Fail, before anything is fetched, if files cannot be replaced safely."""

    @abstractmethod
    def stamp(self) -> object:
        """Return what changes when the marker changes, or the lake is replaced; None if there is no marker."""
