"""Serving the sandbox: for the command line, and in the background for tests. Only ever on this machine."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from binance_assets.model.intervals import parse_interval
from binance_assets.model.markets import MARKETS, parse_market
from binance_assets.sandbox.app import CONNECTION, create_app
from binance_assets.sandbox.faults import Faults
from binance_assets.sandbox.venue import SandboxOptions, Served, Venue

_HOST: Final = "127.0.0.1"
_BACKLOG: Final = 2048
_IDLE_SECONDS: Final = 75
_GRACE_SECONDS: Final = 1
_STARTUP_SECONDS: Final = 30


class Sandbox:
    """A sandbox that is being served.

    Attributes:
        url: Its address; the three APIs and the archive are there under their own paths.
    """

    def __init__(self, url: str, venue: Venue) -> None:
        """A handle on what is served at ``url``."""
        self.url = url
        self._venue = venue

    @property
    def faults(self) -> Faults:
        """The faults in force."""
        return self._venue.faults

    @property
    def requests(self) -> list[Served]:
        """The requests served so far, oldest first; it may be read and cleared while requests arrive."""
        return self._venue.requests

    def now_ms(self) -> int:
        """The sandbox's clock, ms UTC."""
        return self._venue.now_ms()

    def rows(self, market: str, symbol: str, interval: str, start_ms: int, end_ms: int) -> list[list[Any]]:
        """The truth: every row that opens in ``[start_ms, end_ms)`` (ms UTC), as klines has it without a fault.

        Raises:
            ValueError: There is no such market, symbol or interval.
        """
        where = parse_market(market)
        if not self._venue.lists(where, symbol):
            raise ValueError(f"the sandbox has no symbol {symbol} on {where.title}")
        rows: list[list[Any]] = json.loads(
            self._venue.every_row(where, symbol, parse_interval(interval), start_ms, end_ms)
        )
        return rows


def serve(options: SandboxOptions, port: int) -> None:
    """Serve on ``port`` of the loopback address until SIGINT or SIGTERM.

    Raises:
        ValueError: The folder of recordings does not exist or a file in it cannot be read.
        OSError: The port is taken.
    """
    app = create_app(options)
    listener = _listener(port)
    url = _url(listener)
    hosts = " ".join(f"BINANCE_{name.upper()}_URL={url}" for name in (*MARKETS, "archive"))
    print(f"The sandbox is at {url}; for the client to use it: {hosts}", flush=True)
    _Server(app).run(sockets=[listener])


@contextmanager
def running_sandbox(options: SandboxOptions | None = None) -> Iterator[Sandbox]:
    """A sandbox that a thread of this process serves, on a port that the system chooses.

    Raises:
        ValueError: The folder of recordings does not exist or a file in it cannot be read.
        RuntimeError: The server did not start.
    """
    app = create_app(options or SandboxOptions())
    listener = _listener(0)
    server = _Server(app)
    thread = threading.Thread(target=server.run, args=([listener],), name="sandbox", daemon=True)
    thread.start()
    if not server.ready.wait(_STARTUP_SECONDS):
        raise RuntimeError("the sandbox did not start")
    try:
        yield Sandbox(_url(listener), app.state.venue)
    finally:
        server.should_exit = True
        thread.join()


def _listener(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((_HOST, port))
    except OSError:
        listener.close()
        raise
    return listener


def _url(listener: socket.socket) -> str:
    return f"http://{_HOST}:{listener.getsockname()[1]}"


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol, which lets the application get at the connection."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        cast(dict[str, Any], self.scope)["extensions"] = {CONNECTION: self.transport}


class _Server(uvicorn.Server):
    def __init__(self, app: Starlette) -> None:
        config = uvicorn.Config(
            app, http=_Protocol, ws="none", lifespan="off", log_config=None, log_level="critical", access_log=False,
            date_header=False, server_header=False, proxy_headers=False, backlog=_BACKLOG,
            timeout_keep_alive=_IDLE_SECONDS, timeout_graceful_shutdown=_GRACE_SECONDS,
        )  # fmt: skip
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Requests under way may hang for good: that is one of the faults.
        await asyncio.sleep(0)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End on a signal without raising it again afterwards, which would look like a crash."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {each: signal.signal(each, self.handle_exit) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)
