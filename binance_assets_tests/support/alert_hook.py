"""A hook on the loopback interface that receives alerts, as that of Slack does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from pydantic import SecretStr

SECRET = "T000-secret-B000"


class Hook:
    """A running hook.

    Attributes:
        url: Its address, with the secret.
        status: What it responds.
        received: The JSON objects of the requests that it accepted.
        refused: How many other requests came.
    """

    def __init__(self, port: int) -> None:
        self.url = SecretStr(f"http://127.0.0.1:{port}/services/{SECRET}?token={SECRET}")
        self.status = 200
        self.received: list[dict[str, Any]] = []
        self.refused = 0


@contextmanager
def serving_hook() -> Iterator[Hook]:
    """Run a hook for the length of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            expected = (f"/services/{SECRET}?token={SECRET}", "application/json")
            if served.status == 200 and (self.path, self.headers["Content-Type"]) == expected:
                served.received.append(json.loads(body))
            else:
                served.refused += 1
            self.send_response(served.status)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:  # a redirect would lead here
            served.refused += 1_000

        def log_message(self, format: str, *args: object) -> None:
            """Write nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Hook(server.server_port)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
