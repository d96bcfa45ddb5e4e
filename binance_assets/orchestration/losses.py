"""Losses: partitions that Dagster shows as materialized although the lake does not hold them anymore.

Somebody deleted or moved a file, or a disk damaged it: no run happens, so Dagster learns nothing. Then the page of the
partition stays green and the check passes. What is found here is recorded as a failed run over the lost partitions.
From then on they are gaps like any other: the check names them until the lake holds them again.

Here belongs how losses are found and recorded. What does not belong here: what the check makes of gaps (``checks``),
and when losses are looked for (``coverage``, ``lake_state``).
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import dagster as dg
import polars as pl

from binance_assets.model.bucket_paths import SCHEME, BucketPath, LakePath
from binance_assets.model.outside import MESSAGE, printable
from binance_assets.model.partitions import Partition, partition_for_key
from binance_assets.model.series import Series, by_market
from binance_assets.model.wording import name_some
from binance_assets.orchestration.dagster_internals.event_reads import materialized_ranges, recorded_paths
from binance_assets.orchestration.dagster_internals.event_writes import report_failed_run
from binance_assets.orchestration.events import report_stored
from binance_assets.orchestration.gaps import unsettled_partitions
from binance_assets.orchestration.interrupted import tags_of_this_process
from binance_assets.orchestration.keys import asset_key
from binance_assets.orchestration.partitions import partitions_def_for
from binance_assets.storage.file_index import stored_in
from binance_assets.storage.lake import Lake, LakeError

JOB: Final = "lost_partitions"
"""The name under which the list of runs shows recorded losses; no code location has a job of that name."""

# A lake that is not mounted lacks millions of partitions. To record them would take hours, and as long to take it back.
MOST_RECORDED: Final = 20_000
_MAX_NAMED: Final = 5
_IN_LAKE: Final = ("market", "symbol", "interval")  # the folders between a lake and its files
# A day of a series is a row while it is looked for: nine years of two thousand series at once took 1.4 GB.
_SERIES_AT_ONCE: Final = 50
_log = logging.getLogger(__name__)


def find_losses(instance: dg.DagsterInstance, lake: Lake, series: Sequence[Series]) -> dict[Series, list[Partition]]:
    """Return the partitions of each series that Dagster shows as materialized and the lake does not hold, ascending.

    Partitions that are gaps already, or that a run is about to write, are left out. So are those that were last written
    to another lake, which is still there: two lakes may share an instance, and neither has lost what the other holds.

    Args:
        instance: The instance.
        lake: The lake.
        series: The series.

    Raises:
        LakeError: A file of a series may not be read.
    """
    # Before the lake is read: what is written in between would look lost.
    ranges = materialized_ranges(
        instance, {asset_key(member): partitions_def_for(member.interval) for member in series}
    )
    losses: dict[Series, list[Partition]] = {}
    for market, members in by_market(series).items():
        shown = [member for member in members if ranges.get(asset_key(member))]
        index = lake.file_index(market, shown) if shown else pl.DataFrame()
        for some in (shown[first : first + _SERIES_AT_ONCE] for first in range(0, len(shown), _SERIES_AT_ONCE)):
            stored = stored_in(index.filter(pl.col("series").is_in([str(member) for member in some])))
            missing = _missing({member: ranges[asset_key(member)] for member in some}, stored)
            unsettled = unsettled_partitions(instance, list(missing))
            for member, keys in missing.items():
                candidates = [partition_for_key(key, member.interval) for key in keys]
                gone = lake.missing(member, [part for part in candidates if part.key not in unsettled[member]])
                if gone:
                    losses[member] = list(gone)
    if sum(map(len, losses.values())) > MOST_RECORDED:  # nobody records them
        return losses
    lakes = _Lakes(lake)
    ours = {member: lakes.of_this(instance, member, gone) for member, gone in losses.items()}
    return {member: gone for member, gone in ours.items() if gone}


class _Lakes:
    """Knows which recorded paths are those of another lake, which exists.

    A lake that was moved does not exist at its earlier place. What did not move with it is lost. While the bucket of
    another lake cannot be read, nobody knows whether that lake exists, so what was last written to it is not lost.

    Args:
        lake: The lake of now.
    """

    def __init__(self, lake: Lake) -> None:
        self._root = lake.root.absolute()
        self._is_another: dict[LakePath, bool] = {}

    def of_this(self, instance: dg.DagsterInstance, series: Series, gone: Sequence[Partition]) -> list[Partition]:
        """Return the partitions that were not last written to another lake."""
        places = recorded_paths(instance, asset_key(series), [partition.key for partition in gone])
        return [part for part in gone if part.key not in places or not self._is_in_another(places[part.key])]

    def _is_in_another(self, file: str) -> bool:
        root = _lake_of(file)
        if root is None or root == self._root:
            return False
        if root not in self._is_another:
            self._is_another[root] = _is_lake_in_bucket(root) if isinstance(root, BucketPath) else self._is_folder(root)
        return self._is_another[root]

    def _is_folder(self, root: Path) -> bool:
        """Return whether another lake in a folder is there; a link to this one is this one."""
        if isinstance(self._root, BucketPath) or not self._root.is_dir():
            return root.is_dir()
        return root.is_dir() and not root.samefile(self._root)


def _lake_of(file: str) -> LakePath | None:
    """Return the lake that holds a recorded file; None if its path is not that of a file of a lake."""
    try:
        path: LakePath = BucketPath.parse(file) if file.startswith(SCHEME) else Path(file)
    except ValueError:
        return None
    for level in reversed(_IN_LAKE):
        path = path.parent
        if not path.name.startswith(f"{level}="):
            return None
    return path.parent


def _is_lake_in_bucket(root: BucketPath) -> bool:
    try:
        return Lake(root).exists
    except LakeError as error:
        _log.warning("%s. What was last written to that lake does not count as lost.", printable(error, MESSAGE))
        return True


def _missing(
    shown: Mapping[Series, Sequence[tuple[dt.date, dt.date]]], stored: pl.DataFrame
) -> dict[Series, list[str]]:
    """Return the keys in ranges of days, the ends excluded, that are not among the stored partitions, by series."""
    missing: dict[Series, list[str]] = {}
    for every in ("1d", "1mo"):
        rows = [
            (str(member), first, last)
            for member, ranges in shown.items()
            if member.interval.is_multi_day == (every == "1mo")
            for first, last in ranges
        ]
        days = pl.DataFrame(rows, schema={"series": pl.String, "first": pl.Date, "last": pl.Date}, orient="row").select(
            "series", pl.date_ranges("first", "last", every, closed="left").alias("day")
        )
        absent = days.explode("day").join(stored, on=["series", "day"], how="anti").sort("day")
        names = {str(member): member for member in shown}
        for name, day in absent.iter_rows():
            missing.setdefault(names[name], []).append(day.isoformat())
    return missing


def record_losses(instance: dg.DagsterInstance, lake: Lake, series: Sequence[Series]) -> dict[Series, list[Partition]]:
    """Find losses, and record them with Dagster; return those that were recorded.

    If the lake is gone, or lacks more than :data:`MOST_RECORDED`, that is only logged: its disk may not be mounted.

    Args:
        instance: The instance.
        lake: The lake.
        series: The series.

    Raises:
        LakeError: A file of a series may not be read.
    """
    losses = find_losses(instance, lake, series)
    count = sum(map(len, losses.values()))
    if not count:
        return {}
    subject = f"partitions that Dagster shows as materialized and the lake {lake.root} no longer holds: {count:,}"
    if count > MOST_RECORDED or lake.venue is None:
        _log.warning("%s. Nothing is recorded: its disk may not be mounted.", printable(subject, MESSAGE))
        return {}
    reasons = {member: _reasons(lake, member, partitions) for member, partitions in losses.items()}
    named = (
        f"{member} {name_some((partition.key for partition in partitions), 1)}" for member, partitions in losses.items()
    )
    report_failed_run(
        instance,
        JOB,
        {
            asset_key(member): [_observation(member, key, reason) for key, reason in of_series.items()]
            for member, of_series in reasons.items()
        },
        printable(f"{subject} ({name_some(named, _MAX_NAMED, separator='; ')})", MESSAGE),
        tags_of_this_process(),
    )
    # A run may have written some of them since the lake was read. Then Dagster must not show them as failed.
    for member, partitions in losses.items():
        report_stored(instance, member, list(lake.stored_among(member, partitions).items()))
    return losses


def _reasons(lake: Lake, series: Series, partitions: Sequence[Partition]) -> dict[str, str]:
    """Return why each partition is lost, by key."""
    damaged = lake.damaged(series)  # lines that begin with the path of a file
    by_path: dict[LakePath, list[Partition]] = {}  # a file may have held hundreds of them
    for partition in partitions:
        by_path.setdefault(lake.path(series, partition), []).append(partition)
    reasons: dict[str, str] = {}
    for path, held in by_path.items():
        reason = next((line for line in damaged if line.startswith(f"{path} ")), None)
        if reason is None:
            is_there = lake.has_file(series, held[0])
            reason = f"{path} {'no longer has it' if is_there else 'was deleted or moved, or its disk is not there'}"
        reasons |= dict.fromkeys((partition.key for partition in held), reason)
    return reasons


def _observation(series: Series, key: str, reason: str) -> dg.AssetObservation:
    """Return the event that explains a lost partition on its own page."""
    text = printable(f"not in the lake anymore: {reason}", MESSAGE)
    metadata = {"reason": dg.MetadataValue.text(text)}
    return dg.AssetObservation(asset_key(series), partition=key, description=text, metadata=metadata)
