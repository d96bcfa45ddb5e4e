"""The webhook that receives alerts: one bounded POST of JSON to the URL of the settings.

The URL is a secret: whoever has it can post. No error and no log has more of the URL than its host.

Here belongs how an alert is sent. What does not belong here: which alerts there are, and what happens when one is not
delivered (``alerts``).
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from pydantic import SecretStr
from urllib3 import Timeout

from binance_assets.exchange.transport import BoundedClient, call_bounds

_SECONDS: Final = 5.0
# Of the response, only the status counts: its headers are read, its body is not.
_MOST_RESPONSE_BYTES: Final = 64_000
# The hook takes no alert of this form: too large, or not what it expects. Any other status may change by itself, or
# once a person has corrected the hook.
_REFUSED: Final = frozenset({400, 413, 422})


@dataclass(frozen=True, slots=True)
class Undelivered:
    """Why an alert was not delivered.

    Attributes:
        reason: One line, which names the host only.
        is_refused: Whether the hook refuses this very alert, so that another one may be accepted.
    """

    reason: str
    is_refused: bool = False


def post(url: SecretStr, alert: Mapping[str, object]) -> Undelivered | None:
    """Send an alert; return None if it was delivered, which a status from 200 to 299 confirms.

    The call takes at most five seconds. Redirects are not followed.

    Args:
        url: The hook.
        alert: A JSON object of bounded size.
    """
    parts = urlsplit(url.get_secret_value())
    host = parts.netloc
    try:
        status = _status_of_post(f"{parts.scheme}://{host}", _target(url), json.dumps(alert).encode())
    except Exception as error:  # of many kinds; the text of some has the URL
        return Undelivered(f"{host}: no response within {_SECONDS:.0f} s, or none at all ({type(error).__name__})")
    return None if 200 <= status < 300 else Undelivered(f"{host} responds with status {status}", status in _REFUSED)


def _target(url: SecretStr) -> str:
    parts = urlsplit(url.get_secret_value())
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _status_of_post(host_url: str, target: str, body: bytes) -> int:
    with closing(BoundedClient(host_url, 1)) as client:
        route = client.route()
        with call_bounds(time.monotonic() + _SECONDS, _MOST_RESPONSE_BYTES), _urls_not_logged():
            response = route.pool.urlopen(
                "POST",
                route.prefix + target,
                body=body,
                headers={**route.headers, "Content-Type": "application/json"},
                retries=False,
                redirect=False,
                assert_same_host=False,
                timeout=Timeout(total=_SECONDS),
                preload_content=False,
                decode_content=False,
            )
            response.close()
            return response.status


_posting = threading.local()


@contextmanager
def _urls_not_logged() -> Iterator[None]:
    """Keep the lines of this thread out of urllib3's log: at level DEBUG, it names the path of each request."""
    _posting.now = True
    try:
        yield
    finally:
        _posting.now = False


def _is_logged(_: logging.LogRecord) -> bool:
    return not getattr(_posting, "now", False)


logging.getLogger("urllib3.connectionpool").addFilter(_is_logged)
