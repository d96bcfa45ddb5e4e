"""What the command line shows: a progress bar while a run is under way, and tables."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from binance_assets.exchange.session import Exchange
from binance_assets.ingest.request import DownloadPlan
from binance_assets.ingest.verify import Finding
from binance_assets.model.results import PartitionResult, format_spans
from binance_assets.model.series import Series
from binance_assets.model.timestamps import to_iso
from binance_assets.orchestration.metrics import RunMetrics
from binance_assets.settings import Source

_NAMED_DAYS: Final = 10


# Without a terminal there is no bar; a log gets a line from time to time.
_LINE_SECONDS: Final = 30


class ProgressView:
    """Watches a run: keeps what it said, shows a progress bar where there is a terminal, can end it.

    Args:
        total: How many periods will be judged in all.
    """

    def __init__(self, total: int) -> None:
        self.refused: dict[Series, list[PartitionResult]] = {}
        self.metrics: dict[Series, RunMetrics] = {}
        self._exchanges: list[Exchange] = []
        # Dagster redirects the standard streams of a process while a step runs; a copy of the descriptor stays ours.
        self._console = Console(file=os.fdopen(os.dup(sys.stderr.fileno()), "w"))
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
        self._told = time.monotonic()

    def __enter__(self) -> ProgressView:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        self._console.file.close()

    def started(self, series: Series, exchange: Exchange) -> None:
        """A series begins."""
        self._exchanges.append(exchange)
        self._progress.update(self._task, description=str(series))

    def partition_done(self, series: Series, result: PartitionResult) -> None:
        """A period was written or refused."""
        if result.is_accepted:
            self._rows += result.candles.height
        else:
            self.refused.setdefault(series, []).append(result)
        self._done += 1
        self._progress.update(self._task, advance=1, rows=self._rows)
        if not self._console.is_terminal and time.monotonic() - self._told > _LINE_SECONDS:
            self._told = time.monotonic()
            self._console.out(f"{series}: {self._done:,} of {self._total:,} done, {self._rows:,} candles")

    def finished(self, series: Series, metrics: RunMetrics) -> None:
        """A series is through."""
        self.metrics[series] = metrics

    def stop(self) -> None:
        """End the run: whatever it waits for in the exchange ends at once."""
        for exchange in self._exchanges:
            exchange.close()


@contextmanager
def progressing(message: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal; yields what advances it by so many of ``total``."""
    with Progress(
        TextColumn(message),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    ) as progress:
        task = progress.add_task(message, total=total)
        yield lambda count: progress.advance(task, count)


def outcome(download_plan: DownloadPlan, present: int, view: ProgressView) -> dict[str, Any]:
    """What became of a series, in the shape that ``--json`` prints."""
    metrics = view.metrics.get(download_plan.series)
    return {
        "days_asked": len(download_plan.asked),
        "days_present": present,
        "refused": [
            {
                "day": result.partition.key,
                "verdict": result.verdict,
                "missing": [[to_iso(start), to_iso(end)] for start, end in result.missing],
                "reason": result.reason,
            }
            for result in view.refused.get(download_plan.series, [])
        ],
        "requests": metrics.requests if metrics else 0,
        "weight": metrics.weight if metrics else 0,
        "warmup": metrics.warmup if metrics else 0,
        "workers": metrics.workers if metrics else 0,
        "rtt_ms": metrics.rtt_ms if metrics else None,
        "rows": metrics.rows if metrics else 0,
        "seconds": round(metrics.seconds, 3) if metrics else 0.0,
    }


def print_plan(plans: Sequence[DownloadPlan], sources: Mapping[Series, Source]) -> None:
    """What would be fetched, as a table."""
    table = _table("series", "first", "end", "asked", "present", "missing", "requests", "weight", "files")
    for download_plan in plans:
        takes = download_plan.forecast(sources[download_plan.series])
        first, last = (download_plan.asked[0].key, download_plan.asked[-1].key) if download_plan.asked else ("-", "-")
        partitions = (len(download_plan.asked), len(download_plan.present), len(download_plan.missing))
        counts = (*partitions, takes.requests, takes.weight, takes.files)
        table.add_row(str(download_plan.series), first, last, *(f"{count:,}" for count in counts))
    _out().print(table)


def print_outcomes(outcomes: dict[str, dict[str, Any]], view: ProgressView) -> None:
    """What became of each series, as a table, and the refused days with their reasons."""
    names = ("asked", "present", "refused", "candles", "requests", "weight", "workers", "round trip", "seconds")
    table = _table("series", *names, "candles/s")
    for name, found in outcomes.items():
        rtt = f"{found['rtt_ms']:.1f} ms" if found["rtt_ms"] is not None else "-"
        speed = f"{found['rows'] / found['seconds']:,.0f}" if found["seconds"] else "-"
        counts = (found["days_asked"], found["days_present"], len(found["refused"]), found["rows"])
        spent = (found["requests"], found["weight"], found["workers"])
        table.add_row(name, *(f"{count:,}" for count in (*counts, *spent)), rtt, f"{found['seconds']:.1f}", speed)
    _out().print(table)
    for series, refused in view.refused.items():
        for result in refused[:_NAMED_DAYS]:
            reason = result.reason or format_spans(result.missing)
            print(f"refused: {series} {result.partition} is {result.verdict}: {reason}", file=sys.stderr)
        if len(refused) > _NAMED_DAYS:
            print(f"refused: {series}: {len(refused) - _NAMED_DAYS} more; --json names them all", file=sys.stderr)


def print_findings(findings: Sequence[Finding]) -> None:
    """What differs, as a table."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("series", "partition", "what differs"):
        table.add_column(name, no_wrap=name != "what differs", overflow="fold")
    for finding in findings:
        table.add_row(str(finding.series), finding.partition.key, finding.message)
    _out().print(table)


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for position, name in enumerate(names):
        table.add_column(name, justify="left" if position == 0 else "right", no_wrap=True)
    return table


def _out() -> Console:
    # Tables keep their width where the output is a file or a pipe.
    return Console() if sys.stdout.isatty() else Console(width=160)
