"""The sdist and the wheel: what is in them, and that each gives the same wheel."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import BytesParser
from pathlib import Path

import pytest

import binance_assets
from binance_assets_tests.support.environment import CHECKOUT
from release.distributions import Distributions, build, build_wheel, check
from release.installation import UV
from release.programs import run

# Folders and files that serve the repository only: CI, the forms of its site, hooks.
REPOSITORY_ONLY = (".ci/", ".github/", ".pre-commit-config.yaml")
GENERATED = {"PKG-INFO"}
PACKAGED_DATA = {
    "binance_assets/charts/page.html.jinja",
    "binance_assets/completeness/disputed_days.csv",
    "binance_assets/completeness/known_outages.csv",
    "binance_assets/dagster.yaml",
    "binance_assets/py.typed",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    return build(CHECKOUT, tmp_path_factory.mktemp("built") / "dist")


@pytest.fixture(scope="module")
def unpacked(built: Distributions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the sdist's files."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(built.sdist) as archive:
        archive.extractall(folder, filter="data")
    (root,) = folder.iterdir()
    return root


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def tracked_files() -> set[str]:
    """Return the files of the checkout that Git does not ignore."""
    if not (CHECKOUT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("this is no checkout of Git")
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    printed = subprocess.run(listing, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    return {name for name in printed.splitlines() if (CHECKOUT / name).exists()}


def metadata_of(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return BytesParser().parsebytes(archive.read(name))


def test_both_pass_the_checks_of_a_release(built: Distributions) -> None:
    check(built)


def test_the_sdist_holds_what_git_knows_but_for_the_files_of_the_repository(unpacked: Path) -> None:
    assert files_of(unpacked) - GENERATED == {name for name in tracked_files() if not name.startswith(REPOSITORY_ONLY)}


def test_the_wheel_of_the_sdist_is_that_of_the_checkout(built: Distributions, tmp_path: Path) -> None:
    assert build_wheel(CHECKOUT, tmp_path).read_bytes() == built.wheel.read_bytes()


def test_the_wheel_holds_the_package_its_data_and_its_license_and_no_tests(built: Distributions) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        names = archive.namelist()
    metadata = f"binance_assets-{binance_assets.__version__}.dist-info/"
    assert {name.partition("/")[0] + "/" for name in names} == {"binance_assets/", metadata}
    modules = {path.relative_to(CHECKOUT).as_posix() for path in (CHECKOUT / "binance_assets").rglob("*.py")}
    assert {name for name in names if name.startswith("binance_assets/")} == modules | PACKAGED_DATA
    assert f"{metadata}licenses/LICENSE" in names


def test_no_file_names_a_path_of_the_machine_that_built_it(built: Distributions, unpacked: Path) -> None:
    paths = {str(CHECKOUT), str(Path.home()), str(Path(sys.prefix))} - {"/"}
    wheel = zipfile.ZipFile(built.wheel)
    contents = {name: wheel.read(name) for name in wheel.namelist()}
    contents |= {name: (unpacked / name).read_bytes() for name in files_of(unpacked)}
    assert [name for name, content in contents.items() for path in paths if path.encode() + b"/" in content] == []


def test_the_metadata_states_license_versions_and_types_and_no_invented_address(built: Distributions) -> None:
    metadata = metadata_of(built.wheel)
    assert metadata["Version"] == binance_assets.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == "<3.15,>=3.11"
    classifiers = metadata.get_all("Classifier") or []
    assert [f"Programming Language :: Python :: 3.{minor}" in classifiers for minor in range(10, 16)] == [
        False, True, True, True, True, False,
    ]  # fmt: skip
    assert "Typing :: Typed" in classifiers
    assert metadata.get_all("Project-URL") is None  # until the project has an address


def test_no_link_of_the_description_leads_to_a_file_that_the_package_index_lacks(built: Distributions) -> None:
    metadata = metadata_of(built.wheel)
    payload = metadata.get_payload(decode=True)
    assert isinstance(payload, bytes)
    text = payload.decode()
    assert metadata["Description-Content-Type"] == "text/markdown"
    targets = re.findall(r"\]\(([^)]*)\)", text)
    assert "https://github.com/ccxt/ccxt" in targets
    assert [target for target in targets if not target.startswith("https://")] == []
    readme = (CHECKOUT / "README.md").read_text()
    assert set(re.findall(r"^#+ .*", text, re.MULTILINE)) == set(re.findall(r"^#+ .*", readme, re.MULTILINE))
    assert re.findall(r"^```.*?^```", text, re.MULTILINE | re.DOTALL) == re.findall(
        r"^```.*?^```", readme, re.MULTILINE | re.DOTALL
    )
    assert "the folder `docs/` of the source distribution" in text


def test_what_the_documentation_installs_is_in_the_wheel(built: Distributions, tmp_path: Path) -> None:
    pages = [CHECKOUT / "README.md", *(CHECKOUT / "docs").rglob("*.md"), *(CHECKOUT / "binance_assets").rglob("*.py")]
    named = {
        name for page in pages for name in re.findall(r"pip install '?(binance-assets[\w\[\],-]*)", page.read_text())
    }
    assert {"binance-assets[pandas]", "binance-assets[plot]"} <= named
    extras = {extra for name in named for extra in re.findall(r"[\w-]+", name.partition("[")[2])}
    assert extras <= set(metadata_of(built.wheel).get_all("Provides-Extra") or [])
    local: list[str | Path] = ["--no-index", "--find-links", built.wheel.parent, "--no-deps", "--target", tmp_path]
    run([*UV, "pip", "install", *local, *named], tmp_path)
    assert (tmp_path / "binance_assets" / "__init__.py").is_file()


def test_the_tests_of_the_sdist_run_in_its_folder(unpacked: Path) -> None:
    """The tests of the documentation and of the package read the most files around the package."""
    tests = [f"binance_assets_tests/unit/test_{name}.py" for name in ("docs", "public_api", "release")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=unpacked, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stdout
