"""A PostgreSQL server on loopback for the tests, with its data in a temporary folder."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final

from binance_assets_tests.support.dagster_dev import free_port

_INSTALLED: Final = Path("/usr/lib/postgresql")  # Debian keeps the programs of the server out of PATH
_START_SECONDS: Final = 60


def missing_postgres() -> str | None:
    """Return why no server can be started here; None if one can."""
    try:
        import psycopg2  # noqa: F401
    except ImportError:
        return "psycopg2 is not installed"
    return None if _program("initdb") else "PostgreSQL is not installed"


def _program(name: str) -> str | None:
    versions = sorted(_INSTALLED.glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    return str(versions[-1]) if versions else shutil.which(name)


class PostgresServer:
    """A server that a test may stop and start again; it trusts whoever connects from this machine.

    Args:
        folder: Its data; the user of the server owns it.
        port: Its port.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._port = port
        self._numbers = count(1)
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres") -> str:
        """Return the URL of a database, in the form of the settings."""
        return f"postgresql+psycopg2://postgres:secret-word@127.0.0.1:{self._port}/{database}"

    def new_database(self, original: str | None = None) -> str:
        """Create a database, empty or a copy of that of another URL to which nobody is connected; return its URL."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}" + (f" TEMPLATE {original.rpartition('/')[2]}" if original else ""))
        return self.url(name)

    def execute(self, statement: str, url: str | None = None, values: Sequence[object] | None = None) -> list[Any]:
        """Execute a statement outside of a transaction, with values for its ``%s``, and return its rows."""
        import psycopg2

        connection = psycopg2.connect((url or self.url()).replace("+psycopg2", ""))
        try:
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        options = ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "max_connections=300"]
        options += [
            "-c",
            "dynamic_shared_memory_type=mmap",
        ]  # files of its folder, which a killed server cannot leave behind
        words = [str(_program("postgres")), "-D", str(self._folder), "-p", str(self._port), "-k", str(self._folder)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen([*words, *options], stdout=log, stderr=log, **_as_server_user())
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                self.execute("SELECT 1")
                return
            except Exception:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
            time.sleep(0.05)

    def stop(self) -> None:
        """End the server at once, as a crash of its machine does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(_START_SECONDS)
            self._process = None


def _as_server_user() -> dict[str, Any]:
    """Return the arguments of a process that must not run as root: Postgres refuses that."""
    return {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Yield a server that has just been started, and end it."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    server = PostgresServer(folder, free_port())
    try:
        if user := _as_server_user().get("user"):
            shutil.chown(folder, user)
        words = [str(_program("initdb")), "--pgdata", str(folder), "--username=postgres", "--auth=trust", "--no-sync"]
        subprocess.run(words, check=True, capture_output=True, cwd=folder, **_as_server_user())
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
