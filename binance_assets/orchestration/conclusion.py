"""The conclusion of a step: what it refused, what the check says, and whether the step failed.

Here belongs what fetched and derived assets do after their last partition. What does not belong here: the result of
the check (``checks``) and the counting (``tally``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import replace
from typing import Final

import dagster as dg

from binance_assets.model.outside import MESSAGE, printable
from binance_assets.model.partitions import partition_for_key
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import Series
from binance_assets.model.wording import name_some
from binance_assets.orchestration.checks import format_refused, gap_free_result, is_latest, refresh_check
from binance_assets.orchestration.dagster_internals.event_reads import find_target_of_check
from binance_assets.orchestration.dagster_internals.event_writes import withdraw_plan
from binance_assets.orchestration.dagster_internals.steps import (
    add_partition_metadata,
    as_not_blocking,
    downstream_in_run,
    has_downstream_in_run,
)
from binance_assets.orchestration.events import materialization, refusals
from binance_assets.orchestration.gaps import Gaps, explained, find_gaps, refused_at_last
from binance_assets.orchestration.keys import asset_key
from binance_assets.orchestration.metrics import RunMetrics
from binance_assets.orchestration.tally import Tally
from binance_assets.settings import ConfigurationError
from binance_assets.storage.lake import Lake

CandleEvent = (
    dg.DagsterEvent | dg.MaterializeResult | dg.AssetCheckResult | dg.AssetCheckEvaluation | dg.Output  # type: ignore[type-arg]
)
"""What the step of a candles asset yields, one at a time."""

CandleEvents = Iterator[CandleEvent]
"""What the step of a candles asset yields."""

REFUSED: Final = "days_refused"
"""The entry in the metadata of a failure that marks it as the failure of refused partitions."""

_MAX_NAMED: Final = 5


def conclude(
    context: dg.AssetExecutionContext,
    lake: Lake,
    series: Series,
    tally: Tally,
    metrics: RunMetrics,
    of_asset: Mapping[str, dg.MetadataValue],
) -> CandleEvents:
    """Yield the last events of a step, and fail it if it refused a partition.

    Args:
        context: The step.
        lake: The lake.
        series: The series.
        tally: What the step wrote and refused.
        metrics: What the step did.
        of_asset: Metadata that the newest event of the asset has beside that of its partition.

    Raises:
        Failure: A partition was refused, or the lake cannot be read. The description is one line with the reasons.
    """
    instance, refused = context.instance, {result.partition.key for result in tally.refused}
    yield from refusals(context, asset_key(series), tally.refused)
    try:
        # Downstream steps of the same run start only after an output, of which Dagster makes the newest event of every
        # partition of the run.
        if not refused and has_downstream_in_run(context):
            add_partition_metadata(context, _metadata_of_run(context, lake, series, of_asset))
            yield dg.MaterializeResult()
        gaps = find_gaps(instance, lake, series, refused, context.run.run_id)
        yield from _evaluate(context, series, tally, metrics, gaps, refused)
        # Another run may have changed the state since, or the page may show an evaluation that was planned later.
        if gaps.stored or gaps.under_way or not is_latest(instance, series, context.run.run_id):
            refresh_check(instance, lake, series)
    except ConfigurationError as error:
        raise dg.Failure(printable(error, MESSAGE), allow_retries=False) from None
    if refused:
        yield from _withhold(context, series, tally, gaps.absent.keys())
        raise _failure(context, series, tally)


def _metadata_of_run(
    context: dg.AssetExecutionContext, lake: Lake, series: Series, of_asset: Mapping[str, dg.MetadataValue]
) -> dict[str, dict[str, dg.MetadataValue]]:
    """Return the metadata of each partition of the run that the lake holds; the last one has also that of the asset.

    Raises:
        LakeError: A file of the series may not be read.
    """
    partitions = [partition_for_key(key, series.interval) for key in context.partition_keys]
    metadata = {
        partition.key: dict(materialization(series, partition, stored).metadata)
        for partition, stored in lake.stored_among(series, partitions).items()
    }
    metadata.setdefault(partitions[-1].key, {}).update(of_asset)
    return metadata


def _evaluate(
    context: dg.AssetExecutionContext,
    series: Series,
    tally: Tally,
    metrics: RunMetrics,
    gaps: Gaps,
    refused: Set[str],
) -> CandleEvents:
    """Yield the result of the check; what an earlier run left out does not fail this step."""
    earlier = {key: reason for key, reason in gaps.absent.items() if key not in refused}
    reasons = explained(context.instance, series, earlier)
    result = gap_free_result(tally.refused, tally.verdicts, metrics, earlier, reasons)
    if tally.accepted:
        find_target_of_check(context)
    if earlier and not refused:
        yield from as_not_blocking(context, result)
    else:
        yield result


def _withhold(
    context: dg.AssetExecutionContext, series: Series, tally: Tally, absent: Set[str]
) -> Iterator[dg.DagsterEvent]:
    """Withdraw the plans for downstream assets, but for the refused partitions; yield why those are not there.

    Dagster executes no step downstream of a failed one. The other partitions of the downstream assets have not failed:
    they wait for a run of their own. A partition that an earlier run refused keeps its plan: it was absent before.
    """
    refused = [_unreachable(series, result) for result in tally.refused if result.partition.key in absent]
    keys = {result.partition.key for result in refused}
    for asset in downstream_in_run(context):
        good = [key for key in context.partition_keys if key not in keys]
        still_refused = refused_at_last(context.instance, asset, good)
        withdraw_plan(context.instance, asset, [key for key in good if key not in still_refused])
        yield from refusals(context, asset, refused)


def _unreachable(series: Series, result: PartitionResult) -> PartitionResult:
    reason = f"{series} {result.partition} was refused as {result.verdict}: {result.reason}"
    return replace(result, verdict="unreachable", missing=(), reason=reason)


def _failure(context: dg.AssetExecutionContext, series: Series, tally: Tally) -> dg.Failure:
    """Return the failure of a step with refused partitions."""
    waiting = downstream_in_run(context)
    text = f"{series}: {format_refused(tally.refused)}"
    if waiting:
        names = name_some((key.to_user_string() for key in waiting), _MAX_NAMED)
        note = f"not executed in this run, because of the refused partitions: {names}"
        context.log.warning(f"{series}: {note}; a sensor or a run of their own does it for the other partitions")
        text += f"; {note}"
    return dg.Failure(text, metadata={REFUSED: len(tally.refused)}, allow_retries=False)
