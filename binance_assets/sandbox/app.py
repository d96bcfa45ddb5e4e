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
from binance_assets.sandbox.answers import (
    Answer,
    BadRequestError,
    answer_to,
    archive_error,
    error_answer,
    file_answer,
    interval_of,
    json_answer,
    not_found,
    portal_answer,
    refusal_answer,
    status_answer,
    weight_of,
    window_of,
)
from binance_assets.sandbox.archive import Archive, ArchiveFile, Looks, Stored, parse_path
from binance_assets.sandbox.faults import (
    ARCHIVE_ANSWER_FAULTS,
    CHECKSUM_FAULTS,
    CONNECTION_FAULTS,
    Call,
    Fault,
    parse_faults,
    spoiled_rows,
    spoiled_text,
)
from binance_assets.sandbox.venue import SandboxOptions, Served, Venue

CONNECTION: Final = "binance_assets.sandbox.connection"
"""The ASGI extension with the connection's transport, which the faults of connections need."""

_ENDPOINTS: Final = ("klines", "exchangeInfo", "time", "ping")
_NO_ANSWER: Final = frozenset({"reset", "hang"})
_SENT_BEFORE_RESET: Final = 0.05  # s; what was written must have reached the client, or it sees nothing of it
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_SANDBOX_HEADER: Final = (SANDBOX_HEADER.encode(), b"1")
_USED_WEIGHT: Final = USED_WEIGHT_HEADER.encode()
_SPOT_USED_WEIGHT: Final = b"x-mbx-used-weight"


def create_app(options: SandboxOptions) -> Starlette:
    """The three APIs, the archive and the sandbox's own endpoints.

    Its :class:`Venue` is ``app.state.venue``. The faults of connections need a server that puts the transport into
    the scope's extensions under :data:`CONNECTION`, as the sandbox's own does.

    Raises:
        ValueError: The folder of recordings does not exist or a file in it cannot be read.
    """
    venue = Venue(options)
    apis = [(market, endpoint) for endpoint in _ENDPOINTS for market in MARKETS.values()]
    routes = [Route(f"{market.api}/{endpoint}", _Endpoint(venue, market, endpoint)) for market, endpoint in apis]
    own = [Route("/sandbox/faults", _FaultsEndpoint(venue)), Route("/sandbox/requests", _RequestsEndpoint(venue))]
    app = Starlette(routes=[*routes, Route("/data/{file:path}", _ArchiveEndpoint(venue)), *own])
    app.router.default = _NotFound(venue)
    app.state.venue = venue
    return app


class _Way:
    """The time that requests and answers are under way."""

    def __init__(self, options: SandboxOptions, seed: str) -> None:
        self._half_rtt = options.rtt_ms / 2000
        self._jitter = options.jitter_ms / 1000
        self._random = random.Random(seed)

    async def there(self) -> None:
        if self._half_rtt:
            await asyncio.sleep(self._half_rtt)

    async def back(self) -> None:
        if wait := self._half_rtt + self._jitter * self._random.random():
            await asyncio.sleep(wait)


class _Endpoint:
    """One endpoint of one market, as a bare ASGI application: benchmarks of clients must not measure the sandbox."""

    def __init__(self, venue: Venue, market: Market, endpoint: str) -> None:
        self._venue = venue
        self._market = market
        self._endpoint = endpoint
        self._path = f"{market.api}/{endpoint}"
        self._way = _Way(venue.options, self._path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "GET":
            await _send(send, self._venue, not_found(self._path, self._venue.now_ms()), [])
            return
        await self._way.there()
        arrived = self._venue.now_ms()
        params = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        weight = weight_of(self._market, self._endpoint, params)
        used, refusal = self._venue.limits.charge(self._market.rate_limit_group, weight, arrived)
        answer, fault = (refusal_answer(refusal), None) if refusal else self._answer(params)
        await self._way.back()
        status = 0 if fault in _NO_ANSWER else answer.status
        self._venue.note(Served(self._path, params, status, weight, arrived), self._market.rate_limit_group)
        headers = self._weight_headers(used)
        if fault is None:
            await _send(send, self._venue, answer, headers)
        else:
            await _misbehave(fault, scope, receive, send, (self._venue, answer, headers))

    def _weight_headers(self, used: int) -> list[tuple[bytes, bytes]]:
        value = b"%d" % used
        if self._market is SPOT:
            return [(_USED_WEIGHT, value), (_SPOT_USED_WEIGHT, value)]
        return [(_USED_WEIGHT, value)]

    def _answer(self, params: Mapping[str, str]) -> tuple[Answer, str | None]:
        """The answer, and the fault of the connection that it is to meet."""
        try:
            answer = answer_to(self._venue, self._market, self._endpoint, params)
        except BadRequestError as error:
            answer = error_answer(400, error.code, error.message)
        if not self._venue.faults:
            return answer, None
        faults = self._venue.faults.befalling(self._call(params))
        for fault in faults:
            answer = self._spoiled(answer, fault, params)
        kind = faults[-1].kind if faults else None
        return answer, kind if kind in CONNECTION_FAULTS else None

    def _call(self, params: Mapping[str, str]) -> Call:
        try:
            start, end = window_of(params)
        except BadRequestError:
            start, end = None, None
        symbol = params.get("symbol")
        if symbol is not None and self._market is not SPOT:
            symbol = symbol.upper()
        return Call((self._endpoint,), self._market.name, symbol, start, end, params.get("interval"))

    def _spoiled(self, answer: Answer, fault: Fault, params: Mapping[str, str]) -> Answer:
        if fault.kind == "status":
            limit = self._venue.limits.limit(self._market.rate_limit_group)
            return status_answer(fault.value, limit, self._path, self._venue.now_ms(), fault.seconds)
        if fault.kind == "invalid_symbol":
            return error_answer(400, -1121, "Invalid symbol.")
        if not fault.spoils_rows:
            return Answer(answer.status, spoiled_text(answer.body, fault), answer.content_type, answer.headers)
        rows = json.loads(answer.body)
        interval = interval_of(self._market, params.get("interval", ""))
        if answer.status != 200 or not isinstance(rows, list) or interval is None:
            return answer
        return json_answer(spoiled_rows(rows, fault, window_of(params)[0], interval.step))


class _ArchiveEndpoint:
    """Everything below ``/data/``: the public archive, which counts no weight."""

    def __init__(self, venue: Venue) -> None:
        self._venue = venue
        self._archive = Archive(venue)
        self._looks = Looks(venue.faults)
        self._way = _Way(venue.options, "archive")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._way.there()
        arrived, path = self._venue.now_ms(), scope["path"]
        parsed = parse_path(path) if scope["method"] in ("GET", "HEAD") else None
        if parsed is None:
            answer, fault = archive_error(404, path), None
        else:
            answer, fault = await self._answer(*parsed, path, arrived, scope["method"] == "GET")
        await self._way.back()
        self._venue.note(Served(path, {}, 0 if fault in _NO_ANSWER else answer.status, 0, arrived), None)
        if fault is None:
            await _send(send, self._venue, answer, [])
        else:
            await _misbehave(fault, scope, receive, send, (self._venue, answer, []))

    async def _answer(
        self, file: ArchiveFile, checksum: bool, path: str, now: int, whole: bool
    ) -> tuple[Answer, str | None]:
        """The answer, and the fault of the connection that it is to meet; ``whole`` unless only headers are asked."""
        met = self._met(file, ("archive", "archive/checksum" if checksum else f"archive/{file.partition}"))
        kind = met.kind if met else None
        if met and kind == "status":
            return archive_error(met.value, path), None
        if kind == "not_a_zip":
            return portal_answer(), None
        if kind in _NO_ANSWER or not self._archive.exists(file, now):
            return archive_error(404, path), kind
        stored = await self._stored(file, "checksum" if checksum else "zip", now, whole and kind is None)
        if not checksum:
            return file_answer(stored, stored.body, b"application/zip"), kind
        paths = ("archive", "archive/checksum", f"archive/{file.partition}")
        wrong = whole and kind is None and self._met(file, paths, CHECKSUM_FAULTS) is not None
        return file_answer(stored, stored.checksum(wrong), b"binary/octet-stream"), kind

    def _met(
        self, file: ArchiveFile, paths: tuple[str, ...], kinds: Collection[str] = ARCHIVE_ANSWER_FAULTS
    ) -> Fault | None:
        if not self._venue.faults:
            return None
        return next(iter(self._venue.faults.befalling(file.call(*paths), kinds)), None)

    async def _stored(self, file: ArchiveFile, part: str, now: int, delivered: bool) -> Stored:
        faults = self._looks.meet(file, part, delivered)
        stored = self._archive.kept(file, faults, now)
        if stored is None:  # to make it may take long, and others wait for their answers meanwhile
            stored = await asyncio.to_thread(self._archive.make, file, faults, now)
        return stored


class _FaultsEndpoint:
    """Replaces the faults in force by those of the posted JSON list."""

    def __init__(self, venue: Venue) -> None:
        self._venue = venue

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await Request(scope, receive).body()
        try:
            faults = parse_faults(body)
        except (ValueError, TypeError) as error:
            await _send(send, self._venue, json_answer({"error": str(error)}, 400), [])
            return
        self._venue.faults.replace(faults)
        await _send(send, self._venue, json_answer({"faults": len(faults)}), [])


class _RequestsEndpoint:
    """Says how many requests there were."""

    def __init__(self, venue: Venue) -> None:
        self._venue = venue

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _send(send, self._venue, json_answer(self._venue.summary()), [])


class _NotFound:
    """Any other path."""

    def __init__(self, venue: Venue) -> None:
        self._venue = venue

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _send(send, self._venue, not_found(scope["path"], self._venue.now_ms()), [])


def _start(venue: Venue, answer: Answer, headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    common = [
        (b"Content-Type", answer.content_type),
        (b"Content-Length", b"%d" % len(answer.body)),
        (b"Date", _date(venue.now_ms() // 1000)),
        _SANDBOX_HEADER,
    ]
    return {"type": "http.response.start", "status": answer.status, "headers": common + headers + answer.headers}


@lru_cache(8)
def _date(seconds: int) -> bytes:
    return formatdate(seconds, usegmt=True).encode()


async def _send(send: Send, venue: Venue, answer: Answer, headers: list[tuple[bytes, bytes]]) -> None:
    await send(_start(venue, answer, headers))
    await send({"type": "http.response.body", "body": answer.body})


_Reply: TypeAlias = tuple[Venue, Answer, list[tuple[bytes, bytes]]]


async def _misbehave(kind: str, scope: Scope, receive: Receive, send: Send, reply: _Reply) -> None:
    """Let the connection fail."""
    transport: asyncio.Transport = scope["extensions"][CONNECTION]
    if kind in ("truncated_body", "reset_amid_body"):
        body = reply[1].body
        await send(_start(*reply))
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
    if kind == "truncated_body":
        transport.close()
    elif kind != "hang":
        await asyncio.sleep(_SENT_BEFORE_RESET if kind == "reset_amid_body" else 0)
        _reset(transport)
    while (await receive())["type"] != "http.disconnect":
        pass


def _reset(transport: asyncio.Transport) -> None:
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()
