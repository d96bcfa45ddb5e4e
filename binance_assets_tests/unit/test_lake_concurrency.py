"""The lake while several processes use it: what a reader sees of a write, and what a write keeps of another one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PosixPath
from typing import ClassVar

import pytest

from binance_assets.model.series import parse_series
from binance_assets.storage.lake import Lake
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
