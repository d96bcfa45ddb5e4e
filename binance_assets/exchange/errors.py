"""What can go wrong with a request: a named error for each case, and one table that decides what follows.

Sources: the error lists of Binance's spot and futures documentation and recorded answers. A 403 page is HTML, a
503 may lack its code and a 451 has code 0, so bodies are read with suspicion.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal
from urllib.parse import parse_qs, urlsplit

from binance_assets.model.markets import SPOT, SPOT_ELSEWHERE


class Cancelled(Exception):
    """The run was stopped while it waited."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What follows an error.

    Attributes:
        attempts: How often a request is tried in all before the error stands.
        first_delay: Seconds before the second attempt; it doubles from try to try.
        ends_run: Whether no other request of the run can fare better.
        verdict: The verdict of a period that cannot be had because of this error.
    """

    attempts: int
    first_delay: float = 0.25
    ends_run: bool = False
    verdict: Literal["unreachable", "invalid"] = "unreachable"


class ExchangeError(Exception):
    """A request that brought no candles.

    Attributes:
        reason: What happened, in one line.
        request: The URL that was asked.
        status: HTTP status, None where no answer came.
        code: Binance's own error code, None where the answer had none.
        message: Binance's own words, empty where the answer had none.
        headers: The answer's headers.
    """

    policy: ClassVar[Policy] = Policy(attempts=1)

    def __init__(
        self,
        reason: str,
        request: str = "",
        status: int | None = None,
        code: int | None = None,
        headers: Mapping[str, str] | None = None,
        message: str = "",
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.request = request
        self.status = status
        self.code = code
        self.headers = headers or {}
        self.message = message


class NoConnection(ExchangeError):
    """Refused, reset, or a name that does not resolve: nothing was answered."""

    policy = Policy(attempts=6)


class TimedOut(ExchangeError):
    """No connection, or no further byte of an answer, within the time-outs of the settings."""

    # Each attempt already cost a whole time-out.
    policy = Policy(attempts=3)


class BrokenAnswer(ExchangeError):
    """The answer's body ended early."""

    policy = Policy(attempts=6)


class UnexpectedAnswer(ExchangeError):
    """A 200 whose body is not the candles that were asked for."""

    policy = Policy(attempts=6, verdict="invalid")


class ServerFault(ExchangeError):
    """Binance failed inside (408, 5XX, codes -1000 to -1008, -1016); a GET is safe to repeat."""

    policy = Policy(attempts=6)


class Blocked(ExchangeError):
    """403 from the firewall in front of Binance; it wants a long pause."""

    policy = Policy(attempts=4, first_delay=2)


class RateLimited(ExchangeError):
    """429: this IP has used more weight than a minute allows."""

    # Counted per request; after each of them the whole pool has waited for another minute.
    policy = Policy(attempts=10, first_delay=0)


class Banned(ExchangeError):
    """418: this IP is banned until a given time."""

    policy = Policy(attempts=10, first_delay=0, ends_run=True)


class BannedForLong(Banned):
    """A ban that outlasts the patience of the settings."""

    policy = Policy(attempts=1, ends_run=True)


class RestrictedLocation(ExchangeError):
    """451: Binance does not serve the place that this IP is in."""

    policy = Policy(attempts=1, ends_run=True)


class UnknownSymbol(ExchangeError):
    """-1121 from klines itself: the only proof that a symbol does not exist."""

    policy = Policy(attempts=1, ends_run=True)


class RefusedRequest(ExchangeError):
    """Any other 4XX, -11XX or -4XXX: the request is wrong and stays wrong."""

    policy = Policy(attempts=1, ends_run=True)


class NoFile(ExchangeError):
    """404 from the archive: it has no such file, or not yet."""

    policy = Policy(attempts=1)


class ChecksumMismatch(ExchangeError):
    """A file of the archive that does not agree with its SHA-256; it may just be issued anew."""

    policy = Policy(attempts=2, first_delay=1, verdict="invalid")


class BadFile(ExchangeError):
    """A file of the archive that agrees with its SHA-256 and is still not what it should be; most stay so."""

    policy = Policy(attempts=2, verdict="invalid")


class NotAsked(ExchangeError):
    """Not sent at all, because an earlier request showed that it could not succeed."""

    policy = Policy(attempts=1, ends_run=True)


_TRANSIENT_CODES: Final = frozenset({-1000, -1001, -1006, -1007, -1008, -1016})


_UNKNOWN_SYMBOL: Final = -1121


def error_of(status: int, headers: Mapping[str, str], body: bytes, request: str) -> ExchangeError:
    """The named error that an answer with any status but 200 stands for."""
    code, message = _code_and_message(body)
    summary = f"{request.split('?')[0]} answered {status}" + (f" ({code}: {message})" if message else "")
    kind, reason = _kind(status, code, summary, request)
    return kind(reason, request, status, code, headers, message)


def _kind(status: int, code: int | None, summary: str, request: str) -> tuple[type[ExchangeError], str]:
    if status == 418:
        return Banned, f"this IP is banned by Binance: {summary}"
    if status == 429:
        return RateLimited, f"the request weight of this IP is spent: {summary}"
    if status == 451:
        elsewhere = f"set BINANCE_SPOT_URL={SPOT_ELSEWHERE}"
        way_out = elsewhere if SPOT.api in request else "use another network"
        return RestrictedLocation, f"Binance does not serve this location; {way_out}: {summary}"
    if status == 403:
        return Blocked, f"blocked by the firewall in front of Binance: {summary}"
    if code == _UNKNOWN_SYMBOL:
        symbol = parse_qs(urlsplit(request).query).get("symbol", ["it"])[0]
        return UnknownSymbol, f"there is no symbol {symbol} on this market: {summary}"
    if status == 408 or status >= 500 or code in _TRANSIENT_CODES:
        return ServerFault, f"Binance failed: {summary}"
    return RefusedRequest, f"Binance refused the request: {summary}"


def _code_and_message(body: bytes) -> tuple[int | None, str]:
    try:
        response: Any = json.loads(body)
    except ValueError:
        return None, ""
    if not isinstance(response, dict):
        return None, ""
    code = response.get("code")
    return code if isinstance(code, int) else None, str(response.get("msg", ""))
