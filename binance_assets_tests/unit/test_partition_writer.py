"""The writer collects the partitions of a file, but none waits for long; and the step acts while it waits."""

from __future__ import annotations

import datetime as dt
import os
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from binance_assets.candles.columns import empty_candles
from binance_assets.model.partitions import Partition, partition_for_key, partitions_between
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import parse_series
from binance_assets.orchestration.background import BackgroundIterator
from binance_assets.storage.lake import Lake, LakeError
from binance_assets.storage.writer import FLUSH_SECONDS, PartitionWriter, write_results
from binance_assets_tests.support.killed_writers import Spec
from binance_assets_tests.support.lakes import keys, local
from binance_assets_tests.support.results import result_of

MINUTES = parse_series("spot/BTCUSDT/1m")
HOURS = parse_series("spot/BTCUSDT/1h")
NAMES = [f"2024-01-{day:02}" for day in range(1, 6)]
SECONDS = parse_series("spot/BTCUSDT/1s")
DAYS = partitions_between(dt.date(2024, 1, 30), dt.date(2024, 2, 3), MINUTES.interval)


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path / "lake")
    lake.prepare("sandbox")
    return lake


def empty(day: int) -> PartitionResult:
    return PartitionResult(DAYS[day], "outage", empty_candles(MINUTES.market))


def test_partitions_wait_for_others_of_their_file_but_at_most_a_second(lake: Lake) -> None:
    clock = Clock()
    writer = PartitionWriter(lake, MINUTES, clock)
    assert writer.add(empty(0)) == {}
    clock.now += FLUSH_SECONDS - 0.1
    assert writer.add(empty(1)) == {}
    assert writer.flush_if_due() == {}
    assert keys(lake, MINUTES) == []
    clock.now += 0.1  # since the first of them
    written = writer.flush_if_due()
    assert list(written) == DAYS[:2]
    assert keys(lake, MINUTES) == ["2024-01-30", "2024-01-31"]
    assert writer.flush_if_due() == {}
    assert writer.add(empty(2)) == {}  # its own wait begins now
    assert list(writer.flush()) == DAYS[2:3]
    assert writer.flush() == {}


def test_of_many_candles_those_of_a_file_that_may_still_grow_wait(lake: Lake) -> None:
    writer = PartitionWriter(lake, MINUTES, Clock())
    days = partitions_between(dt.date(2024, 1, 1), dt.date(2024, 12, 31), MINUTES.interval)
    written: list[Partition] = []
    for number, day in enumerate(days[:110]):
        written += writer.add(Spec(day.key, number, rows=1440).result(MINUTES))
    assert written == days[:91]  # January to March; April ends with the 121st day
    assert list(writer.flush()) == days[91:110]


def test_many_candles_are_written_although_they_have_hardly_waited(lake: Lake) -> None:
    writer = PartitionWriter(lake, SECONDS, Clock())
    first, second = (Spec(key, 1, rows=86_400).result(SECONDS) for key in ("2024-01-01", "2024-01-02"))
    assert writer.add(first) == {}
    assert list(writer.add(second)) == [first.partition]
    assert list(writer.flush()) == [second.partition]


def test_a_refused_partition_is_not_collected(lake: Lake) -> None:
    writer = PartitionWriter(lake, MINUTES, Clock())
    with pytest.raises(ValueError, match="must not be written"):
        writer.add(PartitionResult(DAYS[0], "lost", empty_candles(MINUTES.market)))
    assert writer.flush() == {}


def test_results_come_in_order_and_none_while_there_is_nothing() -> None:
    may_continue = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        assert may_continue.wait(60)
        yield 2

    background = BackgroundIterator(items())
    received = []
    for item in background:
        received.append(item)
        if item is None:
            may_continue.set()
    assert (received[0], received[1], received[-1]) == (1, None, 2)
    assert [item for item in received if item is not None] == [1, 2]


def test_an_error_is_raised_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("broken")

    received: list[int] = []
    with pytest.raises(OSError, match="broken"):
        received.extend(item for item in BackgroundIterator(items()) if item is not None)
    assert received == [1]


def test_a_closed_iterator_lets_its_thread_end_and_takes_few_items_ahead() -> None:
    taken = []
    ended = threading.Event()

    def items() -> Iterator[int]:
        try:
            for number in range(1_000):
                taken.append(number)
                yield number
        finally:
            ended.set()

    background = BackgroundIterator(items())
    assert next(item for item in background if item is not None) == 0
    background.close()
    assert ended.wait(60)
    assert len(taken) < 20


def test_what_could_not_be_written_stays_collected(lake: Lake) -> None:
    writer = PartitionWriter(lake, HOURS, Clock())
    writer.add(result_of(HOURS, NAMES[0]))
    folder = local(lake.folder(HOURS))
    folder.parent.mkdir(parents=True)
    folder.write_text("in the way")  # root may write anywhere, so permissions prove nothing
    with pytest.raises(LakeError, match="cannot be written"):
        writer.flush()
    os.unlink(folder)
    assert [partition.key for partition in writer.flush()] == keys(lake, HOURS) == NAMES[:1]


class Stop(BaseException):
    """What ends the iteration, like an interrupt."""


def results_then_stop() -> Iterator[PartitionResult | None]:
    yield result_of(HOURS, NAMES[0])
    yield None
    yield result_of(HOURS, NAMES[1], 20, "lost")
    yield result_of(HOURS, NAMES[2])
    raise Stop


def test_results_before_an_error_are_written_and_yielded(lake: Lake) -> None:
    writes = write_results(lake, HOURS, results_then_stop())
    yielded = list(islice(writes, 5))
    with pytest.raises(Stop):
        next(writes)
    assert [result and result.verdict for result, _ in yielded] == ["complete", None, "lost", "complete", None]
    written = [partition.key for _, stored in yielded for partition in stored]
    assert written == keys(lake, HOURS) == [NAMES[0], NAMES[2]]


def test_results_are_written_if_nobody_wants_the_next_one(lake: Lake) -> None:
    writes = write_results(lake, HOURS, results_then_stop())
    result, stored = next(writes)
    assert (result and result.partition, stored) == (partition_for_key(NAMES[0], HOURS.interval), {})
    writes.close()
    assert keys(lake, HOURS) == NAMES[:1]
