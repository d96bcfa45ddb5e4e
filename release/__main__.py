"""The program behind ``make release VERSION=x.y.z``.

Everything is done in a worktree of its own, on the commit that is checked out: the edits, the builds, the checks, the
installation, and the demo. Only when all of them succeeded, the tag and the files of ``dist/`` are made and the branch
moves to the new commit. So a release that fails or is interrupted leaves nothing behind.
"""

from __future__ import annotations

import datetime as dt
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Final

from release import ReleaseRefused
from release.changelog import close_unreleased, released_versions
from release.distributions import Distributions, build, check
from release.installation import install, run_demo
from release.repository import Repository
from release.versions import VERSION_FILE, check_newer, read_version, replace_version

CHECKOUT: Final = Path(__file__).resolve().parents[1]
CHANGELOG: Final = "CHANGELOG.md"


def release(checkout: Path, version: str, today: dt.date) -> Distributions:
    """Build, check, commit, and tag a version.

    Args:
        checkout: The folder of the checkout.
        version: The version as ``x.y.z``.
        today: The date of its section in the changelog, UTC.

    Returns:
        The sdist and the wheel, in ``dist/``.

    Raises:
        ReleaseRefused: The version cannot be released, or a step failed. Nothing has changed.
    """
    repository = Repository(checkout)
    repository.require_clean()
    branch = repository.branch()
    repository.require_no_tag(f"v{version}")
    texts = new_texts(checkout, version, today, repository.tagged_versions())
    with tempfile.TemporaryDirectory(prefix="release-") as folder, repository.worktree(Path(folder, "tree")) as tree:
        for name, text in texts.items():
            (tree.folder / name).write_text(text, encoding="utf-8")
        built = make_distributions(tree.folder, Path(folder))
        commit = tree.commit(list(texts), f"Release {version}")
        distributions = Distributions(*(checkout / "dist" / path.name for path in built))
        try:
            _copy(built, checkout / "dist")
            repository.publish_commit(branch, commit, f"v{version}")
        except BaseException:
            for path in distributions:
                path.unlink(missing_ok=True)
            raise
    return distributions


def new_texts(checkout: Path, version: str, today: dt.date, tagged: list[str]) -> dict[str, str]:
    """Return the files that a release changes, by path relative to the checkout.

    Raises:
        ReleaseRefused: The version is not newer, or the changelog has nothing to release.
    """
    source = (checkout / VERSION_FILE).read_text(encoding="utf-8")
    changelog = (checkout / CHANGELOG).read_text(encoding="utf-8")
    check_newer(version, [*released_versions(changelog), *tagged], read_version(source))
    return {
        VERSION_FILE: replace_version(source, version),
        CHANGELOG: close_unreleased(changelog, version, today),
    }


def make_distributions(source: Path, scratch: Path) -> Distributions:
    """Build both distributions, check them, and run the demo of the wheel in an environment of its own.

    Args:
        source: The folder to build.
        scratch: A folder for everything that is written.

    Raises:
        ReleaseRefused: A step failed.
    """
    _report("building the sdist and the wheel ...")
    distributions = build(source, scratch / "dist")
    _report("checking them ...")
    check(distributions)
    _report("installing the wheel in a new environment ...")
    environment = install(scratch / "environment", sys.executable, distributions.wheel)
    _report("running the demo there ...")
    for name in ("work", "home"):
        (scratch / name).mkdir()
    run_demo(environment, scratch / "work", scratch / "home")
    return distributions


def _copy(distributions: Distributions, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for path in distributions:
        shutil.copy(path, folder)


def _report(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    """Release the version that the command line names.

    Returns:
        The exit code: 0, 2 if the release was refused, or 130 if it was interrupted.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what is half done is removed then as well
    version = " ".join(sys.argv[1:]).strip()
    try:
        if not version:
            raise ReleaseRefused("which version? write: make release VERSION=x.y.z")
        sdist, wheel = release(CHECKOUT, version, dt.datetime.now(dt.UTC).date())
    except (ReleaseRefused, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; nothing has changed", file=sys.stderr)
        return 130
    branch = Repository(CHECKOUT).branch()
    print(f"{version} is committed on {branch} and tagged v{version}. Nothing is published. These lines publish it:")
    print(f"  git push --atomic origin {branch} v{version}")
    print(f"  {os.path.relpath(sys.executable)} -m twine upload dist/{sdist.name} dist/{wheel.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
