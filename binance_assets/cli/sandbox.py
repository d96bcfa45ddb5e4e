"""The commands that work without Binance: ``sandbox`` serves the stand-in exchange, ``demo`` downloads from it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from binance_assets.settings import ConfigurationError


@click.command("sandbox")
@click.option("--port", type=click.IntRange(0, 65535), default=8900, show_default=True, help="Port on 127.0.0.1.")
@click.option("--rtt-ms", type=click.FloatRange(min=0), default=0.0, help="Round-trip time of every response, ms.")
@click.option(
    "--jitter-ms", type=click.FloatRange(min=0), default=0.0, help="Maximum random time added to each response, ms."
)
@click.option(
    "--replay",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of recorded candles, served instead of synthetic ones.",
)
def sandbox_command(port: int, rtt_ms: float, jitter_ms: float, replay: Path | None) -> None:
    """Serve a stand-in for Binance on this machine.

    Its candles are synthetic, or recorded ones with --replay. It runs until interrupted.
    """
    from binance_assets.sandbox import SandboxOptions, serve

    try:
        serve(SandboxOptions(rtt_ms=rtt_ms, jitter_ms=jitter_ms, replay=replay), port)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the sandbox cannot serve on port {port}: {error}") from None


@click.command("demo", short_help="Download a month with three defects from the sandbox.")
@click.option("--ui", is_flag=True, help="Serve the Dagster UI on the result afterwards, until interrupted.")
def demo_command(ui: bool) -> None:
    """Download a month of three series with three defects from the sandbox.

    An outage of the exchange is accepted and named, a candle that the API lost is healed from the archive, and a day of
    which a candle is lost everywhere is refused. The downloads are Dagster runs. Everything is written into ./demo,
    which can be deleted.
    """
    from binance_assets.cli.progress import Display

    with Display("the demo"):
        from binance_assets.cli.demo import run_demo

    sys.exit(run_demo(Path.cwd(), with_ui=ui))
