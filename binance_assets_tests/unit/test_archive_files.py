"""Which files of the archive are chosen for a range."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binance_assets.exchange.archive_files import ArchiveFile, daily_files, monthly_files, partitions_outside, probes
from binance_assets.model.partitions import partitions_between
from binance_assets.model.series import parse_series
from binance_assets.model.timestamps import to_date, to_ms

SERIES = parse_series("spot/BTCUSDT/1h")
NOW = to_ms(dt.date(2025, 1, 1))


def files_of(*ranges: tuple[str, str]) -> list[ArchiveFile]:
    days = [
        day
        for start, end in ranges
        for day in partitions_between(dt.date.fromisoformat(start), dt.date.fromisoformat(end), SERIES.interval)
    ]
    return daily_files(SERIES, days, NOW)


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([], []),
        ([("2024-01-05", "2024-01-06")], ["2024-01-05"]),
        ([("2024-01-05", "2024-01-07")], ["2024-01-05", "2024-01-06"]),
        ([("2024-01-01", "2024-02-01")], ["2024-01-01", "2024-01-16", "2024-01-31"]),
        (
            [("2024-01-30", "2024-02-04"), ("2024-03-09", "2024-03-10")],
            ["2024-01-30", "2024-01-31", "2024-02-01", "2024-02-02", "2024-02-03", "2024-03-09"],
        ),
    ],
)
def test_the_first_the_middle_and_the_last_day_of_each_month_are_probed(
    ranges: list[tuple[str, str]], expected: list[str]
) -> None:
    assert [to_date(file.start).isoformat() for file in probes(files_of(*ranges))] == expected


@given(st.sets(st.integers(0, 150)), st.sets(st.integers(0, 5)))
def test_partitions_outside_are_those_that_no_file_holds(numbers: set[int], chosen: set[int]) -> None:
    days = [partitions_between(dt.date(2024, 1, 1), dt.date(2024, 6, 1), SERIES.interval)[n] for n in sorted(numbers)]
    files = [file for n, file in enumerate(monthly_files(SERIES, days, NOW)) if n in chosen]
    held = {day for file in files for day in file.partitions}
    assert partitions_outside(files, days) == [day for day in days if day not in held]
    assert [day for file in monthly_files(SERIES, days, NOW) for day in file.partitions] == days
