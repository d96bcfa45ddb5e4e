"""A real ``binance-assets ui`` on the sandbox: a guarded ``dagster dev`` with web server, daemon and run workers."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import requests

from binance_assets.sandbox import Sandbox
from binance_assets_tests.support.environment import cli_environment
from binance_assets_tests.support.leftovers import kill_group
from binance_assets_tests.support.polling import until

WORKSPACE = """\
load_from:
  - python_module:
      module_name: binance_assets.definitions
      location_name: binance_assets
"""

_START_SECONDS = 240
STOP_SECONDS: Final = 200
"""How long ``dagster dev`` may take to end: it gives its web server a minute, and then its daemon."""


# Below the ports that Linux gives to a socket that asks for any: none of those takes the port of a server that has not
# started yet, or is being restarted.
_PORTS: Final = range(12_000, 32_000)


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nothing listens."""
    return free_ports(1)[0]


def free_ports(number: int) -> list[int]:
    """Return different ports of 127.0.0.1 on which nothing listens."""
    free = []
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            free.append(port)
        if len(free) == number:
            return free
    raise AssertionError(f"fewer than {number} ports are free")


class DagsterDev:
    """A ``dagster dev`` in a folder that holds ``dagster.yaml`` and ``universe.yaml``; its output goes to ``log``.

    Attributes:
        url: The address of the web server.
        folder: The folder: working folder and Dagster's home.
        environment: Its environment variables.

    Args:
        sandbox: The exchange.
        folder: The folder.
        more_locations: Entries of ``workspace.yaml`` after that of the project's own code location.
        environment: Further environment variables.
    """

    def __init__(
        self, sandbox: Sandbox, folder: Path, more_locations: str = "", environment: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.environment = cli_environment(sandbox, folder) | {"DAGSTER_HOME": str(folder)} | dict(environment or {})
        (folder / "workspace.yaml").write_text(WORKSPACE + more_locations)
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start it without waiting for it."""
        command = ["-m", "binance_assets", "ui", "--port", str(self._port)]
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *command], cwd=self.folder, env=self.environment,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self._started.append(process)

    def wait_until_ready(self) -> None:
        """Wait until the web server responds."""
        until(_START_SECONDS, self._responds)

    def stop(self) -> None:
        """Stop it as Ctrl-C does. Runs in progress continue."""
        process = self._started[-1]
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)

    @property
    def is_running(self) -> bool:
        """Whether its main process runs."""
        return bool(self._started) and self._started[-1].poll() is None

    def kill(self) -> None:
        """Kill everything that it started, including runs."""
        for process in self._started:
            kill_group(process.pid)
            process.wait()

    def _responds(self) -> bool:
        try:
            return requests.get(f"{self.url}/server_info", timeout=20).ok
        except requests.RequestException:
            return False


@contextmanager
def dagster_dev(
    sandbox: Sandbox, folder: Path, more_locations: str = "", environment: Mapping[str, str] | None = None
) -> Iterator[DagsterDev]:
    """Start a ``dagster dev`` in ``folder``, without waiting for it, and stop it at the end."""
    dev = DagsterDev(sandbox, folder, more_locations, environment)
    dev.start()
    try:
        yield dev
        dev.stop()
    finally:
        dev.kill()
