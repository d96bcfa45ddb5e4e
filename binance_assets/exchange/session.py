"""One market of Binance for the length of a run: its clock, its weight limit, its candles, its symbols, its archive."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any, Final, TypeVar

from binance_assets.exchange.archive import Archive
from binance_assets.exchange.circuit import Circuit
from binance_assets.exchange.clock import ServerClock
from binance_assets.exchange.errors import (
    Banned,
    Cancelled,
    ExchangeError,
    RateLimited,
    error_for_content,
)
from binance_assets.exchange.http import (
    INFO_BYTES,
    PAGE_BYTES,
    SLOW_BYTES,
    TIME_BYTES,
    HttpClient,
    HttpResponse,
    longest_call,
    reading,
    used_weight,
)
from binance_assets.exchange.listing import ArchiveListing
from binance_assets.exchange.pages import Page, klines_parameters
from binance_assets.exchange.rate_limit.budget import Budget
from binance_assets.exchange.rate_limit.ledger import Ledger, RateLimitGroup
from binance_assets.exchange.rate_limit.policy import believed_limit
from binance_assets.exchange.retry import Retrier
from binance_assets.exchange.symbols import Symbols
from binance_assets.exchange.usage import Metrics, Owner, Usage, UsageRecorder, series_owner
from binance_assets.exchange.workers import WorkerPool, workers_needed
from binance_assets.model.markets import (
    ARCHIVE_URL,
    TIME_WEIGHT,
    Market,
    exchange_at,
    is_other_exchange,
    limits_address,
)
from binance_assets.model.outside import printable, whole_number
from binance_assets.model.series import Series
from binance_assets.model.timestamps import CANDLE_TIMES, MINUTE, SECOND
from binance_assets.settings import ConfigurationError, Settings
from binance_assets.waiting import request as request_in_flight

Item = TypeVar("Item")
Result = TypeVar("Result")

# How old the last synchronization of the clock may be.
_CLOCK_AGE_SECONDS: Final = 600
# How long to wait after an attempt to synchronize the clock before the next attempt.
_RESYNC_SECONDS: Final = 60
# How often a wait checks whether the exchange was closed.
_STOP_POLL_SECONDS: Final = 0.1
# How long to wait after a failed attempt to read the weight limit before the next attempt.
_LIMIT_PAUSE_SECONDS: Final = 60
# How many pages a range has at least for each page that is sent before it is certain that it is needed: what is sent in
# vain costs at most 2 %.
_FEWEST_PAGES_PER_EARLY_PAGE: Final = 50
# The largest body of each endpoint, and the size that its deadline leaves time for; all others respond with a page.
_INFO_SIZES: Final = (INFO_BYTES, SLOW_BYTES)
_SIZES: Final = {"/time": (TIME_BYTES, 0), "/exchangeInfo": _INFO_SIZES, "/ticker/24hr": _INFO_SIZES}
_PAGE_SIZES: Final = (PAGE_BYTES, 0)

_log = logging.getLogger(__name__)


class Exchange:
    """A connection to one market that lives as long as a run, or as the runs of a command. It sends nothing by itself.

    Args:
        market: The market.
        settings: Hosts, timeouts, number of workers, ledger, share of the weight limit, patience with bans.
        series: How many series of the market it is to fetch; the workers are sized for all of them.
        retrier: How to retry failed requests; None waits in real time between two attempts.

    Attributes:
        market: The market.
        archive: The market's public archive.
        listing: What the archive has: its symbols and their days.
        symbols: What the exchange knows about its symbols.
    """

    def __init__(self, market: Market, settings: Settings, series: int = 1, retrier: Retrier | None = None) -> None:
        self.market = market
        self._settings = settings
        self._series = series
        self._retrier = retrier or Retrier()
        self._client = HttpClient(
            settings.url(market), settings.max_workers, settings.connect_timeout, settings.read_timeout
        )
        self._ledger = Ledger(settings.usable_ledger())
        self._clock = ServerClock()
        self._budget = Budget(
            self._ledger,
            _rate_limit_group(market, settings),
            self._clock,
            market.weight_limit,
            settings.weight_share,
            settings.ban_patience,
            call_lifetime=longest_call(SLOW_BYTES, settings.connect_timeout, settings.read_timeout),
        )
        self._usage = UsageRecorder()
        self._pool = WorkerPool(settings.warmup, cap=settings.max_workers)
        self._early: dict[tuple[Series, Callable[[Page, bytes], Any]], dict[Page, Future[Any]]] = {}
        self._requesting = threading.RLock()
        self._next_sync = 0.0
        self._limit_reader: threading.Thread | None = None
        self._next_limit_read = 0.0
        self._venue: str | None = None
        # The API is asked for a minute longer: without it, only what the archive has can be fetched.
        self._circuit = Circuit(failures=5, probes=10)
        self.archive = Archive(
            market, settings, lambda series: self._usage.record_request(series_owner(series), 0), self._retrier
        )
        self.listing = ArchiveListing(market, settings, lambda: self._usage.record_request(None, 0), self._retrier)
        self.symbols = Symbols(market, self._fetch, self.now)

    # -- time, venue, weight limit ----------------------------------------------------------------------------

    def now(self) -> int:
        """Return the server's time, ms UTC.

        Raises:
            ExchangeError: The request for the time failed.
            Cancelled: The exchange was closed.
        """
        self._ensure_clock()
        return int(self._clock.now())

    @property
    def venue(self) -> str:
        """Whose candles these are: ``binance``, or ``sandbox`` for the project's own stand-in.

        Raises:
            ExchangeError: Neither the API nor the archive responded.
            Cancelled: The exchange was closed.
        """
        try:
            self._ensure_clock()
        except ExchangeError:
            if self.archive.venue is None:
                with suppress(ExchangeError):
                    self.archive.now()
            if self.archive.venue is None:
                raise
            return self.archive.venue
        if self._venue is None:
            raise RuntimeError("the clock is set, but no response has named the venue")
        return self._venue

    @property
    def cached_venue(self) -> str | None:
        """The venue as the API's last response for the time named it; None before the first one. Sends no request."""
        return self._venue

    @property
    def hosts(self) -> dict[str, str]:
        """The exchanges behind the hosts of the settings: of the market by its name, and of the ``archive``.

        Empty for the sandbox, whose port changes with each start.

        Raises:
            ExchangeError, Cancelled: As for :attr:`venue`.
        """
        if self.venue == "sandbox":
            return {}
        urls = {self.market.name: self._settings.url(self.market), "archive": self._settings.archive_url}
        return {name: exchange_at(url) for name, url in urls.items()}

    @property
    def archive_matches_api(self) -> bool:
        """Whether the archive can belong to the same exchange as the API: Binance's has no candles of the others."""
        is_other = self._venue == "sandbox" or is_other_exchange(self._settings.url(self.market))
        return not is_other or self._settings.archive_url != ARCHIVE_URL

    def weight_limit(self) -> int:
        """Return the request weight that an IP may use in a minute, from exchangeInfo at most a day old.

        If exchangeInfo cannot be read soon enough, the documented limit applies. The used-weight headers of the
        responses are obeyed in any case.

        Raises:
            ExchangeError: The request for the server's time failed.
            Cancelled: The exchange was closed.
        """
        reader = self._start_reading_limit()
        deadline = time.monotonic() + self._settings.connect_timeout
        while reader is not None and reader.is_alive() and time.monotonic() < deadline:
            if self.closed:
                raise Cancelled
            reader.join(_STOP_POLL_SECONDS)
        return self._budget.known_limit or self.market.weight_limit

    # -- candles ----------------------------------------------------------------------------------------------

    def start_early(self, series: Series, pages: Sequence[Page], read: Callable[[Page, bytes], Result]) -> None:
        """Send the first of ``pages`` in the background, as the warm-up of the run, before they are certainly needed.

        :meth:`stream` uses them if it is asked for the same pages; the others are dropped. A run sends no more pages
        in this way than its warm-up has, and it sends them only for a long range, where a few in vain cost little.

        Args:
            series: The series.
            pages: The requests that :meth:`stream` will probably be asked for.
            read: What :meth:`stream` will be asked to read them with.

        Raises:
            ExchangeError: The request for the server's time failed; nothing else was sent.
            Cancelled: The exchange was closed.
        """
        self._ensure_clock()
        warmup = self._settings.warmup
        if self._settings.max_workers > warmup and len(pages) >= _FEWEST_PAGES_PER_EARLY_PAGE * warmup:
            self._start_reading_limit()
            fetch = partial(self._page, series, read=read, timed=True)
            self._early[series, read] = self._pool.start_early(pages, fetch)

    def stream(
        self, series: Series, pages: list[Page], read: Callable[[Page, bytes], Result]
    ) -> Iterator[tuple[Page, Result | ExchangeError]]:
        """Fetch ``pages`` in parallel and yield each with what ``read`` returned for it, in their order.

        Args:
            series: The series.
            pages: The requests, from :func:`binance_assets.exchange.pages.plan_pages`.
            read: Reads the body of a page, in a worker. A ``ValueError`` means that the body is not what was
                requested; the page is then requested again.

        Yields:
            A page, and its result or the error that took its place.

        Raises:
            Cancelled: The exchange was closed.
        """
        for item in self.stream_with_pauses(series, pages, read, pause=math.inf):
            if item is not None:
                yield item

    def stream_with_pauses(
        self, series: Series, pages: list[Page], read: Callable[[Page, bytes], Result], pause: float
    ) -> Iterator[tuple[Page, Result | ExchangeError] | None]:
        """Do the same as :meth:`stream`, and yield None each time that a page takes ``pause`` seconds longer."""
        try:
            self._start_reading_limit()
        except ExchangeError as error:  # without the server's time no weight can be acquired either
            yield from ((page, error) for page in pages)
            return
        pages_left = len(pages)

        def size() -> int:
            return self._workers(pages_left, pages[0].weight)

        fetch, started = partial(self._page, series, read=read, timed=True), self._early.pop((series, read), {})
        for outcome in self._pool.stream_with_pauses(pages, fetch, size, pause, started):
            pages_left -= outcome is not None
            yield outcome

    def klines(self, series: Series, page: Page, read: Callable[[Page, bytes], Result]) -> Result:
        """Fetch one page.

        Args:
            series: The series.
            page: The request.
            read: As for :meth:`stream`.

        Returns:
            What ``read`` returned.

        Raises:
            ExchangeError: The page could not be fetched.
            Cancelled: The exchange was closed.
        """
        return self._pool.run(lambda: self._page(series, page, read, timed=False))

    def map_concurrently(
        self, items: Sequence[Item], request: Callable[[Item], Result]
    ) -> Iterator[tuple[Item, Result]]:
        """Call ``request`` for many items in parallel and yield each item with its result, in their order.

        Args:
            items: The items.
            request: Makes one cheap request, such as one of :attr:`symbols`.

        Raises:
            ExchangeError: The first request that failed.
            Cancelled: The exchange was closed.
        """
        weight = self.market.klines_weight(1)
        for item, outcome in self._pool.stream(items, request, lambda: self._workers(len(items), weight)):
            if isinstance(outcome, ExchangeError):
                raise outcome
            yield item, outcome

    # -- the run ----------------------------------------------------------------------------------------------

    def metrics(self) -> Metrics:
        """Return what the run has used so far."""
        return self._usage.metrics(max(self._pool.workers, self.archive.workers))

    def drain_usage(self, series: Series) -> Usage:
        """Return what was used for ``series`` since the last call, see :meth:`UsageRecorder.drain`."""
        return self._usage.drain(series)

    def close(self) -> None:
        """Stop all work: waits end, and requests in flight are abandoned."""
        self._pool.close()
        self.archive.close()
        self.listing.close()
        self._client.close()
        self._ledger.end_waits()
        with suppress(ConfigurationError, Cancelled):
            self._budget.release()
        self._ledger.close()

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._pool.stop.is_set()

    # -- the clock and the limit ------------------------------------------------------------------------------

    def _ensure_clock(self) -> None:
        if self._clock.age <= _CLOCK_AGE_SECONDS:
            return
        with self._requesting:
            if self._clock.age <= _CLOCK_AGE_SECONDS:
                return
            if not self._clock.known:
                self._budget.recall_clock()
            if self._clock.age == math.inf:
                self._read_first_time()
            elif time.monotonic() > self._next_sync:
                self._next_sync = time.monotonic() + _RESYNC_SECONDS
                with suppress(ExchangeError):  # the old reading drifts by milliseconds only
                    self._read_time()

    def _read_first_time(self) -> None:
        """Request the time. After a failure, other series of the run fail for a while without a request."""
        self._circuit.check()
        try:
            self._pool.run(lambda: self._retrier.call_with_retries(self._read_time, self._pool.stop))
        except ExchangeError as error:
            self._circuit.trip(error)
            raise
        self._circuit.reset()

    def _read_time(self) -> None:
        claimed = self._clock.known
        if claimed:
            response, server_ms = self._send_metered("/time", {}, TIME_WEIGHT, _server_time, timed=False)
        else:
            # The budget counts by the server's minutes, which are not known before this very first response. So its
            # weight is recorded afterwards.
            self._budget.wait_for_block(self._pool.stop)
            self._usage.record_request(None, TIME_WEIGHT)
            response = self._get("/time", {})
            with _reading(response, "the server's time"):
                _, server_ms = _server_time(response)
        # Set before the clock, because a thread that sees a known clock may read the venue.
        self._venue = "sandbox" if response.from_sandbox else "binance"
        self._clock.sync(server_ms, response.sent, response.received)
        if not claimed:
            self._budget.record_unclaimed(TIME_WEIGHT, used_weight(response.headers, self._budget.limit))
        self._budget.remember_clock()

    def _start_reading_limit(self) -> threading.Thread | None:
        """Read the limit in a thread, unless it is known: exchangeInfo is large, and the warm-up does not need it."""
        self._ensure_clock()
        with self._requesting:
            idle = self._limit_reader is None or not self._limit_reader.is_alive()
            if idle and time.monotonic() > self._next_limit_read and self._budget.known_limit is None:
                self._limit_reader = threading.Thread(target=self._read_limit, name="binance-limit", daemon=True)
                self._limit_reader.start()
            return self._limit_reader

    def _read_limit(self) -> None:
        with suppress(ExchangeError, Cancelled, ConfigurationError):
            named = self._call("/exchangeInfo", {}, self.market.info_weight, _weight_limit)
            documented = self.market.weight_limit
            limit = believed_limit(named, documented)
            if limit is not None:
                self._budget.remember_limit(limit)
                return
            _log.warning(
                "%s names a weight limit of %s per minute, which is not believed; the documented limit of %d applies",
                *(self._client.url, printable(named, 30), documented),
            )
            self._next_limit_read = math.inf  # it would be the same again in this run
            return
        self._next_limit_read = time.monotonic() + _LIMIT_PAUSE_SECONDS

    # -- requests ---------------------------------------------------------------------------------------------

    def _page(self, series: Series, page: Page, read: Callable[[Page, bytes], Result], timed: bool) -> Result:
        parameters = klines_parameters(series, page.window)
        return self._call("/klines", parameters, page.weight, lambda response: read(page, response.body), timed)

    def _fetch(
        self,
        endpoint: str,
        parameters: Mapping[str, str | int],
        weight: int,
        read: Callable[[HttpResponse], Result],
    ) -> Result:
        """Send one request outside a stream; raise :class:`Cancelled` as soon as the exchange is closed."""
        return self._pool.run(lambda: self._call(endpoint, parameters, weight, read))

    def _call(
        self,
        endpoint: str,
        parameters: Mapping[str, str | int],
        weight: int,
        read: Callable[[HttpResponse], Result],
        timed: bool = False,
    ) -> Result:
        """Send one request, with retries, and read its response.

        Args:
            endpoint: Path after the prefix of the market's API, such as ``/klines``.
            parameters: Query parameters.
            weight: Request weight of each attempt.
            read: Reads the response.
            timed: Whether the round trip counts for the warm-up.
        """
        self._ensure_clock()
        return self._circuit.call(
            lambda: self._retrier.call_with_retries(
                lambda: self._send_metered(endpoint, parameters, weight, read, timed), self._pool.stop
            )
        )

    def _send_metered(
        self,
        endpoint: str,
        parameters: Mapping[str, str | int],
        weight: int,
        read: Callable[[HttpResponse], Result],
        timed: bool,
    ) -> Result:
        """Send one request once, with its weight acquired before and recorded after; see :meth:`_call`.

        Raises:
            NotSent: The host has been found dead, perhaps since an earlier attempt.
        """
        self._circuit.check()
        self._budget.acquire(weight, self._pool.stop)
        self._usage.record_request(_owner(parameters), weight)
        sent, used = time.monotonic(), None
        try:
            response = self._get(endpoint, parameters)
            used = used_weight(response.headers, self._budget.limit)
        except ExchangeError as error:
            used = used_weight(error.headers, self._budget.limit)
            raise
        finally:
            self._budget.record(weight, used, sent, time.monotonic())
        self._budget.succeed(sent)
        if timed and not self._pool.sized:
            self._usage.record_round_trip(response.received - response.sent)
        with _reading(response, endpoint.strip("/")):
            return read(response)

    def _get(self, endpoint: str, parameters: Mapping[str, str | int]) -> HttpResponse:
        try:
            with request_in_flight():
                return self._client.get(self.market.api + endpoint, parameters, *_SIZES.get(endpoint, _PAGE_SIZES))
        except (RateLimited, Banned) as error:
            self._budget.block(error)
            raise

    def _workers(self, pages_left: int, weight: int) -> int:
        """Return how many workers to use for the remaining pages of the run, of ``weight`` each."""
        measured = self._usage.mean_round_trip
        round_trip = self._clock.error_ms * 2 / 1_000 if measured is None else measured
        affordable = self._budget.spendable_now() // weight
        sustainable = self.weight_limit() * self._settings.weight_share / weight / (MINUTE / SECOND)
        pages = min(pages_left * self._series, affordable)
        return workers_needed(round_trip, pages, sustainable, self._settings.max_workers)


def _reading(response: HttpResponse, expected: str) -> AbstractContextManager[None]:
    """Turn whatever reading a response raises into the error of a 200 that is not what was requested."""

    def unexpected(cause: str) -> ExchangeError:
        reason = f"unexpected response from {response.request.split('?')[0]} instead of {expected}: {cause}"
        return error_for_content(reason, response.headers, response.body, response.request)

    return reading(unexpected)


def _owner(parameters: Mapping[str, str | int]) -> Owner:
    return (str(parameters["symbol"]), str(parameters["interval"])) if "interval" in parameters else None


def _rate_limit_group(market: Market, settings: Settings) -> RateLimitGroup:
    """Return what draws on one weight limit: markets, at the address that counts them, for the public IP they see."""
    address = limits_address(settings.url(market))
    return RateLimitGroup(f"{address} from {settings.egress}" if settings.egress else address, market.rate_limit_group)


def _server_time(response: HttpResponse) -> tuple[HttpResponse, int]:
    value = json.loads(response.body)["serverTime"]
    time = whole_number(value, CANDLE_TIMES)
    if time is None:
        raise ValueError(f"{printable(value, 30)} is not a time in ms")
    return response, time


def _weight_limit(response: HttpResponse) -> object:
    """Return what exchangeInfo's ``rateLimits`` say about the request weight that an IP may use in a minute."""
    for limit in json.loads(response.body)["rateLimits"]:
        kind = (limit["rateLimitType"], limit["interval"], limit["intervalNum"])
        if kind == ("REQUEST_WEIGHT", "MINUTE", 1):
            return limit["limit"]
    raise ValueError("no limit of request weight per minute")
