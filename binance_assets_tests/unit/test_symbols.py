"""What the exchange's responses say about a symbol: whether it exists, when its candles begin and end."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import pytest

from binance_assets.exchange.http import HttpResponse
from binance_assets.exchange.symbols import SymbolInfo, Symbols, delivery_time, read_first_open_time, read_symbols
from binance_assets.model.markets import COINM, NO_DELIVERY, SPOT, USDM, Market
from binance_assets.model.series import parse_series
from binance_assets.model.timestamps import CANDLE_TIMES, DAY, MINUTE, to_ms

Result = TypeVar("Result")

NOW = to_ms(dt.date(2024, 6, 1))


def response_of(body: object) -> HttpResponse:
    return HttpResponse(json.dumps(body).encode(), {}, 0.0, 0.1, "http://exchange/klines")


class Responses:
    """The responses of an exchange that lists given symbols and has candles with given open times."""

    def __init__(self, symbols: list[dict[str, Any]], open_times: Mapping[str, list[int]]) -> None:
        self._symbols = symbols
        self._open_times = open_times
        self.requests: list[tuple[str, Mapping[str, str | int], int]] = []

    def fetch(
        self,
        endpoint: str,
        parameters: Mapping[str, str | int],
        weight: int,
        read: Callable[[HttpResponse], Result],
    ) -> Result:
        self.requests.append((endpoint, parameters, weight))
        if endpoint == "/exchangeInfo":
            return read(response_of({"symbols": self._symbols}))
        start, end = int(parameters.get("startTime", 0)), int(parameters.get("endTime", NOW))
        times = [time for time in self._open_times[str(parameters["interval"])] if start <= time <= end]
        chosen = times[:1] if "startTime" in parameters else times[-1:]
        return read(response_of([[time, *["0"] * 11] for time in chosen]))


def symbols_of(market: Market, responses: Responses) -> Symbols:
    return Symbols(market, responses.fetch, lambda: NOW)


def test_the_first_open_time_costs_one_request_without_a_longest_window() -> None:
    first = to_ms(dt.date(2023, 3, 23)) + 15 * MINUTE
    responses = Responses([], {"1m": [first, first + MINUTE]})
    assert symbols_of(SPOT, responses).first_open_time(parse_series("spot/ARBUSDT/1m")) == first
    assert len(responses.requests) == 1


def test_on_coin_m_the_first_day_is_found_before_the_first_candle() -> None:
    first = to_ms(dt.date(2021, 5, 5)) + 90 * MINUTE
    days = [first // DAY * DAY + n * DAY for n in range(5)]
    responses = Responses([], {"1m": [first, first + MINUTE], "1d": days, "1w": [days[0] - 2 * DAY, days[0] + 5 * DAY]})
    symbols = symbols_of(COINM, responses)
    assert symbols.first_open_time(parse_series("coinm/BTCUSD_PERP/1m")) == first
    assert symbols.first_open_time(parse_series("coinm/BTCUSD_PERP/1w")) == days[0] - 2 * DAY
    for _, parameters, _ in responses.requests:
        assert int(parameters["endTime"]) - int(parameters["startTime"]) <= 200 * DAY


@pytest.mark.parametrize("market", [SPOT, COINM])
def test_a_symbol_without_candles_has_no_first_open_time(market: Market) -> None:
    symbol = "BTCUSD_PERP" if market is COINM else "BTCUSDT"
    responses = Responses([], {"1m": [], "1d": []})
    assert symbols_of(market, responses).first_open_time(parse_series(f"{market}/{symbol}/1m")) is None


@pytest.mark.parametrize("status", ["TRADING", "HALT", "PENDING_TRADING"])
def test_a_symbol_that_may_trade_again_has_no_final_close_time(status: str) -> None:
    responses = Responses([{"symbol": "BTCUSDT", "status": status}], {"1m": [NOW - DAY]})
    assert symbols_of(SPOT, responses).final_close_time(parse_series("spot/BTCUSDT/1m")) is None
    assert [endpoint for endpoint, _, _ in responses.requests] == ["/exchangeInfo"]


@pytest.mark.parametrize("listed", [[{"symbol": "BTCUSDT", "status": "BREAK"}], []])
def test_a_delisted_symbol_ends_with_its_newest_candle(listed: list[dict[str, Any]]) -> None:
    newest = to_ms(dt.date(2024, 5, 1))
    responses = Responses(listed, {"1m": [newest - MINUTE, newest], "1d": [newest - DAY]})
    symbols = symbols_of(SPOT, responses)
    assert symbols.final_close_time(parse_series("spot/BTCUSDT/1m")) == newest + MINUTE
    assert symbols.final_close_time(parse_series("spot/BTCUSDT/1w")) == newest  # by the 1d candles
    assert [endpoint for endpoint, _, _ in responses.requests].count("/exchangeInfo") == 1


def test_a_delivered_contract_ends_with_its_delivery() -> None:
    delivery = to_ms(dt.date(2024, 3, 29)) + 8 * 60 * MINUTE
    listed = [{"symbol": "BTCUSDT_240329", "contractStatus": "SETTLING", "deliveryDate": delivery}]
    responses = Responses(listed, {"1d": [to_ms(dt.date(2024, 3, 29))]})
    assert symbols_of(USDM, responses).final_close_time(parse_series("usdm/BTCUSDT_240329/1d")) == delivery


def test_a_delisted_symbol_without_candles_has_no_final_close_time() -> None:
    responses = Responses([], {"1m": []})
    assert symbols_of(SPOT, responses).final_close_time(parse_series("spot/BTCUSDT/1m")) is None


def test_status_and_delivery_are_read_on_every_market() -> None:
    listed = [
        {"symbol": "BTCUSDT", "status": "TRADING"},
        {"symbol": "BTCUSDT_PERP", "status": "TRADING", "deliveryDate": NO_DELIVERY},
        {"symbol": "BTCUSD_200925", "contractStatus": "CLOSE", "deliveryDate": 1_601_020_800_000},
    ]
    assert read_symbols(response_of({"symbols": listed})) == {
        "BTCUSDT": SymbolInfo("TRADING", None),
        "BTCUSDT_PERP": SymbolInfo("TRADING", None),
        "BTCUSD_200925": SymbolInfo("CLOSE", 1_601_020_800_000),
    }


@pytest.mark.parametrize("body", [None, {}, {"code": 0}, [1], [[1, 2, 3]], ["text"]])
def test_a_body_that_is_not_a_list_of_candles_is_not_read_as_one(body: object) -> None:
    with pytest.raises(ValueError, match="not a list of candles"):
        read_first_open_time(response_of(body))


@pytest.mark.parametrize("time", [0, -1, CANDLE_TIMES[0] - 1, CANDLE_TIMES.stop, NOW * 1_000, 10**30, 1e400, 1.5, "x"])
def test_a_first_candle_outside_2017_to_2099_is_not_a_time(time: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_first_open_time(response_of([[time, *["1"] * 11]]))


@pytest.mark.parametrize("time", [CANDLE_TIMES[0], NOW, CANDLE_TIMES[-1]])
def test_the_first_candle_opens_at_a_number_or_a_number_as_text(time: int) -> None:
    for value in (time, str(time)):
        assert read_first_open_time(response_of([[value, *["1"] * 11]])) == time


@pytest.mark.parametrize(
    ("symbol", "delivered"),
    [
        ("BTCUSDT_210326", dt.datetime(2021, 3, 26, 8, tzinfo=dt.UTC)),
        ("BTCUSD_200925", dt.datetime(2020, 9, 25, 8, tzinfo=dt.UTC)),
        ("BTCUSD_PERP", None),
        ("BTCUSDT", None),
        ("BTCUSDT_211326", None),  # there is no month 13
        ("BTCUSDT_2103260", None),
    ],
)
def test_the_name_of_a_contract_states_its_delivery(symbol: str, delivered: dt.datetime | None) -> None:
    assert delivery_time(symbol) == (None if delivered is None else int(delivered.timestamp() * 1_000))
