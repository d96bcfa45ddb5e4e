"""The public archive of candles: which files there are, what is in them, and how faults change them.

The layout is that of data.binance.vision (as documented there and measured on its files, 2026-11)::

    /data/{spot|futures/um|futures/cm}/{daily|monthly}/klines/SYMBOL/INTERVAL/SYMBOL-INTERVAL-DATE.zip[.CHECKSUM]

A zip holds one CSV with the candles that *open* in its UTC day or month and are finished. They are those of klines,
synthetic or recorded, so of a replayed symbol there are files of the days and months of which anything was recorded,
with just the recorded rows. Days are published at 08:30 UTC of the next day, months on the 3rd of the next month. A
candle of ``3d`` or ``1w`` that is not over by then joins its month's file when it is.

Times are integer ms since the epoch, UTC.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import json
import re
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias, cast

from binance_assets.model.intervals import Interval, parse_interval
from binance_assets.model.markets import COINM, MARKETS, SPOT, USDM, Market
from binance_assets.model.timestamps import DAY, HOUR, MINUTE, SECOND, to_date, to_ms
from binance_assets.sandbox.faults import ARCHIVE_ROW_FAULTS, FILE_FAULTS, Call, Fault, Faults, Rows, spoiled_rows
from binance_assets.sandbox.venue import Venue

_PATH: Final = re.compile(
    rf"/data/(?P<market>{'|'.join(market.archive for market in MARKETS.values())})/(?P<period>daily|monthly)/klines/"
    r"(?P<symbol>[^/]+)/(?P<interval>[^/]+)/(?P=symbol)-(?P=interval)-(?P<date>[0-9]{4}-[0-9]{2}(-[0-9]{2})?)\.zip"
    r"(?P<checksum>\.CHECKSUM)?"
)
_MARKETS: Final = {market.archive: market for market in MARKETS.values()}
_HEADER: Final = (
    b"open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore"
)
_MONTH: Final = parse_interval("1mo")
_PUBLISHED_AT: Final = 8 * HOUR + 30 * MINUTE
_REISSUED_AFTER: Final = HOUR
_ROWS_AT_ONCE: Final = 86_400
_COMPRESSION: Final = 4  # twice as fast as the usual 6, and hardly larger
_CACHE_BYTES: Final = 64 * 1024 * 1024
_TIMES: Final = re.compile(rb"^(\d+)((?:,[^,\n]*){5},\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Format:
    """What differs between the markets' files; dates are of the files, ms UTC, None for never.

    Attributes:
        begins: The first moment that the archive covers.
        header_since: Files from here on have a header row.
        microseconds_since: Times in files from here on are in us instead of ms.
    """

    begins: int = 0
    header_since: int | None = None
    microseconds_since: int | None = None


_FORMATS: Final = {
    SPOT: _Format(microseconds_since=to_ms(dt.date(2025, 1, 1))),
    USDM: _Format(begins=to_ms(dt.date(2019, 12, 31)), header_since=to_ms(dt.date(2022, 7, 1))),
    COINM: _Format(begins=to_ms(dt.date(2020, 8, 11)), header_since=to_ms(dt.date(2022, 1, 1))),
}


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """One zip of the archive, whether it exists or not.

    Attributes:
        market: The market.
        symbol: The symbol.
        interval: The interval.
        period: ``daily`` or ``monthly``.
        start: When its day or month begins, ms UTC.
        end: When it is over.
    """

    market: Market
    symbol: str
    interval: Interval
    partition: str
    start: int
    end: int

    @property
    def stem(self) -> str:
        """The name of zip and CSV, without their endings."""
        date = to_date(self.start).isoformat()
        return f"{self.symbol}-{self.interval}-{date if self.partition == 'daily' else date[:7]}"

    @property
    def published(self) -> int:
        """When it appears, ms UTC."""
        return self.end + _PUBLISHED_AT + (0 if self.partition == "daily" else 2 * DAY)

    @property
    def has_header(self) -> bool:
        """Whether the CSV has a header row."""
        since = _FORMATS[self.market].header_since
        return since is not None and since <= self.start

    @property
    def in_microseconds(self) -> bool:
        """Whether the CSV's times are in us."""
        since = _FORMATS[self.market].microseconds_since
        return since is not None and since <= self.start

    def call(self, *endpoints: str) -> Call:
        """A request for it, as faults with one of the paths ``endpoints`` see it."""
        return Call(endpoints, self.market.name, self.symbol, self.start, self.end - 1, self.interval.api_name)

    def opens_by(self, now: int) -> tuple[int, int]:
        """The span ``[start, end)`` in which candles that it holds at ``now`` open, all ms UTC; it may be empty."""
        end = self.end
        if self.interval.is_multi_day and not self.interval.is_month:
            end = min(end, now // DAY * DAY - self.interval.step + 1)  # they end at midnight
        return max(self.start, _FORMATS[self.market].begins), end


def parse_path(path: str) -> tuple[ArchiveFile, bool] | None:
    """The file at ``path`` and whether its ``.CHECKSUM`` is meant; None if no such file can exist."""
    match = _PATH.fullmatch(path)
    if match is None or (match["period"] == "daily") != (len(match["date"]) == len("2024-01-01")):
        return None
    market = _MARKETS[match["market"]]
    interval = next((each for each in market.intervals if each.name == match["interval"]), None)
    if interval is None or (match["period"] == "daily" and interval.is_multi_day):
        return None
    try:
        start = to_ms(dt.date.fromisoformat(match["date"] if match["period"] == "daily" else match["date"] + "-01"))
        end = start + DAY if match["period"] == "daily" else _MONTH.close(start)
    except ValueError:
        return None
    return ArchiveFile(market, match["symbol"], interval, match["period"], start, end), bool(match["checksum"])


@dataclass(frozen=True, slots=True)
class Stored:
    """A file as it is served.

    Attributes:
        file: Which file.
        body: The zip.
        sha256: Its hash, in hexadecimal.
        modified: Its Last-Modified, ms UTC.
    """

    file: ArchiveFile
    body: bytes
    sha256: str
    modified: int

    def checksum(self, wrong: bool = False) -> bytes:
        """The text of its ``.CHECKSUM``, on demand with a hash that is not the zip's."""
        digest = hashlib.sha256(self.sha256.encode()).hexdigest() if wrong else self.sha256
        return f"{digest}  {self.file.stem}.zip".encode()


_Key: TypeAlias = tuple[ArchiveFile, tuple[int, int], tuple[Fault, ...]]


class Archive:
    """The files of the archive, made when they are asked for and kept while there is room.

    Args:
        venue: Whose candles they hold.
        most_bytes: Room for so many bytes of zips; the newest one is kept whatever its size.
    """

    def __init__(self, venue: Venue, most_bytes: int = _CACHE_BYTES) -> None:
        """An archive of which nothing has been made yet."""
        self._venue = venue
        self._most = most_bytes
        self._held_bytes = 0
        self._kept: OrderedDict[_Key, Stored] = OrderedDict()
        self._lock = threading.Lock()
        self._making = threading.Lock()

    def exists(self, file: ArchiveFile, now: int) -> bool:
        """Whether ``file`` exists at ``now`` (ms UTC): it is published and there is a candle in it."""
        start, end = file.opens_by(now)
        if now < file.published or start >= end or not self._venue.lists(file.market, file.symbol):
            return False
        return self._venue.page(file.market, file.symbol, file.interval, (start, end - 1), (1, False)) != b"[]"

    def kept(self, file: ArchiveFile, faults: tuple[Fault, ...], now: int) -> Stored | None:
        """An existing ``file`` as it is at ``now`` (ms UTC) under ``faults``, if it has been made and kept."""
        # What faults of files do depends on nothing but themselves, so the faults tell one version from another.
        key = file, file.opens_by(now), faults
        with self._lock:
            stored = self._kept.get(key)
            if stored is not None:
                self._kept.move_to_end(key)
        return stored

    def make(self, file: ArchiveFile, faults: tuple[Fault, ...], now: int) -> Stored:
        """As :meth:`kept`, but makes it if need be. It may take long; any thread may call it."""
        with self._making:
            stored = self.kept(file, faults, now)
            if stored is None:
                start, end = file.opens_by(now)
                complete = file.interval.close(self._last_open(file, start, end))
                stored = _stored(file, self._pages(file, start, end), complete, faults)
                self._keep((file, (start, end), faults), stored)
        return stored

    def _pages(self, file: ArchiveFile, start: int, end: int) -> Iterator[bytes]:
        """The candles that open in ``[start, end)`` as JSON lists, none of them empty."""
        step = file.interval.step * _ROWS_AT_ONCE
        for begin in range(start, end, step):
            page = self._venue.every_row(file.market, file.symbol, file.interval, begin, min(begin + step, end))
            if page != b"[]":
                yield page

    def _last_open(self, file: ArchiveFile, start: int, end: int) -> int:
        row = self._venue.page(file.market, file.symbol, file.interval, (start, end - 1), (1, True))
        return int(json.loads(row)[0][0])

    def _keep(self, key: _Key, stored: Stored) -> None:
        with self._lock:
            self._kept[key] = stored
            self._held_bytes += len(stored.body)
            while self._held_bytes > self._most and len(self._kept) > 1:
                self._held_bytes -= len(self._kept.popitem(last=False)[1].body)


@dataclass(slots=True)
class _Look:
    faults: tuple[Fault, ...]
    served: set[str] = field(default_factory=set)


class Looks:
    """Which version of a file a request gets, where faults make several of it.

    A *look* at a file is one zip and one ``.CHECKSUM`` that belong together; under any faults they agree. The first
    request settles which faults of files the look meets, and counts them. The other ones then get the same version,
    until the look is over: the zip is fetched again, or both have been fetched. So it does not matter which of the two
    is fetched first; a ``.CHECKSUM`` is that of the zip last fetched, or if that one has had its ``.CHECKSUM``, of the
    zip that will be fetched next; HEAD and a ``.CHECKSUM`` asked again and again count once at most; and a fault with
    ``times=1`` spoils one zip. Answers that did not get through leave the look as it is, and a change of the faults
    ends all looks.
    """

    def __init__(self, faults: Faults) -> None:
        """No looks so far; ``faults`` are those in force."""
        self._faults = faults
        self._version = faults.version
        self._looks: dict[ArchiveFile, _Look] = {}

    def meet(self, file: ArchiveFile, part: str, delivered: bool) -> tuple[Fault, ...]:
        """The faults of an existing file that a request meets.

        Args:
            file: The file.
            part: ``zip`` or ``checksum``.
            delivered: Whether the answer brings the part to the client: it is no HEAD, and no fault breaks it off.
        """
        if self._version != self._faults.version:
            self._version = self._faults.version
            self._looks.clear()
        if not self._faults:
            return ()
        look = self._looks.get(file)
        if look is None or len(look.served) == 2 or (delivered and part == "zip" and part in look.served):
            call = file.call("archive", f"archive/{file.partition}")
            look = _Look(tuple(self._faults.befalling(call, ARCHIVE_ROW_FAULTS | FILE_FAULTS)))
            self._looks[file] = look
        if delivered:
            look.served.add(part)
        return look.faults


def _stored(file: ArchiveFile, pages: Iterable[bytes], complete: int, faults: tuple[Fault, ...]) -> Stored:
    """Put a file together of its candles, the last of which is over at ``complete`` (ms UTC)."""
    kinds = {fault.kind for fault in faults}
    modified = max(file.published, complete) + (_REISSUED_AFTER if "reissued" in kinds else 0)
    names = [f"{file.stem}.csv", f"{file.stem}-2.csv"] if "two_members" in kinds else [f"{file.stem}.csv"]
    body = _zipped(names, _csv(file, pages, faults), modified)
    if "truncated_zip" in kinds:
        body = body[: len(body) // 2]
    return Stored(file, body, hashlib.sha256(body).hexdigest(), modified)


def _zipped(names: Iterable[str], text: bytes, modified: int) -> bytes:
    """A zip with ``text`` under each of the names; the same bytes every time."""
    zipped = io.BytesIO()
    at = dt.datetime.fromtimestamp(modified // SECOND, dt.UTC)
    with zipfile.ZipFile(zipped, "w") as archive:
        for name in names:
            member = zipfile.ZipInfo(name, (at.year, at.month, at.day, at.hour, at.minute, at.second))
            member.create_system = 3  # Unix, wherever this runs
            member.external_attr = 0o644 << 16
            archive.writestr(member, text, zipfile.ZIP_DEFLATED, _COMPRESSION)
    return zipped.getvalue()


def _csv(file: ArchiveFile, pages: Iterable[bytes], faults: tuple[Fault, ...]) -> bytes:
    header = [_HEADER + b"\n"] if _with_header(file, faults) else []
    if not any(fault.spoils_rows or fault.kind in _ROWS_OF_FILES for fault in faults):
        return b"".join([*header, *(_same_lines(page, file.in_microseconds) for page in pages)])
    rows = [row for page in pages for row in json.loads(page)]
    return b"".join([*header, _lines(_spoiled(rows, file, faults), file.in_microseconds)])


def _with_header(file: ArchiveFile, faults: tuple[Fault, ...]) -> bool:
    header = file.has_header
    for fault in faults:
        if fault.kind in ("header", "no_header"):
            header = fault.kind == "header"
    return header


def _same_lines(page: bytes, in_microseconds: bool) -> bytes:
    """A JSON list of rows as lines of CSV, without reading its values: that would take several times as long."""
    lines = page[2:-2].replace(b"],[", b"\n").replace(b'"', b"") + b"\n"
    return _TIMES.sub(rb"\g<1>000\g<2>999", lines) if in_microseconds else lines


def _lines(rows: Rows, in_microseconds: bool) -> bytes:
    """Rows as lines of CSV."""
    if in_microseconds:
        rows = [[row[0] * 1000, *row[1:6], row[6] * 1000 + 999, *row[7:]] for row in rows]
    return b"".join(",".join("" if value is None else str(value) for value in row).encode() + b"\n" for row in rows)


def _spoiled(rows: Rows, file: ArchiveFile, faults: tuple[Fault, ...]) -> Rows:
    for fault in faults:
        if fault.spoils_rows:
            rows = cast(Rows, spoiled_rows(rows, fault, file.start, file.interval.step))
        elif fault.kind in _ROWS_OF_FILES:
            rows = _ROWS_OF_FILES[fault.kind](rows, file, fault)
    return rows


def _stopped(rows: Rows, file: ArchiveFile, fault: Fault) -> Rows:
    stop = file.start + (file.end - file.start) * 2 // 5 if fault.value is None else int(fault.value)
    return [row for row in rows if row[0] < stop]


def _with_junk(rows: Rows, file: ArchiveFile, fault: Fault) -> Rows:
    return [[*row[:-1], f"{1 + i % 9973}.{i % 89:02d}000000"] for i, row in enumerate(rows)]


_ROWS_OF_FILES: Final[dict[str, Callable[[Rows, ArchiveFile, Fault], Rows]]] = {
    "truncated_file": _stopped,
    "junk_last_column": _with_junk,
}
