"""Writes to the event log: batches of events, plans that are withdrawn, and runs that no process executes."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import dagster as dg
from dagster._core.events import (
    AssetMaterializationPlannedData,
    AssetObservationData,
    DagsterEventBatchMetadata,
    StepMaterializationData,
)
from dagster._core.instance.utils import RUNLESS_JOB_NAME, RUNLESS_RUN_ID
from dagster._core.storage.tags import MAX_RETRIES_TAG

_Item = TypeVar("_Item")


def log_materializations(
    context: dg.AssetExecutionContext, materializations: Sequence[dg.AssetMaterialization]
) -> list[dg.DagsterEvent]:
    """Log materializations of one asset as a batch, and return their events, which the step must yield.

    Dagster logs an ``AssetMaterialization`` that a step yields on its own, and a batch only for an output. The events
    of a batch pass through the instance like any other; a storage without batches stores them one by one.

    Args:
        context: The step.
        materializations: Of one asset, because Dagster's Postgres storage updates the asset of the last one only.
    """
    step = context.get_step_execution_context()
    return [dg.DagsterEvent.asset_materialization(step, event, batch) for event, batch in _as_batch(materializations)]


def log_observations(
    context: dg.AssetExecutionContext, observations: Sequence[dg.AssetObservation]
) -> list[dg.DagsterEvent]:
    """Log observations of one asset as :func:`log_materializations` does, and return their events."""
    step = context.get_step_execution_context()
    return [dg.DagsterEvent.asset_observation(step, event, batch) for event, batch in _as_batch(observations)]


def withdraw_plan(instance: dg.DagsterInstance, asset: dg.AssetKey, partitions: Sequence[str]) -> None:
    """Let partitions that a run planned and will not execute look as if it had not planned them.

    Dagster shows every partition that a failed run planned and did not materialize as failed, also those of steps that
    never started. No public name takes a plan back. Planned once more outside a run, they are neither in progress nor
    failed: Dagster takes their run for a deleted one.
    """
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value
    for partition, batch in _as_batch(partitions):
        data = AssetMaterializationPlannedData(asset, partition)
        event = dg.DagsterEvent(kind, job_name=RUNLESS_JOB_NAME, event_specific_data=data)
        instance.report_dagster_event(event, RUNLESS_RUN_ID, batch_metadata=batch)


def report_materializations(instance: dg.DagsterInstance, materializations: Sequence[dg.AssetMaterialization]) -> None:
    """Report materializations of one asset outside a run, as a batch.

    ``DagsterInstance.report_runless_asset_event``, the public way, stores each on its own.
    """
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION.value
    for materialization, batch in _as_batch(materializations):
        data = StepMaterializationData(materialization)
        event = dg.DagsterEvent(kind, job_name=RUNLESS_JOB_NAME, event_specific_data=data)
        instance.report_dagster_event(event, RUNLESS_RUN_ID, batch_metadata=batch)


def report_failed_run(
    instance: dg.DagsterInstance,
    job: str,
    observations: Mapping[dg.AssetKey, Sequence[dg.AssetObservation]],
    message: str,
    tags: Mapping[str, str],
) -> None:
    """Record a run that has failed over the partitions that it observed, although no process has executed it.

    Dagster shows a partition as failed only if a failed run planned it after its last materialization. No public name
    plans a partition outside the execution of a run.

    Args:
        instance: The instance.
        job: The name that the list of runs shows.
        observations: What the page of each partition shows, by asset.
        message: Why the run failed.
        tags: Tags of the run; it is not retried.
    """
    planned, observed = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED, dg.DagsterEventType.ASSET_OBSERVATION
    run = instance.add_run(
        dg.DagsterRun(
            job,
            str(uuid.uuid4()),
            asset_selection=frozenset(observations),
            tags={**tags, MAX_RETRIES_TAG: "0"},
        )
    )
    try:
        for asset, of_asset in observations.items():
            for kind in (planned, observed):
                for observation, batch in _as_batch(of_asset):
                    data = (
                        AssetMaterializationPlannedData(asset, observation.partition)
                        if kind is planned
                        else AssetObservationData(observation)
                    )
                    event = dg.DagsterEvent(kind.value, job_name=job, event_specific_data=data)
                    instance.report_dagster_event(event, run.run_id, batch_metadata=batch)
    finally:  # a run that has not ended is believed to be about to write what it planned
        instance.report_run_failed(run, message)


def _as_batch(items: Sequence[_Item]) -> Iterator[tuple[_Item, DagsterEventBatchMetadata]]:
    batch, last = str(uuid.uuid4()), len(items) - 1
    for number, item in enumerate(items):
        yield item, DagsterEventBatchMetadata(batch, is_end=number == last)
