"""Checks: the asset check ``gap_free``, its spec, its results, and what past results show.

The check is blocking and unpartitioned. A step evaluates it once, at its end. The check names the refused partitions;
the step has already left them out of the lake.

Here belongs everything about the check. What does not belong here: the validation itself (``completeness``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import dagster as dg

from binance_assets.model.outside import MESSAGE, markdown, printable
from binance_assets.model.results import PartitionResult, format_spans, group_by_reason, name_partitions, other_verdicts
from binance_assets.model.wording import name_some
from binance_assets.orchestration.dagster_internals import check_evaluations
from binance_assets.orchestration.metrics import RunMetrics

CHECK_NAME: Final = "gap_free"
_MAX_NAMED: Final = 5
_MAX_TABLE_ROWS: Final = 1_000
_MAX_EVALUATIONS: Final = 500


def gap_free_spec(key: dg.AssetKey) -> dg.AssetCheckSpec:
    """Return the spec of the check on the asset ``key``."""
    return dg.AssetCheckSpec(
        CHECK_NAME,
        asset=key,
        blocking=True,
        description="Every partition of the run is accepted: its candles are valid, and none with trades is missing, "
        "by the exchange's own totals. A refused partition is not written, and a stored one is not replaced by a "
        "worse one.",
    )


def gap_free_result(
    refused: Sequence[PartitionResult], verdicts: Mapping[str, int], metrics: RunMetrics
) -> dg.AssetCheckResult:
    """Return the result of the check for a step.

    Args:
        refused: The partitions that were not written.
        verdicts: How many partitions were written, by verdict.
        metrics: What the step did.
    """
    metadata: dict[str, dg.MetadataValue] = {
        "days_accepted": dg.MetadataValue.int(sum(verdicts.values())),
        "days_refused": dg.MetadataValue.int(len(refused)),
        "verdicts": dg.MetadataValue.json(other_verdicts(verdicts)),
        **metrics.metadata(),
    }
    if not refused:
        return dg.AssetCheckResult(passed=True, check_name=CHECK_NAME, metadata=metadata)
    metadata["refused"] = dg.MetadataValue.table([_record(result) for result in refused[:_MAX_TABLE_ROWS]])
    return dg.AssetCheckResult(
        passed=False,
        check_name=CHECK_NAME,
        severity=dg.AssetCheckSeverity.ERROR,
        description=markdown(format_refused(refused), _MAX_NAMED * MESSAGE),  # the UI takes it for Markdown
        metadata=metadata,
    )


def _record(result: PartitionResult) -> dg.TableRecord:
    return dg.TableRecord(
        {
            "day": result.partition.key,
            "verdict": result.verdict,
            "missing": format_spans(result.missing),
            "reason": printable(result.reason, MESSAGE),
        }
    )


def format_refused(refused: Sequence[PartitionResult]) -> str:
    """Return the refused partitions in one line: the first few reasons with their partitions, and how many more."""
    groups = group_by_reason(refused)
    firsts = ((name_partitions(group), group[0]) for group in groups)
    reasons = (f"{names} {first.verdict}: {printable(first.reason, MESSAGE)}" for names, first in firsts)
    return f"{len(refused)} refused: {name_some(reasons, _MAX_NAMED, separator='; ')}"


def unreachable_partitions(instance: dg.DagsterInstance, key: dg.AssetKey) -> set[tuple[str, str]]:
    """Return run id and partition key of recent refusals that say nothing about the candles.

    Their verdict is ``unreachable`` or ``unfinished``: a later attempt can succeed without a change of the data.

    Args:
        instance: The instance that holds the evaluations.
        key: The asset.
    """
    unreachable = set()
    for run_id, evaluation in check_evaluations(instance, dg.AssetCheckKey(key, CHECK_NAME), _MAX_EVALUATIONS):
        refused = evaluation.metadata.get("refused")
        for row in refused.records if isinstance(refused, dg.TableMetadataValue) else ():
            if row.data["verdict"] in ("unreachable", "unfinished"):
                unreachable.add((run_id, str(row.data["day"])))
    return unreachable
