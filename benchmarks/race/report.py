"""The report of a race as Markdown: tables, and their place between two marks of a page."""

from __future__ import annotations

import datetime as dt
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import psutil

from benchmarks.race.comparison import Comparison
from benchmarks.race.contestants import NOTES, Note
from benchmarks.race.exchange import ROUND_TRIP_MS
from benchmarks.race.runner import HoleRun, Run

BEGIN_MARK: Final = "<!-- race: written by `make race`, do not edit -->"
END_MARK: Final = "<!-- end of race -->"
_IDLE: Final = 0.5
_BUSY: Final = (
    " The machine was busy with other work: the wall times are too long, and only the CPU times can be compared."
)


@dataclass(frozen=True)
class Conditions:
    """Under which conditions a race ran: nothing that names a host, a path or an address.

    Attributes:
        day: The day of the race (UTC).
        cores: Cores of the machine.
        python: Version of Python.
        busy: Cores that other work kept busy in the second before the race. The load average remembers minutes.
    """

    day: dt.date
    cores: int
    python: str
    busy: float


def conditions_now() -> Conditions:
    """Return the conditions of a race that begins now."""
    cores = os.cpu_count() or 1
    busy = psutil.cpu_percent(interval=1) / 100 * cores
    return Conditions(dt.datetime.now(dt.UTC).date(), cores, platform.python_version(), busy)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], right: int = 0) -> str:
    """Return a Markdown table.

    Args:
        header: Names of the columns.
        rows: The cells.
        right: How many of the last columns are aligned to the right.
    """
    lines = ["|---"] * (len(header) - right) + ["|---:"] * right
    return "\n".join([_table_line(header), "".join(lines) + "|", *map(_table_line, rows)])


def _table_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def describe(comparison: Comparison | None) -> str:
    """Return how candles compare with the truth, in a few words: ``exact``, or what is wrong with them."""
    if comparison is None:
        return "none"
    counts = {
        "missing": comparison.missing, "doubled": comparison.duplicates, "past the range": comparison.outside,
        "unknown": comparison.unknown, "with other values": comparison.different,
    }  # fmt: skip
    faults = [f"{count:,} {name}" for name, count in counts.items() if count]
    faults += [] if comparison.is_sorted else ["not sorted"]
    return ", ".join(faults) or "exact"


def speed_table(runs: Sequence[Run], versions: Mapping[str, str]) -> str:
    """Return the table of one workload, fastest first."""
    header = ["tool", "version", "source", "candles", "columns"]
    numbers = ["rows", "wall, s", "CPU, s", "memory, MB", "rows/s", "requests", "weight", "429s"]
    ordered = sorted(runs, key=lambda run: run.measured.seconds)
    return markdown_table(header + numbers, [_speed_row(run, versions) for run in ordered], len(numbers))


def _speed_row(run: Run, versions: Mapping[str, str]) -> list[str]:
    comparison, measured, counters = run.comparison, run.measured, run.counters
    rows = comparison.rows if comparison is not None else 0
    failure = f"exit code {measured.exit_code}, " if measured.exit_code else ""
    columns = f"{comparison.columns} of 11" if comparison is not None else ""
    return [
        run.contestant.title, versions[run.contestant.package], run.contestant.source,
        failure + describe(comparison), columns,
        f"{rows:,}", f"{measured.seconds:.1f}", f"{measured.cpu:.1f}", f"{measured.megabytes:.0f}",
        f"{rows / measured.seconds:,.0f}", f"{counters.requests:,}", f"{counters.weight:,}", str(counters.rejections),
    ]  # fmt: skip


def holes_table(runs: Sequence[HoleRun]) -> str:
    """Return the table of what tools did about planted holes."""
    titles = list(dict.fromkeys(run.hole.title for run in runs))
    lines: dict[str, dict[str, HoleRun]] = {}
    for run in runs:
        lines.setdefault(run.run.contestant.line, {})[run.hole.title] = run
    rows = [[line, *(_response_cell(cells[title]) for title in titles)] for line, cells in lines.items()]
    return markdown_table(["tool", *titles], rows)


def _response_cell(run: HoleRun) -> str:
    comparison = run.run.comparison
    if comparison is None:
        return f"{run.response}, no candles"
    return f"{run.response}, {comparison.missing:,} missing" if comparison.missing else str(run.response)


def notes_table(notes: Sequence[Note] = NOTES) -> str:
    """Return the table of what the tools do less and more."""
    header = ["tool", "pointed at the sandbox by", "less", "more"]
    return markdown_table(header, [[note.tool, note.pointed_by, note.less, note.more] for note in notes])


def report(conditions: Conditions, runs: Sequence[Run], holes: Sequence[HoleRun], versions: Mapping[str, str]) -> str:
    """Return the whole report."""
    parts = [_introduction(conditions)]
    for workload in dict.fromkeys(run.workload for run in runs):
        mine = [run for run in runs if run.workload == workload]
        parts.append(f"### {workload.title}: {workload.start} to {workload.end}, the end excluded")
        parts.append(speed_table(mine, versions))
    for workload in dict.fromkeys(run.hole.workload for run in holes):
        parts.append(f"### Planted holes: {workload.title}, {workload.start} to {workload.end}")
        parts.append(holes_table([run for run in holes if run.hole.workload == workload]))
    return "\n\n".join([*parts, "### What each tool does less, and more", notes_table()])


def _introduction(conditions: Conditions) -> str:
    return (
        f"Raced on {conditions.day}: {conditions.cores} cores shared by tool and sandbox, Python {conditions.python}, "
        f"round trips of {ROUND_TRIP_MS} ms, Binance's weight limits, BTCUSDT 1m. Cores busy before the race: "
        f"{conditions.busy:.1f}.{_BUSY if conditions.busy > _IDLE else ''}"
    )


def insert_report(page: str, text: str) -> str:
    """Return the page with ``text`` between its marks.

    Raises:
        ValueError: The page has no marks.
    """
    before, begin, rest = page.partition(BEGIN_MARK)
    _, end, after = rest.partition(END_MARK)
    if not begin or not end:
        raise ValueError("the page has no marks for the race")
    return f"{before}{BEGIN_MARK}\n\n{text}\n\n{END_MARK}{after}"
