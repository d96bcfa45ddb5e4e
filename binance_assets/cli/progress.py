"""What a command shows while it works: a bar and what it waits for; without a terminal, a line from time to time."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, TextIO

import click
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.spinner import Spinner
from rich.text import Text

from binance_assets.model.outside import printable
from binance_assets.model.series import Series
from binance_assets.waiting import BEGAN, Activity, activity, phase

if TYPE_CHECKING:
    from binance_assets.exchange.session import Exchange
    from binance_assets.model.results import PartitionResult
    from binance_assets.orchestration.metrics import RunMetrics

# Without a terminal, a log gets the first line after this silence, counted from the start of the process, because a
# loaded machine takes long to load the program. Then it gets a line at most this often, so that it stays readable.
_FIRST_LINE_SECONDS: Final = 1
_SECONDS_BETWEEN_LINES: Final = 30
# A terminal shows a frame this often. Where other output must stay as it is, it gets a line this often instead.
_FRAME_SECONDS: Final = 0.1
_SECONDS_BETWEEN_SHOWN_LINES: Final = 1.5
_POLL_SECONDS: Final = 0.2
# Shorter waits are not shown: with many requests in flight, one of them always waits for a moment.
_SHORTEST_WAIT_SECONDS: Final = 0.7
_SLOW_SECONDS: Final = 2
_LONGEST_LINE: Final = 300


def in_words(now: Activity) -> str:
    """Return what a command does or waits for, in one line; empty if nothing in it says so."""
    if now.wait is not None and now.wait_seconds >= _SHORTEST_WAIT_SECONDS:
        return printable(str(now.wait), _LONGEST_LINE)
    parts = [printable(now.phase, _LONGEST_LINE)] if now.phase else []
    if now.requests:
        oldest = f", the oldest for {now.request_seconds:.0f} s" if now.request_seconds >= _SLOW_SECONDS else ""
        parts.append(("1 request" if now.requests == 1 else f"{now.requests} requests") + f" in flight{oldest}")
    return "; ".join(parts)


Place = Literal["frames", "lines", "log"]
"""Where progress goes: frames of a terminal, each in the place of the last; lines of a terminal; lines of a log."""


def next_output(place: Place, began: float, last: float | None) -> float:
    """Return when the next output is due, whatever the command does then, as a time in seconds.

    Args:
        place: Where the output goes.
        began: When the process began.
        last: When the last output was shown; None if none was.
    """
    if last is None:
        return began + {"frames": 0, "lines": _SECONDS_BETWEEN_SHOWN_LINES, "log": _FIRST_LINE_SECONDS}[place]
    pauses = {"frames": _FRAME_SECONDS, "lines": _SECONDS_BETWEEN_SHOWN_LINES, "log": _SECONDS_BETWEEN_LINES}
    return last + pauses[place]


def shown(done: str, doing: str, otherwise: str) -> str:
    """Return the words of an output, which is never empty.

    Args:
        done: How far the command is; empty if it counts nothing yet.
        doing: What it does or waits for, from :func:`in_words`.
        otherwise: What to show while neither says anything.
    """
    return "; ".join(part for part in (done, doing) if part.strip()) or otherwise


def with_time(text: str) -> str:
    """Return a line of progress: the time of day, UTC, and what happens."""
    return f"{time.strftime('%H:%M:%S', time.gmtime())} {text}"


class Display:
    """Shows on standard error what the command does and waits for, until the block ends.

    Without a terminal, it prints a line if the process runs for a second; then at most every half a minute, also while
    nothing completes. Each of these lines begins with the time, UTC.

    Args:
        loading: What is loaded while the code of the block names nothing yet.
    """

    def __init__(self, loading: str = "Polars") -> None:
        self._otherwise = f"loading {loading}"
        self._stream = _copy_of_stderr()
        self._console = Console(file=self._stream or sys.stderr)
        self._spinner = Spinner("dots")
        self._bars = _Bars(self._status_line, self._console)
        self._task: TaskID | None = None
        self._total = 0
        self._done = 0
        self._rows = 0
        self._subject = ""
        self._last_line: float | None = None
        self._ended = threading.Event()
        self._printing = threading.Lock()

    def __enter__(self) -> Display:
        if self._console.is_interactive:
            self._bars.start()
        else:
            if self._is_due():
                self._print_line()  # by this thread: while modules load, another one may not get its turn for seconds
            threading.Thread(target=self._print_lines, name="cli-progress", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._console.is_interactive:
            self._bars.stop()
        with self._printing:
            if self._stream is not None:
                self._stream.close()

    def begin(self, subject: str, total: int) -> None:
        """Show that the work on ``total`` partitions, series, or files of a subject begins."""
        self._subject, self._total, self._done = subject, total, 0
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._task = self._bars.add_task(subject, total=total, rows="")

    def advance(self, count: int) -> None:
        """Count what is done."""
        self._done += count
        if self._task is not None:
            self._bars.update(self._task, completed=self._done, rows=f"{self._rows:,} candles" if self._rows else "")

    def note(self, text: str) -> None:
        """Print a line that stays."""
        if self._console.is_interactive:
            self._console.out(text)
        else:
            click.echo(text, err=True)

    def _rename(self, subject: str) -> None:
        self._subject = subject
        if self._task is not None:
            self._bars.update(self._task, description=subject)

    def _doing(self) -> str:
        words = in_words(activity())
        if words:  # from now on, silence of the code no longer means that something is loaded
            self._otherwise = "working"
        return words

    def _status_line(self) -> RenderableType:
        words = shown("", self._doing(), self._otherwise)
        self._spinner.update(text=Text(words, no_wrap=True, overflow="ellipsis"))
        return self._spinner

    def _print_lines(self) -> None:
        while not self._ended.wait(_POLL_SECONDS):
            if self._is_due():
                self._print_line()

    def _is_due(self) -> bool:
        """Return whether it is time for a line."""
        return time.monotonic() >= next_output("log", BEGAN, self._last_line)

    def _print_line(self) -> None:
        with self._printing:
            if self._ended.is_set():
                return
            self._last_line = time.monotonic()
            rows = f", {self._rows:,} candles" if self._rows else ""
            done = f"{self._subject}: {self._done:,} of {self._total:,} done{rows}" if self._total else ""
            self._console.out(with_time(shown(done, self._doing(), self._otherwise)))


class _Bars(Progress):
    """Bars, and below them a line that names what the command waits for."""

    def __init__(self, status_line: Callable[[], RenderableType], console: Console) -> None:
        self._get_status_line = status_line
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rows]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_interactive,
            transient=True,
            refresh_per_second=1 / _FRAME_SECONDS,
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return the bars, if there are any yet, and the line."""
        if self.tasks:
            yield from super().get_renderables()
        yield self._get_status_line()


class ProgressView(Display):
    """The view of a download on the command line: shows its progress, keeps its results, and can end it.

    Args:
        total: Number of partitions that the runs are to fetch, as far as it is known; see :meth:`begin`.
    """

    def __init__(self, total: int = 0) -> None:
        super().__init__()
        self.refused: dict[Series, list[PartitionResult]] = {}
        self.metrics: dict[Series, RunMetrics] = {}
        self._exchanges: list[Exchange] = []
        self._until_the_end = ExitStack()
        self._total = total

    def __enter__(self) -> ProgressView:
        super().__enter__()
        return self

    def _is_due(self) -> bool:
        """Return whether it is time for a line: a download takes long, so its first one is due at once."""
        return self._last_line is None or super()._is_due()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._until_the_end.close()

    def begin(self, subject: str, total: int) -> None:
        """Show that the download begins; without a terminal, by a line."""
        super().begin(subject, total)
        if total and not self._console.is_interactive:
            self._print_line()

    def started(self, series: Series, exchange: Exchange) -> None:
        """Show that the download of a series begins, or begins again."""
        self.refused.pop(series, None)
        self._exchanges.append(exchange)
        self._rename(str(series))

    def partition_done(self, series: Series, result: PartitionResult) -> None:
        """Count a partition that was written, or keep one that was refused."""
        if result.is_accepted:
            self._rows += result.candles.height
        else:
            self.refused.setdefault(series, []).append(result)
        self.advance(1)

    def partition_declined(self, series: Series, result: PartitionResult) -> None:
        """Keep a partition that was not written because the stored one is better."""
        self.refused.setdefault(series, []).append(result)

    def finished(self, series: Series, metrics: RunMetrics) -> None:
        """Keep the metrics of a series whose download has ended."""
        self.metrics[series] = metrics

    def stop(self) -> None:
        """End the run: close its exchanges, which ends every wait in them at once."""
        self._until_the_end.enter_context(phase("interrupted; writing what has arrived"))
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
