"""What the ledger knows of each rate-limit group, for people and monitors: weight, limit, and blocks.

Here belongs what is read for others. What does not belong here: what a process decides by it (``budget``, ``policy``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from binance_assets.exchange.rate_limit.engines import SharedTime
from binance_assets.exchange.rate_limit.ledger import Block, Ledger, RateLimitGroup, Transaction
from binance_assets.exchange.rate_limit.policy import Minute
from binance_assets.model.markets import MARKETS
from binance_assets.model.timestamps import MINUTE

_DOCUMENTED: Final = {market.rate_limit_group: market.weight_limit for market in MARKETS.values()}


@dataclass(frozen=True, slots=True)
class GroupFigures:
    """What is known of a rate-limit group.

    Attributes:
        group: The group.
        current: The UTC minute that has begun, by the server's clock.
        previous: The one before.
        blocked_seconds: For how long Binance refuses requests, seconds; 0 if it does not.
        banned: Whether that is a ban (418), and not a 429.
        blocks: How many blocks followed each other, until a request succeeded.
    """

    group: RateLimitGroup
    current: Minute
    previous: Minute
    blocked_seconds: float
    banned: bool
    blocks: int


def figures_of(ledger: Ledger, now_ms: float) -> list[GroupFigures]:
    """Return what a ledger knows of each group that has records in it, by address and name.

    Args:
        ledger: The ledger.
        now_ms: The time by the wall clock, ms UTC. It counts only where no process has read the server's clock.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    figures = []
    for group in ledger.groups():
        if group.name in _DOCUMENTED:
            with ledger.transaction(group) as transaction:
                figures.append(_figures(transaction, group, now_ms))
    return figures


def _figures(transaction: Transaction, group: RateLimitGroup, now_ms: float) -> GroupFigures:
    shared, clock, documented = transaction.now(), transaction.clock(), _DOCUMENTED[group.name]
    server_ms = shared.ms + clock.offset if clock is not None and clock.clock == shared.clock else now_ms
    number = int(server_ms // MINUTE)
    current, previous = (transaction.minute(which, documented) for which in (number, number - 1))
    block = transaction.block()
    seconds = _seconds_left(block, shared, server_ms)
    is_ban, blocks = (block.banned and seconds > 0, block.number) if block else (False, 0)
    return GroupFigures(group, current, previous, seconds, is_ban, blocks)


def _seconds_left(block: Block | None, shared: SharedTime, server_ms: float) -> float:
    """Return in how many seconds a block ends; 0 if none has begun, or it is over."""
    if block is None:
        return 0.0
    if block.clock == shared.clock:
        return max(0.0, (block.ends - shared.ms) / 1_000)
    return 0.0 if block.until is None else max(0.0, (block.until - server_ms) / 1_000)


def address_and_egress(group: RateLimitGroup) -> Sequence[str]:
    """Return the hosts that count the weight of a group, and the name of the public IP; that is empty by default."""
    address, _, egress = group.address.partition(" from ")
    return address, egress
