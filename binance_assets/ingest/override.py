"""Overriding verdicts: a person accepts refused partitions as the exchange has them; the metadata says who and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl

from binance_assets.exchange.session import Exchange
from binance_assets.ingest.download import download, server_time
from binance_assets.ingest.options import DownloadOptions
from binance_assets.model.partitions import Partition
from binance_assets.model.results import PartitionResult, Verdict
from binance_assets.model.series import Series
from binance_assets.model.timestamps import DAY
from binance_assets.storage.lake import Lake, StoredPartition
from binance_assets.storage.metadata import entry_of
from binance_assets.storage.writer import PartitionWriter


@dataclass(frozen=True, slots=True)
class Override:
    """What became of a partition that a person wants to accept.

    Attributes:
        partition: The partition.
        verdict: Its verdict.
        reason: Why it was refused, or why it cannot be accepted; or what to know about it. An empty string if there is
            nothing to report.
        accepted_by: The person; None if nothing had to be accepted, or nothing can be.
        stored: What the lake now says of it; None if it cannot be accepted.
    """

    partition: Partition
    verdict: Verdict
    reason: str
    accepted_by: str | None
    stored: StoredPartition | None


def override(
    lake: Lake,
    exchange: Exchange,
    series: Series,
    partitions: Sequence[Partition],
    options: DownloadOptions,
    who: str,
    reason: str,
) -> list[Override]:
    """Fetch partitions once more and write them, even those that are refused but that a person can accept.

    Candles are stored as the exchange has them, and their verdict stays.

    Args:
        lake: The lake.
        exchange: The market of the series.
        series: The series.
        partitions: The partitions, ascending.
        options: How they are fetched and validated.
        who: The person who accepts them.
        reason: Why, in their words.

    Returns:
        What became of each partition, ascending.

    Raises:
        LakeError: The lake cannot be written.
        ExchangeError: Neither the API nor the archive can be reached.
        Cancelled: The exchange was closed.
    """
    lake.prepare(exchange.venue, exchange.hosts)
    before, now = lake.stored_among(series, partitions), server_time(exchange, options.source)
    writer, written = PartitionWriter(lake, series), dict[Partition, StoredPartition]()
    outcomes: dict[Partition, Override] = {}
    for result in download(exchange, series, partitions, options):
        accepted = acceptable(result, before.get(result.partition), now, who, reason)
        if isinstance(accepted, str):
            outcomes[result.partition] = Override(result.partition, result.verdict, accepted, None, None)
            continue
        outcomes[result.partition] = Override(
            result.partition, result.verdict, result.reason, accepted.accepted_by, None
        )
        written |= writer.add(accepted)
    written |= writer.flush()
    return [replace(outcomes[partition], stored=written.get(partition)) for partition in sorted(outcomes)]


def acceptable(
    result: PartitionResult, stored: StoredPartition | None, now: int, who: str, reason: str
) -> PartitionResult | str:
    """Return a result as it may be written after a person accepted it; or why it cannot be accepted, in one line.

    Args:
        result: The result.
        stored: What the lake holds of the partition; None if it does not.
        now: The server time, ms UTC.
        who: The person.
        reason: Why they accept it, in their words.
    """
    by_person = replace(result, accepted_by=who, accepted_because=reason)
    if result.is_accepted:
        # A person who names a partition may replace a better one, and then the metadata must say who did.
        is_worse = stored is not None and not entry_of(result).may_replace(stored)
        return by_person if is_worse else result
    if not result.can_override:
        return result.reason
    if result.verdict == "unfinished" and now < result.partition.end + DAY:
        return f"{result.reason}; it ended less than a day ago, so the candles may still come"
    candles = result.candles.sort("open_time")
    return _unstorable(candles, result) or replace(by_person, candles=candles)


def _unstorable(candles: pl.DataFrame, result: PartitionResult) -> str | None:
    """Return why candles that break a rule cannot even be stored as they are; None if they can."""
    if candles.null_count().sum_horizontal().item():
        return f"{result.reason}; values are missing, so it cannot be stored"
    if not candles["open_time"].is_unique().all():
        return f"{result.reason}; several candles open at the same time, so it cannot be stored"
    return None
