"""The command ``init``: the files of a new project."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from binance_assets.settings import ConfigurationError, Settings

_UNIVERSE: Final = """\
# The tracked series: what the Dagster UI shows as assets, and what the schedules fetch.
# `binance-assets track SYMBOL --market spot --interval 1m` adds to it, and `download` does so as well.
series: []
# For example:
#   - market: spot
#     symbols: [BTCUSDT, ETHUSDT]
#     intervals: [1m]
#     derive: [5m, 1h]
"""

_WORKSPACE: Final = """\
# What Dagster loads in this folder.
load_from:
  - python_module:
      module_name: binance_assets.definitions
      working_directory: .
      location_name: binance_assets
"""

_ENV_HEADER: Final = """\
# Copy this file to .env, and remove the # in front of what you change. Each value is the default.
"""

_NEXT: Final = """\

Next:
  binance-assets download BTCUSDT --market spot --interval 1h --start 2024-01-01 --end 2024-02-01
  binance-assets status
  binance-assets ui"""


@click.command("init", short_help="Write the files of a new project.")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=".")
def init_command(folder: Path) -> None:
    """Write the files of a new project into FOLDER, by default the working folder.

    These are dagster.yaml, universe.yaml, workspace.yaml, and .env.example. A file that exists is left as it is.
    """
    files = {
        "dagster.yaml": _default_instance(),
        "universe.yaml": _UNIVERSE,
        "workspace.yaml": _WORKSPACE,
        ".env.example": _env_example(),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            click.echo(f"{folder / name} {'is written' if _write_new(folder / name, text) else 'exists and is kept'}")
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be written: {error.strerror}") from None
    click.echo(_NEXT if folder == Path() else f"\ncd {folder}{_NEXT}")


def _default_instance() -> str:
    """Return the project's own ``dagster.yaml``: inside an installed package, and beside the package in a checkout."""
    package = Path(__file__).resolve().parents[1]
    path = next(parent / "dagster.yaml" for parent in (package, package.parent) if (parent / "dagster.yaml").exists())
    return path.read_text(encoding="utf-8")


def _env_example() -> str:
    lines = [_ENV_HEADER]
    for field in Settings.model_fields.values():
        default = "" if field.default_factory is not None or field.default is None else field.default
        value = {True: "1", False: "0"}[default] if isinstance(default, bool) else default
        lines.append(f"# {field.description}\n#{field.alias}={value}\n")
    return "\n".join(lines)


def _write_new(path: Path, text: str) -> bool:
    """Write a file that does not exist; return whether it was written."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True
