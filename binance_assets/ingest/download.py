"""From periods to judged tables: plan, fetch, assemble, validate, prove. Knows no files and no Dagster.

exchange = Exchange(SPOT, read_settings(os.environ))
series = parse_series("spot/BTCUSDT/1m")
for day in download(exchange, series, periods_between(date(2024, 1, 1), date(2024, 2, 1), series.interval)):
    print(day.period, day.verdict, day.candles.height)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from binance_assets.candles.columns import empty_candles
from binance_assets.exchange.errors import Cancelled, ExchangeError
from binance_assets.exchange.session import Exchange
from binance_assets.ingest.reference import ListingCache, load_reference
from binance_assets.ingest.sources import SourceTask, finished_results, unavailable
from binance_assets.model.partitions import Partition, closes_at
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import Series
from binance_assets.settings import Source

SAFETY_MS: Final = 2_000


"""A candle counts as finished this long after its close, ms: the exchange may still be writing it."""


_CHUNK_ROWS: Final = 600_000


def download(
    exchange: Exchange,
    series: Series,
    partitions: Sequence[Partition],
    source: Source = "rest",
    strict: bool = False,
    listing_cache: ListingCache | None = None,
) -> Iterator[PartitionResult]:
    """Fetch, judge and prove ``partitions``, each exactly once.

    What cannot be had is refused with its reason, it never raises; the other periods go on. Memory is bounded by
    what is fetched ahead and one block of about 45,000 candles, however long the range. Of each year of 1m (or as
    many candles) first come days without a life, then those that one source settles, in order, then those that needed
    another; what is not over comes last.

    Args:
        exchange: The market of the series.
        series: What to fetch.
        partitions: Ascending, without duplicates; they need not be contiguous.
        source: ``rest``, ``archive``, or ``auto`` for the archive where that takes fewer requests. Whichever it is, the
            other one is asked before a period counts as lost.
        strict: Whether to refuse periods whose sums differ from the exchange's own.
        listing_cache: Where the first candles of series are remembered.

    Yields:
        A verdict for each period; accepted ones carry a table with the columns of
        :func:`binance_assets.candles.schema.columns`.

    Raises:
        Cancelled: The exchange was closed meanwhile.
    """
    try:
        now = _now(exchange, source)
        finished = [partition for partition in partitions if closes_at(partition, series.interval) <= now]
        reference = load_reference(exchange, series, finished, now, strict, listing_cache, archived=source != "rest")
    except ExchangeError as error:
        yield from (unavailable(series, partition, error) for partition in partitions)
        return
    for chunk in _chunks(series, finished):
        for result in finished_results(SourceTask(exchange, series, reference), chunk, source):
            if exchange.closed:
                raise Cancelled
            yield result
    for partition in partitions[len(finished) :]:
        yield PartitionResult(partition, "unfinished", empty_candles(series.market), (), "it is not over yet")


def _chunks(series: Series, partitions: Sequence[Partition]) -> Iterator[Sequence[Partition]]:
    """The periods by about a year of 1m: doubtful tables are kept to the end of their chunk."""
    if not partitions:
        return
    rows = max(1, (partitions[0].end - partitions[0].start) // series.interval.step)
    size = max(1, _CHUNK_ROWS // rows)
    for first in range(0, len(partitions), size):
        yield partitions[first : first + size]


def _now(exchange: Exchange, source: Source) -> int:
    """The time at which candles count as finished, ms UTC; the archive has one too, where the API serves nobody."""
    try:
        return exchange.now() - SAFETY_MS
    except ExchangeError:
        if source == "rest":
            raise
        return exchange.archive.now() - SAFETY_MS
