"""The lake while several processes use it: what a reader sees of a write, and what a write keeps of another one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PosixPath
from typing import ClassVar

import pytest

from binance_assets.model.series import parse_series
from binance_assets.storage.lake import Lake, LakeError
from binance_assets.storage.state import LakeState
from binance_assets_tests.support.lakes import keys, local, state_folder
from binance_assets_tests.support.results import result_of

SERIES = parse_series("spot/BTCUSDT/1h")
KEY = "2024-01-01"


class InterruptedPath(PosixPath):
    """A path whose file is read as a whole only after another process was active, which happens once."""

    meanwhile: ClassVar[list[Callable[[], object]]] = []

    def read_bytes(self) -> bytes:
        if self.meanwhile:
            self.meanwhile.pop()()
        return super().read_bytes()


def at_once(actions: Sequence[Callable[[], object]]) -> list[Exception]:
    """Run actions in threads that start at the same moment; return what they raised."""
    start, raised = threading.Barrier(len(actions)), []

    def run(action: Callable[[], object]) -> None:
        start.wait()
        try:
            action()
        except Exception as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path / "lake")
    lake.prepare("sandbox")
    return lake


def test_a_partition_that_is_replaced_while_it_is_read_has_metadata_and_candles_of_one_version(lake: Lake) -> None:
    lake.write(SERIES, result_of(SERIES, KEY, verdict="outage"))
    shorter = result_of(SERIES, KEY, 20, "outage")
    InterruptedPath.meanwhile.append(lambda: lake.write(SERIES, shorter))
    (content,) = Lake(InterruptedPath(local(lake.root))).read_each(SERIES, [shorter.partition])
    assert not InterruptedPath.meanwhile
    assert content.stored is not None
    assert (content.stored.verdict, content.stored.rows) == ("outage", 20)
    assert shorter.candles.equals(content.candles)  # type: ignore[arg-type]


def test_the_marker_of_another_venue_is_not_replaced(lake: Lake) -> None:
    LakeState(lake.root).write_marker("binance", 2)  # by a process that had found an empty lake
    assert lake.venue == "sandbox"


def test_of_two_processes_that_prepare_an_empty_lake_for_different_venues_only_one_succeeds(tmp_path: Path) -> None:
    for number in range(10):
        root = tmp_path / f"lake{number}"
        failures = at_once([partial(Lake(root).prepare, venue) for venue in ("sandbox", "binance")])
        assert [type(failure) for failure in failures] == [LakeError]


def test_any_number_of_processes_can_prepare_a_lake_of_layout_1_at_once(tmp_path: Path) -> None:
    for number in range(10):
        root = tmp_path / f"lake{number}"
        for name, files in {"_coverage": ["spot.parquet", "usdm.parquet"], ".incoming": [".lock"]}.items():
            (root / name).mkdir(parents=True)
            for file in files:
                (root / name / file).write_text(file)
        (root / "_lake.json").write_text('{"origin": "sandbox", "layout": 1}')
        (root / "_first_candles.json").write_text('{"spot/BTCUSDT/1h": 1}')
        assert at_once([partial(Lake(root).prepare, "sandbox")] * 8) == []
        assert list(root.iterdir()) == []
        assert Lake(root).first_open(SERIES) == 1
        coverage = state_folder(Lake(root)) / "coverage"
        assert sorted(path.read_text() for path in coverage.iterdir()) == ["spot.parquet", "usdm.parquet"]


def test_days_that_are_written_at_once_are_all_kept(lake: Lake) -> None:
    days = [f"2024-01-{day:02}" for day in range(1, 17)]
    assert at_once([partial(lake.write, SERIES, result_of(SERIES, day)) for day in days]) == []
    assert keys(lake, SERIES) == days
