"""One market of Binance as a run sees it: its clock, its weight limit, and calls that are paid, retried, counted."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final, TypeVar

from binance_assets.exchange.archive import Archive
from binance_assets.exchange.clock import ServerClock
from binance_assets.exchange.errors import Banned, Cancelled, ExchangeError, NotAsked, RateLimited, UnexpectedAnswer
from binance_assets.exchange.http import HttpClient, HttpResponse, used_weight
from binance_assets.exchange.pages import Page, plan_pages
from binance_assets.exchange.rate_limit.budget import Budget
from binance_assets.exchange.rate_limit.ledger import Ledger
from binance_assets.exchange.retry import call_with_retries
from binance_assets.exchange.usage import SETTLED, Metrics, Owner, Usage
from binance_assets.exchange.workers import WorkerPool, workers_needed
from binance_assets.model.intervals import parse_interval
from binance_assets.model.markets import (
    ARCHIVE_URL,
    NO_DELIVERY,
    ROW_FIELDS,
    TIME_WEIGHT,
    TRADED_ON,
    Market,
    limits_address,
)
from binance_assets.model.series import Series
from binance_assets.model.timestamps import DAY, MINUTE, SECOND, to_ms
from binance_assets.settings import ConfigurationError, Settings

Item = TypeVar("Item")


Result = TypeVar("Result")


_CLOCK_AGE_SECONDS: Final = 600


_SYNC_AGAIN_SECONDS: Final = 60


_LOOK_FOR_STOP_SECONDS: Final = 0.1


_GONE_SECONDS: Final = 60


_DAILY: Final = parse_interval("1d")


class Exchange:
    """A connection to one market that lives as long as a run. Nothing is sent before the first call.

    Args:
        market: The market.
        settings: Host, time-outs, workers, ledger.
        series_in_run: How many series of the market the run fetches; the workers are sized for all of them.
    """

    def __init__(self, market: Market, settings: Settings, series_in_run: int = 1) -> None:
        self.market = market
        self.series_in_run = series_in_run
        self._settings = settings
        self._client = HttpClient(
            settings.url(market), settings.max_workers, settings.connect_timeout, settings.read_timeout
        )
        self._ledger = Ledger(settings.ledger)
        self._clock = ServerClock()
        self._budget = Budget(
            self._ledger,
            limits_address(settings.url(market)),
            market.rate_limit_group,
            self._clock,
            market.weight_limit,
            settings.weight_share,
            settings.ban_patience,
            call_lifetime=settings.connect_timeout + 2 * settings.read_timeout,
        )
        self._asking = threading.RLock()
        self._next_sync = 0.0
        self._limit_reader: threading.Thread | None = None
        self._pool = WorkerPool(settings.warmup)
        self.archive = Archive(
            market, settings, lambda series: self._count((series.symbol, series.interval.api_name), 0)
        )
        """The market's public archive."""
        self._counting = threading.Lock()
        self._spent: dict[Owner, Usage] = {}
        self._warmup_pages = 0
        self._round_trips: list[float] = []
        self._venue = ""
        self._circuit_open: tuple[float, ExchangeError] | None = None
        self._listed: dict[str, tuple[str, int | None]] | None = None

    # -- what the exchange says of itself ---------------------------------------------------------------------

    def now(self) -> int:
        """The server's time, ms UTC.

        Raises:
            ExchangeError: It could not be asked.
        """
        self._ensure_clock()
        return int(self._clock.now())

    @property
    def venue(self) -> str:
        """Whose candles these are: ``binance``, or ``sandbox`` for the project's own stand-in.

        Raises:
            ExchangeError: Neither the API nor the archive could be asked.
        """
        try:
            self._ensure_clock()
        except ExchangeError:
            with suppress(ExchangeError):
                self.archive.now()
                return self.archive.venue
            raise
        return self._venue

    @property
    def archive_matches_api(self) -> bool:
        """Whether the archive can be of the same exchange as the API: Binance's own is not the sandbox's."""
        return self._venue != "sandbox" or self._settings.archive_url != ARCHIVE_URL

    @property
    def cached_venue(self) -> str:
        """The same as far as the API has said; empty where it was not asked, or did not answer."""
        return self._venue

    def weight_limit(self) -> int:
        """The request weight that an IP may use in a minute, from exchangeInfo, re-read when it is a day old.

        Where exchangeInfo cannot be had, or not soon, the documented limit counts; the answers' headers still say
        what is used.

        Raises:
            ExchangeError: The server's time could not be asked.
            Cancelled: The exchange was closed meanwhile.
        """
        asking = self._begin_asking_limit()
        patience = time.monotonic() + self._settings.connect_timeout
        while asking is not None and asking.is_alive() and time.monotonic() < patience:
            if self.closed:
                raise Cancelled
            asking.join(_LOOK_FOR_STOP_SECONDS)
        return self._budget.known_limit or self.market.weight_limit

    def _begin_asking_limit(self) -> threading.Thread | None:
        """Ask for the limit in a thread, unless it is known: exchangeInfo is large, and a warm-up need not wait."""
        self._ensure_clock()
        with self._asking:
            idle = self._limit_reader is None or not self._limit_reader.is_alive()
            if idle and self._budget.known_limit is None:
                self._limit_reader = threading.Thread(target=self._ask_limit, name="binance-limit", daemon=True)
                self._limit_reader.start()
            return self._limit_reader

    def first_open_time(self, series: Series) -> int | None:
        """When the first candle of ``series`` opens, ms UTC; None where there is none.

        Raises:
            UnknownSymbol: There is no such symbol on the market.
            ExchangeError: It could not be asked.
        """
        if self.market.max_window is None:
            return self._first_row(series, {"startTime": 0, "limit": 1}, self.market.klines_weight(1))
        # COIN-M answers no window over 200 days, so its history is walked by days to the first one.
        daily = Series(self.market, series.symbol, _DAILY)
        first_day = self._first_in(daily, to_ms(self.market.opened), self.now())
        if first_day is None:
            return None
        lead = 31 * DAY if series.interval.is_multi_day else 0  # a coarse candle may open long before its first trade
        return self._first_in(series, first_day - lead, first_day + DAY)

    def end_of(self, series: Series) -> int | None:
        """When the last candle of ``series`` closed for good, ms UTC; None while the symbol is traded or only halted.

        exchangeInfo says what became of a symbol; one that it does not list any more has ended as well. Contracts end
        with their delivery, all others with their newest candle.

        Raises:
            ExchangeError: It could not be asked.
        """
        state, delivery = self._symbols().get(series.symbol, ("", None))
        if state in TRADED_ON:
            return None
        # A coarse candle closes long after its last trade.
        fine = Series(self.market, series.symbol, _DAILY) if series.interval.is_multi_day else series
        newest = self._first_row(fine, {"limit": 1}, self.market.klines_weight(1))
        if newest is None:
            return None
        closed = fine.interval.close(newest)
        return min(closed, delivery) if delivery is not None and delivery > newest else closed

    def _symbols(self) -> dict[str, tuple[str, int | None]]:
        """State and delivery (ms UTC; None for none) of each symbol that exchangeInfo lists; asked once."""
        if self._listed is None:
            weight = self.market.info_weight
            self._listed = self._pool.run(lambda: self._call("/exchangeInfo", {}, weight, _symbols))
        return self._listed

    def check_symbol(self, series: Series) -> None:
        """Ask for one candle of ``series``, whichever.

        Raises:
            UnknownSymbol: There is no such symbol on the market.
            ExchangeError: It could not be asked.
        """
        self._first_row(series, {"limit": 1}, self.market.klines_weight(1))

    def map_concurrently(self, items: Sequence[Item], ask: Callable[[Item], Result]) -> Iterator[tuple[Item, Result]]:
        """Ask the same of many things in parallel; yields each with its answer, in their order.

        Raises:
            ExchangeError: The first of them that could not be had.
            Cancelled: The exchange was closed.
        """
        weight = self.market.klines_weight(1)
        for item, outcome in self._pool.stream(items, ask, lambda: self._workers(len(items), weight)):
            if isinstance(outcome, ExchangeError):
                raise outcome
            yield item, outcome

    def _first_in(self, series: Series, start: int, end: int) -> int | None:
        for page in plan_pages(self.market, series.interval, [(start, end)]):
            first = self._first_row(series, page.window, page.weight)
            if first is not None:
                return first
        return None

    def _first_row(self, series: Series, window: Mapping[str, str | int], weight: int) -> int | None:
        parameters = _klines(series, window)
        return self._pool.run(lambda: self._call("/klines", parameters, weight, _first_open_time))

    # -- candles ----------------------------------------------------------------------------------------------

    def stream(
        self, series: Series, pages: list[Page], read: Callable[[Page, bytes], Result]
    ) -> Iterator[tuple[Page, Result | ExchangeError]]:
        """Fetch ``pages`` in parallel and yield each with what ``read`` made of it, in their order.

        Args:
            series: The series.
            pages: The requests, from :func:`binance_assets.exchange.pages.plan_pages`.
            read: Makes something of a page's bytes, in a worker; a ``ValueError`` says that they are not what was
                asked for, and the page is asked again.

        Raises:
            Cancelled: The exchange was closed.
        """
        try:
            self._begin_asking_limit()
        except ExchangeError as error:  # without the server's time no page could be paid either
            yield from ((page, error) for page in pages)
            return
        left = len(pages)

        def fetch(page: Page) -> Result:
            return self._page(series, page, read, timed=True)

        def size() -> int:
            return self._workers(left, pages[0].weight)

        for outcome in self._pool.stream(pages, fetch, size):
            left -= 1
            yield outcome

    def klines(self, series: Series, page: Page, read: Callable[[Page, bytes], Result]) -> Result:
        """Fetch one page.

        Args:
            series: The series.
            page: The request.
            read: As for :meth:`stream`.

        Raises:
            ExchangeError: It could not be had.
            Cancelled: The exchange was closed meanwhile.
        """
        return self._pool.run(lambda: self._page(series, page, read, timed=False))

    def _page(self, series: Series, page: Page, read: Callable[[Page, bytes], Result], timed: bool) -> Result:
        parameters = _klines(series, page.window)
        return self._call("/klines", parameters, page.weight, lambda response: read(page, response.body), timed)

    def metrics(self) -> Metrics:
        """What was asked so far."""
        with self._counting:
            trips = self._round_trips
            rtt_ms = round(sum(trips) / len(trips) * 1_000, 2) if trips else None
            requests = sum(spent.requests for spent in self._spent.values())
            weight = sum(spent.weight for spent in self._spent.values())
            workers = max(self._pool.workers, self.archive.workers)
            return Metrics(requests, weight, workers, self._warmup_pages, rtt_ms)

    def drain_usage(self, series: Series) -> Usage:
        """What was spent on ``series`` since the last time, with what belongs to no series, such as the time.

        Series may be fetched at the same time; so the accounts of all series of a run add up to what it spent.
        """
        with self._counting:
            owners: tuple[Owner, ...] = (
                (series.symbol, series.interval.api_name),
                (series.symbol, _DAILY.api_name),
                None,
            )
            spent = [self._spent.pop(owner) for owner in dict.fromkeys(owners) if owner in self._spent]
            settled = Usage(sum(one.requests for one in spent), sum(one.weight for one in spent))
            before = self._spent.get(SETTLED, Usage())
            self._spent[SETTLED] = Usage(before.requests + settled.requests, before.weight + settled.weight)
            return settled

    def close(self) -> None:
        """Stop everything under way; waits end, requests in flight are abandoned."""
        self._pool.close()
        self.archive.close()
        self._client.close()
        with suppress(ConfigurationError, Cancelled):
            self._budget.release()
        self._ledger.close()

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._pool.stop.is_set()

    # -- inner workings ---------------------------------------------------------------------------------------

    def _ensure_clock(self) -> None:
        if self._clock.age <= _CLOCK_AGE_SECONDS:
            return
        with self._asking:
            if self._clock.age <= _CLOCK_AGE_SECONDS:
                return
            if not self._clock.known:
                self._budget.recall_clock()
            if self._clock.age == math.inf:
                self._ask_first_time()
            elif time.monotonic() > self._next_sync:
                self._next_sync = time.monotonic() + _SYNC_AGAIN_SECONDS
                with suppress(ExchangeError):  # the old reading drifts by milliseconds
                    self._ask_time()

    def _ask_first_time(self) -> None:
        """Ask for the time. Where it cannot be had, other series of the run are told so for a while without asking."""
        if self._circuit_open is not None and time.monotonic() < self._circuit_open[0]:
            raise NotAsked(f"not asked, because of this: {self._circuit_open[1]}", self._circuit_open[1].request)
        try:
            self._pool.run(lambda: call_with_retries(self._ask_time, self._pool.stop))
        except ExchangeError as error:
            self._circuit_open = (time.monotonic() + _GONE_SECONDS, error)
            raise

    def _ask_time(self) -> None:
        paid = self._clock.known
        if paid:
            response, server_ms = self._send_metered("/time", {}, TIME_WEIGHT, _server_time, timed=False)
        else:
            # The budget counts by the server's minutes, so the very first request cannot be claimed before it is sent.
            self._budget.wait_for_block(self._pool.stop)
            self._count(None, TIME_WEIGHT)
            response = self._get("/time", {})
            with _reading(response, "its time"):
                _, server_ms = _server_time(response)
        # Before the clock: who sees that the time is known may ask whose candles these are.
        self._venue = "sandbox" if response.from_sandbox else "binance"
        self._clock.sync(server_ms, response.sent, response.received)
        if not paid:
            self._budget.record_unclaimed(TIME_WEIGHT, used_weight(response.headers))
        self._budget.remember_clock()

    def _ask_limit(self) -> None:
        with suppress(ExchangeError, Cancelled, ConfigurationError):
            limit = self._call("/exchangeInfo", {}, self.market.info_weight, _weight_limit)
            self._budget.remember_limit(limit)

    def _call(
        self,
        endpoint: str,
        parameters: Mapping[str, str | int],
        weight: int,
        read: Callable[[HttpResponse], Result],
        timed: bool = False,
    ) -> Result:
        self._ensure_clock()
        return call_with_retries(lambda: self._send_metered(endpoint, parameters, weight, read, timed), self._pool.stop)

    def _send_metered(
        self,
        endpoint: str,
        parameters: Mapping[str, str | int],
        weight: int,
        read: Callable[[HttpResponse], Result],
        timed: bool,
    ) -> Result:
        self._budget.acquire(weight, self._pool.stop)
        self._count(_owner(parameters), weight)
        sent, used = time.monotonic(), None
        try:
            response = self._get(endpoint, parameters)
            used = used_weight(response.headers)
        except ExchangeError as error:
            used = used_weight(error.headers)
            raise
        finally:
            self._budget.record(weight, used, sent, time.monotonic())
        if timed:
            self._note_round_trip(response)
        with _reading(response, endpoint.strip("/")):
            return read(response)

    def _get(self, endpoint: str, parameters: Mapping[str, str | int]) -> HttpResponse:
        try:
            return self._client.get(self.market.api + endpoint, parameters)
        except (RateLimited, Banned) as error:
            self._budget.block(error)
            raise

    def _count(self, owner: Owner, weight: int) -> None:
        with self._counting:
            before = self._spent.get(owner, Usage())
            self._spent[owner] = Usage(before.requests + 1, before.weight + weight)

    def _note_round_trip(self, response: HttpResponse) -> None:
        if self._pool.sized:
            return
        with self._counting:
            self._warmup_pages += 1
            self._round_trips.append(response.received - response.sent)

    def _workers(self, pages_left: int, weight: int) -> int:
        trips = self._round_trips or [self._clock.error_ms * 2 / 1_000]
        affordable = self._budget.spendable_now() // weight
        sustainable = self.weight_limit() * self._settings.weight_share / weight / (MINUTE / SECOND)
        pages = min(pages_left * self.series_in_run, affordable)
        return workers_needed(sum(trips) / len(trips), pages, sustainable, self._settings.max_workers)


@contextmanager
def _reading(response: HttpResponse, wanted: str) -> Iterator[None]:
    """Turn what goes wrong while an answer is read into :class:`UnexpectedAnswer`."""
    try:
        yield
    except (ValueError, KeyError, TypeError, IndexError) as error:
        reason = f"{response.request.split('?')[0]} answered something else than {wanted}: {error}"
        raise UnexpectedAnswer(reason, response.request, 200, None, response.headers) from error


def _klines(series: Series, window: Mapping[str, str | int]) -> dict[str, str | int]:
    return {"symbol": series.symbol, "interval": series.interval.api_name, **window}


def _owner(parameters: Mapping[str, str | int]) -> Owner:
    return (str(parameters["symbol"]), str(parameters["interval"])) if "interval" in parameters else None


def _first_open_time(response: HttpResponse) -> int | None:
    rows = json.loads(response.body)
    if not isinstance(rows, list) or any(not isinstance(row, list) or len(row) != ROW_FIELDS for row in rows):
        raise ValueError("no list of candles")
    return int(rows[0][0]) if rows else None


def _server_time(response: HttpResponse) -> tuple[HttpResponse, int]:
    return response, int(json.loads(response.body)["serverTime"])


def _weight_limit(response: HttpResponse) -> int:
    """The weight that an IP may use in a minute, by exchangeInfo's ``rateLimits``."""
    for limit in json.loads(response.body)["rateLimits"]:
        kind = (limit["rateLimitType"], limit["interval"], limit["intervalNum"])
        if kind == ("REQUEST_WEIGHT", "MINUTE", 1):
            return int(limit["limit"])
    raise ValueError("it names no limit of request weight per minute")


def _symbols(response: HttpResponse) -> dict[str, tuple[str, int | None]]:
    listed = {}
    for symbol in json.loads(response.body)["symbols"]:
        state = symbol["status"] if "status" in symbol else symbol["contractStatus"]  # COIN-M calls it so
        delivery = symbol.get("deliveryDate", NO_DELIVERY)
        listed[str(symbol["symbol"])] = (str(state), int(delivery) if delivery < NO_DELIVERY else None)
    return listed
