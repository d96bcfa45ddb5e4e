"""The check ``gap_free``: its spec and, beside it, its evaluation.

It is blocking and unpartitioned and evaluated once per run, at the end: refused days are not in the lake whatever
it says, and it names them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluation

from binance_assets.model.results import PartitionResult, format_spans
from binance_assets.orchestration.metrics import RunMetrics

CHECK_NAME: Final = "gap_free"
_NAMED_DAYS: Final = 5
_TABLE_ROWS: Final = 1_000
_EVALUATIONS: Final = 500


def gap_free_spec(key: dg.AssetKey) -> dg.AssetCheckSpec:
    """The spec of the check on the asset ``key``."""
    return dg.AssetCheckSpec(
        CHECK_NAME,
        asset=key,
        blocking=True,
        description="Every partition that the run was asked for is whole: its candles are sane, and none is missing "
        "with trades in it, by the exchange's own sums. One that is not is not written.",
    )


def gap_free_result(refused: Sequence[PartitionResult], accepted: int, metrics: RunMetrics) -> dg.AssetCheckResult:
    """The check's result for a run.

    Args:
        refused: The partitions that were not written.
        accepted: How many were.
        metrics: What the run did.
    """
    metadata: dict[str, dg.MetadataValue] = {
        "days_accepted": dg.MetadataValue.int(accepted),
        "days_refused": dg.MetadataValue.int(len(refused)),
        **metrics.metadata(),
    }
    if not refused:
        return dg.AssetCheckResult(passed=True, check_name=CHECK_NAME, metadata=metadata)
    metadata["refused"] = dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    "day": result.partition.key,
                    "verdict": result.verdict,
                    "missing": format_spans(result.missing),
                    "reason": result.reason,
                }
            )
            for result in refused[:_TABLE_ROWS]
        ]
    )
    return dg.AssetCheckResult(
        passed=False,
        check_name=CHECK_NAME,
        severity=dg.AssetCheckSeverity.ERROR,
        description=format_refused(refused),
        metadata=metadata,
    )


def format_refused(refused: Sequence[PartitionResult]) -> str:
    """The refused partitions in one line: the first few with their reasons, and how many more there are."""
    message = "; ".join(f"{result.partition.key} {result.verdict}: {result.reason}" for result in refused[:_NAMED_DAYS])
    more = len(refused) - _NAMED_DAYS
    return f"{len(refused)} refused: {message}" + (f"; and {more} more" if more > 0 else "")


def unreachable_days(instance: dg.DagsterInstance, key: dg.AssetKey) -> set[tuple[str, str]]:
    """Run and partition of what could lately not be had, or was not over: those were never looked at.

    Args:
        instance: Where the evaluations are.
        key: The asset.
    """
    check = dg.AssetCheckKey(key, CHECK_NAME)
    found = set()
    for record in instance.event_log_storage.get_asset_check_execution_history(check, limit=_EVALUATIONS):
        event = record.event.dagster_event if record.event else None
        evaluation = event.event_specific_data if event else None
        refused = evaluation.metadata.get("refused") if isinstance(evaluation, AssetCheckEvaluation) else None
        for row in refused.records if isinstance(refused, dg.TableMetadataValue) else ():
            if row.data["verdict"] in ("unreachable", "unfinished"):
                found.add((record.run_id, str(row.data["day"])))
    return found
