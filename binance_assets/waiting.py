"""What this process waits for, so that progress can show it: reasons, their ends, and the time that they took.

Code that waits announces it here for as long as it does. Code that shows progress calls :func:`activity` whenever it
draws. There is one board for the whole process, because locks and budgets make any of its threads wait.

Time counts as *waited* while something waits and no request is in flight.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

BEGAN: Final = time.monotonic()
"""About when this process began; the entry points import this module first of all."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Why something waits.

    Attributes:
        reason: The reason in words, which ``until 12:03:00 UTC`` may follow.
        until: When the wait ends at the latest, ms UTC; None if that is unknown.
    """

    reason: str
    until: float | None = None

    @classmethod
    def of_seconds(cls, reason: str, seconds: float) -> Wait:
        """Return a wait that ends in so many seconds; its end is shown by the clock of this machine."""
        return cls(reason, (time.time() + seconds) * 1_000)

    def __str__(self) -> str:
        """Return the reason, and the end as a time of day."""
        if self.until is None:
            return self.reason
        # The next full second: at that time, the wait is over.
        return f"{self.reason} until {time.strftime('%H:%M:%S', time.gmtime(-(-self.until // 1_000)))} UTC"


@dataclass(frozen=True, slots=True)
class Activity:
    """What the process does at a moment.

    Attributes:
        phase: What it works on, in words; None if no code has named it.
        wait: The wait that has lasted longest; None if nothing waits.
        wait_seconds: For how long.
        requests: How many requests are in flight.
        request_seconds: For how long the oldest of them is.
    """

    phase: str | None
    wait: Wait | None
    wait_seconds: float
    requests: int
    request_seconds: float


class Board:
    """The waits, requests, and phases of a process; safe to use from many threads.

    Args:
        clock: Returns a time in seconds that never goes back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._waits: dict[int, tuple[float, Wait]] = {}
        self._requests: dict[int, float] = {}
        self._phases: dict[int, str] = {}
        self._waited = 0.0
        self._waiting_since: float | None = None

    @contextmanager
    def waits(self) -> Iterator[Callable[[Wait], None]]:
        """Yield a function that announces a wait, or changes its reason, until the block ends."""
        number = next(self._numbers)

        def announce(wait: Wait) -> None:
            with self._lock:
                since, _ = self._waits.get(number, (self._clock(), wait))
                self._waits[number] = since, wait
                self._count()

        try:
            yield announce
        finally:
            if number in self._waits:
                with self._lock:
                    del self._waits[number]
                    self._count()

    @contextmanager
    def waiting(self, wait: Wait) -> Iterator[None]:
        """Announce a wait for the length of the block."""
        with self.waits() as announce:
            announce(wait)
            yield

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request as in flight for the length of the block."""
        number = next(self._numbers)
        with self._lock:
            self._requests[number] = self._clock()
            self._count()
        try:
            yield
        finally:
            with self._lock:
                del self._requests[number]
                self._count()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Name what the process works on for the length of the block; the innermost name counts."""
        number = next(self._numbers)
        with self._lock:
            self._phases[number] = name
        try:
            yield
        finally:
            with self._lock:
                del self._phases[number]

    def activity(self) -> Activity:
        """Return what the process does at this moment."""
        with self._lock:
            now = self._clock()
            since, wait = min(self._waits.values(), key=lambda entry: entry[0], default=(now, None))
            oldest = min(self._requests.values(), default=now)
            phase = next(reversed(self._phases.values()), None)
            return Activity(phase, wait, now - since, len(self._requests), now - oldest)

    def waited(self) -> float:
        """Return for how many seconds the process has waited so far."""
        with self._lock:
            running = 0.0 if self._waiting_since is None else self._clock() - self._waiting_since
            return self._waited + running

    def _count(self) -> None:
        """Begin or end to count waited time, after a change."""
        is_waiting = bool(self._waits) and not self._requests
        if is_waiting and self._waiting_since is None:
            self._waiting_since = self._clock()
        elif not is_waiting and self._waiting_since is not None:
            self._waited += self._clock() - self._waiting_since
            self._waiting_since = None


_BOARD: Final = Board()

waits: Final = _BOARD.waits
waiting: Final = _BOARD.waiting
request: Final = _BOARD.request
phase: Final = _BOARD.phase
activity: Final = _BOARD.activity
waited: Final = _BOARD.waited
