"""The documentation agrees with the code: the tree of modules, names of modules and functions, links, terms."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest

import binance_assets
from binance_assets.candles.columns import columns
from binance_assets.cli.json_output import OUTPUTS
from binance_assets.cli.main import cli
from binance_assets.model.markets import MARKETS
from binance_assets.model.results import Verdict
from binance_assets.settings import Settings
from binance_assets.storage.metadata import PartitionEntry
from binance_assets_tests.support.environment import CHECKOUT

PACKAGE = CHECKOUT / "binance_assets"
ARCHITECTURE = CHECKOUT / "docs" / "architecture.md"
GLOSSARY = CHECKOUT / "docs" / "glossary.md"
DECISIONS = sorted((CHECKOUT / "docs" / "decisions").glob("[0-9]*.md"))
PAGES = [*sorted(CHECKOUT.glob("*.md")), *sorted((CHECKOUT / "docs").rglob("*.md"))]
SECTIONS = ["Context", "Decision", "Consequences"]
REFERENCE_FOLDER = CHECKOUT / "docs" / "reference"


def load_reference() -> ModuleType:
    """Return the program that generates the pages of the reference; it is not part of a package."""
    spec = importlib.util.spec_from_file_location("reference_pages", CHECKOUT / "docs" / "reference_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reference = load_reference()


def named_in(page: Path) -> list[str]:
    """Return the modules and functions that a page names as ``path/module.py`` or ``path/module.py::name``."""
    return re.findall(r"`([a-z_/]+\.py(?:::[\w.]+)?)`", page.read_text())


def defines(path: Path, name: str) -> bool:
    """Return whether a module defines a function, class, constant, or ``Class.method``."""
    body = ast.parse(path.read_text()).body
    *classes, last = name.split(".")
    for class_name in classes:
        (body,) = [node.body for node in body if isinstance(node, ast.ClassDef) and node.name == class_name]
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == last:
            return True
        if isinstance(node, ast.AnnAssign | ast.Assign):
            targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
            if any(isinstance(target, ast.Name) and target.id == last for target in targets):
                return True
    return False


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that a renderer makes of the headings: lowercase, no punctuation, hyphens for spaces."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_list_of_modules_is_up_to_date() -> None:
    command = [sys.executable, str(CHECKOUT / "docs" / "draw_tree.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_modules_and_functions_that_the_architecture_names_exist() -> None:
    before_tree = ARCHITECTURE.read_text().partition("<!-- tree")[0]
    named = [name for name in named_in(ARCHITECTURE) if f"`{name}`" in before_tree]
    assert len(named) > 20
    for module, _, name in (text.partition("::") for text in named):
        path = PACKAGE / module
        assert path.is_file(), module
        assert not name or defines(path, name), f"{module}::{name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(CHECKOUT).as_posix())
def test_make_targets_that_a_page_names_exist(page: Path) -> None:
    targets = re.findall(r"^([\w-]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)
    for named in re.findall(
        r"(?:`|\$ |^(?=make \S+ +#))make (?:[A-Z]+=\S+ )*([a-z][\w-]*)", page.read_text(), re.MULTILINE
    ):
        assert named in targets, f"make {named}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(CHECKOUT).as_posix())
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        if linked.parent == REFERENCE_FOLDER:  # `make docs` generates these pages, and checks the anchors
            assert f"reference/{linked.name}" in reference.REFERENCE, target
            continue
        assert linked.exists(), target
        assert not anchor or anchor in anchors_of(linked), target


def test_the_layers_are_shown_in_the_order_that_is_checked() -> None:
    with (CHECKOUT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    (shown,) = re.findall(r"^```text\n(cli\n.*?)^```$", ARCHITECTURE.read_text(), re.DOTALL | re.MULTILINE)
    lines = [re.sub(r"  the only layers.*", "", line) for line in shown.splitlines() if "─" not in line]
    assert [sorted(line.split()) for line in lines] == [sorted(re.findall(r"\w+", layer)) for layer in layers]


def test_the_glossary_defines_every_verdict_and_no_term_twice() -> None:
    terms = re.findall(r"^- \*\*(.+?)\*\*: ", GLOSSARY.read_text(), re.MULTILINE)
    assert len(terms) == len(set(terms))
    for verdict in get_args(Verdict):
        assert f"`{verdict}`" in terms


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_decision_records_are_numbered_have_three_sections_and_stand_in_the_index(page: Path) -> None:
    text = page.read_text()
    number = DECISIONS.index(page) + 1
    assert page.name.startswith(f"{number:04}-")
    assert text.startswith(f"# {number}. ")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS
    assert f"]({page.name})" in (page.parent / "README.md").read_text()


def test_each_promise_of_the_limits_names_tests_that_exist() -> None:
    limits = (CHECKOUT / "docs" / "limits.md").read_text().partition("\n## ")[0]
    promises = re.findall(r"^- (.*?)(?=^- |\Z)", limits, re.MULTILINE | re.DOTALL)
    assert len(promises) == limits.count("\n- **") > 5
    for promise in promises:
        named = re.findall(r"\[([^\]]+)\]\(\.\./(binance_assets_tests/[\w/]+\.py)\)", promise)
        assert named, promise
        for words, path in named:
            assert defines(CHECKOUT / path, "test_" + words.replace(" ", "_")), (words, path)


def test_the_reference_lists_every_setting_with_its_meaning() -> None:
    page = reference.settings_page()
    for field in Settings.model_fields.values():
        assert f"| `{field.alias}` | " in page
        assert field.description


def test_the_reference_and_the_guide_list_every_command() -> None:
    page, guide = reference.commands_page(), (CHECKOUT / "docs" / "commands.md").read_text()
    for name, command in cli.commands.items():
        assert f"\n## `{name}`\n" in page
        assert all(option in page for parameter in command.params for option in parameter.opts if option[0] == "-")
        assert re.search(rf"^\|.*`{name}\b.*\|", guide, re.MULTILINE), name


def test_the_reference_lists_every_column_field_and_key() -> None:
    page = reference.columns_page()
    assert all(f"| `{name}` | " in page for market in MARKETS.values() for name in columns(market))
    page = reference.metadata_page()
    fields = set(PartitionEntry.__dataclass_fields__) - {"first", "last", "unknown"}
    assert all(f"`{name}`" in page for name in fields)
    page = reference.json_page()
    assert all(f"\n## `{command} --json`\n" in page for command in OUTPUTS)


def test_the_reference_lists_every_public_name() -> None:
    named = re.findall(r"^::: binance_assets\.(\w+)$", reference.python_page(), re.MULTILINE)
    assert sorted(named) == sorted(set(binance_assets.__all__) - {"__version__"})
