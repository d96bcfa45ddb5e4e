"""The command ``metrics``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from binance_assets.cli.exit_codes import CommandFailed
from binance_assets.model.exposition import exposition
from binance_assets.settings import ConfigurationError, read_settings


@click.command("metrics", short_help="Print figures of the lake, the request weight, and the runs.")
@click.option(
    "-o",
    "--output",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to replace, such as one for the textfile collector of node_exporter; the default is standard output.",
)
def metrics_command(file: Path | None) -> None:
    """Print figures of the lake, the request weight, and the runs for a monitor such as Prometheus.

    They are those of the page /metrics of the UI, in the text format of Prometheus. Nothing asks Binance. A source that
    cannot be read is named, its metric source_up is 0, and the exit code is 1.
    """
    from binance_assets.cli.progress import Display
    from binance_assets.waiting import phase

    read_settings(os.environ)  # bad input is refused before Dagster is loaded
    with Display(), phase("reading lake, ledger, and Dagster"):
        from binance_assets.orchestration.scrape import scrape

        found = scrape(Path.cwd(), os.environ)
    _write(exposition(found.metrics), file)
    if found.problems:
        raise CommandFailed("; ".join(f"{source}: {reason}" for source, reason in found.problems.items()))


def _write(text: str, file: Path | None) -> None:
    if file is None:
        click.echo(text, nl=False)
        return
    from binance_assets.storage.edited_file import replace_file

    try:
        replace_file(file, text)
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be written: {error.strerror or error}") from None
