"""How often a failed call is repeated, and how long to wait in between."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from binance_assets.exchange.errors import Cancelled, ExchangeError

Result = TypeVar("Result")

_RNG: Final = random.Random()


def call_with_retries(attempt_once: Callable[[], Result], stop: threading.Event) -> Result:
    """Do something as often as the errors' own policies allow, with growing pauses.

    Args:
        attempt_once: Does it once; raises :class:`ExchangeError` where it cannot.
        stop: Set to end the pauses.

    Raises:
        ExchangeError: The last of the errors.
        Cancelled: ``stop`` was set in a pause.
    """
    attempt = 1
    while True:
        try:
            return attempt_once()
        except ExchangeError as error:
            delay = retry_delay(error, attempt, _RNG)
            if delay is None:
                raise
            if stop.wait(delay):
                raise Cancelled from error
        attempt += 1


def retry_delay(error: ExchangeError, attempt: int, rng: random.Random) -> float | None:
    """Seconds to wait before the next attempt; None where there is none.

    Args:
        error: What the last attempt brought.
        attempt: Its number, from 1.
        rng: Source of the jitter, which keeps workers from coming back in step.
    """
    if attempt >= error.policy.attempts:
        return None
    delay = error.policy.first_delay * 2.0 ** (attempt - 1)
    return delay * rng.uniform(0.5, 1)
