"""The ledger in which all processes that share an IP record request weight, and the statements that read and write it.

The statements are the same for both databases of :mod:`~binance_assets.exchange.rate_limit.engines`.
"""

from __future__ import annotations

import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic import SecretStr

from binance_assets.exchange.errors import Cancelled
from binance_assets.exchange.rate_limit.engines import AWAY_SECONDS, Engine, PostgresEngine, SharedTime, SqliteEngine
from binance_assets.exchange.rate_limit.policy import Minute, believed_limit
from binance_assets.processes import ProcessIdentity
from binance_assets.settings import ConfigurationError

# A number below 2^53 for each lease, by chance: the databases have no common way to return one that they choose.
_LEASE_BITS: Final = 53


class LedgerError(ConfigurationError):
    """The ledger cannot be used; the message names it and the setting."""


class LedgerConnectionLost(LedgerError):
    """A Postgres server went away within a transaction, as by a restart: whether it was committed is unknown."""


class RateLimitGroup(NamedTuple):
    """The markets that draw on one weight limit, at one counter.

    Attributes:
        address: The hosts that count together, see :func:`binance_assets.model.markets.limits_address`.
        name: Name of the group in the table of markets.
    """

    address: str
    name: str


@dataclass(frozen=True, slots=True)
class StoredLimit:
    """The weight limit of a minute, and the server's time (ms UTC) at which exchangeInfo named it."""

    weight: int
    read_at: int


@dataclass(frozen=True, slots=True)
class Block:
    """A 429 or 418 that stops every process of the group.

    Attributes:
        ends: When it ends, ms by ``clock``.
        banned: Whether it is a ban (418).
        reason: What happened, in one line.
        number: Which block in a row it is, from 1; 0 if a request has succeeded since.
        until: When it ends by the server's clock, ms UTC; None if that clock was unknown.
        clock: The clock of ``ends``, see :meth:`Transaction.now`.
    """

    ends: int
    banned: bool
    reason: str
    number: int = 1
    until: int | None = None
    clock: str = ""


@dataclass(frozen=True, slots=True)
class StoredClock:
    """The server's clock as a process read it.

    Attributes:
        offset: By how many ms the server's clock is ahead of ``clock``.
        read_at: When the server's time was read, ms by ``clock``.
        clock: The clock of both, see :meth:`Transaction.now`.
    """

    offset: float
    read_at: int
    clock: str


@dataclass(frozen=True, slots=True)
class StoredLease:
    """Weight that a process has set aside or that its calls in flight may cost.

    Attributes:
        row: Number of the lease in the ledger.
        weight: The weight.
        holder: Identity of the process that holds it, as text; empty if version 0.1.0 wrote it.
        expires: Server's time, ms UTC, after which the lease counts as lost.
    """

    row: int
    weight: int
    holder: str
    expires: int


class Transaction:
    """Reads and writes of one rate-limit group, which become visible to other processes all at once.

    Obtained from :meth:`Ledger.transaction`. Minutes are numbered from the epoch (UTC).
    """

    def __init__(self, engine: Engine, group: RateLimitGroup) -> None:
        self._database = engine
        self._group = group

    def now(self) -> SharedTime:
        """Return the time that all users of the ledger share."""
        return self._database.now()

    def groups(self) -> list[RateLimitGroup]:
        """Return all groups of which the ledger has records, by address and name."""
        rows = self._database.execute(
            "SELECT address, name FROM pool UNION SELECT address, name FROM minute "
            "UNION SELECT address, name FROM block ORDER BY address, name"
        ).fetchall()
        return [RateLimitGroup(*row) for row in rows]

    def limit(self) -> StoredLimit | None:
        """Return the stored weight limit; None if no process has read it yet."""
        row = self._row("SELECT weight_limit, read_at FROM pool WHERE address = ? AND name = ?")
        return None if row is None or row[0] is None else StoredLimit(row[0], row[1])

    def store_limit(self, limit: StoredLimit) -> None:
        """Store the weight limit."""
        self._database.execute(
            "INSERT INTO pool (address, name, weight_limit, read_at) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (address, name) DO UPDATE SET weight_limit = excluded.weight_limit, "
            "read_at = excluded.read_at",
            (*self._group, limit.weight, limit.read_at),
        )

    def minute(self, number: int, documented_limit: int) -> Minute:
        """Return what is known of a minute.

        Args:
            number: The minute.
            documented_limit: The weight limit that applies if none is stored that is to be believed.
        """
        limit = self.limit()
        row = self._row("SELECT ours, seen FROM minute WHERE address = ? AND name = ? AND minute = ?", number)
        ours, seen = row or (0, 0)
        (in_flight,) = self._row("SELECT coalesce(sum(weight), 0) FROM lease WHERE address = ? AND name = ?")
        believed = believed_limit(limit.weight, documented_limit) if limit else None
        return Minute(believed or documented_limit, ours, seen, in_flight)

    def add_ours(self, number: int, weight: int) -> None:
        """Add to the weight that processes of this host have claimed in a minute; delete minutes that are long over.

        Args:
            number: The minute.
            weight: What to add; negative to give unused weight back.
        """
        updated = self._database.execute(
            "UPDATE minute SET ours = ours + ? WHERE address = ? AND name = ? AND minute = ?",
            (weight, *self._group, number),
        )
        if not updated.rowcount:
            self._database.execute(
                "DELETE FROM minute WHERE address = ? AND name = ? AND minute < ?", (*self._group, number - 1)
            )
            self._database.execute("INSERT INTO minute VALUES (?, ?, ?, ?, 0)", (*self._group, number, weight))

    def record_seen(self, number: int, at_least: int = 0, more: int = 0) -> None:
        """Record what the server has counted in a minute.

        Args:
            number: The minute.
            at_least: The largest used-weight header; what is stored never falls below it.
            more: Weight to add because no header shows whether it was counted.
        """
        self._database.execute(
            "INSERT INTO minute VALUES (?, ?, ?, 0, ?) ON CONFLICT (address, name, minute) "
            "DO UPDATE SET seen = CASE WHEN minute.seen + ? > ? THEN minute.seen + ? ELSE ? END",
            (*self._group, number, max(at_least, more), more, at_least, more, at_least),
        )

    def write_lease(self, row: int | None, weight: int, holder: ProcessIdentity, expires: int) -> int:
        """Store a lease, and return its number.

        Args:
            row: Number of the lease; None for a new one. A lease that another process dropped is stored again.
            weight: The weight that it holds.
            holder: The process that holds it.
            expires: Server's time, ms UTC, after which it counts as lost.
        """
        written = self._database.execute(
            "UPDATE lease SET weight = ?, expires = ? WHERE id = ?", (weight, expires, row)
        )
        if row is not None and written.rowcount:
            return row
        number = secrets.randbits(_LEASE_BITS)
        self._database.execute(
            "INSERT INTO lease (id, address, name, weight, pid, expires, holder) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (number, *self._group, weight, holder.pid, expires, str(holder)),
        )
        return number

    def delete_lease(self, row: int | None) -> None:
        """Delete the lease with the number ``row``; do nothing for None or a lease that is gone."""
        self._database.execute("DELETE FROM lease WHERE id = ?", (row,))

    def other_leases(self, row: int | None) -> list[StoredLease]:
        """Return the leases of the group, without the one with the number ``row``."""
        rows = self._database.execute(
            "SELECT id, weight, holder, expires FROM lease "
            "WHERE address = ? AND name = ? AND id <> ? ORDER BY expires, id",
            (*self._group, -1 if row is None else row),
        ).fetchall()
        return [StoredLease(*values) for values in rows]

    def block(self) -> Block | None:
        """Return the block that was stored last, which may be over; None if there never was one."""
        row = self._row("SELECT ends, banned, reason, repeats, until, clock FROM block WHERE address = ? AND name = ?")
        return None if row is None else Block(row[0], bool(row[1]), *row[2:])

    def store_block(self, block: Block) -> None:
        """Store a block, unless the stored one ends later by the same clock.

        A stored one of another clock is replaced, because this one is newer.
        """
        self._database.execute(
            "INSERT INTO block (address, name, clock, ends, until, banned, reason, repeats) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (address, name) DO UPDATE SET clock = excluded.clock, "
            "ends = excluded.ends, until = excluded.until, banned = excluded.banned, reason = excluded.reason, "
            "repeats = excluded.repeats WHERE block.clock <> excluded.clock OR block.ends < excluded.ends",
            (*self._group, block.clock, block.ends, block.until, int(block.banned), block.reason, block.number),
        )

    def end_blocks_in_a_row(self, clock: str, sent: float) -> None:
        """Record that a request has succeeded; if it was sent before the end of the last block, do nothing.

        Args:
            clock: The clock of ``sent``. The next block by another clock is the first in a row in any case.
            sent: When the request was sent, ms by the clock.
        """
        self._database.execute(
            "UPDATE block SET repeats = 0 WHERE address = ? AND name = ? AND clock = ? AND ends <= ?",
            (*self._group, clock, sent),
        )

    def clock(self) -> StoredClock | None:
        """Return the server's clock as it was read last; None if no process has read it."""
        row = self._row('SELECT "offset", read_at, clock FROM clock WHERE address = ? AND name = ?')
        return None if row is None else StoredClock(*row)

    def store_clock(self, clock: StoredClock) -> None:
        """Store the server's clock."""
        self._database.execute(
            'INSERT INTO clock (address, name, clock, "offset", read_at) VALUES (?, ?, ?, ?, ?) '
            'ON CONFLICT (address, name) DO UPDATE SET clock = excluded.clock, "offset" = excluded."offset", '
            "read_at = excluded.read_at",
            (*self._group, clock.clock, clock.offset, clock.read_at),
        )

    def _row(self, statement: str, *parameters: int) -> Any:
        return self._database.execute(statement, (*self._group, *parameters)).fetchone()


class Ledger:
    """The record of the request weight of an IP; any number of threads and processes may use it at once.

    Args:
        location: The SQLite file of this host, or the URL of a Postgres server that several hosts share.
        away_seconds: For how long to wait for a Postgres server that was there and is away.

    Raises:
        LedgerError: The ledger cannot be opened.
    """

    def __init__(self, location: Path | SecretStr, away_seconds: float = AWAY_SECONDS) -> None:
        self._lock = threading.Lock()
        self._closed = False
        self._ending = threading.Event()
        self._engine: Engine
        if isinstance(location, SecretStr):
            self._engine = self._open_postgres(location.get_secret_value(), away_seconds)
        else:
            try:
                self._engine = SqliteEngine(location)
            except (OSError, sqlite3.Error, UnicodeDecodeError) as error:
                raise _unusable(f"ledger {location}", error, SqliteEngine.remedy) from None

    def _open_postgres(self, url: str, away_seconds: float) -> PostgresEngine:
        try:
            import psycopg2
        except ImportError:
            raise LedgerError(
                "BINANCE_ASSETS_LEDGER names a Postgres server, which needs psycopg2; "
                "install it with: pip install 'binance-assets[postgres]'"
            ) from None
        try:
            return PostgresEngine(url, self._ending, away_seconds)
        except psycopg2.Error as error:
            raise _unusable("ledger on Postgres", error, PostgresEngine.remedy) from None

    @contextmanager
    def transaction(self, group: RateLimitGroup) -> Iterator[Transaction]:
        """Yield exclusive access to the records of ``group``; all changes become visible at once, or none.

        Raises:
            Cancelled: The ledger was closed, or is about to be closed while its server is away.
            LedgerConnectionLost: The Postgres server ended the connection within the transaction.
            LedgerError: The ledger cannot be written.
        """
        with self._lock:
            if self._closed:
                raise Cancelled
            begun = False
            try:
                self._engine.begin(" ".join(group))
                begun = True
                try:
                    yield Transaction(self._engine, group)
                except BaseException:
                    self._engine.end(commit=False)
                    raise
                self._engine.end(commit=True)
            except self._engine.errors as error:
                lost = begun and isinstance(self._engine, PostgresEngine)
                kind = LedgerConnectionLost if lost else LedgerError
                raise _unusable(self._engine.name, error, self._engine.remedy, kind) from None

    def groups(self) -> list[RateLimitGroup]:
        """Return the groups of which the ledger has records, by address and name.

        Raises:
            Cancelled, LedgerError: As of :meth:`transaction`.
        """
        with self.transaction(RateLimitGroup("", "")) as transaction:
            return transaction.groups()

    def end_waits(self) -> None:
        """From now on, cancel every call that waits for a server. What needs no wait can still be written."""
        self._ending.set()
        self._engine.end_waits()

    def close(self) -> None:
        """Close the ledger, and cancel every call that waits for it."""
        self.end_waits()
        self._closed = True
        with self._lock:
            self._engine.close()


def _unusable(name: str, error: Exception, remedy: str, kind: type[LedgerError] = LedgerError) -> LedgerError:
    return kind(f"the {name} cannot be used ({' '.join(str(error).split())}); {remedy}")
