"""An installation: the wheel in a virtual environment of its own, far from the checkout."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from release.programs import run

UV: Final = (sys.executable, "-m", "uv")
"""The program that creates environments and knows which interpreters are installed."""

_PROGRAM: Final = "binance-assets"
_OF_CHECKOUT: Final = ("BINANCE_", "DAGSTER_", "PYTHON", "VIRTUAL_ENV", "XDG_", "COVERAGE_")


class Environment:
    """A virtual environment.

    Attributes:
        folder: Its folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def program(self) -> Path:
        """The command ``binance-assets`` in it."""
        return self.folder / "bin" / _PROGRAM

    def variables(self, home: Path) -> dict[str, str]:
        """Return the environment variables of a user who has activated it.

        Args:
            home: The user's home folder. Nothing of the real one is seen.
        """
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_OF_CHECKOUT)}
        path = os.pathsep.join([str(self.folder / "bin"), os.environ["PATH"]])
        return kept | {"HOME": str(home), "PATH": path, "VIRTUAL_ENV": str(self.folder)}


def install(folder: Path, interpreter: str | Path, *requirements: str | Path) -> Environment:
    """Create a virtual environment with packages and their dependencies.

    Args:
        folder: The folder of the environment, which does not exist.
        interpreter: The Python interpreter.
        requirements: What pip installs: names with versions, or paths of wheels.

    Raises:
        ReleaseRefused: The environment cannot be created, or a package cannot be installed.
    """
    environment = Environment(folder)
    run([*UV, "venv", "--quiet", "--seed", "--python", interpreter, folder], folder.parent)
    add(environment, *requirements)
    return environment


def add(environment: Environment, *requirements: str | Path) -> None:
    """Install packages into an environment.

    Raises:
        ReleaseRefused: A package cannot be installed.
    """
    command: list[str | Path] = [*UV, "pip", "install", "--quiet", "--python", environment.python, *requirements]
    run(command, environment.folder.parent)


def run_demo(environment: Environment, folder: Path, home: Path) -> str:
    """Run the demo and return what it printed.

    Args:
        environment: Where the package is installed.
        folder: The working folder, in which the demo creates its own.
        home: The home folder of its processes.

    Raises:
        ReleaseRefused: The demo failed.
    """
    return run([environment.program, "demo"], folder, environment.variables(home))
