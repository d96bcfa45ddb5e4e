"""The public archive of candles: which files exist, what they contain, and how faults change them.

The layout is that of data.binance.vision (as documented there and measured on its files, 2026-11)::

    /data/{spot|futures/um|futures/cm}/{daily|monthly}/klines/SYMBOL/INTERVAL/SYMBOL-INTERVAL-DATE.zip[.CHECKSUM]

A zip holds one CSV with the finished candles that *open* in its UTC day or month. They are the candles of klines,
synthetic or recorded. A replayed symbol therefore has files only for the days and months with recorded rows, and they
hold exactly those rows. Daily files are published at 08:30 UTC of the next day, monthly files on the 3rd of the next
month. A candle of ``3d`` or ``1w`` that closes after the publication of its month's file is added to the file when it
closes.

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
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias, cast

from binance_assets.model.intervals import Interval, parse_interval
from binance_assets.model.markets import COINM, MARKETS, SPOT, USDM, Market
from binance_assets.model.timestamps import DAY, HOUR, MINUTE, SECOND, to_date, to_ms
from binance_assets.sandbox.faults import (
    ARCHIVE_ROW_FAULTS,
    FILE_FAULTS,
    Fault,
    Faults,
    RequestInfo,
    Rows,
    corrupted_rows,
)
from binance_assets.sandbox.sandbox_exchange import SandboxExchange

_PATH: Final = re.compile(
    rf"/data/(?P<market>{'|'.join(market.archive for market in MARKETS.values())})/(?P<frequency>daily|monthly)/klines/"
    r"(?P<symbol>[^/]+)/(?P<interval>[^/]+)/(?P=symbol)-(?P=interval)-(?P<date>[0-9]{4}-[0-9]{2}(-[0-9]{2})?)\.zip"
    r"(?P<checksum>\.CHECKSUM)?"
)
_MARKET_BY_FOLDER: Final = {market.archive: market for market in MARKETS.values()}
_HEADER: Final = (
    b"open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore"
)
_MONTH: Final = parse_interval("1mo")
_PUBLICATION_DELAY: Final = 8 * HOUR + 30 * MINUTE
_REISSUE_DELAY: Final = HOUR
_ROWS_PER_PAGE: Final = 86_400
_COMPRESSION_LEVEL: Final = 4  # twice as fast as the default 6, and hardly larger
_CACHE_BYTES: Final = 64 * 1024 * 1024
_OPEN_AND_CLOSE_TIME: Final = re.compile(rb"^(\d+)((?:,[^,\n]*){5},\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Format:
    """Differences between the markets' files. The dates are those of the files, ms UTC; None means never.

    Attributes:
        begins: The first moment that the archive covers.
        header_since: Files from this date on have a header row.
        microseconds_since: Times in files from this date on are in us instead of ms.
    """

    begins: int = 0
    header_since: int | None = None
    microseconds_since: int | None = None


_FORMATS: Final = {
    SPOT: _Format(microseconds_since=to_ms(dt.date(2025, 1, 1))),
    USDM: _Format(begins=to_ms(dt.date(2019, 12, 31)), header_since=to_ms(dt.date(2022, 7, 1))),
    COINM: _Format(begins=to_ms(dt.date(2020, 8, 11)), header_since=to_ms(dt.date(2022, 1, 1))),
}


def archive_begins(market: Market) -> int:
    """Return the first moment that the archive of a market covers, ms UTC."""
    return _FORMATS[market].begins


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """The identity of one zip of the archive, whether the zip exists or not.

    Attributes:
        market: The market.
        symbol: The symbol.
        interval: The interval.
        frequency: ``daily`` or ``monthly``.
        start: Start of its day or month, ms UTC.
        end: End of its day or month, exclusive, ms UTC.
    """

    market: Market
    symbol: str
    interval: Interval
    frequency: str
    start: int
    end: int

    @property
    def stem(self) -> str:
        """The name of the zip and of its CSV, without the extension."""
        date = to_date(self.start).isoformat()
        return f"{self.symbol}-{self.interval}-{date if self.frequency == 'daily' else date[:7]}"

    @property
    def published_at(self) -> int:
        """The time of publication, ms UTC."""
        return self.end + _PUBLICATION_DELAY + (0 if self.frequency == "daily" else 2 * DAY)

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

    def request_info(self, *paths: str) -> RequestInfo:
        """Return what faults see of a request for the file; ``paths`` are the fault paths that cover the request."""
        return RequestInfo(paths, self.market.name, self.symbol, self.start, self.end - 1, self.interval.api_name)

    def open_time_range(self, now: int) -> tuple[int, int]:
        """Return the range ``[start, end)`` of open times in the file as of ``now`` (all ms UTC); it may be empty."""
        end = self.end
        if self.interval.is_multi_day and not self.interval.is_month:
            end = min(end, now // DAY * DAY - self.interval.step + 1)  # such candles close at midnight
        return max(self.start, _FORMATS[self.market].begins), end


def parse_path(path: str) -> tuple[PublishedFile, bool] | None:
    """Return the file at ``path`` and whether the path is its ``.CHECKSUM``; None if no such file can exist."""
    match = _PATH.fullmatch(path)
    if match is None or (match["frequency"] == "daily") != (len(match["date"]) == len("2024-01-01")):
        return None
    market = _MARKET_BY_FOLDER[match["market"]]
    interval = next((interval for interval in market.intervals if interval.name == match["interval"]), None)
    if interval is None or (match["frequency"] == "daily" and interval.is_multi_day):
        return None
    try:
        start = to_ms(dt.date.fromisoformat(match["date"] if match["frequency"] == "daily" else match["date"] + "-01"))
        end = start + DAY if match["frequency"] == "daily" else _MONTH.close(start)
    except ValueError:
        return None
    return PublishedFile(market, match["symbol"], interval, match["frequency"], start, end), bool(match["checksum"])


@dataclass(frozen=True, slots=True)
class BuiltFile:
    """A zip that has been built.

    Attributes:
        file: The identity of the file.
        body: The bytes of the zip.
        sha256: Their SHA-256, in hexadecimal.
        last_modified: The value of Last-Modified, ms UTC.
    """

    file: PublishedFile
    body: bytes
    sha256: str
    last_modified: int

    def checksum(self, wrong: bool = False) -> bytes:
        """Return the text of its ``.CHECKSUM``; if ``wrong``, with a hash that does not match the zip."""
        digest = hashlib.sha256(self.sha256.encode()).hexdigest() if wrong else self.sha256
        return f"{digest}  {self.file.stem}.zip".encode()


_CacheKey: TypeAlias = tuple[PublishedFile, tuple[int, int], tuple[Fault, ...]]


class PublishedArchive:
    """The files of the archive, built on request and cached.

    Args:
        exchange: The exchange whose candles the files hold.
        max_bytes: Size of the cache, in bytes of zips; the newest zip is kept whatever its size.
    """

    def __init__(self, exchange: SandboxExchange, max_bytes: int = _CACHE_BYTES) -> None:
        """Start with an empty cache."""
        self._exchange = exchange
        self._max_bytes = max_bytes
        self._cached_bytes = 0
        self._cache: OrderedDict[_CacheKey, BuiltFile] = OrderedDict()
        self._cache_lock = threading.Lock()
        self._build_lock = threading.Lock()

    def exists(self, file: PublishedFile, now: int) -> bool:
        """Return whether ``file`` exists at ``now`` (ms UTC): it has been published and contains a candle."""
        start, end = file.open_time_range(now)
        if now < file.published_at or start >= end or not self._exchange.has_symbol(file.market, file.symbol):
            return False
        return self._exchange.page(file.market, file.symbol, file.interval, (start, end - 1), (1, False)) != b"[]"

    def cached(self, file: PublishedFile, faults: tuple[Fault, ...], now: int) -> BuiltFile | None:
        """Return an existing ``file`` as of ``now`` (ms UTC) under ``faults``, or None if it is not in the cache."""
        # The effect of file faults depends only on the faults themselves, so the faults identify the version.
        key = file, file.open_time_range(now), faults
        with self._cache_lock:
            built = self._cache.get(key)
            if built is not None:
                self._cache.move_to_end(key)
        return built

    def build(self, file: PublishedFile, faults: tuple[Fault, ...], now: int) -> BuiltFile:
        """Return the same as :meth:`cached`, but build the file if necessary.

        This may take long; any thread may call it.
        """
        with self._build_lock:
            built = self.cached(file, faults, now)
            if built is None:
                start, end = file.open_time_range(now)
                closes_at = file.interval.close(self._last_open_time(file, start, end))
                built = _build(file, self._pages(file, start, end), closes_at, faults)
                self._add_to_cache((file, (start, end), faults), built)
        return built

    def _pages(self, file: PublishedFile, start: int, end: int) -> Iterator[bytes]:
        """Yield the candles that open in ``[start, end)`` as JSON lists, none of them empty."""
        step = file.interval.step * _ROWS_PER_PAGE
        for page_start in range(start, end, step):
            page_end = min(page_start + step, end)
            page = self._exchange.all_rows(file.market, file.symbol, file.interval, page_start, page_end)
            if page != b"[]":
                yield page

    def _last_open_time(self, file: PublishedFile, start: int, end: int) -> int:
        row = self._exchange.page(file.market, file.symbol, file.interval, (start, end - 1), (1, True))
        return int(json.loads(row)[0][0])

    def _add_to_cache(self, key: _CacheKey, built: BuiltFile) -> None:
        with self._cache_lock:
            self._cache[key] = built
            self._cached_bytes += len(built.body)
            while self._cached_bytes > self._max_bytes and len(self._cache) > 1:
                self._cached_bytes -= len(self._cache.popitem(last=False)[1].body)


@dataclass(slots=True)
class _FileVersion:
    faults: tuple[Fault, ...]
    served_parts: set[str] = field(default_factory=set)


class FileVersions:
    """Selects the version of a file that a request gets, where faults produce several versions.

    A *version* of a file is one zip and one ``.CHECKSUM`` that belong together; under any faults the two agree. The
    first request decides which file faults apply to the version, and counts them. Later requests get the same version
    until it is used up: the zip is fetched again, or both parts have been fetched. This has the following effects:

    - The order in which zip and ``.CHECKSUM`` are fetched does not matter.
    - A ``.CHECKSUM`` belongs to the zip that was fetched last or, if that zip's ``.CHECKSUM`` has been fetched
      already, to the zip that will be fetched next.
    - HEAD requests and repeated requests for the ``.CHECKSUM`` count at most once.
    - A fault with ``times=1`` corrupts one zip.
    - A response that does not reach the client leaves the version as it was.
    - A change of the active faults ends all versions.

    Args:
        faults: The active faults.
    """

    def __init__(self, faults: Faults) -> None:
        """Start without versions."""
        self._faults = faults
        self._revision = faults.revision
        self._versions: dict[PublishedFile, _FileVersion] = {}

    def faults_for(self, file: PublishedFile, part: str, delivered: bool) -> tuple[Fault, ...]:
        """Return the file faults that apply to a request for an existing file.

        Args:
            file: The file.
            part: ``zip`` or ``checksum``.
            delivered: Whether the client receives the part: the request is not a HEAD, and no fault interrupts the
                response.
        """
        if self._revision != self._faults.revision:
            self._revision = self._faults.revision
            self._versions.clear()
        if not self._faults:
            return ()
        version = self._versions.get(file)
        if version is None or _is_used_up(version, part, delivered):
            request = file.request_info("archive", f"archive/{file.frequency}")
            version = _FileVersion(tuple(self._faults.matching(request, ARCHIVE_ROW_FAULTS | FILE_FAULTS)))
            self._versions[file] = version
        if delivered:
            version.served_parts.add(part)
        return version.faults


def _is_used_up(version: _FileVersion, part: str, delivered: bool) -> bool:
    return len(version.served_parts) == 2 or (delivered and part == "zip" and part in version.served_parts)


def _build(file: PublishedFile, pages: Iterable[bytes], closes_at: int, faults: tuple[Fault, ...]) -> BuiltFile:
    """Build a file from its candles, the last of which closes at ``closes_at`` (ms UTC)."""
    kinds = {fault.kind for fault in faults}
    last_modified = max(file.published_at, closes_at) + (_REISSUE_DELAY if "reissued" in kinds else 0)
    body = _zip(_member_names(file, kinds), _csv(file, pages, faults), last_modified)
    if "truncated_zip" in kinds:
        body = body[: len(body) // 2]
    return BuiltFile(file, body, hashlib.sha256(body).hexdigest(), last_modified)


def _member_names(file: PublishedFile, kinds: Collection[str]) -> list[str]:
    if "other_member" in kinds:
        return [f"OTHER{file.stem}.csv"]
    return [f"{file.stem}.csv", f"{file.stem}-2.csv"] if "two_members" in kinds else [f"{file.stem}.csv"]


def _zip(names: Iterable[str], text: bytes, modified_at: int) -> bytes:
    """Return a zip with ``text`` under each of the names; the bytes are reproducible."""
    buffer = io.BytesIO()
    time = dt.datetime.fromtimestamp(modified_at // SECOND, dt.UTC)
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            member = zipfile.ZipInfo(name, (time.year, time.month, time.day, time.hour, time.minute, time.second))
            member.create_system = 3  # Unix, on every platform
            member.external_attr = 0o644 << 16
            archive.writestr(member, text, zipfile.ZIP_DEFLATED, _COMPRESSION_LEVEL)
    return buffer.getvalue()


def _csv(file: PublishedFile, pages: Iterable[bytes], faults: tuple[Fault, ...]) -> bytes:
    header = [_HEADER + b"\n"] if _writes_header(file, faults) else []
    if not any(fault.corrupts_rows or fault.kind in _FILE_ROW_FAULTS for fault in faults):
        return b"".join([*header, *(_page_to_csv(page, file.in_microseconds) for page in pages)])
    rows = [row for page in pages for row in json.loads(page)]
    return b"".join([*header, _rows_to_csv(_corrupted(rows, file, faults), file.in_microseconds)])


def _writes_header(file: PublishedFile, faults: tuple[Fault, ...]) -> bool:
    header = file.has_header
    for fault in faults:
        if fault.kind in ("header", "no_header"):
            header = fault.kind == "header"
    return header


def _page_to_csv(page: bytes, in_microseconds: bool) -> bytes:
    """Convert a JSON list of rows to CSV lines without parsing the values, which would take several times as long."""
    lines = page[2:-2].replace(b"],[", b"\n").replace(b'"', b"") + b"\n"
    return _OPEN_AND_CLOSE_TIME.sub(rb"\g<1>000\g<2>999", lines) if in_microseconds else lines


def _rows_to_csv(rows: Rows, in_microseconds: bool) -> bytes:
    if in_microseconds:
        rows = [[row[0] * 1000, *row[1:6], row[6] * 1000 + 999, *row[7:]] for row in rows]
    return b"".join(",".join("" if value is None else str(value) for value in row).encode() + b"\n" for row in rows)


def _corrupted(rows: Rows, file: PublishedFile, faults: tuple[Fault, ...]) -> Rows:
    for fault in faults:
        if fault.corrupts_rows:
            rows = cast(Rows, corrupted_rows(rows, fault, file.start, file.interval.step))
        elif fault.kind in _FILE_ROW_FAULTS:
            rows = _FILE_ROW_FAULTS[fault.kind](rows, file, fault)
    return rows


def _truncate_rows(rows: Rows, file: PublishedFile, fault: Fault) -> Rows:
    stop = file.start + (file.end - file.start) * 2 // 5 if fault.value is None else int(fault.value)
    return [row for row in rows if row[0] < stop]


def _fill_last_column(rows: Rows, file: PublishedFile, fault: Fault) -> Rows:
    return [[*row[:-1], f"{1 + i % 9973}.{i % 89:02d}000000"] for i, row in enumerate(rows)]


_FILE_ROW_FAULTS: Final[dict[str, Callable[[Rows, PublishedFile, Fault], Rows]]] = {
    "truncated_file": _truncate_rows,
    "junk_last_column": _fill_last_column,
}
