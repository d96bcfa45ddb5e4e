"""The SQLite file in which all processes of a host record request weight."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from binance_assets.exchange.errors import Cancelled
from binance_assets.settings import ConfigurationError

_VERSION: Final = 1


# What an older or newer program counted is worth a minute at the most.
_FORGET: Final = ("DROP TABLE IF EXISTS pool", "DROP TABLE IF EXISTS minute", "DROP TABLE IF EXISTS lease")


_TABLES: Final = (
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


class LedgerError(ConfigurationError):
    """The ledger file cannot be used; the message names the file and the setting."""


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
        self._closed = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=OFF")
            # In one transaction: another process that opens the file must not find it without tables.
            self._database.execute("BEGIN IMMEDIATE")
            if self._database.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
                for statement in (*_FORGET, *_TABLES):
                    self._database.execute(statement)
            self._database.execute("COMMIT")
        except (OSError, sqlite3.Error) as error:
            raise LedgerError(f"the ledger {path} cannot be used ({error}); set BINANCE_ASSETS_LEDGER") from None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Exclusive access to the tables; what is done becomes visible to others at once, or not at all.

        Raises:
            Cancelled: The ledger was closed.
            LedgerError: The file cannot be written.
        """
        with self._lock:
            if self._closed:
                raise Cancelled
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
            self._closed = True
            self._database.close()
