"""The check ``gap_free``: its spec and, beside it, its evaluation.

It is blocking and unpartitioned and evaluated once per run, at the end: refused days are not in the lake whatever
it says, and it names them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import dagster as dg

from binance_assets.candles.validation import Judged, tell_spans
from binance_assets.orchestration.figures import RunFigures

CHECK_NAME: Final = "gap_free"
_NAMED_DAYS: Final = 5
_TABLE_ROWS: Final = 1_000


def gap_free_spec(key: dg.AssetKey) -> dg.AssetCheckSpec:
    """The spec of the check on the asset ``key``."""
    return dg.AssetCheckSpec(
        CHECK_NAME,
        asset=key,
        blocking=True,
        description="Every partition that the run was asked for has all its candles, and they are sane. "
        "One that lacks a candle or holds nonsense is not written.",
    )


def gap_free_result(refused: Sequence[Judged], accepted: int, figures: RunFigures) -> dg.AssetCheckResult:
    """The check's result for a run.

    Args:
        refused: The partitions that were not written.
        accepted: How many were.
        figures: What the run did.
    """
    metadata: dict[str, dg.MetadataValue] = {
        "days_accepted": dg.MetadataValue.int(accepted),
        "days_refused": dg.MetadataValue.int(len(refused)),
        **figures.metadata(),
    }
    if not refused:
        return dg.AssetCheckResult(passed=True, check_name=CHECK_NAME, metadata=metadata)
    metadata["refused"] = dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    "day": judged.period.key,
                    "verdict": judged.verdict,
                    "missing": tell_spans(judged.missing),
                    "reason": judged.reason,
                }
            )
            for judged in refused[:_TABLE_ROWS]
        ]
    )
    return dg.AssetCheckResult(
        passed=False,
        check_name=CHECK_NAME,
        severity=dg.AssetCheckSeverity.ERROR,
        description=tell_refused(refused),
        metadata=metadata,
    )


def tell_refused(refused: Sequence[Judged]) -> str:
    """The refused partitions in one line: the first few with their reasons, and how many more there are."""
    told = "; ".join(f"{judged.period.key} {judged.verdict}: {judged.reason}" for judged in refused[:_NAMED_DAYS])
    more = len(refused) - _NAMED_DAYS
    return f"{len(refused)} refused: {told}" + (f"; and {more} more" if more > 0 else "")
