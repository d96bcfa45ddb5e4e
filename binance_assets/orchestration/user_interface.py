"""The user interface: ``dagster dev`` with the guard in front of its web server.

``dagster dev`` starts the web server, the daemon, and the code server, each in a process of its own. This module runs
it, and is itself the program that it starts as its web server:
``python -m binance_assets.orchestration.user_interface [ALLOWED_HOST]... -- [OPTION OF dagster-webserver]...``

Here belongs how the user interface starts. What does not belong here: what the guard refuses (``guard``), and the
private names of Dagster that it takes (``dagster_internals``).
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from binance_assets.orchestration.dagster_internals import run_dagster_dev, run_webserver
from binance_assets.orchestration.guard import Guard
from binance_assets.orchestration.instance import keep_instance, open_instance

HOST: Final = "127.0.0.1"
"""The address on which the web server listens."""

_WORKSPACE: Final = "workspace.yaml"


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
        [sys.executable, "-m", "binance_assets.orchestration.user_interface", *allowed_hosts, "--"],
    )


def target_of(folder: Path) -> list[str]:
    """Return the arguments of Dagster's command line that name what to load in a working folder."""
    return ["-w", _WORKSPACE] if (folder / _WORKSPACE).exists() else ["-m", "binance_assets.definitions"]


def main() -> None:
    """Run the guarded web server, as ``dagster dev`` starts it."""
    from binance_assets.orchestration.metrics_page import MetricsPage  # the web server only needs it

    arguments = sys.argv[1:]
    separator = arguments.index("--")
    allowed_hosts = arguments[:separator]
    run_webserver(arguments[separator + 1 :], lambda app: Guard(MetricsPage(app), allowed_hosts))


if __name__ == "__main__":
    main()
