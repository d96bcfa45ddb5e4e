"""Versions as ``x.y.z``: which one may be released, and the module that holds it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from release import ReleaseRefused

VERSION_FILE: Final = "binance_assets/__init__.py"
"""The single source of the version, relative to the checkout."""

_VERSION: Final = re.compile(r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)")
_ASSIGNMENT: Final = re.compile(r'^__version__ = "(.*)"$', re.MULTILINE)


def parse_version(text: str) -> tuple[int, ...]:
    """Return the three numbers of a version.

    Raises:
        ReleaseRefused: It is not written ``x.y.z``.
    """
    match = _VERSION.fullmatch(text)
    if match is None:
        raise ReleaseRefused(f"{text!r} is not a version; write three numbers, such as 1.2.3")
    return tuple(map(int, match.groups()))


def check_newer(version: str, released: Iterable[str], in_development: str) -> None:
    """Check that a version is newer than all released ones.

    Args:
        version: The version to release.
        released: The released versions, in any order.
        in_development: The version of the source. It may be the version to release, but not a newer one.

    Raises:
        ReleaseRefused: It is not newer.
    """
    number = parse_version(version)
    newest = max(released, key=parse_version, default=None)
    if newest is not None and number <= parse_version(newest):
        raise ReleaseRefused(f"{version} is not newer than {newest}, which is released; choose a newer version")
    if number < parse_version(in_development):
        raise ReleaseRefused(f"{version} is older than {in_development}, the version in {VERSION_FILE}")


def read_version(source: str) -> str:
    """Return the version that the text of :data:`VERSION_FILE` holds.

    Raises:
        ReleaseRefused: It holds no version, or several.
    """
    found = _ASSIGNMENT.findall(source)
    if len(found) != 1:
        raise ReleaseRefused(f'{VERSION_FILE} needs exactly one line: __version__ = "x.y.z"')
    return str(found[0])


def replace_version(source: str, version: str) -> str:
    """Return the text of :data:`VERSION_FILE` with another version."""
    return _ASSIGNMENT.sub(f'__version__ = "{version}"', source)
