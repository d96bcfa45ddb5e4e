"""The lake: one Parquet file for each accepted partition, in folders that Polars, DuckDB, and Spark read as a table.

    <lake>/market=spot/symbol=BTCUSDT/interval=1m/2024-01-01.parquet

``<lake>/_lake.json`` names the venue that the candles come from: the real exchange or the sandbox.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import polars as pl

from binance_assets import __version__
from binance_assets.model.markets import Market
from binance_assets.model.partitions import Partition, next_partition_first_day, partitions_between
from binance_assets.model.results import ACCEPTED, PartitionResult, Verdict
from binance_assets.model.series import Series
from binance_assets.model.timestamps import to_iso
from binance_assets.processes import is_alive
from binance_assets.settings import ConfigurationError
from binance_assets.storage.locks import file_lock

_MARKER: Final = "_lake.json"
_COVERAGE: Final = "_coverage"
_FIRST_CANDLES: Final = "_first_candles.json"

# Files that are still being written stay out of the markets' folders, because a reader of a whole folder would fail on
# them. The lock file is here for the same reason.
_INCOMING: Final = ".incoming"
_INCOMING_NAME: Final = re.compile(r"(?P<pid>\d+)-[0-9a-f]+-(?P<host>.+)")
_LOCK: Final = ".lock"

_KEY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_STALE_SECONDS: Final = 24 * 3600

# Attributes of a stored partition that are text in the file's metadata, where an empty string means None.
_TEXTS: Final = (
    "note",
    "archive_file",
    "archive_sha256",
    "archive_modified",
    "derived_from",
    "accepted_by",
    "accepted_because",
)


class LakeError(ConfigurationError):
    """The lake cannot be used; the message is one line that says how to fix it."""


@dataclass(frozen=True, slots=True)
class StoredPartition:
    """The file of a partition, as its own metadata describes it.

    Attributes:
        path: The file.
        size: Its size in bytes.
        rows: Number of candles.
        verdict: The verdict with which the partition was accepted.
        source: Source of the candles, such as ``rest``, ``archive``, or ``rest+archive``; ``derived`` for a derived
            series.
        missing: Spans without candles, each a pair of ISO times in UTC, half-open.
        first: Open time of the first candle, ms UTC; None if the file has no candles.
        last: Open time of the last candle, ms UTC; None if the file has no candles.
        note: A remark in one line, such as the name of an outage or why another source had to help; None if there is
            nothing to remark.
        archive_file: Name of the archive's file that the candles come from; None for candles from REST or from a base
            series.
        archive_sha256: SHA-256 of that file, in hex; None without a file.
        archive_modified: When the archive last changed that file, as an ISO time in UTC; None without a file, or if the
            archive does not say.
        derived_from: Name of the base series; None for a fetched series.
        accepted_by: The person who accepted the partition although it was refused; None if nobody did.
        accepted_because: The reason that this person gave; None if nobody did.
    """

    path: Path
    size: int
    rows: int
    verdict: Verdict
    source: str
    missing: list[list[str]]
    first: int | None
    last: int | None
    note: str | None = None
    archive_file: str | None = None
    archive_sha256: str | None = None
    archive_modified: str | None = None
    derived_from: str | None = None
    accepted_by: str | None = None
    accepted_because: str | None = None

    @property
    def texts(self) -> dict[str, str]:
        """The optional attributes that are set, by name, in the order of the file's metadata."""
        return {name: text for name in _TEXTS if (text := getattr(self, name)) is not None}


class Lake:
    """The folder that holds the candles. Nothing is created before the first write.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, series: Series, partition: Partition) -> Path:
        """Return the path that the file of a partition has, whether it exists or not."""
        return self.folder(series) / f"{partition.key}.parquet"

    def folder(self, series: Series) -> Path:
        """Return the folder of a series' files, whether it exists or not."""
        return (
            self.root / f"market={series.market.name}" / f"symbol={series.symbol}" / f"interval={series.interval.name}"
        )

    @property
    def venue(self) -> str | None:
        """The venue of the lake's candles, ``binance`` or ``sandbox``; None if the lake holds no candles yet.

        Raises:
            LakeError: The marker file cannot be read, or the lake is not a folder.
        """
        try:
            return str(json.loads((self.root / _MARKER).read_text())["origin"])
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            raise LakeError(f"the lake {self.root} is not a folder; set BINANCE_ASSETS_LAKE to one") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LakeError(
                f"{self.root / _MARKER} cannot be read ({error}); restore it or set BINANCE_ASSETS_LAKE to another "
                "folder"
            ) from None

    def check_venue(self, venue: str) -> None:
        """Refuse to mix candles of two venues, the real exchange and the sandbox.

        Raises:
            LakeError: The lake holds candles of another venue, or cannot be used.
        """
        if self.venue not in (None, venue):
            raise LakeError(
                f"the lake {self.root} holds candles of venue {self.venue!r}, not of {venue!r}; "
                "set BINANCE_ASSETS_LAKE to another folder"
            )

    def prepare(self, venue: str) -> None:
        """Make the lake ready for writes: create its folder and marker, remove stale temporary files.

        Raises:
            LakeError: The lake holds candles of another venue, or cannot be written.
            ValueError: ``venue`` is empty.
        """
        if not venue:
            raise ValueError("a lake cannot be prepared for candles of an unknown venue")
        self.check_venue(venue)
        with self._writing():
            (self.root / _INCOMING).mkdir(parents=True, exist_ok=True)
            self._remove_stale_files()
            probe = self._incoming()
            probe.touch()  # fails here, before anything is fetched, if the lake cannot be written
            probe.unlink()
            if self.venue is None:
                text = json.dumps({"origin": venue, "layout": 1}) + "\n"
                with self._replacing(self.root / _MARKER) as incoming:
                    incoming.write_text(text)
        self.check_venue(venue)  # another process may have written the marker in the meantime

    def write(self, series: Series, result: PartitionResult) -> StoredPartition:
        """Write an accepted partition atomically.

        Args:
            series: The series of the partition.
            result: Its table and verdict.

        Raises:
            LakeError: The file cannot be written; an earlier file of the partition is unchanged.
            ValueError: The partition is refused.
        """
        if not result.is_accepted:
            raise ValueError(f"{series} {result.partition} is refused ({result.verdict}) and must not be written")
        target = self.path(series, result.partition)
        metadata = _metadata(series, result)
        with self._writing():
            target.parent.mkdir(parents=True, exist_ok=True)
            with self._replacing(target) as incoming:
                result.candles.write_parquet(incoming, compression="zstd", statistics=True, metadata=metadata)
        return _stored(target, metadata)

    def stored(self, series: Series, partition: Partition) -> StoredPartition | None:
        """Return what the footer of a partition's file says; None if no readable, accepted file exists."""
        path = self.path(series, partition)
        try:
            metadata = pl.read_parquet_metadata(path)
            stored = _stored(path, metadata)
        except (OSError, ValueError, KeyError, pl.exceptions.PolarsError):
            return None
        accepted = stored.verdict in ACCEPTED or stored.accepted_by is not None
        return stored if accepted and metadata["series"] == str(series) else None

    def keys(self, series: Series) -> list[str]:
        """Return the keys of the series' partitions that have a file, ascending."""
        return sorted(path.stem for path in self.folder(series).glob("*.parquet") if _KEY.fullmatch(path.stem))

    def partitions(self, series: Series, start: dt.date | None = None, end: dt.date | None = None) -> list[Partition]:
        """Return the partitions of a series that has files, including partitions without one.

        Args:
            series: The series.
            start: First day of the first partition, UTC; None for that of the first file.
            end: Day after the last partition, UTC; None for that of the last file.

        Returns:
            The partitions in ``[start, end)``, ascending; an empty list if the series has no file.
        """
        keys = self.keys(series)
        if not keys:
            return []
        first, last = (dt.date.fromisoformat(key) for key in (keys[0], keys[-1]))
        after_last = next_partition_first_day(last, series.interval)
        return partitions_between(start or first, end or after_last, series.interval)

    def read(self, series: Series, partition: Partition) -> pl.DataFrame:
        """Return the table of a partition that has a file.

        Raises:
            OSError, polars.exceptions.PolarsError: There is no file, or it cannot be read.
        """
        return pl.read_parquet(self.path(series, partition), hive_partitioning=False, glob=False)

    def write_coverage(self, market: Market, table: pl.DataFrame) -> Path:
        """Write a market's coverage to ``<lake>/_coverage/<market>.parquet``, outside the folders of the candles.

        Raises:
            LakeError: The file cannot be written.
        """
        target = self.root / _COVERAGE / f"{market.name}.parquet"
        with self._writing():
            target.parent.mkdir(parents=True, exist_ok=True)
            (self.root / _INCOMING).mkdir(parents=True, exist_ok=True)
            with self._replacing(target) as incoming:
                table.write_parquet(incoming, compression="zstd")
        return target

    def first_open(self, series: Series) -> int | None:
        """Return the cached open time of the first candle of ``series``, ms UTC; None if it is not cached."""
        return self._first_opens().get(str(series))

    def remember_first_open(self, series: Series, first: int) -> None:
        """Cache the open time of the first candle of ``series``, ms UTC, in ``<lake>/_first_candles.json``.

        Raises:
            LakeError: The file cannot be written.
        """
        with self._writing(), file_lock(self.root / _INCOMING / _LOCK):
            text = json.dumps(self._first_opens() | {str(series): first}, indent=1, ensure_ascii=False) + "\n"
            with self._replacing(self.root / _FIRST_CANDLES) as incoming:
                incoming.write_text(text, encoding="utf-8")

    def _first_opens(self) -> dict[str, int]:
        try:
            cached = json.loads((self.root / _FIRST_CANDLES).read_text(encoding="utf-8"))
            return {str(name): int(first) for name, first in cached.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}  # only a cache: the times can be requested again

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, pl.exceptions.PolarsError) as error:
            raise LakeError(f"the lake {self.root} cannot be written: {error}") from error

    @contextmanager
    def _replacing(self, target: Path) -> Iterator[Path]:
        """Yield a path to write to; replace ``target`` with it once the content is on the disk."""
        incoming = self._incoming()
        try:
            yield incoming
            with incoming.open("rb") as file:
                os.fsync(file.fileno())
            incoming.replace(target)
        finally:
            with suppress(OSError):
                incoming.unlink()

    def _incoming(self) -> Path:
        return self.root / _INCOMING / f"{os.getpid()}-{uuid.uuid4().hex}-{socket.gethostname()}"

    def _remove_stale_files(self) -> None:
        """Remove temporary files of processes that died, and those that are older than a day."""
        for path in (self.root / _INCOMING).iterdir():
            match = _INCOMING_NAME.fullmatch(path.name)
            if match is None:
                continue
            is_orphan = match["host"] == socket.gethostname() and not is_alive(int(match["pid"]))
            with suppress(FileNotFoundError):  # its writer has just finished
                if is_orphan or time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()


def _metadata(series: Series, result: PartitionResult) -> dict[str, str]:
    """Return the metadata of a partition's file; its keys and the form of its values are public."""
    provenance = result.provenance
    opens = result.candles["open_time"].to_physical()
    return {
        "series": str(series),
        "source": provenance.source,
        "verdict": result.verdict,
        "missing": json.dumps([[to_iso(start), to_iso(end)] for start, end in result.missing]),
        "note": result.reason or "",
        "archive_file": provenance.file or "",
        "archive_sha256": provenance.sha256 or "",
        "archive_modified": to_iso(provenance.modified) if provenance.modified is not None else "",
        "derived_from": provenance.base_series or "",
        "accepted_by": result.accepted_by or "",
        "accepted_because": result.accepted_because or "",
        "rows": str(result.candles.height),
        "first_open_time": str(opens[0] if len(opens) else ""),
        "last_open_time": str(opens[-1] if len(opens) else ""),
        "version": __version__,
    }


def _stored(path: Path, metadata: dict[str, str]) -> StoredPartition:
    first, last = metadata["first_open_time"], metadata["last_open_time"]
    return StoredPartition(
        path=path,
        size=path.stat().st_size,
        rows=int(metadata["rows"]),
        verdict=cast("Verdict", metadata["verdict"]),  # Lake.stored refuses a verdict that this version does not know
        source=metadata["source"],
        missing=json.loads(metadata["missing"]),
        first=int(first) if first else None,
        last=int(last) if last else None,
        **{name: metadata.get(name) or None for name in _TEXTS},
    )
