"""Events: what Dagster records about one partition.

Here belongs the translation from a stored partition to a Dagster event. What does not belong here: the result of the
check (``checks``) and the decision when to report (``assets``, ``runs``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict

import dagster as dg

from binance_assets.model.outside import MESSAGE, printable
from binance_assets.model.partitions import Partition
from binance_assets.model.series import Series
from binance_assets.model.timestamps import SECOND
from binance_assets.orchestration.keys import asset_key
from binance_assets.storage.lake import StoredPartition


def materialization(series: Series, partition: Partition, stored: StoredPartition) -> dg.AssetMaterialization:
    """Return the event that reports a stored partition to Dagster.

    Args:
        series: The series.
        partition: The partition.
        stored: Its entry in the lake.
    """
    metadata: dict[str, dg.MetadataValue] = {
        "dagster/partition_row_count": dg.MetadataValue.int(stored.rows),
        "path": dg.MetadataValue.path(stored.path.absolute()),
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


def materializations(series: Series, written: Mapping[Partition, StoredPartition]) -> Iterator[dg.AssetMaterialization]:
    """Yield the events that report stored partitions to Dagster, in the given order."""
    for partition, stored in written.items():
        yield materialization(series, partition, stored)
