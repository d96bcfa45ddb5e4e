"""The changelog: its section ``Unreleased`` becomes the section of a version."""

from __future__ import annotations

import datetime as dt
import re
from typing import Final

from release import ReleaseRefused

_UNRELEASED: Final = re.compile(r"^## \[Unreleased\]\n(?P<changes>.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_RELEASED: Final = re.compile(r"^## \[([0-9]+\.[0-9]+\.[0-9]+)\]", re.MULTILINE)
_CHANGE: Final = re.compile(r"^- \S", re.MULTILINE)


def released_versions(text: str) -> list[str]:
    """Return the versions that have a section in the changelog."""
    return _RELEASED.findall(text)


def close_unreleased(text: str, version: str, date: dt.date) -> str:
    """Return the changelog with the unreleased changes as those of a version, below an empty section ``Unreleased``.

    Raises:
        ReleaseRefused: There is no section ``Unreleased``, or it has no changes.
    """
    section = _UNRELEASED.search(text)
    if section is None:
        raise ReleaseRefused("CHANGELOG.md has no section: ## [Unreleased]")
    if not _CHANGE.search(section["changes"]):
        raise ReleaseRefused("CHANGELOG.md has no changes in its section Unreleased; there is nothing to release")
    heading = f"## [Unreleased]\n\n## [{version}] - {date.isoformat()}\n"
    return f"{text[: section.start()]}{heading}{section['changes']}{text[section.end() :]}"
