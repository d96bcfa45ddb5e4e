"""The texts of a release: the version of the source, and the changelog."""

from __future__ import annotations

import datetime as dt
import shutil
import subprocess
from pathlib import Path

import pytest

import binance_assets
from binance_assets_tests.support.environment import CHECKOUT
from release import ReleaseRefused
from release.changelog import close_unreleased, released_versions
from release.repository import Repository
from release.versions import VERSION_FILE, check_newer, read_version, replace_version

DAY = dt.date(2026, 11, 26)
CHANGELOG = (CHECKOUT / "CHANGELOG.md").read_text()


def test_the_unreleased_changes_become_those_of_the_version() -> None:
    text = "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- One.\n\n## [0.1.0] - 2026-01-01\n\n- Two.\n"
    assert close_unreleased(text, "0.2.0", DAY) == text.replace(
        "## [Unreleased]\n", "## [Unreleased]\n\n## [0.2.0] - 2026-11-26\n"
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("# Changelog\n\n## [0.1.0] - 2026-01-01\n\n- Two.\n", "no section"),
        ("## [Unreleased]\n\n## [0.1.0] - 2026-01-01\n\n- Two.\n", "nothing to release"),
        ("## [Unreleased]\n\n### Added\n", "nothing to release"),
    ],
)
def test_a_changelog_without_unreleased_changes_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ReleaseRefused, match=reason):
        close_unreleased(text, "0.2.0", DAY)


def test_the_changelog_of_the_project_can_be_closed_once() -> None:
    try:
        closed = close_unreleased(CHANGELOG, "9.9.9", DAY)
    except ReleaseRefused:  # just after a release, it has no changes yet
        closed = CHANGELOG.replace("## [Unreleased]\n", "## [Unreleased]\n\n## [9.9.9] - 2026-11-26\n")
    assert released_versions(closed) == ["9.9.9", *released_versions(CHANGELOG)]
    with pytest.raises(ReleaseRefused, match="nothing to release"):
        close_unreleased(closed, "9.9.10", DAY)


@pytest.mark.parametrize("version", ["0.2.0", "0.2.1", "0.10.0", "1.0.0"])
def test_the_version_in_development_and_newer_ones_can_be_released(version: str) -> None:
    check_newer(version, ["0.1.0", "0.1.9"], "0.2.0")


@pytest.mark.parametrize("version", ["0.1.9", "0.1.10", "0.2", "v0.3.0", "0.3.0rc1", "00.3.0", ""])
def test_older_versions_and_other_texts_are_refused(version: str) -> None:
    with pytest.raises(ReleaseRefused):
        check_newer(version, ["0.1.0", "0.1.9"], "0.2.0")


def test_the_version_stands_in_one_line_of_the_source() -> None:
    source = (CHECKOUT / VERSION_FILE).read_text()
    assert read_version(source) == binance_assets.__version__
    replaced = replace_version(source, "9.9.9")
    assert read_version(replaced) == "9.9.9"
    assert len(source.splitlines()) == len(replaced.splitlines())
    with pytest.raises(ReleaseRefused, match="exactly one line"):
        read_version(source + source)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_variables_of_a_hook_lead_to_no_other_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [tmp_path / name for name in ("released", "of_the_hook")]
    for folder in folders:
        subprocess.run(["git", "init", "--quiet", "--initial-branch", folder.name, folder], check=True)
    monkeypatch.setenv("GIT_DIR", str(folders[1] / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(folders[1]))
    monkeypatch.setenv("GIT_INDEX_FILE", str(folders[1] / "index"))
    (folders[1] / "new").write_text("")
    repository = Repository(folders[0])
    repository.require_clean()
    assert repository.branch() == "released"
