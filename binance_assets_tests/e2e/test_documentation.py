"""Readers can run every code block of the documentation, and get the output that the page shows.

CONTRIBUTING.md describes the comments that change how a block is run. Blocks that no test can run are
skipped tests, so that ``pytest -ra`` counts and lists them with their reasons.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from binance_assets.cli.main import cli
from binance_assets.sandbox import Sandbox
from binance_assets_tests.support.documented_blocks import LANGUAGES, PAGES, Block, blocks_of
from binance_assets_tests.support.documented_session import EXAMPLES, Session
from binance_assets_tests.support.environment import CHECKOUT
from binance_assets_tests.support.warm_python import WarmPython

BLOCKS = {page: blocks_of(page) for page in PAGES}
ALL = [block for blocks in BLOCKS.values() for block in blocks]
SHOWN = {block.title for block in ALL}
# What stands for a value in a command within a sentence.
PLACEHOLDERS = {
    "MARKET": "spot", "SYMBOL": "BTCUSDT", "SERIES": "spot/BTCUSDT/1m", "SERIES...": "spot/BTCUSDT/1m",
    "DAY": "2024-01-01", "START[..END]": "2024-01-01", "NAME": "coverage", "TARGET": "csv",
    "FOLDER": "folder", "[FOLDER]": "folder",
}  # fmt: skip


def name_of(page: Path) -> str:
    return page.relative_to(CHECKOUT).as_posix()


def run(blocks: list[Block], session: Session) -> None:
    for block in blocks:
        if not block.not_run:
            session.run(block)


@pytest.mark.parametrize(
    "page",
    [page for page, blocks in BLOCKS.items() if any(not block.is_for_servers for block in blocks)],
    ids=name_of,
)
def test_the_blocks_of_a_page_run_one_after_another(
    page: Path, sandbox: Sandbox, tmp_path: Path, warm_python: WarmPython
) -> None:
    run([block for block in BLOCKS[page] if not block.is_for_servers], Session(sandbox, tmp_path, warm_python))


@pytest.mark.servers
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "page", [page for page, blocks in BLOCKS.items() if any(block.is_for_servers for block in blocks)], ids=name_of
)
def test_all_blocks_of_a_page_run_one_after_another(
    page: Path, sandbox: Sandbox, tmp_path: Path, warm_python: WarmPython
) -> None:
    run(BLOCKS[page], Session(sandbox, tmp_path, warm_python))


@pytest.mark.parametrize("block", [block for block in ALL if block.not_run], ids=str)
def test_a_block_that_no_test_can_run(block: Block) -> None:
    pytest.skip(f"{block} is not run: {block.not_run}")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_each_block_has_a_language(page: Path) -> None:
    for block in BLOCKS[page]:
        assert block.language in LANGUAGES | {"setup", "fault"}, block


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.iterdir() if path.is_file()))
def test_each_example_is_shown_on_a_page(example: str) -> None:
    assert example in {Path(title).name for title in SHOWN}


def commands_in_sentences() -> list[str]:
    found = set()
    for page in PAGES:
        prose = re.sub(r"^(```+).*?^\1$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        found |= set(re.findall(r"`binance-assets ([^`\n]+)`", prose))
    return sorted(found)


@pytest.mark.parametrize("line", commands_in_sentences())
def test_each_command_in_a_sentence_is_valid_input(line: str) -> None:
    words = [PLACEHOLDERS.get(word, word) for word in shlex.split(line) if word not in ("...", "…")]
    command: click.Command = cli
    name = "binance-assets"
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name = words.pop(0)
        command = command.commands[name]
    if words and "--help" not in words and "--version" not in words:
        assert command.make_context(name, words).args == []
