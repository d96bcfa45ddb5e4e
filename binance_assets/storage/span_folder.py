"""The folder of one series: reading its files, and replacing partitions in them.

What a file holds is replaced as a whole: read, modify, replace. In a folder, that happens under the lock of the
series. The lock file is empty and lies in the folder itself, so that all processes that reach the folder, by whichever
path, use the same lock. Polars and DuckDB accept an empty file. A bucket has no locks: there, it is a loop that
reads the object and its version, merges, and puts the result if the version is unchanged. Only the store
(:mod:`binance_assets.storage.store`) knows which of the two happens.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, groupby
from typing import Final, NamedTuple, TypeVar

import polars as pl

from binance_assets.candles.columns import TIME, columns, empty_candles
from binance_assets.candles.content_hash import content_hash, content_hashes
from binance_assets.model.bucket_paths import LakePath
from binance_assets.model.intervals import Interval
from binance_assets.model.outside import printable
from binance_assets.model.partitions import Partition, merge_ranges
from binance_assets.model.series import Series
from binance_assets.model.timestamps import to_iso
from binance_assets.model.wording import name_some
from binance_assets.storage.checksums import footer_is_intact
from binance_assets.storage.metadata import (
    LAYOUT,
    Entries,
    FileMetadata,
    FileSummary,
    LaterLayout,
    PartitionEntry,
    StoredPartition,
    decode,
    encode,
    locate,
    summarize,
)
from binance_assets.storage.parquet_files import (
    Unreadable,
    file_metadata,
    read_all,
    read_blocks,
    to_parquet,
)
from binance_assets.storage.spans import KEY, by_span, is_span_name, partitions_of_file, span_name
from binance_assets.storage.state import LakeState
from binance_assets.storage.store import MOST_BYTES, FolderView, Identity, OpenedFile, StoreError, TooLarge

# Files may be deleted or replaced between the listing and the reading of a folder. The next listing has what succeeds
# them.
_MAX_LISTINGS: Final = 10

_MAX_NAMED: Final = 5

_ENDING: Final = ".parquet"

_log = logging.getLogger(__name__)

T = TypeVar("T")
Metadata = TypeVar("Metadata", FileMetadata, FileSummary)

PartitionData = tuple[PartitionEntry, pl.DataFrame]
"""The entry of a partition, and its candles."""


@dataclass(frozen=True, slots=True)
class SpanFile:
    """A readable file of a series.

    Attributes:
        path: The file.
        layout: The layout it was written in.
        venue: The venue of its candles; None if the file does not say.
        stored: Its partitions, ascending, without those that another file has in a later layout.
        opened: The end of the file, which says all this.
    """

    path: LakePath
    layout: int
    venue: str | None
    stored: dict[Partition, StoredPartition]
    opened: OpenedFile

    @property
    def footer(self) -> bytes:
        """The end of the file."""
        return self.opened.footer

    @property
    def is_outdated(self) -> bool:
        """Whether an earlier version wrote it: in layout 1, without checksums, or without a hash of each partition."""
        if self.layout < LAYOUT or footer_is_intact(self.footer) is None:
            return True
        return any(entry.content_hash is None for entry in self.stored.values())


@dataclass(frozen=True, slots=True)
class DamagedFile:
    """A file that cannot be read as one of the lake's.

    Attributes:
        path: The file.
        reason: What is wrong with it, as the end of a line that begins with its path.
        opened: Its end.
    """

    path: LakePath
    reason: str
    opened: OpenedFile


class PartitionContent(NamedTuple):
    """A partition as it was read.

    Attributes:
        partition: The partition.
        stored: What the metadata says of it; None if it is not stored.
        candles: Its candles, sorted by open time; or, as text in one line, why there are none.
    """

    partition: Partition
    stored: StoredPartition | None
    candles: pl.DataFrame | str


class SpanFolder:
    """The files of one series.

    Args:
        path: The folder, whether it exists or not.
        series: The series.
        state: The files beside the lake, for copies of damaged ones, and the store of both.
        view: What the folder holds, if it was listed already.
    """

    def __init__(self, path: LakePath, series: Series, state: LakeState, view: FolderView | None = None) -> None:
        self.path = path
        self._series = series
        self._state = state
        self._store = state.store
        self._view = view or self._store.view(path)

    def span_path(self, name: str) -> LakePath:
        """Return the path of the file of the span ``name``, whether it exists or not."""
        return self.path / f"{name}{_ENDING}"

    def names(self) -> list[str]:
        """Return the names of the spans that have files, of either layout, ascending."""
        return sorted({span_name(stem, self._series.interval) for stem in self._stems()})

    def identified(self, first: str, last: str) -> Iterator[tuple[str, Identity]]:
        """Yield the names of the files of the spans from that of the key ``first`` to that of ``last``, unread.

        Those of spans come first, then those of layout 1, each ascending.

        Raises:
            FileNotFoundError: A file was removed after it was listed.
        """
        interval = self._series.interval
        begin, end = span_name(first, interval), span_name(last, interval)
        for stem in _in_order(stem for stem in self._stems() if begin <= span_name(stem, interval) <= end):
            name = f"{stem}{_ENDING}"
            identity = self._view.identity(name)
            if identity is None:
                raise FileNotFoundError(f"{self.path / name} was removed")
            yield name, identity

    def summaries(self, names: Sequence[str]) -> Iterator[tuple[FileSummary | None, int]]:
        """Yield what files of :meth:`identified` hold, None for what cannot be read, and their sizes.

        Raises:
            OSError: A file may not be read, or does not exist anymore.
            LaterLayout: A later version wrote it.
        """
        paths = [self.path / name for name in names]
        for path, opened in zip(paths, self._store.open_all(paths), strict=True):
            summary = None
            with suppress(ValueError):
                summary = self._decode(path, opened, summarize)
            yield summary, opened.size

    def stored(self, names: Sequence[str] | None = None) -> dict[Partition, StoredPartition]:
        """Return the accepted partitions of the spans ``names``, or of all, ascending; read only footers.

        Files that cannot be read are left out.

        Raises:
            OSError: A file exists but may not be read.
            LaterLayout: A later version wrote a file.
        """
        files = (file for file in self._span_files(names) if isinstance(file, SpanFile))
        stored = (item for file in files for item in file.stored.items() if item[1].is_accepted)
        return dict(sorted(stored, key=lambda item: item[0]))

    def stored_among(self, partitions: Sequence[Partition]) -> dict[Partition, StoredPartition]:
        """Return those of ``partitions`` (ascending) that are accepted, ascending; read only footers.

        The names of their files follow from the partitions, so no other file is opened. A local folder is not listed.

        Raises:
            OSError, LaterLayout: As for :meth:`stored`.
        """
        found: dict[Partition, StoredPartition] = {}
        spans = by_span(partitions, self._series.interval)
        if self._view.is_snapshot:  # all files are known by one listing, so their ends can be read at the same time
            stored = self.stored(list(spans))
            return {partition: stored[partition] for partition in partitions if partition in stored}
        for name, members in spans.items():
            stored = _stored_in(self.stable(partial(self._open_named, name, members)))
            found |= {key: stored[key] for key in members if key in stored and stored[key].is_accepted}
        return found

    def damaged(self) -> list[DamagedFile]:
        """Return the files that cannot be read as those of this series, ascending.

        Raises:
            OSError, LaterLayout: As for :meth:`stored`.
        """
        return [file for file in self._span_files(None) if isinstance(file, DamagedFile)]

    def venue(self) -> str | None:
        """Return the venue that the first readable file names; None if no file names one.

        Raises:
            OSError, LaterLayout: As for :meth:`stored`.
        """
        files = (file for file in self._span_files(None) if isinstance(file, SpanFile))
        return next((file.venue for file in files if file.venue), None)

    def read_each(self, partitions: Sequence[Partition]) -> Iterator[PartitionContent]:
        """Yield the content of partitions (ascending), reading each file once; a span at a time is in memory.

        Raises:
            OSError: A file exists but may not be read.
            LaterLayout: A later version wrote a file.
        """
        for name, members in by_span(partitions, self._series.interval).items():
            yield from self.stable(partial(self._read_span, name, members))

    def scan(self, partitions: Sequence[Partition]) -> pl.LazyFrame:
        """Return the candles of stored partitions (ascending) lazily, sorted by open time.

        Raises:
            FileNotFoundError: A partition is not stored.
            OSError, LaterLayout: As for :meth:`stored`.
        """
        paths = self._paths_of(partitions)
        # The files of a span may alternate: one of layout 2 can lack days that are in files of layout 1.
        frames = [
            self._store.scan(path).filter(_opens_in(list(members)))
            for path, members in groupby(partitions, key=lambda partition: paths[partition])
        ]
        return pl.concat(frames) if frames else empty_candles(self._series.market).lazy()

    def replace(
        self, name: str, additions: Mapping[Partition, PartitionData], venue: str | None
    ) -> dict[Partition, StoredPartition]:
        """Replace partitions of a span and keep its others; bring the span to the current layout.

        A stored partition that is better than its addition stays, see :meth:`PartitionEntry.may_replace`. This is
        decided under the lock of the series, so no other process can write a better one in between.

        Args:
            name: The span.
            additions: Its new partitions: entry and candles. Nothing only rewrites files of layout 1.
            venue: The venue of the candles.

        Returns:
            The given partitions as they are stored now. Where the stored one stayed, it names the addition as
            ``declined``.

        Raises:
            OSError, polars.exceptions.PolarsError: The file cannot be written; what was there is unchanged.
            LaterLayout: A later version wrote a file.
        """
        return self._store.exclusively(self.path, lambda: self._replace(name, additions, venue))

    def _replace(
        self, name: str, additions: Mapping[Partition, PartitionData], venue: str | None
    ) -> dict[Partition, StoredPartition]:
        target = self.span_path(name)
        self._view = self._store.view(self.path)
        files, kept, replaced = self.stable(lambda: self._open_and_keep(name, additions))
        located = _stored_in(files)
        declined = {partition: entry for partition, (entry, _) in additions.items() if partition in kept}
        now = to_iso(time.time_ns() // 1_000_000)
        added = {
            partition: (entry.replacing(replaced[partition], now) if partition in replaced else entry, candles)
            for partition, (entry, candles) in additions.items()
            if partition not in declined
        }
        if not added and (additions or not kept):
            # Only worse partitions, or a migration of files without readable candles: everything stays as it is.
            return {partition: replace(located[partition], declined=entry) for partition, entry in declined.items()}
        parts = dict(sorted({**kept, **added}.items()))
        entries = {partition: entry for partition, (entry, _) in parts.items()}
        content = self._content(entries, [frame for _, frame in parts.values()], venue)
        before = next((file.opened.version for file in files if file.path == target), None)
        self._store.replace(target, content, before)
        self._remove_layout_1(files, target, parts)
        stored = locate(target, len(content), entries)
        return {partition: replace(stored[partition], declined=declined.get(partition)) for partition in additions}

    def outdated_names(self) -> list[str]:
        """Return the names of the spans that a migration writes again, ascending.

        They have readable files of layout 1, files without checksums, or partitions without a content hash.

        Raises:
            OSError, LaterLayout: As for :meth:`stored`.
        """
        files = (file for file in self._span_files(None) if isinstance(file, SpanFile))
        return sorted({span_name(file.path.stem, self._series.interval) for file in files if file.is_outdated})

    def _stems(self) -> Iterator[str]:
        """Yield the names, without their ending, of the files of spans and of layout 1; others are not of the lake."""
        for name in self._view.names():
            stem = name.removesuffix(_ENDING)
            is_file = stem != name and stem.isascii()
            if is_file and (is_span_name(stem, self._series.interval) or KEY.fullmatch(stem)):
                yield stem

    def _paths(self, names: Sequence[str] | None) -> list[LakePath]:
        """Return the files of the spans ``names``, or of all: first those of spans, then those of layout 1."""
        wanted = None if names is None else set(names)
        interval = self._series.interval
        return self._sorted_paths(
            stem for stem in self._stems() if wanted is None or span_name(stem, interval) in wanted
        )

    def _sorted_paths(self, stems: Iterable[str]) -> list[LakePath]:
        return [self.path / f"{stem}{_ENDING}" for stem in _in_order(stems)]

    def _open_named(
        self, name: str, partitions: Sequence[Partition], whole: bool = False
    ) -> list[SpanFile | DamagedFile]:
        """Return the files that hold ``partitions`` of the span ``name``, found by their names.

        Args:
            name: The span.
            partitions: The partitions.
            whole: Whether their candles are needed as well.

        Raises:
            FileNotFoundError: Another process changed the span in the meantime.
            OSError, LaterLayout: As for :meth:`stored`.
        """
        path = self.span_path(name)
        before = self._view.identity(path.name)
        files = self._open_all([path] if before else [], whole)
        held = _stored_in(files)
        own = [self.span_path(partition.key) for partition in partitions if partition not in held]
        layout_1 = [candidate for candidate in own if candidate != path and self._view.identity(candidate.name)]
        # A migration writes the file of the span, and then deletes those of layout 1.
        if own and self._view.identity(path.name) != before:
            raise FileNotFoundError(f"{path} was replaced")
        return self._open_all([*([path] if before else []), *layout_1], whole) if layout_1 else files

    def _span_files(self, names: Sequence[str] | None) -> list[SpanFile | DamagedFile]:
        return self.stable(lambda: self._open_all(self._paths(names)))

    def stable(self, read: Callable[[], T]) -> T:
        """Return what ``read`` returns; repeat it while other processes delete or replace what it has listed."""
        for _ in range(_MAX_LISTINGS):
            with suppress(FileNotFoundError):
                return read()
            self._view = self._store.view(self.path)
        raise OSError(f"the files in {self.path} change too fast to be read")

    def _open_all(self, paths: Sequence[LakePath], whole: bool = False) -> list[SpanFile | DamagedFile]:
        """Return the files ``paths``; a partition that two files hold counts for the first of them only."""
        known: set[Partition] = set()
        files: list[SpanFile | DamagedFile] = []
        for path, opened in zip(paths, self._store.open_all(paths, whole), strict=True):
            try:
                metadata = self._decode(path, opened, decode)
            except ValueError as error:
                files.append(DamagedFile(path, str(error), opened))
                continue
            stored = locate(path, opened.size, metadata.entries)
            unknown = {partition: entry for partition, entry in stored.items() if partition not in known}
            files.append(SpanFile(path, metadata.layout, metadata.venue, unknown, opened))
            known |= unknown.keys()
        return files

    def _decode(
        self, path: LakePath, opened: OpenedFile, decoded_by: Callable[[Mapping[str, str], str, Interval], Metadata]
    ) -> Metadata:
        """Return the metadata of a file, given its end and the function that decodes it.

        Raises:
            LaterLayout: A later version wrote the file.
            ValueError: It cannot be read, or is not that of this series; the message says why in one line.
        """
        if opened.size > MOST_BYTES:
            raise ValueError(f"cannot be read: {TooLarge(MOST_BYTES, opened.version)}")
        try:
            metadata = decoded_by(file_metadata(opened.footer), path.stem, self._series.interval)
        except LaterLayout as error:
            raise LaterLayout(
                f"{path} has {error}, which this version cannot read; install a later binance-assets, or set "
                "BINANCE_ASSETS_LAKE to another folder"
            ) from None
        except (ValueError, Unreadable) as error:
            raise ValueError(f"cannot be read: {printable(error)}") from None
        if metadata.series != str(self._series):
            raise ValueError(f"holds {printable(metadata.series)}, not {self._series}")
        return metadata

    def _read_span(self, name: str, partitions: Sequence[Partition]) -> list[PartitionContent]:
        contents: dict[Partition, PartitionContent] = {}
        damaged: dict[Partition, str] = {}
        for file in self._open_named(name, partitions, whole=True):
            if isinstance(file, DamagedFile):
                may_hold = partitions_of_file(file.path.stem, self._series.interval)
                damaged |= dict.fromkeys(may_hold, f"{file.path} {file.reason}")
                continue
            wanted = {partition: file.stored[partition] for partition in partitions if partition in file.stored}
            accepted = {partition: stored for partition, stored in wanted.items() if stored.is_accepted}
            for partition, candles in self._candles(file, accepted).items():
                contents[partition] = PartitionContent(partition, accepted[partition], candles)
        for partition in partitions:
            absent = PartitionContent(partition, None, damaged.get(partition, "it is not in the lake"))
            contents.setdefault(partition, absent)
        return [contents[partition] for partition in partitions]

    def _paths_of(self, partitions: Sequence[Partition]) -> dict[Partition, LakePath]:
        """Return the file of each partition.

        Raises:
            FileNotFoundError: A partition is not stored.
        """
        stored = self.stored_among(partitions)
        for partition in partitions:
            if partition not in stored:
                raise FileNotFoundError(f"{self._series} {partition} is not in the lake")
        return {partition: stored[partition].path for partition in partitions}

    def _open_and_keep(
        self, name: str, additions: Mapping[Partition, PartitionData]
    ) -> tuple[list[SpanFile | DamagedFile], dict[Partition, PartitionData], Entries]:
        """Return the files of a span, the partitions that stay, and those that additions replace."""
        files = self._open_all(self._paths([name]), whole=True)
        stored = self._with_hashes(files, additions.keys())
        better = {partition for partition, entry in stored.items() if not additions[partition][0].may_replace(entry)}
        kept = self._kept(files, additions.keys() - better)
        return files, kept, {partition: entry for partition, entry in stored.items() if partition not in better}

    def _with_hashes(self, files: Sequence[SpanFile | DamagedFile], partitions: Set[Partition]) -> Entries:
        """Return the entries of accepted ``partitions`` in ``files``, with a hash also where it was not stored."""
        entries: Entries = {}
        for file in files:
            if isinstance(file, SpanFile):
                stored = {key: entry for key, entry in file.stored.items() if key in partitions and entry.is_accepted}
                candles = self._candles(file, {key: entry for key, entry in stored.items() if not entry.content_hash})
                hashed = {
                    key: _with_hash(stored[key], part) for key, part in candles.items() if not isinstance(part, str)
                }
                entries |= stored | hashed
        return entries

    def _kept(
        self, files: Sequence[SpanFile | DamagedFile], replaced: Set[Partition]
    ) -> dict[Partition, PartitionData]:
        """Return the partitions of ``files`` that are not ``replaced``.

        What cannot be read anymore is dropped, so that it is fetched again; a copy of the damaged file is kept.
        """
        kept: dict[Partition, PartitionData] = {}
        for file in files:
            if isinstance(file, DamagedFile):
                if file.path.stem == span_name(file.path.stem, self._series.interval):
                    self._keep_damaged(file.path, file.reason)
                continue
            wanted = {partition: stored for partition, stored in file.stored.items() if partition not in replaced}
            lost: list[Partition] = []
            for partition, candles in self._candles(file, wanted).items():
                if isinstance(candles, str):
                    lost.append(partition)
                else:
                    kept[partition] = (_with_hash(wanted[partition], candles), candles)
            if lost:
                self._keep_damaged(file.path, f"has no readable candles of {name_some(lost, _MAX_NAMED)}")
        return kept

    def _candles(
        self, file: SpanFile, stored: Mapping[Partition, PartitionEntry]
    ) -> dict[Partition, pl.DataFrame | str]:
        """Return the candles of partitions of a file, or in one line why they are not those of the metadata.

        Raises:
            FileNotFoundError: Another process has replaced the file; ``stored`` describes the earlier version.
        """
        if not stored:
            return {}
        content = self._store.read(file.path).data if file.opened.content is None else file.opened.content
        if not content.endswith(file.footer):
            raise FileNotFoundError(f"{file.path} was replaced")
        expected, reason = columns(self._series.market), None
        try:
            whole = read_all(content, file.footer)
        except Unreadable:  # the damage may concern some row groups only
            blocks, reason = read_blocks(content, file.footer, sum(entry.rows for entry in file.stored.values()))
            whole = pl.concat([empty_candles(self._series.market), *(b for b in blocks if dict(b.schema) == expected)])
        if dict(whole.schema) != expected:
            return dict.fromkeys(stored, "its columns are not those of the schema")
        ranges = _split(whole, list(stored))
        hashes = content_hashes(whole, ranges)
        checked = {
            partition: _checked(whole.slice(start, end - start), entry, digest)
            for (partition, entry), (start, end), digest in zip(stored.items(), ranges, hashes, strict=True)
        }
        if reason is None:
            return checked | _found_by_position(file, whole, stored, checked)
        found = checked | _found_by_time(whole, stored, checked)
        unread = f"it cannot be read: {reason}"
        return {partition: unread if isinstance(frame, str) else frame for partition, frame in found.items()}

    def _keep_damaged(self, path: LakePath, reason: str) -> None:
        try:
            copy = self._state.keep_damaged(path)
        except TooLarge as error:
            raise StoreError(f"{path} cannot be copied before it is replaced: {error}; remove it") from None
        _log.warning("%s %s; a copy is kept as %s", path, reason, copy)

    def _content(self, entries: Entries, frames: Sequence[pl.DataFrame], venue: str | None) -> bytes:
        """Return a file with the given entries and their candles, both ascending."""
        candles = pl.concat([empty_candles(self._series.market), *frames])
        if candles.height != sum(entry.rows for entry in entries.values()):
            raise ValueError(f"{self._series}: the number of candles is not that of the metadata")
        return to_parquet(candles, encode(self._series, venue, entries))

    def _remove_layout_1(
        self, files: Sequence[SpanFile | DamagedFile], target: LakePath, parts: Mapping[Partition, PartitionData]
    ) -> None:
        """Delete the files of layout 1 whose partition the file ``target`` holds."""
        keys = {partition.key for partition in parts}
        replaced = [file for file in files if file.path != target and file.path.stem in keys]
        for file in replaced:
            if isinstance(file, DamagedFile):
                self._keep_damaged(file.path, file.reason)
        self._store.remove([file.path for file in replaced])


def _in_order(stems: Iterable[str]) -> list[str]:
    """Return names of files in order: those of spans, which are never longer than a key, then those of layout 1."""
    return sorted(sorted(stems), key=len)


def _checked(candles: pl.DataFrame, entry: PartitionEntry, digest: str) -> pl.DataFrame | str:
    """Return the candles, whose hash is ``digest``, if they are those of the entry; otherwise what differs."""
    if candles.height != entry.rows:
        return f"it has {candles.height:,} candles, and its metadata says {entry.rows:,}"
    if entry.content_hash is not None and digest != entry.content_hash:
        return "its candles are not those that were written: their hash is not that of the metadata"
    return candles


def _found_by_position(
    file: SpanFile,
    whole: pl.DataFrame,
    stored: Mapping[Partition, PartitionEntry],
    checked: Mapping[Partition, pl.DataFrame | str],
) -> dict[Partition, pl.DataFrame | str]:
    """Return the partitions of a file that were not found by time, but whose rows have the hash of the metadata.

    A changed open time moves a row into another partition, or disturbs the order. Then the rows of the other partitions
    are still where the metadata says: one partition after the other.
    """
    failed = [partition for partition in stored if isinstance(checked[partition], str)]
    ends = list(accumulate(entry.rows for entry in file.stored.values()))
    if not failed or not ends or ends[-1] != whole.height:
        return {}
    slices = {
        partition: whole.slice(end - entry.rows, entry.rows)
        for (partition, entry), end in zip(file.stored.items(), ends, strict=True)
    }
    return {
        partition: slices[partition]
        for partition in failed
        if stored[partition].content_hash is not None
        and content_hash(slices[partition]) == stored[partition].content_hash
    }


def _found_by_time(
    whole: pl.DataFrame,
    stored: Mapping[Partition, PartitionEntry],
    checked: Mapping[Partition, pl.DataFrame | str],
) -> dict[Partition, pl.DataFrame | str]:
    """Return the partitions whose rows have the hash of the metadata, although other rows are not in order of time."""
    failed = [partition for partition in stored if isinstance(checked[partition], str)]
    frames = {partition: whole.filter(_opens_in([partition])) for partition in failed}
    return {
        partition: frame
        for partition, frame in frames.items()
        if stored[partition].content_hash is not None and content_hash(frame) == stored[partition].content_hash
    }


def _stored_in(files: Sequence[SpanFile | DamagedFile]) -> dict[Partition, StoredPartition]:
    return {key: entry for file in files if isinstance(file, SpanFile) for key, entry in file.stored.items()}


def _with_hash(entry: PartitionEntry, candles: pl.DataFrame) -> PartitionEntry:
    """Return the entry with the hash of its candles, which an earlier version did not store."""
    return entry if entry.content_hash is not None else replace(entry, content_hash=content_hash(candles))


def _opens_in(partitions: Sequence[Partition]) -> pl.Expr:
    """Return the filter for the candles that open in ``partitions``, which are ascending."""
    time = pl.col("open_time")
    ranges = (
        time.is_between(pl.lit(start).cast(TIME), pl.lit(end).cast(TIME), closed="left")
        for start, end in merge_ranges(partitions)
    )
    return pl.any_horizontal(ranges)


def _split(candles: pl.DataFrame, partitions: Sequence[Partition]) -> list[tuple[int, int]]:
    """Return the rows of each partition, half-open, given a table that is sorted by open time."""
    opens = candles["open_time"].to_physical()
    starts = opens.search_sorted(pl.Series([partition.start for partition in partitions], dtype=pl.Int64))
    ends = opens.search_sorted(pl.Series([partition.end for partition in partitions], dtype=pl.Int64))
    # Damaged times may be in any order.
    return [(start, max(start, end)) for start, end in zip(starts, ends, strict=True)]
