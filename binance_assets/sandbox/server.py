"""Serving the sandbox, always on the loopback address: for the command line, and in a background thread for tests."""

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
from binance_assets.sandbox.app import CONNECTION_EXTENSION, create_app
from binance_assets.sandbox.faults import Faults
from binance_assets.sandbox.sandbox_exchange import SandboxExchange, SandboxOptions, ServedRequest

_HOST: Final = "127.0.0.1"
_LISTEN_BACKLOG: Final = 2048
_KEEP_ALIVE_SECONDS: Final = 75
_SHUTDOWN_SECONDS: Final = 1
_STARTUP_SECONDS: Final = 30


class Sandbox:
    """A running sandbox.

    Attributes:
        url: Its address; it serves the three APIs and the archive under their own paths.
    """

    def __init__(self, url: str, exchange: SandboxExchange) -> None:
        """Take the address and the state of the running sandbox."""
        self.url = url
        self._exchange = exchange

    @property
    def faults(self) -> Faults:
        """The active faults."""
        return self._exchange.faults

    @property
    def requests(self) -> list[ServedRequest]:
        """The request log, oldest first; it may be read and cleared while requests arrive."""
        return self._exchange.requests

    def now_ms(self) -> int:
        """Return the time by the sandbox's clock, ms UTC."""
        return self._exchange.now_ms()

    def rows(self, market: str, symbol: str, interval: str, start_ms: int, end_ms: int) -> list[list[Any]]:
        """Return the expected rows: all that open in ``[start_ms, end_ms)`` (ms UTC), as klines sends them unfaulted.

        Raises:
            ValueError: The market, symbol or interval does not exist.
        """
        rows: list[list[Any]] = json.loads(self.body(market, symbol, interval, start_ms, end_ms))
        return rows

    def body(self, market: str, symbol: str, interval: str, start_ms: int, end_ms: int) -> bytes:
        """Return the same as :meth:`rows`, as the body of one response.

        Raises:
            ValueError: The market, symbol or interval does not exist.
        """
        parsed_market = parse_market(market)
        if not self._exchange.has_symbol(parsed_market, symbol):
            raise ValueError(f"the sandbox has no symbol {symbol} on {parsed_market.title}")
        return self._exchange.all_rows(parsed_market, symbol, parse_interval(interval), start_ms, end_ms)


def serve(options: SandboxOptions, port: int) -> None:
    """Serve on ``port`` of the loopback address until SIGINT or SIGTERM.

    Raises:
        ValueError: The folder of recordings does not exist, or a file in it cannot be read.
        OSError: The port is already in use.
    """
    app = create_app(options)
    listener = _listener(port)
    url = _url(listener)
    variables = " ".join(f"BINANCE_{name.upper()}_URL={url}" for name in (*MARKETS, "archive"))
    print(f"The sandbox is at {url}; to point the client to it, run: export {variables}", flush=True)
    _Server(app).run(sockets=[listener])


@contextmanager
def running_sandbox(options: SandboxOptions | None = None) -> Iterator[Sandbox]:
    """Serve a sandbox in a thread of this process, on a port that the system chooses.

    Raises:
        ValueError: The folder of recordings does not exist, or a file in it cannot be read.
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
        yield Sandbox(_url(listener), app.state.exchange)
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
    """uvicorn's protocol, extended to give the application access to the connection."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        cast(dict[str, Any], self.scope)["extensions"] = {CONNECTION_EXTENSION: self.transport}


class _Server(uvicorn.Server):
    def __init__(self, app: Starlette) -> None:
        config = uvicorn.Config(
            app, http=_Protocol, ws="none", lifespan="off", log_config=None, log_level="critical", access_log=False,
            date_header=False, server_header=False, proxy_headers=False, backlog=_LISTEN_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS, timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        )  # fmt: skip
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Requests in flight may never finish: that is one of the faults.
        await asyncio.sleep(0)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on a signal without raising it again afterwards, which would look like a crash."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
