"""Events: what Dagster records about one partition.

Here belongs the translation from a stored partition to a Dagster event. What does not belong here: the result of the
check (``checks``) and the decision when to report (``assets``, ``runs``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, cast

import dagster as dg

from binance_assets.candles.columns import empty_candles
from binance_assets.model.outside import MESSAGE, printable
from binance_assets.model.partitions import Partition, partition_for_key
from binance_assets.model.results import PartitionResult, Verdict, format_spans
from binance_assets.model.series import Series
from binance_assets.model.timestamps import SECOND, from_iso, to_iso
from binance_assets.orchestration.dagster_internals.event_writes import (
    log_materializations,
    log_observations,
    report_materializations,
)
from binance_assets.orchestration.keys import asset_key
from binance_assets.storage.lake import StoredPartition

# The most events in one batch. With the second that partitions wait for their file, it bounds what a killed process
# has written and not reported.
_MAX_BATCH: Final = 100
# The missing spans of a refused partition, for programs; of a day of 1s, there may be thousands.
_SPANS: Final = "missing_spans"
_MAX_SPANS: Final = 1_000


def materialization(series: Series, partition: Partition, stored: StoredPartition) -> dg.AssetMaterialization:
    """Return the event that reports a stored partition to Dagster.

    Args:
        series: The series.
        partition: The partition.
        stored: Its entry in the lake.
    """
    metadata: dict[str, dg.MetadataValue] = {
        "dagster/partition_row_count": dg.MetadataValue.int(stored.rows),
        "path": dg.MetadataValue.path(str(stored.path.absolute())),
        "bytes": dg.MetadataValue.int(stored.size),
        "verdict": dg.MetadataValue.text(printable(stored.verdict)),
        "source": dg.MetadataValue.text(printable(stored.source)),
    }
    if stored.content_hash is not None:
        metadata["content_hash"] = dg.MetadataValue.text(printable(stored.content_hash))
    if stored.replaced is not None:
        replaced = asdict(stored.replaced)
        metadata["replaced"] = dg.MetadataValue.json(
            {name: printable(value) if isinstance(value, str) else value for name, value in replaced.items()}
        )
    if stored.missing:
        metadata["missing"] = dg.MetadataValue.json(stored.missing)
    for name, text in stored.texts.items():
        metadata[name] = dg.MetadataValue.text(printable(text, MESSAGE))
    for name, time_ms in (("first_open_time", stored.first), ("last_open_time", stored.last)):
        if time_ms is not None:
            metadata[name] = dg.MetadataValue.timestamp(time_ms / SECOND)
    return dg.AssetMaterialization(asset_key(series), partition=partition.key, metadata=metadata)


def materializations(
    context: dg.AssetExecutionContext,
    series: Series,
    written: Mapping[Partition, StoredPartition],
    of_asset: Mapping[str, dg.MetadataValue] | None = None,
) -> Iterator[dg.DagsterEvent]:
    """Log what a step has written, in the given order; yield the events, which the step yields in turn.

    Partitions that were written together are logged together, a bounded number at a time.

    Args:
        context: The step.
        series: The series of the step.
        written: The partitions with their entries in the lake.
        of_asset: Metadata that Dagster reads from the newest event of an asset; only the last event of a batch has it.
    """
    for batch in _batches(series, list(written.items())):
        if of_asset:
            batch[-1] = batch[-1].with_metadata({**batch[-1].metadata, **of_asset})
        yield from log_materializations(context, batch)


def refusal(asset: dg.AssetKey, result: PartitionResult) -> dg.AssetObservation:
    """Return the event that explains a refused partition on its own page.

    Args:
        asset: The asset.
        result: The partition that was not written.
    """
    metadata: dict[str, dg.MetadataValue] = {
        "verdict": dg.MetadataValue.text(result.verdict),
        "reason": dg.MetadataValue.text(printable(result.reason, MESSAGE)),
    }
    if result.missing:
        metadata["missing"] = dg.MetadataValue.text(format_spans(result.missing))
        spans = [[to_iso(start), to_iso(end)] for start, end in result.missing[:_MAX_SPANS]]
        metadata[_SPANS] = dg.MetadataValue.json(spans)
    text = printable(f"refused, {result.verdict}: {result.reason}", MESSAGE)
    return dg.AssetObservation(asset, partition=result.partition.key, description=text, metadata=metadata)


def refused_result(series: Series, refused: dg.AssetObservation) -> PartitionResult | None:
    """Return the result of which :func:`refusal` made an event, without candles; None if the event is another one."""
    verdict = refused.metadata.get("verdict")
    if verdict is None or refused.partition is None:
        return None
    spans: Any = refused.metadata[_SPANS].value if _SPANS in refused.metadata else ()
    return PartitionResult(
        partition_for_key(refused.partition, series.interval),
        cast("Verdict", verdict.value),
        empty_candles(series.market),
        tuple((from_iso(start), from_iso(end)) for start, end in spans),
        str(refused.metadata["reason"].value),
    )


def refusals(
    context: dg.AssetExecutionContext, asset: dg.AssetKey, refused: Sequence[PartitionResult]
) -> Iterator[dg.DagsterEvent]:
    """Log what is not written of an asset; yield the events, which the step yields in turn."""
    for start in range(0, len(refused), _MAX_BATCH):
        batch = [refusal(asset, result) for result in refused[start : start + _MAX_BATCH]]
        yield from log_observations(context, batch)


def report_stored(
    instance: dg.DagsterInstance, series: Series, stored: Sequence[tuple[Partition, StoredPartition]]
) -> None:
    """Report partitions of the lake to Dagster outside a run."""
    for batch in _batches(series, stored):
        report_materializations(instance, batch)


def _batches(
    series: Series, stored: Sequence[tuple[Partition, StoredPartition]]
) -> Iterator[list[dg.AssetMaterialization]]:
    for start in range(0, len(stored), _MAX_BATCH):
        yield [materialization(series, *item) for item in stored[start : start + _MAX_BATCH]]
