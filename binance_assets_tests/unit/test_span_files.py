"""The files of a series: partitions of both layouts side by side, and what a damaged file does to its neighbors."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from binance_assets.model.partitions import partition_for_key
from binance_assets.model.series import parse_series
from binance_assets.storage.lake import Lake
from binance_assets_tests.support.results import result_of, write_as_layout_1

SERIES = parse_series("spot/BTCUSDT/1h")
DAYS = [f"2024-01-{day:02}" for day in range(1, 6)]
PARTITIONS = [partition_for_key(key, SERIES.interval) for key in DAYS]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path / "lake")
    lake.prepare("sandbox")
    return lake


def test_a_damaged_file_of_one_day_is_named_for_that_day_only(lake: Lake) -> None:
    lake.write(SERIES, result_of(SERIES, DAYS[0]))
    path = write_as_layout_1(lake.root, SERIES, result_of(SERIES, DAYS[1]))
    path.write_bytes(b"torn")
    messages = [str(candles) for _, stored, candles in lake.read_each(SERIES, PARTITIONS[1:3]) if stored is None]
    assert messages[0].startswith(f"{path} cannot be read: ")
    assert messages[1:] == ["it is not in the lake"]


def test_partitions_of_both_layouts_are_read_and_scanned_in_the_order_of_time(lake: Lake) -> None:
    results = [result_of(SERIES, key) for key in DAYS]
    lake.write_all(SERIES, results[::2])
    for result in results[1::2]:
        write_as_layout_1(lake.root, SERIES, result)
    whole = pl.concat([result.candles for result in results])
    assert lake.read(SERIES, PARTITIONS).equals(whole)
    assert lake.scan(SERIES, PARTITIONS).collect().equals(whole)
    assert list(lake.stored_partitions(SERIES)) == PARTITIONS
