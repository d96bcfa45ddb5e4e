"""The command ``ui``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

import click

from binance_assets.settings import ConfigurationError, read_settings
from binance_assets.storage.universe import read_universe

_HOST: Final = re.compile(r"[a-z0-9.-]+(:[0-9]{1,5})?")


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
    from binance_assets.orchestration.user_interface import serve_user_interface

    hosts = [host.lower() for host in allowed_hosts]
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise ConfigurationError(f"--allow-host {host!r}: write a host without http://, such as ui.example.com")
    settings = read_settings(os.environ)
    read_universe(settings.existing_universe())
    serve_user_interface(Path.cwd(), port, hosts)
