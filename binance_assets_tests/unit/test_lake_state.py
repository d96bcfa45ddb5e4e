"""The files beside a lake: what becomes of them when the lake is deleted or copied."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from binance_assets.model.series import parse_series
from binance_assets.storage.lake import Lake, LakeError
from binance_assets_tests.support.lakes import local
from binance_assets_tests.support.results import result_of

SERIES = parse_series("spot/BTCUSDT/1h")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path / "lake")
    lake.prepare("sandbox")
    lake.remember_first_open(SERIES, 1)
    lake.write(SERIES, result_of(SERIES, "2024-01-01"))
    return lake


def test_after_a_lake_was_deleted_its_folder_can_hold_candles_of_another_venue(lake: Lake) -> None:
    shutil.rmtree(local(lake.root))
    emptied = Lake(lake.root)
    assert lake.venue is None
    emptied.prepare("binance")
    assert (emptied.venue, emptied.first_open(SERIES)) == ("binance", None)  # the cached one was of the sandbox


def test_a_copy_of_a_lake_without_the_files_beside_it_keeps_its_venue(lake: Lake, tmp_path: Path) -> None:
    copy = Lake(shutil.copytree(local(lake.root), tmp_path / "copy"))
    assert copy.venue == "sandbox"
    with pytest.raises(LakeError, match="venue 'sandbox', not of 'binance'"):
        copy.prepare("binance")
    copy.prepare("sandbox")


def test_a_link_whose_target_is_absent_is_an_error_and_the_files_beside_the_target_stay(lake: Lake) -> None:
    target = local(lake.root).rename(local(lake.root).with_name("elsewhere"))
    linked = Lake(lake.root)
    local(linked.root).symlink_to(local(lake.root).with_name("unmounted"))
    marker = local(lake.root).with_name("unmounted.state") / "lake.json"
    marker.parent.mkdir()
    marker.write_text('{"origin": "sandbox", "layout": 2}')
    with pytest.raises(LakeError, match="cannot be written"):
        linked.prepare("binance")
    assert marker.exists()
    assert target.is_dir()
