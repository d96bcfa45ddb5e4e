"""The Git repository of a release. A worktree of its own takes all edits until they are proved to work."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from release import ReleaseRefused
from release.programs import run

# Git sets these for its hooks and aliases (see `git rev-parse --local-env-vars`); they would name another repository.
_OF_REPOSITORY: Final = frozenset(
    {"GIT_COMMON_DIR", "GIT_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX", "GIT_WORK_TREE"}
)


class Repository:
    """A checkout, or a worktree.

    Attributes:
        folder: Its folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def require_clean(self) -> None:
        """Check that nothing is modified, staged, or untracked.

        Raises:
            ReleaseRefused: Something is.
        """
        changes = self._git("status", "--porcelain").splitlines()
        if changes:
            more = f" and {len(changes) - 1} more" if len(changes) > 1 else ""
            raise ReleaseRefused(f"the checkout has changes ({changes[0][3:]}{more}); commit or remove them first")

    def branch(self) -> str:
        """Return the name of the branch that is checked out.

        Raises:
            ReleaseRefused: No branch is.
        """
        name = self._git("branch", "--show-current").strip()
        if not name:
            raise ReleaseRefused("no branch is checked out; a release is a commit on a branch: git switch main")
        return name

    def require_no_tag(self, tag: str) -> None:
        """Check that a tag does not exist.

        Raises:
            ReleaseRefused: It does.
        """
        if self._git("tag", "--list", tag).strip():
            raise ReleaseRefused(f"the tag {tag} exists already; choose a newer version")

    def tagged_versions(self) -> list[str]:
        """Return the versions ``x.y.z`` that have a tag ``vx.y.z``."""
        return re.findall(r"^v([0-9]+\.[0-9]+\.[0-9]+)$", self._git("tag", "--list"), re.MULTILINE)

    @contextmanager
    def worktree(self, folder: Path) -> Iterator[Repository]:
        """Check out the current commit into a folder for the length of the block, without a branch."""
        self._git("worktree", "add", "--quiet", "--detach", str(folder))
        try:
            yield Repository(folder)
        finally:
            self._git("worktree", "remove", "--force", str(folder))

    def commit(self, paths: Sequence[str], subject: str) -> str:
        """Commit files and return the commit.

        Hooks do not run: they use the virtual environment of the checkout, which a worktree does not have.
        """
        self._git("commit", "--quiet", "--no-verify", "--message", subject, "--", *paths)
        return self._git("rev-parse", "HEAD").strip()

    def publish_commit(self, branch: str, commit: str, tag: str) -> None:
        """Tag a commit and move the branch that is checked out forward to it; do both or neither.

        Raises:
            ReleaseRefused: The branch has moved, the checkout has changes in the same files, or the tag exists now.
        """
        if self.branch() != branch:
            raise ReleaseRefused(f"{branch} is no longer checked out; nothing has changed")
        self._git("tag", "--annotate", "--message", f"binance-assets {tag.removeprefix('v')}", tag, commit)
        try:
            self._git("merge", "--quiet", "--ff-only", commit)
        except BaseException:
            self._git("tag", "--delete", tag)
            raise

    def _git(self, *arguments: str) -> str:
        environment = {name: value for name, value in os.environ.items() if name not in _OF_REPOSITORY}
        return run(["git", *arguments], self.folder, environment)
