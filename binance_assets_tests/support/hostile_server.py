"""A server on the loopback interface that sends scripted bytes, such as odd headers, chunk sizes, and slow drips."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from urllib.parse import urlsplit

Pieces = bytes | Iterable[bytes]
"""The bytes of a response, whole or piece by piece. A generator may wait between two pieces."""

Script = Callable[[str], Pieces]
"""Returns the whole response, status line included, to the request for a path with its query."""


def answer(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """Return a well-formed response with ``body`` and additional header lines."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


def drip(start: bytes, pieces: bytes, seconds: float, wait: Callable[[float], bool]) -> Iterator[bytes]:
    """Yield ``start`` at once, then ``pieces`` byte by byte, again and again, with ``seconds`` between two bytes."""
    yield start
    while True:
        for number in range(len(pieces)):
            if wait(seconds):
                return
            yield pieces[number : number + 1]


class HostileServer:
    """A running server.

    With ``tls``, it speaks TLS: at once, or after a ``CONNECT``, as if it were a proxy and the host behind it in one.

    Attributes:
        url: Its address.
        script: What it responds; a test may replace it at any time. None closes the connection without a response.
        paths: The requested paths with their queries, in order.
        heads: The whole heads of the requests, in order.
        connections: How many connections were accepted.
        sent: How many bytes were sent.
    """

    def __init__(self, script: Script | None, tls: ssl.SSLContext | None = None) -> None:
        self.script = script
        self._tls = tls
        self.paths: list[str] = []
        self.heads: list[bytes] = []
        self.connections = 0
        self.sent = 0
        self._stopped = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._open: set[socket.socket] = set()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Wait between two pieces; return whether the server was stopped."""
        return self._stopped.wait(seconds)

    def counts(self, end: str) -> int:
        """Return how many requests were for a path that ends with ``end``."""
        return sum(urlsplit(path).path.endswith(end) for path in self.paths)

    def _accept(self) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(OSError):
                connection, _ = self._listener.accept()
                self.connections += 1
                self._open.add(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), self._secured(connection) as connection, connection.makefile("rb") as reader:
            while head := b"".join(takewhile(lambda line: line not in (b"", b"\r\n"), reader)):
                path = head.split(b" ", 2)[1].decode("latin-1")
                self.heads.append(head)
                self.paths.append(path)
                pieces = self.script(path) if self.script is not None else None
                if pieces is None:
                    break
                for piece in [pieces] if isinstance(pieces, bytes) else pieces:
                    connection.sendall(piece)
                    self.sent += len(piece)
                if not isinstance(pieces, bytes) or b"Content-Length" not in pieces:
                    break  # a response without an end of its own ends with the connection
        self._open.discard(connection)

    def _secured(self, connection: socket.socket) -> socket.socket:
        if self._tls is None:
            return connection
        if connection.recv(7, socket.MSG_PEEK) == b"CONNECT":
            head = b""
            while not head.endswith(b"\r\n\r\n") and (byte := connection.recv(1)):
                head += byte
            self.heads.append(head)
            self.paths.append(head.split(b" ", 2)[1].decode("latin-1"))
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        return self._tls.wrap_socket(connection, server_side=True)

    def stop(self) -> None:
        """End every connection."""
        self._stopped.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def hostile_server(script: Script | None = None, tls: ssl.SSLContext | None = None) -> Iterator[HostileServer]:
    """Run a server for the length of the block."""
    server = HostileServer(script, tls)
    try:
        yield server
    finally:
        server.stop()


def market_script(
    page: Script, time_ms: Callable[[], int] = lambda: int(time.time() * 1_000), limit: object = 6_000
) -> Script:
    """Return a script that responds like the spot API to ``/time`` and ``/exchangeInfo``, and by ``page`` elsewhere.

    Args:
        page: Responds to all other paths.
        time_ms: Returns the server's time, ms UTC.
        limit: The weight limit, as JSON.
    """

    def script(path: str) -> Pieces:
        if "/time" in path:
            return answer(b'{"serverTime": %d}' % time_ms())
        if "/exchangeInfo" in path:
            kind = '"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1'
            return answer(f'{{"symbols": [], "rateLimits": [{{{kind}, "limit": {limit}}}]}}'.encode())
        return page(path)

    return script
