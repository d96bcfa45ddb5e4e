"""Print the lower bounds of the dependencies as constraints for pip.

``make DEPENDENCIES=lowest`` installs with them. The program runs before anything is installed, so it uses the standard
library only.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(\[.*\])?>=(?P<lowest>[0-9.]+)")


def main() -> None:
    """Print a line ``name==version`` for each dependency, those of the extras included."""
    project = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    for requirement in [*project["dependencies"], *(text for extra in extras for text in extra)]:
        match = REQUIREMENT.match(requirement)
        if match is None:
            raise SystemExit(f"pyproject.toml: {requirement!r} has no lower bound")
        print(f"{match['name']}=={match['lowest']}")


if __name__ == "__main__":
    main()
