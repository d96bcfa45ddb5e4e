"""The state behind the sandbox's endpoints: options, clock, symbols, candles, faults and the request log."""

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
from binance_assets.sandbox.recorded import RecordedCandles, load_recorded_candles
from binance_assets.sandbox.suspended import SuspendedCandles
from binance_assets.sandbox.synthetic import BlockCache, SyntheticCandles

_MAX_LOGGED_REQUESTS: Final = 200_000
_NO_LIMIT: Final = 1 << 60
_BLOCKS: Final = BlockCache()  # all sandboxes of a process serve the same synthetic candles


def _binance_limits() -> Mapping[str, int]:
    return {market.rate_limit_group: market.weight_limit for market in MARKETS.values()}


@dataclass
class SandboxOptions:
    """The options of a sandbox.

    Attributes:
        rtt_ms: Round-trip time of every response, ms; half of it passes before the request is counted, half after.
        jitter_ms: Maximum random extra time of each response, ms.
        replay: Folder of recorded files, see :mod:`binance_assets.sandbox.recorded`; None to replay nothing.
        limits: Request weight per minute, by rate-limit group.
        clock_offset_ms: The sandbox's clock minus this machine's clock, ms; it may change while the sandbox runs.
    """

    rtt_ms: float = 0.0
    jitter_ms: float = 0.0
    replay: Path | None = None
    limits: Mapping[str, int] = field(default_factory=_binance_limits)
    clock_offset_ms: int = 0


@dataclass(frozen=True, slots=True)
class ServedRequest:
    """One entry of the request log.

    Attributes:
        path: The path.
        params: The query parameters.
        status: HTTP status of the response; 0 if a fault left the request without a response.
        weight: Request weight charged; 0 for the archive.
        at_ms: Time of arrival, ms UTC by the sandbox's clock.
    """

    path: str
    params: dict[str, str]
    status: int
    weight: int
    at_ms: int


class Candles(Protocol):
    """The candles of one symbol."""

    def select(self, interval: Interval, start: int, end: int, limit: int, newest: bool, now: int) -> bytes:
        """Return the rows that open in ``[start, end]``, ascending, as the JSON list of a response."""


class SandboxExchange:
    """The state of one sandbox.

    Raises:
        ValueError: The folder of recordings does not exist, or a file in it cannot be read.
    """

    def __init__(self, options: SandboxOptions) -> None:
        """Start with an empty request log and without faults."""
        self.options = options
        self.faults = Faults()
        self.limits = WeightLimits({**_binance_limits(), **options.limits})
        self.requests: list[ServedRequest] = []
        self.count_by_status: Counter[int] = Counter()
        self.weight_by_group: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._listings = synthetic_listings()
        self._candles: dict[tuple[str, str], Candles] = {}
        if options.replay is not None:
            self._add_recorded(load_recorded_candles(options.replay))

    def _add_recorded(self, recorded: Mapping[tuple[str, str], RecordedCandles]) -> None:
        self._candles.update(recorded)
        for (market, symbol), candles in recorded.items():
            listing = Listing(MARKETS[market], symbol, candles.first_open)
            self._listings.setdefault((market, symbol), listing)

    def now_ms(self) -> int:
        """Return the time by the sandbox's clock, ms UTC."""
        return time.time_ns() // 1_000_000 + self.options.clock_offset_ms

    def has_symbol(self, market: Market, symbol: str) -> bool:
        """Return whether ``symbol`` has candles, delivered contracts and removed symbols included."""
        return (market.name, symbol) in self._listings

    def serves_symbol(self, market: Market, symbol: str) -> bool:
        """Return whether klines knows ``symbol``, delivered contracts included."""
        listing = self._listings.get((market.name, symbol))
        return listing is not None and listing.is_served(self.now_ms())

    def all_listings(self, market: Market) -> list[Listing]:
        """Return the symbols that the market ever has, in the order of the tables."""
        return [listing for listing in self._listings.values() if listing.market is market]

    def is_synthetic(self, listing: Listing) -> bool:
        """Return whether the candles of a symbol are synthetic, so that it has them whenever it is traded."""
        return not isinstance(self._candles.get((listing.market.name, listing.symbol)), RecordedCandles)

    def trading_listings(self, market: Market, now: int) -> list[Listing]:
        """Return the symbols that exchangeInfo lists at ``now`` (ms UTC)."""
        return [listing for listing in self._listings.values() if listing.market is market and listing.is_trading(now)]

    def page(
        self, market: Market, symbol: str, interval: Interval, window: tuple[int, int], rows: tuple[int, bool]
    ) -> bytes:
        """Return candles of a known symbol as the JSON list of a response.

        Args:
            market: The market.
            symbol: The symbol.
            interval: The interval.
            window: First and last open time, both inclusive, ms UTC.
            rows: Maximum number of rows, and whether to keep the newest rows of the window rather than the oldest.
        """
        now = self.now_ms()
        # Tests request the expected rows from a thread other than the server's.
        with self._lock:
            return self._candles_of(market.name, symbol).select(interval, *window, *rows, now)

    def all_rows(self, market: Market, symbol: str, interval: Interval, start: int, end: int) -> bytes:
        """Return every candle that opens in ``[start, end)`` (ms UTC) as a JSON list."""
        return self.page(market, symbol, interval, (start, end - 1), (_NO_LIMIT, False))

    def _candles_of(self, market: str, symbol: str) -> Candles:
        key = (market, symbol)
        if key not in self._candles:
            listing = self._listings[key]
            candles = SyntheticCandles(listing, _BLOCKS)
            self._candles[key] = candles if listing.suspended is None else SuspendedCandles(candles, listing.suspended)
        return self._candles[key]

    def log_request(self, request: ServedRequest, group: str | None) -> None:
        """Append a request to the log; once the log is too long, drop its older half.

        Args:
            request: The request.
            group: The rate-limit group that its weight counts in; None for the archive, which counts no weight.
        """
        self.requests.append(request)
        self.count_by_status[request.status] += 1
        if group is not None:
            self.weight_by_group[group] += request.weight
        if len(self.requests) > _MAX_LOGGED_REQUESTS:
            del self.requests[: _MAX_LOGGED_REQUESTS // 2]

    def request_summary(self) -> dict[str, Any]:
        """Return the number of requests, the number by status, and the weight by rate-limit group."""
        return {
            "count": self.count_by_status.total(),
            "by_status": {str(status): count for status, count in sorted(self.count_by_status.items())},
            "weight": dict(self.weight_by_group),
        }
