"""The command ``migrate``: it brings a lake of an earlier version to the current layout."""

from __future__ import annotations

import os
import sys

import click

from binance_assets.cli.exit_codes import INCOMPLETE
from binance_assets.model.outside import MESSAGE, printable
from binance_assets.settings import ConfigurationError, read_settings
from binance_assets.waiting import phase


@click.command("migrate")
def migrate_command() -> None:
    """Bring a lake of an earlier version to the current layout.

    Files of one partition are merged into files of a month, or of a year for intervals from 15m on. No candle is
    fetched, and none is lost: the command may be interrupted at any moment, and run again. Downloads may run meanwhile.
    A program that reads all files of a folder may meet the partitions of one span twice while that span is brought
    over, for some milliseconds.
    """
    from binance_assets.cli.progress import Display

    settings = read_settings(os.environ)
    with Display() as display:
        with phase("reading the folders of the lake"):
            from binance_assets.storage.lake import Lake

            lake = Lake(settings.lake)
            if not lake.exists:
                raise ConfigurationError(f"there is no lake {lake.root}; set BINANCE_ASSETS_LAKE to its folder")
            lake.migrate_state()
            series = lake.series()
        display.begin("looking for files", len(series))
        spans = []
        for member in series:
            spans += [(member, name) for name in lake.outdated_spans(member)]
            display.advance(1)
        display.begin("migrating", len(spans))
        for member, name in spans:
            lake.migrate_span(member, name)
            display.advance(1)
        display.begin("looking for files that cannot be read", len(series))
        damaged, unread = [], []
        for member in series:
            damaged += lake.damaged(member)
            names = lake.outdated_spans(member)
            unread += [f"{lake.folder(member)}: {name} has candles that cannot be read" for name in names]
            display.advance(1)
        damaged += unread
    for line in damaged:
        click.echo(f"left as it is: {printable(line, MESSAGE)}", err=True)
    members = len({member for member, _ in spans})
    click.echo(f"{lake.root} has layout 2; files written: {len(spans):,}, series: {members:,}")
    if damaged:
        sys.exit(INCOMPLETE)
