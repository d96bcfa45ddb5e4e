"""The two databases that a ledger may be in: a SQLite file of this host, or a Postgres server that several hosts share.

What belongs here: how to open a database, to begin and end a transaction, and which clock its users share. What does
not: the statements, which are the same for both; see :mod:`~binance_assets.exchange.rate_limit.ledger`.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple, Protocol

from binance_assets.boot import boot_clock, seconds_since_boot
from binance_assets.exchange.errors import Cancelled
from binance_assets.settings import POSTGRES_SCHEME
from binance_assets.waiting import Wait, waiting, waits


class SharedTime(NamedTuple):
    """A time that all users of a ledger agree on.

    Attributes:
        clock: Which clock shows it; times of different clocks cannot be compared.
        ms: What it shows, ms.
    """

    clock: str
    ms: float


class Engine(Protocol):
    """A database with the tables of the ledger. Its user calls it from one thread at a time.

    Attributes:
        name: What it is called in messages; it has no password.
        errors: What its methods may raise.
        remedy: What to do about an error.
    """

    name: str
    errors: tuple[type[Exception], ...]
    remedy: str

    def begin(self, key: str) -> None:
        """Begin a transaction that excludes all others with this key; wait for them."""

    def execute(self, statement: str, parameters: Sequence[object] = ()) -> Any:
        """Execute a statement with ``?`` as placeholders, and return its cursor."""

    def end(self, *, commit: bool) -> None:
        """Commit the transaction, or roll it back."""

    def now(self) -> SharedTime:
        """Return the time that all users of the database share; call it in a transaction."""

    def end_waits(self) -> None:
        """From now on, let each call of :meth:`begin` wait for the database for a moment at most."""

    def close(self) -> None:
        """Close the database."""


# -- SQLite -----------------------------------------------------------------------------------------------------------

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
    address TEXT, name TEXT, clock TEXT NOT NULL, "offset" REAL NOT NULL, read_at INTEGER NOT NULL,
    PRIMARY KEY (address, name))""",
)
_ADD_HOLDER: Final = "ALTER TABLE lease ADD COLUMN holder TEXT NOT NULL DEFAULT ''"


class SqliteEngine:
    """A file that any number of threads and processes of this host may use at once.

    Its content matters for a minute (a ban or a limit longer), so it is written without waiting for the disk.

    Args:
        path: The file; it and its folder are created if missing.

    Raises:
        OSError, sqlite3.Error, UnicodeDecodeError: The file cannot be opened or is not a ledger.
    """

    errors: tuple[type[Exception], ...] = (sqlite3.Error, UnicodeDecodeError)  # the latter: text of a damaged file
    remedy = "set BINANCE_ASSETS_LEDGER to another file"

    def __init__(self, path: Path) -> None:
        self.name = f"ledger {path}"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._database = _open(path)

    def begin(self, key: str) -> None:
        """Begin a transaction; the whole file is locked, whatever the key."""
        with waiting(Wait(f"another process writes to the {self.name}; waiting")):
            self._database.execute("BEGIN IMMEDIATE")

    def execute(self, statement: str, parameters: Sequence[object] = ()) -> sqlite3.Cursor:
        """Execute a statement with ``?`` as placeholders, and return its cursor."""
        return self._database.execute(statement, tuple(parameters))

    def end(self, *, commit: bool) -> None:
        """Commit the transaction, or roll it back."""
        self._database.execute("COMMIT" if commit else "ROLLBACK")

    def now(self) -> SharedTime:
        """Return the time since the boot, which the processes of a host share whatever their wall clocks show."""
        return SharedTime(boot_clock(), seconds_since_boot() * 1_000)

    def end_waits(self) -> None:
        """Do nothing: other processes of this host have the file for milliseconds."""

    def close(self) -> None:
        """Close the file."""
        self._database.close()


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


# -- Postgres ---------------------------------------------------------------------------------------------------------

_SCHEMA: Final = "binance_assets"

_POSTGRES_TABLES: Final = f"""
CREATE SCHEMA IF NOT EXISTS {_SCHEMA};
CREATE TABLE IF NOT EXISTS pool (
    address TEXT, name TEXT, weight_limit BIGINT, read_at BIGINT NOT NULL DEFAULT 0, PRIMARY KEY (address, name));
CREATE TABLE IF NOT EXISTS minute (
    address TEXT, name TEXT, minute BIGINT, ours BIGINT NOT NULL DEFAULT 0, seen BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (address, name, minute));
CREATE TABLE IF NOT EXISTS lease (
    id BIGINT PRIMARY KEY, address TEXT, name TEXT, weight INTEGER NOT NULL, pid INTEGER NOT NULL,
    expires BIGINT NOT NULL, holder TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS block (
    address TEXT, name TEXT, clock TEXT NOT NULL, ends BIGINT NOT NULL, until BIGINT, banned INTEGER NOT NULL,
    reason TEXT NOT NULL, repeats INTEGER NOT NULL DEFAULT 1, PRIMARY KEY (address, name));
CREATE TABLE IF NOT EXISTS clock (
    address TEXT, name TEXT, clock TEXT NOT NULL, "offset" DOUBLE PRECISION NOT NULL, read_at BIGINT NOT NULL,
    PRIMARY KEY (address, name));
"""

# One round trip: the lock, and then the time. The sub-select makes Postgres take the lock first.
_BEGIN: Final = """
BEGIN;
WITH locked AS MATERIALIZED (SELECT pg_advisory_xact_lock(hashtextextended(%s, 0)))
SELECT extract(epoch FROM clock_timestamp()) * 1000 FROM locked
"""

_CONNECT_SECONDS: Final = 5
# A lock is held for some milliseconds. The server ends a transaction whose host has died, so that the others go on.
_LOCK_SECONDS: Final = 10
# For how long a server that a process has used may be away, as during a restart or a failover.
AWAY_SECONDS: Final = 60.0
_RETRY_SECONDS: Final = 0.5
# For how long a call may last that is in flight while the program ends.
_ENDING_SECONDS: Final = 0.5


class PostgresEngine:
    """A schema of a Postgres server, for any number of hosts.

    Times are those of the server, so the clocks of the hosts do not matter. A lock is taken for each key, so that the
    rate-limit groups do not wait for each other.

    When a server that worked goes away, :meth:`begin` waits for it, and then gives up. A server that goes away *in* a
    transaction ends it at once: what was written is unknown, and repeating it could count weight twice.

    Args:
        url: ``postgresql+psycopg2://user:password@host:port/database``, as SQLAlchemy spells it; parameters of libpq,
            such as ``sslmode``, may follow.
        ending: Once it is set, nobody waits for a server that is away.
        away_seconds: For how long to wait for a server that is away.

    Raises:
        ImportError: psycopg2 is not installed.
        psycopg2.Error: The server cannot be used.
    """

    remedy = "check the server and BINANCE_ASSETS_LEDGER"

    def __init__(self, url: str, ending: threading.Event, away_seconds: float = AWAY_SECONDS) -> None:
        import psycopg2  # an extra

        self._psycopg2: ModuleType = psycopg2
        self.errors: tuple[type[Exception], ...] = (psycopg2.Error,)
        self._url = _readable(f"postgresql://{url.removeprefix(POSTGRES_SCHEME)}", psycopg2)
        self.name = f"ledger on Postgres at {_server(url)}"
        self._ending = ending
        self._away_seconds = away_seconds
        self._ms = 0.0
        self._connection: Any = self._connect()
        self._beginning: Any = None  # the cursor with which a transaction begins at this moment

    def begin(self, key: str) -> None:
        """Begin a transaction that excludes all others with this key; wait for them, and for a server that is away.

        Raises:
            Cancelled: The server is away, and nobody waits for it anymore.
            psycopg2.Error: The server was away for too long.
        """
        deadline = time.monotonic() + self._away_seconds
        with waits() as announce:
            while True:
                if self._connection is None and self._ending.is_set():
                    raise Cancelled
                try:
                    if self._connection is None:
                        self._connection = self._connect()
                    self._begin(key)
                    return
                except (self._psycopg2.OperationalError, self._psycopg2.InterfaceError):
                    self._disconnect()
                    left = deadline - time.monotonic()
                    if left <= 0:
                        raise
                    announce(Wait.of_seconds(f"the {self.name} does not respond; waiting, at most", left))
                if self._ending.wait(_RETRY_SECONDS):
                    raise Cancelled

    def _begin(self, key: str) -> None:
        cursor = self._connection.cursor()
        self._beginning = cursor
        if self._ending.is_set():
            self.end_waits()
        try:
            cursor.execute(_BEGIN, (f"{_SCHEMA} {key}",))
            self._ms = float(cursor.fetchone()[0])
        finally:
            self._beginning = None

    def end_waits(self) -> None:
        """Give up a transaction that cannot begin in half a second, because of a lock or of a slow network."""
        if (cursor := self._beginning) is not None:
            timer = threading.Timer(_ENDING_SECONDS, self._give_up, (cursor,))
            timer.daemon = True
            timer.start()

    def _give_up(self, cursor: Any) -> None:
        """Shut down the socket under a transaction that still begins: the call that waits for it fails at once."""
        if cursor is self._beginning:  # not a later one, which began a moment ago
            with suppress(OSError, *self.errors), socket.socket(fileno=os.dup(cursor.connection.fileno())) as shared:
                shared.shutdown(socket.SHUT_RDWR)

    def execute(self, statement: str, parameters: Sequence[object] = ()) -> Any:
        """Execute a statement with ``?`` as placeholders, and return its cursor."""
        cursor = self._connection.cursor()
        cursor.execute(statement.replace("?", "%s"), tuple(parameters))
        return cursor

    def end(self, *, commit: bool) -> None:
        """Commit the transaction, or roll it back; a connection that fails is given up.

        Raises:
            psycopg2.Error: The commit failed.
        """
        try:
            self.execute("COMMIT" if commit else "ROLLBACK")
        except self.errors:
            self._disconnect()
            if commit:
                raise

    def now(self) -> SharedTime:
        """Return the time of the server when the transaction got its lock."""
        return SharedTime("postgres", self._ms)

    def close(self) -> None:
        """Close the connection."""
        self._disconnect()

    def _connect(self) -> Any:
        milliseconds = int(_LOCK_SECONDS * 1_000)
        connection = self._psycopg2.connect(
            self._url,
            connect_timeout=_CONNECT_SECONDS,
            application_name="binance-assets",
            # A network that swallows packets is noticed by these, on both sides.
            keepalives_idle=5,
            keepalives_interval=2,
            keepalives_count=3,
            tcp_user_timeout=milliseconds,
            options=f"-c search_path={_SCHEMA} -c statement_timeout={milliseconds} "
            f"-c idle_in_transaction_session_timeout={milliseconds} -c tcp_keepalives_idle=5 -c timezone=UTC "
            "-c client_min_messages=warning -c synchronous_commit=off",
        )
        connection.autocommit = True  # `begin` and `end` send BEGIN and COMMIT themselves
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT to_regclass('clock') IS NULL")
                if cursor.fetchone()[0]:  # two processes that create the same schema at once would fail
                    cursor.execute(f"BEGIN; SELECT pg_advisory_xact_lock(7); {_POSTGRES_TABLES} COMMIT")
        except BaseException:
            connection.close()
            raise
        return connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(*self.errors):
                self._connection.close()
            self._connection = None


def _readable(url: str, psycopg2: ModuleType) -> str:
    """Return a URL that libpq can read.

    Raises:
        psycopg2.Error: It cannot; the message of libpq, which repeats the password, is left out.
    """
    try:
        psycopg2.extensions.parse_dsn(url)
    except psycopg2.Error:
        text = "libpq cannot read the URL; in a password, % is %25, and parameters after ? are those of libpq"
        raise psycopg2.ProgrammingError(text) from None
    return url


def _server(url: str) -> str:
    """Return the host and the database of a URL, without user name and password."""
    return url.removeprefix(POSTGRES_SCHEME).rpartition("@")[2].partition("?")[0]
