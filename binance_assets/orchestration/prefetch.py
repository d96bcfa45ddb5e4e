"""Runs over many series: the next ones are fetched while one is written.

Dagster executes the steps of a run one after another. With a day of each of two hundred series, most of the time would
be spent waiting for one or two pages at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from binance_assets.exchange.workers import WorkerPool
from binance_assets.model.partitions import Partition
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import Series

# As many series at once keep a pool of workers busy with one or two pages each.
_SERIES_AT_ONCE: Final = 16


# What a series may have to be fetched ahead as a whole: about a month of 1m. More keeps the workers busy alone.
_MOST_ROWS: Final = 45_000


Fetch = Callable[[Series], list[PartitionResult]]


class Prefetcher:
    """The series of a run, each fetched as a whole before its step comes; no more of them than are under way.

    Args:
        series: The series in the order in which their steps will probably run.
        fetch: Fetches one.
    """

    def __init__(self, series: Sequence[Series], fetch: Fetch) -> None:
        self._pool = WorkerPool(warmup=0, ahead_per_worker=1)
        self._done: dict[Series, list[PartitionResult] | BaseException] = {}
        self._expected = set(series)

        def outcome(one: Series) -> list[PartitionResult] | BaseException:
            try:
                return fetch(one)
            except BaseException as error:  # it belongs to the step of its series, and to no other
                return error

        self._stream = self._pool.stream(series, outcome, lambda: min(_SERIES_AT_ONCE, len(series)))

    def results_for(self, series: Series) -> Iterator[PartitionResult]:
        """The verdicts on the periods of ``series``.

        Raises:
            Cancelled: The run was stopped.
            Exception: Whatever fetching it raised.
        """
        if series not in self._expected:
            raise KeyError(f"{series} is not of this run")
        while series not in self._done:
            one, found = next(self._stream)
            self._done[one] = found
        outcome = self._done.pop(series)
        if isinstance(outcome, BaseException):
            raise outcome
        yield from outcome

    def close(self) -> None:
        """Stop fetching."""
        self._pool.close()


def should_prefetch(series: Sequence[Series], partitions: Sequence[Partition]) -> bool:
    """Whether a run over ``partitions`` of each of ``series`` gains by it, and all that is fetched ahead is little."""
    rows = sum(partition.end - partition.start for partition in partitions) // min(one.interval.step for one in series)
    return len(series) > 1 and rows <= _MOST_ROWS
