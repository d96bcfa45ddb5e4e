"""Overriding a verdict: a person accepts a refused partition with its gap, and its file keeps who did and why."""

from __future__ import annotations

from dataclasses import replace

from binance_assets.exchange.session import Exchange
from binance_assets.ingest.download import download
from binance_assets.ingest.options import DownloadOptions
from binance_assets.model.partitions import Partition
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import Series
from binance_assets.storage.lake import Lake, StoredPartition


def override(
    lake: Lake,
    exchange: Exchange,
    series: Series,
    partition: Partition,
    options: DownloadOptions,
    who: str,
    reason: str,
) -> tuple[PartitionResult, StoredPartition | None]:
    """Fetch a partition once more and write it, even if it is refused but can be overridden.

    Args:
        lake: The lake.
        exchange: The market of the series.
        series: The series.
        partition: The partition.
        options: How it is fetched and validated.
        who: The person who accepts it.
        reason: Why, in their words.

    Returns:
        The result, and what the lake now says of the partition. The latter is None if the partition cannot be accepted:
        it is unfinished, invalid or unreachable.

    Raises:
        LakeError: The lake cannot be written.
        ExchangeError: Neither the API nor the archive can be reached.
        Cancelled: The exchange was closed.
    """
    lake.prepare(exchange.venue)
    (result,) = download(exchange, series, [partition], options)
    if result.can_override:
        result = replace(result, accepted_by=who, accepted_because=reason)
    return result, lake.write(series, result) if result.is_accepted else None
