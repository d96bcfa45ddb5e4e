"""``make release`` in a scratch repository, with a small package whose demo ends at once."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from binance_assets_tests.support.environment import CHECKOUT

PYPROJECT = """\
[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"

[project]
name = "binance-assets"
description = "A small stand-in"
readme = "README.md"
dynamic = ["version"]
license = "Apache-2.0"
requires-python = ">=3.11"

[project.scripts]
binance-assets = "binance_assets.demo:main"

[tool.hatch.version]
path = "binance_assets/__init__.py"

[tool.hatch.build.targets.wheel]
packages = ["binance_assets"]
"""
CHANGELOG = """\
# Changelog

## [Unreleased]

### Added

- The command `fly`.

## [0.1.0] - 2026-01-01

### Added

- Everything else.
"""
DEMO = '''\
"""A demo."""
import sys
from pathlib import Path


def main() -> None:
    """Look for the checkout, and end."""
    assert sys.argv[1:] == ["demo"]
    assert "environment" in Path(__file__).parts
    print("it works")
'''
BROKEN_DEMO = DEMO.replace('print("it works")', 'sys.exit("the demo found a defect")')
SLOW_DEMO = "import time\n\n\ndef main() -> None:\n    time.sleep(100)\n"


class Scratch:
    """A repository with a package that can be released."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        files = {
            "pyproject.toml": PYPROJECT,
            "README.md": "# A small stand-in\n",
            "CHANGELOG.md": CHANGELOG,
            ".gitignore": "dist/\n__pycache__/\n",
            "binance_assets/__init__.py": '"""A package."""\n\n__version__ = "0.2.0"\n',
            "binance_assets/demo.py": DEMO,
        }
        shutil.copytree(CHECKOUT / "release", folder / "release", ignore=shutil.ignore_patterns("__pycache__"))
        self.git("init", "--quiet", "--initial-branch", "main")
        self.git("config", "user.name", "Ada")
        self.git("config", "user.email", "ada@example.com")
        for name, text in files.items():
            self.write(name, text)
        self.commit()

    def write(self, name: str, text: str) -> None:
        (self.folder / name).parent.mkdir(exist_ok=True)
        (self.folder / name).write_text(text)

    def read(self, name: str) -> str:
        return (self.folder / name).read_text()

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "Change something")

    def git(self, *arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=True).stdout.strip()

    def state(self) -> tuple[str, ...]:
        """Return all that a release may change: commits, tags, files, distributions, worktrees."""
        listings = (["log", "--all", "--format=%H"], ["tag"], ["status", "--porcelain"], ["diff"], ["worktree", "list"])
        return (*(self.git(*listing) for listing in listings), str(sorted(self.folder.glob("dist/*"))))

    def release(self, *version: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "release", *version]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False, timeout=250)


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    return Scratch(tmp_path)


def test_a_release_is_one_commit_with_a_tag_and_two_files(scratch: Scratch) -> None:
    before = scratch.git("rev-parse", "HEAD")
    done = scratch.release("0.2.0")
    assert done.returncode == 0, done.stderr
    assert scratch.git("rev-parse", "HEAD^") == before
    assert scratch.git("rev-parse", "v0.2.0^{commit}") == scratch.git("rev-parse", "HEAD")
    assert scratch.git("branch", "--show-current") == "main"
    assert scratch.git("log", "-1", "--format=%s by %an") == "Release 0.2.0 by Ada"
    assert scratch.git("status", "--porcelain") == ""
    assert scratch.git("worktree", "list").count("\n") == 0
    files = ["binance_assets-0.2.0-py3-none-any.whl", "binance_assets-0.2.0.tar.gz"]
    assert sorted(path.name for path in (scratch.folder / "dist").iterdir()) == files
    assert "## [Unreleased]\n\n## [0.2.0] - 20" in scratch.read("CHANGELOG.md")
    assert "Nothing is published" in done.stdout
    assert "git push --atomic origin main v0.2.0" in done.stdout
    assert f"twine upload dist/{files[1]} dist/{files[0]}" in done.stdout

    again = scratch.release("0.2.1")
    assert (again.returncode, again.stdout) == (2, "")
    assert "nothing to release" in again.stderr


def test_the_next_version_is_written_where_the_package_has_it(scratch: Scratch) -> None:
    done = scratch.release("1.0.0")
    assert done.returncode == 0, done.stderr
    assert '__version__ = "1.0.0"' in scratch.read("binance_assets/__init__.py")
    assert "binance_assets-1.0.0.tar.gz" in done.stdout


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ((), "which version? write: make release VERSION=x.y.z"),
        (("next",), "'next' is not a version; write three numbers, such as 1.2.3"),
        (("0.1.0",), "0.1.0 is not newer than 0.1.0, which is released; choose a newer version"),
        (("0.1.9",), "0.1.9 is older than 0.2.0, the version in binance_assets/__init__.py"),
        (("0.3.0",), "the tag v0.3.0 exists already; choose a newer version"),
        (("0.2.5",), "0.2.5 is not newer than 0.3.0, which is released; choose a newer version"),
    ],
)
def test_a_version_that_cannot_be_released_is_refused_in_one_line(
    scratch: Scratch, version: tuple[str, ...], reason: str
) -> None:
    if version and version[0] in {"0.3.0", "0.2.5"}:
        scratch.git("tag", "v0.3.0")
    assert_refused(scratch, version, reason)


@pytest.mark.parametrize("name", ["new.txt", "binance_assets/demo.py"])
def test_a_checkout_with_changes_is_refused(scratch: Scratch, name: str) -> None:
    scratch.write(name, "changed\n")
    assert_refused(scratch, ("0.2.0",), f"the checkout has changes ({name}); commit or remove them first")


def test_a_changelog_without_changes_is_refused(scratch: Scratch) -> None:
    scratch.write("CHANGELOG.md", CHANGELOG.replace("- The command `fly`.\n", ""))
    scratch.commit()
    reason = "CHANGELOG.md has no changes in its section Unreleased; there is nothing to release"
    assert_refused(scratch, ("0.2.0",), reason)


def test_a_checkout_without_a_branch_is_refused(scratch: Scratch) -> None:
    scratch.git("switch", "--quiet", "--detach")
    assert_refused(scratch, ("0.2.0",), "no branch is checked out; a release is a commit on a branch: git switch main")


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("binance_assets/demo.py", BROKEN_DEMO, "the demo found a defect"),
        ("pyproject.toml", PYPROJECT.replace('readme = "README.md"\n', ""), "twine"),
        ("pyproject.toml", PYPROJECT.replace('"hatchling.build"', '"hatchling.nowhere"'), "build"),
    ],
)
def test_a_release_that_fails_changes_nothing(scratch: Scratch, name: str, text: str, reason: str) -> None:
    scratch.write(name, text)
    scratch.commit()
    before = scratch.state()
    done = scratch.release("0.2.0")
    assert done.returncode == 2
    assert reason in done.stderr
    assert "Traceback" not in done.stderr.partition("\n")[0]
    assert scratch.state() == before


def test_a_release_that_is_terminated_changes_nothing(scratch: Scratch) -> None:
    scratch.write("binance_assets/demo.py", SLOW_DEMO)
    scratch.commit()
    before = scratch.state()
    command = [sys.executable, "-m", "release", "0.2.0"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=scratch.folder, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("running the demo"):
            assert process.poll() is None
        process.terminate()
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "interrupted; nothing has changed\n")
    assert scratch.state() == before


def assert_refused(scratch: Scratch, version: tuple[str, ...], reason: str) -> None:
    before = scratch.state()
    done = scratch.release(*version)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {reason}\n")
    assert scratch.state() == before
