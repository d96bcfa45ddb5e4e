"""Mutated inputs at every border: each gives a value or the border's own error, and never ends the process."""

from __future__ import annotations

from pathlib import Path

import pytest

from binance_assets_tests.hostile.fuzz import ERROR, FAULTY, VALUE, fuzz, input_of, outcome_of
from binance_assets_tests.support.borders import BORDERS

INPUTS = 150
"""How many inputs of each border the test reads; ``make fuzz`` reads as many as one likes."""


@pytest.mark.parametrize("name", BORDERS)
def test_a_good_input_gives_a_value(name: str, tmp_path: Path) -> None:
    border = BORDERS[name]
    read = border.reader(tmp_path)
    for sample in border.samples():
        read(sample)


@pytest.mark.parametrize("name", BORDERS)
def test_a_mutated_input_gives_a_value_or_the_error_of_the_border(name: str, tmp_path: Path) -> None:
    border = BORDERS[name]
    samples, read = border.samples(), border.reader(tmp_path)
    contents = (input_of(border, samples, seed=0, number=number) for number in range(INPUTS))
    outcomes = dict(enumerate(outcome_of(border, read, content) for content in contents))
    assert {number: text for number, text in outcomes.items() if text not in (VALUE, ERROR)} == {}


def test_the_fuzzer_reports_errors_of_other_kinds_and_what_ends_the_process() -> None:
    foreign, dying = fuzz(list(FAULTY.values()), seed=0, first=0, inputs=30, seconds=60)
    assert len(foreign.findings) == 5
    assert all("gave ArithmeticError: " in finding for finding in foreign.findings)
    assert dying.findings
    assert all("ended the process" in finding for finding in dying.findings)


def test_an_input_depends_on_the_seed_and_its_number_only() -> None:
    border = BORDERS["page"]
    inputs = [input_of(border, border.samples(), seed, number) for seed in (1, 2) for number in range(20)]
    again = [input_of(border, border.samples(), seed, number) for seed in (1, 2) for number in range(20)]
    assert inputs == again
    assert len(set(inputs)) > 30
