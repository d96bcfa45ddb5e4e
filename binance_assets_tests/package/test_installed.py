"""The wheel as its users have it: installed from a file, far from the checkout, with a home folder of its own.

Each test runs for every interpreter that the variable ``INTERPRETERS`` names and that is installed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from email.parser import BytesParser
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
import requests

import binance_assets
from binance_assets_tests.support.dagster_dev import free_port
from binance_assets_tests.support.environment import CHECKOUT
from binance_assets_tests.support.polling import until
from release.distributions import build_wheel
from release.installation import UV, Environment, add, install, run_demo
from release.programs import run

INTERPRETERS = os.environ.get("INTERPRETERS", "3.11 3.12 3.13 3.14").split()

IMPORTS = """
import json, sys
import binance_assets as ba
for name in ba.__all__:
    getattr(ba, name)
print(json.dumps([ba.__file__, ba.__version__, "%d.%d" % sys.version_info[:2]]))
"""
HELPS = """
import click
from click.testing import CliRunner
from binance_assets.cli.main import cli

def paths(command, path=()):
    yield path
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from paths(child, (*path, name))

for path in paths(cli):
    result = CliRunner().invoke(cli, [*path, "--help"])
    assert result.exit_code == 0 and "Usage: " in result.output, (path, result.output)
    for word in ("make ", "checkout", "SECURITY.md", "README"):
        assert word not in result.output, (path, word)
    print(*path)
"""
TYPED = """\
import binance_assets as ba

closes = ba.load("spot/BTCUSDT/1m", start="2024-01-01", every="1h")["close"]
reveal_type(closes)
reveal_type(ba.download("spot/BTCUSDT/1m")[0].rows)
ba.load("spot/BTCUSDT/1m", missing="fill")
"""
COMPLETIONS = {
    "bash": """
        eval "$(_BINANCE_ASSETS_COMPLETE=bash_source binance-assets)"
        COMP_WORDS=(binance-assets download BTCUSDT --market "") COMP_CWORD=4
        complete -p binance-assets >/dev/null && _binance_assets_completion && echo "${COMPREPLY[@]}"
    """,
    "zsh": """
        autoload -Uz compinit && compinit -u -D
        eval "$(_BINANCE_ASSETS_COMPLETE=zsh_source binance-assets)"
        compadd() { print -r -- "${(P)@[-1]}" }
        words=(binance-assets download BTCUSDT --market "") CURRENT=5
        $_comps[binance-assets]
    """,
    "fish": """
        _BINANCE_ASSETS_COMPLETE=fish_source binance-assets | source
        complete -C "binance-assets download BTCUSDT --market "
    """,
}


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
        return run(command, self.folder, self.variables, seconds=100)

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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(CHECKOUT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module", params=INTERPRETERS)
def interpreter(request: pytest.FixtureRequest) -> str:
    return find_interpreter(request.param)


@pytest.fixture(scope="module")
def environment(wheel: Path, interpreter: str, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return install(tmp_path_factory.mktemp("installed") / "environment", interpreter, wheel)


@pytest.fixture
def user(environment: Environment, tmp_path: Path) -> User:
    folders = [tmp_path / name for name in ("home", "work", "temporary")]
    for folder in folders:
        folder.mkdir()
    return User(environment, *folders)


@pytest.mark.timeout(300)
def test_the_demo_runs_and_writes_into_its_folder_only(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(user.temporary))
    printed = run_demo(user.environment, user.folder, user.home)
    assert "30 of 31 days" in printed
    assert "make " not in printed
    assert [path.name for path in user.folder.iterdir()] == ["demo"]
    assert user.written_elsewhere() == []
    for name in ("status", "series"):  # what a curious user does next
        assert "usdm/ETHUSDT/1m" in run([user.environment.program, name], user.folder / "demo", user.variables)


def test_every_public_name_is_imported_from_the_environment(user: User, interpreter: str) -> None:
    path, version, python = json.loads(user.run(user.environment.python, "-c", IMPORTS))
    assert Path(path).is_relative_to(user.environment.folder)
    assert version == binance_assets.__version__
    assert f"python{python}" in Path(path).parts
    assert user.run(user.environment.program, "--version").strip().endswith(version)


def test_every_command_has_a_help_that_a_user_without_the_checkout_understands(user: User) -> None:
    printed = user.run(user.environment.python, "-c", HELPS).splitlines()
    assert {"init", "ui", "demo", "universe refresh", "schedules on"} <= set(printed)
    assert user.written_elsewhere() == []


@pytest.mark.parametrize("shell", COMPLETIONS)
def test_shells_complete(user: User, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    options = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}
    printed = user.run(shell, *options[shell], "-c", COMPLETIONS[shell])
    assert [word for word in ("spot", "usdm", "coinm") if word in printed.split()] == ["spot", "usdm", "coinm"]


def test_a_new_project_is_served_until_sigterm_and_leaves_no_process(user: User) -> None:
    user.run(user.environment.program, "init")
    user.run(user.environment.program, "track", "BTCUSDT", "--market", "spot", "--interval", "1m", "--no-check")
    listed = user.run(user.environment.program, "schedules", "list", "--json")
    assert "spot_daily_schedule" in listed
    port = free_port()
    with (user.folder / "log").open("w") as log:
        process = subprocess.Popen(
            [user.environment.program, "ui", "--port", str(port)], cwd=user.folder, env=user.variables,
            stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    started = [psutil.Process(process.pid)]
    try:
        assert until(80, lambda: asset_keys(port)) == ["spot/BTCUSDT/1m", "spot/coverage"]
        started += psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        _, running = psutil.wait_procs(started, timeout=30)
        assert running == []
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert user.written_elsewhere() == []


def asset_keys(port: int) -> list[str]:
    """Return the assets that the user interface shows; none while it starts."""
    query = {"query": "{ assetNodes { assetKey { path } } }"}
    try:
        response = requests.post(f"http://127.0.0.1:{port}/graphql", json=query, timeout=5)
        nodes = response.json()["data"]["assetNodes"]
    except (requests.RequestException, KeyError, TypeError):
        return []
    return sorted("/".join(node["assetKey"]["path"]) for node in nodes)


def test_type_checkers_see_the_types_of_the_installed_package(
    environment: Environment, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    mypy = pytest.importorskip("mypy.api")
    program = user.folder / "program.py"
    program.write_text(TYPED)
    monkeypatch.chdir(user.folder)
    arguments = ["--strict", f"--python-executable={environment.python}", "--cache-dir=cache", str(program)]
    printed, errors, _ = mypy.run(arguments)
    assert errors == ""
    lines = [line.partition(": ")[2] for line in printed.splitlines() if "program.py" in line]
    assert lines[0] == 'note: Revealed type is "polars.series.series.Series"'
    assert lines[1] == 'note: Revealed type is "int"'
    assert 'expected "Literal[' in lines[2]


def test_uninstalling_leaves_nothing(wheel: Path, interpreter: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        required = BytesParser().parsebytes(archive.read(name)).get_all("Requires-Dist") or []
    dependencies = [requirement for requirement in required if "extra ==" not in requirement]
    environment = install(tmp_path / "environment", interpreter, *dependencies)
    before = set(files_without_bytecode(environment.folder))
    add(environment, wheel)
    home = tmp_path / "home"
    home.mkdir()
    run([environment.python, "-c", IMPORTS], tmp_path, environment.variables(home))
    run(
        [environment.python, "-m", "pip", "uninstall", "--yes", "binance-assets"], tmp_path, environment.variables(home)
    )
    assert set(files_without_bytecode(environment.folder)) == before
    assert [str(path) for path in environment.folder.rglob("*binance*")] == []


def files_without_bytecode(folder: Path) -> Iterator[str]:
    """Yield all files of an environment but the bytecode that its packages write when they are imported."""
    return (str(path) for path in folder.rglob("*") if "__pycache__" not in path.parts)
