"""The lake: the accepted partitions of every series, in Parquet files that Polars, DuckDB, and Spark read as a table.

    <lake>/market=spot/symbol=BTCUSDT/interval=1m/2024-01.parquet

A file holds the partitions of a span (:mod:`binance_assets.storage.spans`) and says in its metadata what it knows of
each (:mod:`binance_assets.storage.metadata`). :class:`Lake` is the only place that knows files: everything else asks
it for partitions.
"""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import polars as pl

from binance_assets.candles.columns import empty_candles
from binance_assets.model.bucket_paths import LakePath, below
from binance_assets.model.markets import Market
from binance_assets.model.outside import printable
from binance_assets.model.partitions import Partition, next_partition_first_day, partitions_between
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import Series, parse_any_series
from binance_assets.model.timestamps import to_date, to_ms
from binance_assets.settings import ConfigurationError, named_lake
from binance_assets.storage.file_index import empty_index, is_worth_remembering, merged_index, refreshed_index
from binance_assets.storage.metadata import LAYOUT, LaterLayout, StoredPartition, entries_of
from binance_assets.storage.parquet_files import intact_table, to_cache_file
from binance_assets.storage.span_folder import PartitionContent, SpanFolder
from binance_assets.storage.spans import by_span, partitions_of_file, span_name
from binance_assets.storage.state import LakeState, Marker
from binance_assets.storage.store import Content, StoreError, TooLarge

__all__ = ["Lake", "LakeError", "PartitionContent", "StoredPartition"]


class LakeError(ConfigurationError):
    """The lake cannot be used; the message is one line that says how to fix it."""


def check_accepted(series: Series, result: PartitionResult) -> None:
    """Refuse to write a result that is not accepted.

    Raises:
        ValueError: It is refused.
    """
    if not result.is_accepted:
        raise ValueError(f"{series} {result.partition} is refused ({result.verdict}) and must not be written")


class Lake:
    """The folder, or the place in a bucket, that holds the candles. Nothing is created before the first write.

    Args:
        root: The folder, or the place in a bucket; as text, ``s3://bucket/prefix`` is a place in a bucket.
        environment: The variables ``AWS_*`` that say how to reach the bucket; None for those of the process.

    Raises:
        ConfigurationError: The text is neither.
    """

    def __init__(self, root: LakePath | str, environment: Mapping[str, str] | None = None) -> None:
        self.root = named_lake(root) if isinstance(root, str) else root
        self._state = LakeState(self.root, environment)
        self._store = self._state.store
        self._prepared: tuple[tuple[str, dict[str, str]], object] | None = None

    # What is stored -----------------------------------------------------------------------------------------------

    def stored(self, series: Series, partition: Partition) -> StoredPartition | None:
        """Return what the metadata says of a partition; None if the lake does not hold it.

        To look up many partitions, use :meth:`stored_partitions`, which reads each file once.

        Raises:
            LakeError: A file exists but may not be read, or was written by a later version.
        """
        with self._reading():
            return self._folder(series).stored_among([partition]).get(partition)

    def stored_partitions(
        self, series: Series, start: dt.date | None = None, end: dt.date | None = None
    ) -> dict[Partition, StoredPartition]:
        """Return the partitions of a series that the lake holds, ascending; read only the footers of the files.

        Files that cannot be read count as absent.

        Args:
            series: The series.
            start: First day of the first partition, UTC; None for all from the first on.
            end: Day after the last partition, UTC; None for all up to the last one.

        Raises:
            LakeError: A file exists but may not be read, or was written by a later version.
        """
        folder = self._folder(series)
        first, last = (start or dt.date.min).isoformat(), (end or dt.date.max).isoformat()
        with self._reading():
            names = [
                name
                for name in folder.names()
                if span_name(first, series.interval) <= name <= span_name(last, series.interval)
            ]
            stored = folder.stored(names)
        return {partition: entry for partition, entry in stored.items() if first <= partition.key < last}

    def stored_among(self, series: Series, partitions: Sequence[Partition]) -> dict[Partition, StoredPartition]:
        """Return those of ``partitions`` that the lake holds, in the given order; read only footers of their files.

        The names of the files are computed, so nothing is listed and no other file is opened.

        Raises:
            LakeError: A file exists but may not be read, or was written by a later version.
        """
        with self._reading():
            stored = self._folder(series).stored_among(sorted(partitions))
        return {partition: stored[partition] for partition in partitions if partition in stored}

    def missing(self, series: Series, partitions: Sequence[Partition]) -> tuple[Partition, ...]:
        """Return those of ``partitions`` that the lake does not hold, in the given order.

        Raises:
            LakeError: A file exists but may not be read, or was written by a later version.
        """
        stored = self.stored_among(series, partitions)
        return tuple(partition for partition in partitions if partition not in stored)

    def partitions(self, series: Series, start: dt.date | None = None, end: dt.date | None = None) -> list[Partition]:
        """Return the partitions of a series that has files, including partitions that the lake does not hold.

        Args:
            series: The series.
            start: First day of the first partition, UTC; None for the first stored one.
            end: Day after the last partition, UTC; None for the last stored one.

        Returns:
            The partitions in ``[start, end)``, ascending; an empty list if the series has no file. All partitions of a
            damaged file that began before today count, because it may have held them.

        Raises:
            LakeError: A file may not be read, or was written by a later version.
        """
        folder, today = self._folder(series), to_ms(dt.datetime.now(dt.UTC).date())
        with self._reading():
            held = list(folder.stored())
            for file in folder.damaged():
                may_hold = partitions_of_file(file.path.stem, series.interval)
                held += [partition for partition in may_hold if partition.start < today]
        if not held:
            return []
        after_last = next_partition_first_day(to_date(max(held).start), series.interval)
        return partitions_between(start or to_date(min(held).start), end or after_last, series.interval)

    def damaged(self, series: Series) -> list[str]:
        """Return, in one line each, the files of a series that cannot be read, and why.

        Raises:
            LakeError: A file may not be read, or was written by a later version.
        """
        with self._reading():
            return [f"{file.path} {file.reason}" for file in self._folder(series).damaged()]

    def series(self) -> list[Series]:
        """Return the series that have a folder, by name; folders that are not those of a series are left out.

        Raises:
            LakeError: The bucket cannot be read.
        """
        found = []
        with self._reading():
            folders = list(self._store.series_folders())
        for folder in folders:
            names = (part.split("=", 1)[1] for part in below(folder, self.root).parts)
            try:
                found.append(parse_any_series("/".join(names)))
            except ValueError:
                continue
        return sorted(found, key=str)

    # Candles ------------------------------------------------------------------------------------------------------

    def read_each(self, series: Series, partitions: Sequence[Partition]) -> Iterator[PartitionContent]:
        """Yield the metadata and the candles of partitions (ascending); read each file once.

        Raises:
            LakeError: A file exists but may not be read, or was written by a later version.
        """
        with self._reading():
            yield from self._folder(series).read_each(partitions)

    def read(self, series: Series, partitions: Sequence[Partition]) -> pl.DataFrame:
        """Return the candles of stored partitions, sorted by open time.

        Args:
            series: The series.
            partitions: Ascending.

        Raises:
            LakeError: A partition is not stored, or its candles cannot be read.
        """
        return pl.concat([empty_candles(series.market), *self._frames(series, partitions)])

    def scan(self, series: Series, partitions: Sequence[Partition], check: bool = True) -> pl.LazyFrame:
        """Return the candles of stored partitions lazily, sorted by open time.

        The files are read when the frame is collected. A migration that deletes one of them before makes that fail.

        Args:
            series: The series.
            partitions: Ascending.
            check: Whether to compare the candles with their hashes now. That reads each file once: 0.12 s for a year of
                1m. Without it, a damaged file that can still be decoded gives other values.

        Raises:
            LakeError: A partition is not stored, its file may not be read, or its candles are damaged.
        """
        with self._reading():
            table = self._folder(series).scan(partitions)
        if check:
            for _ in self._frames(series, partitions):
                pass  # a span at a time is in memory
        return table

    def collect(self, table: pl.LazyFrame) -> pl.DataFrame:
        """Return a table that :meth:`scan` began in memory.

        Raises:
            LakeError: A file may not be read, or the bucket cannot be reached anymore.
        """
        with self._reading():
            return self._store.collect(table)

    @property
    def exists(self) -> bool:
        """Whether there is a lake, or something else in its place.

        Raises:
            LakeError: The bucket cannot be read.
        """
        with self._reading():
            return self._store.exists()

    def has_file(self, series: Series, partition: Partition) -> bool:
        """Return whether the file that would hold a partition is there, whatever it holds.

        Raises:
            LakeError: The bucket cannot be read.
        """
        with self._reading():
            return self._store.view(self.folder(series)).identity(self.path(series, partition).name) is not None

    def uri(self, series: Series) -> str:
        """Return the folder of a series as a URI that can be pasted; nothing is percent-encoded."""
        folder = self.folder(series)
        return f"file://{folder.absolute()}" if isinstance(folder, Path) else str(folder)

    def path(self, series: Series, partition: Partition) -> LakePath:
        """Return the path of the file that holds a partition once it is written."""
        return self._folder(series).span_path(span_name(partition.key, series.interval))

    def folder(self, series: Series) -> LakePath:
        """Return the folder of a series' files, whether it exists or not."""
        return self._market_folder(series.market) / f"symbol={series.symbol}" / f"interval={series.interval.name}"

    def _market_folder(self, market: Market) -> LakePath:
        return self.root / f"market={market.name}"

    # Writing ------------------------------------------------------------------------------------------------------

    @property
    def venue(self) -> str | None:
        """The venue of the lake's candles, ``binance`` or ``sandbox``; None if the lake holds no candles yet.

        The marker beside the lake names it, unless the lake was deleted. Without the marker, which a copy of the lake
        may lack, its files do.

        Raises:
            LakeError: The marker cannot be read, a later version wrote it, or the lake is not a folder.
        """
        return self._venue_by(self._marker())

    def check_venue(self, venue: str, hosts: Mapping[str, str] | None = None) -> None:
        """Refuse to mix candles of two venues, the real exchange and the sandbox, or of two exchanges.

        Args:
            venue: The venue of the candles.
            hosts: The exchanges that they are from, as :attr:`binance_assets.exchange.session.Exchange.hosts` names
                them; None to check the venue only.

        Raises:
            LakeError: The lake holds candles of another venue or exchange, or cannot be used.
        """
        self._check_marker(self._marker(), venue, hosts)

    def _venue_by(self, marker: Marker | None) -> str | None:
        return (marker.venue if marker is not None else None) or self._venue_of_files()

    def _check_marker(self, marker: Marker | None, venue: str, hosts: Mapping[str, str] | None) -> None:
        if (own := self._venue_by(marker)) not in (None, venue):
            raise LakeError(
                f"the lake {self.root} holds candles of venue {printable(own)!r}, not of {venue!r}; "
                "set BINANCE_ASSETS_LAKE to another folder"
            )
        recorded = {} if marker is None else marker.hosts
        for name, host in (hosts or {}).items():
            if (known := recorded.get(name, host)) != host:
                raise LakeError(
                    f"the lake {self.root} holds candles of {printable(known)}, and "
                    f"BINANCE_{name.upper()}_URL is {printable(host)} now; set BINANCE_ASSETS_LAKE to another folder, "
                    f"or, if both serve the same exchange, remove hosts from {self._state.marker_path}"
                )

    def prepare(self, venue: str, hosts: Mapping[str, str] | None = None) -> None:
        """Make the lake ready for writes: create its folder and marker, remove stale temporary files.

        Args:
            venue: The venue of the candles.
            hosts: The exchanges that they are from, as for :meth:`check_venue`; the marker keeps them.

        Raises:
            LakeError: The lake holds candles of another venue or exchange, or cannot be written.
            ValueError: ``venue`` is empty.
        """
        if not venue:
            raise ValueError("a lake cannot be prepared for candles of an unknown venue")
        wanted = venue, dict(hosts or {})
        if (stamp := self._stamp()) is not None and self._prepared == (wanted, stamp):
            return  # by an earlier call, for example for another series of the run
        self.check_venue(venue, hosts)
        with self._writing():
            self._store.create_lake()
            self._store.create_state()
            self._store.check_writable()  # fails here, before anything is fetched
            marker = self._state.write_marker(venue, LAYOUT, hosts)
        self._check_marker(marker, venue, hosts)  # another process may have written it in the meantime
        self._prepared = wanted, self._stamp()

    def _stamp(self) -> object:
        with self._reading():
            return self._store.stamp()

    def write(self, series: Series, result: PartitionResult) -> StoredPartition:
        """Write one accepted partition, as :meth:`write_all` does.

        Raises:
            LakeError, ValueError: As for :meth:`write_all`.
        """
        return self.write_all(series, [result])[result.partition]

    def write_all(self, series: Series, results: Iterable[PartitionResult]) -> dict[Partition, StoredPartition]:
        """Write accepted partitions of a series; those of the same span in one step.

        A file is replaced atomically, so at any moment it holds each of its partitions once and whole. Partitions that
        are not written stay as they are. To write partitions as they arrive, use
        :class:`~binance_assets.storage.writer.PartitionWriter`, which collects those of a span.

        Args:
            series: The series of the partitions.
            results: Their tables and verdicts, at most one for each partition.

        Returns:
            The written partitions.

        Raises:
            LakeError: A file cannot be written; it is unchanged, and files of other spans may be written.
            ValueError: A partition is refused; nothing is written.
        """
        by_partition = {result.partition: result for result in results}
        for result in by_partition.values():
            check_accepted(series, result)
        if not by_partition:
            return {}
        venue = self.venue
        stored: dict[Partition, StoredPartition] = {}
        with self._writing():
            for name, partitions in by_span(sorted(by_partition), series.interval).items():
                members = [by_partition[partition] for partition in partitions]
                additions = {
                    result.partition: (entry, result.candles)
                    for result, entry in zip(members, entries_of(members), strict=True)
                }
                stored |= self._folder(series).replace(name, additions, venue)
        return stored

    def outdated_spans(self, series: Series) -> list[str]:
        """Return the names of the spans that :meth:`migrate_span` writes again.

        They still have files of layout 1, files without checksums, or partitions without a content hash.

        Raises:
            LakeError: A file may not be read, or was written by a later version.
        """
        with self._reading():
            return self._folder(series).outdated_names()

    def migrate_state(self) -> None:
        """Move the files that hold no candles out of the lake, where layout 1 had them.

        Raises:
            LakeError: The lake cannot be written.
        """
        venue = self.venue
        with self._writing():
            self._store.create_state()
            if venue is not None:
                self._state.write_marker(venue, LAYOUT)

    def migrate_span(self, series: Series, name: str) -> None:
        """Bring the files of a span to the current layout; other processes may read and write it meanwhile.

        Raises:
            LakeError: The lake cannot be written; no partition is lost.
        """
        venue = self.venue
        with self._writing():
            self._folder(series).replace(name, {}, venue)

    # Files of the lake that hold no candles -----------------------------------------------------------------------

    def write_coverage(self, market: Market, table: pl.DataFrame) -> LakePath:
        """Write a market's coverage beside the lake; return the path of the file.

        Raises:
            LakeError: The file cannot be written.
        """
        target, content = self._state.coverage_path(market), io.BytesIO()
        table.write_parquet(content, compression="zstd")
        with self._writing():
            self._store.overwrite(target, content.getvalue())
        return target

    def file_index(
        self,
        market: Market,
        series: Sequence[Series],
        start: dt.date | None = None,
        end: dt.date | None = None,
        known: pl.DataFrame | None = None,
    ) -> pl.DataFrame:
        """Return what the files of a market's ``series`` hold, see :mod:`binance_assets.storage.file_index`.

        Only the footers of files that are not known are read. What many of them said is remembered for the next call,
        also by another process, unless nothing can be written.

        Args:
            market: The market.
            series: Its series.
            start: Leave out the files of spans before the one of this day, UTC; None for none.
            end: Leave out the files of spans after the one of this day, UTC; None for none.
            known: An earlier index; None for the one that is remembered.

        Raises:
            LakeError: A file exists but may not be read, or was written by a later version.
        """
        first, last = (start or dt.date.min).isoformat(), (end or dt.date.max).isoformat()
        remembered = self._remembered_files(market) if known is None else known
        with self._reading():
            folder = self.root if isinstance(self.root, Path) else None
            index = refreshed_index(self._folders(market, series), remembered, first, last, folder)
        if known is None and is_worth_remembering(remembered, index):
            covered = pl.col("series").is_in([str(member) for member in series]) & (start is None and end is None)
            with suppress(LakeError):  # only a cache
                self._remember_files(market, lambda earlier: merged_index(earlier, index, covered))
        return index

    def _folders(self, market: Market, series: Sequence[Series]) -> list[tuple[Series, SpanFolder]]:
        """Return the folders of a market's series, many of which a bucket lists at once."""
        paths = {member: self.folder(member) for member in series}
        views = self._store.views(list(paths.values()), self._market_folder(market))
        return [(member, SpanFolder(path, member, self._state, views[path])) for member, path in paths.items()]

    def remember_files(self, market: Market, index: pl.DataFrame) -> None:
        """Remember what the files of a market hold, given the index of all of them, for the next :meth:`file_index`.

        Raises:
            LakeError: The file cannot be written.
        """
        if not index.equals(self._remembered_files(market)):
            self._remember_files(market, lambda earlier: index)

    def _remember_files(self, market: Market, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
        path = self._state.file_index_path(market)

        def attempt() -> None:
            content = self._read_index(path)
            self._store.replace(path, to_cache_file(change(_index_of(content))), content and content.version)

        with self._writing():
            self._store.exclusively(self._store.state_folder, attempt)

    def _remembered_files(self, market: Market) -> pl.DataFrame:
        with self._reading():
            return _index_of(self._read_index(self._state.file_index_path(market)))

    def _read_index(self, path: LakePath) -> Content | None:
        try:
            return self._store.read(path)
        except OSError:  # only a cache: all footers are read
            return None
        except TooLarge as error:
            return Content(b"", error.version)

    def first_opens(self) -> dict[str, int]:
        """Return the cached open times of first candles, ms UTC, by name of the series.

        Raises:
            LakeError: The bucket cannot be read.
        """
        with self._reading():
            return self._state.first_opens()

    def first_open(self, series: Series) -> int | None:
        """Return the cached open time of the first candle of ``series``, ms UTC; None if it is not cached.

        Raises:
            LakeError: The bucket cannot be read.
        """
        return self.first_opens().get(str(series))

    def remember_first_open(self, series: Series, first: int) -> None:
        """Cache the open time of the first candle of ``series``, ms UTC.

        Raises:
            LakeError: The file cannot be written.
        """
        with self._writing():
            self._state.remember_first_open(str(series), first)

    def _frames(self, series: Series, partitions: Sequence[Partition]) -> Iterator[pl.DataFrame]:
        """Yield the candles of stored partitions.

        Raises:
            LakeError: A partition is not stored, or its candles cannot be read.
        """
        for partition, _, candles in self.read_each(series, partitions):
            if isinstance(candles, str):
                raise LakeError(f"{series} {partition}: {candles}")
            yield candles

    def _folder(self, series: Series) -> SpanFolder:
        return SpanFolder(self.folder(series), series, self._state)

    def _marker(self) -> Marker | None:
        """Return the marker beside the lake; None if there is none, or no lake.

        Raises:
            LakeError: It cannot be read, a later version wrote it, or the lake is not a folder.
        """
        if not self._store.is_usable():
            raise LakeError(f"the lake {self.root} is not a folder; set BINANCE_ASSETS_LAKE to one")
        if isinstance(self.root, Path) and not self.root.exists():
            return None
        try:
            marker = self._state.marker()
        except StoreError as error:
            raise LakeError(f"the lake {self.root} cannot be read: {error}") from None
        except (OSError, ValueError) as error:
            raise LakeError(
                f"{self._state.marker_path} cannot be read ({printable(error)}); restore it or set "
                "BINANCE_ASSETS_LAKE to another folder"
            ) from None
        if marker is not None and marker.layout > LAYOUT:
            raise LakeError(
                f"the lake {self.root} has layout {marker.layout}, which this version cannot read; "
                "install a later binance-assets"
            )
        return marker

    def _venue_of_files(self) -> str | None:
        if not self._store.is_usable():
            return None
        with self._reading():
            return next((venue for series in self.series() if (venue := self._folder(series).venue())), None)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, StoreError, pl.exceptions.PolarsError) as error:
            raise LakeError(f"the lake {self.root} cannot be written: {error}") from error
        except LaterLayout as error:
            raise LakeError(str(error)) from None

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (OSError, StoreError) as error:
            raise LakeError(f"the lake {self.root} cannot be read: {error}") from error
        except LaterLayout as error:
            raise LakeError(str(error)) from None


def _index_of(content: Content | None) -> pl.DataFrame:
    """Return a remembered index; an empty one if it is damaged or of another version."""
    remembered = None if content is None else intact_table(content.data)
    return remembered if remembered is not None and remembered.schema == empty_index().schema else empty_index()
