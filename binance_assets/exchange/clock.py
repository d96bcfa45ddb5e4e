"""The exchange's clock, as far as it can be known from here."""

from __future__ import annotations

import time


class ServerClock:
    """The server's time, carried forward by this machine's monotonic clock.

    A wrong wall clock on our side does no harm: it is never asked.
    """

    def __init__(self) -> None:
        # Replaced as a whole, so that readers in other threads never see half of an update.
        self._reading: tuple[float, float, float] | None = None

    def sync(self, server_ms: int, sent: float, received: float) -> None:
        """Set the clock by an answer of ``/time``.

        Args:
            server_ms: The time in the answer, ms UTC.
            sent: ``time.monotonic()`` when the request was sent, seconds.
            received: ``time.monotonic()`` when the answer was there, seconds.
        """
        error_ms = (received - sent) / 2 * 1_000 + 1  # a millisecond for the answer's own rounding
        self._reading = (server_ms - (sent + received) / 2 * 1_000, error_ms, received)

    def assume(self, server_ms: float, error_ms: float) -> None:
        """Set the clock by hearsay, until the server itself is asked; its :attr:`age` stays infinite."""
        now = time.monotonic()
        self._reading = (server_ms - now * 1_000, error_ms, float("-inf"))

    def at(self, monotonic: float) -> float:
        """The server's time, ms UTC, at a moment of this machine's monotonic clock (seconds)."""
        if self._reading is None:
            raise RuntimeError("the server's clock was read before its time was asked")
        return monotonic * 1_000 + self._reading[0]

    def now(self) -> float:
        """The server's time now, ms UTC."""
        return self.at(time.monotonic())

    @property
    def error_ms(self) -> float:
        """How far off the clock may be, ms: half a round trip of the last synchronisation."""
        return self._reading[1] if self._reading else 0.0

    @property
    def known(self) -> bool:
        """Whether the server's time is known, be it by hearsay."""
        return self._reading is not None

    @property
    def age(self) -> float:
        """Seconds since the last synchronisation; infinite before the first."""
        return time.monotonic() - self._reading[2] if self._reading else float("inf")
