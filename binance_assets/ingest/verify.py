"""Looks at the lake again as if nothing in it were known: files, schema, grid, sums, and the other source."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final, Literal

import polars as pl

from binance_assets.candles.columns import columns
from binance_assets.completeness.reference_data import Evidence
from binance_assets.completeness.validation import judge
from binance_assets.exchange.session import Exchange
from binance_assets.ingest.derive import derived_day
from binance_assets.ingest.download import SAFETY_MS, download
from binance_assets.ingest.reference import gather
from binance_assets.model.partitions import Period
from binance_assets.model.results import ACCEPTED, Judged
from binance_assets.model.series import Series
from binance_assets.model.timestamps import to_date, to_text
from binance_assets.storage.lake import Lake, Stored
from binance_assets.storage.universe import Derived

# Where no source is named, one day in so many is compared with the source that it did not come from.
_SAMPLED: Final = 30


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in the lake that is not as it should be.

    Attributes:
        series: The series.
        period: The partition.
        says: What is wrong, in one line.
    """

    series: Series
    period: Period
    says: str


def verify(
    lake: Lake,
    exchange: Exchange,
    series: Series,
    periods: Sequence[Period],
    against: Literal["rest", "archive"] | None,
    done: Callable[[int], None],
) -> Iterator[Finding]:
    """Look at ``periods`` of a series again. Nothing is changed.

    Args:
        lake: The lake.
        exchange: The market of the series.
        series: The series.
        periods: Which partitions, ascending.
        against: The source with which every candle is compared; None compares a sample, one day in thirty, with
            the source that the day did not come from.
        done: Told how many partitions were looked at, from time to time.

    Yields:
        What differs, in order of time for each of the steps.

    Raises:
        ExchangeError: The exchange's time or sums cannot be had, so nothing can be proved.
        Stopped: The exchange was closed.
    """
    evidence = gather(exchange, series, periods, exchange.now() - SAFETY_MS, archived=True)
    sampled: list[tuple[Period, str]] = []
    for _, month in groupby(periods, key=lambda period: to_date(period.start).replace(day=1)):
        members = list(month)
        sound: list[tuple[Period, Stored, pl.DataFrame]] = []
        for period in members:
            found = _read(lake, series, period)
            if isinstance(found, str):
                yield Finding(series, period, found)
            else:
                sound.append((period, *found))
        yield from _judged_again(series, sound, evidence)
        sampled += [(period, stored.source) for period, stored, _ in sound]
        done(len(members))
    yield from _compared(lake, exchange, series, _sample(sampled, against), must=against is not None)


def verify_derived(
    lake: Lake, derived: Derived, periods: Sequence[Period], done: Callable[[int], None]
) -> Iterator[Finding]:
    """Look at partitions of a derived series again: make each anew and compare. Nothing is changed, nobody is asked.

    Args:
        lake: The lake.
        derived: The series and its source.
        periods: Which partitions.
        done: Told how many partitions were looked at.

    Yields:
        What differs, in order of time.
    """
    for period in periods:
        found = _read(lake, derived.series, period)
        if isinstance(found, str):
            yield Finding(derived.series, period, found)
        else:
            judged = derived_day(lake, derived, period)
            says = "" if judged.accepted else f"it cannot be made again: {judged.reason}"
            says = says or _unequal(found[1], judged.candles, str(derived.source))
            if says:
                yield Finding(derived.series, period, says)
        done(1)


def _read(lake: Lake, series: Series, period: Period) -> tuple[Stored, pl.DataFrame] | str:
    """The file and its table, or what keeps it from being read as one."""
    path = lake.path(series, period)
    if not path.exists():
        return "there is no file"
    stored = lake.stored(series, period)
    if stored is None:
        return "its metadata is not that of an accepted file of this series"
    try:
        candles = lake.read(series, period)
    except (OSError, pl.exceptions.PolarsError) as error:
        return f"it cannot be read: {str(error).splitlines()[0]}"
    if dict(candles.schema) != columns(series.market):
        return "its columns are not those of the schema"
    if candles.height != stored.rows:
        return f"it has {candles.height:,} candles, and its metadata says {stored.rows:,}"
    return stored, candles


def _judged_again(
    series: Series, sound: Sequence[tuple[Period, Stored, pl.DataFrame]], evidence: Evidence
) -> Iterator[Finding]:
    if not sound:
        return
    known = {period: stored for period, stored, _ in sound}
    for judged in judge(series, pl.concat([candles for _, _, candles in sound]), list(known), evidence):
        stored = known[judged.period]
        if _disagrees(judged, stored):
            yield Finding(series, judged.period, f"it was {stored.verdict} and is {judged.verdict}: {judged.reason}")


def _disagrees(judged: Judged, stored: Stored) -> bool:
    if judged.verdict == stored.verdict or (stored.verdict == "unproved" and judged.verdict in ACCEPTED):
        return False
    return judged.verdict != "unproved"  # which says that nothing can be said just now


def _sample(there: Sequence[tuple[Period, str]], against: Literal["rest", "archive"] | None) -> dict[str, list[Period]]:
    """Which periods to compare with which source."""
    if against is not None:
        return {against: [period for period, _ in there]}
    chosen: dict[str, list[Period]] = {"rest": [], "archive": []}
    for period, source in there[_SAMPLED // 2 :: _SAMPLED] or there[:1]:
        chosen["archive" if source == "rest" else "rest"].append(period)
    return chosen


def _compared(
    lake: Lake, exchange: Exchange, series: Series, chosen: dict[str, list[Period]], must: bool
) -> Iterator[Finding]:
    """What differs from other sources; of a sample it is none that the other source does not have a day."""
    for source, periods in chosen.items():
        for judged in download(exchange, series, periods, "rest" if source == "rest" else "archive"):
            of_source = judged.origin.source == source and judged.verdict != "unreachable"
            lifeless = judged.candles.is_empty() and judged.accepted  # before the listing, say: no source has any
            if of_source or (lifeless and must):
                says = _unequal(lake.read(series, judged.period), judged.candles, source)
            else:
                says = f"it cannot be compared with {source}: {judged.reason}" if must else ""
            if says:
                yield Finding(series, judged.period, says)


def _unequal(ours: pl.DataFrame, theirs: pl.DataFrame, source: str) -> str:
    if ours.equals(theirs):
        return ""
    only_ours = ours.join(theirs, on="open_time", how="anti").height
    only_theirs = theirs.join(ours, on="open_time", how="anti").height
    if only_ours or only_theirs:
        return f"{source} has {only_theirs:,} candles that the lake lacks, and lacks {only_ours:,} that it has"
    changed = ours.filter(~pl.struct(ours.columns).is_in(theirs.to_struct().implode()))
    first = to_text(changed["open_time"].to_physical()[0])
    return f"{changed.height:,} candles differ from those of {source}, the first at {first}"
