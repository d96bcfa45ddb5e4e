"""Status: what the lake and Dagster know of series, for the commands ``status`` and ``show``.

Here belongs what is read from the instance for people at a terminal. What does not belong here: counting the lake
(``storage.coverage``), and the pages of assets (``coverage``, ``checks``).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import dagster as dg

from binance_assets.model.partitions import Partition
from binance_assets.model.series import Series
from binance_assets.orchestration.dagster_internals.event_reads import last_planned_run
from binance_assets.orchestration.gaps import Gap, explained, find_all_gaps, find_gaps
from binance_assets.orchestration.keys import asset_key
from binance_assets.orchestration.losses import find_losses
from binance_assets.storage.lake import Lake


@dataclass(frozen=True, slots=True)
class LastRun:
    """The last run over a series.

    Attributes:
        run_id: Its ID in Dagster.
        status: Its status in Dagster, such as ``SUCCESS``.
        started: When it began; None if it has not begun.
        ended: When it ended; None while it runs.
    """

    run_id: str
    status: str
    started: dt.datetime | None
    ended: dt.datetime | None


@dataclass(frozen=True, slots=True)
class Absent:
    """The partitions of some series that were asked for and are not in the lake.

    Attributes:
        unwritten: For each series the keys of those that their last run did not write: it refused them, or it failed.
        lost: For each series the keys of those that a run has written, and that the lake does not hold anymore, whether
            that is recorded with Dagster or not.
    """

    unwritten: Mapping[Series, frozenset[str]] = field(default_factory=dict)
    lost: Mapping[Series, frozenset[str]] = field(default_factory=dict)


def absent_partitions(instance: dg.DagsterInstance, lake: Lake, series: Sequence[Series]) -> Absent:
    """Return the partitions of each series that were asked for and are not in the lake.

    Raises:
        LakeError: A file of a series may not be read.
    """
    gaps, losses = find_all_gaps(instance, lake, series), find_losses(instance, lake, series)
    return Absent(
        unwritten={member: gaps[member].unwritten for member in series},
        lost={member: gaps[member].lost.union(part.key for part in losses.get(member, ())) for member in series},
    )


def last_runs(instance: dg.DagsterInstance, series: Sequence[Series]) -> dict[Series, LastRun]:
    """Return the last run over each of ``series`` that any run has planned."""
    ids: dict[Series, str] = {}
    by_key = {asset_key(member): member for member in series}
    for record in instance.get_asset_records(list(by_key)):
        entry = record.asset_entry
        # The latest event may be one outside a run, such as that of a partition which a person accepted.
        run_id = entry.last_run_id or last_planned_run(instance, entry.asset_key)
        if run_id:
            ids[by_key[entry.asset_key]] = run_id
    records = instance.get_run_records(dg.RunsFilter(run_ids=list(set(ids.values())))) if ids else []
    runs = {record.dagster_run.run_id: _run_of(record) for record in records}
    return {member: runs[run_id] for member, run_id in ids.items() if run_id in runs}


def _run_of(record: dg.RunRecord) -> LastRun:
    run = record.dagster_run
    return LastRun(run.run_id, run.status.value, _time(record.start_time), _time(record.end_time))


def _time(seconds: float | None) -> dt.datetime | None:
    return None if seconds is None else dt.datetime.fromtimestamp(seconds, dt.UTC)


def last_refusal(instance: dg.DagsterInstance, series: Series, partition: Partition) -> Gap | None:
    """Return why a partition was refused the last time, or why it is lost (no verdict); None if nothing is known."""
    (gap,) = explained(instance, series, {partition.key: ""})
    return gap if gap.reason else None


def why_absent(
    instance: dg.DagsterInstance, lake: Lake, series: Series, partitions: Sequence[Partition]
) -> dict[str, Gap]:
    """Return why partitions are not in the lake, by key: of those that a run refused, or lost when it failed.

    The reasons of the first hundred are read; the others have none.

    Args:
        instance: The instance that remembers what was asked for.
        lake: The lake.
        series: The series.
        partitions: Partitions that the lake does not hold.

    Raises:
        LakeError: A file of the series may not be read.
    """
    keys = {partition.key for partition in partitions}
    asked_for = {key: why for key, why in find_gaps(instance, lake, series).absent.items() if key in keys}
    return {gap.key: gap for gap in explained(instance, series, asked_for) if gap.verdict or gap.reason}
