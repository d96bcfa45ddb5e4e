"""Type checkers see the types of the public API, in the examples and in code of users."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from binance_assets_tests.support.environment import CHECKOUT

PROGRAM = """\
import binance_assets as ba

reveal_type(ba.scan("spot/BTCUSDT/1m", start="2024-01-01", end="2024-07", every=None, missing="keep"))
reveal_type(ba.load(["spot/BTCUSDT/1m"], every="1h"))
reveal_type(ba.panel(["spot/BTCUSDT/1m"], column="close"))
reveal_type(ba.download("spot/BTCUSDT/1m")[0].verdicts)
reveal_type(ba.coverage())
reveal_type(ba.symbols("spot"))
ba.load("spot/BTCUSDT/1m", missing="fill")
"""
SEEN = [
    "polars.lazyframe.frame.LazyFrame",
    *["polars.dataframe.frame.DataFrame"] * 2,
    "dict[Literal['complete'] |",
    *["polars.dataframe.frame.DataFrame"] * 2,
]


def test_mypy_is_strict_over_the_examples_and_sees_real_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api = pytest.importorskip("mypy.api")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    monkeypatch.chdir(CHECKOUT)
    examples = [str(path) for path in sorted((CHECKOUT / "examples").glob("*.py"))]
    # The cache of `make check`: without it, mypy reads Dagster, Polars, and pandas for half a minute.
    printed, errors, _ = api.run(["--strict", *examples, str(program)])
    assert errors == ""
    revealed = re.findall(r'Revealed type is "(.+)"', printed)
    assert len(revealed) == len(SEEN)
    for text, expected in zip(revealed, SEEN, strict=True):
        assert text.startswith(expected), text
    assert re.findall(r"^.*?([^/]+): error: (.+)  \[", printed, re.MULTILINE) == [
        (
            "program.py:9",
            'Argument "missing" to "load" has incompatible type "Literal[\'fill\']"; '
            "expected \"Literal['keep', 'null', 'flat', 'raise']\"",
        )
    ]
