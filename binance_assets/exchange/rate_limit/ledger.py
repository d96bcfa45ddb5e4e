"""The SQLite file in which all processes of a host record request weight. All SQL of the package is in this module.

The rest of the package uses only :class:`Ledger` and :class:`Transaction`, so that another kind of store could replace
the file.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from binance_assets.exchange.errors import Cancelled
from binance_assets.exchange.rate_limit.policy import Minute, believed_limit
from binance_assets.processes import ProcessIdentity
from binance_assets.settings import ConfigurationError
from binance_assets.waiting import Wait, waiting

_VERSION: Final = 1

# How long to wait for other processes that write the file.
_BUSY_SECONDS: Final = 10
_BUSY_POLL_SECONDS: Final = 0.01

# Records in another format are dropped. They lose their value within a minute, except a limit or a ban, which the next
# responses report again. But a process that still uses that format would fail. So a change to the format only adds
# tables and columns, which earlier versions do not touch; all versions share minutes, limits, and leases.
_DROP_TABLES: Final = ("DROP TABLE IF EXISTS pool", "DROP TABLE IF EXISTS minute", "DROP TABLE IF EXISTS lease")

_CREATE_TABLES: Final = (
    """CREATE TABLE pool (
    address TEXT, name TEXT, weight_limit INTEGER, read_at INTEGER NOT NULL DEFAULT 0,
    blocked_until INTEGER NOT NULL DEFAULT 0, banned INTEGER NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '',
    clock_offset REAL,
    PRIMARY KEY (address, name))""",
    """CREATE TABLE minute (
    address TEXT, name TEXT, minute INTEGER, ours INTEGER NOT NULL DEFAULT 0, seen INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (address, name, minute))""",
    """CREATE TABLE lease (
    id INTEGER PRIMARY KEY AUTOINCREMENT, address TEXT, name TEXT, weight INTEGER NOT NULL, pid INTEGER NOT NULL,
    expires INTEGER NOT NULL)""",
    f"PRAGMA user_version = {_VERSION}",
)

# What version 0.1.0 lacks. It keeps blocks and the clock in columns of `pool`, by the wall clock; they are not read.
_ADDED_TABLES: Final = (
    """CREATE TABLE IF NOT EXISTS block (
    address TEXT, name TEXT, clock TEXT NOT NULL, ends INTEGER NOT NULL, until INTEGER, banned INTEGER NOT NULL,
    reason TEXT NOT NULL, repeats INTEGER NOT NULL DEFAULT 1,
    PRIMARY KEY (address, name))""",
    """CREATE TABLE IF NOT EXISTS clock (
    address TEXT, name TEXT, clock TEXT NOT NULL, offset REAL NOT NULL, read_at INTEGER NOT NULL,
    PRIMARY KEY (address, name))""",
)
_ADD_HOLDER: Final = "ALTER TABLE lease ADD COLUMN holder TEXT NOT NULL DEFAULT ''"


class LedgerError(ConfigurationError):
    """The ledger file cannot be used; the message names the file and the setting."""


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
        ends: When it ends, ms since the boot of this machine, by ``clock``.
        banned: Whether it is a ban (418).
        reason: What happened, in one line.
        number: Which block in a row it is, from 1; 0 if a request has succeeded since.
        until: When it ends by the server's clock, ms UTC; None if that clock was unknown.
        clock: The clock of ``ends``, see :func:`binance_assets.boot.boot_clock`.
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
        offset: By how many ms the server's clock is ahead of the ms since the boot of this machine.
        read_at: When the server's time was read, ms since the boot.
        clock: The clock of both, see :func:`binance_assets.boot.boot_clock`.
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

    def __init__(self, database: sqlite3.Connection, group: RateLimitGroup) -> None:
        self._database = database
        self._group = group

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
            "DO UPDATE SET seen = max(seen + ?, ?)",
            (*self._group, number, max(at_least, more), more, at_least),
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
        inserted = self._database.execute(
            "INSERT INTO lease (address, name, weight, pid, expires, holder) VALUES (?, ?, ?, ?, ?, ?)",
            (*self._group, weight, holder.pid, expires, str(holder)),
        )
        return int(inserted.lastrowid or 0)

    def delete_lease(self, row: int | None) -> None:
        """Delete the lease with the number ``row``; do nothing for None or a lease that is gone."""
        self._database.execute("DELETE FROM lease WHERE id = ?", (row,))

    def other_leases(self, row: int | None) -> list[StoredLease]:
        """Return the leases of the group, without the one with the number ``row``."""
        rows = self._database.execute(
            "SELECT id, weight, holder, expires FROM lease WHERE address = ? AND name = ? AND id IS NOT ?",
            (*self._group, row),
        ).fetchall()
        return [StoredLease(*values) for values in rows]

    def block(self) -> Block | None:
        """Return the block that was stored last, which may be over; None if there never was one."""
        row = self._row("SELECT ends, banned, reason, repeats, until, clock FROM block WHERE address = ? AND name = ?")
        return None if row is None else Block(row[0], bool(row[1]), *row[2:])

    def store_block(self, block: Block) -> None:
        """Store a block, unless the stored one ends later by the same clock.

        A stored one of another clock is replaced: this one is what the server said last.
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
            clock: The clock of this boot, see :func:`binance_assets.boot.boot_clock`. The next block of another boot
                is the first in a row in any case.
            sent: When the request was sent, ms since the boot.
        """
        self._database.execute(
            "UPDATE block SET repeats = 0 WHERE address = ? AND name = ? AND clock = ? AND ends <= ?",
            (*self._group, clock, sent),
        )

    def clock(self) -> StoredClock | None:
        """Return the server's clock as it was read last; None if no process has read it."""
        row = self._row("SELECT offset, read_at, clock FROM clock WHERE address = ? AND name = ?")
        return None if row is None else StoredClock(*row)

    def store_clock(self, clock: StoredClock) -> None:
        """Store the server's clock."""
        self._database.execute(
            "INSERT INTO clock (address, name, clock, offset, read_at) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (address, name) DO UPDATE SET clock = excluded.clock, offset = excluded.offset, "
            "read_at = excluded.read_at",
            (*self._group, clock.clock, clock.offset, clock.read_at),
        )

    def _row(self, statement: str, *parameters: int) -> Any:
        return self._database.execute(statement, (*self._group, *parameters)).fetchone()


class Ledger:
    """The file of the host's request weight; any number of threads and processes may use it at once.

    Its content matters for a minute (a ban or a limit longer), so it is written without waiting for the disk.

    Args:
        path: The SQLite file; it and its folder are created if missing.

    Raises:
        LedgerError: The file cannot be opened or is not a ledger.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._closed = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = _open(path)
        except (OSError, sqlite3.Error, UnicodeDecodeError) as error:
            raise self._error(error) from None

    @contextmanager
    def transaction(self, group: RateLimitGroup) -> Iterator[Transaction]:
        """Yield exclusive access to the records of ``group``; all changes become visible at once, or none.

        Raises:
            Cancelled: The ledger was closed.
            LedgerError: The file cannot be written.
        """
        with self._lock:
            if self._closed:
                raise Cancelled
            try:
                with waiting(Wait(f"another process writes to the ledger {self._path}; waiting")):
                    self._database.execute("BEGIN IMMEDIATE")
                try:
                    yield Transaction(self._database, group)
                except BaseException:
                    self._database.execute("ROLLBACK")
                    raise
                self._database.execute("COMMIT")
            except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter from the text of a damaged file
                raise self._error(error) from None

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._closed = True
            self._database.close()

    def _error(self, error: Exception) -> LedgerError:
        return LedgerError(
            f"the ledger {self._path} cannot be used ({error}); set BINANCE_ASSETS_LEDGER to another file"
        )


def _open(path: Path) -> sqlite3.Connection:
    """Open the file, and create what it lacks.

    SQLite waits for a lock in every transaction, but not where the journal mode changes: there it fails at once while
    another process does the same to a new file. So that is repeated.

    Raises:
        sqlite3.Error, UnicodeDecodeError: The file cannot be opened or is not a ledger.
    """
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        database = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            _prepare(database)
            return database
        except BaseException as error:
            database.close()
            is_busy = isinstance(error, sqlite3.Error) and error.sqlite_errorcode == sqlite3.SQLITE_BUSY
            if not is_busy or time.monotonic() > deadline:
                raise
        time.sleep(_BUSY_POLL_SECONDS)


def _prepare(database: sqlite3.Connection) -> None:
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=OFF")
    # In one transaction: another process that opens the file must not find it without tables.
    database.execute("BEGIN IMMEDIATE")
    if database.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
        for statement in (*_DROP_TABLES, *_CREATE_TABLES):
            database.execute(statement)
    for statement in _ADDED_TABLES:
        database.execute(statement)
    if "holder" not in {column[1] for column in database.execute("PRAGMA table_info(lease)")}:
        database.execute(_ADD_HOLDER)
    database.execute("COMMIT")
