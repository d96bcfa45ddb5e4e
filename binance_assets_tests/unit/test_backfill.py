"""A backfill: which runs fetch what is missing."""

from __future__ import annotations

import datetime as dt

import pytest

from binance_assets.ingest.request import DownloadPlan
from binance_assets.model.partitions import partitions_between
from binance_assets.model.series import Series, parse_series
from binance_assets.orchestration.backfill import runs_for

YEAR = (dt.date(2024, 1, 1), dt.date(2025, 1, 1))


def plan(series: Series, start: dt.date, end: dt.date) -> DownloadPlan:
    partitions = tuple(partitions_between(start, end, series.interval))
    return DownloadPlan(series, partitions, (), partitions)


def many(count: int, interval: str = "1m") -> list[Series]:
    return [parse_series(f"spot/S{number:03}USDT/{interval}") for number in range(count)]


@pytest.mark.parametrize(
    ("series", "start", "end", "sizes"),
    [
        (many(200), dt.date(2024, 1, 1), dt.date(2024, 1, 2), [200]),  # short runs stay one, so that they prefetch
        (many(10), *YEAR, [10]),
        (many(45), *YEAR, [10, 10, 10, 10, 5]),
        (many(3), dt.date(2017, 8, 1), dt.date(2026, 8, 1), [1, 1, 1]),
        (many(300, "1w"), *YEAR, [300]),
    ],
)
def test_many_long_series_are_several_runs(
    series: list[Series], start: dt.date, end: dt.date, sizes: list[int]
) -> None:
    runs = list(runs_for([plan(member, start, end) for member in series], only_missing=True))
    assert [len(run.series) for run in runs] == sizes
    assert [member for run in runs for member in run.series] == series
    assert {run.first.key for run in runs} == {start.isoformat()}
    assert {run.last.end for run in runs} == {partitions_between(start, end, series[0].interval)[-1].end}


def test_a_series_that_is_longer_than_a_run_may_be_is_one_run() -> None:
    start, end = dt.date(2017, 8, 1), dt.date(2047, 8, 1)
    runs = list(runs_for([plan(member, start, end) for member in many(2)], only_missing=True))
    assert [len(run.series) for run in runs] == [1, 1]
