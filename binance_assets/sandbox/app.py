"""The sandbox as a Starlette application."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
from collections.abc import Collection, Mapping
from email.utils import formatdate
from functools import lru_cache
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from binance_assets.model.markets import MARKETS, SANDBOX_HEADER, SPOT, USED_WEIGHT_HEADER, Market
from binance_assets.sandbox.archive import BuiltFile, FileVersions, PublishedArchive, PublishedFile, parse_path
from binance_assets.sandbox.faults import (
    ARCHIVE_RESPONSE_FAULTS,
    CHECKSUM_FAULTS,
    CONNECTION_FAULTS,
    LISTING_FAULTS,
    Fault,
    RequestInfo,
    corrupted_rows,
    corrupted_text,
    parse_faults,
)
from binance_assets.sandbox.listing import ArchiveListing, listed_folder
from binance_assets.sandbox.responses import (
    BadRequestError,
    SandboxResponse,
    archive_error_response,
    build_response,
    error_response,
    file_response,
    find_interval,
    json_response,
    login_page_response,
    not_found_response,
    rejection_response,
    request_weight,
    requested_window,
    status_response,
)
from binance_assets.sandbox.sandbox_exchange import SandboxExchange, SandboxOptions, ServedRequest

CONNECTION_EXTENSION: Final = "binance_assets.sandbox.connection"
"""The ASGI extension that holds the connection's transport, which the connection faults need."""

_ENDPOINTS: Final = ("klines", "exchangeInfo", "time", "ping", "ticker/24hr")
_FAULTS_WITHOUT_RESPONSE: Final = frozenset({"reset", "hang"})
_DELIVERY_SECONDS: Final = 0.05  # the partial body must reach the client before the reset, or the client sees none
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_SANDBOX_HEADER: Final = (SANDBOX_HEADER.encode(), b"1")
_USED_WEIGHT: Final = USED_WEIGHT_HEADER.encode()
_SPOT_USED_WEIGHT: Final = b"x-mbx-used-weight"


def create_app(options: SandboxOptions) -> Starlette:
    """Create the application with the three APIs, the archive and the sandbox's control endpoints.

    Its :class:`SandboxExchange` is ``app.state.exchange``. The connection faults need a server that puts the transport
    into the scope's extensions under :data:`CONNECTION_EXTENSION`, as the sandbox's own server does.

    Raises:
        ValueError: The folder of recordings does not exist, or a file in it cannot be read.
    """
    exchange = SandboxExchange(options)
    apis = [(market, endpoint) for endpoint in _ENDPOINTS for market in MARKETS.values()]
    routes = [
        Route("/data/{file:path}", _ArchiveEndpoint(exchange)),  # tried one after the other, so one for all files first
        *(Route(f"{market.api}/{name}", _MarketEndpoint(exchange, market, name)) for market, name in apis),
        Route("/", _ListingEndpoint(exchange)),
        Route("/sandbox/faults", _FaultsEndpoint(exchange)),
        Route("/sandbox/requests", _RequestsEndpoint(exchange)),
    ]
    app = Starlette(routes=routes)
    app.router.default = _NotFound(exchange)
    # Without Starlette's handlers of errors: these endpoints raise none, and uvicorn sends a 500 as well.
    app.middleware_stack = app.router
    app.state.exchange = exchange
    return app


class _ConnectionDelay:
    """The simulated travel time of requests and responses."""

    def __init__(self, options: SandboxOptions, seed: str) -> None:
        self._half_rtt = options.rtt_ms / 2000
        self._jitter = options.jitter_ms / 1000
        self._random = random.Random(seed)

    async def delay_request(self) -> None:
        if self._half_rtt:
            await asyncio.sleep(self._half_rtt)

    async def delay_response(self) -> None:
        if seconds := self._half_rtt + self._jitter * self._random.random():
            await asyncio.sleep(seconds)


class _MarketEndpoint:
    """One endpoint of one market: a bare ASGI application, fast enough for benchmarks that measure only the client."""

    def __init__(self, exchange: SandboxExchange, market: Market, endpoint: str) -> None:
        self._exchange = exchange
        self._market = market
        self._endpoint = endpoint
        self._path = f"{market.api}/{endpoint}"
        self._delay = _ConnectionDelay(exchange.options, self._path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "GET":
            await _send(send, self._exchange, not_found_response(self._path, self._exchange.now_ms()), [])
            return
        await self._delay.delay_request()
        arrived = self._exchange.now_ms()
        params = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        weight = request_weight(self._market, self._endpoint, params)
        used, rejection = self._exchange.limits.count_request(self._market.rate_limit_group, weight, arrived)
        response, fault = (rejection_response(rejection), None) if rejection else self._respond(params)
        await self._delay.delay_response()
        status = 0 if fault in _FAULTS_WITHOUT_RESPONSE else response.status
        self._exchange.log_request(
            ServedRequest(self._path, params, status, weight, arrived), self._market.rate_limit_group
        )
        headers = self._weight_headers(used)
        if fault is None:
            await _send(send, self._exchange, response, headers)
        else:
            await _fail_connection(fault, scope, receive, send, (self._exchange, response, headers))

    def _weight_headers(self, used: int) -> list[tuple[bytes, bytes]]:
        value = b"%d" % used
        if self._market is SPOT:
            return [(_USED_WEIGHT, value), (_SPOT_USED_WEIGHT, value)]
        return [(_USED_WEIGHT, value)]

    def _respond(self, params: Mapping[str, str]) -> tuple[SandboxResponse, str | None]:
        """Return the response, and the kind of the connection fault that applies to it."""
        try:
            response = build_response(self._exchange, self._market, self._endpoint, params)
        except BadRequestError as error:
            response = error_response(400, error.code, error.message)
        if not self._exchange.faults:
            return response, None
        faults = self._exchange.faults.matching(self._request_info(params))
        for fault in faults:
            response = self._corrupted(response, fault, params)
        kind = faults[-1].kind if faults else None
        return response, kind if kind in CONNECTION_FAULTS else None

    def _request_info(self, params: Mapping[str, str]) -> RequestInfo:
        try:
            start, end = requested_window(params)
        except BadRequestError:
            start, end = None, None
        symbol = params.get("symbol")
        if symbol is not None and self._market is not SPOT:
            symbol = symbol.upper()
        return RequestInfo((self._endpoint,), self._market.name, symbol, start, end, params.get("interval"))

    def _corrupted(self, response: SandboxResponse, fault: Fault, params: Mapping[str, str]) -> SandboxResponse:
        if fault.kind == "status":
            limit = self._exchange.limits.limit(self._market.rate_limit_group)
            return status_response(fault.value, limit, self._path, self._exchange.now_ms(), fault.seconds)
        if fault.kind == "invalid_symbol":
            return error_response(400, -1121, "Invalid symbol.")
        if fault.kind == "few_symbols":
            info = json.loads(response.body)
            return json_response(info | {"symbols": info["symbols"][::10]})
        if not fault.corrupts_rows:
            body = corrupted_text(response.body, fault)
            return SandboxResponse(response.status, body, response.content_type, response.headers)
        rows = json.loads(response.body)
        interval = find_interval(self._market, params.get("interval", ""))
        if response.status != 200 or not isinstance(rows, list) or interval is None:
            return response
        return json_response(corrupted_rows(rows, fault, requested_window(params)[0], interval.step))


class _ArchiveEndpoint:
    """Everything below ``/data/``: the public archive, which counts no weight."""

    def __init__(self, exchange: SandboxExchange) -> None:
        self._exchange = exchange
        self._archive = PublishedArchive(exchange)
        self._versions = FileVersions(exchange.faults)
        self._delay = _ConnectionDelay(exchange.options, "archive")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._delay.delay_request()
        arrived, path = self._exchange.now_ms(), scope["path"]
        parsed = parse_path(path) if scope["method"] in ("GET", "HEAD") else None
        if parsed is None:
            response, fault = archive_error_response(404, path), None
        else:
            response, fault = await self._respond(*parsed, path, arrived, scope["method"] == "GET")
        await self._delay.delay_response()
        status = 0 if fault in _FAULTS_WITHOUT_RESPONSE else response.status
        self._exchange.log_request(ServedRequest(path, {}, status, 0, arrived), None)
        if fault is None:
            await _send(send, self._exchange, response, [])
        else:
            await _fail_connection(fault, scope, receive, send, (self._exchange, response, []))

    async def _respond(
        self, file: PublishedFile, checksum: bool, path: str, now: int, with_body: bool
    ) -> tuple[SandboxResponse, str | None]:
        """Return the response, and the kind of the connection fault that applies to it.

        Args:
            file: The file.
            checksum: Whether the request is for its ``.CHECKSUM``.
            path: The request's path.
            now: Time of arrival, ms UTC.
            with_body: Whether the request is for the body as well, and not only for the headers.
        """
        fault = self._first_match(file, ("archive", "archive/checksum" if checksum else f"archive/{file.frequency}"))
        kind = fault.kind if fault else None
        if fault and kind == "status":
            return archive_error_response(fault.value, path), None
        if kind == "not_a_zip":
            return login_page_response(), None
        if kind in _FAULTS_WITHOUT_RESPONSE or not self._archive.exists(file, now):
            return archive_error_response(404, path), kind
        delivered = with_body and kind is None
        built = await self._built_file(file, "checksum" if checksum else "zip", now, delivered)
        if not checksum:
            return file_response(built, built.body, b"application/zip"), kind
        paths = ("archive", "archive/checksum", f"archive/{file.frequency}")
        wrong = delivered and self._first_match(file, paths, CHECKSUM_FAULTS) is not None
        return file_response(built, built.checksum(wrong), b"binary/octet-stream"), kind

    def _first_match(
        self, file: PublishedFile, paths: tuple[str, ...], kinds: Collection[str] = ARCHIVE_RESPONSE_FAULTS
    ) -> Fault | None:
        if not self._exchange.faults:
            return None
        return next(iter(self._exchange.faults.matching(file.request_info(*paths), kinds)), None)

    async def _built_file(self, file: PublishedFile, part: str, now: int, delivered: bool) -> BuiltFile:
        faults = self._versions.faults_for(file, part, delivered)
        built = self._archive.cached(file, faults, now)
        if built is None:  # building may take long, so it must not block the responses to other requests
            built = await asyncio.to_thread(self._archive.build, file, faults, now)
        return built


class _ListingEndpoint:
    """The root of the archive's host: the listing of the archive, as S3 serves it. It counts no weight."""

    def __init__(self, exchange: SandboxExchange) -> None:
        self._exchange = exchange
        self._listing = ArchiveListing(exchange)
        self._delay = _ConnectionDelay(exchange.options, "listing")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        params = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        if scope["method"] != "GET" or "prefix" not in params:
            await _send(send, self._exchange, not_found_response("/", self._exchange.now_ms()), [])
            return
        await self._delay.delay_request()
        arrived = self._exchange.now_ms()
        fault = self._fault(params["prefix"])
        kind = fault.kind if fault else None
        if fault is not None and kind == "status":
            response = archive_error_response(fault.value, "/")
        elif kind == "not_a_zip":
            response = login_page_response()
        else:
            page = await asyncio.to_thread(self._listing.page, params, arrived)
            response = SandboxResponse(200, page.xml(kind), b"application/xml")
        await self._delay.delay_response()
        status = 0 if kind in _FAULTS_WITHOUT_RESPONSE else response.status
        self._exchange.log_request(ServedRequest("/", params, status, 0, arrived), None)
        if kind in CONNECTION_FAULTS:
            await _fail_connection(str(kind), scope, receive, send, (self._exchange, response, []))
        else:
            await _send(send, self._exchange, response, [])

    def _fault(self, prefix: str) -> Fault | None:
        if not self._exchange.faults:
            return None
        market, symbol = listed_folder(prefix)
        info = RequestInfo(("archive", "archive/listing"), market, symbol, None, None)
        return next(iter(self._exchange.faults.matching(info, ARCHIVE_RESPONSE_FAULTS | LISTING_FAULTS)), None)


class _FaultsEndpoint:
    """Replaces the active faults by those of the posted JSON list."""

    def __init__(self, exchange: SandboxExchange) -> None:
        self._exchange = exchange

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await Request(scope, receive).body()
        try:
            faults = parse_faults(body)
        except (ValueError, TypeError) as error:
            await _send(send, self._exchange, json_response({"error": str(error)}, 400), [])
            return
        self._exchange.faults.replace(faults)
        await _send(send, self._exchange, json_response({"faults": len(faults)}), [])


class _RequestsEndpoint:
    """Reports how many requests the sandbox has served."""

    def __init__(self, exchange: SandboxExchange) -> None:
        self._exchange = exchange

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _send(send, self._exchange, json_response(self._exchange.request_summary()), [])


class _NotFound:
    """Any other path."""

    def __init__(self, exchange: SandboxExchange) -> None:
        self._exchange = exchange

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            response = not_found_response(scope["path"], self._exchange.now_ms())
            await _send(send, self._exchange, response, [])


def _response_start(
    exchange: SandboxExchange, response: SandboxResponse, headers: list[tuple[bytes, bytes]]
) -> dict[str, Any]:
    common = [
        (b"Content-Type", response.content_type),
        (b"Content-Length", b"%d" % len(response.body)),
        (b"Date", _date(exchange.now_ms() // 1000)),
        _SANDBOX_HEADER,
    ]
    return {"type": "http.response.start", "status": response.status, "headers": common + headers + response.headers}


@lru_cache(8)
def _date(seconds: int) -> bytes:
    return formatdate(seconds, usegmt=True).encode()


async def _send(
    send: Send, exchange: SandboxExchange, response: SandboxResponse, headers: list[tuple[bytes, bytes]]
) -> None:
    await send(_response_start(exchange, response, headers))
    await send({"type": "http.response.body", "body": response.body})


_PendingResponse: TypeAlias = tuple[SandboxExchange, SandboxResponse, list[tuple[bytes, bytes]]]


async def _fail_connection(kind: str, scope: Scope, receive: Receive, send: Send, pending: _PendingResponse) -> None:
    """Break the connection as the connection fault ``kind`` demands."""
    transport: asyncio.Transport = scope["extensions"][CONNECTION_EXTENSION]
    if kind in ("truncated_body", "reset_amid_body"):
        body = pending[1].body
        await send(_response_start(*pending))
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
    if kind == "truncated_body":
        transport.close()
    elif kind != "hang":
        await asyncio.sleep(_DELIVERY_SECONDS if kind == "reset_amid_body" else 0)
        _reset(transport)
    while (await receive())["type"] != "http.disconnect":
        pass


def _reset(transport: asyncio.Transport) -> None:
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()
