"""Every error that a request can end with, and the policy for each.

Each class names one case and carries its :class:`Policy`: how often to try, how long to wait, and the verdict of a
partition that cannot be fetched because of this error. This module is the only place for these decisions::

    Exception
    ├── Cancelled                   the run was stopped while it waited; not an error of the exchange
    └── ExchangeError               a request that failed
        ├── NoConnection            no response: refused, reset, unknown host
        ├── TimedOut                no response: a timeout of the settings passed
        ├── BrokenResponse          the response ended early, or is not HTTP
        ├── UnexpectedResponse      200, but not what was requested: from a proxy or a login page
        │   ├── UnexpectedContent   200 from the host itself, but not what was requested
        │   └── TooLarge            200, and more bytes than such a response can have
        ├── UndocumentedStatus      a status that Binance does not document, or not its body
        ├── ServerError             408, 5XX, codes of internal failures
        ├── Blocked                 403 from the firewall
        ├── RateLimited             429, and code -1003 of any 4XX
        │   └── RateLimitedForLong  429 that lasts longer than the settings allow to wait
        ├── Banned                  418
        │   └── BannedForLong       418 that lasts longer than the settings allow to wait
        ├── RestrictedLocation      451
        ├── UnknownSymbol           code -1121
        ├── RefusedRequest          any other 4XX or code
        ├── NoFile                  404 from the archive
        ├── ChecksumMismatch        a file of the archive that does not match its SHA-256
        ├── BadFile                 a file of the archive that matches its SHA-256 and holds something else
        └── NotSent                 given up without sending, after an earlier error

Sources: the error lists of Binance's spot and futures documentation, and recorded responses. A 403 page is HTML, a
503 may lack its code, and a 451 has code 0, so this module assumes nothing about a body. A proxy or a login page may
respond in place of Binance, so a status that Binance does not document may pass.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal
from urllib.parse import parse_qs, urlsplit

from binance_assets.model.markets import SPOT, SPOT_ELSEWHERE
from binance_assets.model.outside import printable, whole_number


class Cancelled(Exception):
    """The run was stopped while it waited."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What to do after an error.

    Attributes:
        attempts: How often a request is tried in total before the error is final.
        first_delay: Most seconds before the second attempt; the delay doubles with every further attempt.
        ends_run: Whether no other request of the run can succeed.
        host_fails: Whether the host itself fails, so that its next response will probably be the same error.
        verdict: Verdict of a partition that cannot be fetched because of this error.
    """

    attempts: int
    first_delay: float = 0.25
    ends_run: bool = False
    host_fails: bool = False
    verdict: Literal["unreachable", "invalid"] = "unreachable"


class ExchangeError(Exception):
    """A request that failed.

    Attributes:
        reason: What happened, in one line.
        request: The requested URL; None if unknown.
        status: HTTP status; None without a response.
        code: Binance's own error code; None if the response has none.
        message: Binance's own message; None if the response has none.
        headers: Headers of the response.
    """

    policy: ClassVar[Policy] = Policy(attempts=1)

    def __init__(
        self,
        reason: str,
        request: str | None = None,
        status: int | None = None,
        code: int | None = None,
        headers: Mapping[str, str] | None = None,
        message: str | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.request = request
        self.status = status
        self.code = code
        self.headers = headers or {}
        self.message = message


class NoConnection(ExchangeError):
    """No response: the connection was refused or reset, or the host name does not resolve."""

    policy = Policy(attempts=6, host_fails=True)


class TimedOut(ExchangeError):
    """No connection, no further byte, or no whole response within the time that the settings allow."""

    # Each attempt already took a whole timeout.
    policy = Policy(attempts=3, host_fails=True)


class BrokenResponse(ExchangeError):
    """The response ended early, or is not HTTP."""

    policy = Policy(attempts=6, host_fails=True)


class UnexpectedResponse(ExchangeError):
    """A 200 whose body is not what was requested. A login page responds like this to everything."""

    policy = Policy(attempts=6, host_fails=True, verdict="invalid")


class UnexpectedContent(UnexpectedResponse):
    """A 200 of the host itself that is not what was requested, such as rows of one symbol that are no candles.

    It is a sign of life: the next request, of another symbol, may well succeed.
    """

    policy = Policy(attempts=6, verdict="invalid")


class TooLarge(UnexpectedResponse):
    """A 200 with more bytes than such a response can have; each attempt may cost all the bytes that are allowed."""

    policy = Policy(attempts=2, host_fails=True, verdict="invalid")


class UndocumentedStatus(ExchangeError):
    """A status below 500 that Binance does not document, or not with this body: 202, 3XX, a 404 page in HTML.

    A proxy, a gateway or a login page may respond in place of Binance for some seconds, or for good.
    """

    policy = Policy(attempts=4, first_delay=1, ends_run=True)


class ServerError(ExchangeError):
    """An internal failure at Binance (408, 5XX, codes -1000 to -1008, -1016); a GET is safe to repeat."""

    policy = Policy(attempts=6, host_fails=True)


class Blocked(ExchangeError):
    """403 from the firewall in front of Binance; it needs a long pause."""

    policy = Policy(attempts=4, first_delay=2, host_fails=True)


class RateLimited(ExchangeError):
    """429, or code -1003: this IP has used more request weight than a minute allows."""

    # Attempts of each request; after a 429 all workers wait for the next minute.
    policy = Policy(attempts=10, first_delay=0)


class RateLimitedForLong(RateLimited):
    """A 429 that forbids requests for longer than ``BINANCE_ASSETS_BAN_PATIENCE`` and the rest of a minute."""

    policy = Policy(attempts=1, ends_run=True)


class Banned(ExchangeError):
    """418: this IP is banned until a given time."""

    policy = Policy(attempts=10, first_delay=0, ends_run=True)


class BannedForLong(Banned):
    """A ban that lasts longer than ``BINANCE_ASSETS_BAN_PATIENCE``."""

    policy = Policy(attempts=1, ends_run=True)


class RestrictedLocation(ExchangeError):
    """451: Binance does not serve the location of this IP."""

    policy = Policy(attempts=1, ends_run=True)


class UnknownSymbol(ExchangeError):
    """Code -1121 from klines itself: the only proof that a symbol does not exist."""

    policy = Policy(attempts=1, ends_run=True)


class RefusedRequest(ExchangeError):
    """Any other 4XX, code -11XX or -4XXX: the request is wrong, and repeating it does not help."""

    policy = Policy(attempts=1, ends_run=True)


class NoFile(ExchangeError):
    """404 from the archive: it does not have the file, or does not have it yet."""

    policy = Policy(attempts=1)


class ChecksumMismatch(ExchangeError):
    """A file of the archive that does not match its SHA-256; Binance may be replacing it at this moment."""

    policy = Policy(attempts=2, first_delay=1, verdict="invalid")


class BadFile(ExchangeError):
    """A file of the archive that matches its SHA-256 but holds something else; a second attempt seldom helps."""

    policy = Policy(attempts=2, verdict="invalid")


_NOT_SENT: Final = "not requested, because an earlier request failed: "


class NotSent(ExchangeError):
    """A request that was not sent, because an earlier one showed that it could not succeed."""

    policy = Policy(attempts=1, ends_run=True)
    earlier: ExchangeError | None = None

    @classmethod
    def after(cls, error: ExchangeError) -> NotSent:
        """Return the error of a request that is not sent because of an earlier ``error``, whose URL it keeps."""
        reason = error.reason.removeprefix(_NOT_SENT)
        not_sent = cls(f"{_NOT_SENT}{reason}", error.request)
        not_sent.earlier = error
        return not_sent


def cause_of(error: ExchangeError) -> ExchangeError:
    """Return the error of the request that failed: the earlier one if a request was not sent because of it."""
    while isinstance(error, NotSent) and error.earlier is not None:
        error = error.earlier
    return error


def refuses_location(error: ExchangeError) -> bool:
    """Return whether Binance does not serve this location, also if only an earlier request showed it."""
    return isinstance(cause_of(error), RestrictedLocation)


_TRANSIENT_CODES: Final = frozenset({-1000, -1001, -1006, -1007, -1008, -1016})
_UNKNOWN_SYMBOL: Final = -1121
_TOO_MANY_REQUESTS: Final = -1003
_CODES: Final = range(-999_999, 1_000_000)
_MOST_OF_A_MESSAGE: Final = 300  # that of a 451 has 200 characters


def error_for_response(status: int, headers: Mapping[str, str], body: bytes, request: str) -> ExchangeError:
    """Return the error for a response with a status other than 200.

    Args:
        status: HTTP status.
        headers: Headers of the response.
        body: Body of the response, or its beginning.
        request: The requested URL.
    """
    code, message = _code_and_message(body)
    summary = f"HTTP {status} from {request.split('?')[0]}" + (f" ({code}: {message})" if message else "")
    if 300 <= status < 400 and (location := headers.get("Location")):
        summary += f" (redirects to {printable(location)})"
    has_other_body = code is None and bool(body.strip())
    kind, reason = _classify(status, code, has_other_body, summary, request)
    return kind(reason, request, status, code, headers, message)


def _classify(
    status: int, code: int | None, has_other_body: bool, summary: str, request: str
) -> tuple[type[ExchangeError], str]:
    if status == 418:
        return Banned, f"Binance has banned this IP: {summary}"
    if status == 429 or (code == _TOO_MANY_REQUESTS and 400 <= status < 500):
        return RateLimited, f"this IP has used up its request weight: {summary}"
    if status == 451:
        other_host = f"set BINANCE_SPOT_URL={SPOT_ELSEWHERE}"
        remedy = f"{other_host if SPOT.api in request else 'use another network'}, or take past days from the archive"
        return RestrictedLocation, f"Binance does not serve this location; {remedy}: {summary}"
    if status == 403:
        return Blocked, f"the firewall in front of Binance blocks this IP; try again later: {summary}"
    if status == 407:
        return RefusedRequest, f"the proxy wants a user name and a password; set them in HTTPS_PROXY: {summary}"
    if code == _UNKNOWN_SYMBOL:
        symbol = parse_qs(urlsplit(request).query).get("symbol", ["of that name"])[0]
        return UnknownSymbol, f"there is no symbol {symbol} on this market: {summary}"
    if status == 408 or status >= 500 or code in _TRANSIENT_CODES:
        return ServerError, f"internal error at Binance; try again later: {summary}"
    if status < 400 or has_other_body:  # Binance's own 4XX has a code, or no body
        return UndocumentedStatus, f"not a response of Binance; check the network, proxies and BINANCE_*_URL: {summary}"
    return RefusedRequest, f"Binance refused the request: {summary}"


def error_for_content(reason: str, headers: Mapping[str, str], body: bytes, request: str) -> UnexpectedResponse:
    """Return the error for a 200 of the API that is not what was requested.

    The API responds in JSON to every request, and a proxy or a login page in HTML.

    Args:
        reason: What happened, in one line.
        headers: Headers of the response.
        body: Body of the response.
        request: The requested URL.
    """
    kind = UnexpectedContent if _is_json(body) else UnexpectedResponse
    return kind(reason, request, 200, None, headers)


def _is_json(body: bytes) -> bool:
    """Return whether a body is a list or an object in JSON, whatever its numbers."""
    try:
        return isinstance(json.loads(body, parse_int=str, parse_float=str), (list, dict))
    except (ValueError, RecursionError):
        return False


def _code_and_message(body: bytes) -> tuple[int | None, str | None]:
    """Return the code and the message of an error body, as far as it has them in the documented types."""
    try:
        response: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None, None
    if not isinstance(response, dict):
        return None, None
    message = response.get("msg")
    return (
        whole_number(response.get("code"), _CODES),
        None if message is None else printable(message, _MOST_OF_A_MESSAGE),
    )
