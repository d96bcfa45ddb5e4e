"""Gaps: the partitions of a series that somebody asked for and that the lake does not hold.

Dagster remembers what was asked for: a run plans its partitions, and a partition that the run did not materialize stays
planned. The lake decides what is there. Nothing else is stored, so a restart, a re-execution, and two runs at once find
the same gaps. Why a partition was refused is in its latest observation (``events``).

Here belongs which partitions are gaps, and why. What does not belong here: what the check makes of them (``checks``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import dagster as dg

from binance_assets.model.partitions import Partition, partition_for_key
from binance_assets.model.series import Series
from binance_assets.orchestration.dagster_internals.event_reads import (
    latest_materialization_ids,
    latest_observation_ids,
    unmaterialized_attempts,
)
from binance_assets.orchestration.keys import asset_key
from binance_assets.storage.lake import Lake, StoredPartition

LOSSES_JOB: Final = "lost_partitions"
"""The name of runs that record losses; no code location has a job of that name."""

MAX_EXPLAINED: Final = 100
"""The most gaps whose reason is read; the others are counted."""

_LOST_RUNS: Final = {
    dg.DagsterRunStatus.FAILURE: "its run failed before the partition was written",
    dg.DagsterRunStatus.CANCELED: "its run was canceled before the partition was written",
}
_LOST_REASON: Final = "the lake no longer holds it"
_RUNS_PER_READ: Final = 500


@dataclass(frozen=True, slots=True)
class Gap:
    """A partition that was asked for and is not in the lake, for people.

    Attributes:
        key: The key of the partition.
        verdict: The verdict with which it was refused; empty if no run came to one.
        missing: The spans in which candles are missing; empty if they are not known.
        reason: Why it is not there, in one line.
    """

    key: str
    verdict: str
    missing: str
    reason: str


@dataclass(frozen=True, slots=True)
class Gaps:
    """What is not there of a series, although it was asked for.

    Attributes:
        absent: Why each partition is not in the lake, by key, ascending; empty where a run refused it.
        lost: Those of them that the lake held once: no run refused them, and none failed to write them.
        stored: The partitions that the lake holds although their last run did not write them.
        under_way: Whether another run may add to the gaps now.
    """

    absent: dict[str, str] = field(default_factory=dict)
    lost: frozenset[str] = frozenset()
    stored: dict[Partition, StoredPartition] = field(default_factory=dict)
    under_way: bool = False

    @property
    def unwritten(self) -> frozenset[str]:
        """The absent partitions that their last run did not write: it refused them, or it failed."""
        return frozenset(self.absent) - self.lost


def find_gaps(
    instance: dg.DagsterInstance, lake: Lake, series: Series, refused: Collection[str] = (), run_id: str = ""
) -> Gaps:
    """Return the gaps of a series.

    A partition that another run is about to fetch is no gap yet. It is one as soon as that run refuses it.

    Args:
        instance: The instance that remembers what was asked for.
        lake: The lake.
        series: The series.
        refused: The keys that the calling step has refused itself.
        run_id: The run of the calling step, which has not ended; empty outside a step.

    Raises:
        LakeError: A file of the series may not be read.
    """
    attempts = unmaterialized_attempts(instance, [asset_key(series)])[asset_key(series)]
    runs = _runs(instance, {attempt_run for attempt_run, _ in attempts.values()} - {run_id, ""})
    return _gaps_of(instance, lake, series, attempts, runs, refused)


def find_all_gaps(instance: dg.DagsterInstance, lake: Lake, series: Sequence[Series]) -> dict[Series, Gaps]:
    """Return the gaps of many series as :func:`find_gaps` does outside a step; a few queries for all of them.

    Raises:
        LakeError: A file of a series may not be read.
    """
    attempts = unmaterialized_attempts(instance, [asset_key(member) for member in series])
    run_ids = {attempt_run for of_series in attempts.values() for attempt_run, _ in of_series.values()}
    runs = _runs(instance, run_ids - {""})
    return {member: _gaps_of(instance, lake, member, attempts[asset_key(member)], runs) for member in series}


def unsettled_partitions(instance: dg.DagsterInstance, series: Sequence[Series]) -> dict[Series, set[str]]:
    """Return the keys of each series that are gaps unless the lake holds them, or that a run is about to write.

    A run that succeeded leaves nothing open. It planned also the partitions that it skipped because they were present.
    """
    attempts = unmaterialized_attempts(instance, [asset_key(member) for member in series])
    runs = _runs(instance, {run for of_series in attempts.values() for run, _ in of_series.values()} - {""})
    # A run that is not among them was deleted, or it never was one.
    open_runs = {run_id for run_id, run in runs.items() if run.status is not dg.DagsterRunStatus.SUCCESS}
    return {
        member: {key for key, (run_id, _) in attempts[asset_key(member)].items() if run_id in open_runs}
        for member in series
    }


def _gaps_of(
    instance: dg.DagsterInstance,
    lake: Lake,
    series: Series,
    attempts: Mapping[str, tuple[str, int]],
    runs: Mapping[str, dg.DagsterRun],
    refused: Collection[str] = (),
) -> Gaps:
    """Return the gaps of a series, given what was planned and not materialized, and those runs."""
    open_attempts, lost, reasons = {}, set(), dict.fromkeys(refused, "")
    for key, (attempt_run, attempt) in attempts.items():
        run = runs.get(attempt_run)
        if run is None or run.status is dg.DagsterRunStatus.SUCCESS:
            continue
        if run.status not in _LOST_RUNS:
            open_attempts[key] = attempt
        elif key not in reasons:
            is_lost = run.job_name == LOSSES_JOB
            reasons[key] = _LOST_REASON if is_lost else _LOST_RUNS[run.status]
            lost |= {key} if is_lost else set()
    reasons |= dict.fromkeys(_refused_meanwhile(instance, series, open_attempts), "")
    partitions = [partition_for_key(key, series.interval) for key in sorted(reasons)]
    stored = lake.stored_among(series, partitions) if partitions else {}
    absent = {partition.key: reasons[partition.key] for partition in partitions if partition not in stored}
    return Gaps(absent, frozenset(lost & absent.keys()), stored, bool(open_attempts))


def refused_at_last(instance: dg.DagsterInstance, asset: dg.AssetKey, keys: Collection[str]) -> set[str]:
    """Return the partitions of ``keys`` that were refused after they were last materialized, if they ever were."""
    if not keys:
        return set()
    refused = latest_observation_ids(instance, asset, keys)
    if not refused:
        return set()
    written = latest_materialization_ids(instance, asset, refused.keys())
    return {key for key, refusal in refused.items() if refusal > written.get(key, 0)}


def digest(keys: Iterable[str]) -> str:
    """Return a short text that differs for different sets of partitions."""
    return hashlib.sha256(" ".join(sorted(keys)).encode()).hexdigest()[:16]


def explained(instance: dg.DagsterInstance, series: Series, absent: Mapping[str, str]) -> list[Gap]:
    """Return the first gaps with what their latest observation says, in the order of ``absent``."""
    keys = list(absent)[:MAX_EXPLAINED]
    observed = dict(_observations(instance, series, keys))
    return [observed.get(key) or Gap(key, "", "", absent[key]) for key in keys]


def _runs(instance: dg.DagsterInstance, run_ids: Collection[str]) -> dict[str, dg.DagsterRun]:
    """Return each run that was not deleted, by its ID."""
    ids, runs = sorted(run_ids), {}
    for start in range(0, len(ids), _RUNS_PER_READ):
        for run in instance.get_runs(dg.RunsFilter(run_ids=ids[start : start + _RUNS_PER_READ])):
            runs[run.run_id] = run
    return runs


def _refused_meanwhile(instance: dg.DagsterInstance, series: Series, open_attempts: Mapping[str, int]) -> Iterator[str]:
    """Yield the partitions that a run refused that has not ended yet: they were observed after they were planned."""
    if open_attempts:
        observed = latest_observation_ids(instance, asset_key(series), open_attempts.keys())
        yield from (key for key, attempt in open_attempts.items() if observed.get(key, 0) > attempt)


def _observations(instance: dg.DagsterInstance, series: Series, keys: Sequence[str]) -> Iterator[tuple[str, Gap]]:
    """Yield what the latest observation of each partition says; nothing for a partition without one."""
    ids = latest_observation_ids(instance, asset_key(series), keys) if keys else {}
    if not ids:
        return
    records = instance.fetch_observations(
        dg.AssetRecordsFilter(asset_key(series), storage_ids=list(ids.values())), limit=len(ids)
    ).records
    for record in records:
        observation, key = record.asset_observation, record.partition_key
        if observation is not None and key is not None and "reason" in observation.metadata:
            texts = {name: str(value.value) for name, value in observation.metadata.items()}
            yield key, Gap(key, texts.get("verdict", ""), texts.get("missing", ""), texts["reason"])
