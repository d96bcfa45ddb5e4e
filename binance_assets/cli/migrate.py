"""The command ``migrate``: it brings a lake of an earlier version to the current layout."""

from __future__ import annotations

import os
import sys

import click

from binance_assets.cli.exit_codes import INCOMPLETE
from binance_assets.model.outside import MESSAGE, printable
from binance_assets.settings import ConfigurationError, read_settings


@click.command("migrate")
def migrate_command() -> None:
    """Bring a lake of an earlier version to the current layout.

    Files of one partition are merged into files of a month, or of a year for intervals from 15m on. No candle is
    fetched, and none is lost: the command may be interrupted at any moment, and run again. Downloads may run meanwhile.
    A program that reads all files of a folder may meet the partitions of one span twice while that span is brought
    over, for some milliseconds.
    """
    from binance_assets.cli.progress import progress_bar
    from binance_assets.storage.lake import Lake

    lake = Lake(read_settings(os.environ).lake)
    if not lake.exists:
        raise ConfigurationError(f"there is no lake {lake.root}; set BINANCE_ASSETS_LAKE to its folder")
    lake.migrate_state()
    series = lake.series()
    with progress_bar("looking for files", len(series)) as advance:
        spans = []
        for member in series:
            spans += [(member, name) for name in lake.outdated_spans(member)]
            advance(1)
    with progress_bar("migrating", len(spans)) as advance:
        for member, name in spans:
            lake.migrate_span(member, name)
            advance(1)
    damaged = [line for member in series for line in lake.damaged(member)]
    damaged += [
        f"{lake.folder(member)}: {name} has candles that cannot be read"
        for member in series
        for name in lake.outdated_spans(member)
    ]
    for line in damaged:
        click.echo(f"left as it is: {printable(line, MESSAGE)}", err=True)
    members = len({member for member, _ in spans})
    click.echo(f"{lake.root} has layout 2; files written: {len(spans):,}, series: {members:,}")
    if damaged:
        sys.exit(INCOMPLETE)
