"""The sandbox's answers: Binance's error bodies, what klines, exchangeInfo, time and ping say, and the archive's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from typing import Any, Final
from xml.sax.saxutils import escape

from binance_assets.model.intervals import Interval
from binance_assets.model.markets import SPOT, TIME_WEIGHT, USDM, Market
from binance_assets.model.timestamps import SECOND
from binance_assets.sandbox.archive import Stored
from binance_assets.sandbox.limits import BAN_SECONDS, Refusal, banned, too_much
from binance_assets.sandbox.venue import Venue

_JSON: Final = b"application/json;charset=UTF-8"
_HTML: Final = b"text/html"
_XML: Final = b"application/xml"
_DEFAULT_LIMIT: Final = 500
_LEAST_MICROSECONDS: Final = 10**14
_KLINES_PARAMS: Final = ("symbol", "interval", "startTime", "endTime", "limit")
_TEXT_OF_STATUS: Final[Mapping[int, tuple[int, str]]] = {
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
_FORBIDDEN: Final = (
    b"<HTML><HEAD><TITLE>ERROR: The request could not be satisfied</TITLE></HEAD><BODY><H1>403 ERROR</H1>"
    b"<H2>The request could not be satisfied.</H2>Request blocked.</BODY></HTML>"
)
_BAD_GATEWAY: Final = (
    b"<html><head><title>502 Bad Gateway</title></head><body><center><h1>502 Bad Gateway</h1></center></body></html>"
)
_PORTAL: Final = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Please sign in.</body></html>"
_S3_ERRORS: Final[Mapping[int, tuple[str, str]]] = {
    403: ("AccessDenied", "Access Denied"),
    404: ("NoSuchKey", "The specified key does not exist."),
    500: ("InternalError", "We encountered an internal error. Please try again."),
    503: ("SlowDown", "Please reduce your request rate."),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer: status, body, content type and headers beyond those that every answer has."""

    status: int
    body: bytes
    content_type: bytes = _JSON
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)


class BadRequestError(Exception):
    """A request that Binance refuses with HTTP 400.

    Attributes:
        code: Binance's code.
        message: Binance's text.
    """

    def __init__(self, code: int, message: str) -> None:
        """Take code and text."""
        super().__init__(message)
        self.code = code
        self.message = message


def json_answer(value: object, status: int = 200, headers: list[tuple[bytes, bytes]] | None = None) -> Answer:
    """``value`` as an answer."""
    body = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    return Answer(status, body, headers=headers or [])


def error_answer(status: int, code: int, message: str) -> Answer:
    """An error as Binance words it."""
    return json_answer({"code": code, "msg": message}, status)


def refusal_answer(refusal: Refusal) -> Answer:
    """A 429 or 418."""
    headers = [(b"Retry-After", b"%d" % refusal.retry_after)]
    return json_answer({"code": -1003, "msg": refusal.message}, refusal.status, headers)


def status_answer(value: int | str | None, limit: int, path: str, now: int, seconds: int | None = None) -> Answer:
    """What Binance says with an HTTP status, or with ``503-no-code``.

    Args:
        value: The status; 500 if None.
        limit: The weight limit that the text of a 429 names.
        path: The request's path.
        now: The clock, ms UTC.
        seconds: How long a 429 or 418 asks to wait; None for the rest of the minute and the shortest ban.
    """
    if value == "503-no-code":
        text = "Unknown error, please check your request or try again later."
        return json_answer({"timestamp": now, "path": path, "msg": text}, 503)
    status = int(value or 500)
    if status == 429:
        refusal = too_much(limit, now)
        return refusal_answer(refusal if seconds is None else replace(refusal, retry_after=seconds))
    if status == 418:
        return refusal_answer(banned(now + (seconds or BAN_SECONDS) * SECOND, now))
    if status == 403:
        return Answer(403, _FORBIDDEN, _HTML)
    if status == 502:
        return Answer(502, _BAD_GATEWAY, _HTML)
    return error_answer(status, *_TEXT_OF_STATUS.get(status, (-1000, "An unknown error occurred.")))


def not_found(path: str, now: int) -> Answer:
    """The answer to a path that does not exist."""
    return json_answer({"timestamp": now, "status": 404, "error": "Not Found", "path": path}, 404)


def file_answer(stored: Stored, body: bytes, content_type: bytes) -> Answer:
    """``body``, which is a file of the archive or its ``.CHECKSUM``, with the headers of the archive's store."""
    tag = hashlib.sha256(body).hexdigest()[:32] if body is not stored.body else stored.sha256[:32]
    headers = [
        (b"Last-Modified", formatdate(stored.modified // SECOND, usegmt=True).encode()),
        (b"ETag", f'"{tag}"'.encode()),
    ]
    return Answer(200, body, content_type, headers)


def archive_error(value: int | str | None, path: str) -> Answer:
    """What the archive's store (S3) says with an HTTP status.

    Args:
        value: The status, as in :func:`status_answer`.
        path: The request's path.
    """
    status = 503 if value == "503-no-code" else int(value or 500)
    code, message = _S3_ERRORS.get(status, ("InternalError", "An error occurred."))
    key = escape(path.removeprefix("/"))
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>{message}</Message><Key>{key}</Key></Error>"
    )
    return Answer(status, text.encode(), _XML)


def portal_answer() -> Answer:
    """A page that somebody on the way sends instead of a file."""
    return Answer(200, _PORTAL, _HTML)


def weight_of(market: Market, endpoint: str, params: Mapping[str, str]) -> int:
    """What a request is charged, valid or not."""
    if endpoint == "klines":
        limit = params.get("limit", "")
        return market.klines_weight(int(limit) if _is_number(limit) else _DEFAULT_LIMIT)
    return market.info_weight if endpoint == "exchangeInfo" else TIME_WEIGHT


def answer_to(venue: Venue, market: Market, endpoint: str, params: Mapping[str, str]) -> Answer:
    """The answer to a valid request.

    Raises:
        BadRequestError: The request is not valid.
    """
    if endpoint == "klines":
        return Answer(200, klines_body(venue, market, params))
    if endpoint == "exchangeInfo":
        return json_answer(_exchange_info(venue, market, params))
    return json_answer({"serverTime": venue.now_ms()} if endpoint == "time" else {})


def klines_body(venue: Venue, market: Market, params: Mapping[str, str]) -> bytes:
    """The body of a klines answer.

    Raises:
        BadRequestError: The request is not valid.
    """
    symbol, interval = _mandatory(params, "symbol"), _mandatory(params, "interval")
    if market is SPOT:
        _refuse_unread(params)
    else:
        symbol = symbol.upper()
    known = interval_of(market, interval)
    if known is None:
        raise BadRequestError(-1120, "Invalid interval.")
    if not venue.lists(market, symbol):
        raise BadRequestError(-1121, "Invalid symbol.")
    limit = _limit(market, params)
    start, end = window_of(params)
    newest = market.newest_first or start is None
    return venue.page(market, symbol, known, _closed_window(market, start, end, venue.now_ms()), (limit, newest))


def interval_of(market: Market, api_name: str) -> Interval | None:
    """The interval that a request spells so, if the market has it."""
    return next((interval for interval in market.intervals if interval.api_name == api_name), None)


def window_of(params: Mapping[str, str]) -> tuple[int | None, int | None]:
    """The asked window, ms UTC.

    Raises:
        BadRequestError: One of its ends is no number.
    """
    start, end = _number(params, "startTime"), _number(params, "endTime")
    return _milliseconds(start), _milliseconds(end)


def _milliseconds(time: int | None) -> int | None:
    return time // 1000 if time is not None and time >= _LEAST_MICROSECONDS else time


def _closed_window(market: Market, start: int | None, end: int | None, now: int) -> tuple[int, int]:
    if (longest := market.max_window) is not None:
        if start is not None and end is not None and end - start > longest:
            raise BadRequestError(-4088, f"Maximum time interval is {longest // 86_400_000} days.")
        if start is not None and end is None:
            end = start + longest
        elif start is None and end is not None:
            start = end - longest
    return start or 0, now if end is None else min(end, now)


def _mandatory(params: Mapping[str, str], name: str) -> str:
    if not params.get(name):
        text = f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed."
        raise BadRequestError(-1102, text)
    return params[name]


def _refuse_unread(params: Mapping[str, str]) -> None:
    read = [name for name in params if name in _KLINES_PARAMS or name == "timeZone"]
    if len(read) < len(params):
        text = f"Not all sent parameters were read; read '{len(read)}' parameter(s) but was sent '{len(params)}'."
        raise BadRequestError(-1104, text)
    if params.get("timeZone", "0") not in ("0", "00:00", "+00:00"):  # the sandbox has UTC candles only
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
        legal = "^[0-9]{1,20}$"
        raise BadRequestError(-1100, f"Illegal characters found in parameter '{name}'; legal range is '{legal}'.")
    return int(text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 20


def _exchange_info(venue: Venue, market: Market, params: Mapping[str, str]) -> dict[str, Any]:
    now = venue.now_ms()
    symbols = [listing.described(now) for listing in venue.trading(market, now)]
    if market is SPOT and (asked := _asked_symbols(params)) is not None:
        symbols = [entry for entry in symbols if entry["symbol"] in asked]
        if len(symbols) < len(asked):
            raise BadRequestError(-1121, "Invalid symbol.")
    info: dict[str, Any] = {"timezone": "UTC", "serverTime": now, "rateLimits": _rate_limits(venue, market)}
    if market is USDM:
        info["futuresType"] = "U_MARGINED"
    return info | {"exchangeFilters": [], "symbols": symbols}


def _asked_symbols(params: Mapping[str, str]) -> set[str] | None:
    if "symbol" in params:
        return {params["symbol"]}
    if "symbols" not in params:
        return None
    try:
        return {str(symbol) for symbol in json.loads(params["symbols"])}
    except (ValueError, TypeError):
        raise BadRequestError(-1130, "Data sent for parameter 'symbols' is not valid.") from None


def _rate_limits(venue: Venue, market: Market) -> list[dict[str, Any]]:
    limits = [_rate_limit("REQUEST_WEIGHT", "MINUTE", 1, venue.limits.limit(market.rate_limit_group))]
    if market is SPOT:
        orders = [_rate_limit("ORDERS", "SECOND", 10, 100), _rate_limit("ORDERS", "DAY", 1, 200_000)]
        return [*limits, *orders, _rate_limit("RAW_REQUESTS", "MINUTE", 5, 300_000)]
    return [*limits, _rate_limit("ORDERS", "MINUTE", 1, 1200)]


def _rate_limit(kind: str, interval: str, number: int, limit: int) -> dict[str, Any]:
    return {"rateLimitType": kind, "interval": interval, "intervalNum": number, "limit": limit}
