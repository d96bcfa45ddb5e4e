"""The validation of partitions: first the schema, then the grid of candles that must exist, then the control totals.

Many partitions are validated in one block, because a Pandera call costs the same for a day as for a month. Only a block
that fails is validated partition by partition.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import polars as pl

from binance_assets.candles.columns import empty_candles
from binance_assets.candles.schema import candle_schema, follows_schema
from binance_assets.completeness.control_totals import (
    Totals,
    any_discrepancy,
    combine,
    discrepancy,
    price_discrepancy,
    totals_by_day,
)
from binance_assets.completeness.outages import explains_short_candle, outages_within, unnamed_spans
from binance_assets.completeness.reference_data import ReferenceData, TradingSpan
from binance_assets.model.markets import COINM
from binance_assets.model.partitions import Partition, closes_at
from binance_assets.model.results import REST, UNNAMED_OUTAGE, PartitionResult, Provenance, Verdict, format_spans
from binance_assets.model.series import Series
from binance_assets.model.timestamps import DAY, to_text
from binance_assets.model.wording import name_some

_NAMED_RULES: Final = 5


def validate_partitions(
    series: Series,
    candles: pl.DataFrame,
    partitions: Sequence[Partition],
    reference: ReferenceData,
    provenance: Provenance = REST,
) -> list[PartitionResult]:
    """Validate each of ``partitions``, using its rows of ``candles``.

    Args:
        series: The series.
        candles: All candles that were received for the partitions, with the columns of
            :func:`binance_assets.candles.columns.columns`; may hold candles of other partitions.
        partitions: The partitions, ascending.
        reference: What they are validated against.
        provenance: Where the candles came from.

    Returns:
        A result for each partition, in their order.
    """
    if len(partitions) == 1:
        candles = _partition_rows(candles, partitions[0])
    errors = schema_errors(series, candles)
    if errors is None:
        totals, short = totals_by_day(series.market, candles), _short_candles(series, candles)
        return [
            _validate_part(
                series,
                part,
                partition,
                reference,
                provenance,
                totals,
                [time for time in short if partition.start <= time < partition.end],
            )
            for partition, part in zip(partitions, _split(candles, partitions), strict=True)
        ]
    if len(partitions) == 1:
        return [PartitionResult(partitions[0], "invalid", candles, (), errors, provenance)]
    return [
        result
        for partition in partitions
        for result in validate_partitions(series, candles, [partition], reference, provenance)
    ]


def _split(candles: pl.DataFrame, partitions: Sequence[Partition]) -> Iterator[pl.DataFrame]:
    """Yield the rows of each partition, from a table that is sorted by open time."""
    opens = candles["open_time"].to_physical()
    starts = opens.search_sorted(pl.Series([partition.start for partition in partitions]))
    ends = opens.search_sorted(pl.Series([partition.end for partition in partitions]))
    for start, end in zip(starts, ends, strict=True):
        yield candles.slice(start, end - start)


def _partition_rows(candles: pl.DataFrame, partition: Partition) -> pl.DataFrame:
    """Return the rows of one partition, from a table in any order."""
    open_time = pl.col("open_time").to_physical()
    return candles.filter((open_time >= partition.start) & (open_time < partition.end))


def schema_errors(series: Series, candles: pl.DataFrame) -> str | None:
    """Return which rules of the schema the table breaks, in one line; None if it breaks none."""
    if candles.is_empty():
        return None
    contract_size = series.market.contract_size(series.symbol)
    if follows_schema(candles, series.market, series.interval, contract_size):
        return None
    import pandera.errors  # only a broken table needs it

    try:
        candle_schema(series.market, series.interval, contract_size).validate(candles, lazy=True)
    except pandera.errors.SchemaErrors as errors:
        cases = errors.failure_cases
        broken = cases.group_by("check", maintain_order=True).agg(pl.len(), pl.col("index").drop_nulls().first())
        messages = [_broken_rule(candles, *row) for row in broken.iter_rows()]
        return "broken rules: " + name_some(messages, _NAMED_RULES, separator="; ")
    return "broken rules, but the schema does not say which"


def _broken_rule(candles: pl.DataFrame, rule: str, count: int, row: int | None) -> str:
    where = "" if row is None else f", first at {to_text(candles['open_time'].to_physical()[row])}"
    return f"{rule} ({count} rows{where})"


def outside_trading_span(series: Series, partition: Partition, trading_span: TradingSpan) -> PartitionResult | None:
    """Return the result of a partition in which the series was not traded, so that there is nothing to fetch.

    Returns:
        A result ``before_listing`` or ``delisted`` without candles; None if the series was traded in the partition.
    """
    if trading_span.first is not None and partition.end <= trading_span.first:
        return PartitionResult(partition, "before_listing", empty_candles(series.market))
    if trading_span.end is not None and partition.start >= trading_span.end:
        return PartitionResult(partition, "delisted", empty_candles(series.market))
    return None


def suspended_result(
    series: Series, partition: Partition, reference: ReferenceData, with_last_candle: bool = False
) -> PartitionResult | None:
    """Return the result ``suspended`` of a partition throughout which trading was suspended; None if it was not.

    Args:
        series: The series.
        partition: The partition.
        reference: The reference data.
        with_last_candle: Whether trading must have been suspended until the last candle closed that could open in the
            partition. Then no candle exists, so that none has to be fetched.
    """
    reach = series.interval.step - DAY if series.interval.is_multi_day and not series.interval.is_month else 0
    last_end = partition.end + (reach if with_last_candle else 0)
    if not reference.is_suspended(Partition(partition.start, last_end)):
        return None
    reason = "no source has a candle of it, and the symbol was traded before and after"
    return PartitionResult(partition, "suspended", empty_candles(series.market), (), reason)


def _validate_part(
    series: Series,
    candles: pl.DataFrame,
    partition: Partition,
    reference: ReferenceData,
    provenance: Provenance,
    totals: Mapping[int, Totals],
    short: Sequence[int],
) -> PartitionResult:
    """Validate the candles of one partition, which follow the schema, against the grid and the control totals.

    ``short`` are the open times of its candles that do not close at their end.
    """
    opens = candles["open_time"].to_physical()
    phase = series.interval.phase(opens[0]) if len(opens) else 0
    if closes_at(partition, series.interval, phase) > reference.now:
        return PartitionResult(partition, "unfinished", candles, (), "its last candle has not closed yet", provenance)
    outside = outside_trading_span(series, partition, reference.trading_span)
    if outside is not None and candles.is_empty():
        return outside
    suspended = suspended_result(series, partition, reference)  # the candles show that none reaches beyond it
    if suspended is not None and candles.is_empty():
        return suspended
    expected = _expected_open_times(series, partition, phase, reference.trading_span)
    if candles.is_empty() and _ended_in_earlier_candle(series, partition, expected, reference.trading_span):
        return PartitionResult(partition, "delisted", candles)
    missing = missing_spans(series, opens, expected)
    if short and (unexplained := _unexplained(series, short, missing, reference.trading_span)):
        reason = (
            f"close_time is not the end of the candle ({len(unexplained)} rows, first at {to_text(unexplained[0])})"
        )
        return PartitionResult(partition, "invalid", candles, (), f"broken rules: {reason}", provenance)
    traded = combine(totals, partition.start, partition.end)
    verdict, reason = _verdict(series, traded, partition, expected, missing, reference)
    return PartitionResult(partition, verdict, candles, missing, reason, provenance, reference.strict)


def _expected_open_times(series: Series, partition: Partition, phase: int, trading_span: TradingSpan) -> Sequence[int]:
    """Return the open times that the partition must have, ms UTC, ascending."""
    times = series.interval.open_times(partition.start, partition.end, phase)
    if _begins_in(trading_span, partition) or _ends_in(trading_span, partition):
        first, end = trading_span.first or 0, trading_span.end or partition.end
        return [time for time in times if first <= time < end]
    return times


def _ended_in_earlier_candle(
    series: Series, partition: Partition, expected: Sequence[int], trading_span: TradingSpan
) -> bool:
    """Return whether trading ended within the candle that opened before the partition and reaches into it."""
    if not series.interval.is_multi_day or not _ends_in(trading_span, partition) or trading_span.end is None:
        return False
    # Without candles the phase of 3d is unknown, but a candle from before the partition ends less than a step into it.
    return not expected or (
        series.interval.has_symbol_phase and trading_span.end < partition.start + series.interval.step
    )


def _begins_in(trading_span: TradingSpan, partition: Partition) -> bool:
    """Return whether the first candle opens after the partition begins."""
    return trading_span.first is not None and partition.start < trading_span.first


def _ends_in(trading_span: TradingSpan, partition: Partition) -> bool:
    """Return whether trading ends before the partition does."""
    return trading_span.end is not None and trading_span.end < partition.end


def _verdict(
    series: Series,
    traded: Totals,
    partition: Partition,
    expected: Sequence[int],
    missing: Sequence[tuple[int, int]],
    reference: ReferenceData,
) -> tuple[Verdict, str]:
    """Return verdict and reason for a finished partition whose candles follow the schema."""
    gaps = f"no candles for {format_spans(missing)}" if missing else ""
    control = _control_for(series, partition, expected, reference)
    if series.interval.step == DAY:
        return _daily_verdict(series, traded, partition, gaps, control, reference)
    if control is None:
        return _without_control_totals(gaps, partition, reference)
    difference, price_difference = discrepancy(series.market, traded, control), price_discrepancy(traded, control)
    note = f"the prices differ from those of the 1d candle: {price_difference}" if price_difference else ""
    # No COIN-M days are recorded in two intervals, so nothing shows yet that the prices agree there.
    is_refused = price_difference is not None and series.market is not COINM
    if not missing and difference is None and not is_refused:
        return _whole(partition, reference.trading_span), note
    if not missing and difference is None:
        return "unbalanced", f"no candle is missing, but {note}"
    if not missing:
        return "unbalanced", f"no candle is missing, but the totals differ from the 1d candle: {difference}"
    if difference is not None:
        return "lost", f"{gaps}, and their trades are missing: {difference}"
    if is_refused:
        return "unbalanced", f"{gaps}, and nothing was traded, but {note}"
    unproved_edge = _unproved_edge(partition, missing, reference)
    if unproved_edge is not None:
        return unproved_edge
    return "outage", f"{gaps}, and nothing was traded{_explanation(series, missing, reference)}"


def _explanation(series: Series, missing: Sequence[tuple[int, int]], reference: ReferenceData) -> str:
    """Return what is known about gaps in which nothing was traded, as the end of a sentence."""
    names = [outage.name for outage in outages_within(series.market, missing)]
    suspended = reference.control_totals.suspended
    unnamed = unnamed_spans(series.market, missing, suspended)
    if len(unnamed) < len(unnamed_spans(series.market, missing)):
        names.append("trading of the symbol was suspended")
    named = f" ({', '.join(names)})" if names else ""
    if not unnamed:
        return named
    return f"{named}; {UNNAMED_OUTAGE} {'it' if len(unnamed) == len(missing) else format_spans(unnamed)}"


def _daily_verdict(
    series: Series, traded: Totals, partition: Partition, gaps: str, control: Totals | None, reference: ReferenceData
) -> tuple[Verdict, str]:
    """Return verdict and reason for a ``1d`` candle.

    It is compared with the ``1d`` candle of the reference data, which may come from the other source. If both come from
    the same one, only the grid can prove it.
    """
    if gaps:
        return "lost", gaps
    difference = None if control is None else any_discrepancy(series.market, traded, control)
    if difference is None:
        return _whole(partition, reference.trading_span), ""
    return "unbalanced", f"it differs from the 1d candle of the other source: {difference}"


def _control_for(
    series: Series, partition: Partition, expected: Sequence[int], reference: ReferenceData
) -> Totals | None:
    """Return the control totals of the days that the expected candles cover; None if one of these days is unknown."""
    first = reference.trading_span.first
    start, end = (expected[0], series.interval.close(expected[-1])) if expected else (partition.start, partition.end)
    end = min(end, reference.trading_span.end or end)
    includes_first_trade = first is not None and partition.start <= first < partition.end
    return reference.control_totals.totals_for(start // DAY * DAY, -(-end // DAY) * DAY, includes_first_trade)


def _unproved_edge(
    partition: Partition, missing: Sequence[tuple[int, int]], reference: ReferenceData
) -> tuple[Verdict, str] | None:
    """Return verdict and reason if a gap lies at an edge of the partition and the totals cannot prove it; else None.

    At the end: the exchange may not serve the whole day yet. Then its ``1d`` candle stops growing where the candles
    stop, and the totals agree whatever was traded afterwards. At the start: nothing can be missing before the first
    candle of a series, so that candle must be known.
    """
    control_totals, trading_span = reference.control_totals, reference.trading_span
    reaches_end = missing[-1][1] >= partition.end
    traded_later = control_totals.extends_to(partition.end) or partition.end in control_totals.suspended
    if reaches_end and trading_span.end is None and not traded_later:
        gap = f"no candles for {format_spans(missing[-1:])}"
        return "unfinished", f"{gap}, and nothing shows yet that trading continued"
    reaches_start, unknown_because = missing[0][0] <= partition.start, trading_span.first_unknown_because
    if reaches_start and unknown_because is not None and not control_totals.has_day(partition.start - DAY):
        gap = f"no candles for {format_spans(missing[:1])}"
        return "unreachable", f"{gap}, and the first candle of the series is unknown: {unknown_because}"
    return None


def _short_candles(series: Series, candles: pl.DataFrame) -> list[int]:
    """Return the open times, ms UTC, of the candles that do not close at their end."""
    opens, closes = candles["open_time"].to_physical(), candles["close_time"].to_physical()
    if series.interval.is_month:
        ends = pl.Series([series.interval.close(time) for time in opens], dtype=pl.Int64)
    else:
        ends = opens + series.interval.step
    return opens.filter(closes != ends - 1).to_list()


def _unexplained(
    series: Series, short: Sequence[int], missing: Sequence[tuple[int, int]], trading_span: TradingSpan
) -> list[int]:
    """Return those of the ``short`` candles (open times, ms UTC) at which trading did not stop.

    Where trading stops, Binance cuts the last candle short, or lets it close 1 ms late (recorded spot rows of 2017 to
    2023). Then the next candles are missing, or the outage is a known one, which may begin at midnight.
    """
    stops = [start for start, _ in missing] + ([trading_span.end] if trading_span.end is not None else [])
    return [
        start
        for start, end in ((time, series.interval.close(time)) for time in short)
        if not any(start <= stop <= end for stop in stops) and not explains_short_candle(series.market, start, end)
    ]


def _whole(partition: Partition, trading_span: TradingSpan) -> Verdict:
    """Return the verdict of a partition without gaps and without a discrepancy."""
    if _begins_in(trading_span, partition):
        return "listing"
    return "delisted" if _ends_in(trading_span, partition) else "complete"


def _without_control_totals(gaps: str, partition: Partition, reference: ReferenceData) -> tuple[Verdict, str]:
    """Return verdict and reason where the exchange has no totals to compare the candles with."""
    error = reference.error_for(partition.start, partition.end)
    unknown_because = reference.trading_span.first_unknown_because
    if not gaps:
        return "unproved", error or "there is no 1d candle to compare its totals with"
    if unknown_because is not None:
        return "unreachable", f"{gaps}, and the first candle of the series is unknown: {unknown_because}"
    if error is not None:
        unavailable = "the 1d candles that could prove that nothing was traded are not available"
        return "unreachable", f"{gaps}; {unavailable}: {error}"
    return "lost", f"{gaps}, and there is no 1d candle that could prove that nothing was traded"


def missing_spans(series: Series, opens: pl.Series, expected: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return the spans in which expected candles do not exist.

    Args:
        series: The series.
        opens: Open times of the candles that exist, ms UTC, on the grid.
        expected: Open times that a series without gaps has, ms UTC, ascending.

    Returns:
        Half-open ``(start, end)`` in ms UTC, ascending, adjacent candles merged into one span.
    """
    if len(expected) == len(opens) and (not expected or (expected[0], expected[-1]) == (opens[0], opens[-1])):
        return ()
    existing = set(opens)
    spans: list[tuple[int, int]] = []
    for time in expected:
        if time in existing:
            continue
        if spans and spans[-1][1] == time:
            spans[-1] = (spans[-1][0], series.interval.close(time))
        else:
            spans.append((time, series.interval.close(time)))
    return tuple(spans)
