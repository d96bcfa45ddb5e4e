"""The lake while several processes use it: what a reader sees of a write, and what a write keeps of another one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PosixPath
from typing import ClassVar

import pytest

from binance_assets.model.series import parse_series
from binance_assets.storage.lake import Lake, LakeError
from binance_assets.storage.state import LakeState
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


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path / "lake")
    lake.prepare("sandbox")
    return lake


def test_a_partition_that_is_replaced_while_it_is_read_has_metadata_and_candles_of_one_version(lake: Lake) -> None:
    lake.write(SERIES, result_of(SERIES, KEY))
    shorter = result_of(SERIES, KEY, 20, "outage")
    InterruptedPath.meanwhile.append(lambda: lake.write(SERIES, shorter))
    (content,) = Lake(InterruptedPath(lake.root)).read_each(SERIES, [shorter.partition])
    assert not InterruptedPath.meanwhile
    assert content.stored is not None
    assert (content.stored.verdict, content.stored.rows) == ("outage", 20)
    assert shorter.candles.equals(content.candles)  # type: ignore[arg-type]


def test_the_marker_of_another_venue_is_not_replaced(lake: Lake) -> None:
    LakeState(lake.root).write_marker("binance", 2)  # by a process that had found an empty lake
    assert lake.venue == "sandbox"


def test_of_two_processes_that_prepare_an_empty_lake_for_different_venues_only_one_succeeds(tmp_path: Path) -> None:
    prepared: list[str] = []

    def prepare(venue: str) -> None:
        start.wait()
        with suppress(LakeError):
            Lake(root).prepare(venue)
            prepared.append(venue)

    for number in range(10):
        root, start = tmp_path / f"lake{number}", threading.Barrier(2)
        prepared.clear()
        threads = [threading.Thread(target=prepare, args=(venue,)) for venue in ("sandbox", "binance")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert prepared == [Lake(root).venue]
