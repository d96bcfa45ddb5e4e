"""The distributions: the sdist and the wheel, built as pip builds them, and what must hold for both."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final, NamedTuple

from release import ReleaseRefused
from release.programs import run

_ANY_PLATFORM: Final = "-py3-none-any.whl"


class Distributions(NamedTuple):
    """The two files of a version."""

    sdist: Path
    wheel: Path


def build(source: Path, target: Path) -> Distributions:
    """Build the sdist from a folder, and the wheel from the sdist.

    Args:
        source: A checkout, or an unpacked sdist.
        target: The folder of the distributions, which does not exist.

    Raises:
        ReleaseRefused: The build failed.
    """
    _run_build(source, target)
    (sdist,), (wheel,) = target.glob("*.tar.gz"), target.glob("*.whl")
    return Distributions(sdist, wheel)


def build_wheel(source: Path, target: Path) -> Path:
    """Build the wheel from a folder, without an sdist in between.

    Raises:
        ReleaseRefused: The build failed.
    """
    _run_build(source, target, "--wheel")
    (wheel,) = target.glob("*.whl")
    return wheel


def check(distributions: Distributions) -> None:
    """Check the metadata of both, the files of the wheel, and that the wheel serves every platform.

    Raises:
        ReleaseRefused: A check failed.
    """
    folder = distributions.wheel.parent
    if not distributions.wheel.name.endswith(_ANY_PLATFORM):
        raise ReleaseRefused(
            f"{distributions.wheel.name} is not for every platform; its name must end with {_ANY_PLATFORM}"
        )
    run([*_module("twine"), "check", "--strict", *distributions], folder)
    # It reads its configuration from the checkout: the only folder of the wheel is the package.
    run([*_module("check_wheel_contents"), "--toplevel", "binance_assets", distributions.wheel], folder)


def _run_build(source: Path, target: Path, *options: str) -> None:
    run([*_module("build"), "--installer", "uv", *options, "--outdir", target, source], source)


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", name]
