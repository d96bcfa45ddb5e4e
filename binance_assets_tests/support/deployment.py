"""What reads the files in ``deploy/``: linters, schemas, and the programs and classes that they configure.

Each function returns the problems that it finds, so that a test can show it a broken file as well. What needs an engine
or a cluster, such as building the image or rendering the chart, is not here.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final

import click
import yaml

from binance_assets.cli.main import cli
from binance_assets_tests.support.environment import CHECKOUT

DEPLOY: Final = CHECKOUT / "deploy"
_BIN: Final = Path(sys.executable).parent
_SECONDS: Final = 60
_MOST_EXPOSURE: Final = 20  # of 100; systemd calls it OK
_INSTALLED: Final = "/srv/candles/.venv/bin/"
"""Where the units expect the programs of the package."""


def container_file_problems(content: str) -> list[str]:
    """Return what hadolint finds in a container file."""
    return _lines_of([_BIN / "hadolint", "--no-color", "-"], content)


def compose_problems(content: str) -> list[str]:
    """Return where a compose file disagrees with the schema of compose files."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "compose.yaml"
        path.write_text(content)
        command: list[str | Path] = [_BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", path]
        return [line for line in _lines_of(command) if line != "ok -- validation done"]


def manifest_problems(resources: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return where Kubernetes resources disagree with the schema of the newest version that is known."""
    import kubernetes_validate

    problems = []
    for resource in resources:
        try:
            kubernetes_validate.validate(dict(resource), kubernetes_validate.latest_version(), strict=True)
        except kubernetes_validate.ValidationError as error:
            problems.append(f"{resource.get('kind')}: {error.message}")
    return problems


def unit_problems(name: str, content: str) -> list[str]:
    """Return what systemd finds in a unit, and what makes its service needlessly powerful.

    The programs of the package are replaced by one that exists, because systemd looks for them.

    Args:
        name: The name of the unit.
        content: Its text.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        words = (line.split(" ") for line in content.splitlines())
        lines = [" ".join(_existing(word) for word in line) for line in words]
        path.write_text("\n".join(lines) + "\n")
        found = _lines_of(["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", path])
        if found:
            return found
        exposure: list[str | Path] = [
            "systemd-analyze",
            "security",
            "--offline=true",
            "--threshold=20",
            "--no-pager",
            path,
        ]
        done = subprocess.run(exposure, capture_output=True, text=True, timeout=_SECONDS, check=False)
        return (done.stdout + done.stderr).strip().splitlines()[-1:] if done.returncode else []


def _existing(word: str) -> str:
    start, is_program, _ = word.partition(_INSTALLED)
    return f"{start}{shutil.which('true')}" if is_program else word


def command_problem(words: Sequence[str]) -> str | None:
    """Return why a program of Dagster or of this package refuses its arguments; None if it accepts them.

    The arguments are parsed, and nothing is run. Other programs are not looked at.

    Args:
        words: The command, as a container or a unit starts it.
    """
    command, arguments = _command_of(Path(words[0]).name), [*words[1:]]
    try:
        while isinstance(command, click.Group):
            _, command, arguments = command.resolve_command(click.Context(command), arguments)
        if command is not None:
            command.make_context(words[0], arguments).close()
    except click.ClickException as error:
        return f"{shlex.join(words)}: {error.format_message()}"
    return None


def _command_of(program: str) -> click.Command | None:
    """Return the command line of a program that is installed here and uses click as Dagster does."""
    if program == "binance-assets":
        return cli
    if program not in ("dagster", "dagster-daemon"):
        return None
    (script,) = entry_points(group="console_scripts", name=program)
    command = getattr(sys.modules[script.load().__module__], "cli", None)
    assert isinstance(command, click.Command)
    return command


def documents_of(path: Path) -> list[Any]:
    """Return the documents of a YAML file."""
    return list(yaml.safe_load_all(path.read_text()))


def _lines_of(command: Sequence[str | Path], content: str | None = None) -> list[str]:
    """Run a linter, and return what it printed: nothing, if it found nothing.

    Raises:
        AssertionError: It failed and printed nothing.
    """
    done = subprocess.run(command, input=content, capture_output=True, text=True, timeout=_SECONDS, check=False)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    assert lines or done.returncode == 0, f"{command[0]} failed"
    return lines
