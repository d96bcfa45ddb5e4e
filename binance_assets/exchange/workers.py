"""Concurrent requests: a warm-up that measures the round trip, workers sized once, an ordered and bounded stream.

Nothing here knows HTTP; a task is any function call that may raise an :class:`ExchangeError`.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from types import MappingProxyType
from typing import Final, TypeVar

from binance_assets.exchange.errors import Cancelled, ExchangeError, NotSent

Task = TypeVar("Task")
Result = TypeVar("Result")
Other = TypeVar("Other")

_BURST_SECONDS: Final = 1.0
_STOP_POLL_SECONDS: Final = 0.1


def workers_needed(round_trip: float, pages: int, sustainable: float, cap: int) -> int:
    """Return how many requests to keep in flight.

    Enough to send the pages within a second, and never less than twice what the weight budget sustains. So
    neither a faster network nor one page more than the minute allows makes a download much slower.

    Args:
        round_trip: Mean time from a request to its response, seconds.
        pages: Pages that are left and that this minute's weight still allows.
        sustainable: Requests per second that the budget allows in the long run.
        cap: The highest number of workers that the settings allow.
    """
    burst = math.ceil(round_trip * pages / _BURST_SECONDS)
    sustained = 2 * math.ceil(round_trip * sustainable)
    return max(1, min(cap, max(burst, sustained)))


class WorkerPool:
    """Worker threads that live as long as a run.

    The workers are daemon threads, because a ``ThreadPoolExecutor`` would keep the process from ending until the
    last hung socket timed out.

    Args:
        warmup: How many tasks run at once before the workers are sized.
        ahead_per_worker: How many results for each worker may be in flight or wait to be used.
        cap: The highest number of workers, those of the warm-up included.
        early: How many tasks may start early, before the workers are sized; None for as many as the warm-up has.

    Attributes:
        workers: Requests that may be in flight at once, fixed after the warm-up; 1 until then.
        sized: Whether the warm-up is over.
        stop: Set to end every wait; see :meth:`close`.
    """

    def __init__(self, warmup: int, ahead_per_worker: int = 4, cap: int = 1_000, early: int | None = None) -> None:
        self.workers = 1
        self.sized = False
        self.stop = threading.Event()
        self._warmup_left = warmup
        self._early_left = warmup if early is None else early
        self._warmup_threads = max(1, min(max(warmup, self._early_left), cap))
        self._ahead_per_worker = ahead_per_worker
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads = 0
        self._growing = threading.Lock()
        self._sizing = threading.Lock()

    def start_early(self, tasks: Sequence[Task], fetch: Callable[[Task], Result]) -> dict[Task, Future[Result]]:
        """Start the first tasks of a stream before it is known whether there will be one, as part of the warm-up.

        All calls together start no more tasks than ``early``, and none after the warm-up. What is not used costs no
        more than that.

        Args:
            tasks: The tasks, in the order of the stream.
            fetch: As for :meth:`stream`.

        Returns:
            The tasks that were started, for :meth:`stream`.
        """
        with self._sizing:
            count = 0 if self.sized else min(self._early_left, len(tasks))
            self._early_left -= count
        if count:
            self._adjust_threads()
        return {task: self._submit(task, fetch) for task in tasks[:count]}

    def stream(
        self,
        tasks: Iterable[Task],
        fetch: Callable[[Task], Result],
        size: Callable[[], int],
        started: Mapping[Task, Future[Result]] = MappingProxyType({}),
    ) -> Iterator[tuple[Task, Result | ExchangeError]]:
        """Yield every task with its result, or the error that took its place, in the order of the tasks.

        Several threads may each have a stream of their own; they share the workers.

        Only as many tasks as keep the workers busy are in flight, or done and not yet used, so memory does not grow
        with the number of tasks. Once a task's error ends the run, the remaining tasks are not tried; they get a
        :class:`NotSent`.

        Args:
            tasks: The tasks.
            fetch: Does one task in a worker; raises :class:`ExchangeError` if it fails.
            size: Called once, after the warm-up; returns the number of workers to use from then on.
            started: Tasks that run already, from :meth:`start_early`.

        Yields:
            A task, and its result or error.

        Raises:
            Cancelled: The pool was closed.
        """
        for item in self.stream_with_pauses(tasks, fetch, size, math.inf, started):
            if item is not None:
                yield item

    def stream_with_pauses(
        self,
        tasks: Iterable[Task],
        fetch: Callable[[Task], Result],
        size: Callable[[], int],
        pause: float,
        started: Mapping[Task, Future[Result]] = MappingProxyType({}),
    ) -> Iterator[tuple[Task, Result | ExchangeError] | None]:
        """Do the same as :meth:`stream`, and yield None each time that a result takes ``pause`` seconds longer."""
        if self._warmup_left <= 0:
            self._size(size)
        self._adjust_threads()
        waiting = iter(tasks)
        in_flight: deque[tuple[Task, Future[Result]]] = deque()
        while True:
            while len(in_flight) < self._look_ahead() and (task := next(waiting, None)) is not None:
                in_flight.append((task, started[task] if task in started else self._submit(task, fetch)))
            if not in_flight:
                return
            task, future = in_flight.popleft()
            while not self._is_done(future, pause):
                yield None
            try:
                outcome: Result | ExchangeError = self._await(future)
            except ExchangeError as error:
                outcome = error
            yield task, outcome
            if isinstance(outcome, ExchangeError) and outcome.policy.ends_run:
                for _, future in in_flight:
                    future.cancel()
                not_sent = NotSent.after(outcome)
                for task in (*(task for task, _ in in_flight), *waiting):
                    yield task, not_sent
                return
            self._after_warmup(size)

    def run(self, call: Callable[[], Result]) -> Result:
        """Run ``call`` in a thread of its own and return its result; stop waiting for it when the pool is closed.

        Raises:
            Cancelled: The pool was closed.
        """
        return self._await(self._start(call))

    def run_both(self, first: Callable[[], Result], second: Callable[[], Other]) -> tuple[Result, Other]:
        """Run two calls at once, ``second`` in a thread of its own, and return the results of both.

        If ``first`` fails, the outcome of ``second`` does not matter and is not waited for.

        Raises:
            Cancelled: The pool was closed.
        """
        future = self._start(second)
        return first(), self._await(future)

    def _start(self, call: Callable[[], Result]) -> Future[Result]:
        future: Future[Result] = Future()
        threading.Thread(target=_fulfill, args=(future, call), name="binance-call", daemon=True).start()
        return future

    def _is_done(self, future: Future[Result], seconds: float) -> bool:
        """Return whether the future is done, or the pool closed, within so many seconds."""
        deadline = time.monotonic() + seconds
        while not future.done() and not self.stop.is_set():
            if time.monotonic() >= deadline:
                return False
            wait([future], min(seconds, _STOP_POLL_SECONDS))
        return True

    def _await(self, future: Future[Result]) -> Result:
        # A worker that hangs in a socket never sets its result, so the wait checks again and again for a closed pool.
        while not self.stop.is_set():
            if not future.done() and not wait([future], _STOP_POLL_SECONDS).done:
                continue
            try:
                return future.result()
            except BaseException:
                if self.stop.is_set():
                    break  # an error after the pool was closed only means that the task was cut short
                raise
        raise Cancelled

    def _look_ahead(self) -> int:
        return self._ahead_per_worker * self.workers if self.sized else max(1, self._warmup_left)

    def _after_warmup(self, size: Callable[[], int]) -> None:
        self._warmup_left -= 1
        if self._warmup_left <= 0:
            self._size(size)

    def _size(self, size: Callable[[], int]) -> None:
        with self._sizing:
            if not self.sized:
                self.workers, self.sized = size(), True
        self._adjust_threads()

    def _submit(self, task: Task, fetch: Callable[[Task], Result]) -> Future[Result]:
        future: Future[Result] = Future()

        def call() -> Result:
            if self.stop.is_set():
                raise Cancelled
            return fetch(task)

        self._work.put(lambda: _fulfill(future, call))
        return future

    def _adjust_threads(self) -> None:
        with self._growing:
            wanted = self.workers if self.sized else self._warmup_threads
            for _ in range(self._threads, wanted):
                threading.Thread(target=self._work_on, name="binance-page", daemon=True).start()
            for _ in range(wanted, self._threads):
                self._work.put(None)  # the warm-up had more than it found to be needed
            self._threads = wanted

    def _work_on(self) -> None:
        while (work := self._work.get()) is not None:
            work()

    def close(self) -> None:
        """End every wait and every idle worker; do not wait for requests in flight."""
        self.stop.set()
        for _ in range(self._threads):
            self._work.put(None)
        self._threads = 0


def _fulfill(future: Future[Result], call: Callable[[], Result]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(call())
    except BaseException as error:
        future.set_exception(error)
