"""When a host counts as dead, so that a run stops asking it: after failed calls in a row, without a success between.

One circuit covers all series of a market in a run, or in all runs of a command; the archive has one of its own. A call
is a request with its retries, so a short failure of the network passes unnoticed. After some failed calls, one call at
a time goes on asking, while the others wait for its outcome. If those fail too, further calls end with :class:`NotSent`
for a while, without a request.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from binance_assets.exchange.errors import ExchangeError, NotSent
from binance_assets.waiting import Wait, waiting

Result = TypeVar("Result")

# A host that has been asked alone for so long and did not respond is dead, however few calls that were: each may take
# as long as several timeouts.
_PROBING_SECONDS: Final = 60
# How long a dead host is not asked.
_PAUSE_SECONDS: Final = 60


class Circuit:
    """Whether a host responds; safe to use from many threads.

    Args:
        failures: After how many failed calls in a row one call at a time asks.
        probes: After how many failed calls of that kind the host counts as dead.
        clock: Returns a time in seconds that never goes back.
    """

    def __init__(self, failures: int, probes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most_failures = failures
        self._most_probes = probes
        self._clock = clock
        self._asking = threading.Lock()
        self._counting = threading.Lock()
        self._failures = 0
        self._probes = 0
        self._failing_since = 0.0
        self._dead_until = 0.0
        self._error = ExchangeError("no error")

    def call(self, attempt: Callable[[], Result]) -> Result:
        """Return what ``attempt``, a request with its retries, returns.

        Raises:
            NotSent: The host counts as dead; nothing was sent.
            Exception: What ``attempt`` raised.
        """
        if self._failures < self._most_failures:
            return self._observed(attempt, is_probe=False)
        with waiting(Wait(f"the host keeps failing ({self._error}), so one request at a time probes it; waiting")):
            self._asking.acquire()
        try:
            if self._failures >= self._most_failures:
                self.check()
                return self._observed(attempt, is_probe=True)
        finally:
            self._asking.release()
        return self._observed(attempt, is_probe=False)

    def check(self) -> None:
        """Do nothing, unless the host counts as dead.

        Raises:
            NotSent: It does.
        """
        if self._clock() < self._dead_until:
            raise NotSent.after(self._error)

    def trip(self, error: ExchangeError) -> None:
        """Count the host as dead at once, because without the response that failed nothing else can be asked."""
        with self._counting:
            self._error = error
            self._failures, self._probes = self._most_failures, self._most_probes
            self._dead_until = self._clock() + _PAUSE_SECONDS

    def reset(self) -> None:
        """Count the host as alive."""
        if self._failures:
            with self._counting:
                self._failures, self._probes, self._dead_until = 0, 0, 0.0

    def _observed(self, attempt: Callable[[], Result], is_probe: bool) -> Result:
        try:
            result = attempt()
        except ExchangeError as error:
            if error.policy.host_fails:
                self._fail(error, is_probe)
            elif error.status is not None:
                self.reset()  # any other response is a sign of life
            raise
        self.reset()
        return result

    def _fail(self, error: ExchangeError, is_probe: bool) -> None:
        with self._counting:
            now = self._clock()
            self._error = error
            self._failures += 1
            if self._failures <= self._most_failures:
                self._failing_since = now
            self._probes += is_probe
            enough = self._probes >= self._most_probes or (is_probe and now - self._failing_since > _PROBING_SECONDS)
            if self._failures >= self._most_failures and enough:
                self._dead_until = now + _PAUSE_SECONDS
