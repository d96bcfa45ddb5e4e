"""One GET request: its response, or one of the named errors. No retries and no waiting here."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import LocationParseError

from binance_assets.exchange.errors import BrokenResponse, ExchangeError, NoConnection, TimedOut, error_for_response
from binance_assets.model.markets import SANDBOX_HEADER, USED_WEIGHT_HEADER


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


def used_weight(headers: Mapping[str, str]) -> int | None:
    """Return the weight that this IP has used in the server's current minute; None if the headers do not say."""
    value = headers.get(USED_WEIGHT_HEADER, "")
    return int(value) if value.isdigit() else None


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
        self._session = requests.Session()
        # No retries by the library: each retry has to acquire its weight from the budget first.
        adapter = HTTPAdapter(pool_connections=1, pool_maxsize=connections, max_retries=0)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)
        # Look up proxies and certificates of the environment once; for each request it would cost more than parsing.
        self._route = self._session.merge_environment_settings(url, {}, None, None, None)
        self._session.trust_env = False

    def get(self, path: str, parameters: Mapping[str, str | int]) -> HttpResponse:
        """Send ``GET path?parameters``.

        Args:
            path: Path on the host.
            parameters: Query parameters.

        Returns:
            The response, which has status 200.

        Raises:
            ExchangeError: There is no response, or one with another status; the class of the error says which.
        """
        sent = time.monotonic()
        target = self.url + path
        try:
            response = self._session.get(
                target,
                params={name: str(value) for name, value in parameters.items()},
                timeout=self._timeouts,
                allow_redirects=False,
                **self._route,
            )
            body = response.content
        except (requests.RequestException, LocationParseError) as error:
            raise self._error_without_response(error, target) from error
        if response.status_code != 200:
            raise error_for_response(response.status_code, response.headers, body, response.url)
        return HttpResponse(body, response.headers, sent, time.monotonic(), response.url)

    def close(self) -> None:
        """Close the idle connections."""
        self._session.close()

    def _error_without_response(self, error: Exception, target: str) -> ExchangeError:
        connect_timeout, read_timeout = self._timeouts
        if isinstance(error, requests.ConnectTimeout):
            remedy = "check the network or raise BINANCE_ASSETS_CONNECT_TIMEOUT"
            return TimedOut(f"{target}: no connection within {connect_timeout:g} s; {remedy}", target)
        if isinstance(error, (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError)):
            return BrokenResponse(f"{target}: the response ended early", target)
        # The library reports a timeout in the middle of a body as a ConnectionError.
        if isinstance(error, requests.Timeout) or "Read timed out" in str(error):
            remedy = "check the network or raise BINANCE_ASSETS_READ_TIMEOUT"
            return TimedOut(f"{target}: no data for {read_timeout:g} s; {remedy}", target)
        return NoConnection(
            f"{target}: no connection ({_root_cause(error)}); check the network and BINANCE_*_URL", target
        )


def _root_cause(error: BaseException) -> str:
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return str(error).strip("()") or type(error).__name__
