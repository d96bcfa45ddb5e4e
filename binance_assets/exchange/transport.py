"""The bounds of one HTTP call, in bytes and in time, enforced where its bytes come from the socket.

The timeout of a socket bounds the wait for the next bytes only. A server that sends one byte per second, in the headers
or in the body, stays below every such timeout, and one that sends fast fills the memory. So the reader between socket
and HTTP parser counts the bytes and watches the deadline of the call.
"""

from __future__ import annotations

import functools
import http.client
import io
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
from requests.adapters import HTTPAdapter
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


class BoundedSession(requests.Session):
    """A session whose calls obey :func:`call_bounds`. It keeps no cookies and does not look at redirects.

    Args:
        connections: How many idle connections to keep.
    """

    def __init__(self, connections: int) -> None:
        super().__init__()
        # Each of these would be decoded within bounds; the library would also offer others that are installed.
        self.headers["Accept-Encoding"] = "gzip, deflate"
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        # No retries by the library: each retry has to acquire its weight from the budget first.
        adapter = _BoundedAdapter(pool_connections=1, pool_maxsize=connections, max_retries=0)
        self.mount("http://", adapter)
        self.mount("https://", adapter)

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return None: the library would read the whole body of a redirect, even if it must not follow it."""
