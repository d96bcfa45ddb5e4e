"""What the run that failed has already written, so that its automatic retry goes on instead of starting again.

Here belongs which partitions of a retried run are left. What does not belong here: when Dagster retries a run, which
``run_retries`` in ``dagster.yaml`` says, and a re-execution by a user, who wants all partitions fetched again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from functools import lru_cache
from typing import Final

import dagster as dg

from binance_assets.model.partitions import Partition

RETRY_TAG: Final = "dagster/retry_number"
"""The tag of a run that Dagster's daemon started because another one failed; it is documented."""

_MAX_RETRIES: Final = 20


def left_to_do(
    instance: dg.DagsterInstance, run: dg.DagsterRun, asset: dg.AssetKey, partitions: tuple[Partition, ...]
) -> tuple[Partition, ...]:
    """Return the partitions of a step that the runs before a retry have not materialized; all unless it is a retry.

    Args:
        instance: The instance.
        run: The run of the step.
        asset: The asset of the step.
        partitions: The partitions that the run is for.
    """
    if RETRY_TAG not in run.tags or run.parent_run_id is None:
        return partitions
    done = _materialized_before(instance, run.parent_run_id).get(asset, frozenset())
    return tuple(partition for partition in partitions if partition.key not in done)


@lru_cache(maxsize=1)  # each step of a run asks, and a run that has failed does not change
def _materialized_before(instance: dg.DagsterInstance, run_id: str) -> Mapping[dg.AssetKey, Set[str]]:
    """Return the partitions that a failed run, and those that it retried, have materialized."""
    done: dict[dg.AssetKey, set[str]] = {}
    for run in _chain(instance, run_id):
        for entry in instance.all_logs(run, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
            event = entry.dagster_event
            if event is not None and event.asset_key is not None and event.partition is not None:
                done.setdefault(event.asset_key, set()).add(event.partition)
    return done


def _chain(instance: dg.DagsterInstance, run_id: str) -> Iterator[str]:
    """Yield a run, the run that it retried, and so on."""
    for _ in range(_MAX_RETRIES):
        yield run_id
        run = instance.get_run_by_id(run_id)
        if run is None or run.parent_run_id is None or RETRY_TAG not in run.tags:
            return
        run_id = run.parent_run_id
