"""The faults that a test can ask the sandbox for.

A fault spoils the answers to the requests that it matches: rows, status or connection. Times are ms since the epoch,
UTC.

Faults of the archive have a ``path`` of their own, ``archive`` or below, and never touch klines, nor the other way
round. Three sorts of them are met at different moments:

- *Faults of files* change a zip, and its ``.CHECKSUM`` with it so that the two agree: the faults of rows that a CSV can
  show, and those of :data:`FILE_FAULTS`. They are met, and counted for ``times`` and ``share``, once for each *look* at
  a file, see :class:`binance_assets.sandbox.archive.Looks`: one zip that is fetched and the ``.CHECKSUM`` beside it.
- *Faults of checksums* (``checksum_mismatch``) are met by each ``.CHECKSUM`` that is fetched.
- All others are met by each answer, HEAD included, and come first: an answer that they replace leaves the faults of
  files for the next one.
"""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any, Final, TypeAlias

Rows: TypeAlias = list[list[Any]]


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        kind: What goes wrong, one of :data:`KINDS`.
        market: Name of the market concerned; None for any.
        symbol: The symbol concerned; None for any.
        start: Requests concerned are those whose window ``[startTime, endTime]``, of an archive file the day or month,
            reaches ``start`` or beyond, ms UTC.
        end: ... and begins before ``end``, ms UTC.
        share: Which part of those requests, 0 to 1; always the same ones in the same order of requests.
        times: So many requests at most; None for no bound.
        value: What the kind needs: the HTTP status (or ``503-no-code``) of ``status``, the ms of ``off_grid``, the ms
            UTC at which the rows of ``truncated_file`` stop.
        path: The endpoint concerned, one of :data:`PATHS`: ``klines``, ``exchangeInfo``, ``time``, ``ping``; or of the
            archive ``archive`` (everything), ``archive/daily`` and ``archive/monthly`` (zips), ``archive/checksum``.
        interval: The interval concerned, as Binance writes it; None for any.
        seconds: How long the 429 or 418 of ``status`` asks to wait; None for as long as Binance does.

    Raises:
        ValueError: There is no such kind or path, the kind makes no sense there, or the value is no status of an error.
    """

    kind: str
    market: str | None = None
    symbol: str | None = None
    start: int | None = None
    end: int | None = None
    share: float = 1.0
    times: int | None = None
    value: int | str | None = None
    path: str = "klines"
    seconds: int | None = None
    interval: str | None = None

    def __post_init__(self) -> None:
        """Check kind, path and value."""
        if self.kind not in KINDS:
            raise ValueError(f"there is no fault {self.kind!r}; the faults are {', '.join(sorted(KINDS))}")
        if self.path not in PATHS:
            raise ValueError(f"a fault cannot concern {self.path!r}, only {', '.join(PATHS)}")
        if self.kind not in _kinds_at(self.path):
            raise ValueError(f"the fault {self.kind} makes no sense for {self.path}")
        if self.kind == "status" and self.value not in (None, "503-no-code", *range(400, 600)):
            raise ValueError(f"a fault cannot answer with the status {self.value!r}")

    @property
    def spoils_rows(self) -> bool:
        """Whether it changes the rows of an answer, rather than its status, text or connection."""
        return self.kind in _ROW_FAULTS

    def covers(self, open_time: int) -> bool:
        """Whether ``open_time`` lies in ``[start, end)``."""
        return (self.start is None or self.start <= open_time) and (self.end is None or open_time < self.end)

    def matches(self, call: Call) -> bool:
        """Whether ``call`` is concerned."""
        return (
            self.path in call.endpoints
            and self.market in (None, call.market)
            and self.symbol in (None, call.symbol)
            and self.interval in (None, call.interval)
            and (self.start is None or call.end is None or self.start <= call.end)
            and (self.end is None or call.start is None or call.start < self.end)
        )


@dataclass(frozen=True, slots=True)
class Call:
    """What a fault may look at.

    Attributes:
        endpoints: The paths of faults that concern the request.
        market: Name of the market.
        symbol: The symbol, if the request names one.
        start: First moment of the asked window, ms UTC; None if it is open.
        end: Last moment, likewise.
        interval: The interval, if the request names one.
    """

    endpoints: Collection[str]
    market: str
    symbol: str | None
    start: int | None
    end: int | None
    interval: str | None = None


class Faults:
    """The faults in force. Safe to change from any thread."""

    def __init__(self) -> None:
        """No faults."""
        self._lock = threading.Lock()
        self._faults: list[_Counted] = []
        self._version = 0

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._faults)

    @property
    def version(self) -> int:
        """A number that is another one after every change of the faults in force."""
        return self._version

    def add(self, fault: Fault) -> None:
        """Put ``fault`` in force, after those that are."""
        with self._lock:
            self._version += 1
            self._faults.append(_Counted(fault, len(self._faults)))

    def clear(self) -> None:
        """End all faults."""
        self.replace([])

    def replace(self, faults: Iterable[Fault]) -> None:
        """Put just ``faults`` in force."""
        with self._lock:
            self._version += 1
            self._faults[:] = [_Counted(fault, i) for i, fault in enumerate(faults)]

    def befalling(self, call: Call, kinds: Collection[str] | None = None) -> list[Fault]:
        """The faults that ``call`` meets, each counted as met; one that is not of rows or files is the last.

        Args:
            call: The request.
            kinds: Look at faults of these kinds only.
        """
        met: list[Fault] = []
        with self._lock:
            for counted in self._faults:
                if (kinds is None or counted.fault.kind in kinds) and counted.meets(call):
                    met.append(counted.fault)
                    if counted.fault.kind not in _ADDED_UP:
                        break
        return met


class _Counted:
    def __init__(self, fault: Fault, index: int) -> None:
        self.fault = fault
        self._index = index
        self._matched = 0
        self._met = 0

    def meets(self, call: Call) -> bool:
        fault = self.fault
        if (fault.times is not None and self._met >= fault.times) or not fault.matches(call):
            return False
        self._matched += 1
        drawn = zlib.crc32(b"%d of fault %d" % (self._matched, self._index)) / 2**32
        if drawn >= fault.share:
            return False
        self._met += 1
        return True


def parse_faults(text: bytes) -> list[Fault]:
    """The faults of a JSON list of objects with the attributes of :class:`Fault`.

    Raises:
        ValueError: It is not such a list.
    """
    entries = json.loads(text)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError("faults are a JSON list of objects")
    known = {field.name for field in fields(Fault)}
    for entry in entries:
        if unknown := sorted(entry.keys() - known):
            raise ValueError(f"a fault has no {', '.join(unknown)}")
        if "kind" not in entry:
            raise ValueError("a fault needs a kind")
    return [Fault(**entry) for entry in entries]


def spoiled_rows(rows: Rows, fault: Fault, window_start: int | None, step: int) -> object:
    """The JSON value of an answer with ``rows`` after a fault of rows.

    Args:
        rows: The answer's rows.
        fault: The fault.
        window_start: The request's startTime, ms UTC.
        step: Length of the interval, ms.
    """
    if fault.kind == "outside":
        return _with_row_before(rows, window_start, step)
    return _ROW_FAULTS[fault.kind]([list(row) for row in rows], fault)


def spoiled_text(body: bytes, fault: Fault) -> bytes:
    """The answer's text after a fault of its text; of other faults unchanged."""
    if fault.kind == "broken_json":
        return body[:-1] + b",}"
    if fault.kind == "truncated_json":
        return body[: len(body) // 2]
    return body


def _chosen(rows: Rows, fault: Fault) -> list[Any] | None:
    """The one row to be spoiled: the middle one of those that the fault covers."""
    covered = [row for row in rows if fault.covers(row[0])]
    return covered[len(covered) // 2] if covered else None


def _one_row(change: Callable[[list[Any], Fault], None]) -> Callable[[Rows, Fault], object]:
    def spoil(rows: Rows, fault: Fault) -> object:
        row = _chosen(rows, fault)
        if row is not None:
            change(row, fault)
        return rows

    return spoil


def _field(index: int, value: str | None) -> Callable[[Rows, Fault], object]:
    def change(row: list[Any], fault: Fault) -> None:
        row[index] = value

    return _one_row(change)


def _without_covered(rows: Rows, fault: Fault) -> object:
    return [row for row in rows if not fault.covers(row[0])]


def _doubled(rows: Rows, fault: Fault) -> object:
    row = _chosen(rows, fault)
    return rows if row is None else [each for one in rows for each in ([one, one] if one is row else [one])]


def _unordered(rows: Rows, fault: Fault) -> object:
    middle = len(rows) // 2
    rows[max(middle - 1, 0) : middle + 1] = rows[max(middle - 1, 0) : middle + 1][::-1]
    return rows


def _off_grid(row: list[Any], fault: Fault) -> None:
    row[0] += int(fault.value or 1)


def _with_row_before(rows: Rows, window_start: int | None, step: int) -> object:
    if not rows:
        return rows
    first = rows[0][0] if window_start is None else min(window_start, rows[0][0])
    open_time = rows[0][0] - step * (1 + (rows[0][0] - first) // step)
    return [[open_time, *rows[0][1:6], open_time + step - 1, *rows[0][7:]], *rows]


def _bad_prices(row: list[Any], fault: Fault) -> None:
    row[2], row[3] = row[3], row[2]
    if Decimal(row[3]) <= Decimal(row[2]):
        row[3] = str(Decimal(row[2]) + 1)


def _negative_volume(row: list[Any], fault: Fault) -> None:
    row[5] = "-" + row[5] if Decimal(row[5]) else "-1"


def _retyped(kind: type, change: Callable[[Any], Any]) -> Callable[[Rows, Fault], object]:
    return lambda rows, fault: [[change(value) if isinstance(value, kind) else value for value in row] for row in rows]


_ROW_FAULTS: Final[Mapping[str, Callable[[Rows, Fault], object]]] = {
    "missing_row": _without_covered,
    "empty": lambda rows, fault: [],
    "doubled_row": _doubled,
    "unordered": _unordered,
    "off_grid": _one_row(_off_grid),
    "outside": lambda rows, fault: rows,  # needs the window: see spoiled_rows
    "json_object": lambda rows, fault: {"data": rows},
    "nested": lambda rows, fault: [rows],
    "fields_11": lambda rows, fault: [row[:-1] for row in rows],
    "fields_13": lambda rows, fault: [[*row, "0"] for row in rows],
    "numbers_as_strings": _retyped(int, str),
    "strings_as_numbers": _retyped(str, float),
    "nan": _field(4, "NaN"),
    "empty_strings": _field(4, ""),
    "null": _field(4, None),
    "bad_prices": _one_row(_bad_prices),
    "negative_volume": _one_row(_negative_volume),
}
_TEXT_FAULTS: Final = frozenset({"broken_json", "truncated_json"})
_STATUS_FAULTS: Final = frozenset({"status", "invalid_symbol"})
_JSON_FAULTS: Final = _TEXT_FAULTS | {"json_object", "nested", "numbers_as_strings", "invalid_symbol"}
CONNECTION_FAULTS: Final = frozenset({"truncated_body", "reset", "reset_amid_body", "hang"})
"""The faults that need the connection itself."""

FILE_FAULTS: Final = frozenset(
    {"truncated_zip", "truncated_file", "reissued", "header", "no_header", "junk_last_column", "two_members"}
)
"""Faults of archive files beyond those of rows.

- ``truncated_zip``: only the first half of the zip's bytes, and that half's hash;
- ``truncated_file``: a sound zip whose rows stop at ``value`` (ms UTC), else after 40 % of the file's span;
- ``reissued``: the same rows in other bytes with another hash, an hour later;
- ``header``, ``no_header``: with, or without, a header row whatever the file's date;
- ``junk_last_column``: something else than 0 in the last column;
- ``two_members``: a second CSV in the zip.
"""

CHECKSUM_FAULTS: Final = frozenset({"checksum_mismatch"})
"""Faults of the ``.CHECKSUM`` alone: a hash that is not the zip's. ``path`` says of which files."""

ARCHIVE_ANSWER_FAULTS: Final = frozenset({"status", "not_a_zip"}) | CONNECTION_FAULTS
"""Faults of a single answer of the archive; ``not_a_zip`` is a page of HTML with status 200."""

_ARCHIVE_ONLY: Final = FILE_FAULTS | CHECKSUM_FAULTS | {"not_a_zip"}
_ADDED_UP: Final = frozenset(_ROW_FAULTS) | FILE_FAULTS

KINDS: Final = frozenset(_ROW_FAULTS) | _TEXT_FAULTS | _STATUS_FAULTS | CONNECTION_FAULTS | _ARCHIVE_ONLY
"""Every kind of fault."""

ARCHIVE_ROW_FAULTS: Final = frozenset(_ROW_FAULTS) - _JSON_FAULTS
"""The faults of rows that a CSV can show."""

PATHS: Final = (
    *("klines", "exchangeInfo", "time", "ping"),
    *("archive", "archive/daily", "archive/monthly", "archive/checksum"),
)
"""What a fault can concern."""


def _kinds_at(path: str) -> frozenset[str]:
    if path == "archive/checksum":  # what changes the zip would make the two disagree
        return CHECKSUM_FAULTS | ARCHIVE_ANSWER_FAULTS
    return KINDS - _JSON_FAULTS if path.startswith("archive") else KINDS - _ARCHIVE_ONLY
