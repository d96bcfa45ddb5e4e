"""The worker pool: sized once by the measured round trip, ordered, bounded, and ended by ``close()``."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binance_assets.exchange.errors import Cancelled, NoConnection, NotSent, UnknownSymbol
from binance_assets.exchange.workers import WorkerPool, workers_needed

round_trips = st.floats(0.001, 5)
pages = st.integers(0, 3_000)
sustainable = st.floats(1, 50)


@pytest.mark.parametrize(
    ("round_trip", "pages_left", "rate", "workers"),
    [
        (0.1, 525, 50, 50),
        (0.1, 1, 50, 10),
        (0.1, 100, 50, 10),
        (0.3, 42, 20, 13),
        (0.001, 5_000, 50, 5),
        (2, 0, 50, 50),
    ],
)
def test_workers_needed_matches_known_sizes(round_trip: float, pages_left: int, rate: float, workers: int) -> None:
    assert workers_needed(round_trip, pages_left, rate, cap=50) == workers


@given(round_trips, pages, sustainable, st.integers(1, 200))
def test_there_is_at_least_one_worker_and_never_more_than_the_cap(rtt: float, left: int, rate: float, cap: int) -> None:
    assert 1 <= workers_needed(rtt, left, rate, cap) <= cap


@given(round_trips, round_trips, pages, sustainable)
def test_a_faster_network_never_gets_a_slower_download(first: float, second: float, left: int, rate: float) -> None:
    fast, slow = sorted((first, second))
    per_second = [workers_needed(rtt, left, rate, cap=10**6) / rtt for rtt in (fast, slow)]
    # Numbers of workers are integers: the slower network may round up by the rate of one worker.
    needed = min(max(left, 2 * rate), min(per_second))
    assert per_second[0] >= needed - 1e-6


@given(round_trips, pages, sustainable)
def test_one_more_page_never_reduces_the_workers(rtt: float, left: int, rate: float) -> None:
    assert workers_needed(rtt, left + 1, rate, 500) >= workers_needed(rtt, left, rate, 500)


def test_results_arrive_in_the_order_of_the_tasks() -> None:
    pool = WorkerPool(warmup=2)

    def fetch(task: int) -> int:
        time.sleep(0.02 if task % 3 == 0 else 0)
        return task * task

    assert list(pool.stream(range(60), fetch, lambda: 8)) == [(task, task * task) for task in range(60)]
    pool.close()


@pytest.mark.parametrize(("warmup", "cap", "at_once"), [(3, 50, 3), (3, 2, 2), (0, 50, 6)])
def test_the_warm_up_runs_at_once_and_the_workers_are_sized_once(warmup: int, cap: int, at_once: int) -> None:
    pool, under_way = WorkerPool(warmup, cap=cap), 0
    concurrency: list[tuple[int, int]] = []
    sizings: list[int] = []
    lock = threading.Lock()

    def fetch(task: int) -> int:
        nonlocal under_way
        with lock:
            under_way += 1
            concurrency.append((task, under_way))
        time.sleep(0.01)
        with lock:
            under_way -= 1
        return task

    def size() -> int:
        sizings.append(len(concurrency))
        return 6

    assert len(list(pool.stream(range(40), fetch, size))) == 40
    assert len(list(pool.stream(range(40), fetch, size))) == 40
    assert (sizings, pool.workers) == ([warmup], 6)
    assert max(count for _, count in concurrency[:3]) <= at_once
    assert max(count for _, count in concurrency) <= 6
    pool.close()


def test_fewer_workers_than_the_warm_up_had_are_enough_if_they_are_sized_so() -> None:
    pool, lock, under_way, most = WorkerPool(warmup=4), threading.Lock(), 0, 0

    def fetch(task: int) -> int:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way if task > 8 else 0)
        time.sleep(0.005)
        with lock:
            under_way -= 1
        return task

    assert len(list(pool.stream(range(30), fetch, lambda: 2))) == 30
    assert most <= 2
    pool.close()


@given(st.integers(0, 5), st.lists(st.integers(0, 6), max_size=4))
def test_tasks_that_start_early_run_once_and_are_no_more_than_the_warm_up(warmup: int, wanted: list[int]) -> None:
    pool, run = WorkerPool(warmup), list[int]()

    def fetch(task: int) -> int:
        run.append(task)
        return -task

    early: dict[int, Future[int]] = {}
    for number, count in enumerate(wanted):
        early |= pool.start_early(range(number * 100, number * 100 + count), fetch)
    assert len(early) == min(warmup, sum(wanted))
    stream = pool.stream(range(20), fetch, lambda: 4, early)
    assert list(stream) == [(task, -task) for task in range(20)]
    assert {task: future.result(30) for task, future in early.items()} == {task: -task for task in early}
    assert sorted(run) == sorted({*range(20), *early})
    assert pool.start_early(range(3), fetch) == {}
    pool.close()


def test_the_look_ahead_is_bounded() -> None:
    pool, started = WorkerPool(warmup=1), list[int]()

    def fetch(task: int) -> int:
        started.append(task)
        return task

    stream = pool.stream(range(1_000), fetch, lambda: 4)
    for _ in range(10):
        next(stream)
    time.sleep(0.1)
    assert len(started) <= 10 + 4 * 4
    pool.close()


def test_a_failed_task_yields_its_error_and_the_others_continue() -> None:
    pool = WorkerPool(warmup=1)

    def fetch(task: int) -> int:
        if task == 5:
            raise NoConnection("gone")
        return task

    outcomes = dict(pool.stream(range(10), fetch, lambda: 3))
    assert isinstance(outcomes.pop(5), NoConnection)
    assert outcomes == {task: task for task in range(10) if task != 5}
    pool.close()


def test_after_an_error_that_ends_the_run_the_remaining_tasks_are_not_tried() -> None:
    pool, tried = WorkerPool(warmup=1), list[int]()

    def fetch(task: int) -> int:
        tried.append(task)
        raise UnknownSymbol("no such symbol")

    outcomes = list(pool.stream(range(500), fetch, lambda: 4))
    assert [task for task, _ in outcomes] == list(range(500))
    assert type(outcomes[0][1]) is UnknownSymbol
    assert {type(outcome) for _, outcome in outcomes[1:]} == {NotSent}
    assert all("no such symbol" in str(outcome) for _, outcome in outcomes)
    assert len(tried) < 40
    pool.close()


def test_many_failed_tasks_in_a_row_do_not_end_the_stream() -> None:
    pool = WorkerPool(warmup=1)

    def fetch(task: int) -> int:
        if 20 <= task < 200:
            raise NoConnection("gone for a while")
        return task

    outcomes = dict(pool.stream(range(400), fetch, lambda: 4))
    assert [task for task, outcome in outcomes.items() if outcome == task] == [*range(20), *range(200, 400)]
    pool.close()


def test_closing_the_pool_ends_a_stream_even_while_a_task_hangs() -> None:
    pool, hung = WorkerPool(warmup=1), threading.Event()

    def fetch(task: int) -> int:
        if task == 3:
            hung.wait()  # longer than a test may last: only the pool can end it
        return task

    stream = pool.stream(range(20), fetch, lambda: 2)
    for _ in range(3):
        next(stream)
    threading.Timer(0.1, pool.close).start()
    with pytest.raises(Cancelled):
        for _ in stream:
            pass
    hung.set()


def test_a_stream_with_pauses_yields_none_while_a_result_is_late_and_loses_no_result() -> None:
    pool, late = WorkerPool(warmup=1), threading.Event()

    def fetch(task: int) -> int:
        if task == 2:
            late.wait(60)
        return task

    items = []
    for item in pool.stream_with_pauses(range(4), fetch, lambda: 2, pause=0.05):
        items.append(item)
        if item is None:
            late.set()
    pool.close()
    assert [item for item in items if item is not None] == [(task, task) for task in range(4)]
    assert None in items
