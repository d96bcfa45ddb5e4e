"""Pure decisions about request weight: how much may be claimed, and how long a block lasts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from binance_assets.exchange.clock import http_date
from binance_assets.exchange.errors import Banned, ExchangeError, RateLimited
from binance_assets.model.outside import whole_number
from binance_assets.model.timestamps import DAY, HOUR, MINUTE, SECOND

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


# How far the limit that exchangeInfo names may be from the documented one.
_BELIEVED_FACTOR: Final = 10


def believed_limit(value: object, documented: int) -> int | None:
    """Return the weight limit of a minute that the exchange names; None if it is not to be believed.

    A limit of 1 would stop every process of the host for good, and one of a million would get the IP banned.

    Args:
        value: The limit in exchangeInfo or the ledger.
        documented: The documented limit; the other must be a tenth of it to ten times as much.
    """
    return whole_number(value, range(-(-documented // _BELIEVED_FACTOR), documented * _BELIEVED_FACTOR + 1))


_SHORTEST_BAN: Final = 2 * MINUTE
_SHORTEST_BLOCK: Final = SECOND
# The longest ban that Binance documents (2026-07). A longer one is not believed: nothing but a fault can name it.
_LONGEST_BLOCK: Final = 3 * DAY
_BANNED_UNTIL: Final = re.compile(r"banned until ([0-9]{13})")
_SECONDS: Final = range(10**12)
# After so long without a block, the next one counts as the first again.
_QUIET: Final = HOUR


def blocked_for(error: RateLimited | Banned, now: int | None, number: int = 1) -> int:
    """Return for how long a 429 or 418 forbids further calls, ms.

    Binance names the end as ``Retry-After`` (in seconds, or as a date) and, for bans, as ``banned until <ms>`` in the
    message; the later of the two applies. Without either, a 429 lasts until the next minute. A 429 lasts at least a
    second and a ban at least two minutes, the shortest ban. This minimum doubles with each block in a row, so that a
    server that repeats ``Retry-After: 0`` receives fewer and fewer requests. No block lasts longer than three days.

    Args:
        error: The 429 or 418.
        now: The server's time, ms UTC; None if it is unknown. Then a date or a time cannot be used, and only a number
            of seconds counts; a minute may have just begun.
        number: Which block in a row it is, from 1.
    """
    is_ban = isinstance(error, Banned)
    shortest = (_SHORTEST_BAN if is_ban else _SHORTEST_BLOCK) << min(number - 1, 20)
    waits = [_retry_after(_lower(error.headers), now)]
    if now is not None:
        waits += [int(digits) - now for digits in _BANNED_UNTIL.findall(error.message or "")]
    if not any(waits) and not is_ban:
        waits.append(MINUTE if now is None else MINUTE - now % MINUTE)
    return min(max(shortest, *waits), _LONGEST_BLOCK)


def response_time(error: ExchangeError) -> int | None:
    """Return when a response was sent according to its header ``Date``, ms UTC, to the second; None if it has none."""
    return http_date(_lower(error.headers).get("date"))


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _retry_after(headers: Mapping[str, str], now: int | None) -> int:
    """Return how long to wait by ``Retry-After``, ms; 0 if it names no time.

    Args:
        headers: The headers of the response, with names in lower case.
        now: The server's time, ms UTC; the header ``Date`` of the response takes precedence. None if it is unknown.
    """
    value = headers.get("retry-after", "").strip()
    seconds = whole_number(value, _SECONDS)
    if seconds is not None:
        return seconds * SECOND
    until, sent = http_date(value), http_date(headers.get("date")) or now
    return 0 if until is None or sent is None else max(0, until - sent)


def number_in_a_row(previous: int, ended: int, now: int) -> int:
    """Return which block in a row a new 429 or 418 is, from 1.

    A block that has not ended yet is the same one: the requests that were in flight when it began fail as well.

    Args:
        previous: Which one the last block was; 0 if there was none, or a request has succeeded since.
        ended: When the last block ends or ended, ms.
        now: The time by the same clock, ms.
    """
    if previous and now < ended:
        return previous
    return 1 if now - ended > _QUIET else previous + 1


def longest_wait(is_ban: bool, patience: float) -> float:
    """Return how long to wait for the end of a block, seconds; a longer block ends the run.

    Args:
        is_ban: Whether it is a ban. After a 429, the rest of a minute is always waited for, as for weight.
        patience: The patience of the settings, seconds.
    """
    return patience if is_ban else max(patience, MINUTE / SECOND)
