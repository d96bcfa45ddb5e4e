"""A proxy in front of an S3 server that counts requests, acts before one of them, holds one, or loses an answer.

It passes bytes on as they are, so the signatures of requests stay valid.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

_REQUEST: Final = re.compile(rb"^(GET|HEAD|PUT|POST|DELETE) (\S+) HTTP/1\.1\r\n", re.MULTILINE)
_SECONDS: Final = 120


@dataclass
class S3Proxy:
    """The proxy; patterns are searched in ``METHOD /path``, and each works once.

    Attributes:
        target: The port of the server.
        requests: The requests so far.
        before: A pattern, and what is done before the request is passed on.
        hold: A pattern; of the request, this many bytes of its first part are passed on, and then nothing.
        lose: A pattern; the request is passed on, and its answer is not.
        dead: Whether connections are closed at once.
        held: Set once a request is held.
    """

    target: int
    port: int = 0
    requests: list[str] = field(default_factory=list)
    before: tuple[str, Callable[[], object]] | None = None
    hold: tuple[str, int] | None = None
    lose: str | None = None
    dead: bool = False
    held: threading.Event = field(default_factory=threading.Event)

    @property
    def endpoint(self) -> str:
        """The URL of the proxy."""
        return f"http://127.0.0.1:{self.port}"

    def taken(self) -> list[str]:
        """Return the requests so far, and forget them."""
        taken, self.requests = self.requests, []
        return taken

    def serve(self, listener: socket.socket) -> None:
        """Accept connections until the listener is closed."""
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            if self.dead:
                client.close()
                continue
            client.settimeout(_SECONDS)
            server = socket.create_connection(("127.0.0.1", self.target), _SECONDS)
            lost = threading.Event()
            # Either thread may close both connections before the other one starts.
            for work, source, sink in ((self._pass_on, client, server), (self._answer, server, client)):
                threading.Thread(target=work, args=(source, sink, lost), daemon=True).start()

    def _pass_on(self, client: socket.socket, server: socket.socket, lost: threading.Event) -> None:
        with suppress(OSError), _ending(client, server):
            while chunk := client.recv(1 << 20):
                for method, path in _REQUEST.findall(chunk):
                    if self.dead:
                        return
                    request = f"{method.decode()} {path.decode()}"
                    self.requests.append(request)
                    if self.before and re.search(self.before[0], request):
                        act, self.before = self.before[1], None
                        act()
                        if self.dead:
                            return
                    if self.hold and re.search(self.hold[0], request):
                        kept, self.hold = self.hold[1], None
                        server.sendall(chunk[: min(kept, len(chunk) - 1)])
                        self.held.set()
                        while client.recv(1 << 20):  # until the client goes away
                            pass
                        return
                    if self.lose and re.search(self.lose, request):
                        self.lose = None
                        lost.set()
                server.sendall(chunk)

    def _answer(self, server: socket.socket, client: socket.socket, lost: threading.Event) -> None:
        with suppress(OSError), _ending(server, client):
            while chunk := server.recv(1 << 20):
                if lost.is_set() or self.dead:
                    return
                client.sendall(chunk)


@contextmanager
def _ending(*sockets: socket.socket) -> Iterator[None]:
    """End connections at last, also for a thread that waits for one of them."""
    try:
        yield
    finally:
        for each in sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@contextmanager
def s3_proxy(target: int) -> Iterator[S3Proxy]:
    """Yield a proxy in front of the server on the port ``target`` of this machine."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        proxy = S3Proxy(target, listener.getsockname()[1])
        thread = threading.Thread(target=proxy.serve, args=(listener,), daemon=True)
        thread.start()
        yield proxy
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(_SECONDS)
