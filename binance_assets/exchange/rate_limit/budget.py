"""The weight budget of this IP, shared by every process of the host.

Binance counts request weight per IP and UTC minute. All our processes write what they are about to use, and what
the server says was used, into one ledger; :func:`spendable` decides from it whether a call may be made. The
answer's used-weight header is the truth and covers other programs too.

Two clocks never quite agree, so a call that is in flight when a minute ends counts in both minutes, and a new
minute is begun only when the server's has surely begun.

A process claims weight for some calls at a time, its *lease*, and hands it to its threads from memory: fifty threads
that each wrote to the file for each call would spend more time waiting for each other than for Binance.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from dataclasses import dataclass, field
from typing import Final

from binance_assets.exchange.clock import ServerClock
from binance_assets.exchange.errors import Banned, BannedForLong, Cancelled, RateLimited
from binance_assets.exchange.rate_limit.ledger import Ledger
from binance_assets.exchange.rate_limit.policy import Minute, blocked_until, claimable, spendable
from binance_assets.model.timestamps import DAY, MINUTE
from binance_assets.processes import is_alive

_LIMIT_AGE_MS: Final = DAY


_FLUSH_SECONDS: Final = 0.5


_LOOK_FOR_BLOCK_SECONDS: Final = 0.1


# By how much the wall clock may have drifted, ms, since another process asked the server for its time.
_CACHED_OFFSET_ERROR_MS: Final = 1_000.0


_POLL_SECONDS: Final = 0.01


_LONGEST_POLL_SECONDS: Final = 0.5


@dataclass(slots=True)
class _Lease:
    """What this process has claimed, and what it has not flushed_at the ledger yet.

    Attributes:
        row: The lease's number in the ledger; 0 where it has none.
        minute: The minute that ``unused`` was claimed in.
        unused: Weight set aside and not handed out.
        in_flight: Weight of calls that are not answered yet.
        seen: Of each minute, the largest used-weight header.
        more: Of each minute, weight that is to be charged on top, because nobody knows who counted it.
        flushed_at: ``time.monotonic()`` of the last word to the ledger.
    """

    row: int = 0
    minute: int = 0
    unused: int = 0
    in_flight: int = 0
    seen: dict[int, int] = field(default_factory=dict)
    more: dict[int, int] = field(default_factory=dict)
    flushed_at: float = 0.0


class Budget:
    """The budget of one pool, as one process sees and spends it.

    Args:
        ledger: The ledger that the processes share.
        address: Who counts, see :func:`binance_assets.model.markets.limits_address`.
        rate_limit_group: The pool's name in the table of markets.
        clock: The server's clock.
        documented_limit: The weight limit of a minute that counts until :meth:`remember_limit` is called.
        share: The part of the limit to use, 0 to 1.
        patience: The longest ban to wait for, seconds.
        call_lifetime: After how many seconds a call that was never settled is given up for lost.
    """

    def __init__(
        self,
        ledger: Ledger,
        address: str,
        rate_limit_group: str,
        clock: ServerClock,
        documented_limit: int,
        share: float,
        patience: float,
        call_lifetime: float,
    ) -> None:
        self._ledger = ledger
        self._pool = (address, rate_limit_group)
        self._clock = clock
        self._documented_limit = self._limit = documented_limit
        self._share = share
        self._patience = patience
        self._lifetime_ms = int(call_lifetime * 1_000)
        self._gate = threading.Lock()
        self._lock = threading.Lock()
        self._lease = _Lease()
        self._looked_for_block = 0.0

    @property
    def known_limit(self) -> int | None:
        """The weight limit of a minute, where it was read less than a day ago."""
        now = self._clock.now()
        with self._ledger.transaction() as database:
            row = database.execute(
                "SELECT weight_limit, read_at FROM pool WHERE address = ? AND name = ?", self._pool
            ).fetchone()
        if row is None or row[0] is None or not 0 <= now - row[1] < _LIMIT_AGE_MS:
            return None
        return int(row[0])

    def remember_limit(self, limit: int) -> None:
        """Store the limit that exchangeInfo named just now; a lease under another limit is given back."""
        with self._lock, self._ledger.transaction() as database:
            database.execute(
                "INSERT INTO pool (address, name, weight_limit, read_at) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (address, name) DO UPDATE SET weight_limit = excluded.weight_limit, "
                "read_at = excluded.read_at",
                (*self._pool, limit, int(self._clock.now())),
            )
            self._limit = limit
            self._flush(database, keep=0)

    def spendable_now(self) -> int:
        """The weight that this minute still buys."""
        with self._lock, self._ledger.transaction() as database:
            self._flush(database, keep=0)
            return spendable(self._minute(database, self._current_minute()), self._share)

    def acquire(self, weight: int, stop: threading.Event) -> None:
        """Set ``weight`` aside for one call; wait for it as long as needed. Each take is followed by a settle.

        Raises:
            Cancelled: ``stop`` was set meanwhile.
            BannedForLong: The IP is banned for longer than the patience of the settings.
            LedgerError: The ledger cannot be written.
        """
        # One thread of the process waits for weight at a time; the others queue behind it instead of polling.
        with self._gate:
            while not stop.is_set():
                with self._lock:
                    wait = self._try_to_acquire(weight)
                if not wait:
                    return
                stop.wait(wait)
        raise Cancelled

    def _try_to_acquire(self, weight: int) -> float:
        """0 where the weight was taken; otherwise how many seconds to wait before the next try."""
        lease, minute = self._lease, self._current_minute()
        if time.monotonic() - self._looked_for_block > _LOOK_FOR_BLOCK_SECONDS:
            with self._ledger.transaction() as database:
                wait = self._seconds_blocked(database)
            if wait:
                return wait
            self._looked_for_block = time.monotonic()
        if lease.minute != minute or lease.unused < weight or self._used_up_by_others(minute, weight):
            wait = self._renew(minute, weight)
            if wait:
                return wait
        lease.unused -= weight
        lease.in_flight += weight
        return 0.0

    def _used_up_by_others(self, minute: int, weight: int) -> bool:
        return self._lease.seen.get(minute, 0) + self._lease.in_flight + weight > self._limit

    def _renew(self, minute: int, weight: int) -> float:
        """Claim weight for this call and some more; 0, or how many seconds to wait before the next try."""
        with self._ledger.transaction() as database:
            wait = self._seconds_blocked(database)
            if wait:
                return wait
            self._drop_lost_leases(database)
            self._flush(database, keep=0)
            known = self._minute(database, minute)
            self._limit = known.limit
            granted = claimable(known, self._share, weight)
            if granted:
                self._charge_ours(database, minute, granted)
                self._lease.minute, self._lease.unused = minute, granted
                self._flush(database, keep=granted)
                return 0.0
        if known.in_flight:
            return _POLL_SECONDS
        to_next = ((minute + 1) * MINUTE - self._clock.now() + self._clock.error_ms) / 1_000
        return min(max(to_next, _POLL_SECONDS), _LONGEST_POLL_SECONDS)

    def record(self, weight: int, used: int | None, sent: float, received: float) -> None:
        """Enter what became of a call.

        Args:
            weight: What was taken for it.
            used: The answer's used-weight header; None where there was no answer, or none with the header.
            sent: ``time.monotonic()`` when it was sent.
            received: ``time.monotonic()`` when it was answered or given up.
        """
        error = self._clock.error_ms
        first = int((self._clock.at(sent) - error) // MINUTE)
        last = int((self._clock.at(received) + error) // MINUTE)
        with self._lock:
            lease = self._lease
            lease.in_flight -= weight
            # Across the edge of a minute a counter that fell by far is the new minute's; any other may be either's,
            # for answers overtake each other.
            if used is not None and (first == last or 2 * used < lease.seen.get(first, 0)):
                lease.seen[last] = max(lease.seen.get(last, 0), used)
            else:
                lease.more[last] = lease.more.get(last, 0) + weight
            if lease.in_flight == 0 or time.monotonic() - lease.flushed_at > _FLUSH_SECONDS:
                with self._ledger.transaction() as database:
                    self._flush(database, keep=lease.unused if lease.in_flight else 0)

    def release(self) -> None:
        """Give back what was set aside and not used."""
        if not self._clock.known:
            return  # nothing was ever claimed
        with self._lock, self._ledger.transaction() as database:
            self._flush(database, keep=0)

    def _flush(self, database: sqlite3.Connection, keep: int) -> None:
        """Bring the ledger up to date with this process, which keeps so much unused weight."""
        lease = self._lease
        for minute in {*lease.seen, *lease.more}:
            self._see(database, minute, lease.seen.get(minute, 0), lease.more.get(minute, 0))
        lease.more.clear()
        lease.seen = {minute: seen for minute, seen in lease.seen.items() if minute >= lease.minute - 1}
        if lease.unused > keep:
            self._charge_ours(database, lease.minute, keep - lease.unused)
            lease.unused = keep
        self._write_lease(database, lease.in_flight + keep)
        lease.flushed_at = time.monotonic()

    def _write_lease(self, database: sqlite3.Connection, weight: int) -> None:
        lease, expires = self._lease, int(self._clock.now()) + self._lifetime_ms
        if weight == 0:
            database.execute("DELETE FROM lease WHERE id = ?", (lease.row,))
            lease.row = 0
            return
        written = database.execute(
            "UPDATE lease SET weight = ?, expires = ? WHERE id = ?", (weight, expires, lease.row)
        )
        if not written.rowcount:
            inserted = database.execute(
                "INSERT INTO lease (address, name, weight, pid, expires) VALUES (?, ?, ?, ?, ?)",
                (*self._pool, weight, os.getpid(), expires),
            )
            lease.row = int(inserted.lastrowid or 0)

    def wait_for_block(self, stop: threading.Event) -> None:
        """Wait until no 429 or 418 forbids calls any more. Needs no server clock.

        Raises:
            Cancelled: ``stop`` was set meanwhile.
            BannedForLong: The IP is banned for longer than the patience of the settings.
        """
        while not stop.is_set():
            with self._ledger.transaction() as database:
                wait = self._seconds_blocked(database)
            if not wait:
                return
            stop.wait(wait)
        raise Cancelled

    def _seconds_blocked(self, database: sqlite3.Connection) -> float:
        """Seconds to wait before asking again; 0 where nothing forbids calls."""
        row = database.execute(
            "SELECT blocked_until, banned, reason FROM pool WHERE address = ? AND name = ?", self._pool
        ).fetchone()
        seconds = row[0] / 1_000 - time.time() if row else 0.0
        if seconds <= 0:
            return 0.0
        if row[1] and seconds > self._patience:
            raise BannedForLong(f"{row[2]}; this is longer than BINANCE_ASSETS_BAN_PATIENCE ({self._patience:g} s)")
        return float(min(max(seconds, _POLL_SECONDS), _LONGEST_POLL_SECONDS))

    def _charge_ours(self, database: sqlite3.Connection, minute: int, weight: int) -> None:
        if not database.execute(
            "UPDATE minute SET ours = ours + ? WHERE address = ? AND name = ? AND minute = ?",
            (weight, *self._pool, minute),
        ).rowcount:
            database.execute(
                "DELETE FROM minute WHERE address = ? AND name = ? AND minute < ?", (*self._pool, minute - 1)
            )
            database.execute("INSERT INTO minute VALUES (?, ?, ?, ?, 0)", (*self._pool, minute, weight))

    def remember_clock(self) -> None:
        """Store how far the server's clock is from this machine's, for processes to come."""
        offset = self._clock.now() - time.time() * 1_000
        with self._ledger.transaction() as database:
            database.execute(
                "INSERT INTO pool (address, name, clock_offset) VALUES (?, ?, ?) "
                "ON CONFLICT (address, name) DO UPDATE SET clock_offset = excluded.clock_offset",
                (*self._pool, offset),
            )

    def recall_clock(self) -> None:
        """Set the clock by what another process stored, where one did: enough to tell which minute it is."""
        with self._ledger.transaction() as database:
            row = database.execute(
                "SELECT clock_offset FROM pool WHERE address = ? AND name = ?", self._pool
            ).fetchone()
        if row is not None and row[0] is not None:
            self._clock.assume(time.time() * 1_000 + row[0], _CACHED_OFFSET_ERROR_MS)

    def record_unclaimed(self, weight: int, used: int | None) -> None:
        """Enter a call that was made without a claim, just now.

        Args:
            weight: What it cost.
            used: The answer's used-weight header, None where it had none.
        """
        with self._ledger.transaction() as database:
            minute = self._current_minute()
            self._charge_ours(database, minute, weight)
            self._see(database, minute, at_least=used or 0, more=0 if used else weight)

    def block(self, error: RateLimited | Banned) -> None:
        """Stop every process on the pool after a 429 or 418, until it is over.

        The end is stored by this machine's wall clock, which all processes of the host share: it must be known
        even before the server's time can be asked.
        """
        here = time.time() * 1_000
        server = self._clock.now() if self._clock.known else here
        until = blocked_until(error, int(server))
        banned = isinstance(error, Banned)
        reason = error.reason
        if banned:
            reason = f"banned until {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(until / 1_000))} UTC: {reason}"
        ends = int(here + until - server + self._clock.error_ms)
        self._looked_for_block = 0.0
        with self._ledger.transaction() as database:
            database.execute(
                "INSERT INTO pool (address, name, blocked_until, banned, reason) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (address, name) DO UPDATE SET banned = excluded.banned, reason = excluded.reason, "
                "blocked_until = excluded.blocked_until WHERE excluded.blocked_until > blocked_until",
                (*self._pool, ends, int(banned), reason),
            )

    def _current_minute(self) -> int:
        """The minute that has surely begun on the server."""
        return int((self._clock.now() - self._clock.error_ms) // MINUTE)

    def _minute(self, database: sqlite3.Connection, minute: int) -> Minute:
        limit = database.execute("SELECT weight_limit FROM pool WHERE address = ? AND name = ?", self._pool).fetchone()
        known = database.execute(
            "SELECT ours, seen FROM minute WHERE address = ? AND name = ? AND minute = ?", (*self._pool, minute)
        ).fetchone()
        in_flight = database.execute(
            "SELECT coalesce(sum(weight), 0) FROM lease WHERE address = ? AND name = ?", self._pool
        ).fetchone()
        ours, seen = known or (0, 0)
        return Minute((limit and limit[0]) or self._documented_limit, ours, seen, in_flight[0])

    def _see(self, database: sqlite3.Connection, minute: int, at_least: int = 0, more: int = 0) -> None:
        database.execute(
            "INSERT INTO minute VALUES (?, ?, ?, 0, ?) ON CONFLICT (address, name, minute) "
            "DO UPDATE SET seen = max(seen + ?, ?)",
            (*self._pool, minute, max(at_least, more), more, at_least),
        )

    def _drop_lost_leases(self, database: sqlite3.Connection) -> None:
        """Charge what processes that died held, which may have been counted, and forget it."""
        now = int(self._clock.now())
        leases = database.execute(
            "SELECT id, weight, pid, expires FROM lease WHERE address = ? AND name = ? AND id <> ?",
            (*self._pool, self._lease.row),
        ).fetchall()
        for row, weight, pid, expires in leases:
            if expires < now or not is_alive(pid):
                database.execute("DELETE FROM lease WHERE id = ?", (row,))
                self._see(database, self._current_minute(), more=weight)
