"""The second process that reads the ends of files: what it reads is what this process would have read."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import polars as pl
import pytest

from binance_assets.model.series import Series, parse_series
from binance_assets.storage.file_index import NEW, read_rows, refreshed_index
from binance_assets.storage.footer_reader import FooterReader
from binance_assets.storage.lake import Lake
from binance_assets.storage.metadata import LaterLayout
from binance_assets.storage.span_folder import SpanFolder
from binance_assets.storage.state import LakeState
from binance_assets_tests.support.lakes import local
from binance_assets_tests.support.results import result_of, write_as_layout_1

SERIES = [parse_series(f"spot/{symbol}/1h") for symbol in ("AAAUSDT", "BBBUSDT", "CCCUSDT", "DDDUSDT")]
FIRST, LAST = "2024-01-01", "2024-12-31"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A lake with a file of each layout, a damaged one, and one of another series; the last series has none."""
    lake = Lake(tmp_path / "lake")
    lake.prepare("sandbox")
    for series in SERIES[:3]:
        lake.write_all(series, [result_of(series, f"2024-01-0{day}") for day in (1, 2)])
    write_as_layout_1(lake.root, SERIES[0], result_of(SERIES[0], "2024-02-01"))
    damaged, foreign = (local(lake.folder(series)) / "2024.parquet" for series in SERIES[1:3])
    damaged.write_bytes(damaged.read_bytes()[:-20])
    foreign.write_bytes((local(lake.folder(SERIES[0])) / "2024.parquet").read_bytes())
    return lake


def folders_of(lake: Lake) -> list[tuple[Series, SpanFolder]]:
    state = LakeState(lake.root, None)
    return [(series, SpanFolder(lake.folder(series), series, state)) for series in SERIES]


def test_two_processes_read_what_one_reads_and_a_later_layout_is_left_to_this_one(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("binance_assets.storage.footer_reader._cores", lambda: 2)
    here, waiting = read_rows(folders_of(lake), FIRST, LAST), deque(str(series) for series in SERIES)
    assert here.height == 4
    with FooterReader(local(lake.root), FIRST, LAST, waiting) as reader:
        there = pl.concat(reader.tables())
        assert not waiting
    assert there.schema == NEW
    assert there.sort("series", "file").equals(here.sort("series", "file"))
    later = local(lake.folder(SERIES[3])) / "2024.parquet"
    pl.DataFrame({"row": [1]}).write_parquet(later, metadata={"layout": "3"}, mkdir=True)
    monkeypatch.setattr("binance_assets.storage.file_index._FILES_PER_PART", 1)
    with pytest.raises(LaterLayout, match="layout 3"):
        refreshed_index(folders_of(lake), NEW.to_frame(), FIRST, LAST, local(lake.root))
