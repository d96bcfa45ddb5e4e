"""The command ``ui``."""

from __future__ import annotations

import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from binance_assets.cli.progress import Place, next_output, with_time
from binance_assets.settings import ConfigurationError, read_settings
from binance_assets.storage.universe import read_universe

_POLL_SECONDS: Final = 0.2
_LOOPBACK: Final = "127.0.0.1"
_DEFAULT_PORT: Final = 3000
_HOST: Final = re.compile(r"[a-z0-9][a-z0-9.-]*(:[0-9]{1,5})?")


@click.command("ui")
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Port on 127.0.0.1.  [default: 3000, or a free one if that is taken]"
)
@click.option(
    "--allow-host",
    "allowed_hosts",
    metavar="NAME[:PORT]",
    multiple=True,
    help="Host of a reverse proxy through which browsers reach this UI; may be repeated.",
)
def ui_command(port: int | None, allowed_hosts: tuple[str, ...]) -> None:
    """Serve the Dagster UI on this machine.

    It runs until interrupted. It listens on 127.0.0.1 only, and refuses requests of pages of other sites. Whoever
    reaches it can launch runs, without a password. To offer it to others, start a reverse proxy that asks for a
    password on this machine, and name its host with --allow-host.
    """
    hosts = [host.lower() for host in allowed_hosts]
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise ConfigurationError(f"--allow-host {host!r}: write a host without http://, such as ui.example.com")
    settings = read_settings(os.environ)
    read_universe(settings.existing_universe())
    chosen = _choose_port(port)
    click.echo(with_time("loading Dagster"), err=True)
    is_up = threading.Event()
    threading.Thread(target=_report, args=(is_up,), name="cli-ui", daemon=True).start()
    from binance_assets.orchestration.user_interface import is_listening, serve_user_interface

    announcement = threading.Thread(target=_announce, args=(chosen, is_listening, is_up), name="cli-ui", daemon=True)
    announcement.start()
    serve_user_interface(Path.cwd(), chosen, hosts)


def _choose_port(port: int | None) -> int:
    """Return the port for the web server: the given one, or 3000, or a free one if that is taken.

    Raises:
        ConfigurationError: The given port is taken.
    """
    problem = _why_not_free(port or _DEFAULT_PORT)
    if problem and port is not None:
        raise ConfigurationError(f"port {port} on {_LOOPBACK} is not free: {problem}; choose another")
    if not problem:
        return port or _DEFAULT_PORT
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _why_not_free(port: int) -> str | None:
    """Return why nothing can listen on a port; None if it can."""
    with socket.socket() as probe:
        # As the web server does: connections that ended a moment ago do not occupy the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_LOOPBACK, port))
        except OSError as error:
            return error.strerror or "unknown"
    return None


def _report(is_up: threading.Event) -> None:
    """Print a line from time to time until the web server responds."""
    began = last = time.monotonic()
    place: Place = "lines" if sys.stderr.isatty() else "log"
    while not is_up.wait(_POLL_SECONDS):
        if time.monotonic() >= next_output(place, began, last):
            last = time.monotonic()
            click.echo(with_time(f"waiting for Dagster's web server, for {last - began:.0f} s"), err=True)


def _announce(port: int, is_listening: Callable[[int], bool], is_up: threading.Event) -> None:
    """Wait until the web server responds, and print its address."""
    while not is_listening(port):
        time.sleep(_POLL_SECONDS)
    is_up.set()
    click.echo(with_time(f"the Dagster UI is at http://{_LOOPBACK}:{port}; Ctrl-C ends it"), err=True)
