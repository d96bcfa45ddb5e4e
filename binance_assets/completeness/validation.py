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
from binance_assets.completeness.control_totals import Sums, difference, sums_by_day, total
from binance_assets.completeness.outages import outages_within
from binance_assets.completeness.reference_data import Evidence, Life
from binance_assets.model.partitions import Period, over_at
from binance_assets.model.results import _NAMED_FAILURES, REST, Judged, Origin, Verdict, tell_spans
from binance_assets.model.series import Series
from binance_assets.model.timestamps import DAY, to_text


def judge(
    series: Series, candles: pl.DataFrame, periods: Sequence[Period], evidence: Evidence, origin: Origin = REST
) -> list[Judged]:
    """Judge each of ``periods`` by its part of ``candles``.

    Args:
        series: The series.
        candles: All candles that were answered for the periods, and perhaps others.
        periods: The periods, ascending.
        evidence: What they are held against.
        origin: Where the candles came from.
    """
    if len(periods) == 1:
        candles = rows_of(candles, periods[0])
    complaint = complaint_about(series, candles)
    if not complaint:
        sums = sums_by_day(series.market, candles)
        parts = zip(periods, _split(candles, periods), strict=True)
        return [_judge_sound(series, part, period, evidence, origin, sums) for period, part in parts]
    if len(periods) == 1:
        return [Judged(periods[0], "invalid", candles, (), complaint, origin)]
    return [one for period in periods for one in judge(series, rows_of(candles, period), [period], evidence, origin)]


def _split(candles: pl.DataFrame, periods: Sequence[Period]) -> Iterator[pl.DataFrame]:
    """Each period's part of a table that is sorted by open time."""
    opens = candles["open_time"].to_physical()
    firsts = opens.search_sorted(pl.Series([period.start for period in periods]))
    lasts = opens.search_sorted(pl.Series([period.end for period in periods]))
    for first, last in zip(firsts, lasts, strict=True):
        yield candles.slice(first, last - first)


def rows_of(candles: pl.DataFrame, period: Period) -> pl.DataFrame:
    """The rows of a table, in any order, that belong to the period."""
    open_time = pl.col("open_time").to_physical()
    return candles.filter((open_time >= period.start) & (open_time < period.end))


def complaint_about(series: Series, candles: pl.DataFrame) -> str:
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
        told = [_tell(candles, *row) for row in broken.head(_NAMED_FAILURES).iter_rows()]
        return "not so: " + "; ".join(told)
    return "a rule does not hold"


def _tell(candles: pl.DataFrame, check: str, count: int, row: int | None) -> str:
    where = "" if row is None else f", first at {to_text(candles['open_time'].to_physical()[row])}"
    return f"{check} ({count} rows{where})"


def outside_life(series: Series, period: Period, life: Life) -> Judged | None:
    """The verdict on a period in which the series has no life, and so no candle to ask for; None for any other."""
    if life.first is not None and period.end <= life.first:
        return Judged(period, "before_listing", empty_candles(series.market))
    if life.end is not None and period.start >= life.end:
        return Judged(period, "delisted", empty_candles(series.market))
    return None


def _judge_sound(
    series: Series, candles: pl.DataFrame, period: Period, evidence: Evidence, origin: Origin, sums: Mapping[int, Sums]
) -> Judged:
    opens = candles["open_time"].to_physical()
    phase = series.interval.phase(opens[0]) if len(opens) else 0
    if over_at(period, series.interval, phase) > evidence.now:
        return Judged(period, "unfinished", candles, (), "its last candle has not closed yet", origin)
    outside = outside_life(series, period, evidence.life)
    if outside is not None and candles.is_empty():
        return outside
    expected = _expected(series, period, phase, evidence.life)
    if candles.is_empty() and _no_candle_opens(series, period, expected, evidence.life):
        return Judged(period, "delisted", candles)
    missing = missing_spans(series, opens, expected)
    traded = total(sums, period.start, period.end)
    verdict, reason = _verdict(series, traded, period, expected, missing, evidence)
    return Judged(period, verdict, candles, missing, reason, origin, evidence.strict)


def _expected(series: Series, period: Period, phase: int, life: Life) -> Sequence[int]:
    """The open times that the period must have, ms UTC."""
    times = series.interval.open_times(period.start, period.end, phase)
    if _begins_in(life, period) or _ends_in(life, period):
        first, end = life.first or 0, life.end or period.end
        return [time for time in times if first <= time < end]
    return times


def _no_candle_opens(series: Series, period: Period, expected: Sequence[int], life: Life) -> bool:
    """Whether trading ended within the candle that opened before the period and reaches into it."""
    if not series.interval.is_coarse or not _ends_in(life, period) or life.end is None:
        return False
    # Of 3d nobody knows where candles would open; but the one that was open lasts for less than a candle more.
    return not expected or (series.interval.has_own_phase and life.end < period.start + series.interval.step)


def _begins_in(life: Life, period: Period) -> bool:
    return life.first is not None and period.start < life.first


def _ends_in(life: Life, period: Period) -> bool:
    return life.end is not None and life.end < period.end


def _verdict(
    series: Series,
    traded: Sums,
    period: Period,
    expected: Sequence[int],
    missing: Sequence[tuple[int, int]],
    evidence: Evidence,
) -> tuple[Verdict, str]:
    """The verdict on a period that is over and whose candles are sane, and its reason."""
    hole = f"no candles for {tell_spans(missing)}" if missing else ""
    if series.interval.step == DAY:  # these are the books: the grid is their proof
        return ("lost", hole) if missing else (_whole(period, evidence.life), "")
    start, end = (expected[0], series.interval.close(expected[-1])) if expected else (period.start, period.end)
    end = min(end, evidence.life.end or end)
    begins = evidence.life.first is not None and period.start <= evidence.life.first < period.end
    record = evidence.books.sums(start // DAY * DAY, -(-end // DAY) * DAY, begins)
    if record is None:
        return _unproved(hole, evidence)
    differs = difference(series.market, traded, record)
    if not missing and not differs:
        return _whole(period, evidence.life), ""
    if not missing:
        return "unbalanced", f"every candle is there, but the 1d candle says otherwise: {differs}"
    if differs:
        return "lost", f"{hole}, and trades with them: {differs}"
    doubt = _edge_in_doubt(period, missing, evidence)
    if doubt is not None:
        return doubt
    names = ", ".join(outage.name for outage in outages_within(series.market, missing))
    return "outage", f"{hole}, and nothing was traded" + (f" ({names})" if names else "")


def _edge_in_doubt(
    period: Period, missing: Sequence[tuple[int, int]], evidence: Evidence
) -> tuple[Verdict, str] | None:
    """The verdict on holes of which one lies at an edge of the period, where the sums prove nothing; else None.

    Sums that stop growing at the moment from which candles are missing agree with them, whatever was traded: the day
    may not be served to its end yet. And before a first candle there is nothing to miss.
    """
    books, life = evidence.books, evidence.life
    if missing[-1][1] >= period.end and life.end is None and not books.goes_on_after(period.end):
        return "unfinished", f"no candles for {tell_spans(missing[-1:])}, and nothing shows yet that trading went on"
    if missing[0][0] <= period.start and life.unknown and not books.has(period.start - DAY):
        hole = f"no candles for {tell_spans(missing[:1])}"
        return "unreachable", f"{hole}, and its first candle is unknown: {life.unknown}"
    return None


def _whole(period: Period, life: Life) -> Verdict:
    if _begins_in(life, period):
        return "listing"
    return "delisted" if _ends_in(life, period) else "complete"


def _unproved(hole: str, evidence: Evidence) -> tuple[Verdict, str]:
    """The verdict where the exchange has no sums to hold the candles against."""
    if not hole:
        return "unproved", evidence.no_books or "there is no 1d candle to hold its sums against"
    if evidence.life.unknown:
        return "unreachable", f"{hole}, and its first candle is unknown: {evidence.life.unknown}"
    if evidence.no_books:
        return "unreachable", f"{hole}; what could prove that nothing was traded cannot be had: {evidence.no_books}"
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
