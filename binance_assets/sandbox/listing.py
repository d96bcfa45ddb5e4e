"""The listing of the archive, as S3 lists the names of a bucket: in pages of 1000, in the order of their bytes.

Names do not say how large their files are: each would have to be built. So a page has no ``ETag`` and no ``Size``.
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from xml.sax.saxutils import escape

from binance_assets.model.markets import MARKETS, Market
from binance_assets.model.partitions import next_month
from binance_assets.model.timestamps import MINUTE, to_date, to_ms
from binance_assets.sandbox.archive import PublishedArchive, PublishedFile, archive_begins
from binance_assets.sandbox.listings import Listing
from binance_assets.sandbox.sandbox_exchange import SandboxExchange

_MOST_NAMES: Final = 1000
_CLOCK: Final = 30 * MINUTE  # files are published on the half hour
_FREQUENCIES: Final = ("daily", "monthly")
_BOMB: Final = (
    '<!DOCTYPE ListBucketResult [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {name} "{f"&{before};" * 10}">' for before, name in zip("abcdefgh", "bcdefghi", strict=True))
    + "]>"
)


@dataclass(frozen=True, slots=True)
class Page:
    """One page.

    Attributes:
        prefix: The requested prefix.
        marker: The requested marker; empty without one.
        names: Names of files and folders; a folder ends with a slash.
        truncated: Whether more names follow.
        has_delimiter: Whether folders are listed instead of what they contain; only then S3 names the next marker.
    """

    prefix: str
    marker: str
    names: tuple[str, ...]
    truncated: bool
    has_delimiter: bool

    def xml(self, fault: str | None = None) -> bytes:
        """Return the page as XML, changed by the kind of fault."""
        names = self.names[::10] if fault == "few_symbols" else self.names
        truncated = (self.truncated and fault != "few_symbols") or fault == "repeated_marker"
        following = self.marker or self.prefix if fault == "repeated_marker" else (names or ("",))[-1]
        parts = [
            f"<Name>data.binance.vision</Name><Prefix>{escape(self.prefix)}</Prefix>"
            f"<Marker>{escape(self.marker)}</Marker><MaxKeys>{_MOST_NAMES}</MaxKeys>",
            "<Delimiter>/</Delimiter>" if self.has_delimiter else "",
            f"<IsTruncated>{str(truncated).lower()}</IsTruncated>",
            f"<NextMarker>{escape(following)}</NextMarker>" if truncated and self.has_delimiter else "",
            *(_element(name) for name in names),
            "<Prefix>&i;</Prefix>" if fault == "entities" else "",
        ]
        text = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            + (_BOMB if fault == "entities" else "")
            + f'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{"".join(parts)}</ListBucketResult>'
        ).encode()
        return text[: len(text) // 2] if fault == "cut_xml" else text


def _element(name: str) -> str:
    if name.endswith("/"):
        return f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>"
    return f"<Contents><Key>{escape(name)}</Key><StorageClass>STANDARD</StorageClass></Contents>"


def listed_folder(prefix: str) -> tuple[str, str | None]:
    """Return the name of the market and the symbol whose names begin with ``prefix``; empty and None where unknown."""
    for market in MARKETS.values():
        if prefix.startswith(f"data/{market.archive}/"):
            parts = prefix.split("/klines/", 1)[-1].split("/") if "/klines/" in prefix else [""]
            return market.name, parts[0] or None
    return "", None


class ArchiveListing:
    """The names of all files of the archive.

    Args:
        exchange: The exchange whose candles the files hold.
    """

    def __init__(self, exchange: SandboxExchange) -> None:
        self._exchange = exchange
        self._archive = PublishedArchive(exchange)
        self._files = lru_cache(64)(lambda *key: tuple(self._published(*key)))

    def page(self, params: Mapping[str, str], now: int) -> Page:
        """Return the page that a request asks for, as of ``now`` (ms UTC)."""
        prefix, marker = params["prefix"], params.get("marker", "")
        has_delimiter = params.get("delimiter") == "/"
        names: list[str] = []
        for name in self._names(prefix, marker, has_delimiter, now):
            if len(names) == _MOST_NAMES:
                return Page(prefix, marker, tuple(names), True, has_delimiter)
            names.append(name)
        return Page(prefix, marker, tuple(names), False, has_delimiter)

    def _names(self, prefix: str, marker: str, has_delimiter: bool, now: int) -> Iterator[str]:
        folder = prefix[: prefix.rfind("/") + 1]
        entries = self._entries(folder, now)
        for entry in entries[bisect_right(entries, marker) :] if has_delimiter else entries:
            if not entry.startswith(prefix):
                continue
            if has_delimiter or not entry.endswith("/"):
                if entry > marker:
                    yield entry
            elif entry > marker or marker.startswith(entry):
                yield from self._names(entry, marker, False, now)

    def _entries(self, folder: str, now: int) -> list[str]:
        """Return what a folder contains, each with its whole name, in the order of the bucket."""
        if folder == "":
            return ["data/"]
        for market in MARKETS.values():
            root = f"data/{market.archive}/"
            if folder.startswith(root):
                return self._in_market(market, root, folder, now)
        known = [f"data/{market.archive}/" for market in MARKETS.values()]
        below = {folder + root.removeprefix(folder).split("/")[0] + "/" for root in known if root.startswith(folder)}
        return sorted(below)

    def _in_market(self, market: Market, root: str, folder: str, now: int) -> list[str]:
        parts = folder.removeprefix(root).split("/")[:-1]
        if not parts:
            return [f"{root}{frequency}/" for frequency in _FREQUENCIES]
        if parts[0] not in _FREQUENCIES or parts[1:2] not in ([], ["klines"]):
            return []
        if len(parts) == 1:
            return [f"{folder}klines/"]
        return sorted(self._in_klines(market, parts[0], parts[2:], folder, now))

    def _in_klines(self, market: Market, frequency: str, parts: list[str], folder: str, now: int) -> list[str]:
        time, listings = now // _CLOCK, self._exchange.all_listings(market)
        if not parts:
            return [
                f"{folder}{member.symbol}/" for member in listings if self._has_files(frequency, member, "1d", time)
            ]
        listing = next((member for member in listings if member.symbol == parts[0]), None)
        if listing is None:
            return []
        if len(parts) == 1:
            names = [interval.name for interval in market.intervals]
            return [f"{folder}{name}/" for name in names if self._has_files(frequency, listing, name, time)]
        stems = self._files(frequency, listing, parts[1], time) if len(parts) == 2 else ()
        return [f"{folder}{stem}.zip{suffix}" for stem in stems for suffix in ("", ".CHECKSUM")]

    def _has_files(self, frequency: str, listing: Listing, interval_name: str, time: int) -> bool:
        return next(self._published(frequency, listing, interval_name, time), None) is not None

    def _published(self, frequency: str, listing: Listing, interval_name: str, time: int) -> Iterator[str]:
        """Yield the stems of the files of a symbol that are published by a time.

        Args:
            frequency: ``daily`` or ``monthly``.
            listing: The symbol.
            interval_name: The interval.
            time: The time, in units of the clock of publications since the epoch.
        """
        market = listing.market
        interval = next((interval for interval in market.intervals if interval.name == interval_name), None)
        if interval is None or (frequency == "daily" and interval.is_multi_day):
            return
        now = time * _CLOCK
        first = to_date(max(listing.listed_at, archive_begins(market)))
        end = to_date(min(now, listing.delivered_at or now))
        starts = _days(first, end) if frequency == "daily" else _months(first, end)
        files = (
            PublishedFile(market, listing.symbol, interval, frequency, to_ms(start), to_ms(following))
            for start, following in starts
        )
        yield from (file.stem for file in files if self._exists(file, listing, now))

    def _exists(self, file: PublishedFile, listing: Listing, now: int) -> bool:
        if file.interval.is_multi_day or not self._exchange.is_synthetic(listing):
            return self._archive.exists(file, now)
        start, end = file.open_time_range(now)
        ends = listing.delivered_at is None or start < listing.delivered_at
        suspended = listing.suspended is not None and listing.suspended[0] <= start and end <= listing.suspended[1]
        return now >= file.published_at and start < end and listing.listed_at < end and ends and not suspended


def _days(first: dt.date, last: dt.date) -> Iterator[tuple[dt.date, dt.date]]:
    for number in range((last - first).days + 1):
        day = first + dt.timedelta(days=number)
        yield day, day + dt.timedelta(days=1)


def _months(first: dt.date, last: dt.date) -> Iterator[tuple[dt.date, dt.date]]:
    month = first.replace(day=1)
    while month <= last:
        yield month, next_month(month)
        month = next_month(month)
