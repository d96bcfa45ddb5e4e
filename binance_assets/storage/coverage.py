"""The coverage of a market: what the lake holds of each series, as a table, as Markdown, and as rows of a chart."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

import polars as pl

from binance_assets.charts.coverage_chart import CoverageRow
from binance_assets.model.outside import markdown
from binance_assets.model.partitions import last_finished_end
from binance_assets.model.results import ACCEPTED
from binance_assets.model.series import Series, by_market
from binance_assets.model.timestamps import to_ms
from binance_assets.storage.file_index import stored_in
from binance_assets.storage.lake import Lake

_VERDICTS: Final = (*sorted(ACCEPTED), "invalid", "lost", "unfinished")  # the last three by a person only
_COUNTS: Final = (*_VERDICTS, "unnamed_outages")
"""The columns that Markdown leaves out where all their numbers are 0."""

MOST_ROWS: Final = 50
"""How many series the page names; the Parquet file has them all, and a page of 2,000 would be a megabyte."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """What the lake holds of one series.

    Attributes:
        series: The series.
        first: Key of its first partition in the lake; None if the lake has none.
        last: Key of its last partition in the lake; None if the lake has none.
        verdicts: Number of stored partitions by verdict.
        unnamed_outages: Number of stored partitions with an outage that the table of known outages does not name.
        refused: Number of requested partitions that were refused and are not in the lake.
        missing: Number of other partitions that are not in the lake, from the first stored partition to the last
            finished one.
        rows: Number of candles.
        size: Size of the files in bytes.
        months: For each month, such as ``2024-01``, the number of its stored partitions and of its expected ones.
    """

    series: Series
    first: str | None
    last: str | None
    verdicts: Counter[str]
    unnamed_outages: int
    refused: int
    missing: int
    rows: int
    size: int
    months: dict[str, tuple[int, int]]


def held_by(lake: Lake, series: Sequence[Series]) -> dict[Series, tuple[int, dt.date, dt.date]]:
    """Return the number of stored partitions, the first and the last of them, of each series that has any."""
    held = {}
    for market, members in by_market(series).items():
        days = stored_in(lake.file_index(market, members)).group_by("series")
        counts = _by_series(days.agg(pl.len(), pl.col("day").min().alias("first"), pl.col("day").max().alias("last")))
        held.update({member: counts[str(member)] for member in members if str(member) in counts})
    return held


def coverages_of(
    index: pl.DataFrame,
    series: Sequence[Series],
    until: dt.date,
    refused: Mapping[Series, Set[str]],
    ended: Mapping[Series, dt.date] | None = None,
    lost: Mapping[Series, Set[str]] | None = None,
) -> list[Coverage]:
    """Return the coverage of each of ``series``, in the given order.

    Args:
        index: What their files hold, from :meth:`Lake.file_index`.
        series: The series.
        until: The day before which partitions are expected, UTC.
        refused: For each series the keys of the partitions that their last run did not write: refused ones, and those
            whose run failed.
        ended: The last day of each series whose symbol is delisted; no later partition is expected of it.
        lost: For each series the keys of partitions that were stored once and are not anymore; they count as missing.
    """
    stored = stored_in(index)
    days = stored.select("series", "day")
    absent = _absent(refused, days)
    expected = pl.concat([_expected(series, days, until, ended or {}), _absent(lost or {}, days)]).unique()
    missing = expected.join(days, on=["series", "day"], how="anti").join(absent, on=["series", "day"], how="anti")
    verdicts: dict[str, Counter[str]] = {}
    for name, verdict, count in stored.group_by("series", "verdict").len().iter_rows():
        verdicts.setdefault(name, Counter())[verdict] = count
    totals = _by_series(
        stored.group_by("series").agg(
            pl.col("day").min().alias("first"),
            pl.col("day").max().alias("last"),
            pl.col("has_unnamed_outage").sum(),
            pl.col("rows").sum(),
            pl.col("bytes").sum(),
        )
    )
    lacking, refusals = _by_series(missing.group_by("series").len()), _by_series(absent.group_by("series").len())
    months = _months_of(expected, days)
    result = []
    for member in series:
        name = str(member)
        first, last, unnamed, rows, size = totals.get(name, (None, None, 0, 0, 0))
        result.append(
            Coverage(
                series=member,
                first=first and first.isoformat(),
                last=last and last.isoformat(),
                verdicts=verdicts.get(name, Counter()),
                unnamed_outages=unnamed,
                refused=refusals.get(name, (0,))[0],
                missing=lacking.get(name, (0,))[0],
                rows=rows,
                size=size,
                months=months.get(name, {}),
            )
        )
    return result


def _by_series(table: pl.DataFrame) -> dict[str, tuple[Any, ...]]:
    return {name: tuple(values) for name, *values in table.iter_rows()}


def _absent(keys: Mapping[Series, Set[str]], days: pl.DataFrame) -> pl.DataFrame:
    """Return the given partitions that are not stored, also those before the first stored one."""
    rows = [(str(series), dt.date.fromisoformat(key)) for series, of_series in keys.items() for key in of_series]
    return pl.DataFrame(rows, schema=days.schema, orient="row").join(days, on=["series", "day"], how="anti")


def _expected(
    series: Sequence[Series], days: pl.DataFrame, until: dt.date, ended: Mapping[Series, dt.date]
) -> pl.DataFrame:
    """Return the partitions of each series from the first stored to the last finished one, and later stored ones."""
    first = pl.col("day").min()
    firsts = days.group_by("series").agg(first)
    ends: dict[bool, dict[str, dt.date]] = {False: {}, True: {}}
    for interval, members in groupby(sorted(series, key=_interval_name), key=lambda member: member.interval):
        end = min(until, last_finished_end(to_ms(until), interval))
        ends[interval.is_multi_day].update((str(member), min(end, _end_of(member, ended))) for member in members)
    calendars = []
    for is_multi_day, end_of in ends.items():
        until_end = pl.DataFrame(list(end_of.items()), schema={"series": pl.String, "end": pl.Date}, orient="row")
        step = "1mo" if is_multi_day else "1d"
        spans = firsts.join(until_end, on="series").filter(pl.col("day") < pl.col("end"))
        dates = pl.date_ranges("day", "end", interval=step, closed="left").alias("day")
        calendars.append(spans.select("series", dates).explode("day"))
    return pl.concat([*calendars, days.filter(pl.col("day") < until)]).unique()


def _end_of(series: Series, ended: Mapping[Series, dt.date]) -> dt.date:
    return ended[series] + dt.timedelta(days=1) if series in ended else dt.date.max


def _interval_name(series: Series) -> str:
    return series.interval.name


def _months_of(expected: pl.DataFrame, days: pl.DataFrame) -> dict[str, dict[str, tuple[int, int]]]:
    """Return by series and month the number of stored and of expected partitions."""
    present = days.with_columns(present=True)
    counts = (
        expected.join(present, on=["series", "day"], how="left")
        .group_by("series", pl.col("day").dt.strftime("%Y-%m").alias("month"))
        .agg(pl.col("present").count(), pl.len())
        .sort("series", "month")
    )
    months: dict[str, dict[str, tuple[int, int]]] = {}
    for name, month, stored, total in counts.iter_rows():
        months.setdefault(name, {})[month] = (stored, total)
    return months


def coverage_table(coverages: Iterable[Coverage]) -> pl.DataFrame:
    """Return a table with one row for each series.

    Returns:
        The String columns ``series, first, last``, of which the latter two are null for a series without partitions;
        and the Int64 columns ``partitions``, one for each verdict that a stored partition can have,
        ``unnamed_outages``, ``refused``, ``missing``, ``rows``, ``bytes``.
    """
    rows = [
        {
            "series": str(coverage.series),
            "first": coverage.first,
            "last": coverage.last,
            "partitions": sum(coverage.verdicts.values()),
            **{verdict: coverage.verdicts[verdict] for verdict in _VERDICTS},
            "unnamed_outages": coverage.unnamed_outages,
            "refused": coverage.refused,
            "missing": coverage.missing,
            "rows": coverage.rows,
            "bytes": coverage.size,
        }
        for coverage in coverages
    ]
    texts = {name: pl.String() for name in ("series", "first", "last")}
    numbers = dict.fromkeys(("partitions", *_COUNTS, "refused", "missing", "rows", "bytes"), pl.Int64())
    return pl.DataFrame(rows, schema={**texts, **numbers})


def coverage_markdown(table: pl.DataFrame) -> str:
    """Return a coverage table as Markdown, without the columns of verdicts that no partition has."""
    counts = [name for name in _COUNTS if table[name].sum()]
    names = ["series", "first", "last", "partitions", *counts, "refused", "missing", "rows", "bytes"]
    lines = ["| " + " | ".join(names) + " |", "|---|---|---|" + "---:|" * (len(names) - 3)]
    for row in table.select(names).iter_rows():
        cells = ["" if value is None else f"{value:,}" if isinstance(value, int) else markdown(value) for value in row]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def most_lacking(coverages: Sequence[Coverage]) -> list[Coverage]:
    """Return the series that the page names: all, or those that lack the most partitions, in the given order."""
    if len(coverages) <= MOST_ROWS:
        return [*coverages]
    worst = sorted(range(len(coverages)), key=lambda at: -(coverages[at].refused + coverages[at].missing))
    return [coverages[at] for at in sorted(worst[:MOST_ROWS])]


def chart_rows(coverages: Sequence[Coverage]) -> list[CoverageRow]:
    """Return the rows of the chart: the series that the page names, below all together if those are not all."""
    named = most_lacking(coverages)
    rows = [CoverageRow(str(coverage.series), coverage.months) for coverage in named]
    if len(named) < len(coverages):
        rows.insert(0, CoverageRow(f"all {len(coverages):,} series", _total_months(coverages)))
    return rows


def _total_months(coverages: Iterable[Coverage]) -> dict[str, tuple[int, int]]:
    totals: dict[str, tuple[int, int]] = {}
    for coverage in coverages:
        for month, (stored, expected) in coverage.months.items():
            known = totals.get(month, (0, 0))
            totals[month] = (known[0] + stored, known[1] + expected)
    return totals
