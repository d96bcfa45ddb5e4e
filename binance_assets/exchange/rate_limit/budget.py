"""The request weight of this IP as one process claims and uses it.

Binance counts request weight per IP and UTC minute. All processes that share an IP write what they are about to use,
and what the server counted, into one ledger; :mod:`~binance_assets.exchange.rate_limit.policy` decides from it whether
a call may be made. The used-weight header of the responses is authoritative and covers other programs too.

Two clocks never agree exactly. So a call that is in flight when a minute ends counts in both minutes, and a new
minute begins here only when the server's has certainly begun. The wall clock of this machine decides nothing: it may be
wrong, and it may be set while a process waits.

A process claims weight for several calls at a time, its *lease*, and hands it out to its threads without the ledger. If
fifty threads wrote to it for each call, they would wait for each other longer than for Binance.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from binance_assets.exchange.clock import ServerClock
from binance_assets.exchange.errors import Banned, BannedForLong, Cancelled, RateLimited, RateLimitedForLong
from binance_assets.exchange.rate_limit.engines import SharedTime
from binance_assets.exchange.rate_limit.ledger import (
    Block,
    Ledger,
    RateLimitGroup,
    StoredClock,
    StoredLease,
    StoredLimit,
    Transaction,
)
from binance_assets.exchange.rate_limit.policy import (
    believed_limit,
    blocked_for,
    claimable,
    longest_wait,
    number_in_a_row,
    response_time,
    spendable,
)
from binance_assets.model.timestamps import DAY, MINUTE
from binance_assets.processes import is_proved_dead, parse_identity, this_process
from binance_assets.waiting import Wait, waits

_LIMIT_AGE_MS: Final = DAY
_FLUSH_SECONDS: Final = 0.5
_BLOCK_CHECK_SECONDS: Final = 0.1
# A reading of the server's clock by another process is used for half an hour. In this time, the clock of this machine
# drifts by less than a second, even while it is being adjusted (by at most 500 ppm).
_CACHED_CLOCK_AGE_MS: Final = 30 * MINUTE
_CACHED_CLOCK_ERROR_MS: Final = 1_000.0
_POLL_SECONDS: Final = 0.01
_LONGEST_POLL_SECONDS: Final = 0.5


class _Pause(NamedTuple):
    """That a call may not be made now.

    Attributes:
        seconds: How long to wait before the next attempt.
        wait: Why, and until when at the latest.
    """

    seconds: float
    wait: Wait


@dataclass(slots=True)
class _Lease:
    """What this process has claimed, and what it has not written to the ledger yet.

    Attributes:
        row: Number of the lease in the ledger; None if it has no lease there.
        minute: The minute in which ``unused`` was claimed.
        unused: Weight set aside and not handed out.
        in_flight: Weight of calls without a response so far.
        seen: The largest used-weight header of each minute.
        more: Weight to add in each minute, because no header shows whether the server counted it.
        flushed_at: ``time.monotonic()`` of the last write to the ledger.
    """

    row: int | None = None
    minute: int = 0
    unused: int = 0
    in_flight: int = 0
    seen: dict[int, int] = field(default_factory=dict)
    more: dict[int, int] = field(default_factory=dict)
    flushed_at: float = 0.0


class Budget:
    """The budget of one rate-limit group, as one process sees and uses it.

    Args:
        ledger: The ledger that the processes share.
        group: The markets that draw on the budget, and the address that counts their weight.
        clock: The server's clock.
        documented_limit: The weight limit of a minute that applies until :meth:`remember_limit` is called.
        share: The part of the limit to use, 0 to 1.
        patience: The longest block to wait for, seconds.
        call_lifetime: After how many seconds a call that was never recorded counts as lost.
    """

    def __init__(
        self,
        ledger: Ledger,
        group: RateLimitGroup,
        clock: ServerClock,
        documented_limit: int,
        share: float,
        patience: float,
        call_lifetime: float,
    ) -> None:
        self._ledger = ledger
        self._group = group
        self._clock = clock
        self._documented_limit = self._limit = documented_limit
        self._share = share
        self._patience = patience
        self._lifetime_ms = int(call_lifetime * 1_000)
        self._gate = threading.Lock()
        self._lock = threading.Lock()
        self._lease = _Lease()
        self._block_checked_at = 0.0
        # Blocks in a row, as far as this process knows, and when it last saw one (``time.monotonic()``).
        self._blocks = 0
        self._block_seen_at = 0.0

    # -- the limit and the clock, shared with other processes -------------------------------------------------

    @property
    def known_limit(self) -> int | None:
        """The weight limit of a minute, if it was read less than a day ago and is to be believed."""
        now = self._clock.now()
        with self._ledger.transaction(self._group) as transaction:
            limit = transaction.limit()
        if limit is None or not 0 <= now - limit.read_at < _LIMIT_AGE_MS:
            return None
        return believed_limit(limit.weight, self._documented_limit)

    @property
    def limit(self) -> int:
        """The weight limit of a minute that this process uses at the moment."""
        return self._limit

    def remember_limit(self, limit: int) -> None:
        """Store the limit that exchangeInfo has just named; give back the lease that was claimed under another one.

        Args:
            limit: The limit, as :func:`believed_limit` returns it.
        """
        with self._lock, self._ledger.transaction(self._group) as transaction:
            transaction.store_limit(StoredLimit(limit, int(self._clock.now())))
            self._limit = limit
            self._flush(transaction, keep=0)

    def remember_clock(self) -> None:
        """Store how far the server's clock is ahead of the one that the ledger's users share, for later processes."""
        with self._ledger.transaction(self._group) as transaction:
            shared = transaction.now()
            transaction.store_clock(StoredClock(self._clock.now() - shared.ms, int(shared.ms), shared.clock))

    def recall_clock(self) -> None:
        """Set the clock by what another process stored lately, if any: accurate enough to know the minute."""
        with self._ledger.transaction(self._group) as transaction:
            stored, shared = transaction.clock(), transaction.now()
        if stored and stored.clock == shared.clock and 0 <= shared.ms - stored.read_at < _CACHED_CLOCK_AGE_MS:
            self._clock.assume(shared.ms + stored.offset, _CACHED_CLOCK_ERROR_MS)

    # -- calls ------------------------------------------------------------------------------------------------

    def spendable_now(self) -> int:
        """Return the weight that this minute still allows."""
        with self._lock, self._ledger.transaction(self._group) as transaction:
            self._flush(transaction, keep=0)
            minute = transaction.minute(self._current_minute(), self._documented_limit)
            return spendable(minute, self._share)

    def acquire(self, weight: int, stop: threading.Event) -> None:
        """Set ``weight`` aside for one call; wait for it as long as needed. :meth:`record` must follow.

        Raises:
            Cancelled: ``stop`` was set.
            BannedForLong, RateLimitedForLong: The IP is blocked for longer than the patience of the settings.
            LedgerError: The ledger cannot be written.
        """
        # One thread of the process waits for weight at a time; the others queue behind it instead of polling.
        with self._gate, waits() as announce:
            while not stop.is_set():
                with self._lock:
                    pause = self._try_to_acquire(weight)
                if pause is None:
                    return
                announce(pause.wait)
                stop.wait(pause.seconds)
        raise Cancelled

    def record(self, weight: int, used: int | None, sent: float, received: float) -> None:
        """Record the end of a call.

        Args:
            weight: What was acquired for it.
            used: The used-weight header of the response; None without a response or without the header.
            sent: ``time.monotonic()`` when the request was sent, seconds.
            received: ``time.monotonic()`` when the response was complete or given up, seconds.
        """
        error = self._clock.error_ms
        first = int((self._clock.at(sent) - error) // MINUTE)
        last = int((self._clock.at(received) + error) // MINUTE)
        with self._lock:
            lease = self._lease
            lease.in_flight -= weight
            # If a minute began during the call, a counter that fell by more than half is that of the new minute. Any
            # other counter may belong to either minute, because responses overtake each other.
            if used is not None and (first == last or 2 * used < lease.seen.get(first, 0)):
                lease.seen[last] = max(lease.seen.get(last, 0), used)
            else:
                lease.more[last] = lease.more.get(last, 0) + weight
            if lease.in_flight == 0 or time.monotonic() - lease.flushed_at > _FLUSH_SECONDS:
                with self._ledger.transaction(self._group) as transaction:
                    self._flush(transaction, keep=lease.unused if lease.in_flight else 0)

    def record_unclaimed(self, weight: int, used: int | None) -> None:
        """Record a call that has just been made without a claim.

        Args:
            weight: What it cost.
            used: The used-weight header of the response; None without the header.
        """
        with self._ledger.transaction(self._group) as transaction:
            minute = self._current_minute()
            transaction.add_ours(minute, weight)
            transaction.record_seen(minute, at_least=used or 0, more=0 if used else weight)

    def release(self) -> None:
        """Give back what was set aside and not used."""
        if not self._clock.known:
            return  # nothing was ever claimed
        with self._lock, self._ledger.transaction(self._group) as transaction:
            self._flush(transaction, keep=0)

    # -- blocks -----------------------------------------------------------------------------------------------

    def block(self, error: RateLimited | Banned) -> None:
        """Stop the requests of every process to the group after a 429 or 418, until the block is over.

        The end is stored by the clock that all users of the ledger share, even before they know the server's time: for
        a file, the time since the boot. After a reboot, the end by the server's clock counts. Until that clock is
        known, the header ``Date`` of the response takes its place.
        """
        now = int(self._clock.now()) if self._clock.known else response_time(error)
        is_ban = isinstance(error, Banned)
        self._block_checked_at = 0.0
        with self._ledger.transaction(self._group) as transaction:
            last, shared = transaction.block(), transaction.now()
            is_comparable = last is not None and last.clock == shared.clock
            number = number_in_a_row(last.number, last.ends, int(shared.ms)) if last and is_comparable else 1
            lasts = blocked_for(error, now, number)
            until = None if now is None else now + lasts
            reason = f"{'banned' if is_ban else 'no requests'} {_end_in_words(until, lasts)}: {error.reason}"
            ends = int(shared.ms + lasts + self._clock.error_ms)
            transaction.store_block(Block(ends, is_ban, reason, number, until, shared.clock))
        self._blocks, self._block_seen_at = number, time.monotonic()

    def succeed(self, sent: float) -> None:
        """Note that a request succeeded: after the last block, so that the next one is the first in a row again.

        Another process may have stored a newer block since the request was sent, of which the success says nothing.

        Args:
            sent: ``time.monotonic()`` when the request was sent, seconds.
        """
        if self._blocks and sent > self._block_seen_at:
            self._blocks = 0
            with self._ledger.transaction(self._group) as transaction:
                clock, now = transaction.now()
                transaction.end_blocks_in_a_row(clock, now - (time.monotonic() - sent) * 1_000)

    def wait_for_block(self, stop: threading.Event) -> None:
        """Wait until no 429 or 418 forbids calls. Does not need the server's clock.

        Raises:
            Cancelled: ``stop`` was set.
            BannedForLong, RateLimitedForLong: The IP is blocked for longer than the patience of the settings.
        """
        with waits() as announce:
            while not stop.is_set():
                with self._ledger.transaction(self._group) as transaction:
                    pause = self._pause_of_block(transaction)
                if pause is None:
                    return
                announce(pause.wait)
                stop.wait(pause.seconds)
        raise Cancelled

    def _pause_of_block(self, transaction: Transaction) -> _Pause | None:
        """Return how long to wait before checking the block again; None if nothing forbids calls."""
        block = transaction.block()
        seconds = self._seconds_left(block, transaction.now()) if block else 0.0
        if block is None or seconds <= 0:
            return None
        if seconds > longest_wait(block.banned, self._patience):
            kind = BannedForLong if block.banned else RateLimitedForLong
            raise kind(
                f"{block.reason}; this is longer than BINANCE_ASSETS_BAN_PATIENCE ({self._patience:g} s): "
                "try again then, or raise the setting to wait for it"
            )
        self._blocks, self._block_seen_at = block.number, time.monotonic()
        reason = "Binance has banned this IP" if block.banned else "Binance asked for a pause"
        wait = Wait.of_seconds(reason, seconds) if block.until is None else Wait(reason, block.until)
        return _Pause(min(max(seconds, _POLL_SECONDS), _LONGEST_POLL_SECONDS), wait)

    def _seconds_left(self, block: Block, now: SharedTime) -> float:
        """Return in how many seconds a block ends; negative if it is over.

        What is left of a block from before a reboot is unknown until the server's time is known. The request that asks
        for the time is sent, and if the block is not over, its response says so.
        """
        if block.clock == now.clock:
            return (block.ends - now.ms) / 1_000
        if block.until is None or not self._clock.known:
            return 0.0
        return (block.until - self._clock.now() + self._clock.error_ms) / 1_000

    # -- the lease --------------------------------------------------------------------------------------------

    def _try_to_acquire(self, weight: int) -> _Pause | None:
        """Acquire ``weight`` and return None, or return how long to wait before the next attempt."""
        lease, minute = self._lease, self._current_minute()
        if time.monotonic() - self._block_checked_at > _BLOCK_CHECK_SECONDS:
            with self._ledger.transaction(self._group) as transaction:
                pause = self._pause_of_block(transaction)
            if pause is not None:
                return pause
            self._block_checked_at = time.monotonic()
        if self._blocks and lease.in_flight:
            return _Pause(_POLL_SECONDS, Wait("one request probes whether Binance's pause is over; waiting"))
        if lease.minute != minute or lease.unused < weight or self._used_up_by_others(minute, weight):
            pause = self._renew(minute, weight)
            if pause is not None:
                return pause
        lease.unused -= weight
        lease.in_flight += weight
        return None

    def _used_up_by_others(self, minute: int, weight: int) -> bool:
        """Return whether the headers show that other programs have used weight that the lease holds."""
        return self._lease.seen.get(minute, 0) + self._lease.in_flight + weight > self._limit

    def _renew(self, minute: int, weight: int) -> _Pause | None:
        """Claim weight for this call and some more; return None, or how long to wait before the next attempt."""
        with self._ledger.transaction(self._group) as transaction:
            pause = self._pause_of_block(transaction)
            if pause is not None:
                return pause
            self._drop_lost_leases(transaction)
            self._flush(transaction, keep=0)
            state = transaction.minute(minute, self._documented_limit)
            self._limit = state.limit
            granted = claimable(state, self._share, weight)
            if granted:
                transaction.add_ours(minute, granted)
                self._lease.minute, self._lease.unused = minute, granted
                self._flush(transaction, keep=granted)
                return None
            others = transaction.other_leases(self._lease.row)
        next_minute = (minute + 1) * MINUTE
        if state.in_flight:
            return _Pause(_POLL_SECONDS, Wait(_held_by(others), next_minute))
        to_next = (next_minute - self._clock.now() + self._clock.error_ms) / 1_000
        seconds = min(max(to_next, _POLL_SECONDS), _LONGEST_POLL_SECONDS)
        return _Pause(seconds, Wait("this minute's request weight is spent; waiting", next_minute))

    def _flush(self, transaction: Transaction, keep: int) -> None:
        """Write to the ledger what this process has used, and give back all unused weight except ``keep``."""
        lease = self._lease
        for minute in {*lease.seen, *lease.more}:
            transaction.record_seen(minute, lease.seen.get(minute, 0), lease.more.get(minute, 0))
        lease.more.clear()
        lease.seen = {minute: seen for minute, seen in lease.seen.items() if minute >= lease.minute - 1}
        if lease.unused > keep:
            transaction.add_ours(lease.minute, keep - lease.unused)
            lease.unused = keep
        self._write_lease(transaction, lease.in_flight + keep)
        lease.flushed_at = time.monotonic()

    def _write_lease(self, transaction: Transaction, weight: int) -> None:
        lease, expires = self._lease, int(self._clock.now()) + self._lifetime_ms
        if weight == 0:
            transaction.delete_lease(lease.row)
            lease.row = None
        else:
            lease.row = transaction.write_lease(lease.row, weight, this_process(), expires)

    def _drop_lost_leases(self, transaction: Transaction) -> None:
        """Delete expired leases and those of dead processes; record their weight, which the server may have counted.

        A process of another container may be alive, and so may one of version 0.1.0, whose lease does not say where it
        runs. Their leases expire.
        """
        now = int(self._clock.now())
        for lease in transaction.other_leases(self._lease.row):
            holder = parse_identity(lease.holder)
            if lease.expires < now or (holder is not None and is_proved_dead(holder)):
                transaction.delete_lease(lease.row)
                transaction.record_seen(self._current_minute(), more=lease.weight)

    def _current_minute(self) -> int:
        """Return the minute that has certainly begun on the server."""
        return int((self._clock.now() - self._clock.error_ms) // MINUTE)


def _held_by(others: list[StoredLease]) -> str:
    """Return in words who holds the rest of a minute's weight, given the leases of other processes."""
    others = [lease for lease in others if lease.holder != str(this_process())]
    if not others:
        return "requests in flight hold the rest of this minute's weight; waiting, at most"
    holder = parse_identity(max(others, key=lambda lease: lease.weight).holder)
    name = "another process" if holder is None else f"process {holder.pid}"
    return f"{name} holds the rest of this minute's weight; waiting, at most"


def _end_in_words(until: int | None, lasts: int) -> str:
    """Return when a block ends: by the server's clock (ms UTC), or, where that is unknown, after how many ms."""
    if until is None:
        return f"for {lasts / 1_000:.0f} s"
    return f"until {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(until / 1_000))} UTC"
