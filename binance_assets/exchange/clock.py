"""The exchange's clock, estimated from its responses."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

from binance_assets.boot import seconds_since_boot, seconds_suspended
from binance_assets.model.outside import whole_number
from binance_assets.model.timestamps import CANDLE_TIMES, SECOND


def http_date(text: str | None) -> int | None:
    """Return the time of a header such as ``Date``, ms UTC, to the second; None if it is not a believable time.

    Args:
        text: The value of the header; None if the response does not have it.
    """
    try:
        seconds = parsedate_to_datetime(text or "").timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return whole_number(int(seconds) * SECOND, CANDLE_TIMES)


class ServerClock:
    """The server's time, carried forward by the seconds since this machine booted.

    It never reads this machine's wall clock, which may be wrong or may be set. ``time.monotonic``, in which the moments
    of a request are given, stands still while the machine is suspended, but the server's time goes on. So the seconds
    of a suspension are added.
    """

    def __init__(self) -> None:
        # The server's time at zero seconds since the boot (ms), how far off it may be (ms), and when it was read
        # (seconds since the boot). Replaced as a whole, so that readers in other threads never see half of an update.
        self._reading: tuple[float, float, float] | None = None

    def sync(self, server_ms: int, sent: float, received: float) -> None:
        """Set the clock from a response of ``/time``.

        Args:
            server_ms: The time in the response, ms UTC.
            sent: ``time.monotonic()`` when the request was sent, seconds.
            received: ``time.monotonic()`` when the response was complete, seconds.
        """
        error_ms = (received - sent) / 2 * 1_000 + 1  # the response is rounded to a millisecond
        suspended = seconds_suspended()
        self._reading = (server_ms - ((sent + received) / 2 + suspended) * 1_000, error_ms, received + suspended)

    def assume(self, server_ms: float, error_ms: float) -> None:
        """Set the clock from a cached offset, until the server itself responds; :attr:`age` stays infinite.

        Args:
            server_ms: The assumed time of the server, ms UTC.
            error_ms: How far off it may be, ms.
        """
        self._reading = (server_ms - seconds_since_boot() * 1_000, error_ms, float("-inf"))

    def at(self, monotonic: float) -> float:
        """Return the server's time, ms UTC, at a moment of this machine's monotonic clock (seconds)."""
        if self._reading is None:
            raise RuntimeError("the server's clock was read before it was set")
        return (monotonic + seconds_suspended()) * 1_000 + self._reading[0]

    def now(self) -> float:
        """Return the server's current time, ms UTC."""
        return self.at(time.monotonic())

    @property
    def error_ms(self) -> float:
        """How far off the clock may be, ms: half the round trip of the last synchronization, or what was assumed."""
        return self._reading[1] if self._reading else 0.0

    @property
    def known(self) -> bool:
        """Whether the server's time is known, from a response or from a cached offset."""
        return self._reading is not None

    @property
    def age(self) -> float:
        """Seconds since the last synchronization, those of a suspension included; infinite before the first."""
        return seconds_since_boot() - self._reading[2] if self._reading else float("inf")
