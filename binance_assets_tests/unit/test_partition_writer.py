"""Writing partitions as they arrive: when they are written, and that none is lost when something ends the run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from binance_assets.model.partitions import partition_for_key
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import parse_series
from binance_assets.orchestration.assets import write_results
from binance_assets.storage import writer as writer_module
from binance_assets.storage.lake import Lake, LakeError
from binance_assets.storage.writer import FLUSH_SECONDS, PartitionWriter
from binance_assets_tests.support.lakes import keys
from binance_assets_tests.support.results import result_of

SERIES = parse_series("spot/BTCUSDT/1h")
DAYS = [f"2024-01-{day:02}" for day in range(1, 6)]


class Clock:
    """A clock that only the test moves, in seconds."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path / "lake")
    lake.prepare("sandbox")
    return lake


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def writer(lake: Lake, clock: Clock) -> PartitionWriter:
    return PartitionWriter(lake, SERIES, clock)


def test_partitions_are_written_together_once_the_first_of_them_has_waited(
    lake: Lake, clock: Clock, writer: PartitionWriter
) -> None:
    assert writer.add(result_of(SERIES, DAYS[0])) == {}
    clock.seconds = FLUSH_SECONDS / 2
    assert writer.add(result_of(SERIES, DAYS[1])) == writer.flush_if_due() == {}
    assert keys(lake, SERIES) == []
    clock.seconds = FLUSH_SECONDS
    written = writer.flush_if_due()
    assert [partition.key for partition in written] == keys(lake, SERIES) == DAYS[:2]
    assert writer.flush_if_due() == writer.flush() == {}
    writer.add(result_of(SERIES, DAYS[2]))  # its wait begins now
    clock.seconds += FLUSH_SECONDS / 2
    assert writer.flush_if_due() == {}
    assert [partition.key for partition in writer.flush()] == DAYS[2:3]


def test_many_candles_are_written_without_a_wait(
    lake: Lake, writer: PartitionWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "_MAX_ROWS", 3 * 24)
    for key in DAYS[:3]:
        assert writer.add(result_of(SERIES, key)) == {}
    assert len(writer.add(result_of(SERIES, DAYS[3]))) == 4
    assert writer.add(result_of(SERIES, DAYS[4])) == {}
    assert keys(lake, SERIES) == DAYS[:4]


def test_a_refused_partition_is_not_collected(lake: Lake, writer: PartitionWriter) -> None:
    with pytest.raises(ValueError, match="must not be written"):
        writer.add(result_of(SERIES, DAYS[0], 20, "lost"))
    assert writer.flush() == {}


def test_what_could_not_be_written_stays_collected(lake: Lake, writer: PartitionWriter) -> None:
    writer.add(result_of(SERIES, DAYS[0]))
    folder = lake.folder(SERIES)
    folder.parent.mkdir(parents=True)
    folder.write_text("in the way")  # root may write anywhere, so permissions prove nothing
    with pytest.raises(LakeError, match="cannot be written"):
        writer.flush()
    os.unlink(folder)
    assert [partition.key for partition in writer.flush()] == keys(lake, SERIES) == DAYS[:1]


class Stop(BaseException):
    """What ends the iteration, like an interrupt."""


def results_then_stop() -> Iterator[PartitionResult | None]:
    yield result_of(SERIES, DAYS[0])
    yield None
    yield result_of(SERIES, DAYS[1], 20, "lost")
    yield result_of(SERIES, DAYS[2])
    raise Stop


def test_results_before_an_error_are_written_and_yielded(lake: Lake) -> None:
    writes = write_results(lake, SERIES, results_then_stop())
    yielded = list(islice(writes, 5))
    with pytest.raises(Stop):
        next(writes)
    assert [result and result.verdict for result, _ in yielded] == ["complete", None, "lost", "complete", None]
    written = [partition.key for _, stored in yielded for partition in stored]
    assert written == keys(lake, SERIES) == [DAYS[0], DAYS[2]]


def test_results_are_written_if_nobody_wants_the_next_one(lake: Lake) -> None:
    writes = write_results(lake, SERIES, results_then_stop())
    result, stored = next(writes)
    assert (result and result.partition, stored) == (partition_for_key(DAYS[0], SERIES.interval), {})
    writes.close()
    assert keys(lake, SERIES) == DAYS[:1]
