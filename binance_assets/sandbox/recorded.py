"""Replay of recorded candles: archive files and recorded answers, row for row as they were recorded.

A folder holds ``spot/``, ``usdm/`` and ``coinm/``; in each of them these files are read and any others left alone:

- ``SYMBOL-INTERVAL-DATE.zip`` with one CSV, and ``.csv`` files of such a name: with or without a header line, times in
  ms or us;
- ``REST_<market>_<SYMBOL>_<interval>_<date>.json``: a list of rows;
- other ``.json`` files that are an object with ``path``, ``query`` and ``body``: a request and its answer.

Times are integer ms since the epoch, UTC.
"""

from __future__ import annotations

import json
import re
import zipfile
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qs

from binance_assets.model.intervals import INTERVALS, Interval, parse_interval
from binance_assets.model.markets import MARKETS, ROW_FIELDS
from binance_assets.model.timestamps import DAY

Row: TypeAlias = list[Any]
"""A klines row as it is in JSON."""

_ARCHIVE_NAME: Final = re.compile(r"(?P<symbol>.+?)-(?P<interval>\d+[a-zA-Z]+)-\d{4}-\d{2}(-\d{2})?\.(zip|csv)")
_REST_NAME: Final = re.compile(r"REST_[a-z]+_(?P<symbol>.+)_(?P<interval>\d+[a-zA-Z]+)_[\d-]+\.json")
_INTEGERS: Final = (0, 6, 8)
_LEAST_MICROSECONDS: Final = 10**15
_ONE_DAY: Final = next(interval for interval in INTERVALS if interval.step == DAY)


class RecordedCandles:
    """The recorded candles of one symbol."""

    def __init__(self, rows: dict[Interval, dict[int, Row]]) -> None:
        """Take rows by interval and open time; days without a row of ``1d`` get the sum of their finest rows."""
        rows = dict(rows)
        if days := _summed_days(rows) | rows.get(_ONE_DAY, {}):
            rows[_ONE_DAY] = days
        self._opens = {interval: sorted(by_time) for interval, by_time in rows.items()}
        self._rows = {
            interval: [json.dumps(by_time[time], separators=(",", ":")).encode() for time in self._opens[interval]]
            for interval, by_time in rows.items()
        }

    @property
    def first_open(self) -> int:
        """The earliest recorded open time, ms UTC."""
        return min(opens[0] for opens in self._opens.values())

    def select(self, interval: Interval, start: int, end: int, limit: int, newest: bool, now: int) -> bytes:
        """Rows that open in ``[start, end]`` and not after ``now``, ascending, as the JSON list of an answer.

        The arguments are those of the synthetic candles' ``select``.
        """
        opens = self._opens.get(interval, [])
        first, stop = bisect_left(opens, start), bisect_right(opens, min(end, now))
        if newest:
            first = max(first, stop - limit)
        rows = self._rows.get(interval, [])[first : min(stop, first + limit)]
        return b"[" + b",".join(rows) + b"]"


def recorded_candles(folder: Path) -> dict[tuple[str, str], RecordedCandles]:
    """Everything recorded below ``folder``, by names of market and symbol.

    Raises:
        ValueError: The folder does not exist, or one of its files cannot be read.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder} to replay")
    found: dict[tuple[str, str], dict[Interval, dict[int, Row]]] = defaultdict(lambda: defaultdict(dict))
    for market in MARKETS:
        for path in sorted((folder / market).glob("*")):
            try:
                for symbol, interval, rows in _read(path):
                    found[market, symbol][interval] |= {row[0]: row for row in rows}
            except (ValueError, LookupError, zipfile.BadZipFile) as error:
                raise ValueError(f"{path} cannot be replayed: {error}") from error
    return {names: RecordedCandles(rows) for names, rows in found.items() if any(rows.values())}


def _read(path: Path) -> Iterator[tuple[str, Interval, Iterable[Row]]]:
    """What one file holds, if it is a file of candles."""
    if match := _ARCHIVE_NAME.fullmatch(path.name):
        yield match["symbol"], parse_interval(match["interval"]), _csv_rows(_csv_text(path))
    elif match := _REST_NAME.fullmatch(path.name):
        yield match["symbol"], parse_interval(match["interval"]), json.loads(path.read_text("utf-8"))
    elif path.suffix == ".json":
        recorded = json.loads(path.read_text("utf-8"))
        if _is_answer(recorded):
            query = parse_qs(recorded["query"])
            yield query["symbol"][0].upper(), parse_interval(query["interval"][0]), recorded["body"]


def _is_answer(recorded: object) -> bool:
    if not isinstance(recorded, dict) or not recorded.keys() >= {"path", "query", "body"}:
        return False
    return recorded["path"].endswith("/klines") and isinstance(recorded["body"], list)


def _csv_text(path: Path) -> str:
    if path.suffix == ".csv":
        return path.read_text("utf-8")
    with zipfile.ZipFile(path) as archive:
        return archive.read(archive.namelist()[0]).decode("utf-8")


def _csv_rows(text: str) -> Iterator[Row]:
    for line in text.splitlines():
        if line[:1].isdigit():
            yield _row(line.split(","))


def _row(fields: list[str]) -> Row:
    if len(fields) != ROW_FIELDS:
        raise ValueError(f"a row has {len(fields)} fields instead of {ROW_FIELDS}")
    row: Row = [int(field) if i in _INTEGERS else field for i, field in enumerate(fields)]
    if row[0] >= _LEAST_MICROSECONDS:
        row[0], row[6] = row[0] // 1000, row[6] // 1000
    row[-1] = "0"
    return row


def _summed_days(rows: dict[Interval, dict[int, Row]]) -> dict[int, Row]:
    """A ``1d`` row for each day of which there are shorter rows: the sum of the shortest ones."""
    days: dict[int, Row] = {}
    for interval in sorted(rows, key=lambda each: each.step, reverse=True):
        if interval.step < DAY:
            days |= _days_of(rows[interval])
    return days


def _days_of(rows: dict[int, Row]) -> dict[int, Row]:
    by_day: dict[int, list[Row]] = defaultdict(list)
    for time in sorted(rows):
        by_day[time // DAY * DAY].append(rows[time])
    return {day: _day(day, members) for day, members in by_day.items()}


def _day(day: int, rows: list[Row]) -> Row:
    # As Binance does: minutes without a trade have a price, but only that of the trade before them.
    traded = [row for row in rows if row[8]] or rows

    def total(field: int) -> str:
        return format(sum((Decimal(row[field]) for row in rows), Decimal(0)), "f")

    high = max((row[2] for row in traded), key=Decimal)
    low = min((row[3] for row in traded), key=Decimal)
    trades = sum(row[8] for row in rows)
    return [
        day, traded[0][1], high, low, traded[-1][4], total(5),
        day + DAY - 1, total(7), trades, total(9), total(10), "0",
    ]  # fmt: skip
