"""The listing of the public archive: the catalog of every symbol that ever traded, with its first and last day.

The listing is that of an S3 bucket: XML, at most 1000 names a page, in the order of their UTF-8 bytes. A page says
whether more follow, and the name after which the next one begins (AWS documentation of ListObjects, 2026-11)::

    ?delimiter=/&prefix=data/spot/daily/klines/              the folders of the symbols
    ?prefix=data/spot/daily/klines/BTCUSDT/1d/&marker=...    the files of a symbol, after a name

No page is trusted: pages and names are bounded, each page has to end after the one before it, and a document that
declares anything (a DTD, and so entities) is refused.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final
from xml.parsers import expat

from binance_assets.exchange.circuit import Circuit
from binance_assets.exchange.errors import ExchangeError, UnexpectedContent, UnexpectedResponse
from binance_assets.exchange.http import HttpClient, reading
from binance_assets.exchange.retry import Retrier
from binance_assets.exchange.workers import WorkerPool
from binance_assets.model.intervals import DAILY
from binance_assets.model.markets import Market, listing_address
from binance_assets.model.outside import printable
from binance_assets.model.symbol_names import is_symbol
from binance_assets.model.timestamps import CANDLE_TIMES, to_ms
from binance_assets.settings import Settings
from binance_assets.waiting import request as request_in_flight

LISTING_BYTES: Final = 4_000_000
"""The most bytes of a page: 1000 names with all that S3 says about each have 0.4 million."""

_MOST_PAGES: Final = 100  # of one listing; spot has 4,000 symbols, and ten years of days are eight pages
_MOST_NAMES: Final = 1_000  # of a page
_LONGEST_NAME: Final = 1_024  # bytes of a key, by S3
_DEEPEST: Final = 8  # ListBucketResult, Contents, Owner, ID
_MOST_WORKERS: Final = 16
_DATE: Final = re.compile(r"(?P<year>[0-9]{4})-(?P<month>[0-9]{2})(-(?P<day>[0-9]{2}))?\.zip")


@dataclass(frozen=True, slots=True)
class ListingPage:
    """One page of the listing.

    Attributes:
        names: Names of files, or of folders, which end with a slash; as the bucket orders them.
        next_marker: The name after which the next page begins; None if this is the last page.
    """

    names: tuple[str, ...]
    next_marker: str | None


@dataclass(frozen=True, slots=True)
class TradedDays:
    """The days for which the archive has candles of a symbol.

    Attributes:
        first: The first day, UTC.
        last: The last day, UTC.
    """

    first: dt.date
    last: dt.date


class ArchiveListing:
    """The listing of one market; nothing is sent before the first call.

    Args:
        market: The market.
        settings: Host, timeouts, number of workers.
        on_request: Called before each request.
        retrier: How to retry failed requests; None waits in real time between two attempts.

    Attributes:
        market: The market.
        venue: Whose archive it is: ``binance`` or ``sandbox``; None before the first response.
    """

    def __init__(
        self,
        market: Market,
        settings: Settings,
        on_request: Callable[[], None] = lambda: None,
        retrier: Retrier | None = None,
    ) -> None:
        self.market = market
        self.venue: str | None = None
        url, self._path = listing_address(settings.archive_url)
        self._most_workers = min(_MOST_WORKERS, settings.max_workers)
        self._client = HttpClient(url, self._most_workers, settings.connect_timeout, settings.read_timeout)
        self._pool = WorkerPool(warmup=0, ahead_per_worker=1)
        self._on_request = on_request
        self._retrier = retrier or Retrier()
        self._circuit = Circuit(failures=5, probes=2)

    def symbols(self) -> list[str]:
        """Return every symbol of which the archive has candles, ascending; a name that is none is left out.

        Raises:
            ExchangeError: A request failed.
            Cancelled: The listing was closed.
        """
        return self._pool.run(lambda: sorted({*self._folders("daily"), *self._folders("monthly")}))

    def days(self, symbols: Sequence[str]) -> Iterator[tuple[str, TradedDays | ExchangeError | None]]:
        """Yield each symbol with the first and the last day of its ``1d`` candles, or an error, in their order.

        A symbol without any file has no days: None.

        Raises:
            Cancelled: The listing was closed.
        """
        return self._pool.stream(symbols, self._days, lambda: self._most_workers)

    def close(self) -> None:
        """Stop all work: waits end, and requests in flight are abandoned."""
        self._pool.close()
        self._client.close()

    def _folder(self, frequency: str) -> str:
        return f"data/{self.market.archive}/{frequency}/klines/"

    def _folders(self, frequency: str) -> Iterator[str]:
        prefix = self._folder(frequency)
        for name in self._names(prefix, delimiter=True):
            symbol = name.removeprefix(prefix).removesuffix("/")
            if name.endswith("/") and is_symbol(symbol):
                yield symbol

    def _days(self, symbol: str) -> TradedDays | None:
        """Return the days of a symbol, in at most three requests for one that traded for less than forty years."""
        daily = f"{self._folder('daily')}{symbol}/{DAILY}/"
        page = self._page(daily, "", delimiter=False)
        days = [day for name in page.names for day in _days_in(name, symbol)]
        if page.next_marker is None and days:
            return TradedDays(min(days), max(days))
        # The files of months are few; the last one says where the last days are to be looked for.
        monthly = f"{self._folder('monthly')}{symbol}/{DAILY}/"
        months = [day for name in self._names(monthly, delimiter=False) for day in _days_in(name, symbol)]
        if page.next_marker is not None:
            since = max(months).replace(day=1).isoformat() if months else ""
            marker = max(page.next_marker, f"{daily}{symbol}-{DAILY}-{since}")
            days += [day for name in self._names(daily, False, marker) for day in _days_in(name, symbol)]
        known = days or months
        return TradedDays(min(known), max(known)) if known else None

    def _names(self, prefix: str, delimiter: bool, marker: str = "") -> Iterator[str]:
        """Yield all names below ``prefix`` that follow ``marker``.

        Raises:
            ExchangeError: A request failed, or the listing has no end.
        """
        for _ in range(_MOST_PAGES):
            page = self._page(prefix, marker, delimiter)
            yield from page.names
            if page.next_marker is None:
                return
            marker = page.next_marker
        raise UnexpectedContent(f"the archive's listing of {prefix} has more than {_MOST_PAGES} pages", prefix, 200)

    def _page(self, prefix: str, marker: str, delimiter: bool) -> ListingPage:
        parameters = {"prefix": prefix} | ({"marker": marker} if marker else {})
        if delimiter:
            parameters = {"delimiter": "/"} | parameters
        return self._circuit.call(
            lambda: self._retrier.call_with_retries(lambda: self._read(parameters, prefix, marker), self._pool.stop)
        )

    def _read(self, parameters: dict[str, str], prefix: str, marker: str) -> ListingPage:
        self._circuit.check()
        self._on_request()
        with request_in_flight():
            response = self._client.get(self._path, parameters, LISTING_BYTES)

        def not_a_listing(cause: str) -> ExchangeError:
            reason = f"the archive's listing of {prefix} cannot be read: {cause}; check BINANCE_ARCHIVE_URL"
            return UnexpectedResponse(reason, response.request, 200, headers=response.headers)

        with reading(not_a_listing):
            page = read_listing(response.body, prefix, marker)
        self.venue = "sandbox" if response.from_sandbox else "binance"
        return page


def _days_in(name: str, symbol: str) -> Iterator[dt.date]:
    """Yield the day, or the first and the last day of the month, that the name of a zip states; nothing if it is none.

    Days on which no candle can have opened are left out.
    """
    match = _DATE.fullmatch(name.rpartition("/")[2].removeprefix(f"{symbol}-{DAILY}-"))
    if match is None:
        return
    try:
        first = dt.date(int(match["year"]), int(match["month"]), int(match["day"] or 1))
    except ValueError:
        return
    last = first if match["day"] else (first + dt.timedelta(days=31)).replace(day=1) - dt.timedelta(days=1)
    yield from (day for day in dict.fromkeys((first, last)) if to_ms(day) in CANDLE_TIMES)


def read_listing(body: bytes, prefix: str, marker: str) -> ListingPage:
    """Read a page of the listing.

    Args:
        body: The XML.
        prefix: What was requested; every name has to begin with it.
        marker: The name that the page has to begin after; empty for the first page.

    Raises:
        ValueError: It is not such a page.
    """
    reader = _Reader()
    try:
        reader.parse(body)
    except expat.ExpatError as error:
        raise ValueError(f"it is not XML ({error})") from None
    names = tuple(reader.names)
    for name in names:
        if not name.startswith(prefix) or not name.isprintable():
            raise ValueError(f"it names {printable(name, 60)!r}")
    if not reader.truncated:
        return ListingPage(names, None)
    following = reader.next_marker or max(names, default="")
    if following.encode() <= marker.encode() or not following.startswith(prefix) or not following.isprintable():
        raise ValueError(f"its next page would begin after {printable(following, 60)!r}, so the listing would not end")
    return ListingPage(names, following)


@dataclass(slots=True)
class _Reader:
    """Reads the names of a page, without a tree and without entities."""

    names: list[str] = field(default_factory=list)
    truncated: bool = False
    next_marker: str | None = None
    _path: list[str] = field(default_factory=list)
    _text: list[str] = field(default_factory=list)
    _length: int = 0

    def parse(self, body: bytes) -> None:
        """Read the XML.

        Raises:
            ValueError: It declares something, is nested too deeply, or is no listing.
            ExpatError: It is not XML.
        """
        parser = expat.ParserCreate("UTF-8")  # whatever its declaration says
        parser.StartDoctypeDeclHandler = self._refuse
        parser.StartElementHandler = self._start
        parser.CharacterDataHandler = self._characters
        parser.EndElementHandler = self._end
        parser.Parse(body, True)

    def _refuse(self, *_: object) -> None:
        raise ValueError("it has a document type, which no listing needs")

    def _start(self, tag: str, _attributes: object) -> None:
        if not self._path and tag != "ListBucketResult":
            raise ValueError(f"it is {printable(tag, 60)} instead of ListBucketResult")
        if len(self._path) >= _DEEPEST:
            raise ValueError("its elements are nested too deeply")
        self._path.append(tag)
        self._text, self._length = [], 0

    def _characters(self, text: str) -> None:
        self._length += len(text)
        if self._length > _LONGEST_NAME:
            raise ValueError(f"a text in it is longer than {_LONGEST_NAME:,} characters")
        self._text.append(text)

    def _end(self, _tag: str) -> None:
        path, text = self._path[1:], "".join(self._text)
        if path in (["Contents", "Key"], ["CommonPrefixes", "Prefix"]):
            self.names.append(text)
            if len(self.names) > _MOST_NAMES:
                raise ValueError(f"it has more than {_MOST_NAMES:,} names")
        elif path == ["IsTruncated"]:
            self.truncated = text.strip() == "true"
        elif path == ["NextMarker"]:
            self.next_marker = text
        self._path.pop()
        self._text, self._length = [], 0
