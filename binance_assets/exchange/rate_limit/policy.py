"""Pure decisions about request weight: how much may be claimed, and how long a block lasts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from binance_assets.exchange.errors import Banned, RateLimited
from binance_assets.model.timestamps import MINUTE, SECOND

# A lease covers at most this many calls, and at most this part (one eighth) of what may still be claimed, so that other
# processes get their share.
_LEASED_CALLS: Final = 100
_LEASED_PART: Final = 8

# If other programs use the IP too, the last tenth of a minute's limit is spent one call at a time.
_CONTESTED_PART: Final = 10


@dataclass(frozen=True, slots=True)
class Minute:
    """What is known of one minute of one rate-limit group.

    Attributes:
        limit: The weight that Binance allows an IP in a minute.
        ours: Weight that processes of this host have claimed in the minute.
        seen: Weight that the server is known to have counted, that of other programs included.
        in_flight: Weight in the leases of all processes: calls without a response so far, whichever minute they began
            in, and what is set aside for the next calls.
    """

    limit: int
    ours: int
    seen: int
    in_flight: int


def spendable(minute: Minute, share: float = 1.0) -> int:
    """Return the weight that may still be claimed in this minute; never negative.

    Two bounds hold at once: all that the server counts stays within the limit, and what this host uses stays within
    its share of the limit. Calls in flight may or may not be part of ``seen`` already. They are counted on top, which
    errs on the safe side and corrects itself with their responses.

    Args:
        minute: What is known of the minute.
        share: The part of the limit that this host may use, 0 to 1.
    """
    within_limit = minute.limit - minute.seen - minute.in_flight
    within_share = int(minute.limit * share) - minute.ours
    return max(0, min(within_limit, within_share))


def claimable(minute: Minute, share: float, weight: int) -> int:
    """Return what a process that needs ``weight`` for its next call may claim now; 0 if it has to wait.

    Other programs may use the IP too, and what they use while our calls are in flight is invisible. Two rules follow.
    At most half of the weight that the server has not counted yet is in flight, or one call alone. And if others were
    seen in this minute, the last part of the limit is spent one call at a time, so that exceeding it costs one 429 and
    not one for each worker. Without other programs on the IP this costs some round trips at the end of a minute, and no
    weight.

    Args:
        minute: What is known of the minute.
        share: The part of the limit that this host may use, 0 to 1.
        weight: The weight of the next call.
    """
    spare = spendable(minute, share)
    if weight > spare:
        # A call that costs more than the whole share may run alone; otherwise it would never run.
        return 0 if minute.ours or minute.in_flight or weight > minute.limit - minute.seen else weight
    uncounted, used_by_others = minute.limit - minute.seen, minute.seen - minute.ours
    half = uncounted // 2 - minute.in_flight
    contested = uncounted - minute.in_flight < min(used_by_others, minute.limit // _CONTESTED_PART)
    if contested or half < weight:
        return 0 if minute.in_flight else weight
    return max(weight, min(_LEASED_CALLS * weight, spare // _LEASED_PART, half))


_SHORTEST_BAN: Final = 2 * MINUTE
_BANNED_UNTIL: Final = re.compile(r"banned until (\d{13})")


def blocked_until(error: RateLimited | Banned, now: int) -> int:
    """Return until when a 429 or 418 forbids further calls, ms on the server's clock.

    Binance names it as ``Retry-After`` in seconds and, for bans, as ``banned until <ms>`` in the message; the later
    of the two applies. Without either, a 429 lasts until the next minute and a ban two minutes (the shortest ban).

    Args:
        error: The 429 or 418.
        now: The server's time, ms UTC.
    """
    times = [int(digits) for digits in _BANNED_UNTIL.findall(error.message or "")]
    seconds = next((value for name, value in error.headers.items() if name.lower() == "retry-after"), "")
    if seconds.isdigit():
        times.append(now + int(seconds) * SECOND)
    if times:
        return max(times)
    return now + _SHORTEST_BAN if isinstance(error, Banned) else (now // MINUTE + 1) * MINUTE
