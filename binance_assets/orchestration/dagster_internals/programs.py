"""Dagster's programs: ``dagster dev`` and ``dagster-webserver``, run in this process with parts replaced."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, BinaryIO, Final, cast

import dagster as dg
from starlette.types import ASGIApp

from binance_assets.orchestration.dagster_internals.replacement import replaced
from binance_assets.processes import end_processes


def run_dagster_dev(arguments: Sequence[str], webserver: Sequence[str], is_up: Callable[[], bool]) -> None:
    """Run ``dagster dev`` in this process until interrupted, with another program as its web server.

    ``dagster dev`` has no option for the web server. It loads the code location, and then starts
    ``python -m dagster_webserver`` first of its children, with the function that is replaced here.

    Two things happen in another order than in Dagster, which makes the user interface of 2,000 series available seconds
    sooner. The web server starts while the code location loads, because its imports take as long. And the daemon
    starts once the web server responds: both ask the code server for all definitions, which it would describe for
    both at the same time, although the second answer takes half as long after the first.

    Its children end with it, also if it is interrupted before it watches them, or again while it ends them: Dagster
    then leaves a web server that keeps its port, and a daemon that goes on launching runs. Runs in progress continue.

    Args:
        arguments: The arguments of ``dagster dev``.
        webserver: The command that reads the arguments of ``dagster-webserver``, see :func:`read_arguments`.
        is_up: Returns whether the web server responds.

    Raises:
        RuntimeError: Dagster starts its web server in another way, so that it cannot be replaced.
    """
    from dagster._cli import dev

    children = _Children(webserver, is_up)
    try:
        with (
            replaced(dev, "ProxyServerManager", children.before_loading),
            replaced(dev, "get_ipc_shutdown_pipe", children.with_early_pipe),
            replaced(dev, "open_ipc_subprocess", children.starting),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", dg.SupersessionWarning)
            dev.dev_command.main([*arguments], prog_name="dagster dev", standalone_mode=False)
    finally:
        end_processes(children.started)


class _Children:
    """The processes that ``dagster dev`` starts, and the functions with which it starts them.

    Args:
        webserver: The command of the web server.
        is_up: Returns whether the web server responds.
    """

    def __init__(self, webserver: Sequence[str], is_up: Callable[[], bool]) -> None:
        self.started: list[subprocess.Popen[bytes]] = []
        self._webserver = webserver
        self._is_up = is_up
        self._pipe: tuple[int, int] | None = None  # of the web server, until Dagster asks for it
        self._has_arguments = False

    def before_loading(self, load: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that starts the web server and then loads the code location."""

        def start_and_load(*values: object, **options: object) -> object:
            from dagster_shared.ipc import get_ipc_shutdown_pipe, open_ipc_subprocess

            self._pipe = get_ipc_shutdown_pipe()
            self._start_webserver(open_ipc_subprocess, pass_fds=[self._pipe[0]])
            return load(*values, **options)

        return start_and_load

    def with_early_pipe(self, make: Callable[[], tuple[int, int]]) -> Callable[[], tuple[int, int]]:
        """Return a function that returns the pipe of the web server, if that runs already, and then new ones."""

        def take_or_make() -> tuple[int, int]:
            pipe, self._pipe = self._pipe, None
            return pipe or make()

        return take_or_make

    def starting(self, start: Callable[..., Any]) -> Callable[..., object]:
        """Return a function that starts a child; the web server gets its arguments instead."""

        def start_child(parts: Sequence[str], **options: object) -> object:
            if list(parts[1:3]) == ["-m", "dagster_webserver"]:
                if not self.started:
                    self._start_webserver(start, **options)
                self._has_arguments = True
                return _pass_arguments(self.started[0], parts[3:])
            if not self._has_arguments:
                raise RuntimeError(f"Dagster {dg.__version__} starts its web server in a way that is not known here")
            self._await_webserver()
            child: subprocess.Popen[bytes] = start(parts, **options)
            self.started.append(child)
            return child

        return start_child

    def _start_webserver(self, start: Callable[..., Any], **options: object) -> None:
        self.started.append(start([*self._webserver], stdin=subprocess.PIPE, **options))

    def _await_webserver(self) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not self._is_up() and self.started[0].poll() is None and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)


_PATIENCE_SECONDS: Final = 30  # a web server that does not respond must not keep the daemon from its work
_POLL_SECONDS: Final = 0.1


def _pass_arguments(process: subprocess.Popen[bytes], arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    with suppress(BrokenPipeError), cast("BinaryIO", process.stdin) as file:  # `dagster dev` notices that it has ended
        file.write(json.dumps(list(arguments)).encode() + b"\n")
    return process


def read_arguments() -> list[str]:
    """Return the arguments that :func:`run_dagster_dev` passes to a web server; wait for them.

    Raises:
        SystemExit: The process that started this one has ended without them.
    """
    if not (line := sys.stdin.buffer.readline()):
        sys.exit(0)
    return [str(argument) for argument in json.loads(line)]


def prepare_webserver() -> None:
    """Import what :func:`run_webserver` needs."""
    import dagster_webserver.cli  # noqa: F401


def run_webserver(arguments: Sequence[str], wrap: Callable[[ASGIApp], ASGIApp]) -> None:
    """Run ``dagster-webserver`` in this process, with its application wrapped in another one.

    The web server has no option for an ASGI middleware. Its command line makes the application with the function that
    is replaced here, and serves it with uvicorn.

    Args:
        arguments: The arguments of ``dagster-webserver``.
        wrap: Receives the application, and returns the one that is served.
    """
    from dagster_webserver import cli

    def creating(create: Callable[..., ASGIApp]) -> Callable[..., ASGIApp]:
        return lambda *values, **options: wrap(create(*values, **options))

    with replaced(cli, "create_app_from_workspace_process_context", creating):
        cli.dagster_webserver.main([*arguments], prog_name="dagster-webserver", auto_envvar_prefix="DAGSTER_WEBSERVER")
