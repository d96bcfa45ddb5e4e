"""Which periods of a table are to be trusted: the schema's checks, then the grid of candles that must exist.

A block of many periods is validated in one call, because a Pandera call costs the same for a day as for a month;
only a block that fails is taken apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import pandera.errors
import polars as pl

from binance_assets.candles.schema import candle_schema, quick_schema
from binance_assets.intervals import to_text
from binance_assets.periods import Period, over_at
from binance_assets.series import Series

Verdict = Literal[
    "complete",
    "outage",
    "listing",
    "before_listing",
    "delisted",
    "unbalanced",
    "unproved",
    "lost",
    "unfinished",
    "invalid",
    "unreachable",
]

ACCEPTED: Final[frozenset[Verdict]] = frozenset(
    {"complete", "outage", "listing", "before_listing", "delisted", "unbalanced", "unproved"}
)
"""Verdicts with which a period is written; all others refuse it."""

_NAMED_FAILURES: Final = 5


@dataclass(frozen=True, slots=True)
class Judged:
    """One period and what became of it.

    Attributes:
        period: The period.
        verdict: One of the words above.
        candles: Its table; empty where there is none.
        missing: The spans without candles that should have some, ``(start, end)`` in ms UTC, half-open.
        reason: Why it was refused, in one line; empty where it was accepted.
    """

    period: Period
    verdict: Verdict
    candles: pl.DataFrame
    missing: tuple[tuple[int, int], ...] = ()
    reason: str = ""

    @property
    def accepted(self) -> bool:
        """Whether the period may be written."""
        return self.verdict in ACCEPTED


def judge(series: Series, candles: pl.DataFrame, periods: Sequence[Period], now: int) -> list[Judged]:
    """Judge each of ``periods`` by its part of ``candles``.

    Args:
        series: The series.
        candles: All candles that were answered for the periods, and perhaps others.
        periods: The periods, ascending.
        now: The server's time, ms UTC, at which candles count as finished.
    """
    if len(periods) == 1:
        candles = rows_of(candles, periods[0])
    complaint = _complaint(series, candles)
    if not complaint:
        return [
            _judge_sound(series, part, period, now)
            for period, part in zip(periods, _split(candles, periods), strict=True)
        ]
    if len(periods) == 1:
        return [Judged(periods[0], "invalid", candles, (), complaint)]
    return [judged for period in periods for judged in judge(series, rows_of(candles, period), [period], now)]


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


def _complaint(series: Series, candles: pl.DataFrame) -> str:
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


def _judge_sound(series: Series, candles: pl.DataFrame, period: Period, now: int) -> Judged:
    interval = series.interval
    opens = candles["open_time"].to_physical()
    phase = interval.phase(opens[0]) if len(opens) else 0
    if over_at(period, interval, phase) > now:
        return Judged(period, "unfinished", candles, (), "its last candle has not closed yet")
    missing = missing_spans(series, opens, period, phase)
    if missing:
        return Judged(period, "lost", candles, missing, f"no candles for {tell_spans(missing)}")
    return Judged(period, "unproved", candles)


def missing_spans(series: Series, opens: pl.Series, period: Period, phase: int) -> tuple[tuple[int, int], ...]:
    """The parts of ``period`` that have no candle where the grid has one.

    Args:
        series: The series.
        opens: Open times of the candles that exist, ms UTC, on the grid and within the period.
        period: The period.
        phase: The symbol's phase of ``3d``, 0 otherwise.

    Returns:
        Half-open ``(start, end)`` in ms UTC, ascending, as few as possible.
    """
    expected = series.interval.open_times(period.start, period.end, phase)
    if len(expected) == len(opens):
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


def tell_spans(spans: Sequence[tuple[int, int]]) -> str:
    """The spans as people read them, ``2023-03-24 12:40 to 14:00``; the first few of many."""
    told = []
    for start, end in spans[:_NAMED_FAILURES]:
        first, last = to_text(start), to_text(end)
        told.append(f"{first} to {last.split(' ')[1] if first.split(' ')[0] == last.split(' ')[0] else last}")
    more = len(spans) - _NAMED_FAILURES
    return ", ".join(told) + (f" and {more} more" if more > 0 else "")
