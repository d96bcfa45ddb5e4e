"""Runs that say whether the file of their process proves that they live, with each executor."""

# No `from __future__ import annotations` here: Dagster reads the types of an asset's arguments when it is defined.
from collections.abc import Iterable
from pathlib import Path

import dagster as dg

from binance_assets.orchestration.interrupted import fail_runs_of_dead_processes, prove_life
from binance_assets.storage.locks import taken_over


@dg.asset
def proves_life(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Report whether the run has a file, and whether that is locked."""
    for _ in range(2):  # as two steps of a run do
        prove_life(context)
    file = Path(context.instance.root_directory) / "binance_assets_runs" / context.run.run_id
    assert fail_runs_of_dead_processes(context.instance) == 0
    with taken_over(file) as abandoned:
        return dg.MaterializeResult(metadata={"has file": file.exists(), "is locked": not abandoned})


def proof_in(events: Iterable[dg.DagsterEvent]) -> tuple[object, object]:
    """Return whether a run had a file, and whether that was locked, given its events."""
    (event,) = (event for event in events if event.is_step_materialization)
    metadata = event.step_materialization_data.materialization.metadata
    return metadata["has file"].value, metadata["is locked"].value


def in_process() -> dg.JobDefinition:
    """Return a job whose process executes all of its steps."""
    return _job(dg.in_process_executor)


def a_process_for_each_step() -> dg.JobDefinition:
    """Return a job with a process for each of its steps."""
    return _job(dg.multiprocess_executor)


def _job(executor: dg.ExecutorDefinition) -> dg.JobDefinition:
    job = dg.define_asset_job("proving", dg.AssetSelection.assets(proves_life), executor_def=executor)
    return dg.Definitions(assets=[proves_life], jobs=[job]).resolve_job_def("proving")
