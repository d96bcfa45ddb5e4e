"""The commands that work without Binance: ``sandbox`` serves the stand-in exchange, ``demo`` downloads from it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from binance_assets.settings import ConfigurationError


@click.command("sandbox")
@click.option("--port", type=click.IntRange(0, 65535), default=8900, show_default=True, help="Port on 127.0.0.1.")
@click.option("--rtt-ms", type=click.FloatRange(min=0), default=0.0, help="Round-trip time of every response.")
@click.option("--jitter-ms", type=click.FloatRange(min=0), default=0.0, help="Random time added to it.")
@click.option(
    "--replay", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of recorded candles."
)
def sandbox_command(port: int, rtt_ms: float, jitter_ms: float, replay: Path | None) -> None:
    """Serve a stand-in for Binance with synthetic candles on this machine, until interrupted."""
    from binance_assets.sandbox import SandboxOptions, serve

    try:
        serve(SandboxOptions(rtt_ms=rtt_ms, jitter_ms=jitter_ms, replay=replay), port)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the sandbox cannot serve on port {port}: {error}") from None


@click.command("demo")
@click.option("--ui", is_flag=True, help="Open Dagster on the result afterwards, until interrupted.")
def demo_command(ui: bool) -> None:
    """Download a month of three series from the sandbox into ./demo, through Dagster, and show where to look."""
    from binance_assets.cli.demo import run_demo

    sys.exit(run_demo(Path.cwd(), with_ui=ui))
