"""Python processes that start quickly.

More than half of the CPU time of a short command goes into the import of Dagster and of what it needs. A fork server
imports that once for each test worker and forks whenever a test starts a process. A fork is a process of its own: with
its own process id, session, signals, exit code, standard streams, working folder, and environment. It imports the
project's own modules, Polars, and Pandera itself. Tests of the start itself use ``subprocess``.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_SERVER = Path(__file__).with_name("fork_server.py")


class WarmProcess:
    """A running process, with the methods of ``subprocess.Popen`` that the tests need; its output goes to memory.

    Attributes:
        pid: Its process id.
        returncode: Its exit code, negative if a signal ended it; None until :meth:`poll` or :meth:`wait` has seen it.
    """

    def __init__(
        self, arguments: Sequence[str], connection: socket.socket, stdout: IO[bytes], stderr: IO[bytes]
    ) -> None:
        self.returncode: int | None = None
        self._arguments = arguments
        self._connection = connection
        self._replies = connection.makefile("rb")
        self._outputs = stdout, stderr
        self.pid = self._next_reply("started")

    def _next_reply(self, expected: str) -> int:
        event, _, number = self._replies.readline().decode().partition(" ")
        if event != expected:
            raise RuntimeError(f"the fork server reports {event!r} instead of {expected!r}")
        return int(number)

    def poll(self) -> int | None:
        """Return the exit code; None while the process runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until the process has ended, and return its exit code.

        Raises:
            subprocess.TimeoutExpired: It still runs after ``timeout`` seconds.
        """
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(list(self._arguments), timeout or 0)
            self.returncode = self._next_reply("ended")
            self._replies.close()
            self._connection.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait until the process has ended; return what it wrote to standard output and standard error.

        Raises:
            subprocess.TimeoutExpired: It still runs after ``timeout`` seconds.
        """
        self.wait(timeout)
        texts = []
        for output in self._outputs:
            output.seek(0)
            texts.append(output.read().decode())
            output.close()
        return texts[0], texts[1]

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the process."""
        self.send_signal(signal.SIGKILL)


class WarmPython:
    """Starts warm processes; the server starts with the first one."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None

    def start(
        self,
        arguments: Sequence[str],
        cwd: Path,
        env: Mapping[str, str],
        start_new_session: bool = False,
        terminal: int | None = None,
    ) -> WarmProcess:
        """Start a process.

        Args:
            arguments: The arguments of the interpreter: ``-m`` and a module, or the absolute path of a program; then
                those of the program.
            cwd: Working folder.
            env: The whole environment.
            start_new_session: Whether the process leads a session and a process group of its own.
            terminal: Descriptor of a terminal that receives the output; None for memory.
        """
        requests = self._requests or self._start_server()
        fields = {"arguments": arguments, "cwd": str(cwd), "environment": dict(env), "new_session": start_new_session}
        request = json.dumps(fields).encode()
        stdout, stderr = (os.fdopen(os.memfd_create(name), "rb") for name in ("stdout", "stderr"))
        connection, reply = socket.socketpair()
        with reply:
            outputs = [stdout.fileno(), stderr.fileno()] if terminal is None else [terminal, terminal]
            descriptors = [*outputs, reply.fileno()]
            socket.send_fds(requests, [len(request).to_bytes(8, "big")], descriptors)
            requests.sendall(request)
        return WarmProcess(arguments, connection, stdout, stderr)

    def run(
        self, arguments: Sequence[str], cwd: Path, env: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a process to its end, as ``subprocess.run`` does; after ``timeout`` seconds it is killed.

        Raises:
            subprocess.TimeoutExpired: It was killed.
        """
        process = self.start(arguments, cwd, env)
        try:
            stdout, stderr = process.communicate(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        return subprocess.CompletedProcess(list(arguments), process.wait(), stdout, stderr)

    def close(self) -> None:
        """End the server. Processes that still run continue."""
        if self._server and self._requests:
            self._requests.close()
            self._server.wait()

    def _start_server(self) -> socket.socket:
        self._requests, served = socket.socketpair()
        with served:
            self._server = subprocess.Popen(
                [sys.executable, str(_SERVER), str(served.fileno())],
                pass_fds=[served.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                env=os.environ | {"DAGSTER_DISABLE_TELEMETRY": "1"},
            )  # fmt: skip
        return self._requests


@contextmanager
def warm_python_server() -> Iterator[WarmPython]:
    """Yield what starts warm processes; its server ends at the end."""
    warm = WarmPython()
    try:
        yield warm
    finally:
        warm.close()
