"""The sandbox's responses: klines, exchangeInfo, time, ping, Binance's error bodies, and those of the archive."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from typing import Any, Final
from xml.sax.saxutils import escape

from binance_assets.model.intervals import Interval
from binance_assets.model.markets import COINM, SPOT, TIME_WEIGHT, USDM, Market
from binance_assets.model.timestamps import SECOND
from binance_assets.sandbox.archive import BuiltFile
from binance_assets.sandbox.limits import BAN_SECONDS, Rejection, ip_banned, limit_exceeded
from binance_assets.sandbox.sandbox_exchange import SandboxExchange

_JSON: Final = b"application/json;charset=UTF-8"
_HTML: Final = b"text/html"
_XML: Final = b"application/xml"
_DEFAULT_LIMIT: Final = 500
_MIN_MICROSECONDS: Final = 10**14
_KLINES_PARAMS: Final = ("symbol", "interval", "startTime", "endTime", "limit")
_ERROR_BY_STATUS: Final[Mapping[int, tuple[int, str]]] = {
    408: (-1007, "Timeout waiting for response from backend server. Send status unknown; execution status unknown."),
    451: (
        0,
        "Service unavailable from a restricted location according to 'b. Eligibility' in "
        "https://www.binance.com/en/terms. Please contact customer service if you believe you received this message "
        "in error.",
    ),
    500: (-1000, "An unknown error occurred while processing the request."),
    503: (-1008, "Server is currently overloaded with other requests. Please try again in a few minutes."),
}
_FORBIDDEN_PAGE: Final = (
    b"<HTML><HEAD><TITLE>ERROR: The request could not be satisfied</TITLE></HEAD><BODY><H1>403 ERROR</H1>"
    b"<H2>The request could not be satisfied.</H2>Request blocked.</BODY></HTML>"
)
_BAD_GATEWAY_PAGE: Final = (
    b"<html><head><title>502 Bad Gateway</title></head><body><center><h1>502 Bad Gateway</h1></center></body></html>"
)
_LOGIN_PAGE: Final = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Please sign in.</body></html>"
_S3_ERRORS: Final[Mapping[int, tuple[str, str]]] = {
    403: ("AccessDenied", "Access Denied"),
    404: ("NoSuchKey", "The specified key does not exist."),
    500: ("InternalError", "We encountered an internal error. Please try again."),
    503: ("SlowDown", "Please reduce your request rate."),
}


@dataclass(frozen=True, slots=True)
class SandboxResponse:
    """An HTTP response.

    Attributes:
        status: The HTTP status.
        body: The body.
        content_type: The content type.
        headers: Headers in addition to those that every response has.
    """

    status: int
    body: bytes
    content_type: bytes = _JSON
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)


class BadRequestError(Exception):
    """A request that Binance rejects with HTTP 400.

    Attributes:
        code: Binance's error code.
        message: Binance's text.
    """

    def __init__(self, code: int, message: str) -> None:
        """Take the code and the text."""
        super().__init__(message)
        self.code = code
        self.message = message


def json_response(
    value: object, status: int = 200, headers: list[tuple[bytes, bytes]] | None = None
) -> SandboxResponse:
    """Return a response with ``value`` as JSON."""
    body = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    return SandboxResponse(status, body, headers=headers or [])


def error_response(status: int, code: int, message: str) -> SandboxResponse:
    """Return an error in Binance's format."""
    return json_response({"code": code, "msg": message}, status)


def rejection_response(rejection: Rejection) -> SandboxResponse:
    """Return a 429 or 418."""
    headers = [(b"Retry-After", b"%d" % rejection.retry_after)]
    return json_response({"code": -1003, "msg": rejection.message}, rejection.status, headers)


def status_response(
    value: int | str | None, limit: int, path: str, now: int, seconds: int | None = None
) -> SandboxResponse:
    """Return the response that Binance sends with an HTTP status, or with ``503-no-code``.

    Args:
        value: The status; 500 if None.
        limit: The weight limit that the text of a 429 mentions.
        path: The request's path.
        now: The clock, ms UTC.
        seconds: The Retry-After of a 429 or 418; None for the rest of the minute, or the shortest ban.
    """
    if value == "503-no-code":
        text = "Unknown error, please check your request or try again later."
        return json_response({"timestamp": now, "path": path, "msg": text}, 503)
    status = int(value or 500)
    if status == 429:
        rejection = limit_exceeded(limit, now)
        return rejection_response(rejection if seconds is None else replace(rejection, retry_after=seconds))
    if status == 418:
        return rejection_response(ip_banned(now + (seconds or BAN_SECONDS) * SECOND, now))
    if status == 403:
        return SandboxResponse(403, _FORBIDDEN_PAGE, _HTML)
    if status == 502:
        return SandboxResponse(502, _BAD_GATEWAY_PAGE, _HTML)
    return error_response(status, *_ERROR_BY_STATUS.get(status, (-1000, "An unknown error occurred.")))


def not_found_response(path: str, now: int) -> SandboxResponse:
    """Return the response to a path that does not exist."""
    return json_response({"timestamp": now, "status": 404, "error": "Not Found", "path": path}, 404)


def file_response(built: BuiltFile, body: bytes, content_type: bytes) -> SandboxResponse:
    """Return a response with the headers of the archive's store; ``body`` is the file's zip or its ``.CHECKSUM``."""
    tag = hashlib.sha256(body).hexdigest()[:32] if body is not built.body else built.sha256[:32]
    headers = [
        (b"Last-Modified", formatdate(built.last_modified // SECOND, usegmt=True).encode()),
        (b"ETag", f'"{tag}"'.encode()),
    ]
    return SandboxResponse(200, body, content_type, headers)


def archive_error_response(value: int | str | None, path: str) -> SandboxResponse:
    """Return the response that the archive's store (S3) sends with an HTTP status.

    Args:
        value: The status, as in :func:`status_response`.
        path: The request's path.
    """
    status = 503 if value == "503-no-code" else int(value or 500)
    code, message = _S3_ERRORS.get(status, ("InternalError", "An error occurred."))
    key = escape(path.removeprefix("/"))
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>{message}</Message><Key>{key}</Key></Error>"
    )
    return SandboxResponse(status, text.encode(), _XML)


def login_page_response() -> SandboxResponse:
    """Return the login page that a captive portal sends instead of a file."""
    return SandboxResponse(200, _LOGIN_PAGE, _HTML)


def request_weight(market: Market, endpoint: str, params: Mapping[str, str]) -> int:
    """Return the weight of a request, valid or not."""
    if endpoint == "klines":
        limit = params.get("limit", "")
        return market.klines_weight(int(limit) if _is_number(limit) else _DEFAULT_LIMIT)
    if endpoint == "ticker/24hr":
        return market.klines_weight(1) if "symbol" in params else market.ticker_weight
    return market.info_weight if endpoint == "exchangeInfo" else TIME_WEIGHT


def build_response(
    exchange: SandboxExchange, market: Market, endpoint: str, params: Mapping[str, str]
) -> SandboxResponse:
    """Build the response to a valid request.

    Raises:
        BadRequestError: The request is not valid.
    """
    if endpoint == "klines":
        return SandboxResponse(200, _klines_body(exchange, market, params))
    if endpoint == "exchangeInfo":
        return json_response(_exchange_info(exchange, market, params))
    if endpoint == "ticker/24hr":
        return json_response(_tickers(exchange, market, params))
    return json_response({"serverTime": exchange.now_ms()} if endpoint == "time" else {})


def _klines_body(exchange: SandboxExchange, market: Market, params: Mapping[str, str]) -> bytes:
    """Return the body of a klines response.

    Raises:
        BadRequestError: The request is not valid.
    """
    symbol, interval = _required_param(params, "symbol"), _required_param(params, "interval")
    if market is SPOT:
        _reject_unread_params(params)
    else:
        symbol = symbol.upper()
    parsed_interval = find_interval(market, interval)
    if parsed_interval is None:
        raise BadRequestError(-1120, "Invalid interval.")
    if not exchange.serves_symbol(market, symbol):
        raise BadRequestError(-1121, "Invalid symbol.")
    limit = _limit(market, params)
    start, end = requested_window(params)
    newest = market.newest_first or start is None
    window = _bounded_window(market, start, end, exchange.now_ms())
    return exchange.page(market, symbol, parsed_interval, window, (limit, newest))


def find_interval(market: Market, name: str) -> Interval | None:
    """Return the interval that requests spell ``name``, if the market has it."""
    return next((interval for interval in market.intervals if interval.api_name == name), None)


def requested_window(params: Mapping[str, str]) -> tuple[int | None, int | None]:
    """Return the first and the last moment of the requested window, ms UTC; None where it is open.

    Raises:
        BadRequestError: One of them is not a number.
    """
    start, end = _number(params, "startTime"), _number(params, "endTime")
    return _to_milliseconds(start), _to_milliseconds(end)


def _to_milliseconds(time: int | None) -> int | None:
    return time // 1000 if time is not None and time >= _MIN_MICROSECONDS else time


def _bounded_window(market: Market, start: int | None, end: int | None, now: int) -> tuple[int, int]:
    if (max_window := market.max_window) is not None:
        if start is not None and end is not None and end - start > max_window:
            raise BadRequestError(-4088, f"Maximum time interval is {max_window // 86_400_000} days.")
        if start is not None and end is None:
            end = start + max_window
        elif start is None and end is not None:
            start = end - max_window
    return start or 0, now if end is None else min(end, now)


def _required_param(params: Mapping[str, str], name: str) -> str:
    if not params.get(name):
        text = f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed."
        raise BadRequestError(-1102, text)
    return params[name]


def _reject_unread_params(params: Mapping[str, str]) -> None:
    read = [name for name in params if name in _KLINES_PARAMS or name == "timeZone"]
    if len(read) < len(params):
        text = f"Not all sent parameters were read; read '{len(read)}' parameter(s) but was sent '{len(params)}'."
        raise BadRequestError(-1104, text)
    if params.get("timeZone", "0") not in ("0", "00:00", "+00:00"):  # the sandbox has only UTC candles
        raise BadRequestError(-1130, "Data sent for parameter 'timeZone' is not valid.")


def _limit(market: Market, params: Mapping[str, str]) -> int:
    limit = _number(params, "limit")
    if limit is None:
        return _DEFAULT_LIMIT
    if limit == 0 or (limit > market.max_limit and market is not SPOT):
        raise BadRequestError(-1130, "Data sent for parameter 'limit' is not valid.")
    return min(limit, market.max_limit)


def _number(params: Mapping[str, str], name: str) -> int | None:
    text = params.get(name)
    if text is None:
        return None
    if not text:
        raise BadRequestError(-1105, f"Parameter '{name}' was empty.")
    if not _is_number(text):
        legal_range = "^[0-9]{1,20}$"
        raise BadRequestError(-1100, f"Illegal characters found in parameter '{name}'; legal range is '{legal_range}'.")
    return int(text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 20


def _exchange_info(exchange: SandboxExchange, market: Market, params: Mapping[str, str]) -> dict[str, Any]:
    now = exchange.now_ms()
    symbols = [listing.exchange_info(now) for listing in exchange.trading_listings(market, now)]
    if market is SPOT and (requested := _requested_symbols(params)) is not None:
        symbols = [entry for entry in symbols if entry["symbol"] in requested]
        if len(symbols) < len(requested):
            raise BadRequestError(-1121, "Invalid symbol.")
    info: dict[str, Any] = {"timezone": "UTC", "serverTime": now, "rateLimits": _rate_limits(exchange, market)}
    if market is USDM:
        info["futuresType"] = "U_MARGINED"
    return info | {"exchangeFilters": [], "symbols": symbols}


def _tickers(exchange: SandboxExchange, market: Market, params: Mapping[str, str]) -> object:
    """Return the volumes of the last 24 hours; the earlier a symbol stands in the tables, the larger is its own.

    Raises:
        BadRequestError: The requested symbol is not traded.
    """
    tickers = {}
    for place, listing in enumerate(exchange.trading_listings(market, exchange.now_ms()), 1):
        quote = 10**9 // place
        amounts: dict[str, str] = {"volume": f"{quote / float(listing.price_level):.8f}", "quoteVolume": f"{quote}.0"}
        if market is COINM:
            contracts = quote // listing.contract_size
            amounts = {"volume": f"{contracts}", "baseVolume": f"{quote / float(listing.price_level):.8f}"}
        tickers[listing.symbol] = {"symbol": listing.symbol, **amounts}
    if "symbol" not in params:
        return list(tickers.values())
    if params["symbol"] not in tickers:
        raise BadRequestError(-1121, "Invalid symbol.")
    ticker = tickers[params["symbol"]]
    return [ticker] if market is COINM else ticker


def _requested_symbols(params: Mapping[str, str]) -> set[str] | None:
    if "symbol" in params:
        return {params["symbol"]}
    if "symbols" not in params:
        return None
    try:
        return {str(symbol) for symbol in json.loads(params["symbols"])}
    except (ValueError, TypeError):
        raise BadRequestError(-1130, "Data sent for parameter 'symbols' is not valid.") from None


def _rate_limits(exchange: SandboxExchange, market: Market) -> list[dict[str, Any]]:
    limits = [_rate_limit("REQUEST_WEIGHT", "MINUTE", 1, exchange.limits.limit(market.rate_limit_group))]
    if market is SPOT:
        orders = [_rate_limit("ORDERS", "SECOND", 10, 100), _rate_limit("ORDERS", "DAY", 1, 200_000)]
        return [*limits, *orders, _rate_limit("RAW_REQUESTS", "MINUTE", 5, 300_000)]
    return [*limits, _rate_limit("ORDERS", "MINUTE", 1, 1200)]


def _rate_limit(kind: str, interval: str, number: int, limit: int) -> dict[str, Any]:
    return {"rateLimitType": kind, "interval": interval, "intervalNum": number, "limit": limit}
