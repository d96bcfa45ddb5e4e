"""The memory of an export, as the peak of its process: it does not grow with the range."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from benchmarks.exports import MAX_MEGABYTES, run_export, write_lake
from binance_assets.storage.lake import Lake

FIRST, END = dt.date(2020, 1, 1), dt.date(2024, 1, 1)
LAST_YEAR = ("--start", "2023")
# The columns of a year in memory take 46 MB, so that an export that reads its range at once grows by 138 MB.
MOST_GROWTH_MEGABYTES = 60


@pytest.fixture(scope="module")
def four_years(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a lake of four years of 1m, with a gap in each month."""
    folder = tmp_path_factory.mktemp("memory")
    write_lake(Lake(folder / "lake"), FIRST, END)
    return folder


@pytest.mark.parametrize("target", ["csv", "nautilus", "qlib"])
def test_memory_is_that_of_a_year_however_long_the_range(four_years: Path, target: str) -> None:
    year = run_export(four_years, target, *LAST_YEAR)
    whole = run_export(four_years, target)
    assert whole.written > 3.5 * year.written
    assert whole.megabytes - year.megabytes <= MOST_GROWTH_MEGABYTES
    assert whole.megabytes <= MAX_MEGABYTES
