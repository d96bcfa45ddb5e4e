"""The weight budget of this IP, shared by every process of the host.

Binance counts request weight per IP and UTC minute. All our processes write what they are about to use, and what
the server says was used, into one ledger; :func:`spendable` decides from it whether a call may be made. The
answer's used-weight header is the truth and covers other programs too.

Two clocks never quite agree, so a call that is in flight when a minute ends counts in both minutes, and a new
minute is begun only when the server's has surely begun.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from binance_assets.exchange.clock import ServerClock
from binance_assets.exchange.errors import Banned, BannedForLong, RateLimited, blocked_until
from binance_assets.processes import is_alive
from binance_assets.settings import ConfigurationError

MINUTE_MS: Final = 60_000
_LIMIT_AGE_MS: Final = 24 * 60 * MINUTE_MS
_POLL_SECONDS: Final = 0.01
_LONGEST_POLL_SECONDS: Final = 0.5

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS pool (
    address TEXT, name TEXT, weight_limit INTEGER, read_at INTEGER NOT NULL DEFAULT 0,
    blocked_until INTEGER NOT NULL DEFAULT 0, banned INTEGER NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (address, name));
CREATE TABLE IF NOT EXISTS minute (
    address TEXT, name TEXT, minute INTEGER, ours INTEGER NOT NULL DEFAULT 0, seen INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (address, name, minute));
CREATE TABLE IF NOT EXISTS claim (
    id INTEGER PRIMARY KEY, address TEXT, name TEXT, minute INTEGER, weight INTEGER, pid INTEGER,
    expires INTEGER);
"""


class LedgerError(ConfigurationError):
    """The ledger file cannot be used; the message names the file and the setting."""


class Stopped(Exception):
    """The run was stopped while it waited."""


@dataclass(frozen=True, slots=True)
class Minute:
    """What is known of one minute of one pool.

    Attributes:
        limit: The weight that Binance allows an IP in a minute.
        ours: Weight that processes of this host have claimed in it.
        seen: Weight that the server is known to have counted, other programs' included.
        in_flight: Weight of our calls that are not answered yet, whichever minute they were claimed in.
    """

    limit: int
    ours: int
    seen: int
    in_flight: int


def spendable(minute: Minute, share: float = 1.0) -> int:
    """The weight that may still be claimed in this minute; never negative.

    Two bounds hold at once: all that the server counts stays within the limit, and what we use stays within our
    share of it. Calls in flight may or may not be part of ``seen`` already; they are counted on top, which errs
    on the safe side and corrects itself as they are answered.

    Args:
        minute: What is known of the minute.
        share: The part of the limit that we allow ourselves, 0 to 1.
    """
    until_limit = minute.limit - minute.seen - minute.in_flight
    until_share = int(minute.limit * share) - minute.ours
    return max(0, min(until_limit, until_share))


@dataclass(frozen=True, slots=True)
class Claim:
    """Weight set aside for one call."""

    id: int
    minute: int
    weight: int


class Ledger:
    """The file in which all processes of a host count; any number of threads and processes may use it at once.

    Its content matters for a minute (bans and limits: longer), so it is written without waiting for the disk.

    Args:
        path: The SQLite file; it and its folder are made where they are missing.

    Raises:
        LedgerError: The file cannot be opened or is none of ours.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=OFF")
            self._database.executescript(_TABLES)
        except (OSError, sqlite3.Error) as error:
            raise LedgerError(f"the ledger {path} cannot be used ({error}); set BINANCE_ASSETS_LEDGER") from None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Exclusive access to the tables; what is done becomes visible to others at once, or not at all.

        Raises:
            LedgerError: The file cannot be written.
        """
        with self._lock:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                try:
                    yield self._database
                except BaseException:
                    self._database.execute("ROLLBACK")
                    raise
                self._database.execute("COMMIT")
            except sqlite3.Error as error:
                raise LedgerError(
                    f"the ledger {self._path} cannot be used ({error}); set BINANCE_ASSETS_LEDGER"
                ) from None

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()


class Budget:
    """The budget of one pool, as one process sees and spends it.

    Args:
        ledger: The ledger that the processes share.
        address: Who counts, see :func:`binance_assets.markets.limits_address`.
        pool: The pool's name in the table of markets.
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
        pool: str,
        clock: ServerClock,
        documented_limit: int,
        share: float,
        patience: float,
        call_lifetime: float,
    ) -> None:
        self._ledger = ledger
        self._pool = (address, pool)
        self._clock = clock
        self._documented_limit = documented_limit
        self._share = share
        self._patience = patience
        self._lifetime_ms = int(call_lifetime * 1_000)
        self._gate = threading.Lock()

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
        """Store the limit that exchangeInfo named just now."""
        with self._ledger.transaction() as database:
            database.execute(
                "INSERT INTO pool (address, name, weight_limit, read_at) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (address, name) DO UPDATE SET weight_limit = excluded.weight_limit, "
                "read_at = excluded.read_at",
                (*self._pool, limit, int(self._clock.now())),
            )

    def spendable_now(self) -> int:
        """The weight that this minute still buys."""
        with self._ledger.transaction() as database:
            return spendable(self._minute(database, self._current_minute()), self._share)

    def take(self, weight: int, stop: threading.Event) -> Claim:
        """Set ``weight`` aside for one call; wait for it as long as needed.

        Raises:
            Stopped: ``stop`` was set meanwhile.
            BannedForLong: The IP is banned for longer than the patience of the settings.
            LedgerError: The ledger cannot be written.
        """
        # One thread of the process asks the ledger at a time; the others queue behind it instead of polling.
        with self._gate:
            while not stop.is_set():
                claim, wait = self._try_to_take(weight)
                if claim is not None:
                    return claim
                stop.wait(wait)
        raise Stopped

    def _try_to_take(self, weight: int) -> tuple[Claim | None, float]:
        """A claim, or how many seconds to wait before the next try."""
        now = self._clock.now()
        with self._ledger.transaction() as database:
            wait = self._block(database)
            if wait:
                return None, wait
            self._drop_lost_claims(database, now)
            minute = self._current_minute()
            known = self._minute(database, minute)
            # A single call dearer than the whole share is let through alone, or it would wait for ever.
            alone = known.ours == 0 and known.in_flight == 0 and known.seen == 0
            if weight <= spendable(known, self._share) or alone:
                return self._claim(database, minute, weight, now), 0.0
        if known.in_flight:
            return None, _POLL_SECONDS
        to_next = ((minute + 1) * MINUTE_MS - now + self._clock.error_ms) / 1_000
        return None, min(max(to_next, _POLL_SECONDS), _LONGEST_POLL_SECONDS)

    def wait_for_block(self, stop: threading.Event) -> None:
        """Wait until no 429 or 418 forbids calls any more. Needs no server clock.

        Raises:
            Stopped: ``stop`` was set meanwhile.
            BannedForLong: The IP is banned for longer than the patience of the settings.
        """
        while not stop.is_set():
            with self._ledger.transaction() as database:
                wait = self._block(database)
            if not wait:
                return
            stop.wait(wait)
        raise Stopped

    def _block(self, database: sqlite3.Connection) -> float:
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

    def _claim(self, database: sqlite3.Connection, minute: int, weight: int, now: float) -> Claim:
        if not database.execute(
            "UPDATE minute SET ours = ours + ? WHERE address = ? AND name = ? AND minute = ?",
            (weight, *self._pool, minute),
        ).rowcount:
            database.execute("DELETE FROM minute WHERE address = ? AND name = ? AND minute < ?", (*self._pool, minute))
            database.execute("INSERT INTO minute VALUES (?, ?, ?, ?, 0)", (*self._pool, minute, weight))
        row = database.execute(
            "INSERT INTO claim (address, name, minute, weight, pid, expires) VALUES (?, ?, ?, ?, ?, ?)",
            (*self._pool, minute, weight, os.getpid(), int(now) + self._lifetime_ms),
        )
        return Claim(int(row.lastrowid or 0), minute, weight)

    def settle(self, claim: Claim, used: int | None, sent: float, received: float) -> None:
        """Enter what became of a call.

        Args:
            claim: The weight set aside for it.
            used: The answer's used-weight header; None where there was no answer, or none with the header.
            sent: ``time.monotonic()`` when it was sent.
            received: ``time.monotonic()`` when it was answered or given up.
        """
        error = self._clock.error_ms
        first = int((self._clock.at(sent) - error) // MINUTE_MS)
        last = int((self._clock.at(received) + error) // MINUTE_MS)
        with self._ledger.transaction() as database:
            if not database.execute("DELETE FROM claim WHERE id = ?", (claim.id,)).rowcount:
                return  # given up for lost meanwhile, and charged then
            if first == last and used is not None:
                self._see(database, last, at_least=used)
            elif used is not None and used < self._minute(database, first).seen:
                self._see(database, last, at_least=used)  # the counter fell, so it is the new minute's
            else:
                self._see(database, last, more=claim.weight)

    def charge(self, weight: int, used: int | None) -> None:
        """Enter a call that was made without a claim, just now.

        Args:
            weight: What it cost.
            used: The answer's used-weight header, None where it had none.
        """
        with self._ledger.transaction() as database:
            self._see(database, self._current_minute(), at_least=used or 0, more=0 if used else weight)

    def refused(self, error: RateLimited | Banned) -> None:
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
        with self._ledger.transaction() as database:
            database.execute(
                "INSERT INTO pool (address, name, blocked_until, banned, reason) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (address, name) DO UPDATE SET banned = excluded.banned, reason = excluded.reason, "
                "blocked_until = excluded.blocked_until WHERE excluded.blocked_until > blocked_until",
                (*self._pool, ends, int(banned), reason),
            )

    def _current_minute(self) -> int:
        """The minute that has surely begun on the server."""
        return int((self._clock.now() - self._clock.error_ms) // MINUTE_MS)

    def _minute(self, database: sqlite3.Connection, minute: int) -> Minute:
        limit = database.execute("SELECT weight_limit FROM pool WHERE address = ? AND name = ?", self._pool).fetchone()
        known = database.execute(
            "SELECT ours, seen FROM minute WHERE address = ? AND name = ? AND minute = ?", (*self._pool, minute)
        ).fetchone()
        in_flight = database.execute(
            "SELECT coalesce(sum(weight), 0) FROM claim WHERE address = ? AND name = ?", self._pool
        ).fetchone()
        ours, seen = known or (0, 0)
        return Minute((limit and limit[0]) or self._documented_limit, ours, seen, in_flight[0])

    def _see(self, database: sqlite3.Connection, minute: int, at_least: int = 0, more: int = 0) -> None:
        database.execute(
            "INSERT INTO minute VALUES (?, ?, ?, 0, ?) ON CONFLICT (address, name, minute) "
            "DO UPDATE SET seen = max(seen + ?, ?)",
            (*self._pool, minute, max(at_least, more), more, at_least),
        )

    def _drop_lost_claims(self, database: sqlite3.Connection, now: float) -> None:
        """Charge the calls of processes that died, which may have been counted, and forget them."""
        claims = database.execute(
            "SELECT id, weight, pid, expires FROM claim WHERE address = ? AND name = ? AND (pid <> ? OR expires < ?)",
            (*self._pool, os.getpid(), int(now)),
        ).fetchall()
        for number, weight, pid, expires in claims:
            if expires < now or not is_alive(pid):
                database.execute("DELETE FROM claim WHERE id = ?", (number,))
                self._see(database, self._current_minute(), more=weight)
