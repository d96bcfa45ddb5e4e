"""Extras for several machines: which versions an installer chooses for them, with the newest and the lowest bounds."""

from __future__ import annotations

import re
import tomllib

import pytest

from binance_assets_tests.support.environment import CHECKOUT
from release.installation import UV
from release.programs import run

PYPROJECT = CHECKOUT / "pyproject.toml"
EXTRAS: dict[str, list[str]] = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]["optional-dependencies"]
SEVERAL_MACHINES = ["postgres", "celery", "s3", "k8s", "docker"]
FOR_USERS = [*SEVERAL_MACHINES, "plot", "pandas"]
FLOOR = re.compile(r"(?P<name>[a-z0-9-]+)(\[.*\])?>=(?P<version>[0-9.]+)")


@pytest.mark.parametrize("resolution", ["highest", "lowest-direct"])
@pytest.mark.parametrize("extras", [*([name] for name in SEVERAL_MACHINES), FOR_USERS], ids="+".join)
def test_an_extra_is_resolved_to_versions_above_its_floors_and_to_the_dagster_of_the_project(
    extras: list[str], resolution: str
) -> None:
    chosen = resolve(extras, resolution)
    for requirement in (requirement for extra in extras for requirement in EXTRAS[extra]):
        name, floor = floor_of(requirement)
        assert numbers(chosen[name]) >= floor, f"{name}: {chosen[name]}"
    assert numbers(chosen["dagster"])[:2] == (1, 13)
    assert chosen["dagster"] == chosen["dagster-webserver"] == chosen["dagster-graphql"]


def test_each_integration_of_dagster_has_a_floor_because_any_old_release_would_accept_the_newest_dagster() -> None:
    integrations = [text for extra in SEVERAL_MACHINES for text in EXTRAS[extra] if text.startswith("dagster-")]
    assert len(integrations) == 4
    assert {text.partition(">=")[2] for text in integrations} == {"0.29.27,<0.30"}


def resolve(extras: list[str], resolution: str) -> dict[str, str]:
    """Return the version of each package that uv chooses on the index, by its name."""
    selected = [f"--extra={extra}" for extra in extras]
    options = ["--quiet", "--no-header", "--no-annotate", "--python-version=3.11", f"--resolution={resolution}"]
    lines = run([*UV, "pip", "compile", *options, *selected, PYPROJECT], CHECKOUT, seconds=100).splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def floor_of(requirement: str) -> tuple[str, tuple[int, ...]]:
    match = FLOOR.match(requirement)
    assert match is not None, f"{requirement} has no floor"
    return match["name"], numbers(match["version"])


def numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, without what follows a suffix such as ``.post1``."""
    return tuple(int(part) for part in version.split(".") if part.isdigit())
