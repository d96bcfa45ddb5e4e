"""One GET request: its response, or one of the named errors. No retries and no waiting here.

Nothing of a response is believed: its bytes are counted before and after decoding, the whole call has a deadline, and
whatever else goes wrong becomes a named error too.
"""

from __future__ import annotations

import http.client
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

import requests
from polars.exceptions import PanicException
from requests.utils import requote_uri
from urllib3 import BaseHTTPResponse, Timeout
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ProxyError, ReadTimeoutError

from binance_assets.exchange.errors import (
    BrokenResponse,
    Cancelled,
    ExchangeError,
    NoConnection,
    TimedOut,
    TooLarge,
    UnexpectedResponse,
    error_for_response,
)
from binance_assets.exchange.transport import BoundedClient, DeadlinePassed, Route, TooManyBytes, call_bounds
from binance_assets.model.markets import SANDBOX_HEADER, USED_WEIGHT_HEADER
from binance_assets.model.outside import printable_url, reason_of, whole_number
from binance_assets.settings import ConfigurationError

TIME_BYTES: Final = 64_000
"""The most bytes of a small response: the server's time, an error."""

PAGE_BYTES: Final = 2_000_000
"""The most bytes of a klines page: 1500 candles have 0.3 million."""

INFO_BYTES: Final = 100_000_000
"""The most bytes of exchangeInfo: that of spot has some ten million."""

CHECKSUM_BYTES: Final = 1_000
"""The most bytes of a ``.CHECKSUM`` file of the archive."""

SLOW_BYTES: Final = 20_000_000
"""The most bytes that a deadline leaves time for. All of exchangeInfo has half of it, and a month of 1m a tenth."""

# Headers and the framing of chunks. The library itself accepts at most 100 headers of 64 kB.
_OVERHEAD_BYTES: Final = 1_000_000
_READ_BYTES: Final = 2**18
_LENGTHS: Final = range(10**18)
_MOST_CAUSES: Final = 20


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A response with status 200.

    Attributes:
        body: The whole body.
        headers: The headers; names are case-insensitive.
        sent: ``time.monotonic()`` when the request was sent, seconds.
        received: ``time.monotonic()`` when the response was complete, seconds.
        request: The requested URL.
    """

    body: bytes
    headers: Mapping[str, str]
    sent: float
    received: float
    request: str

    @property
    def from_sandbox(self) -> bool:
        """Whether the response comes from the project's own sandbox and not from Binance."""
        return SANDBOX_HEADER in self.headers


def used_weight(headers: Mapping[str, str], limit: int) -> int | None:
    """Return the weight that this IP has used in the server's current minute; None if the headers do not say.

    Args:
        headers: The headers of a response.
        limit: The weight limit of a minute. A number above ten times the limit makes no sense and is ignored.
    """
    return whole_number(headers.get(USED_WEIGHT_HEADER), range(10 * limit + 1))


def longest_call(slow_bytes: int, connect_timeout: float, read_timeout: float) -> float:
    """Return how long a call may take in total, seconds, so that a response that trickles in ends too.

    A small response has a connect timeout and two read timeouts; each million bytes of a large one adds a read timeout:
    67 kB/s with the default of 15 s. This is no bound of the size, so it does not grow with one.

    Args:
        slow_bytes: How large the response may be on a slow network; at most ``SLOW_BYTES`` count. 0 for a small one.
        connect_timeout: Longest wait for a connection, seconds.
        read_timeout: Longest wait for the next byte, seconds.
    """
    return connect_timeout + read_timeout * (2 + min(slow_bytes, SLOW_BYTES) // 1_000_000)


class HttpClient:
    """Sends GET requests to one host over kept-alive connections; safe to use from many threads.

    Args:
        url: The host, without a path.
        connections: How many connections to keep open: as many as there are workers.
        connect_timeout: Longest wait for a connection, seconds.
        read_timeout: Longest wait for the next byte, seconds.
    """

    def __init__(self, url: str, connections: int, connect_timeout: float, read_timeout: float) -> None:
        self.url = url
        self._timeouts = (connect_timeout, read_timeout)
        self._timeout = Timeout(connect=connect_timeout, read=read_timeout)
        self._client = BoundedClient(url, connections)
        self._route: Route | None = None

    def get(self, path: str, parameters: Mapping[str, str | int], most_bytes: int, slow_bytes: int = 0) -> HttpResponse:
        """Send ``GET path?parameters``.

        Args:
            path: Path on the host.
            parameters: Query parameters.
            most_bytes: The largest body to accept, encoded or decoded.
            slow_bytes: The size that the deadline leaves time for, see :func:`longest_call`.

        Returns:
            The response, which has status 200.

        Raises:
            ExchangeError: There is no response, or one with another status, or one that is too large or too slow; the
                class of the error says which.
        """
        sent = time.monotonic()
        target = self.url + path
        seconds = longest_call(slow_bytes, *self._timeouts)
        response: BaseHTTPResponse | None = None
        try:
            route = self._route = self._route or self._client.route()
            full_path = requote_uri(path) + (f"?{urlencode(parameters)}" if parameters else "")
            request = route.url + full_path
            with call_bounds(sent + seconds, most_bytes + _OVERHEAD_BYTES):
                response = route.get(full_path, self._timeout)
                if response.status == 200:
                    body = _read_body(response, most_bytes)
                else:
                    body = _error_body(response)
                    raise error_for_response(response.status, response.headers, body, request)
        except (ExchangeError, MemoryError):
            raise
        except Exception as error:
            is_late = time.monotonic() >= sent + seconds
            raise self._named(error, target, response, most_bytes, seconds, is_late) from error
        return HttpResponse(body, response.headers, sent, time.monotonic(), request)

    def close(self) -> None:
        """Close the idle connections."""
        self._route = None
        self._client.close()

    def _named(
        self,
        error: Exception,
        target: str,
        response: BaseHTTPResponse | None,
        most_bytes: int,
        seconds: float,
        is_late: bool,
    ) -> ExchangeError:
        """Return the named error of a call that raised ``error``.

        Args:
            error: What was raised.
            target: The requested URL.
            response: The response, if its headers arrived.
            most_bytes: The largest body that is accepted.
            seconds: How long the call may take in total.
            is_late: Whether the deadline of the call has passed.
        """
        causes = list(_causes(error))
        reason = _reason(causes[-1])
        status, headers = (200, response.headers) if response is not None else (None, None)
        connect_timeout, read_timeout = self._timeouts

        def is_caused_by(*kinds: type[BaseException]) -> bool:
            return any(isinstance(cause, kinds) for cause in causes)

        if is_caused_by(TooManyBytes):
            return TooLarge(f"{target}: the response is larger than {most_bytes:,} bytes", target, 200, headers=headers)
        if is_caused_by(_BadEncoding):
            return UnexpectedResponse(f"{target}: the body cannot be decoded ({reason})", target, 200, headers=headers)
        if is_caused_by(ProxyError):
            fails = "does not connect" if "Tunnel" in reason else "cannot be reached"
            remedy = "check HTTP_PROXY, HTTPS_PROXY and NO_PROXY"
            proxy = printable_url(self._client.proxy)
            return NoConnection(f"{target}: the proxy {proxy} {fails} ({reason}); {remedy}", target)
        if is_caused_by(ConnectTimeoutError) and not is_caused_by(NewConnectionError):
            remedy = "check the network or raise BINANCE_ASSETS_CONNECT_TIMEOUT"
            return TimedOut(f"{target}: no connection within {connect_timeout:g} s; {remedy}", target)
        remedy = "check the network or raise BINANCE_ASSETS_READ_TIMEOUT"
        if is_caused_by(DeadlinePassed) or (is_late and is_caused_by(TimeoutError, ReadTimeoutError)):
            late = f"the response was not complete after {seconds:g} s"
            return TimedOut(f"{target}: {late}; {remedy}", target, status, headers=headers)
        if is_caused_by(TimeoutError, ReadTimeoutError):
            return TimedOut(f"{target}: no data for {read_timeout:g} s; {remedy}", target, status, headers=headers)
        if response is not None:
            return BrokenResponse(f"{target}: the response ended early ({reason})", target, status, headers=headers)
        if is_caused_by(http.client.HTTPException) and not is_caused_by(ConnectionError):
            return BrokenResponse(f"{target}: the response is not HTTP ({reason})", target)
        if is_caused_by(OSError, requests.RequestException, HTTPError):
            return NoConnection(f"{target}: no connection ({reason}); check the network and BINANCE_*_URL", target)
        return UnexpectedResponse(f"{target}: the response cannot be read ({reason})", target)


@contextmanager
def reading(error_for: Callable[[str], ExchangeError]) -> Iterator[None]:
    """Turn whatever reading a response raises, a panic of Polars included, into a named error.

    Args:
        error_for: Returns the error, given the cause in one line.
    """
    try:
        yield
    except (ExchangeError, Cancelled, ConfigurationError, MemoryError):
        raise
    except (Exception, PanicException) as error:
        raise error_for(reason_of(error)) from error


class _BadEncoding(Exception):
    """A body that is not encoded as its headers say, or not as the request allows."""


def _read_body(response: BaseHTTPResponse, most_bytes: int) -> bytes:
    """Return the whole decoded body, and leave the connection for the next request.

    Raises:
        TooManyBytes: It is larger than ``most_bytes``, encoded or decoded.
        _BadEncoding: It cannot be decoded.
    """
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    try:
        if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise _BadEncoding(f"the encoding {encoding!r} was not requested")
        if (whole_number(response.headers.get("Content-Length"), _LENGTHS) or 0) > most_bytes:
            raise TooManyBytes
        parts = response.stream(_READ_BYTES, decode_content=False)
        first, rest = next(parts, b""), bytearray()  # a page is mostly one part, which is not copied
        for part in parts:
            rest += part
            if len(first) + len(rest) > most_bytes:
                raise TooManyBytes
        if len(first) > most_bytes:
            raise TooManyBytes
    except BaseException:
        response.close()
        response.release_conn()
        raise
    body: bytes = first + rest if rest else first
    return _decoded(body, encoding, most_bytes) if body and encoding not in ("", "identity") else body


def _error_body(response: BaseHTTPResponse) -> bytes:
    """Return the body of an error, empty if it cannot be read or is too large: the status says enough without it."""
    try:
        return _read_body(response, TIME_BYTES)
    except MemoryError:
        raise
    except Exception:
        return b""


def _decoded(body: bytes, encoding: str, most_bytes: int) -> bytes:
    """Return a gzip or deflate body decoded, without ever holding more than ``most_bytes`` of it.

    Raises:
        TooManyBytes: It holds more.
        _BadEncoding: It is not such a body, is cut off, or is followed by something else.
    """
    # "deflate" means the zlib format. Some servers send the bare format, which never begins like that of zlib.
    bits = zlib.MAX_WBITS
    if encoding != "deflate":
        bits += 16
    elif body[0] & 0x0F != 8:
        bits = -bits
    decoder = zlib.decompressobj(bits)
    try:
        decoded = decoder.decompress(body, most_bytes + 1)
    except zlib.error as error:
        raise _BadEncoding(str(error)) from None
    if len(decoded) > most_bytes:
        raise TooManyBytes
    if not decoder.eof or decoder.unused_data:
        raise _BadEncoding("it is cut off, or followed by other bytes")
    return decoded


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes down to the first one, but none of an earlier request."""
    cause: BaseException | None = error
    for _ in range(_MOST_CAUSES):
        if cause is None or isinstance(cause, (ExchangeError, Cancelled)):
            return
        yield cause
        cause = cause.__cause__ or cause.__context__


def _reason(error: BaseException) -> str:
    return reason_of(error).strip("()")
