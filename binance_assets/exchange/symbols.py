"""What the exchange knows about its symbols: whether they exist, when their candles begin, when trading ended."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from binance_assets.exchange.http import HttpResponse
from binance_assets.exchange.pages import klines_parameters, plan_pages
from binance_assets.model.intervals import DAILY
from binance_assets.model.markets import NO_DELIVERY, ROW_FIELDS, TRADED_ON, Market
from binance_assets.model.outside import printable, whole_number
from binance_assets.model.series import Series
from binance_assets.model.timestamps import CANDLE_TIMES, DAY, HOUR, to_ms

Result = TypeVar("Result")

_CONTRACT: Final = re.compile(r".+_([0-9]{2})([0-9]{2})([0-9]{2})")
_DELIVERY_HOUR: Final = 8 * HOUR
_LONGEST_AMOUNT: Final = 60
_LARGEST_AMOUNT: Final = 1e30


class Fetch(Protocol):
    """Sends one request, with its weight acquired and with retries, and reads the response."""

    def __call__(  # noqa: D102
        self,
        endpoint: str,
        parameters: Mapping[str, str | int],
        weight: int,
        read: Callable[[HttpResponse], Result],
    ) -> Result: ...


@dataclass(frozen=True, slots=True)
class SymbolInfo:
    """What exchangeInfo says about a symbol.

    Attributes:
        status: Its status, such as ``TRADING`` or ``BREAK``.
        delivery: When the contract is delivered, ms UTC; None for symbols without a delivery.
        quote: Its quote asset; empty if unknown.
        contract: Its contract type; empty on spot.
    """

    status: str
    delivery: int | None
    quote: str = ""
    contract: str = ""


class Symbols:
    """The symbols of one market.

    Args:
        market: The market.
        fetch: Sends a request to the market's API.
        now: Returns the server's time, ms UTC.
    """

    def __init__(self, market: Market, fetch: Fetch, now: Callable[[], int]) -> None:
        self._market = market
        self._fetch = fetch
        self._now = now
        self._listed: dict[str, SymbolInfo] | None = None

    def check_exists(self, series: Series) -> None:
        """Request one candle of ``series``; klines is the only endpoint that proves that a symbol does not exist.

        Raises:
            UnknownSymbol: The market has no such symbol.
            ExchangeError: The request failed.
        """
        self._first_row(series, {"limit": 1}, self._market.klines_weight(1))

    def first_open_time(self, series: Series) -> int | None:
        """Return when the first candle of ``series`` opens, ms UTC; None if it has no candles.

        Raises:
            UnknownSymbol: The market has no such symbol.
            ExchangeError: The request failed.
        """
        if self._market.max_window is None:
            return self._first_row(series, {"startTime": 0, "limit": 1}, self._market.klines_weight(1))
        # COIN-M refuses windows over 200 days, so its 1d candles are searched for the first day.
        daily = Series(self._market, series.symbol, DAILY)
        first_day = self._first_in(daily, to_ms(self._market.opened), self._now())
        if first_day is None:
            return None
        # A candle of several days may open long before its first trade.
        lead = 31 * DAY if series.interval.is_multi_day else 0
        return self._first_in(series, first_day - lead, first_day + DAY)

    def open_time_between(self, series: Series, start: int, end: int) -> int | None:
        """Return when some candle of ``series`` opens in ``[start, end)``, ms UTC; None if none does.

        One request; on a market with a longest window, one for each such window.

        Raises:
            ExchangeError: A request failed.
        """
        step = self._market.max_window or end - start
        for first in range(start, end, step):
            window = {"startTime": first, "endTime": min(first + step, end) - 1, "limit": 1}
            found = self._first_row(series, window, self._market.klines_weight(1))
            if found is not None:
                return found
        return None

    def final_close_time(self, series: Series) -> int | None:
        """Return when trading of ``series`` ended, ms UTC; None if the symbol may trade again or has no candles.

        exchangeInfo has the status of a symbol: trading, halted, or ended. A symbol that it no longer lists has ended
        too. Contracts end with their delivery, all other symbols with their newest candle.

        Raises:
            ExchangeError: A request failed.
        """
        info = self.listed().get(series.symbol)
        if info is not None and info.status in TRADED_ON:
            return None
        # A candle of several days closes long after its last trade.
        finer = Series(self._market, series.symbol, DAILY) if series.interval.is_multi_day else series
        newest = self._first_row(finer, {"limit": 1}, self._market.klines_weight(1))
        if newest is None:
            return None
        closed = finer.interval.close(newest)
        delivery = info.delivery if info is not None else None
        return min(closed, delivery) if delivery is not None and delivery > newest else closed

    def listed(self) -> dict[str, SymbolInfo]:
        """Return what exchangeInfo lists, by symbol; requested once.

        Raises:
            ExchangeError: The request failed.
        """
        if self._listed is None:
            self._listed = self._fetch("/exchangeInfo", {}, self._market.info_weight, read_symbols)
        return self._listed

    def volumes(self) -> dict[str, float]:
        """Return the volume of the last 24 hours by symbol, in the quote asset; on COIN-M in USD.

        Raises:
            ExchangeError: The request failed.
        """
        market = self._market
        return self._fetch("/ticker/24hr", {}, market.ticker_weight, lambda response: read_volumes(market, response))

    def _first_in(self, series: Series, start: int, end: int) -> int | None:
        for page in plan_pages(self._market, series.interval, [(start, end)]):
            first = self._first_row(series, page.window, page.weight)
            if first is not None:
                return first
        return None

    def _first_row(self, series: Series, window: Mapping[str, str | int], weight: int) -> int | None:
        return self._fetch("/klines", klines_parameters(series, window), weight, read_first_open_time)


def delivery_time(symbol: str) -> int | None:
    """Return when the contract ``symbol`` is delivered according to its name, ms UTC; None for other symbols.

    Contracts end at 08:00 UTC of the day that their name states: ``BTCUSDT_210326`` on 2021-03-26.
    """
    match = _CONTRACT.fullmatch(symbol)
    if match is None:
        return None
    try:
        return to_ms(dt.date(2000 + int(match[1]), int(match[2]), int(match[3]))) + _DELIVERY_HOUR
    except ValueError:
        return None


def read_symbols(response: HttpResponse) -> dict[str, SymbolInfo]:
    """Read the symbols of an exchangeInfo response.

    Raises:
        Exception: The body is of another form.
    """
    symbols = {}
    for entry in json.loads(response.body)["symbols"]:
        status = entry["status"] if "status" in entry else entry["contractStatus"]  # COIN-M's name of it
        delivery = whole_number(entry.get("deliveryDate"), range(NO_DELIVERY))
        quote, contract = str(entry.get("quoteAsset", "")), str(entry.get("contractType", ""))
        symbols[str(entry["symbol"])] = SymbolInfo(str(status), delivery, quote, contract)
    return symbols


def read_volumes(market: Market, response: HttpResponse) -> dict[str, float]:
    """Read the quote volumes of a ticker/24hr response of all symbols; on COIN-M contracts times their value in USD.

    A volume that is no finite number from 0 counts as 0.

    Raises:
        Exception: The body is of another form.
    """
    volumes = {}
    for entry in json.loads(response.body):
        symbol = str(entry["symbol"])
        size = market.contract_size(symbol)
        volumes[symbol] = _amount(entry["volume" if size else "quoteVolume"]) * (size or 1)
    return volumes


def _amount(value: object) -> float:
    try:
        number = float(str(value)[:_LONGEST_AMOUNT])
    except ValueError:
        return 0.0
    return number if 0 <= number < _LARGEST_AMOUNT else 0.0


def read_first_open_time(response: HttpResponse) -> int | None:
    """Read the open time, ms UTC, of the first row of a klines response; None if it has no rows.

    Raises:
        ValueError: The body is of another form.
    """
    rows = json.loads(response.body)
    if not isinstance(rows, list) or any(not isinstance(row, list) or len(row) != ROW_FIELDS for row in rows):
        raise ValueError("not a list of candles")
    if not rows:
        return None
    time = whole_number(rows[0][0], CANDLE_TIMES)
    if time is None:
        raise ValueError(f"{printable(rows[0][0], 30)} is not a time of a candle in ms")
    return time
