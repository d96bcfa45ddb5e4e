"""The wheel as its users have it: installed from a file, far from the checkout, with a home folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import requests

import binance_assets
from binance_assets_tests.support.dagster_dev import STOP_SECONDS, free_port
from binance_assets_tests.support.installed_package import IMPORTS, User
from binance_assets_tests.support.polling import until
from release.installation import run_demo
from release.programs import run

HELPS = """
import re

import click
from click.testing import CliRunner
from binance_assets.cli.main import cli

def paths(command, path=()):
    yield path
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from paths(child, (*path, name))

checkout = re.compile(r"make (demo|ui|test|check|recorded)|checkout|SECURITY|README|CONTRIBUTING")
for path in paths(cli):
    result = CliRunner().invoke(cli, [*path, "--help"])
    assert result.exit_code == 0 and "Usage: " in result.output, (path, result.output)
    assert not checkout.search(result.output), (path, result.output)
    print(*path)
"""
COMPLETIONS = {
    "bash": """
        eval "$(_BINANCE_ASSETS_COMPLETE=bash_source binance-assets)"
        COMP_WORDS=(binance-assets download BTCUSDT --market "") COMP_CWORD=4
        complete -p binance-assets >/dev/null && _binance_assets_completion binance-assets && echo "${COMPREPLY[@]}"
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


@pytest.mark.timeout(600)
def test_the_demo_runs_and_writes_into_its_folder_only(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(user.temporary))
    printed = run_demo(user.environment, user.folder, user.home)
    assert "30 of 31 days" in printed
    assert "make " not in printed
    assert [path.name for path in user.folder.iterdir()] == ["demo"]
    assert user.written_elsewhere() == []
    # A curious user goes on in the folder, without the variables of the demo.
    status = run([user.environment.program, "status", "--json"], user.folder / "demo", user.variables)
    assert json.loads(status)["usdm/ETHUSDT/1m"]["refused"] == 1


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


@pytest.mark.timeout(600)
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
        until(240, lambda: asset_keys(port) or process.poll() is not None)
        assert process.poll() is None, (user.folder / "log").read_text()
        assert asset_keys(port) == ["spot/BTCUSDT/1m", "spot/coverage"]
        started += psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_SECONDS)
        _, running = psutil.wait_procs(started, timeout=60)
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
        response = requests.post(f"http://127.0.0.1:{port}/graphql", json=query, timeout=20)
        nodes = response.json()["data"]["assetNodes"]
    except (requests.RequestException, KeyError, TypeError):
        return []
    return sorted("/".join(node["assetKey"]["path"]) for node in nodes)
