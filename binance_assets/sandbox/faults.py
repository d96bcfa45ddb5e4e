"""The faults that a test can inject into the sandbox.

A fault corrupts the responses to the requests that it matches: their rows, status or connection. Times are ms since
the epoch, UTC.

Archive faults have a ``path`` of their own, ``archive`` or below. They never affect klines, and faults of klines never
affect the archive. Archive faults are of three sorts, which apply at different moments:

- *File faults* change a zip, and its ``.CHECKSUM`` accordingly, so that the two agree: the row faults that a CSV can
  represent, and those of :data:`FILE_FAULTS`. They apply, and count towards ``times`` and ``share``, once for each
  *version* of a file, see :class:`binance_assets.sandbox.archive.FileVersions`: one zip that is fetched and its
  ``.CHECKSUM``.
- *Checksum faults* (``checksum_mismatch``) apply to each ``.CHECKSUM`` that is fetched.
- All others apply to each response, including those to HEAD, and take precedence: a response that they replace leaves
  the file faults for the next response.
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

_AMOUNT_FIELDS: Final = (5, 7, 9, 10)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        kind: The kind of the fault, one of :data:`KINDS`.
        market: Name of the market to affect; None for all.
        symbol: The symbol to affect; None for all.
        start: Affect requests whose window ``[startTime, endTime]`` (for an archive file: its day or month) reaches
            ``start`` or beyond, ms UTC.
        end: ... and begins before ``end``, ms UTC.
        share: Fraction of those requests to affect, 0 to 1; the selection is deterministic for the same order of
            requests.
        times: Maximum number of requests to affect; None for no maximum.
        value: An argument of the kind: the HTTP status (or ``503-no-code``) of ``status``, the shift in ms of
            ``off_grid``, the fields of ``other_totals``, the time at which the rows of ``truncated_file`` stop, ms UTC.
        path: The endpoint to affect, one of :data:`PATHS`: ``klines``, ``exchangeInfo``, ``time``, ``ping``,
            ``ticker/24hr``; for the archive ``archive`` (everything), ``archive/daily`` and ``archive/monthly``
            (zips), ``archive/checksum``, ``archive/listing``.
        interval: The interval to affect, as Binance writes it; None for all.
        seconds: The Retry-After of the 429 or 418 of ``status``; None for what Binance sends.

    Raises:
        ValueError: The kind or the path does not exist, the kind does not apply to the path, or the value is not an
            error status.
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
        """Check the kind, the path and the value."""
        if self.kind not in KINDS:
            raise ValueError(f"unknown fault kind {self.kind!r}; the kinds are {', '.join(sorted(KINDS))}")
        if self.path not in PATHS:
            raise ValueError(f"unknown fault path {self.path!r}; the paths are {', '.join(PATHS)}")
        if self.kind not in _kinds_for(self.path):
            raise ValueError(f"the fault {self.kind} does not apply to {self.path}")
        if self.kind == "status" and self.value not in (None, "503-no-code", *range(400, 600)):
            raise ValueError(f"a fault cannot respond with the status {self.value!r}")

    @property
    def corrupts_rows(self) -> bool:
        """Whether it changes the rows of a response, rather than its status, text or connection."""
        return self.kind in _ROW_FAULTS

    def covers(self, open_time: int) -> bool:
        """Return whether ``open_time`` lies in ``[start, end)``."""
        return (self.start is None or self.start <= open_time) and (self.end is None or open_time < self.end)

    def matches(self, request: RequestInfo) -> bool:
        """Return whether the fault affects ``request``, regardless of ``times`` and ``share``."""
        return (
            self.path in request.paths
            and self.market in (None, request.market)
            and self.symbol in (None, request.symbol)
            and self.interval in (None, request.interval)
            and (self.start is None or request.end is None or self.start <= request.end)
            and (self.end is None or request.start is None or request.start < self.end)
        )


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """The properties of a request that faults match against.

    Attributes:
        paths: The fault paths that cover the request.
        market: Name of the market.
        symbol: The symbol; None if the request has none.
        start: First moment of the requested window, ms UTC; None if it is open.
        end: Last moment of the requested window, ms UTC; None if it is open.
        interval: The interval; None if the request has none.
    """

    paths: Collection[str]
    market: str
    symbol: str | None
    start: int | None
    end: int | None
    interval: str | None = None


class Faults:
    """The active faults. Any thread may change them."""

    def __init__(self) -> None:
        """Start without faults."""
        self._lock = threading.Lock()
        self._faults: list[_ActiveFault] = []
        self._revision = 0

    def __bool__(self) -> bool:
        """Whether any fault is active."""
        return bool(self._faults)

    @property
    def revision(self) -> int:
        """A number that differs after every change of the active faults."""
        return self._revision

    def add(self, fault: Fault) -> None:
        """Activate ``fault``, after those that are already active."""
        with self._lock:
            self._revision += 1
            self._faults.append(_ActiveFault(fault, len(self._faults)))

    def clear(self) -> None:
        """Deactivate all faults."""
        self.replace([])

    def replace(self, faults: Iterable[Fault]) -> None:
        """Activate ``faults`` instead of the active ones."""
        with self._lock:
            self._revision += 1
            self._faults[:] = [_ActiveFault(fault, i) for i, fault in enumerate(faults)]

    def matching(self, request: RequestInfo, kinds: Collection[str] | None = None) -> list[Fault]:
        """Return the faults that apply to ``request``, and count each of them.

        A fault that changes neither rows nor files is the last in the list.

        Args:
            request: The request.
            kinds: Consider only faults of these kinds; None for all kinds.
        """
        applied: list[Fault] = []
        with self._lock:
            for active in self._faults:
                if (kinds is None or active.fault.kind in kinds) and active.apply_to(request):
                    applied.append(active.fault)
                    if active.fault.kind not in _COMBINABLE:
                        break
        return applied


class _ActiveFault:
    """A fault and how often it matched and applied."""

    def __init__(self, fault: Fault, index: int) -> None:
        self.fault = fault
        self._index = index
        self._matched = 0
        self._applied = 0

    def apply_to(self, request: RequestInfo) -> bool:
        """Return whether the fault applies to ``request``, and count it."""
        fault = self.fault
        if (fault.times is not None and self._applied >= fault.times) or not fault.matches(request):
            return False
        self._matched += 1
        draw = zlib.crc32(b"%d of fault %d" % (self._matched, self._index)) / 2**32
        if draw >= fault.share:
            return False
        self._applied += 1
        return True


def parse_faults(text: bytes) -> list[Fault]:
    """Parse a JSON list of objects with the attributes of :class:`Fault`.

    Raises:
        ValueError: The text is not such a list.
    """
    entries = json.loads(text)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError("faults must be a JSON list of objects")
    known = {field.name for field in fields(Fault)}
    for entry in entries:
        if unknown := sorted(entry.keys() - known):
            raise ValueError(f"a fault has no {', '.join(unknown)}")
        if "kind" not in entry:
            raise ValueError("a fault needs a kind")
    return [Fault(**entry) for entry in entries]


def corrupted_rows(rows: Rows, fault: Fault, window_start: int | None, step: int) -> object:
    """Return the JSON value of a response with ``rows`` after a row fault.

    Args:
        rows: The rows of the response.
        fault: The fault.
        window_start: The request's startTime, ms UTC.
        step: Length of the interval, ms.
    """
    if fault.kind == "outside":
        return _add_row_before(rows, window_start, step)
    return _ROW_FAULTS[fault.kind]([list(row) for row in rows], fault)


def corrupted_text(body: bytes, fault: Fault) -> bytes:
    """Return the text of a response after a text fault; other faults leave it unchanged."""
    if fault.kind == "broken_json":
        return body[:-1] + b",}"
    if fault.kind == "truncated_json":
        return body[: len(body) // 2]
    return body


def _target_row(rows: Rows, fault: Fault) -> list[Any] | None:
    """Return the row to corrupt: the middle one of those that the fault covers."""
    covered = [row for row in rows if fault.covers(row[0])]
    return covered[len(covered) // 2] if covered else None


def _on_target_row(change: Callable[[list[Any], Fault], None]) -> Callable[[Rows, Fault], object]:
    def corrupt(rows: Rows, fault: Fault) -> object:
        row = _target_row(rows, fault)
        if row is not None:
            change(row, fault)
        return rows

    return corrupt


def _set_field(index: int, value: str | None) -> Callable[[Rows, Fault], object]:
    def change(row: list[Any], fault: Fault) -> None:
        row[index] = value

    return _on_target_row(change)


def _remove_covered_rows(rows: Rows, fault: Fault) -> object:
    return [row for row in rows if not fault.covers(row[0])]


def _duplicate_row(rows: Rows, fault: Fault) -> object:
    target = _target_row(rows, fault)
    return rows if target is None else [copy for row in rows for copy in ([row, row] if row is target else [row])]


def _contradict_row(rows: Rows, fault: Fault) -> object:
    """Add a second row with the same times and one trade more."""
    target = _target_row(rows, fault)
    return rows if target is None else [copy for row in rows for copy in _contradicted(row, row is target)]


def _contradicted(row: list[Any], is_target: bool) -> Rows:
    return [row, [*row[:8], row[8] + 1, *row[9:]]] if is_target else [row]


def _swap_middle_rows(rows: Rows, fault: Fault) -> object:
    middle = len(rows) // 2
    rows[max(middle - 1, 0) : middle + 1] = rows[max(middle - 1, 0) : middle + 1][::-1]
    return rows


def _shift_open_time(row: list[Any], fault: Fault) -> None:
    row[0] += int(fault.value or 1)


def _count_in_microseconds(row: list[Any], fault: Fault) -> None:
    row[0] *= 1000
    row[6] = row[6] * 1000 + 999


def _insert_bracket(row: list[Any], fault: Fault) -> None:
    row[4] = f"{row[4][:2]}[{row[4][2:]}"


def _add_row_before(rows: Rows, window_start: int | None, step: int) -> object:
    if not rows:
        return rows
    first = rows[0][0] if window_start is None else min(window_start, rows[0][0])
    open_time = rows[0][0] - step * (1 + (rows[0][0] - first) // step)
    return [[open_time, *rows[0][1:6], open_time + step - 1, *rows[0][7:]], *rows]


def _swap_high_and_low(row: list[Any], fault: Fault) -> None:
    row[2], row[3] = row[3], row[2]
    if Decimal(row[3]) <= Decimal(row[2]):
        row[3] = str(Decimal(row[2]) + 1)


def _negate_volume(row: list[Any], fault: Fault) -> None:
    row[5] = "-" + row[5] if Decimal(row[5]) else "-1"


def _change_covered_rows(change: Callable[[list[Any]], None]) -> Callable[[Rows, Fault], object]:
    def corrupt(rows: Rows, fault: Fault) -> object:
        for row in rows:
            if fault.covers(row[0]):
                change(row)
        return rows

    return corrupt


def _add_trade(row: list[Any]) -> None:
    row[8] += 1


def _set_totals(row: list[Any], fault: Fault) -> None:
    """Give the row the values of ``value``: a JSON list of the fields 1 to 5 and 7 to 10."""
    values = json.loads(str(fault.value))
    row[1:6], row[7:11] = values[:5], values[5:]


def _double_amounts(row: list[Any]) -> None:
    for field in _AMOUNT_FIELDS:
        row[field] = str(Decimal(row[field]) * 2)


def _convert_type(kind: type, convert: Callable[[Any], Any]) -> Callable[[Rows, Fault], object]:
    return lambda rows, fault: [[convert(value) if isinstance(value, kind) else value for value in row] for row in rows]


_ROW_FAULTS: Final[Mapping[str, Callable[[Rows, Fault], object]]] = {
    "missing_row": _remove_covered_rows,
    "empty": lambda rows, fault: [],
    "doubled_row": _duplicate_row,
    "contradicting_row": _contradict_row,
    "unordered": _swap_middle_rows,
    "off_grid": _on_target_row(_shift_open_time),
    "microseconds": _on_target_row(_count_in_microseconds),
    "stray_bracket": _on_target_row(_insert_bracket),
    "outside": lambda rows, fault: rows,  # needs the window: see corrupted_rows
    "json_object": lambda rows, fault: {"data": rows},
    "nested": lambda rows, fault: [rows],
    "fields_11": lambda rows, fault: [row[:-1] for row in rows],
    "fields_13": lambda rows, fault: [[*row, "0"] for row in rows],
    "numbers_as_strings": _convert_type(int, str),
    "strings_as_numbers": _convert_type(str, float),
    "nan": _set_field(4, "NaN"),
    "empty_strings": _set_field(4, ""),
    "null": _set_field(4, None),
    "bad_prices": _on_target_row(_swap_high_and_low),
    "negative_volume": _on_target_row(_negate_volume),
    "one_trade_more": _change_covered_rows(_add_trade),
    "doubled_amounts": _change_covered_rows(_double_amounts),
    "other_totals": _on_target_row(_set_totals),
}
"""The faults that change rows. Most change one of the rows that they cover, but these change or remove all of them:

- ``missing_row``, and ``empty`` whatever the fault covers;
- ``one_trade_more``, ``doubled_amounts``: rows that follow every rule but show other totals, such as a ``1d`` candle
  that differs from its hours;
- ``other_totals``: the row has the prices and totals of ``value``, such as those of a day with an outage.
"""
_TEXT_FAULTS: Final = frozenset({"broken_json", "truncated_json"})
_STATUS_FAULTS: Final = frozenset({"status", "invalid_symbol"})
_JSON_FAULTS: Final = _TEXT_FAULTS | {"json_object", "nested", "numbers_as_strings", "invalid_symbol"}
CONNECTION_FAULTS: Final = frozenset({"truncated_body", "reset", "reset_amid_body", "hang"})
"""The faults that need access to the connection."""

FILE_FAULTS: Final = frozenset(
    {
        "truncated_zip",
        "truncated_file",
        "reissued",
        "header",
        "no_header",
        "junk_last_column",
        "two_members",
        "other_member",
    }
)
"""Faults of archive files in addition to the row faults.

- ``truncated_zip``: only the first half of the zip's bytes, and the hash of that half;
- ``truncated_file``: a valid zip whose rows stop at ``value`` (ms UTC), or after 40 % of the file's day or month;
- ``reissued``: the same rows in different bytes with a different hash, one hour later;
- ``header``, ``no_header``: with, or without, a header row regardless of the file's date;
- ``junk_last_column``: values other than 0 in the last column;
- ``two_members``: a second CSV in the zip;
- ``other_member``: the CSV has the name of another symbol's file.
"""

LISTING_FAULTS: Final = frozenset({"cut_xml", "entities", "repeated_marker", "few_symbols"})
"""Faults of the archive's listing.

- ``cut_xml``: only the first half of the page;
- ``entities``: a document type with entities that grow to a billion letters;
- ``repeated_marker``: a page that says that the next one begins where it began itself;
- ``few_symbols``: only every tenth name, of one page; also of exchangeInfo, which then lists every tenth symbol.
"""

CHECKSUM_FAULTS: Final = frozenset({"checksum_mismatch"})
"""Faults of the ``.CHECKSUM`` alone: a hash that does not match the zip. ``path`` selects the files."""

ARCHIVE_RESPONSE_FAULTS: Final = frozenset({"status", "not_a_zip"}) | CONNECTION_FAULTS
"""Faults of a single response of the archive; ``not_a_zip`` is an HTML page with status 200."""

_ARCHIVE_ONLY: Final = FILE_FAULTS | CHECKSUM_FAULTS | LISTING_FAULTS | {"not_a_zip"}
_COMBINABLE: Final = frozenset(_ROW_FAULTS) | FILE_FAULTS

KINDS: Final = frozenset(_ROW_FAULTS) | _TEXT_FAULTS | _STATUS_FAULTS | CONNECTION_FAULTS | _ARCHIVE_ONLY
"""All kinds of faults."""

ARCHIVE_ROW_FAULTS: Final = frozenset(_ROW_FAULTS) - _JSON_FAULTS
"""The row faults that a CSV can represent."""

PATHS: Final = (
    *("klines", "exchangeInfo", "time", "ping", "ticker/24hr"),
    *("archive", "archive/daily", "archive/monthly", "archive/checksum", "archive/listing"),
)
"""The endpoints that a fault can affect."""


def _kinds_for(path: str) -> frozenset[str]:
    if path == "archive/checksum":  # a fault that changes the zip would make zip and checksum disagree
        return CHECKSUM_FAULTS | ARCHIVE_RESPONSE_FAULTS
    if path == "archive/listing":
        return LISTING_FAULTS | ARCHIVE_RESPONSE_FAULTS
    if path == "exchangeInfo":
        return KINDS - _ARCHIVE_ONLY | {"few_symbols"}
    return KINDS - _JSON_FAULTS - LISTING_FAULTS if path.startswith("archive") else KINDS - _ARCHIVE_ONLY
