"""Steps: what a step can find out about its run and its inputs, and what it yields for its check."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any

import dagster as dg
from dagster._core.execution.context.metadata_logging import AssetMetadataHandle, OutputMetadataAccumulator
from dagster_shared.record import copy


def keys_in_run(context: dg.AssetExecutionContext) -> Set[dg.AssetKey]:
    """Return the assets that were selected for the run of this step.

    A re-execution from failure has the selection of its parent run, although it executes only the failed steps.

    ``context.selected_asset_keys``, the public property, covers the step only, and the selection of a
    ``DagsterRun`` is empty for a whole job.
    """
    return frozenset(context.job_def.asset_layer.executable_asset_keys)


def has_downstream_in_run(context: dg.AssetExecutionContext) -> bool:
    """Return whether an asset of the same run depends on this one; the asset graph of a job has no public name."""
    layer = context.job_def.asset_layer
    return bool(layer.asset_graph.get(context.asset_key).child_keys & keys_in_run(context))


def downstream_in_run(context: dg.AssetExecutionContext) -> list[dg.AssetKey]:
    """Return the assets of the same run that depend on this one, directly or not, and have the same partitions."""
    graph, in_run = context.job_def.asset_layer.asset_graph, keys_in_run(context)
    found: list[dg.AssetKey] = []
    waiting = [context.asset_key]
    while waiting:
        children = sorted((graph.get(waiting.pop()).child_keys & in_run) - set(found))
        found += children
        waiting += children
    partitions = graph.get(context.asset_key).partitions_def
    return [key for key in found if graph.get(key).partitions_def == partitions]


def maps_to_all_partitions(context: dg.InputContext) -> bool:
    """Return whether an input asks for all partitions there are, as that of an unpartitioned asset does by default.

    The partition mapping of an input has no public name.
    """
    step = context.step_context
    downstream = step.job_def.asset_layer.get_assets_def_for_node(step.node_handle)
    if downstream is None or not downstream.keys:
        return False
    graph = step.job_def.asset_layer.asset_graph
    return isinstance(
        graph.get_partition_mapping(next(iter(downstream.keys)), context.asset_key), dg.AllPartitionMapping
    )


def executes_whole_run(context: dg.AssetExecutionContext) -> bool:
    """Return whether the process of this step executes all steps of its run, and nothing else.

    That is so with the in-process executor, which ``definitions`` names. The executor of a job has no public name.
    """
    return context.job_def.executor_def is dg.in_process_executor


def expected_step_order(keys: Iterable[dg.AssetKey]) -> list[dg.AssetKey]:
    """Return root assets in the order in which the in-process executor runs their steps.

    Dagster documents no order. It sorts steps of the same depth by their key, the name of the op. Rely on the order
    for speed only, never for correctness.
    """
    return sorted(keys, key=lambda key: key.to_python_identifier())


def as_not_blocking(
    context: dg.AssetExecutionContext, result: dg.AssetCheckResult
) -> tuple[dg.Output[None], dg.AssetCheckEvaluation]:
    """Return what a step yields for the result of its check, so that it does not fail the step although it failed.

    The check blocks, and Dagster lets a step choose only between that and a warning. It converts a result to these two.
    """
    evaluation = result.to_asset_check_evaluation(context.get_step_execution_context())
    name = context.assets_def.get_output_name_for_asset_check_key(evaluation.asset_check_key)
    return dg.Output(None, name), copy(evaluation, blocking=False)


def add_partition_metadata(
    context: dg.AssetExecutionContext, metadata: Mapping[str, Mapping[str, dg.MetadataValue]]
) -> None:
    """Add metadata, by partition key, to the materializations that Dagster makes of the output of a step.

    ``context.add_asset_metadata``, the public method, lists the partitions of the run for each key, and copies what was
    added before, so its cost grows with the square of their number (read in the source of Dagster 1.13.27).
    """
    step = context.get_step_execution_context()
    added: dict[Any, Mapping[str, Any]] = {
        AssetMetadataHandle(asset_key=context.asset_key, partition_key=key): of_partition
        for key, of_partition in metadata.items()
    }
    before = step._metadata_accumulator.per_output_metadata
    step._metadata_accumulator = OutputMetadataAccumulator(per_output_metadata={**before, **added})
