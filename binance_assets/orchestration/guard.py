"""The guard in front of Dagster's web server: it refuses what a page of another site sends through a browser.

The web server asks for no password. It listens on the loopback interface, but every page in a browser on the same
machine can send requests there. Dagster executes a GraphQL query, a launch of a run included, from a POST of any
content type and from a GET; a browser sends both for a page of any site, without asking first. A page whose name is
rebound to 127.0.0.1 may even read the responses. The guard closes these ways:

- The Host header must be a loopback name with the server's port, or a host that the user allowed.
- The Origin header, which a browser sends with every POST and every WebSocket of a page, must name such a host as well.
- A request that may change something must be ``application/json``, which a browser sends for another site only after
  that site's server, here the guard, has agreed.
- A GET of ``/graphql`` gets the page for people, and executes nothing.
- No other site may show the pages in a frame, where it could steer clicks.

Here belongs what is refused. What does not belong here: how the web server starts (``user_interface``).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from binance_assets.model.outside import printable

_LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")
_HTTP_PORT: Final = 80
_READING: Final = ("GET", "HEAD")
_FORBIDDEN: Final = 403
_DENIAL: Final = "websocket.http.response"  # the ASGI extension with which a WebSocket is refused by a response


class Guard:
    """An ASGI application that passes on what :func:`refusal` does not refuse.

    Args:
        app: The application to guard.
        allowed_hosts: Hosts beside the loopback names, such as ``dagster.example.com`` or ``dagster.example.com:8443``.
    """

    def __init__(self, app: ASGIApp, allowed_hosts: Collection[str] = ()) -> None:
        self._app = app
        self._allowed_hosts = frozenset(allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a connection: refuse it with 403 and one line, or pass it on."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        reason = refusal(scope, self._allowed_hosts)
        if reason is None:
            await self._app(scope, receive, _unframed(send))
        elif scope["type"] == "http" or _DENIAL in (scope.get("extensions") or {}):
            await PlainTextResponse(f"{reason}\n", _FORBIDDEN)(scope, receive, send)
        else:  # the server responds with 403, without the reason
            await send({"type": "websocket.close"})


def refusal(scope: Scope, allowed_hosts: Collection[str] = ()) -> str | None:
    """Return in one line why a request is refused; None if it is not.

    Args:
        scope: The ASGI scope of a request or a WebSocket.
        allowed_hosts: Hosts beside the loopback names, with a port unless it is the default one of their scheme.
    """
    headers = Headers(scope=scope)
    hosts = _loopback_hosts(scope) | set(allowed_hosts)
    named = headers.getlist("host")
    if len(named) != 1 or named[0].lower() not in hosts:
        return f"refused: the host {printable(', '.join(named))!r} is not allowed; see binance-assets ui --help"
    for origin in headers.getlist("origin"):
        scheme, _, host = origin.lower().partition("://")
        if scheme not in ("http", "https") or host not in hosts:
            return f"refused: the request comes from a page of another site, {printable(origin)!r}"
    if scope["type"] == "websocket":
        return None
    if scope["method"] not in _READING:
        return None if _is_json(headers) else f"refused: a {printable(scope['method'])} must be application/json"
    if scope["path"].endswith("/graphql") and "text/html" not in headers.get("accept", ""):
        return "refused: send queries with POST, as application/json"
    return None


def _loopback_hosts(scope: Scope) -> set[str]:
    """Return the Host headers with which a browser on this machine addresses the server."""
    if not scope.get("server"):
        return set()
    port = scope["server"][1]
    return {f"{name}:{port}" for name in _LOOPBACK} | ({*_LOOPBACK} if port == _HTTP_PORT else set())


def _is_json(headers: Headers) -> bool:
    # Compared as a browser reads the header: `text/plain; application/json` is plain text.
    types = headers.getlist("content-type")
    return len(types) == 1 and types[0].partition(";")[0].strip().lower() == "application/json"


def _unframed(send: Send) -> Send:
    """Return ``send`` with a header that keeps other sites from showing the response in a frame."""

    async def send_unframed(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["X-Frame-Options"] = "SAMEORIGIN"
        await send(message)

    return send_unframed
