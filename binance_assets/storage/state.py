"""The files that belong to a lake but hold no candles: marker, cached first candles, coverage, copies of damaged files.

Here belongs what they hold, and how they are changed. What does not belong here: where they lie (``local_store``,
``bucket_store``).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

from binance_assets.model.bucket_paths import LakePath, below
from binance_assets.model.markets import Market
from binance_assets.model.outside import whole_number
from binance_assets.model.timestamps import CANDLE_TIMES
from binance_assets.storage.store import COVERAGE, DAMAGED, FILE_INDEX, FIRST_CANDLES, MARKER, Content, TooLarge
from binance_assets.storage.stores import store_at

# What the files can have: a marker a few lines, the first candles a line for each of a million series.
_MOST_MARKER: Final = 65_536
_MOST_FIRST_CANDLES: Final = 100_000_000


@dataclass(frozen=True, slots=True)
class Marker:
    """What the marker of a lake says.

    Attributes:
        venue: The venue of the lake's candles.
        layout: The layout of the lake.
        hosts: The exchange that its candles are from, by name of the market, and that of the ``archive``, as
            :func:`binance_assets.model.markets.exchange_at` names it. Version 0.1.0 did not write it.
    """

    venue: str
    layout: int
    hosts: dict[str, str]

    @classmethod
    def parse(cls, text: str) -> Marker:
        """Return the marker with the given text.

        Raises:
            ValueError: It is not a marker.
        """
        content = _parse_object(text)
        venue, hosts = content.get("origin"), content.get("hosts", {})
        layout = whole_number(content.get("layout", 1), range(1, 1_000_000))
        if not isinstance(venue, str) or layout is None:
            raise ValueError("it names no venue and layout")
        if not isinstance(hosts, dict) or not all(isinstance(host, str) for host in hosts.values()):
            raise ValueError("its hosts are not names")
        return cls(venue, layout, hosts)

    @property
    def text(self) -> str:
        """The text of the file."""
        content: dict[str, object] = {"origin": self.venue, "layout": self.layout}
        return json.dumps(content | ({"hosts": self.hosts} if self.hosts else {})) + "\n"

    def updated(self, wanted: Marker) -> Marker:
        """Return the marker to write where there is this one; it stays as it is if its venue is another."""
        if self.venue != wanted.venue:
            return self
        return Marker(self.venue, wanted.layout, wanted.hosts | self.hosts)


class LakeState:
    """The files beside a lake. Nothing is created before the first write.

    Args:
        root: The folder of the lake, or its place in a bucket.
        environment: The variables that say how to reach the bucket; None for those of the process.
    """

    def __init__(self, root: LakePath, environment: Mapping[str, str] | None = None) -> None:
        self.store = store_at(root, environment)
        self._added: dict[str, int] = {}  # first candles that are not written yet
        self._adding = threading.Lock()

    @property
    def marker_path(self) -> LakePath:
        """The path of the marker, whether it exists or not."""
        return self.store.find_state(MARKER)

    def marker(self) -> Marker | None:
        """Return the marker; None if there is none.

        Raises:
            OSError, ValueError: It cannot be read, or is not a marker.
            StoreError: The store cannot be used.
        """
        return _marker_of(self.store.read_state(MARKER, _MOST_MARKER))

    def write_marker(self, venue: str, layout: int, hosts: Mapping[str, str] | None = None) -> Marker:
        """Write the marker, unless there is one of another venue, which another process may have just written.

        No process changes what it says of the venue and the hosts, so it stays as returned.

        Args:
            venue: The venue.
            layout: The layout of the lake.
            hosts: The exchange by market, and that of the archive; those that the marker has already stay.

        Returns:
            The marker that there is now.

        Raises:
            OSError, StoreError: It cannot be written.
            ValueError: There is one that cannot be read.
        """
        wanted = Marker(venue, layout, dict(hosts or {}))
        existing = self.marker()
        if existing is not None and existing.updated(wanted) == existing:
            return existing

        def attempt() -> Marker:
            content = self.store.read_state(MARKER, _MOST_MARKER)
            updated = (_marker_of(content) or wanted).updated(wanted)
            self.store.replace(self.store.state_folder / MARKER, updated.text.encode(), content and content.version)
            return updated

        return self.store.exclusively(self.store.state_folder, attempt)

    def first_opens(self) -> dict[str, int]:
        """Return the cached open times of the first candles, ms UTC, by name of the series.

        Raises:
            StoreError: The store cannot be used.
        """
        with suppress(OSError, ValueError):  # only a cache: the times can be requested again
            return _first_opens_of(self.store.read_state(FIRST_CANDLES, _MOST_FIRST_CANDLES))
        return {}

    def remember_first_open(self, name: str, first: int) -> None:
        """Cache the open time of the first candle of the series ``name``, ms UTC.

        What other threads add while one waits for the lock is written by one of them for all, because each write
        replaces the whole file.

        Raises:
            OSError, StoreError: The file cannot be written.
        """
        with self._adding:
            self._added[name] = first
        taken: dict[str, int] = {}

        def attempt() -> None:
            with self._adding:
                taken.update(self._added)
                self._added = {}
            if taken:
                content = self._first_candles()
                text = _lines_of(_first_opens_of(content) | taken)
                path = self.store.state_folder / FIRST_CANDLES
                self.store.replace(path, text.encode(), content and content.version)

        self.store.exclusively(self.store.state_folder, attempt)

    def _first_candles(self) -> Content | None:
        """Return the cache as it is; without its bytes where these are damaged, so that it is written again."""
        content = None
        try:
            content = self.store.read_state(FIRST_CANDLES, _MOST_FIRST_CANDLES)
            _first_opens_of(content)
        except OSError:
            return None
        except TooLarge as error:
            return Content(b"{}", error.version)
        except ValueError:
            return content and content._replace(data=b"{}")
        return content

    def coverage_path(self, market: Market) -> LakePath:
        """Return the path of a market's coverage, whether it exists or not."""
        return self.store.state_folder / COVERAGE / f"{market.name}.parquet"

    def file_index_path(self, market: Market) -> LakePath:
        """Return the path of the index of a market's files, whether it exists or not."""
        return self.store.state_folder / FILE_INDEX / f"{market.name}.parquet"

    def keep_damaged(self, path: LakePath) -> LakePath:
        """Copy a damaged file of the lake, so that replacing it destroys nothing; return the path of the copy.

        The copy of an earlier damage of the same file is kept too; the number of the copy follows the name.

        Raises:
            OSError, StoreError: It cannot be copied.
            Changed: In a bucket, another process has just kept a copy of this name.
        """
        content = self.store.read(path).data
        first = self.store.state_folder / DAMAGED / below(path, self.store.root)
        for number in count(1):
            copy = first.with_name(f"{first.name}.{number}") if number > 1 else first
            try:
                if self.store.read(copy).data == content:
                    break
            except FileNotFoundError:
                self.store.replace(copy, content, None)  # another process may be about to keep another damage
                break
        return copy


def _marker_of(content: Content | None) -> Marker | None:
    return None if content is None else Marker.parse(content.data.decode())


def _first_opens_of(content: Content | None) -> dict[str, int]:
    """Return the open times of first candles.

    Raises:
        ValueError: The file holds something else.
    """
    cached = _parse_object("{}" if content is None else content.data.decode())
    opens = {name: whole_number(first, range(CANDLE_TIMES.stop)) for name, first in cached.items()}
    return {name: first for name, first in opens.items() if first is not None}


def _lines_of(opens: Mapping[str, int]) -> str:
    """Return a JSON object with a line for each series, in a third of the time that the ``indent`` of Python takes."""
    lines = ",\n".join(f" {json.dumps(name, ensure_ascii=False)}: {first}" for name, first in opens.items())
    return f"{{\n{lines}\n}}\n"


def _parse_object(text: str) -> dict[str, Any]:
    """Return the members of a JSON object.

    Raises:
        ValueError: The text is not one.
    """
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if not isinstance(content, dict):
        raise ValueError("it is not an object")
    return content
