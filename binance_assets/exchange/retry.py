"""How often a failed request is retried, and how long to wait in between."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from binance_assets.exchange.errors import Cancelled, ExchangeError
from binance_assets.waiting import Wait, waiting

Result = TypeVar("Result")

Sleep = Callable[[float, threading.Event], bool]
"""Waits for the given seconds; returns early, with True, if the event is set."""


def sleep_unless_stopped(seconds: float, stop: threading.Event) -> bool:
    """Wait for ``seconds`` in real time, or until ``stop`` is set; return whether it is set."""
    return stop.wait(seconds)


@dataclass(frozen=True, slots=True)
class Retrier:
    """Repeats a call as often as the policies of its errors allow.

    Attributes:
        sleep: How to wait between two attempts. Tests pass one that does not wait.
        rng: Source of the jitter.
    """

    sleep: Sleep = sleep_unless_stopped
    rng: random.Random = field(default_factory=random.Random)

    def call_with_retries(self, attempt_once: Callable[[], Result], stop: threading.Event) -> Result:
        """Call ``attempt_once`` until it succeeds or its error's policy allows no further attempt.

        Args:
            attempt_once: Makes one attempt; raises :class:`ExchangeError` if it fails.
            stop: Set to end the waiting.

        Returns:
            What ``attempt_once`` returns.

        Raises:
            ExchangeError: The error of the last attempt.
            Cancelled: ``stop`` was set between two attempts.
        """
        attempt = 1
        while True:
            try:
                return attempt_once()
            except ExchangeError as error:
                delay = retry_delay(error, attempt, self.rng)
                if delay is None:
                    raise
                reason = f"attempt {attempt} of {error.policy.attempts} failed ({error}); waiting"
                with waiting(Wait.of_seconds(reason, delay)):
                    is_stopped = self.sleep(delay, stop)
                if is_stopped:
                    raise Cancelled from error
            attempt += 1


def retry_delay(error: ExchangeError, attempt: int, rng: random.Random) -> float | None:
    """Return how many seconds to wait before the next attempt; None if there is no next attempt.

    It is the delay of the policy, which doubles with every attempt, or down to half of it.

    Args:
        error: The error of the last attempt.
        attempt: The number of the last attempt, from 1.
        rng: Source of the jitter, which keeps workers from retrying in step.
    """
    if attempt >= error.policy.attempts:
        return None
    delay = error.policy.first_delay * 2.0 ** (attempt - 1)
    return delay * rng.uniform(0.5, 1)
