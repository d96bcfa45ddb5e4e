"""The prefetcher of a run: any order of steps, bounded memory, errors per series, a series fetched twice."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator

import polars as pl
import pytest

from binance_assets.exchange.errors import Cancelled
from binance_assets.model.intervals import parse_interval
from binance_assets.model.markets import SPOT
from binance_assets.model.partitions import Partition, partition_for_key
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import Series
from binance_assets.orchestration.prefetch import (
    FetchTask,
    Prefetcher,
    TailPrefetcher,
    kind_of_prefetcher,
)
from binance_assets_tests.support.polling import until

HOUR = parse_interval("1h")
PARTITIONS = (partition_for_key("2024-01-01", HOUR), partition_for_key("2024-01-02", HOUR))


def tasks(count: int) -> list[FetchTask]:
    return [FetchTask(Series(SPOT, f"S{number:03}USDT", HOUR), "rest", PARTITIONS, False) for number in range(count)]


class Recorder:
    """A fetch without an exchange: records which tasks were fetched, and in which threads."""

    def __init__(self) -> None:
        self.fetched: list[FetchTask] = []
        self.threads: dict[Series, str] = {}

    def __call__(self, task: FetchTask) -> Iterator[PartitionResult]:
        self.fetched.append(task)
        self.threads[task.series] = threading.current_thread().name
        for partition in task.partitions:
            yield PartitionResult(partition, "complete", pl.DataFrame(), reason=str(task.series))

    def wait_for(self, count: int) -> None:
        """Wait until ``count`` tasks have started, and check that no other task starts within 50 ms."""
        deadline = time.monotonic() + 10
        while len(self.fetched) < count and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert len(self.fetched) == count


def outcome(task: FetchTask) -> list[tuple[Partition, str]]:
    return [(partition, str(task.series)) for partition in task.partitions]


def results(prefetcher: Prefetcher | TailPrefetcher, task: FetchTask) -> list[tuple[Partition, str]]:
    return [(result.partition, result.reason) for result in prefetcher.results_for(task)]


@pytest.mark.parametrize("order", ["expected", "reversed", "shuffled"])
@pytest.mark.parametrize("kind", [Prefetcher, TailPrefetcher])
def test_every_step_gets_its_own_results_once_in_any_order_of_steps(
    order: str, kind: type[Prefetcher | TailPrefetcher]
) -> None:
    fetch, expected = Recorder(), tasks(50)
    steps = {
        "expected": expected,
        "reversed": expected[::-1],
        "shuffled": random.Random(7).sample(expected, len(expected)),
    }[order]
    prefetcher = kind(expected, fetch)
    for task in steps:
        assert results(prefetcher, task) == outcome(task)
    assert Counter(fetch.fetched) == Counter(expected)
    prefetcher.close()


@pytest.mark.parametrize("first", [0, 49])
def test_while_one_series_is_written_fifteen_others_are_fetched_and_no_more(first: int) -> None:
    fetch, expected = Recorder(), tasks(50)
    prefetcher = Prefetcher(expected, fetch)
    writing = prefetcher.results_for(expected[first])
    next(writing)
    fetch.wait_for(16)
    assert list(writing)
    fetch.wait_for(16)  # the next tasks start with the next step
    threads = Counter(fetch.threads.values())
    assert threads["binance-prefetch"] == 15
    prefetcher.close()


def test_a_step_waits_for_its_series_that_is_under_way() -> None:
    fetch, (first, second) = Recorder(), tasks(2)
    prefetcher = Prefetcher([first, second], fetch)
    assert results(prefetcher, first) == outcome(first)
    assert results(prefetcher, second) == outcome(second)
    assert fetch.threads[second.series] == "binance-prefetch"
    assert fetch.fetched.count(second) == 1


@pytest.mark.parametrize("kind", [Prefetcher, TailPrefetcher])
def test_an_error_belongs_to_the_step_of_its_series(kind: type[Prefetcher | TailPrefetcher]) -> None:
    first, bad, last = tasks(3)
    record = Recorder()

    def fetch(task: FetchTask) -> Iterator[PartitionResult]:
        if task == bad:
            raise TimeoutError("no response")
        yield from record(task)

    prefetcher = kind([first, bad, last], fetch)
    assert results(prefetcher, first) == outcome(first)
    with pytest.raises(TimeoutError, match="no response"):
        results(prefetcher, bad)
    assert results(prefetcher, last) == outcome(last)


@pytest.mark.parametrize("kind", [Prefetcher, TailPrefetcher])
def test_a_second_request_for_a_series_fetches_it_again(kind: type[Prefetcher | TailPrefetcher]) -> None:
    fetch, (first, second) = Recorder(), tasks(2)
    prefetcher = kind([first, second], fetch)
    for task in (first, second, second, first):
        assert results(prefetcher, task) == outcome(task)
    assert Counter(fetch.fetched) == {first: 2, second: 2}


@pytest.mark.parametrize("kind", [Prefetcher, TailPrefetcher])
def test_a_step_whose_configuration_differs_from_the_prefetched_task_fetches_for_itself(
    kind: type[Prefetcher | TailPrefetcher],
) -> None:
    fetch, (first, second) = Recorder(), tasks(2)
    prefetcher = kind([first, second], fetch)
    results(prefetcher, first)
    other = FetchTask(second.series, "archive", PARTITIONS[:1], True)
    assert results(prefetcher, other) == outcome(other)
    assert other in fetch.fetched


@pytest.mark.parametrize("kind", [Prefetcher, TailPrefetcher])
def test_a_series_that_is_not_among_the_tasks_is_fetched_by_its_step(kind: type[Prefetcher | TailPrefetcher]) -> None:
    fetch, (first, unknown) = Recorder(), tasks(2)
    prefetcher = kind([first], fetch)
    assert results(prefetcher, unknown) == outcome(unknown)


def test_after_close_no_task_starts_and_no_step_waits() -> None:
    fetch, expected = Recorder(), tasks(40)
    prefetcher = Prefetcher(expected, fetch)
    assert results(prefetcher, expected[0]) == outcome(expected[0])
    fetch.wait_for(16)
    prefetcher.close()
    with pytest.raises(Cancelled):
        results(prefetcher, expected[1])
    fetch.wait_for(16)


def test_only_several_series_of_at_most_a_month_of_minutes_are_prefetched() -> None:
    minutes = Series(SPOT, "BTCUSDT", parse_interval("1m"))
    hours = Series(SPOT, "BTCUSDT", HOUR)
    month = [partition_for_key(f"2024-01-{day:02}", HOUR) for day in range(1, 32)]
    assert kind_of_prefetcher([minutes, hours], month) is Prefetcher
    assert kind_of_prefetcher([minutes], month) is None
    assert kind_of_prefetcher([minutes, hours], [*month, partition_for_key("2024-02-01", HOUR)]) is TailPrefetcher
    assert kind_of_prefetcher([hours, hours], month * 10) is Prefetcher


def test_a_long_series_is_fetched_ahead_once_all_of_the_one_before_has_arrived_and_only_a_few_results_of_it() -> None:
    many = tuple(partition_for_key(f"2024-01-{day:02}", HOUR) for day in range(1, 29))
    first, second, third = (FetchTask(task.series, "rest", many, False) for task in tasks(3))
    started, fetched = list[Series](), Counter[Series]()

    def fetch(task: FetchTask) -> Iterator[PartitionResult]:
        started.append(task.series)
        for partition in task.partitions:
            fetched[task.series] += 1
            yield PartitionResult(partition, "complete", pl.DataFrame(), reason=str(task.series))

    prefetcher = TailPrefetcher([first, second, third], fetch)
    current = prefetcher.results_for(first)
    for _ in many:
        next(current)
        assert started == [first.series]
    assert not list(current)
    until(120, lambda: fetched[second.series] >= 8)
    assert fetched[second.series] <= 10
    assert started == [first.series, second.series]
    assert results(prefetcher, second) == outcome(second)
    prefetcher.close()
    with pytest.raises(Cancelled):
        results(prefetcher, third)


def test_long_series_overlap_unless_their_candles_are_finer_than_a_minute() -> None:
    seconds, minutes = (Series(SPOT, "BTCUSDT", parse_interval(name)) for name in ("1s", "1m"))
    year = [partition_for_key("2024-01-01", HOUR)] * 366
    assert kind_of_prefetcher([minutes, minutes], year) is TailPrefetcher
    assert kind_of_prefetcher([minutes], year) is None
    assert kind_of_prefetcher([minutes, seconds], year) is None
