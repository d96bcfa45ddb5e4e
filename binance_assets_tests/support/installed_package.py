"""The package as its users have it: in an environment without the checkout, with folders of their own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from release.installation import UV, Environment
from release.programs import run

INTERPRETERS = os.environ.get("INTERPRETERS", "3.11 3.12 3.13 3.14").split()

IMPORTS = """
import json, sys
import binance_assets as ba
for name in ba.__all__:
    getattr(ba, name)
print(json.dumps([ba.__file__, ba.__version__, "%d.%d" % sys.version_info[:2]]))
"""


class User(NamedTuple):
    """A user of the installed package.

    Attributes:
        environment: Where the package is installed.
        home: The home folder.
        folder: The working folder.
        temporary: The folder for temporary files.
    """

    environment: Environment
    home: Path
    folder: Path
    temporary: Path

    @property
    def variables(self) -> dict[str, str]:
        return self.environment.variables(self.home) | {"TMPDIR": str(self.temporary), "COLUMNS": "150"}

    def run(self, *command: str | Path) -> str:
        return run(command, self.folder, self.variables, seconds=250)

    def written_elsewhere(self) -> list[str]:
        """Return the files below the home folder and the folder for temporary files."""
        return [str(path) for folder in (self.home, self.temporary) for path in folder.rglob("*") if path.is_file()]


def find_interpreter(version: str) -> str:
    """Return the path of an interpreter, also of one that pyenv has; without it, the test is skipped."""
    search = [*UV, "python", "find", "--no-python-downloads", "--no-project", "--system", version]
    found = subprocess.run(
        search, env=os.environ | {"PYENV_VERSION": version}, capture_output=True, text=True, check=False
    )
    if found.returncode:
        pytest.skip(f"Python {version} is not installed; `uv python install {version}` installs it")
    return found.stdout.strip()
