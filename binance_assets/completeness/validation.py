"""Which periods of a table are to be trusted: the schema's checks, then the grid of candles that must exist, then the
exchange's own sums.

A block of many periods is validated in one call, because a Pandera call costs the same for a day as for a month;
only a block that fails is taken apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pandera.errors
import polars as pl

from binance_assets.candles.columns import empty_candles
from binance_assets.candles.schema import candle_schema, quick_schema
from binance_assets.completeness.control_totals import Totals, difference, total, totals_by_day
from binance_assets.completeness.outages import outages_within
from binance_assets.completeness.reference_data import ReferenceData, TradingSpan
from binance_assets.model.partitions import Partition, closes_at
from binance_assets.model.results import NAMED_FAILURES, REST, PartitionResult, Provenance, Verdict, format_spans
from binance_assets.model.series import Series
from binance_assets.model.timestamps import DAY, to_text


def validate_partitions(
    series: Series,
    candles: pl.DataFrame,
    partitions: Sequence[Partition],
    reference: ReferenceData,
    provenance: Provenance = REST,
) -> list[PartitionResult]:
    """Judge each of ``partitions`` by its part of ``candles``.

    Args:
        series: The series.
        candles: All candles that were answered for the periods, and perhaps others.
        partitions: The periods, ascending.
        reference: What they are held against.
        provenance: Where the candles came from.
    """
    if len(partitions) == 1:
        candles = rows_of(candles, partitions[0])
    message = schema_errors(series, candles)
    if not message:
        sums = totals_by_day(series.market, candles)
        parts = zip(partitions, _split(candles, partitions), strict=True)
        return [_validate_sound(series, part, partition, reference, provenance, sums) for partition, part in parts]
    if len(partitions) == 1:
        return [PartitionResult(partitions[0], "invalid", candles, (), message, provenance)]
    return [
        one
        for partition in partitions
        for one in validate_partitions(series, rows_of(candles, partition), [partition], reference, provenance)
    ]


def _split(candles: pl.DataFrame, partitions: Sequence[Partition]) -> Iterator[pl.DataFrame]:
    """Each period's part of a table that is sorted by open time."""
    opens = candles["open_time"].to_physical()
    firsts = opens.search_sorted(pl.Series([partition.start for partition in partitions]))
    lasts = opens.search_sorted(pl.Series([partition.end for partition in partitions]))
    for first, last in zip(firsts, lasts, strict=True):
        yield candles.slice(first, last - first)


def rows_of(candles: pl.DataFrame, partition: Partition) -> pl.DataFrame:
    """The rows of a table, in any order, that belong to the period."""
    open_time = pl.col("open_time").to_physical()
    return candles.filter((open_time >= partition.start) & (open_time < partition.end))


def schema_errors(series: Series, candles: pl.DataFrame) -> str:
    """What the schema finds wrong with the table, all at once; empty where it finds nothing."""
    if candles.is_empty():
        return ""
    try:
        quick_schema(series.market, series.interval).validate(candles, lazy=True)
        return ""
    except pandera.errors.SchemaErrors:
        pass
    try:
        candle_schema(series.market, series.interval).validate(candles, lazy=True)
    except pandera.errors.SchemaErrors as errors:
        cases = errors.failure_cases
        broken = cases.group_by("check", maintain_order=True).agg(pl.len(), pl.col("index").drop_nulls().first())
        message = [_tell(candles, *row) for row in broken.head(NAMED_FAILURES).iter_rows()]
        return "not so: " + "; ".join(message)
    return "a rule does not hold"


def _tell(candles: pl.DataFrame, check: str, count: int, row: int | None) -> str:
    where = "" if row is None else f", first at {to_text(candles['open_time'].to_physical()[row])}"
    return f"{check} ({count} rows{where})"


def outside_trading_span(series: Series, partition: Partition, trading_span: TradingSpan) -> PartitionResult | None:
    """The verdict on a period in which the series has no life, and so no candle to ask for; None for any other."""
    if trading_span.first is not None and partition.end <= trading_span.first:
        return PartitionResult(partition, "before_listing", empty_candles(series.market))
    if trading_span.end is not None and partition.start >= trading_span.end:
        return PartitionResult(partition, "delisted", empty_candles(series.market))
    return None


def _validate_sound(
    series: Series,
    candles: pl.DataFrame,
    partition: Partition,
    reference: ReferenceData,
    provenance: Provenance,
    sums: Mapping[int, Totals],
) -> PartitionResult:
    opens = candles["open_time"].to_physical()
    phase = series.interval.phase(opens[0]) if len(opens) else 0
    if closes_at(partition, series.interval, phase) > reference.now:
        return PartitionResult(partition, "unfinished", candles, (), "its last candle has not closed yet", provenance)
    outside = outside_trading_span(series, partition, reference.trading_span)
    if outside is not None and candles.is_empty():
        return outside
    expected = _expected(series, partition, phase, reference.trading_span)
    if candles.is_empty() and _no_candle_opens(series, partition, expected, reference.trading_span):
        return PartitionResult(partition, "delisted", candles)
    missing = missing_spans(series, opens, expected)
    traded = total(sums, partition.start, partition.end)
    verdict, reason = _verdict(series, traded, partition, expected, missing, reference)
    return PartitionResult(partition, verdict, candles, missing, reason, provenance, reference.strict)


def _expected(series: Series, partition: Partition, phase: int, trading_span: TradingSpan) -> Sequence[int]:
    """The open times that the period must have, ms UTC."""
    times = series.interval.open_times(partition.start, partition.end, phase)
    if _begins_in(trading_span, partition) or _ends_in(trading_span, partition):
        first, end = trading_span.first or 0, trading_span.end or partition.end
        return [time for time in times if first <= time < end]
    return times


def _no_candle_opens(series: Series, partition: Partition, expected: Sequence[int], trading_span: TradingSpan) -> bool:
    """Whether trading ended within the candle that opened before the period and reaches into it."""
    if not series.interval.is_multi_day or not _ends_in(trading_span, partition) or trading_span.end is None:
        return False
    # Of 3d nobody knows where candles would open; but the one that was open lasts for less than a candle more.
    return not expected or (
        series.interval.has_symbol_phase and trading_span.end < partition.start + series.interval.step
    )


def _begins_in(trading_span: TradingSpan, partition: Partition) -> bool:
    return trading_span.first is not None and partition.start < trading_span.first


def _ends_in(trading_span: TradingSpan, partition: Partition) -> bool:
    return trading_span.end is not None and trading_span.end < partition.end


def _verdict(
    series: Series,
    traded: Totals,
    partition: Partition,
    expected: Sequence[int],
    missing: Sequence[tuple[int, int]],
    reference: ReferenceData,
) -> tuple[Verdict, str]:
    """The verdict on a period that is over and whose candles are sane, and its reason."""
    hole = f"no candles for {format_spans(missing)}" if missing else ""
    if series.interval.step == DAY:  # these are the books: the grid is their proof
        return ("lost", hole) if missing else (_whole(partition, reference.trading_span), "")
    start, end = (expected[0], series.interval.close(expected[-1])) if expected else (partition.start, partition.end)
    end = min(end, reference.trading_span.end or end)
    starts_here = (
        reference.trading_span.first is not None and partition.start <= reference.trading_span.first < partition.end
    )
    record = reference.control_totals.sums(start // DAY * DAY, -(-end // DAY) * DAY, starts_here)
    if record is None:
        return _unproved(hole, reference)
    differs = difference(series.market, traded, record)
    if not missing and not differs:
        return _whole(partition, reference.trading_span), ""
    if not missing:
        return "unbalanced", f"every candle is there, but the 1d candle says otherwise: {differs}"
    if differs:
        return "lost", f"{hole}, and trades with them: {differs}"
    doubt = _edge_in_doubt(partition, missing, reference)
    if doubt is not None:
        return doubt
    names = ", ".join(outage.name for outage in outages_within(series.market, missing))
    return "outage", f"{hole}, and nothing was traded" + (f" ({names})" if names else "")


def _edge_in_doubt(
    partition: Partition, missing: Sequence[tuple[int, int]], reference: ReferenceData
) -> tuple[Verdict, str] | None:
    """The verdict on holes of which one lies at an edge of the period, where the sums prove nothing; else None.

    Sums that stop growing at the moment from which candles are missing agree with them, whatever was traded: the day
    may not be served to its end yet. And before a first candle there is nothing to miss.
    """
    control_totals, trading_span = reference.control_totals, reference.trading_span
    if (
        missing[-1][1] >= partition.end
        and trading_span.end is None
        and not control_totals.continues_after(partition.end)
    ):
        return "unfinished", f"no candles for {format_spans(missing[-1:])}, and nothing shows yet that trading went on"
    if missing[0][0] <= partition.start and trading_span.unknown and not control_totals.has(partition.start - DAY):
        hole = f"no candles for {format_spans(missing[:1])}"
        return "unreachable", f"{hole}, and its first candle is unknown: {trading_span.unknown}"
    return None


def _whole(partition: Partition, trading_span: TradingSpan) -> Verdict:
    if _begins_in(trading_span, partition):
        return "listing"
    return "delisted" if _ends_in(trading_span, partition) else "complete"


def _unproved(hole: str, reference: ReferenceData) -> tuple[Verdict, str]:
    """The verdict where the exchange has no sums to hold the candles against."""
    if not hole:
        return "unproved", reference.control_totals_error or "there is no 1d candle to hold its sums against"
    if reference.trading_span.unknown:
        return "unreachable", f"{hole}, and its first candle is unknown: {reference.trading_span.unknown}"
    if reference.control_totals_error:
        return (
            "unreachable",
            f"{hole}; what could prove that nothing was traded cannot be had: {reference.control_totals_error}",
        )
    return "lost", f"{hole}, and there is no 1d candle that could prove that nothing was traded"


def missing_spans(series: Series, opens: pl.Series, expected: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Where there is no candle although one is expected.

    Args:
        series: The series.
        opens: Open times of the candles that exist, ms UTC, on the grid.
        expected: Open times that a gapless series has, ms UTC, ascending.

    Returns:
        Half-open ``(start, end)`` in ms UTC, ascending, as few as possible.
    """
    if len(expected) == len(opens) and (not expected or (expected[0], expected[-1]) == (opens[0], opens[-1])):
        return ()
    there = set(opens)
    holes: list[tuple[int, int]] = []
    for time in expected:
        if time in there:
            continue
        if holes and holes[-1][1] == time:
            holes[-1] = (holes[-1][0], series.interval.close(time))
        else:
            holes.append((time, series.interval.close(time)))
    return tuple(holes)
