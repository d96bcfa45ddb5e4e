"""Request weights, counted as Binance counts them: per rate-limit group and UTC minute, rejected requests included."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from binance_assets.model.timestamps import MINUTE, SECOND

BAN_SECONDS: Final = 120
"""Length of a ban."""

REJECTIONS_BEFORE_BAN: Final = 10
"""How many requests may follow the first 429 of a minute; the next one leads to a ban."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """The reason why a request is rejected.

    Attributes:
        status: 429 or 418.
        message: Binance's text.
        retry_after: Whole seconds, at least 1.
    """

    status: int
    message: str
    retry_after: int


class _RateLimitGroup:
    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.minute = -1
        self.used = 0
        self.rejections = 0
        self.banned_until = 0


class WeightLimits:
    """The weight counters of all rate-limit groups.

    Args:
        limits: Weight per minute, by name of the rate-limit group.
    """

    def __init__(self, limits: Mapping[str, int]) -> None:
        """Start all counters at 0."""
        self._groups = {name: _RateLimitGroup(limit) for name, limit in limits.items()}

    def limit(self, group: str) -> int:
        """Return the weight that ``group`` may use per minute."""
        return self._groups[group].limit

    def count_request(self, group: str, weight: int, now: int) -> tuple[int, Rejection | None]:
        """Count a request that arrives at ``now`` (ms UTC).

        Returns:
            The weight used in this minute, including this request, and the rejection if the request is rejected.
        """
        counter = self._groups[group]
        if (minute := now // MINUTE) != counter.minute:
            counter.minute, counter.used, counter.rejections = minute, 0, 0
        counter.used += weight
        if now < counter.banned_until:
            return counter.used, ip_banned(counter.banned_until, now)
        if counter.used <= counter.limit:
            return counter.used, None
        counter.rejections += 1
        if counter.rejections > REJECTIONS_BEFORE_BAN + 1:
            counter.banned_until = now + BAN_SECONDS * SECOND
            return counter.used, ip_banned(counter.banned_until, now)
        return counter.used, limit_exceeded(counter.limit, now)


def limit_exceeded(limit: int, now: int) -> Rejection:
    """Return the 429 for a request at ``now`` (ms UTC) beyond ``limit``."""
    message = (
        f"Too much request weight used; current limit is {limit} request weight per 1 MINUTE. "
        "Please use WebSocket Streams for live updates to avoid polling the API."
    )
    return Rejection(429, message, _whole_seconds(MINUTE - now % MINUTE))


def ip_banned(until: int, now: int) -> Rejection:
    """Return the 418 for a request at ``now`` during a ban that ends at ``until`` (both ms UTC)."""
    message = (
        f"Way too much request weight used; IP banned until {until}. "
        "Please use WebSocket Streams for live updates to avoid bans."
    )
    return Rejection(418, message, _whole_seconds(until - now))


def _whole_seconds(duration: int) -> int:
    return max(1, -(-duration // SECOND))
