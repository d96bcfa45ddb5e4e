"""The lake: one Parquet file for each accepted partition, in folders that Polars, DuckDB and Spark read as a table.

    <lake>/market=spot/symbol=BTCUSDT/interval=1m/2024-01-01.parquet

All path handling of the project is here. ``<lake>/_lake.json`` says whose candles these are.
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
from binance_assets.storage.locks import alone_in

_MARKER: Final = "_lake.json"


_COVERAGE: Final = "_coverage"


_FIRST_CANDLES: Final = "_first_candles.json"


# Files in the making are kept out of the markets' folders: a reader of a whole folder would stumble over them.
_INCOMING: Final = ".incoming"


_INCOMING_NAME: Final = re.compile(r"(?P<pid>\d+)-[0-9a-f]+-(?P<host>.+)")


_KEY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")


_STALE_SECONDS: Final = 24 * 3600


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
    """The lake cannot be used; the message is one line that names the way out."""


@dataclass(frozen=True, slots=True)
class StoredPartition:
    """A partition's file.

    Attributes:
        path: Where it is.
        size: Bytes.
        rows: Candles in it.
        verdict: The verdict with which it was accepted.
        source: Where its candles came from.
        missing: Spans without candles, as ISO times in UTC.
        note: What else is to be known of it, in one line: the name of an outage, why another source was taken.
        archive_file: The file of the archive that it came from; empty where it came from REST.
        archive_sha256: Its SHA-256.
        archive_modified: When the archive last changed it, as an ISO time in UTC; empty where it does not say.
        derived_from: The series that it was made from; empty where it was fetched.
        accepted_by: Who took it although candles were lost; empty where nobody had to.
        accepted_because: The reason they gave.
        first: Open time of the first candle, ms UTC; None where there is none.
        last: Open time of the last candle, ms UTC; None where there is none.
    """

    path: Path
    size: int
    rows: int
    verdict: Verdict
    source: str
    missing: list[list[str]]
    note: str
    archive_file: str
    archive_sha256: str
    archive_modified: str
    derived_from: str
    accepted_by: str
    accepted_because: str
    first: int | None
    last: int | None

    @property
    def texts(self) -> dict[str, str]:
        """What is to be told of it in words, by the names of the attributes; nothing that is empty."""
        return {name: text for name in _TEXTS if (text := getattr(self, name))}


class Lake:
    """The folder that holds the candles. Nothing is made before the first write.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, series: Series, partition: Partition) -> Path:
        """Where the file of a partition is, or would be."""
        return self.folder(series) / f"{partition.key}.parquet"

    def folder(self, series: Series) -> Path:
        """Where the files of a series are."""
        return (
            self.root / f"market={series.market.name}" / f"symbol={series.symbol}" / f"interval={series.interval.name}"
        )

    @property
    def venue(self) -> str | None:
        """Whose candles the lake holds, ``binance`` or ``sandbox``; None where it holds none yet."""
        try:
            return str(json.loads((self.root / _MARKER).read_text())["origin"])
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            raise LakeError(f"the lake {self.root} is no folder; set BINANCE_ASSETS_LAKE to one") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LakeError(
                f"{self.root / _MARKER} cannot be read ({error}); restore it or name another lake"
            ) from None

    def check_venue(self, venue: str) -> None:
        """Refuse to mix real and synthetic candles.

        Raises:
            LakeError: The lake holds candles of another venue.
        """
        if self.venue not in (None, venue):
            raise LakeError(
                f"the lake {self.root} holds candles of origin {self.venue!r}, these are of {venue!r}; "
                "set BINANCE_ASSETS_LAKE to another folder"
            )

    def prepare(self, venue: str) -> None:
        """Make the lake ready to be written: its folder, its marker, no litter of processes that died.

        Raises:
            LakeError: It holds candles of another venue, or cannot be written.
        """
        if not venue:
            raise ValueError("a lake cannot be prepared for candles of unknown origin")
        self.check_venue(venue)
        with self._writing():
            (self.root / _INCOMING).mkdir(parents=True, exist_ok=True)
            self._remove_stale_files()
            probe = self._incoming()
            probe.touch()  # a lake that cannot be written is told before anything is fetched
            probe.unlink()
            if self.venue is None:
                text = json.dumps({"origin": venue, "layout": 1}) + "\n"
                with self._replacing(self.root / _MARKER) as incoming:
                    incoming.write_text(text)
        self.check_venue(venue)

    def write(self, series: Series, result: PartitionResult) -> StoredPartition:
        """Write an accepted partition: wholly, or not at all.

        Args:
            series: Its series.
            result: Its table and verdict.

        Raises:
            LakeError: The file could not be written; what was there before is untouched.
        """
        if not result.is_accepted:
            raise ValueError(f"{series} {result.partition} is refused ({result.verdict}) and must not be written")
        target = self.path(series, result.partition)
        missing = [[to_iso(start), to_iso(end)] for start, end in result.missing]
        opens = result.candles["open_time"].to_physical()
        metadata = {
            "series": str(series),
            "source": result.provenance.source,
            "verdict": result.verdict,
            "missing": json.dumps(missing),
            "note": result.reason,
            "archive_file": result.provenance.file or "",
            "archive_sha256": result.provenance.sha256 or "",
            "archive_modified": to_iso(result.provenance.modified) if result.provenance.modified is not None else "",
            "derived_from": result.provenance.base_series or "",
            "accepted_by": result.accepted_by or "",
            "accepted_because": result.accepted_because or "",
            "rows": str(result.candles.height),
            "first_open_time": str(opens[0] if len(opens) else ""),
            "last_open_time": str(opens[-1] if len(opens) else ""),
            "version": __version__,
        }
        with self._writing():
            target.parent.mkdir(parents=True, exist_ok=True)
            with self._replacing(target) as incoming:
                result.candles.write_parquet(incoming, compression="zstd", statistics=True, metadata=metadata)
        return _stored(target, metadata)

    def stored(self, series: Series, partition: Partition) -> StoredPartition | None:
        """The partition's file; None where there is none that can be read and was accepted."""
        path = self.path(series, partition)
        try:
            metadata = pl.read_parquet_metadata(path)
            stored = _stored(path, metadata)
        except (OSError, ValueError, KeyError, pl.exceptions.PolarsError):
            return None
        accepted = stored.verdict in ACCEPTED or bool(stored.accepted_by)
        return stored if accepted and metadata["series"] == str(series) else None

    def keys(self, series: Series) -> list[str]:
        """The keys of the series' partitions that have a file, ascending."""
        return sorted(path.stem for path in self.folder(series).glob("*.parquet") if _KEY.fullmatch(path.stem))

    def partitions(self, series: Series, start: dt.date | None = None, end: dt.date | None = None) -> list[Partition]:
        """The partitions from ``start`` to ``end``; without them, from the series' first file to its last."""
        keys = self.keys(series)
        if not keys:
            return []
        first, last = (dt.date.fromisoformat(key) for key in (keys[0], keys[-1]))
        after_last = next_partition_first_day(last, series.interval)
        return partitions_between(start or first, end or after_last, series.interval)

    def read(self, series: Series, partition: Partition) -> pl.DataFrame:
        """The table of a partition that is there."""
        return pl.read_parquet(self.path(series, partition), hive_partitioning=False, glob=False)

    def write_coverage(self, market: Market, table: pl.DataFrame) -> Path:
        """Write what is known of a market to ``<lake>/_coverage/<market>.parquet``, out of the way of its candles.

        Raises:
            LakeError: It cannot be written.
        """
        target = self.root / _COVERAGE / f"{market.name}.parquet"
        with self._writing():
            target.parent.mkdir(parents=True, exist_ok=True)
            (self.root / _INCOMING).mkdir(parents=True, exist_ok=True)
            with self._replacing(target) as incoming:
                table.write_parquet(incoming, compression="zstd")
        return target

    def first_open(self, series: Series) -> int | None:
        """When the first candle of ``series`` opens, ms UTC, if that was ever remembered here."""
        return self._first_opens().get(str(series))

    def remember_first_open(self, series: Series, first: int) -> None:
        """Keep when the first candle of ``series`` opens, ms UTC, in ``<lake>/_first_candles.json``.

        Raises:
            LakeError: It cannot be written.
        """
        with self._writing(), alone_in(self.root / _INCOMING):
            text = json.dumps(self._first_opens() | {str(series): first}, indent=1, ensure_ascii=False) + "\n"
            with self._replacing(self.root / _FIRST_CANDLES) as incoming:
                incoming.write_text(text, encoding="utf-8")

    def _first_opens(self) -> dict[str, int]:
        try:
            found = json.loads((self.root / _FIRST_CANDLES).read_text(encoding="utf-8"))
            return {str(name): int(first) for name, first in found.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}  # it can be asked again

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, pl.exceptions.PolarsError) as error:
            raise LakeError(f"the lake {self.root} cannot be written: {error}") from error

    @contextmanager
    def _replacing(self, target: Path) -> Iterator[Path]:
        """A path to write to; what was written takes the target's place at once, when it is on the disk."""
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
        for path in (self.root / _INCOMING).iterdir():
            ours = _INCOMING_NAME.fullmatch(path.name)
            if ours is None:
                continue
            dead = ours["host"] == socket.gethostname() and not is_alive(int(ours["pid"]))
            with suppress(FileNotFoundError):  # its writer has just finished
                if dead or time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()


def _stored(path: Path, metadata: dict[str, str]) -> StoredPartition:
    first, last = metadata["first_open_time"], metadata["last_open_time"]
    return StoredPartition(
        path=path,
        size=path.stat().st_size,
        rows=int(metadata["rows"]),
        verdict=cast("Verdict", metadata["verdict"]),  # a word of another version is not accepted
        source=metadata["source"],
        missing=json.loads(metadata["missing"]),
        **{name: metadata.get(name, "") for name in _TEXTS},
        first=int(first) if first else None,
        last=int(last) if last else None,
    )
