"""The entry point of a download: from partitions to validated results. Knows no files and no Dagster.

Example::

    exchange = Exchange(SPOT, read_settings(os.environ))
    series = parse_series("spot/BTCUSDT/1m")
    partitions = partitions_between(date(2024, 1, 1), date(2024, 2, 1), series.interval)
    for result in download(exchange, series, partitions, DownloadOptions(source="auto")):
        print(result.partition, result.verdict, result.candles.height)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from binance_assets.candles.columns import empty_candles
from binance_assets.exchange.errors import Cancelled, ExchangeError
from binance_assets.exchange.session import Exchange
from binance_assets.ingest.blocks import start_early
from binance_assets.ingest.options import DEFAULT_OPTIONS, DownloadOptions
from binance_assets.ingest.reference import load_reference
from binance_assets.ingest.sources import SourceTask, fetch_finished, start_files_early, unavailable
from binance_assets.model.partitions import Partition, closes_at
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import Series
from binance_assets.settings import Source

SAFETY_MS: Final = 2_000
"""How long after its close a candle counts as finished, ms: the exchange may still be writing it."""

# About a year of 1m. Tables that are not conclusive are held until the end of their chunk.
_CHUNK_ROWS: Final = 600_000


def download(
    exchange: Exchange,
    series: Series,
    partitions: Sequence[Partition],
    options: DownloadOptions = DEFAULT_OPTIONS,
) -> Iterator[PartitionResult]:
    """Fetch and validate ``partitions``, and yield a result for each, exactly once.

    The first pages or files of a long range are requested together with its reference data.

    A partition that cannot be fetched is refused with the reason; it raises nothing, and the others go on. Memory is
    bounded by the pages fetched ahead and one block of about 45,000 candles, however long the range is. Within each
    year of 1m (or as many candles), the results come in this order: partitions outside the trading span; those that one
    source settles, by time; those that needed another source. Unfinished partitions come last.

    Args:
        exchange: The market of the series.
        series: What to fetch.
        partitions: Ascending, without duplicates; they need not be contiguous.
        options: How they are fetched and validated.

    Yields:
        The result of each partition. Accepted ones carry a table with the columns of
        :func:`binance_assets.candles.columns.columns`.

    Raises:
        Cancelled: The exchange was closed.
        ConfigurationError: The ledger or the listing cache cannot be used.
    """
    try:
        now = server_time(exchange, options.source)
        finished = [partition for partition in partitions if closes_at(partition, series.interval) <= now]
        first = next(_chunks(series, finished), ())
        if options.source == "rest":
            start_early(exchange, series, first)
        started = start_files_early(exchange, series, first, options.source, now)
        reference = load_reference(exchange, series, finished, now, options)
    except ExchangeError as error:
        yield from (unavailable(series, partition, error) for partition in partitions)
        return
    for chunk in _chunks(series, finished):
        for result in fetch_finished(SourceTask(exchange, series, reference, started), chunk, options.source):
            # What was validated from candles that had arrived is kept; anything else may be cut short.
            if exchange.closed and result.verdict != "complete":
                raise Cancelled
            yield result
    for partition in partitions[len(finished) :]:
        yield PartitionResult(partition, "unfinished", empty_candles(series.market), (), "it is not finished yet")


def _chunks(series: Series, partitions: Sequence[Partition]) -> Iterator[Sequence[Partition]]:
    """Split partitions into chunks of about :data:`_CHUNK_ROWS` candles."""
    if not partitions:
        return
    rows = max(1, (partitions[0].end - partitions[0].start) // series.interval.step)
    size = max(1, _CHUNK_ROWS // rows)
    for first in range(0, len(partitions), size):
        yield partitions[first : first + size]


def server_time(exchange: Exchange, source: Source) -> int:
    """Return the time before which a candle must have closed to count as finished, ms UTC.

    The archive's clock is used if the API does not serve this location.
    """
    try:
        return exchange.now() - SAFETY_MS
    except ExchangeError:
        if source == "rest":
            raise
        return exchange.archive.now() - SAFETY_MS
