"""Request weights, counted as Binance counts them: by pool, in the UTC clock minute, refused calls included."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from binance_assets.model.timestamps import MINUTE, SECOND

BAN_SECONDS: Final = 120
"""Length of a ban."""

REFUSALS_BEFORE_BAN: Final = 10
"""So many requests of a minute may ignore its first 429; the next one is banned."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is turned away.

    Attributes:
        status: 429 or 418.
        message: Binance's text.
        retry_after: Whole seconds, at least 1.
    """

    status: int
    message: str
    retry_after: int


class _Pool:
    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.minute = -1
        self.used = 0
        self.refused = 0
        self.banned_until = 0


class WeightLimits:
    """The counters of all pools."""

    def __init__(self, limits: Mapping[str, int]) -> None:
        """Counters at 0, for these pools with these weights a minute."""
        self._pools = {name: _Pool(limit) for name, limit in limits.items()}

    def limit(self, rate_limit_group: str) -> int:
        """The weight that a minute of the pool has room for."""
        return self._pools[rate_limit_group].limit

    def charge(self, rate_limit_group: str, weight: int, now: int) -> tuple[int, Refusal | None]:
        """Count a request that arrives at ``now`` (ms UTC).

        Returns:
            The weight used in this minute, this request included, and the refusal if it is refused.
        """
        counter = self._pools[rate_limit_group]
        if (minute := now // MINUTE) != counter.minute:
            counter.minute, counter.used, counter.refused = minute, 0, 0
        counter.used += weight
        if now < counter.banned_until:
            return counter.used, banned(counter.banned_until, now)
        if counter.used <= counter.limit:
            return counter.used, None
        counter.refused += 1
        if counter.refused > REFUSALS_BEFORE_BAN + 1:
            counter.banned_until = now + BAN_SECONDS * SECOND
            return counter.used, banned(counter.banned_until, now)
        return counter.used, too_much(counter.limit, now)


def too_much(limit: int, now: int) -> Refusal:
    """The 429 of a call at ``now`` (ms UTC) beyond ``limit``."""
    message = (
        f"Too much request weight used; current limit is {limit} request weight per 1 MINUTE. "
        "Please use WebSocket Streams for live updates to avoid polling the API."
    )
    return Refusal(429, message, _seconds(MINUTE - now % MINUTE))


def banned(until: int, now: int) -> Refusal:
    """The 418 of a call at ``now`` while banned ``until`` (both ms UTC)."""
    message = (
        f"Way too much request weight used; IP banned until {until}. "
        "Please use WebSocket Streams for live updates to avoid bans."
    )
    return Refusal(418, message, _seconds(until - now))


def _seconds(time: int) -> int:
    return max(1, -(-time // SECOND))
