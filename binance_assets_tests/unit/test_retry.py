"""Failed requests are retried by the policy of their error, with delays that a test can observe and skip."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from binance_assets.exchange.errors import Cancelled, ExchangeError, NoConnection, Policy, RefusedRequest, TimedOut
from binance_assets.exchange.retry import Retrier


@dataclass
class SkippedSleep:
    """Replaces waiting: records each delay, and reports an interrupt at the delay ``interrupted_at``."""

    interrupted_at: int | None = None
    delays: list[float] = field(default_factory=list)

    def __call__(self, seconds: float, stop: threading.Event) -> bool:
        self.delays.append(seconds)
        return len(self.delays) == self.interrupted_at


def failing(times: int, error: ExchangeError) -> Callable[[], int]:
    """Return a call that fails so many times and then returns the number of its attempts."""
    attempts = 0

    def call() -> int:
        nonlocal attempts
        attempts += 1
        if attempts <= times:
            raise error
        return attempts

    return call


def test_a_call_that_succeeds_is_made_once_and_without_waiting() -> None:
    sleep = SkippedSleep()
    assert Retrier(sleep).call_with_retries(failing(0, NoConnection("no")), threading.Event()) == 1
    assert sleep.delays == []


def test_a_transient_error_is_retried_with_doubling_jittered_delays() -> None:
    sleep = SkippedSleep()
    assert Retrier(sleep, random.Random(1)).call_with_retries(failing(5, NoConnection("no")), threading.Event()) == 6
    longest = [NoConnection.policy.first_delay * 2**attempt for attempt in range(5)]
    assert all(most / 2 <= delay <= most for delay, most in zip(sleep.delays, longest, strict=True))


def test_the_same_random_numbers_give_the_same_delays() -> None:
    first, second = SkippedSleep(), SkippedSleep()
    for sleep in (first, second):
        Retrier(sleep, random.Random(7)).call_with_retries(failing(3, NoConnection("no")), threading.Event())
    assert first.delays == second.delays


@pytest.mark.parametrize("kind", [NoConnection, TimedOut, RefusedRequest])
def test_the_last_error_is_raised_after_as_many_attempts_as_its_policy_allows(kind: type[ExchangeError]) -> None:
    sleep, error = SkippedSleep(), kind("no")
    with pytest.raises(kind) as caught:
        Retrier(sleep).call_with_retries(failing(100, error), threading.Event())
    assert caught.value is error
    assert len(sleep.delays) == kind.policy.attempts - 1


def test_an_interrupted_wait_raises_cancelled_caused_by_the_error() -> None:
    error = NoConnection("no")
    with pytest.raises(Cancelled) as caught:
        Retrier(SkippedSleep(interrupted_at=2)).call_with_retries(failing(100, error), threading.Event())
    assert caught.value.__cause__ is error


def test_other_exceptions_are_not_retried() -> None:
    def fail() -> None:
        raise KeyError("unexpected")

    sleep = SkippedSleep()
    with pytest.raises(KeyError):
        Retrier(sleep).call_with_retries(fail, threading.Event())
    assert sleep.delays == []


class Patient(ExchangeError):
    """An error after which the next attempt waits for longer than any test may last."""

    policy = Policy(attempts=2, first_delay=36_000)


def test_by_default_the_stop_event_ends_a_real_wait() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Cancelled):
        Retrier().call_with_retries(failing(1, Patient("no")), stop)


def test_by_default_the_delay_passes_in_real_time() -> None:
    began = time.monotonic()
    assert Retrier().call_with_retries(failing(1, NoConnection("no")), threading.Event()) == 2
    assert time.monotonic() - began >= NoConnection.policy.first_delay / 2
