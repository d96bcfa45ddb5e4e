"""One GET: its answer, or one of the named errors. No retries and no waiting here."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import LocationParseError

from binance_assets.exchange.errors import BrokenAnswer, ExchangeError, NoConnection, TimedOut, error_of
from binance_assets.model.markets import SANDBOX_HEADER, USED_WEIGHT_HEADER


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """An answer with status 200.

    Attributes:
        body: Its bytes, whole.
        headers: Its headers, names case-insensitive.
        sent: ``time.monotonic()`` when the request was sent, seconds.
        received: ``time.monotonic()`` when the answer was there, seconds.
        request: The URL that was asked.
    """

    body: bytes
    headers: Mapping[str, str]
    sent: float
    received: float
    request: str

    @property
    def from_sandbox(self) -> bool:
        """Whether the project's own sandbox answered, and not Binance."""
        return SANDBOX_HEADER in self.headers


def used_weight(headers: Mapping[str, str]) -> int | None:
    """The weight that the server says this IP has used in its current minute; None where it does not say."""
    value = headers.get(USED_WEIGHT_HEADER, "")
    return int(value) if value.isdigit() else None


class HttpClient:
    """Sends GET requests to one host over kept-alive connections; safe to use from many threads.

    Args:
        url: The host, without a path.
        connections: How many connections are kept open: as many as there are workers.
        connect_timeout: Seconds.
        read_timeout: Seconds without a byte.
    """

    def __init__(self, url: str, connections: int, connect_timeout: float, read_timeout: float) -> None:
        self.url = url
        self._timeouts = (connect_timeout, read_timeout)
        self._session = requests.Session()
        # Retries are ours: each of them must be paid from the weight budget.
        adapter = HTTPAdapter(pool_connections=1, pool_maxsize=connections, max_retries=0)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)
        # Proxies and certificates of the environment are looked up once; per request it costs more than parsing.
        self._route = self._session.merge_environment_settings(url, {}, None, None, None)
        self._session.trust_env = False

    def get(self, path: str, parameters: Mapping[str, str | int]) -> HttpResponse:
        """The answer to ``GET path?parameters``.

        Raises:
            ExchangeError: There was none, or one with another status than 200; its class says which.
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
            raise _without_answer(error, target) from error
        if response.status_code != 200:
            raise error_of(response.status_code, response.headers, body, response.url)
        return HttpResponse(body, response.headers, sent, time.monotonic(), response.url)

    def close(self) -> None:
        """Close the idle connections."""
        self._session.close()


def _without_answer(error: Exception, target: str) -> ExchangeError:
    if isinstance(error, requests.Timeout):
        waited = "connection" if isinstance(error, requests.ConnectTimeout) else "answer"
        return TimedOut(f"{target}: no {waited} in time", target)
    if isinstance(error, (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError)):
        return BrokenAnswer(f"{target}: the answer broke off", target)
    if "Read timed out" in str(error):  # requests reports a silence amid the body as a ConnectionError
        return TimedOut(f"{target}: the answer stopped coming", target)
    return NoConnection(f"{target}: no connection ({_innermost(error)}); check the network and BINANCE_*_URL", target)


def _innermost(error: BaseException) -> str:
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return str(error).strip("()") or type(error).__name__
