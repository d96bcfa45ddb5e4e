"""The way out of a refused day for a person who knows better: it is written with its hole, and says so for ever."""

from __future__ import annotations

from dataclasses import replace

from binance_assets.exchange.session import Exchange
from binance_assets.ingest.download import download
from binance_assets.model.partitions import Partition
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import Series
from binance_assets.settings import Source
from binance_assets.storage.lake import Lake, StoredPartition


def override(
    lake: Lake,
    exchange: Exchange,
    series: Series,
    partition: Partition,
    source: Source,
    strict: bool,
    who: str,
    reason: str,
) -> tuple[PartitionResult, StoredPartition | None]:
    """Fetch a partition once more and write it, also where candles of it are lost.

    Args:
        lake: The lake.
        exchange: The market of the series.
        series: The series.
        partition: The partition.
        source: Where it comes from.
        strict: Whether sums that differ refuse a day.
        who: Who accepts it.
        reason: Why, in their words.

    Returns:
        The verdict, and the file; None where nobody can accept it: it is not over, not sane, or cannot be had.

    Raises:
        LakeError: The lake cannot be written.
        ExchangeError: The exchange cannot be asked.
    """
    lake.prepare(exchange.venue)
    (result,) = download(exchange, series, [partition], source, strict, lake)
    if result.can_override:
        result = replace(result, accepted_by=who, accepted_because=reason)
    return result, lake.write(series, result) if result.is_accepted else None
