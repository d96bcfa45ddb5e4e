"""Revisiting doubt: stored partitions that nothing proved are validated again, without a request for candles.

A partition may be ``unproved`` because its ``1d`` candle was late, or ``unbalanced`` because that candle was wrong.
Both can change while the candles stay the same. So the stored candles are compared with fresh control totals, and
witnesses are asked where these disagree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import polars as pl

from binance_assets.completeness.validation import validate_partitions
from binance_assets.exchange.errors import ExchangeError
from binance_assets.exchange.session import Exchange
from binance_assets.ingest.download import server_time
from binance_assets.ingest.options import DownloadOptions
from binance_assets.ingest.reference import load_reference
from binance_assets.ingest.witnesses import with_witnesses
from binance_assets.model.partitions import Partition
from binance_assets.model.results import PartitionResult, Provenance
from binance_assets.model.series import Series
from binance_assets.model.timestamps import from_iso, to_date
from binance_assets.storage.lake import Lake, StoredPartition
from binance_assets.storage.metadata import entry_of


@dataclass(frozen=True, slots=True)
class Revisited:
    """What became of a stored partition in doubt.

    Attributes:
        partition: The partition.
        result: The stored candles with a verdict that may replace the stored one; None if there is nothing new.
        is_refuted: Whether the candles must be fetched again: they cannot be read, or would be refused today.
    """

    partition: Partition
    result: PartitionResult | None = None
    is_refuted: bool = False


def revisit(
    lake: Lake, exchange: Exchange, series: Series, partitions: Sequence[Partition], options: DownloadOptions
) -> Iterator[Revisited]:
    """Validate stored partitions in doubt again, with their stored candles and fresh control totals.

    Args:
        lake: The lake; it is not changed.
        exchange: The market of the series.
        series: The series.
        partitions: Stored partitions, ascending.
        options: How partitions are fetched and validated.

    Yields:
        What became of each. Nothing is yielded if the exchange cannot be reached: then nothing is known.

    Raises:
        LakeError: A file exists but may not be read, or was written by a later version.
        Cancelled: The exchange was closed.
    """
    if not partitions:
        return
    try:
        now = server_time(exchange, options.source)
        reference = load_reference(exchange, series, partitions, now, options)
    except ExchangeError:
        return
    contents = lake.read_each(series, partitions)
    for _, month in groupby(contents, key=lambda content: to_date(content.partition.start).replace(day=1)):
        readable: list[tuple[Partition, StoredPartition, pl.DataFrame]] = []
        for partition, stored, candles in month:
            if stored is None or isinstance(candles, str):
                yield Revisited(partition, is_refuted=True)
            else:
                readable.append((partition, stored, candles))
        if readable:
            candles = pl.concat([frame for _, _, frame in readable])
            members = [partition for partition, _, _ in readable]
            validated = validate_partitions(series, candles, members, reference)
            results = [
                replace(result, provenance=_provenance(stored))
                for result, (_, stored, _) in zip(validated, readable, strict=True)
            ]
            witnessed = with_witnesses(exchange, series, results, reference)
            for result, (partition, stored, _) in zip(witnessed, readable, strict=True):
                yield _revisited(partition, stored, result)


def _revisited(partition: Partition, stored: StoredPartition, result: PartitionResult) -> Revisited:
    if result.verdict in ("unproved", "unreachable"):  # there is no evidence at the moment
        return Revisited(partition)
    if not result.is_accepted:
        return Revisited(partition, is_refuted=True)
    is_news = result.verdict != stored.verdict and entry_of(result).may_replace(stored)
    return Revisited(partition, result if is_news else None)


def _provenance(stored: StoredPartition) -> Provenance:
    """Return where the stored candles came from."""
    modified = None if stored.archive_modified is None else from_iso(stored.archive_modified)
    return Provenance(stored.source, stored.archive_file, stored.archive_sha256, modified, stored.derived_from)
