"""The route of a GET to its host, and the bounds of the call, enforced where its bytes leave the socket.

The timeout of a socket bounds the wait for the next bytes only. A server that sends one byte per second, in the headers
or in the body, stays below every such timeout, and one that sends fast fills the memory. So the reader between socket
and HTTP parser counts the bytes and watches the deadline of the call.

``requests`` decides how a host is reached: proxies, certificates, headers, connections. This is the same for each
request, but finding it out takes longer than sending one. So :class:`BoundedClient` finds it out once, as a
:class:`Route`, and the requests go through the pool of connections that ``requests`` made.
"""

from __future__ import annotations

import functools
import http.client
import io
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.utils import select_proxy
from urllib3 import BaseHTTPResponse, Timeout
from urllib3.connectionpool import HTTPConnectionPool

# It warns of every odd header with a traceback and the text of the header. What is missing then has a named error.
logging.getLogger("urllib3.connection").setLevel(logging.ERROR)


class DeadlinePassed(Exception):
    """A call took longer than it may."""


class TooManyBytes(Exception):
    """A response has more bytes than it may have."""


@dataclass(slots=True)
class _Bounds:
    deadline: float
    bytes_left: int


_current = threading.local()


@contextmanager
def call_bounds(deadline: float, most_bytes: int) -> Iterator[None]:
    """Bound the HTTP calls that this thread makes meanwhile.

    Args:
        deadline: ``time.monotonic()`` at which a call must be complete, seconds.
        most_bytes: How many bytes it may receive: headers, framing and encoded body together.

    Raises:
        DeadlinePassed: Bytes were wanted after the deadline.
        TooManyBytes: More bytes came.
        TimeoutError: The deadline passed while bytes were awaited.
    """
    _current.bounds = _Bounds(deadline, most_bytes)
    try:
        yield
    finally:
        _current.bounds = None


class _BoundedReader(io.RawIOBase):
    """Reads from a socket within the bounds of a call."""

    def __init__(self, raw: io.RawIOBase, sock: Any, bounds: _Bounds) -> None:
        super().__init__()
        self._raw = raw
        self._socket = sock
        self._bounds = bounds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        remaining = self._bounds.deadline - time.monotonic()
        if remaining <= 0:
            raise DeadlinePassed
        timeout = self._socket.gettimeout()
        if timeout is None or remaining < timeout:
            self._socket.settimeout(remaining)
        count: int | None = self._raw.readinto(buffer)
        self._bounds.bytes_left -= count or 0
        if self._bounds.bytes_left < 0:
            raise TooManyBytes
        return count

    def close(self) -> None:
        try:
            self._raw.close()
        finally:
            super().close()


class _BoundedResponse(http.client.HTTPResponse):
    """A response, from its status line on, within the bounds of the call that awaits it."""

    def __init__(self, sock: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        bounds = getattr(_current, "bounds", None)
        if bounds is not None:
            self.fp: Any = io.BufferedReader(_BoundedReader(self.fp.detach(), sock, bounds))


@functools.cache
def _bounded(pool: type[HTTPConnectionPool]) -> type[HTTPConnectionPool]:
    """Return a pool of connections whose responses are bounded."""
    connection = type("BoundedConnection", (pool.ConnectionCls,), {"response_class": _BoundedResponse})
    return type("BoundedPool", (pool,), {"ConnectionCls": connection})


def _bound_pools(manager: Any) -> Any:
    manager.pool_classes_by_scheme = {name: _bounded(pool) for name, pool in manager.pool_classes_by_scheme.items()}
    return manager


class _BoundedAdapter(HTTPAdapter):
    """Connects directly and through proxies, with bounded responses."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        _bound_pools(self.poolmanager)

    def proxy_manager_for(self, proxy: Any, **options: Any) -> Any:
        if proxy in self.proxy_manager:
            return self.proxy_manager[proxy]
        return _bound_pools(super().proxy_manager_for(proxy, **options))


@dataclass(frozen=True, slots=True)
class Route:
    """How requests reach a host.

    Attributes:
        url: The host, as a normalized URL without a path.
        pool: The connections to the host, or to the proxy in front of it.
        prefix: What the first line of a request names before the path: nothing; to a proxy that sees the request, the
            host.
        headers: The headers of every request.
    """

    url: str
    pool: HTTPConnectionPool
    prefix: str
    headers: Mapping[str, str]

    def get(self, path: str, timeout: Timeout) -> BaseHTTPResponse:
        """Send a GET and return the response as soon as its headers are there, whatever its status is.

        Args:
            path: The path with its query, percent-encoded.
            timeout: How long to wait for a connection, and for the next bytes.

        Raises:
            Exception: One of many kinds: of ``urllib3``, of the standard library, or of :func:`call_bounds`.
        """
        # No retries by the library: each retry has to acquire its weight from the budget first. No redirects: the
        # library would read the whole body of one.
        return self.pool.urlopen(
            "GET",
            self.prefix + path,
            headers=self.headers,
            retries=False,
            redirect=False,
            assert_same_host=False,
            timeout=timeout,
            preload_content=False,
            decode_content=False,
        )


class BoundedClient:
    """Finds the route to a host; what is sent on it obeys :func:`call_bounds`. No cookies are kept or sent.

    The proxies and certificates of the environment are looked up when it is made.

    Args:
        url: The host, without a path.
        connections: How many idle connections to keep.
    """

    def __init__(self, url: str, connections: int) -> None:
        self._url = url
        self._adapter = _BoundedAdapter(pool_connections=1, pool_maxsize=connections)
        self._session = requests.Session()
        # Each of these would be decoded within bounds; the library would also offer others that are installed.
        self._session.headers["Accept-Encoding"] = "gzip, deflate"
        environment: dict[str, Any] = {**self._session.merge_environment_settings(url, {}, True, None, None)}
        self._proxies: dict[str, str] = dict(environment["proxies"])
        self._verify: bool | str = environment["verify"]
        self._session.trust_env = False  # no password from ~/.netrc

    @property
    def proxy(self) -> str | None:
        """The URL of the proxy to the host, with its password; None if there is no proxy."""
        return select_proxy(self._url, self._proxies)

    def route(self) -> Route:
        """Return the route to the host.

        Raises:
            requests.RequestException: The host or the proxy is no valid URL.
            OSError: The certificates that the environment names do not exist.
        """
        request = self._session.prepare_request(requests.Request("GET", f"{self._url}/"))
        pool: Any = self._adapter.get_connection_with_tls_context(request, self._verify, self._proxies)
        self._adapter.cert_verify(pool, request.url, self._verify, None)  # type: ignore[no-untyped-call]
        target, url = self._adapter.request_url(request, self._proxies), str(request.url)
        return Route(url[:-1], pool, target[:-1], MappingProxyType(dict(request.headers)))

    def close(self) -> None:
        """Close the idle connections."""
        self._adapter.close()
