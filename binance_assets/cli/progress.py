"""Progress bars on a terminal; elsewhere a line from time to time."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Final, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from binance_assets.model.series import Series

if TYPE_CHECKING:
    from binance_assets.exchange.session import Exchange
    from binance_assets.model.results import PartitionResult
    from binance_assets.orchestration.metrics import RunMetrics

# Without a terminal, a log gets a line at most this often instead of a bar, so that it stays readable.
_SECONDS_BETWEEN_LINES: Final = 30


class ProgressView:
    """The view of a run on the command line: shows its progress, keeps its results, and can end it.

    Args:
        total: Number of partitions that the run is to fetch.
    """

    def __init__(self, total: int) -> None:
        self.refused: dict[Series, list[PartitionResult]] = {}
        self.metrics: dict[Series, RunMetrics] = {}
        self._exchanges: list[Exchange] = []
        self._stream = _copy_of_stderr()
        self._console = Console(file=self._stream or sys.stderr)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rows]:,} candles"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._task: TaskID = self._progress.add_task("starting", total=total, rows=0)
        self._rows = 0
        self._done = 0
        self._total = total
        self._last_line = time.monotonic()

    def __enter__(self) -> ProgressView:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        if self._stream is not None:
            self._stream.close()

    def started(self, series: Series, exchange: Exchange) -> None:
        """Show that the download of a series begins."""
        self._exchanges.append(exchange)
        self._progress.update(self._task, description=str(series))

    def partition_done(self, series: Series, result: PartitionResult) -> None:
        """Count a partition that was written, or keep one that was refused."""
        if result.is_accepted:
            self._rows += result.candles.height
        else:
            self.refused.setdefault(series, []).append(result)
        self._done += 1
        self._progress.update(self._task, advance=1, rows=self._rows)
        if not self._console.is_terminal and time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self._console.out(f"{series}: {self._done:,} of {self._total:,} done, {self._rows:,} candles")

    def partition_declined(self, series: Series, result: PartitionResult) -> None:
        """Keep a partition that was not written because the stored one is better."""
        self.refused.setdefault(series, []).append(result)

    def finished(self, series: Series, metrics: RunMetrics) -> None:
        """Keep the metrics of a series whose download has ended."""
        self.metrics[series] = metrics

    def stop(self) -> None:
        """End the run: close its exchanges, which ends every wait in them at once."""
        for exchange in self._exchanges:
            exchange.close()


def _copy_of_stderr() -> TextIO | None:
    """Return another stream to standard error; None if standard error has no descriptor.

    Dagster redirects the standard streams of a process while a step runs. A copy of the descriptor is not redirected.
    """
    try:
        return os.fdopen(os.dup(sys.stderr.fileno()), "w")
    except (OSError, AttributeError):
        return None


@contextmanager
def progress_bar(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on a terminal; yield the function that advances it by a number of steps of ``total``."""
    with Progress(
        TextColumn(description),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    ) as progress:
        task = progress.add_task(description, total=total)
        yield lambda count: progress.advance(task, count)
