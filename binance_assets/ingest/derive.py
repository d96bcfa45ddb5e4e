"""A partition of a derived series, from the file of the series that it is made from."""

from __future__ import annotations

import polars as pl

from binance_assets.candles.columns import empty_candles
from binance_assets.candles.resampling import derive
from binance_assets.completeness.validation import complaint_about, missing_spans
from binance_assets.model.partitions import Period
from binance_assets.model.results import Judged, Origin, Verdict
from binance_assets.model.series import Series
from binance_assets.model.timestamps import from_iso
from binance_assets.storage.lake import Lake, Stored
from binance_assets.storage.universe import Derived


def derived_day(lake: Lake, derived: Derived, period: Period) -> Judged:
    """The candles of a derived series in a day, with the verdict of the day that they are made from.

    Args:
        lake: Where the source's day lies.
        derived: The series and its source.
        period: The day.
    """
    series, source = derived.series, derived.source
    stored = lake.stored(source, period)
    if stored is None:
        return _refused(series, period, "unreachable", f"{source} has no such day in the lake")
    try:
        candles = derive(series.market, lake.read(source, period), series.interval)
    except (OSError, pl.exceptions.PolarsError) as error:
        return _refused(series, period, "invalid", f"{source} cannot be read: {str(error).splitlines()[0]}")
    complaint = complaint_about(series, candles)
    if complaint:
        return _refused(series, period, "invalid", complaint)
    return Judged(
        period=period,
        verdict=stored.verdict,
        candles=candles,
        missing=_missing(series, period, candles, stored),
        reason=stored.note,
        origin=Origin("derived", of=str(source)),
        accepted_by=stored.accepted_by,
        accepted_because=stored.accepted_because,
    )


def _missing(series: Series, period: Period, candles: pl.DataFrame, stored: Stored) -> tuple[tuple[int, int], ...]:
    """The candles that do not exist because all of theirs are missing from the source."""
    step = series.interval.step
    holes = [(from_iso(start), from_iso(end)) for start, end in stored.missing]
    opens = series.interval.open_times(period.start, period.end)
    expected = [time for time in opens if any(start < time + step and time < end for start, end in holes)]
    there = candles["open_time"].to_physical()
    return missing_spans(series, there.filter(there.is_in(expected)), expected)


def _refused(series: Series, period: Period, verdict: Verdict, reason: str) -> Judged:
    return Judged(period, verdict, empty_candles(series.market), (), reason)
