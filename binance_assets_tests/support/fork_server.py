"""The program that forks warm Python processes; see ``warm_python``. It runs as a script and imports no test code.

It imports packages that start no thread, then forks for each request. A fork runs ``python -m <module>`` or
``python <file>`` and ends as the interpreter does.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
from typing import Any

# What a command of the project imports and what takes most of the time. Not Polars, and not what imports it: Polars
# starts threads, and a fork has none of them.
# Pandera imports Hypothesis where it is installed.
_PACKAGES = (
    "dagster", "sqlalchemy", "alembic.context", "hypothesis", "requests", "rich.progress", "ruamel.yaml", "dotenv.main",
    "platformdirs", "psutil", "upath.core", "fsspec.implementations.local", "upath.implementations.local",
)  # fmt: skip


def _import_packages() -> None:
    for package in _PACKAGES:
        importlib.import_module(package)
    sys.modules["dagster"].DagsterInstance.ephemeral().dispose()  # imports what each instance needs


def main() -> None:
    """Serve requests from the socket whose descriptor is the argument, until the test worker closes it."""
    requests = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the test worker, which then closes the socket
    _import_packages()
    if (threads := len(os.listdir("/proc/self/task"))) != 1:
        raise RuntimeError(f"{threads} threads run, so a fork is not safe")
    gc.freeze()  # so that the garbage collector of a fork does not copy the pages of the imported packages
    if (fork := _serve(requests)) is not None:
        _run(*fork)


def _serve(requests: socket.socket) -> tuple[dict[str, Any], socket.socket] | None:
    """Fork for each request, and report the exit code of each fork to its connection.

    Returns:
        In a fork, the request and its connection; in the server, None at its end.
    """
    running: dict[int, tuple[int, socket.socket]] = {}  # process id and connection by the descriptor of the process
    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not requests:
                    selector.unregister(key.fd)
                    _report_exit(key.fd, *running.pop(key.fd))
                    continue
                header, descriptors, _, _ = socket.recv_fds(requests, 8, 3)
                if not header:
                    return None
                request = json.loads(_read(requests, int.from_bytes(header, "big")))
                stdout, stderr, reply = descriptors
                connection = socket.socket(fileno=reply)
                pid = os.fork()
                if pid == 0:
                    os.dup2(stdout, 1)
                    os.dup2(stderr, 2)
                    for inherited in (requests.detach(), stdout, stderr, *running):
                        os.close(inherited)
                    for _, other in running.values():
                        other.close()
                    return request, connection
                os.close(stdout)
                os.close(stderr)
                process = os.pidfd_open(pid)
                running[process] = pid, connection
                selector.register(process, selectors.EVENT_READ)


def _report_exit(process: int, pid: int, connection: socket.socket) -> None:
    exit_code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with connection, contextlib.suppress(BrokenPipeError):  # the test may have ended without waiting
        connection.sendall(b"ended %d\n" % exit_code)
    os.close(process)


def _read(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        received += connection.recv(size - len(received))
    return received


def _run(request: dict[str, Any], connection: socket.socket) -> None:
    """Become the requested process: its session, folder, environment, signals, and arguments; then run its program."""
    if request["new_session"]:
        os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with connection:
        connection.sendall(b"started %d\n" % os.getpid())
    first, *arguments = request["arguments"]
    sys.path[0] = request["cwd"] if first == "-m" else os.path.dirname(first)
    added = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[1:1] = [path for path in added if path and path not in sys.path]
    if first == "-m":
        sys.argv = arguments
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [first, *arguments]
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    main()
