"""Fetching for a run: the series of a step, and the next series while one is written.

Dagster executes the steps of a run one after another. A run over one day of two hundred series would therefore wait for
one or two pages at a time, two hundred times. So a run over many short series fetches several at once. A long series
keeps the workers busy alone; the next one begins when all of it has arrived, while its last files are written.

Here belongs what a step fetches, as plain values. What does not belong here: Dagster. Threads outlive the step that
started them, and a Dagster context is valid only during its own step.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import closing
from dataclasses import dataclass
from typing import Final, NamedTuple

from binance_assets.exchange.errors import Cancelled, ExchangeError
from binance_assets.exchange.session import Exchange
from binance_assets.ingest.download import download
from binance_assets.ingest.options import DownloadOptions
from binance_assets.ingest.revisit import revisit
from binance_assets.ingest.sources import unavailable
from binance_assets.model.partitions import Partition
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import Series
from binance_assets.orchestration.background import BackgroundIterator
from binance_assets.settings import Source
from binance_assets.storage.lake import Lake

# This many series at once keep the workers of an exchange busy with one or two pages each.
_SERIES_AT_ONCE: Final = 16
# The most candles of one series that may be fetched as a whole: about a month of 1m. A longer series keeps the workers
# busy alone. Of its successor a few partitions wait in memory, so each of them must not have more either.
_MAX_ROWS: Final = 45_000
# How often a waiting step checks whether the prefetcher was closed. A wait without a timeout ignores Ctrl-C on Windows.
_POLL_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class FetchTask:
    """What one step fetches.

    Attributes:
        series: The series.
        source: Where its candles come from.
        partitions: The partitions of the run, ascending.
        only_missing: Whether to skip partitions that are in the lake when the fetch starts. Those in doubt are
            validated again without a request for candles.
    """

    series: Series
    source: Source
    partitions: tuple[Partition, ...]
    only_missing: bool


def fetch(task: FetchTask, exchange: Exchange, lake: Lake, strict: bool) -> Iterator[PartitionResult]:
    """Fetch and validate the partitions of ``task``, after a check that the lake accepts candles of this venue.

    Args:
        task: What to fetch.
        exchange: The market of the series.
        lake: Where partitions are looked up and first open times are cached; no partition is written.
        strict: Whether to refuse ``unbalanced`` partitions.

    Raises:
        LakeError: The lake holds candles of another venue, or cannot be written.
        Cancelled: The exchange was closed.
    """
    partitions: Sequence[Partition] = task.partitions
    doubted: list[Partition] = []
    if task.only_missing:
        stored = lake.stored_among(task.series, partitions)
        partitions = [partition for partition in partitions if partition not in stored]
        doubted = [partition for partition, entry in stored.items() if entry.is_in_doubt]
    if not partitions and not doubted:
        return
    try:
        lake.prepare(exchange.venue, exchange.hosts)
    except ExchangeError as error:
        yield from (unavailable(task.series, partition, error) for partition in partitions)
        return
    options = DownloadOptions(task.source, strict, listing_cache=lake)
    refuted: list[Partition] = []
    for revisited in revisit(lake, exchange, task.series, doubted, options):
        if revisited.result is not None:
            yield revisited.result
        elif revisited.is_refuted:
            refuted.append(revisited.partition)
    if partitions or refuted:
        yield from download(exchange, task.series, sorted([*partitions, *refuted]), options)


def _most_rows(series: Sequence[Series], partitions: Sequence[Partition]) -> int:
    step = min(member.interval.step for member in series)
    return sum(partition.end - partition.start for partition in partitions) // step


class _Prefetched(NamedTuple):
    task: FetchTask
    results: Future[list[PartitionResult]]


class Prefetcher:
    """Fetches the series of a run before their steps begin, a bounded number at a time.

    At most ``_SERIES_AT_ONCE`` series are in memory: the series of the current step, and those that are being fetched
    or wait for their step. The order of the tasks affects speed only: a step that begins early fetches for itself.

    Only one thread at a time may use a prefetcher: the one that iterates over the results of the current step.

    Args:
        tasks: One task per series, in the order in which their steps are expected.
        fetch: Fetches a task; it runs in other threads and after the step that created the prefetcher.
    """

    def __init__(self, tasks: Iterable[FetchTask], fetch: Callable[[FetchTask], Iterable[PartitionResult]]) -> None:
        self._fetch = fetch
        self._pending = {task.series: task for task in tasks}
        self._under_way: dict[Series, _Prefetched] = {}
        self._closed = threading.Event()

    def results_for(self, task: FetchTask) -> Iterator[PartitionResult]:
        """Yield the results for the partitions of ``task``.

        They come from the prefetched results if this very task was prefetched. Otherwise they are fetched now: the
        step began earlier than expected, its configuration differs, or its results were already used (a retry).

        Raises:
            Cancelled: The run was stopped.
            Exception: Whatever fetching this task raised; other tasks are not affected.
        """
        self._pending.pop(task.series, None)
        prefetched = self._under_way.pop(task.series, None)
        self._start_more()
        if prefetched is not None and prefetched.task == task:
            yield from self._wait_for(prefetched.results)
        else:
            yield from self._fetch(task)

    def close(self) -> None:
        """Start no further task, and end the wait for those under way; their threads end with them or the exchange."""
        self._closed.set()

    def _start_more(self) -> None:
        while self._pending and len(self._under_way) < _SERIES_AT_ONCE - 1 and not self._closed.is_set():
            series = next(iter(self._pending))
            self._under_way[series] = self._start(self._pending.pop(series))

    def _start(self, task: FetchTask) -> _Prefetched:
        results: Future[list[PartitionResult]] = Future()

        def run() -> None:
            try:
                results.set_result(list(self._fetch(task)))
            except BaseException as error:  # raised again in the step of this series
                results.set_exception(error)

        # A daemon thread: a ThreadPoolExecutor would keep the process alive until a hung socket times out.
        threading.Thread(target=run, name="binance-prefetch", daemon=True).start()
        return _Prefetched(task, results)

    def _wait_for(self, results: Future[list[PartitionResult]]) -> list[PartitionResult]:
        while not self._closed.is_set():
            if wait([results], _POLL_SECONDS).done:
                return results.result()
        raise Cancelled


class TailPrefetcher:
    """Begins to fetch the next series of a run when all results of the current one have arrived.

    So the requests of the next step, among them those that have to wait for each other, do not wait for the last files
    of the current step and for its events. One series at a time is fetched ahead, and only until a few of its results
    wait for their step.

    Steps use it one after another; the end of one may overlap with the beginning of the next.

    Args:
        tasks: One task per series, in the order in which their steps are expected. The order affects speed only.
        fetch: Fetches a task; it runs in other threads and after the step that created the prefetcher.
    """

    def __init__(self, tasks: Iterable[FetchTask], fetch: Callable[[FetchTask], Iterable[PartitionResult]]) -> None:
        self._fetch = fetch
        self._pending = {task.series: task for task in tasks}
        self._ahead: tuple[FetchTask, BackgroundIterator[PartitionResult]] | None = None
        self._is_closed = False
        self._lock = threading.Lock()

    def results_for(self, task: FetchTask) -> Iterator[PartitionResult]:
        """Yield the results for the partitions of ``task``, fetched ahead or now; then begin with the next series.

        Raises:
            Cancelled: The run was stopped.
            Exception: Whatever fetching this task raised; other tasks are not affected.
        """
        ahead = self._take(task)
        if ahead is None:
            yield from self._fetch(task)
        else:
            with closing(ahead):
                yield from self._arrived(ahead)
        self._begin_next()

    def close(self) -> None:
        """Begin no further series, and drop what was fetched ahead; its thread ends with the exchange."""
        with self._lock:
            self._is_closed = True
            if self._ahead is not None:
                self._ahead[1].close()

    def _take(self, task: FetchTask) -> BackgroundIterator[PartitionResult] | None:
        """Return what was fetched ahead if it is this very task."""
        with self._lock:
            self._pending.pop(task.series, None)
            if self._ahead is None or self._ahead[0].series != task.series:
                return None
            (found, results), self._ahead = self._ahead, None
        if found == task:
            return results
        results.close()  # its configuration differs
        return None

    def _arrived(self, results: BackgroundIterator[PartitionResult]) -> Iterator[PartitionResult]:
        for result in results:
            if self._is_closed:
                raise Cancelled
            if result is not None:
                yield result

    def _begin_next(self) -> None:
        with self._lock:
            if self._pending and self._ahead is None and not self._is_closed:
                task = self._pending.pop(next(iter(self._pending)))
                self._ahead = task, BackgroundIterator(iter(self._fetch(task)))


def kind_of_prefetcher(
    series: Sequence[Series], partitions: Sequence[Partition]
) -> type[Prefetcher] | type[TailPrefetcher] | None:
    """Return what makes a run over ``partitions`` of each of ``series`` faster, and fits in memory.

    Short series are fetched several at once. The beginning of a long one is, unless its candles are finer than 1m.
    """
    if len(series) > 1 and _most_rows(series, partitions) <= _MAX_ROWS:
        return Prefetcher
    if len(series) > 1 and _most_rows(series, partitions[:1]) <= _MAX_ROWS:
        return TailPrefetcher
    return None
