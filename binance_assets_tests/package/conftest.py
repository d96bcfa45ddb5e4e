"""Fixtures of the tier ``package``: the wheel, and environments with nothing but the wheel and its dependencies.

Each test with one of them runs for every interpreter that the variable ``INTERPRETERS`` names and that is installed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from binance_assets_tests.support.environment import CHECKOUT
from binance_assets_tests.support.installed_package import INTERPRETERS, User, find_interpreter
from release.distributions import build_wheel
from release.installation import Environment, install


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
    home, folder = tmp_path / "home", tmp_path / "work"
    for path in (home, folder):
        path.mkdir()
    # In the folder of the run, whose end ends the processes that have it.
    return User(environment, home, folder, Path(tempfile.mkdtemp(prefix="user-")))
