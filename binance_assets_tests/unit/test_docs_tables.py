"""Tables in the documentation show what the code has: planted defects, known outages, verdicts.

``UPDATE_SNAPSHOT=1`` writes the tables of planted defects and known outages again.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Sequence
from typing import get_args

from binance_assets.completeness.outages import known_outages
from binance_assets.model.results import ACCEPTED, Verdict
from binance_assets.model.timestamps import MINUTE, to_text
from binance_assets_tests.support.environment import CHECKOUT

TRUST = CHECKOUT / "docs" / "trust.md"
PLANTED = CHECKOUT / "binance_assets_tests" / "integration" / "test_planted_defects.py"
SHOWN = {"refused": "refused", "sound": "right", "written": "**written**"}


def constant(name: str) -> ast.expr:
    """Return the value of a constant of the test of planted defects, which is not imported: that takes a second."""
    for node in ast.parse(PLANTED.read_text()).body:
        if isinstance(node, ast.AnnAssign | ast.Assign) and node.value is not None:
            targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                return node.value
    raise AssertionError(f"{PLANTED.name} has no {name}")


def planted_defects() -> list[tuple[str, ...]]:
    """Return each kind of defect, and what becomes of it in both sources, in the API, and in the archive."""
    kinds = constant("KINDS")
    assert isinstance(kinds, ast.Dict)
    like_an_outage, without_file = (ast.literal_eval(constant(name)) for name in ("LIKE_AN_OUTAGE", "WITHOUT_FILE"))
    rows: list[tuple[str, ...]] = []
    for key, value in zip(kinds.keys, kinds.values, strict=True):
        assert isinstance(key, ast.Constant)
        assert isinstance(value, ast.Tuple)
        kind, outcome = str(key.value), ast.literal_eval(value.elts[1])
        alone = (
            SHOWN[outcome] if outcome == "sound" or (outcome == "written" and kind not in like_an_outage) else "healed"
        )
        rows.append((kind, SHOWN[outcome], alone, "refused" if kind in without_file else alone))
    return rows


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    first, *others = (f"| {' | '.join(line)} |\n" for line in (header, *rows))
    return "".join([first, f"|{'---|' * len(header)}\n", *others])


def assert_table(name: str, expected: str) -> None:
    """Compare the table between two comments of the page, or write it."""
    text = TRUST.read_text()
    pattern = re.compile(rf"(<!-- {name}: .*?-->\n\n)(.*?)(\n?<!-- end of {name} -->)", re.DOTALL)
    assert len(pattern.findall(text)) == 1
    if os.environ.get("UPDATE_SNAPSHOT"):
        TRUST.write_text(pattern.sub(lambda match: f"{match[1]}{expected}\n{match[3].lstrip()}", text))
    else:
        assert pattern.findall(text)[0][1] == expected, "run this test with UPDATE_SNAPSHOT=1"


def test_the_page_shows_every_planted_defect_and_what_becomes_of_it() -> None:
    rows = planted_defects()
    assert_table("planted defects", table(("defect", "in both sources", "in the API", "in the archive"), rows))
    assert f"A test plants {len(rows)} kinds of defects" in TRUST.read_text()
    assert f"plants {len(rows)} kinds" in (CHECKOUT / "docs" / "verification.md").read_text()


def test_the_page_shows_every_known_outage() -> None:
    rows = [
        (outage.market, to_text(outage.stop), to_text(outage.resume), f"{(outage.resume - outage.stop) // MINUTE:,}")
        for outage in known_outages()
    ]
    assert_table("known outages", table(("market", "trading stopped", "trading resumed", "minutes"), rows))


def test_the_page_names_every_verdict_and_whether_it_is_written() -> None:
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| (written|refused) \|", TRUST.read_text(), re.MULTILINE)
    shown = {verdict: state for names, state in rows for verdict in re.findall(r"`(\w+)`", names)}
    assert set(shown) == set(get_args(Verdict))
    written = {verdict for verdict, state in shown.items() if state == "written"}
    assert written == set(ACCEPTED) - {"unbalanced"}
