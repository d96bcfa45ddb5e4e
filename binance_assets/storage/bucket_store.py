"""A lake in a bucket of an object store that speaks S3.

Objects are replaced by compare-and-swap: a PUT with ``If-Match`` or ``If-None-Match``, which fails if the object is not
the version that was read. A PUT is atomic, so a process that dies leaves the old object or the new one.

An object counts as missing only if the server says so in the words of S3 (``NoSuchKey``). Whatever else goes wrong ends
with :class:`~binance_assets.storage.store.StoreError`: a lake that cannot be reached must never look empty.
"""

from __future__ import annotations

import hashlib
import random
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import PurePosixPath
from typing import Any, Final, TypeVar

import polars as pl

from binance_assets.model.bucket_paths import BucketPath
from binance_assets.storage.bucket_client import Bucket, BucketOptions, bucket_at, no_such_object, refusal
from binance_assets.storage.parquet_files import FIRST_READ, footer_length
from binance_assets.storage.store import (
    INCOMING,
    MARKER,
    MOST_BYTES,
    Changed,
    Content,
    FolderView,
    Identity,
    OpenedFile,
    Store,
    StoreError,
    TooLarge,
)
from binance_assets.waiting import Wait, waits

T = TypeVar("T")

_READERS: Final = 16  # requests for the ends of files in flight at once
# A folder of a series is listed by one request; from so many on, the whole market is cheaper.
_MOST_LISTINGS: Final = 20

_MOST_ATTEMPTS: Final = 60
_PATIENCE_SECONDS: Final = 120.0
_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 2.0

_NO_ETAG: Final = '"00000000000000000000000000000000"'

_SERIES_LEVELS: Final = ("market=", "symbol=", "interval=")


class _Snapshot(FolderView):
    """The objects of a folder as they were listed, by name: ETag and size."""

    is_snapshot = True

    def __init__(self, listed: Mapping[str, tuple[str, int]]) -> None:
        self._listed = listed

    def names(self) -> Iterable[str]:
        return self._listed

    def identity(self, name: str) -> Identity | None:
        if name not in self._listed:
            return None
        tag, size = self._listed[name]
        return Identity(int.from_bytes(hashlib.sha256(tag.encode()).digest()[:8]), size, 0)


class _LazySnapshot(FolderView):
    """The objects of a folder, which are listed when the first question is asked."""

    is_snapshot = True

    def __init__(self, list_now: Callable[[], FolderView]) -> None:
        self._list_now = list_now
        self._listed: FolderView | None = None

    def names(self) -> Iterable[str]:
        return self._snapshot.names()

    def identity(self, name: str) -> Identity | None:
        return self._snapshot.identity(name)

    @property
    def _snapshot(self) -> FolderView:
        if self._listed is None:
            self._listed = self._list_now()
        return self._listed


class BucketStore(Store[BucketPath]):
    """A lake in a bucket. Nothing is requested before it is needed.

    Args:
        root: The place of the lake.
        environment: The variables ``AWS_*``.
    """

    def __init__(self, root: BucketPath, environment: Mapping[str, str]) -> None:
        self.root = root
        self._options = BucketOptions.of(environment)

    @property
    def state_folder(self) -> BucketPath:
        """The place of the other files, beside the lake."""
        return self.root.with_name(f"{self.root.name}.state")

    @property
    def _bucket(self) -> Bucket:
        return bucket_at(self.root.bucket, self._options)

    # Reading ------------------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        """Return whether there is a marker or an object of the lake."""
        if self.stamp() is not None:
            return True
        return any(islice(self._list(self.root), 1))

    def is_usable(self) -> bool:
        """Return True: no folder is needed."""
        return True

    def series_folders(self) -> Iterable[BucketPath]:
        """Return the folders of series that have objects."""
        found: dict[BucketPath, None] = {}
        for key, _, _ in self._list(self.root):
            levels = PurePosixPath(key).parts[: len(_SERIES_LEVELS)]
            if len(levels) == len(_SERIES_LEVELS) and all(map(str.startswith, levels, _SERIES_LEVELS)):
                found[self.root / "/".join(levels)] = None
        return found

    def view(self, folder: BucketPath) -> FolderView:
        """Return the files directly in a folder, listed by one request when they are needed."""
        return _LazySnapshot(lambda: _Snapshot({key: (tag, size) for key, tag, size in self._list(folder)}))

    def views(self, folders: Sequence[BucketPath], above: BucketPath) -> dict[BucketPath, FolderView]:
        """Return a view of each folder; of many, all that is below ``above`` is listed at once."""
        if len(folders) <= _MOST_LISTINGS:
            return {folder: self.view(folder) for folder in folders}
        listed: dict[str, dict[str, tuple[str, int]]] = defaultdict(dict)
        for key, tag, size in self._list(above):
            folder, _, name = key.rpartition("/")
            listed[folder][name] = tag, size
        return {folder: _Snapshot(listed.get(str(folder.relative_to(above)), {})) for folder in folders}

    def open_all(self, paths: Sequence[BucketPath], whole: bool = False) -> Iterator[OpenedFile]:
        """Yield the ends of objects, by range requests at the same time; or all of each, one after the other."""
        if whole:
            yield from map(self._open_whole, paths)
        elif len(paths) == 1:
            yield self._open_end(paths[0])
        elif paths:
            with ThreadPoolExecutor(min(_READERS, len(paths)), "bucket") as pool:
                yield from pool.map(self._open_end, paths)

    def read(self, path: BucketPath, most: int | None = None) -> Content:
        """Return an object."""
        limit = MOST_BYTES if most is None else most
        with self._asking(path):
            found = self._bucket.get(path.key)
            if found.meta["size"] > limit:
                raise TooLarge(limit, found.meta["e_tag"])
            return Content(bytes(found.bytes()), found.meta["e_tag"])

    def read_state(self, name: str, most: int) -> Content | None:
        """Return a file beside the lake; None if there is none."""
        try:
            return self.read(self.state_folder / name, most)
        except FileNotFoundError:
            return None

    def find_state(self, name: str) -> BucketPath:
        """Return where a file beside the lake is, or would be."""
        return self.state_folder / name

    def scan(self, path: BucketPath) -> pl.LazyFrame:
        """Return the rows of an object lazily; Polars reads it when they are collected."""
        options = self._options.of_polars()
        return pl.scan_parquet(
            str(path), hive_partitioning=False, glob=False, storage_options=options, credential_provider=None
        )

    def collect(self, table: pl.LazyFrame) -> pl.DataFrame:
        """Return a table in memory; what Polars raises may repeat what the server wrote."""
        try:
            return table.collect(engine="streaming")
        except (OSError, pl.exceptions.ComputeError) as error:
            if no_such_object(error):
                raise StoreError("a file was removed while it was read; try again") from None
            raise StoreError(refusal(error, self.root.bucket, self._options)) from None

    def _open_whole(self, path: BucketPath) -> OpenedFile:
        with self._asking(path):
            found = self._bucket.get(path.key)
            size, version = found.meta["size"], found.meta["e_tag"]
            if size > MOST_BYTES:
                return OpenedFile(b"", size, version)
            data = bytes(found.bytes())
        length = footer_length(data, len(data))
        return OpenedFile(data[-length:] if length else b"", len(data), version, data)

    def _open_end(self, path: BucketPath) -> OpenedFile:
        with self._asking(path):
            try:
                found = self._bucket.get(path.key, {"range": {"suffix": FIRST_READ}})
            except Exception as error:
                if "InvalidRange" not in str(error):
                    raise
                return self._open_whole(path)  # an empty object has no end
            end, size, version = bytes(found.bytes()), found.meta["size"], found.meta["e_tag"]
            length = footer_length(end, size)
            if length > len(end):
                wanted = {"range": {"suffix": length}, "if_match": version}
                end = bytes(self._bucket.get(path.key, wanted).bytes())
            return OpenedFile(end[-length:] if length else b"", size, version)

    def _list(self, folder: BucketPath) -> Iterator[tuple[str, str, int]]:
        """Yield key below ``folder``, ETag, and size of each object."""
        with self._asking(folder, missing_is_possible=False):
            for listed in self._bucket.list(folder.key):
                for entry in listed:
                    below = entry["path"].removeprefix(f"{folder.key}/")
                    yield below, entry["e_tag"] or "", entry["size"]

    # Writing ------------------------------------------------------------------------------------------------------

    def exclusively(self, folder: BucketPath, attempt: Callable[[], T]) -> T:
        """Return what ``attempt`` returns; repeat it while others replace what it has read."""
        began, pause = time.monotonic(), _FIRST_PAUSE_SECONDS
        with waits() as announce:
            for _ in range(_MOST_ATTEMPTS):
                try:
                    return attempt()
                except Changed:
                    left = _PATIENCE_SECONDS - (time.monotonic() - began)
                    if left <= 0:
                        break
                announce(Wait.of_seconds(f"other processes write to {folder}; waiting at most", left))
                time.sleep(random.uniform(0, pause))
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        raise StoreError(f"other processes keep replacing the files in {folder}; let them finish, then try again")

    def replace(self, path: BucketPath, content: bytes, before: str | None) -> None:
        """Replace the version ``before`` of an object; None creates it."""
        mode: Any = "create" if before is None else {"e_tag": before}
        with self._asking(path, missing_is_possible=False):
            self._bucket.put(path.key, content, mode)

    def overwrite(self, path: BucketPath, content: bytes) -> None:
        """Replace an object, whatever it holds."""
        with self._asking(path, missing_is_possible=False):
            self._bucket.put(path.key, content, "overwrite")

    def remove(self, paths: Sequence[BucketPath]) -> None:
        """Remove objects."""
        for path in paths:
            with self._asking(path, missing_is_possible=False):
                self._bucket.delete(path.key)

    def create_lake(self) -> None:
        """Do nothing: a bucket has no folders. The user deletes the marker together with the lake."""

    def create_state(self) -> None:
        """Do nothing: a bucket has no folders, and no temporary objects."""

    def check_writable(self) -> None:
        """Write, replace, and remove an object, once per process; fail if the server ignores a condition.

        Raises:
            StoreError: A right is missing, or the server replaces objects that it must not replace.
        """
        if self.root in self._bucket.proved:
            return
        probe = self.state_folder / INCOMING / f"{uuid.uuid4().hex}.part"
        self._is_refused(probe, None)  # also if the response was lost, and the repeated request found it there
        ignored = [before for before in (None, _NO_ETAG) if not self._is_refused(probe, before)]
        if ignored:
            with suppress(StoreError):
                self.remove([probe])
            raise StoreError(
                f"{self._options.server} ignores the conditions If-None-Match and If-Match, so that writers would "
                "overwrite each other; use a server that supports conditional writes"
            )
        self.remove([probe])
        self._bucket.proved.add(self.root)

    def _is_refused(self, probe: BucketPath, before: str | None) -> bool:
        try:
            self.replace(probe, b"1", before)
        except Changed:
            return True
        return False

    def stamp(self) -> object:
        """Return the version of the marker; None if there is none."""
        path = self.state_folder / MARKER
        with suppress(FileNotFoundError), self._asking(path):
            return self._bucket.get(path.key).meta["e_tag"]
        return None

    @contextmanager
    def _asking(self, path: BucketPath, missing_is_possible: bool = True) -> Iterator[None]:
        """Raise what a request raises as one of the errors of the interface.

        Raises:
            FileNotFoundError: There is no such object, or another version of it than was asked for.
            Changed: A condition of a PUT does not hold.
            StoreError: Anything else.
        """
        _ = self._bucket  # which needs obstore, and says so

        from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

        try:
            yield
        except (AlreadyExistsError, PreconditionError):
            if missing_is_possible:
                raise FileNotFoundError(f"{path} was replaced") from None
            raise Changed(str(path)) from None
        except (BaseError, OSError) as error:
            if missing_is_possible and no_such_object(error):
                raise FileNotFoundError(f"there is no {path}") from None
            raise StoreError(refusal(error, self.root.bucket, self._options)) from None
