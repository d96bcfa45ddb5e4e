"""What the wheel brings into an environment: types for type checkers, and nothing that stays after its removal."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from email.parser import BytesParser
from pathlib import Path

import pytest

from binance_assets_tests.support.installed_package import IMPORTS, User
from release.installation import Environment, add, install
from release.programs import run

TYPED = """\
import binance_assets as ba

closes = ba.load("spot/BTCUSDT/1m", start="2024-01-01", every="1h")["close"]
reveal_type(closes)
reveal_type(ba.download("spot/BTCUSDT/1m")[0].rows)
ba.load("spot/BTCUSDT/1m", missing="fill")
"""


def test_type_checkers_see_the_types_of_the_installed_package(
    environment: Environment, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    mypy = pytest.importorskip("mypy.api")
    program = user.folder / "program.py"
    program.write_text(TYPED)
    monkeypatch.chdir(user.folder)
    arguments = ["--strict", f"--python-executable={environment.python}", "--cache-dir=cache", str(program)]
    printed, errors, _ = mypy.run(arguments)
    assert errors == ""
    lines = [line.partition(": ")[2] for line in printed.splitlines() if "program.py" in line]
    assert lines[0] == 'note: Revealed type is "polars.series.series.Series"'
    assert lines[1] == 'note: Revealed type is "int"'
    assert 'expected "Literal[' in lines[2]


def test_uninstalling_leaves_nothing(wheel: Path, interpreter: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        required = BytesParser().parsebytes(archive.read(name)).get_all("Requires-Dist") or []
    dependencies = [requirement for requirement in required if "extra ==" not in requirement]
    environment = install(tmp_path / "environment", interpreter, *dependencies)
    before = set(files_without_bytecode(environment.folder))
    add(environment, wheel)
    home = tmp_path / "home"
    home.mkdir()
    run([environment.python, "-c", IMPORTS], tmp_path, environment.variables(home))
    run(
        [environment.python, "-m", "pip", "uninstall", "--yes", "binance-assets"], tmp_path, environment.variables(home)
    )
    assert set(files_without_bytecode(environment.folder)) == before
    assert [str(path) for path in environment.folder.rglob("*binance*")] == []


def files_without_bytecode(folder: Path) -> Iterator[str]:
    """Yield all files of an environment but the bytecode that its packages write when they are imported."""
    return (str(path) for path in folder.rglob("*") if "__pycache__" not in path.parts)
