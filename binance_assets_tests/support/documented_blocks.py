"""The code blocks of a page of the documentation, and the comments that change how a test runs them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from binance_assets_tests.support.environment import CHECKOUT

PAGES: Final = sorted([*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").rglob("*.md")])
"""All pages: those of the site, and those in the folder of the checkout."""

LANGUAGES: Final = frozenset({"bash", "console", "dockerfile", "ini", "json", "python", "text", "toml", "yaml"})
"""The languages that a block may have. ``text`` is a drawing, or the output of the Python block before it."""

_PIECE: Final = re.compile(
    r"^(?P<fence>```+)(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=fence)[ \t]*$|^<!--(?P<comment>.*?)-->",
    re.MULTILINE | re.DOTALL,
)
_MARKER: Final = re.compile(r"\s*(?P<name>not run|servers|one command|exit|setup|fault)\b:?(?P<value>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """A code block, or a step that only the test sees.

    Attributes:
        page: The page, relative to the checkout.
        line: The line of the page in which it begins, from 1.
        language: Its language; empty if it has none. ``setup`` and ``fault`` for steps that readers do not see.
        text: What it contains.
        title: The name of the file that it shows; empty if it shows none.
        not_run: Why no test runs it; empty if one does.
        is_for_servers: Whether only the tier ``servers`` runs it.
        is_one_command: Whether all lines after the first are its output, also those that look like commands.
        exit_codes: The exit codes of its last commands; those before end with 0.
    """

    page: str
    line: int
    language: str
    text: str
    title: str = ""
    not_run: str = ""
    is_for_servers: bool = False
    is_one_command: bool = False
    exit_codes: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(slots=True)
class _Markers:
    """The comments since the last block."""

    end: int = 0
    values: dict[str, str] = field(default_factory=dict)


def blocks_of(page: Path) -> list[Block]:
    """Return the code blocks and hidden steps of a page, in their order."""
    return list(blocks_in(page.read_text(encoding="utf-8"), page.relative_to(CHECKOUT).as_posix()))


def blocks_in(text: str, page: str) -> Iterator[Block]:
    """Yield the code blocks and hidden steps of a text; ``page`` is what errors name."""
    markers = _Markers()
    for piece in _PIECE.finditer(text):
        if text[markers.end : piece.start()].strip():
            markers.values = {}  # a marker is directly before its block
        markers.end = piece.end()
        line = text.count("\n", 0, piece.start()) + 1
        if piece["fence"]:
            language, _, options = piece["info"].strip().partition(" ")
            title = re.search(r'title="([^"]+)"', options)
            yield Block(
                page,
                line,
                language,
                piece["text"],
                title[1] if title else "",
                markers.values.get("not run", ""),
                "servers" in markers.values,
                "one command" in markers.values,
                tuple(map(int, markers.values.get("exit", "").split())),
            )
            markers.values = {}
        elif marker := _MARKER.fullmatch(piece["comment"]):
            if marker["name"] in ("setup", "fault"):
                yield Block(
                    page, line, marker["name"], marker["value"].strip(), is_for_servers="servers" in markers.values
                )
            else:
                markers.values[marker["name"]] = marker["value"].strip()
