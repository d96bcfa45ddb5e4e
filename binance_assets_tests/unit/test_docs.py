"""The documentation agrees with the code: the tree of modules, names of modules and functions, links, terms."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import get_args

import pytest

from binance_assets.model.results import Verdict
from binance_assets_tests.support.environment import CHECKOUT

PACKAGE = CHECKOUT / "binance_assets"
ARCHITECTURE = CHECKOUT / "docs" / "architecture.md"
GLOSSARY = CHECKOUT / "docs" / "glossary.md"
DECISIONS = sorted((CHECKOUT / "docs" / "decisions").glob("[0-9]*.md"))
PAGES = [*sorted(CHECKOUT.glob("*.md")), *sorted((CHECKOUT / "docs").rglob("*.md"))]
SECTIONS = ["Context", "Decision", "Consequences"]


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
        linked = page.parent / path if path else page
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
    limits = (CHECKOUT / "README.md").read_text().partition("## Limits\n")[2].partition("\n## ")[0]
    promises = re.findall(r"^- (.*?)(?=^- |\Z)", limits, re.MULTILINE | re.DOTALL)
    assert len(promises) == limits.count("\n- **") > 5
    for promise in promises:
        named = re.findall(r"\[([^\]]+)\]\((binance_assets_tests/[\w/]+\.py)\)", promise)
        assert named, promise
        for words, path in named:
            assert defines(CHECKOUT / path, "test_" + words.replace(" ", "_")), (words, path)
