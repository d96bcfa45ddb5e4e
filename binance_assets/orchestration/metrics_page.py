"""The page ``/metrics`` of the user interface: what a monitor scrapes, behind the same guard as the other pages."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from binance_assets.model.exposition import CONTENT_TYPE, exposition
from binance_assets.orchestration.scrape import scrape
from binance_assets.settings import ConfigurationError

PATH: Final = "/metrics"

# A user who reloads the page again and again must not delay other requests. Prometheus scrapes every 15 to 60 seconds.
_KEPT_SECONDS: Final = 5.0
_UNUSABLE: Final = 500


class MetricsPage:
    """An ASGI application that answers ``/metrics`` itself, and passes on everything else.

    Args:
        app: The application to pass on to.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._lock = asyncio.Lock()
        self._text = ""
        self._read_at = -_KEPT_SECONDS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a connection."""
        if scope["type"] != "http" or scope["path"] != PATH:
            await self._app(scope, receive, send)
            return
        response = await self._response()
        await response(scope, receive, send)

    async def _response(self) -> Response:
        async with self._lock:
            if time.monotonic() - self._read_at >= _KEPT_SECONDS:
                try:
                    self._text = await run_in_threadpool(_read)
                except ConfigurationError as error:
                    return PlainTextResponse(f"{error}\n", _UNUSABLE)
                self._read_at = time.monotonic()
            return Response(self._text, headers={"Content-Type": CONTENT_TYPE})


def _read() -> str:
    return exposition(scrape(Path.cwd(), os.environ).metrics)
