"""The commands ``schedules list``, ``on``, and ``off``: what runs by itself, on a server without a browser."""

from __future__ import annotations

import os
from pathlib import Path

import click

from binance_assets.cli.options import json_option
from binance_assets.settings import ConfigurationError, read_settings
from binance_assets.storage.universe import read_universe
from binance_assets.waiting import phase


@click.group("schedules")
def schedules_command() -> None:
    """List schedules and sensors, and turn them on or off, as the Dagster UI does.

    They run while the UI runs (binance-assets ui), or Dagster's daemon (DAGSTER_HOME="$PWD" dagster-daemon run).
    """


@schedules_command.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """List the schedules and sensors, and whether they are on."""
    _run(None, (), as_json)


@schedules_command.command("on")
@click.argument("names", metavar="NAME...", nargs=-1)
@click.option("--all", "all_schedules", is_flag=True, help="All schedules; sensors are named one by one.")
@json_option
def on_command(names: tuple[str, ...], all_schedules: bool, as_json: bool) -> None:
    """Turn schedules or sensors on."""
    _check_names(names, all_schedules)
    _run(True, names, as_json)


@schedules_command.command("off")
@click.argument("names", metavar="NAME...", nargs=-1)
@click.option("--all", "all_schedules", is_flag=True, help="All schedules; sensors are named one by one.")
@json_option
def off_command(names: tuple[str, ...], all_schedules: bool, as_json: bool) -> None:
    """Turn schedules or sensors off."""
    _check_names(names, all_schedules)
    _run(False, names, as_json)


def _check_names(names: tuple[str, ...], all_schedules: bool) -> None:
    if bool(names) == all_schedules:
        raise ConfigurationError("name schedules or sensors, or write --all; binance-assets schedules list names them")


def _run(on: bool | None, names: tuple[str, ...], as_json: bool) -> None:
    """List all, after some were turned on or off; None leaves them as they are."""
    from binance_assets.cli.progress import Display

    settings = read_settings(os.environ)
    read_universe(settings.existing_universe())
    with Display("Dagster"):
        with phase("loading Dagster"):
            from binance_assets.orchestration.automations import list_automations, switch
            from binance_assets.orchestration.instance import open_instance

        with phase("loading the code location in a code server"), open_instance(Path.cwd(), os.environ) as instance:
            automations = (
                list_automations(instance, Path.cwd()) if on is None else switch(instance, Path.cwd(), names, on)
            )
    from binance_assets.cli.output import print_automations

    print_automations(automations, as_json)
