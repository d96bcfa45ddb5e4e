"""Replay of recorded candles: archive files and recorded responses, row for row as they were recorded.

A folder holds ``spot/``, ``usdm/`` and ``coinm/``. In each of them the sandbox reads these files and ignores others:

- ``SYMBOL-INTERVAL-DATE.zip`` with one CSV, and ``SYMBOL-INTERVAL-DATE.csv``: with or without a header line, times in
  ms or us;
- ``REST_<market>_<SYMBOL>_<interval>_<date>.json``: a list of rows;
- other ``.json`` files with an object of ``path``, ``query`` and ``body``: a request and its response.

Times are integer ms since the epoch, UTC.
"""

from __future__ import annotations

import json
import re
import zipfile
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qs

from binance_assets.model.intervals import INTERVALS, Interval, parse_interval
from binance_assets.model.markets import MARKETS, ROW_FIELDS
from binance_assets.model.timestamps import DAY

Row: TypeAlias = list[Any]
"""A klines row as in the JSON response."""

_ARCHIVE_NAME: Final = re.compile(r"(?P<symbol>.+?)-(?P<interval>\d+[a-zA-Z]+)-\d{4}-\d{2}(-\d{2})?\.(zip|csv)")
_REST_NAME: Final = re.compile(r"REST_[a-z]+_(?P<symbol>.+)_(?P<interval>\d+[a-zA-Z]+)_[\d-]+\.json")
_MIN_MICROSECONDS: Final = 10**15
_to_json: Final = json.JSONEncoder(separators=(",", ":")).encode
_ONE_DAY: Final = next(interval for interval in INTERVALS if interval.step == DAY)


class RecordedCandles:
    """The recorded candles of one symbol.

    Args:
        rows: The rows by interval and open time (ms UTC).
    """

    def __init__(self, rows: dict[Interval, dict[int, Row]]) -> None:
        """Index the rows; a day without a row of ``1d`` gets the sum of its finest rows."""
        rows = dict(rows)
        if days := rows.get(_ONE_DAY, {}) | _aggregate_days(rows):
            rows[_ONE_DAY] = days
        self._open_times = {interval: sorted(by_time) for interval, by_time in rows.items()}
        self._rows = {
            interval: [_to_json(by_time[time]).encode() for time in self._open_times[interval]]
            for interval, by_time in rows.items()
        }

    @property
    def first_open(self) -> int:
        """The earliest recorded open time, ms UTC."""
        return min(open_times[0] for open_times in self._open_times.values())

    def select(self, interval: Interval, start: int, end: int, limit: int, newest: bool, now: int) -> bytes:
        """Return the rows that open in ``[start, end]``, up to ``now``, ascending, as the JSON list of a response.

        The arguments are those of :meth:`binance_assets.sandbox.synthetic.SyntheticCandles.select`.
        """
        open_times = self._open_times.get(interval, [])
        first, stop = bisect_left(open_times, start), bisect_right(open_times, min(end, now))
        if newest:
            first = max(first, stop - limit)
        rows = self._rows.get(interval, [])[first : min(stop, first + limit)]
        return b"[" + b",".join(rows) + b"]"


def load_recorded_candles(folder: Path) -> dict[tuple[str, str], RecordedCandles]:
    """Load the recorded candles below ``folder``, by market name and symbol.

    Raises:
        ValueError: The folder does not exist, or a file in it cannot be read.
    """
    if not folder.is_dir():
        raise ValueError(f"the folder {folder} to replay does not exist")
    rows_by_symbol: dict[tuple[str, str], dict[Interval, dict[int, Row]]] = defaultdict(lambda: defaultdict(dict))
    for market in MARKETS:
        for path in sorted((folder / market).glob("*")):
            try:
                for symbol, interval, rows in _read(path):
                    rows_by_symbol[market, symbol][interval] |= {row[0]: row for row in rows}
            except (ValueError, LookupError, zipfile.BadZipFile) as error:
                raise ValueError(f"cannot replay {path}: {error}") from error
    return {key: RecordedCandles(rows) for key, rows in rows_by_symbol.items() if any(rows.values())}


def _read(path: Path) -> Iterator[tuple[str, Interval, Iterable[Row]]]:
    """Yield symbol, interval and rows of the file if it holds candles."""
    if match := _ARCHIVE_NAME.fullmatch(path.name):
        yield match["symbol"], parse_interval(match["interval"]), _csv_rows(_csv_text(path))
    elif match := _REST_NAME.fullmatch(path.name):
        yield match["symbol"], parse_interval(match["interval"]), json.loads(path.read_text("utf-8"))
    elif path.suffix == ".json":
        recorded = json.loads(path.read_text("utf-8"))
        if _is_klines_response(recorded):
            query = parse_qs(recorded["query"])
            yield query["symbol"][0].upper(), parse_interval(query["interval"][0]), recorded["body"]


def _is_klines_response(recorded: object) -> bool:
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
            yield _parse_row(line.split(","))


def _parse_row(fields: list[str]) -> Row:
    if len(fields) != ROW_FIELDS:
        raise ValueError(f"a row has {len(fields)} fields instead of {ROW_FIELDS}")
    open_time, close_time = int(fields[0]), int(fields[6])
    if open_time >= _MIN_MICROSECONDS:
        open_time, close_time = open_time // 1000, close_time // 1000
    return [open_time, *fields[1:6], close_time, fields[7], int(fields[8]), *fields[9:11], "0"]


def _aggregate_days(rows: dict[Interval, dict[int, Row]]) -> dict[int, Row]:
    """Return a ``1d`` row for each day that has none, but rows of shorter intervals: the sum of the shortest ones."""
    days: dict[int, Row] = {}
    for interval in sorted(rows, key=lambda interval: interval.step, reverse=True):
        if interval.step < DAY:
            days |= _days_from(rows[interval], rows.get(_ONE_DAY, {}).keys())
    return days


def _days_from(rows: dict[int, Row], known: Container[int]) -> dict[int, Row]:
    by_day: dict[int, list[Row]] = defaultdict(list)
    for time in sorted(rows):
        if (day := time // DAY * DAY) not in known:
            by_day[day].append(rows[time])
    return {day: day_row(day, members, day + DAY - 1) for day, members in by_day.items()}


def day_row(open_time: int, rows: list[Row], close_time: int) -> Row:
    """Return the row that finer ``rows`` add up to; its times are ms UTC."""
    # As Binance does: rows without a trade carry only the price of the trade before them.
    traded = [row for row in rows if row[8]] or rows

    def column_sum(field: int) -> str:
        return format(sum((Decimal(row[field]) for row in rows), Decimal(0)), "f")

    high = max((row[2] for row in traded), key=Decimal)
    low = min((row[3] for row in traded), key=Decimal)
    trades = sum(row[8] for row in rows)
    return [
        open_time, traded[0][1], high, low, traded[-1][4], column_sum(5),
        close_time, column_sum(7), trades, column_sum(9), column_sum(10), "0",
    ]  # fmt: skip
