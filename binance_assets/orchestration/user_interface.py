"""The user interface: ``dagster dev`` with the guard in front of its web server.

``dagster dev`` starts the web server, the daemon, and the code server, each in a process of its own. This module runs
it, and is itself the program that it starts as its web server:
``python -m binance_assets.orchestration.user_interface [ALLOWED_HOST]... -- [OPTION OF dagster-webserver]...``
Without ``--`` it reads the options from its standard input, because ``dagster dev`` knows them later than it starts.

Here belongs how the user interface starts. What does not belong here: what the guard refuses (``guard``), and the
private names of Dagster that it takes (``dagster_internals``).
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from binance_assets.orchestration.dagster_internals.programs import (
    prepare_webserver,
    read_arguments,
    run_dagster_dev,
    run_webserver,
)
from binance_assets.orchestration.guard import Guard
from binance_assets.orchestration.instance import keep_instance, open_instance

if TYPE_CHECKING:
    from starlette.types import ASGIApp

HOST: Final = "127.0.0.1"
"""The address on which the web server listens."""

_WORKSPACE: Final = "workspace.yaml"
_PROBE_SECONDS: Final = 0.5


def serve_user_interface(folder: Path, port: int, allowed_hosts: Sequence[str] = ()) -> None:
    """Run the user interface on the loopback interface until interrupted.

    It loads what ``workspace.yaml`` in the working folder names, or the project's code location if there is none.

    Args:
        folder: The working folder.
        port: The port, which is free.
        allowed_hosts: Hosts that the guard allows beside the loopback names, in lower case.

    Raises:
        ConfigurationError: The Dagster instance is not usable.
    """
    with open_instance(folder, os.environ):  # `dagster dev` would end with a traceback
        pass
    keep_instance(folder, os.environ)
    # Dagster handles SIGTERM as SIGINT, which is ignored if a script started this process in the background. With the
    # handler of the command line, a late second signal would end it at once, and leave its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run_dagster_dev(
        [*target_of(folder), "-h", HOST, "-p", str(port)],
        [sys.executable, "-m", "binance_assets.orchestration.user_interface", *allowed_hosts],
        partial(is_listening, port),
    )


def is_listening(port: int) -> bool:
    """Return whether a server listens on a port of the loopback interface."""
    with socket.socket() as probe:
        probe.settimeout(_PROBE_SECONDS)
        return probe.connect_ex((HOST, port)) == 0


def target_of(folder: Path) -> list[str]:
    """Return the arguments of Dagster's command line that name what to load in a working folder."""
    return ["-w", _WORKSPACE] if (folder / _WORKSPACE).exists() else ["-m", "binance_assets.definitions"]


def main() -> None:
    """Run the guarded web server, as ``dagster dev`` starts it."""
    # What is loaded until it serves lives as long as the process: searching it for garbage takes a quarter of the time.
    gc.disable()
    before, separator, after = _split(sys.argv[1:])
    run_webserver(after if separator else _awaited_arguments(), partial(_guarded, before))


def _split(arguments: list[str]) -> tuple[list[str], bool, list[str]]:
    if "--" not in arguments:
        return arguments, False, []
    at = arguments.index("--")
    return arguments[:at], True, arguments[at + 1 :]


def _awaited_arguments() -> list[str]:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that has the arguments ends this one
    prepare_webserver()
    arguments = read_arguments()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return arguments


def _guarded(allowed_hosts: Sequence[str], app: ASGIApp) -> Guard:
    from binance_assets.orchestration.metrics_page import MetricsPage  # the web server only needs it

    gc.freeze()
    gc.enable()
    return Guard(MetricsPage(app), allowed_hosts)


if __name__ == "__main__":
    main()
