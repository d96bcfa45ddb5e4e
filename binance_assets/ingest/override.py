"""The way out of a refused day for a person who knows better: it is written with its hole, and says so for ever."""

from __future__ import annotations

from dataclasses import replace

from binance_assets.exchange.session import Exchange
from binance_assets.ingest.download import download
from binance_assets.model.partitions import Period
from binance_assets.model.results import Judged
from binance_assets.model.series import Series
from binance_assets.settings import Source
from binance_assets.storage.lake import Lake, Stored


def accept(
    lake: Lake,
    exchange: Exchange,
    series: Series,
    period: Period,
    source: Source,
    strict: bool,
    who: str,
    reason: str,
) -> tuple[Judged, Stored | None]:
    """Fetch a partition once more and write it, also where candles of it are lost.

    Args:
        lake: The lake.
        exchange: The market of the series.
        series: The series.
        period: The partition.
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
    lake.prepare(exchange.origin)
    (judged,) = download(exchange, series, [period], source, strict, lake)
    if judged.acceptable:
        judged = replace(judged, accepted_by=who, accepted_because=reason)
    return judged, lake.write(series, judged) if judged.accepted else None
