"""The public API: which names it has, what a bare import loads, and that type checkers see the same names."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import binance_assets as ba
from binance_assets_tests.support.environment import CHECKOUT

PACKAGE = CHECKOUT / "binance_assets"
MOST_CPU_SECONDS = 0.3
HEAVY = ("dagster", "pandas", "pandera", "polars", "pyarrow", "pydantic", "requests")

BARE_IMPORT = """\
import json, sys, time
began = time.process_time()
import binance_assets
print(json.dumps({"seconds": time.process_time() - began, "modules": sorted(sys.modules)}))
"""


def imports_of(path: Path) -> list[ast.ImportFrom]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]


def test_a_bare_import_is_fast_and_loads_no_other_module_of_the_package_and_no_heavy_dependency() -> None:
    result = subprocess.run([sys.executable, "-c", BARE_IMPORT], capture_output=True, text=True, check=True)
    found = json.loads(result.stdout)
    assert found["seconds"] < MOST_CPU_SECONDS
    assert [name for name in found["modules"] if name.split(".")[0] == "binance_assets"] == ["binance_assets"]
    assert not set(HEAVY) & set(found["modules"])


def test_every_public_name_resolves() -> None:
    for name in ba.__all__:
        assert getattr(ba, name) is not None, name


def test_a_star_import_brings_exactly_the_public_names() -> None:
    names: dict[str, object] = {}
    exec("from binance_assets import *", names)
    assert set(names) - {"__builtins__"} == set(ba.__all__)


def test_public_names_are_unique_and_shown_by_dir() -> None:
    assert len(set(ba.__all__)) == len(ba.__all__)
    assert set(ba.__all__) <= set(dir(ba))


def test_an_unknown_attribute_raises_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'binance_assets' has no attribute 'candels'"):
        ba.candels  # noqa: B018
    assert not hasattr(ba, "__path_to_nowhere__")


def test_type_checkers_see_every_public_name_from_the_module_that_it_is_loaded_from() -> None:
    declared = {
        alias.name: node.module
        for node in imports_of(PACKAGE / "__init__.py")
        if node.module and node.module.startswith("binance_assets.")
        for alias in node.names
    }
    assert declared == {name: f"binance_assets.{module}" for name, module in ba._MODULES.items()}
    assert set(ba.__all__) == {*declared, "__version__"}


def test_public_classes_and_functions_are_defined_where_they_are_loaded_from() -> None:
    for name, module in ba._MODULES.items():
        value = getattr(importlib.import_module(f"binance_assets.{module}"), name)
        assert getattr(value, "__module__", f"binance_assets.{module}") in {f"binance_assets.{module}", "typing"}, name


def test_modules_of_the_package_import_nothing_but_the_version_from_the_public_api() -> None:
    """The import contracts leave imports of ``binance_assets`` itself out, because of ``__version__``."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for statement in imports_of(path):
            if statement.module == "binance_assets":
                assert [alias.name for alias in statement.names] == ["__version__"], path
        plain = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import)]
        assert "binance_assets" not in [alias.name for statement in plain for alias in statement.names], path
