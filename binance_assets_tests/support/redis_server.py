"""A Redis server on loopback for the tests, which keeps nothing on disk."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from binance_assets_tests.support.dagster_dev import free_port

_START_SECONDS: Final = 60


def missing_redis() -> str | None:
    """Return why no server can be started here; None if one can."""
    return None if shutil.which("redis-server") else "Redis is not installed"


class RedisServer:
    """A server that a test may stop and start again; it has forgotten everything then.

    Args:
        folder: Its working folder.
        port: Its port.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL of its first database, as a broker of Celery."""
        return f"redis://:secret-word@127.0.0.1:{self._port}/0"

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        options = {
            "port": self._port,
            "bind": "127.0.0.1",
            "requirepass": "secret-word",
            "appendonly": "no",
            "save": "",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(["redis-server", *words], cwd=self._folder, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise AssertionError((self._folder / "log").read_text())
            time.sleep(0.05)

    def stop(self) -> None:
        """End the server at once, as a crash of its machine does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(_START_SECONDS)
            self._process = None

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"-NOAUTH")
        except OSError:
            return False


@contextmanager
def running_redis() -> Iterator[RedisServer]:
    """Yield a server that has just been started, and end it."""
    with TemporaryDirectory(prefix="redis-") as folder:
        server = RedisServer(Path(folder), free_port())
        try:
            server.start()
            yield server
        finally:
            server.stop()
