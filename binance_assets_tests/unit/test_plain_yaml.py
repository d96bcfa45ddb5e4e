"""The fast reader of YAML reads what the reader that keeps comments reads, or nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from binance_assets.storage.plain_yaml import UnusualYaml, plain_document

USUAL = """\
# the series
series:
  - market: spot  # all of them
    symbols: [BTCUSDT, 1INCHUSDT, 币安人生USDT, "1e5", 'no']
    intervals:
      - 1m
      - "1d"
    owners: [team:data, data@example.com]
    derive: []
  - {market: usdm, symbols: {quote: USDT, top: 100, delisted: true, match: "BTC.*", status: }, intervals: [1h]}
"""


def read(text: str) -> object:
    return plain_document(text, 1_000)


def test_a_usual_universe_is_read() -> None:
    assert read(USUAL) == YAML(typ="safe", pure=True).load(USUAL)


@pytest.mark.parametrize(
    "text",
    [
        *("yes: 1_000", "a: 0x1F", "a: 1e5", "a: .5", "a: 2020-01-01", "a: 01:30", "a: ~", "a: 012", "a: 1E5"),
        *("a: &b [1]", "a: [*b]", "a: !!str 1", "<<: {a: 1}", "a: 1\na: 2", "1: a", "a: 1\n---\nb: 2", "--- {a: 1}"),
        *("%YAML 1.1\n---\na: yes", "a: [", "a: b: c", "a:\tb", "a: -", "a: " + 13 * "[" + 13 * "]", "", "a: \x85b"),
    ],
)
def test_what_readers_understand_differently_is_left_to_the_other_reader(text: str) -> None:
    with pytest.raises(UnusualYaml):
        read(text)


def test_no_more_values_are_read_than_allowed() -> None:
    with pytest.raises(UnusualYaml):
        plain_document(f"a: [{'1, ' * 1_000}]", 1_000)


@settings(max_examples=150)
@given(st.text(st.sampled_from("0123456789abeExXoONnulyYsTtruefalse._+-:@~日#'\"\\ /"), max_size=9))
def test_a_value_is_read_as_the_other_reader_reads_it_or_not_at_all(value: str) -> None:
    text = f"a: [{value}]\nb: {value}\n"
    try:
        found = read(text)
    except UnusualYaml:
        return
    try:
        expected = YAML(typ="safe", pure=True).load(text)
    except YAMLError:
        expected = None
    assert found == expected
