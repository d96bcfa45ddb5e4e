"""The README shows the programs in ``examples/``, unchanged."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from binance_assets_tests.support.environment import CHECKOUT

README = CHECKOUT / "README.md"
EXAMPLES = sorted((CHECKOUT / "examples").glob("*.py"))


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)


def test_every_python_block_is_an_example_and_every_example_is_shown() -> None:
    assert sorted(code_blocks("python")) == sorted(path.read_text() for path in EXAMPLES)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_readme_names_the_file_of_each_example(path: Path) -> None:
    assert f"(examples/{path.name})" in README.read_text()


def test_the_readme_shows_the_example_of_the_component() -> None:
    assert (CHECKOUT / "examples" / "defs.yaml").read_text() in code_blocks("yaml")
    assert "(examples/defs.yaml)" in README.read_text()
