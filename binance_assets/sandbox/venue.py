"""What stands behind the sandbox's endpoints: its options, clock, symbols, candles and book of served requests."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from binance_assets.model.intervals import Interval
from binance_assets.model.markets import MARKETS, Market
from binance_assets.sandbox.faults import Faults
from binance_assets.sandbox.limits import WeightLimits
from binance_assets.sandbox.listings import Listing, synthetic_listings
from binance_assets.sandbox.recorded import RecordedCandles, recorded_candles
from binance_assets.sandbox.synthetic import BlockCache, SyntheticCandles

_MOST_REQUESTS: Final = 200_000
_ALL_ROWS: Final = 1 << 60


def _binance_limits() -> Mapping[str, int]:
    return {market.rate_limit_group: market.weight_limit for market in MARKETS.values()}


@dataclass
class SandboxOptions:
    """How a sandbox behaves.

    Attributes:
        rtt_ms: Round-trip time of every answer, half of it before the request counts and half after; ms.
        jitter_ms: At most so much extra time for each answer, ms.
        replay: A folder of recorded files, see :mod:`binance_assets.sandbox.recorded`; None for none.
        limits: Request weight that a minute has room for, by pool.
        clock_offset_ms: The sandbox's clock minus this machine's, ms; it may be changed while the sandbox runs.
    """

    rtt_ms: float = 0.0
    jitter_ms: float = 0.0
    replay: Path | None = None
    limits: Mapping[str, int] = field(default_factory=_binance_limits)
    clock_offset_ms: int = 0


@dataclass(frozen=True, slots=True)
class Served:
    """One request that the sandbox took.

    Attributes:
        path: The path.
        params: The query.
        status: HTTP status of the answer; 0 where a fault left the request without one.
        weight: Request weight charged; 0 for the archive.
        at_ms: When it arrived, ms UTC of the sandbox's clock.
    """

    path: str
    params: dict[str, str]
    status: int
    weight: int
    at_ms: int


class Candles(Protocol):
    """The candles of one symbol."""

    def select(self, interval: Interval, start: int, end: int, limit: int, newest: bool, now: int) -> bytes:
        """Rows that open in ``[start, end]``, ascending, as the JSON list of an answer."""


class Venue:
    """The state of one sandbox.

    Raises:
        ValueError: The folder of recordings does not exist or a file in it cannot be read.
    """

    def __init__(self, options: SandboxOptions) -> None:
        """A venue without traffic or faults."""
        self.options = options
        self.faults = Faults()
        self.limits = WeightLimits({**_binance_limits(), **options.limits})
        self.requests: list[Served] = []
        self.by_status: Counter[int] = Counter()
        self.weight_by_pool: Counter[str] = Counter()
        self._blocks = BlockCache()
        self._lock = threading.Lock()
        self._listings = synthetic_listings()
        self._candles: dict[tuple[str, str], Candles] = {}
        if options.replay is not None:
            self._add_recorded(recorded_candles(options.replay))

    def _add_recorded(self, recorded: Mapping[tuple[str, str], RecordedCandles]) -> None:
        self._candles.update(recorded)
        for (market, symbol), candles in recorded.items():
            listing = Listing(MARKETS[market], symbol, candles.first_open)
            self._listings.setdefault((market, symbol), listing)

    def now_ms(self) -> int:
        """The venue's clock, ms UTC."""
        return time.time_ns() // 1_000_000 + self.options.clock_offset_ms

    def lists(self, market: Market, symbol: str) -> bool:
        """Whether klines knows ``symbol``, delivered contracts included."""
        return (market.name, symbol) in self._listings

    def trading(self, market: Market, now: int) -> list[Listing]:
        """What exchangeInfo lists at ``now`` (ms UTC)."""
        return [each for each in self._listings.values() if each.market is market and each.is_trading(now)]

    def page(
        self, market: Market, symbol: str, interval: Interval, window: tuple[int, int], rows: tuple[int, bool]
    ) -> bytes:
        """Candles of a listed symbol as the JSON list of an answer.

        Args:
            market: The market.
            symbol: The symbol.
            interval: The interval.
            window: First and last open time, both included, ms UTC.
            rows: At most how many rows, and whether the newest of the window.
        """
        now = self.now_ms()
        # Tests ask for the truth from another thread than the server's.
        with self._lock:
            return self._of(market.name, symbol).select(interval, *window, *rows, now)

    def every_row(self, market: Market, symbol: str, interval: Interval, start: int, end: int) -> bytes:
        """Every candle that opens in ``[start, end)`` (ms UTC), as a JSON list."""
        return self.page(market, symbol, interval, (start, end - 1), (_ALL_ROWS, False))

    def _of(self, market: str, symbol: str) -> Candles:
        names = (market, symbol)
        if names not in self._candles:
            self._candles[names] = SyntheticCandles(self._listings[names], self._blocks)
        return self._candles[names]

    def note(self, served: Served, rate_limit_group: str | None) -> None:
        """Enter a request in the book; beyond a bound the older half of the book is dropped.

        Args:
            served: The request.
            rate_limit_group: The pool that its weight counts in; None for the archive, which counts none.
        """
        self.requests.append(served)
        self.by_status[served.status] += 1
        if rate_limit_group is not None:
            self.weight_by_pool[rate_limit_group] += served.weight
        if len(self.requests) > _MOST_REQUESTS:
            del self.requests[: _MOST_REQUESTS // 2]

    def summary(self) -> dict[str, Any]:
        """Number of requests, and how many by status and how much weight by pool."""
        return {
            "count": self.by_status.total(),
            "by_status": {str(status): count for status, count in sorted(self.by_status.items())},
            "weight": dict(self.weight_by_pool),
        }
