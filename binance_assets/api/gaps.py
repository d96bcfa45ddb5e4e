"""Gaps: the candles that accepted partitions lack, and what a reader gets in their place.

A gap is what the metadata of the lake names: an outage of the exchange, candles that a person accepted as lost, and
the days of a suspension. The time before the first candle of a symbol and after its last one is no gap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import polars as pl

from binance_assets.candles.columns import PRICES, TIME, columns
from binance_assets.model.intervals import Interval
from binance_assets.model.markets import Market
from binance_assets.model.partitions import Partition
from binance_assets.model.results import format_spans
from binance_assets.model.series import Series
from binance_assets.model.timestamps import from_iso
from binance_assets.storage.lake import LakeError, StoredPartition

Missing = Literal["keep", "null", "flat", "raise"]
"""What becomes of gaps: they stay absent, become rows of nulls, become flat candles, or are an error."""

Span = tuple[int, int]
"""A half-open range of time, ms UTC."""


class MissingCandles(LakeError):
    """The exchange has no candles for some spans, and the reader asked for an error.

    Attributes:
        series: The series.
        spans: The spans, half-open, ms UTC, ascending.
    """

    def __init__(self, series: Series, spans: list[Span]) -> None:
        super().__init__(
            f"{series} has no candles for {format_spans(spans)}; missing='keep', 'null', or 'flat' goes on"
        )
        self.series = series
        self.spans = spans


def gaps_of(stored: Mapping[Partition, StoredPartition]) -> list[Span]:
    """Return the gaps of partitions (ascending), ascending; those that touch each other are one."""
    spans: list[Span] = []
    for partition, entry in stored.items():
        for start, end in _gaps_in(partition, entry):
            if spans and spans[-1][1] == start:
                spans[-1] = (spans[-1][0], end)
            else:
                spans.append((start, end))
    return spans


def _gaps_in(partition: Partition, entry: StoredPartition) -> list[Span]:
    if entry.verdict == "suspended" and not entry.rows:
        return [(partition.start, partition.end)]
    return [(from_iso(start), from_iso(end)) for start, end in entry.missing]


def clipped(spans: Iterable[Span], start: int | None, end: int | None) -> list[Span]:
    """Return the parts of spans that are in ``[start, end)``; None for no bound."""
    parts = (
        (first if start is None else max(first, start), last if end is None else min(last, end))
        for first, last in spans
    )
    return [(first, last) for first, last in parts if first < last]


def coarse_gaps(gaps: Iterable[Span], interval: Interval) -> list[Span]:
    """Return the parts of gaps that are whole candles of a coarser ``interval`` of at most a day."""
    step = interval.step
    parts = ((-(-start // step) * step, end // step * step) for start, end in gaps)
    return [(start, end) for start, end in parts if start < end]


def with_null_rows(
    table: pl.LazyFrame, market: Market, gaps: list[Span], interval: Interval, phase: int
) -> pl.LazyFrame:
    """Return candles and, for each candle of ``interval`` that opens in a gap, a row with nothing but its open time.

    Args:
        table: The candles, sorted by open time.
        market: Their market.
        gaps: The gaps, ascending, in which no candle of the table opens.
        interval: The interval of the candles.
        phase: The phase of the symbol's ``3d`` candles, ms; 0 for any other interval.
    """
    rows = _open_times(gaps, interval, phase)
    if rows is None:
        return table
    types = columns(market)
    empty = rows.select(
        pl.col(name) if name == "open_time" else pl.lit(None, types[name]).alias(name) for name in types
    )
    return table.merge_sorted(empty, key="open_time")


def _open_times(gaps: list[Span], interval: Interval, phase: int) -> pl.LazyFrame | None:
    """Return a lazy column ``open_time`` of the candles in the gaps, so that years of 1s are not in memory at once."""
    if interval.is_month:  # its candles differ in length
        opens = [time for span in gaps for time in interval.open_times(*span)]
        times = pl.LazyFrame({"open_time": opens}, schema={"open_time": pl.Int64})
    else:
        grids = ((interval.open_times(start, end, phase), end) for start, end in gaps)
        spans = [(grid[0], end) for grid, end in grids if len(grid)]
        if not spans:
            return None
        table = pl.LazyFrame(spans, schema={"first": pl.Int64, "end": pl.Int64}, orient="row")
        times = table.select(pl.int_ranges("first", "end", interval.step).alias("open_time")).explode("open_time")
    return times.select(pl.col("open_time").cast(TIME))


def with_flat_candles(table: pl.LazyFrame, market: Market, interval: Interval, before: float | None) -> pl.LazyFrame:
    """Return rows of nulls as candles without trades at the last close; the column ``is_filled`` marks them.

    A row before the first close is left out: there is no price to repeat.

    Args:
        table: Candles, and rows with nothing but an open time, sorted.
        market: Their market.
        interval: Their interval.
        before: The last close before the first row; None if unknown.
    """
    last_close = pl.col("close").forward_fill()
    if before is not None:
        last_close = last_close.fill_null(before)
    following = pl.col("open_time").dt.offset_by("1mo" if interval.is_month else f"{interval.step}ms")
    amounts = [name for name in columns(market) if name not in ("open_time", "close_time", *PRICES)]
    return (
        table.with_columns(is_filled=pl.col("close").is_null(), last_close=last_close)
        .filter(pl.col("last_close").is_not_null())
        .with_columns(
            *(pl.col(price).fill_null(pl.col("last_close")) for price in PRICES),
            pl.col("close_time").fill_null(following - pl.duration(milliseconds=1, time_unit="ms")),
            *(pl.col(name).fill_null(0) for name in amounts),
        )
        .drop("last_close")
    )
