"""What a driver is asked for, and how it reports that its tool is done."""

from __future__ import annotations

import csv
import datetime as dt
import json
import resource
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

TASK_FILE: Final = "task.json"
FINISHED_FILE: Final = "finished.json"
ROWS_FILE: Final = "rows.csv"
KLINE_COLUMNS: Final = (
    *("open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "trades"),
    *("taker_buy_volume", "taker_buy_quote_volume", "ignore"),
)


@dataclass(frozen=True)
class Task:
    """The candles to download: 1m candles of one symbol, from one day to another.

    Attributes:
        market: ``spot`` or ``usdm``.
        symbol: The symbol, as Binance writes it.
        start: First day (UTC).
        end: The day after the last one.
        url: Address of the sandbox, without a path: its APIs and its archive.
        listing_url: Address of the listing of the archive's files.
        source: ``rest``, ``archive`` or ``auto``, for tools that have the choice.
    """

    market: str
    symbol: str
    start: dt.date
    end: dt.date
    url: str
    listing_url: str
    source: str

    @property
    def last_day(self) -> dt.date:
        """The last day, for tools whose end is inclusive."""
        return self.end - dt.timedelta(days=1)

    @property
    def start_ms(self) -> int:
        """Start of the range, ms UTC."""
        return _to_ms(self.start)

    @property
    def end_ms(self) -> int:
        """End of the range, exclusive, ms UTC."""
        return _to_ms(self.end)


def _to_ms(day: dt.date) -> int:
    return int(dt.datetime.combine(day, dt.time(), dt.UTC).timestamp()) * 1000


def read_task() -> Task:
    """Return the task in the working folder."""
    fields = json.loads(Path(TASK_FILE).read_text())
    days = {name: dt.date.fromisoformat(fields[name]) for name in ("start", "end")}
    return Task(**{**fields, **days})


def write_task(task: Task, folder: Path) -> None:
    """Write the task for a driver that will run in ``folder``."""
    fields = {**vars(task), "start": task.start.isoformat(), "end": task.end.isoformat()}
    (folder / TASK_FILE).write_text(json.dumps(fields))


def finish(reports: Sequence[object] = ()) -> None:
    """Record that the tool is done: what the driver does from now on is not measured.

    Args:
        reports: What the tool returned about candles or files that are missing or wrong; empty if it returned nothing.
    """
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    finished = {
        "at": time.time(),
        "cpu": sum(usage.ru_utime + usage.ru_stime for usage in usages),
        "reports": [str(report) for report in reports],
    }
    Path(FINISHED_FILE).write_text(json.dumps(finished))


def write_rows(rows: Iterable[Sequence[Any]], columns: Sequence[str] = KLINE_COLUMNS) -> None:
    """Write the rows that a tool returned, for the comparison; call it after :func:`finish`."""
    with Path(ROWS_FILE).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
