"""Rules: what they accept, and which symbols they select."""

from __future__ import annotations

import dataclasses
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binance_assets.model.markets import COINM, SPOT, USDM
from binance_assets.model.rules import MarketSymbol, SymbolRule, make_rule, matches_name, parse_rule, select

QUOTES = ("USDT", "USDC", "BTC")
STATUSES = ("TRADING", "HALT", "BREAK", "")

symbols = st.builds(
    lambda base, quote, status, contract: MarketSymbol(
        base + quote, status, quote, contract, listed=status in ("TRADING", "HALT")
    ),
    st.sampled_from(["A", "B", "AB", "C1"]),
    st.sampled_from(QUOTES),
    st.sampled_from(STATUSES),
    st.sampled_from(["PERPETUAL", "CURRENT_QUARTER", "DELIVERY", "PERPETUAL DELIVERING"]),
)
markets = st.lists(symbols, unique_by=lambda member: member.symbol)
rules = st.builds(
    lambda values: make_rule(values),
    st.fixed_dictionaries(
        {},
        optional={
            "quote": st.sampled_from(QUOTES) | st.lists(st.sampled_from(QUOTES), max_size=2),
            "status": st.lists(st.sampled_from(STATUSES[:-1]), max_size=2),
            "contract": st.sampled_from(["PERPETUAL", "CURRENT_QUARTER"]),
            "match": st.sampled_from(["A.*", ".*USDT", "(A|B)+USD[TC]"]),
            "exclude": st.lists(st.sampled_from(["AUSDT", "BBTC"]), max_size=2),
            "top": st.integers(1, 3),
            "delisted": st.booleans(),
        },
    ),
)
volumes = st.dictionaries(st.sampled_from(["AUSDT", "BUSDT", "ABUSDC", "C1BTC"]), st.floats(0, 1e9))


def names(members: list[MarketSymbol]) -> list[str]:
    return [member.symbol for member in members]


@given(rules, markets, volumes)
def test_every_selected_symbol_fulfills_every_condition(
    rule: SymbolRule, market: list[MarketSymbol], ranks: dict[str, float]
) -> None:
    selected = select(rule, market, ranks)
    assert names(selected) == sorted(names(selected))
    for member in selected:
        assert not rule.quote or member.quote in rule.quote
        assert member.symbol not in rule.exclude
        if member.listed or not rule.delisted:
            assert member.status in rule.status if rule.status else member.listed


@given(rules, markets, volumes)
def test_top_takes_the_largest_volumes_and_does_not_count_what_is_delisted(
    rule: SymbolRule, market: list[MarketSymbol], ranks: dict[str, float]
) -> None:
    without = rule.model_copy(update={"top": None, "delisted": False})
    everything = names(select(without, market))
    chosen = names(select(without.model_copy(update={"top": rule.top}), market, ranks))
    assert len(chosen) == min(len(everything), rule.top or len(everything))
    for left in set(everything) - set(chosen):
        assert all((ranks.get(left, 0.0), chosen) <= (ranks.get(taken, 0.0), chosen) for taken in chosen)
    added = set(names(select(rule, market, ranks))) - set(names(select(without, market))) if rule.delisted else set()
    assert all(not member.listed for member in market if member.symbol in added)


@given(rules, markets, st.sampled_from(["quote", "status", "contract", "match", "exclude"]))
def test_without_a_condition_a_rule_selects_no_less(
    rule: SymbolRule, market: list[MarketSymbol], condition: str
) -> None:
    rule = rule.model_copy(update={"top": None})
    wider = rule.model_copy(update={condition: None if condition == "match" else ()})
    if condition == "status":  # it also takes symbols that do not trade
        rule = wider.model_copy(update={"status": ("TRADING",)})
    assert set(names(select(rule, market))) <= set(names(select(wider, market)))


@given(rules)
def test_the_values_of_a_rule_make_the_same_rule(rule: SymbolRule) -> None:
    assert make_rule(rule.values()) == rule
    assert parse_rule(str(rule)) == rule


def test_names_are_read_in_any_case_and_each_once() -> None:
    rule = make_rule({"quote": "usdt", "status": ["trading", "TRADING"], "exclude": ["btcusdt"]})
    assert (rule.quote, rule.status, rule.exclude) == (("USDT",), ("TRADING",), ("BTCUSDT",))
    assert parse_rule("quote=usdt,USDC delisted=true top=20") == make_rule(
        {"quote": ["USDT", "USDC"], "delisted": True, "top": 20}
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"quotes": "USDT"}, "quotes: a rule has no such condition; it may have quote, status, contract"),
        ({"quote": 1}, "quote: must be a name, or a list of names"),
        ({"quote": ["US DT"]}, "'US DT' is not a name"),
        ({"exclude": ["A"] * 10_001}, "exclude: has more than 10,000 names"),
        ({"top": 0}, "top: Input should be greater than or equal to 1"),
        ({"top": True}, "top: Input should be a valid integer"),
        ({"delisted": "yes"}, "delisted: Input should be a valid boolean"),
        ({"match": "("}, "match: '(' is not a regular expression: unclosed group"),
        ({"match": "A)|(B"}, "match: 'A)|(B' is not a regular expression: unopened group"),
        ({"match": "(?=A)"}, "look-around, including look-ahead and look-behind, is not supported"),
        ({"match": "A{1000}{1000}{1000}"}, "is not a regular expression"),
        ({"match": "A" * 501}, "match: String should have at most 500 characters"),
        ({"match": ""}, "match: String should have at least 1 character"),
        ({"match": "A\n"}, "match: must not contain control characters"),
    ],
)
def test_a_bad_rule_is_refused_in_one_line(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*$") as error:
        make_rule(values)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "query", ["USDT", "quote=", "quote=USDT quote=USDC", "top=many", "delisted=perhaps", "x=1", "match='A"]
)
def test_a_bad_query_is_refused_in_one_line(query: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*$"):
        parse_rule(query)


def test_a_query_keeps_the_backslashes_of_a_pattern_and_the_spaces_in_quotes() -> None:
    assert parse_rule(r"match=\d+[A-Z]\w* quote=USDT") == make_rule({"match": r"\d+[A-Z]\w*", "quote": "USDT"})
    assert parse_rule(r"""match="\w+ \d" quote='USDT, USDC' top=2""") == make_rule(
        {"match": r"\w+ \d", "quote": ["USDT", "USDC"], "top": 2}
    )
    assert parse_rule("match=A#?B").match == "A#?B"


def test_a_pattern_matches_whole_symbols_in_linear_time() -> None:
    longest = MarketSymbol("A" * 40, "TRADING", "", "", listed=True)
    market = [longest, *(dataclasses.replace(longest, symbol=symbol) for symbol in ("AAB", "AABC", "币安人生USDT"))]
    before = time.process_time()
    assert names(matches_name(make_rule({"match": "(A+)+B"}), market)) == ["AAB"]
    assert names(matches_name(make_rule({"match": "币.*"}), market)) == ["币安人生USDT"]
    assert time.process_time() - before < 5


def test_a_rule_that_makes_no_sense_on_its_market_is_refused() -> None:
    make_rule({"contract": "PERPETUAL", "top": 3, "quote": "USDT"}).check_for(USDM)
    make_rule({"top": 3}).check_for(COINM)
    with pytest.raises(ValueError, match="spot has no contracts"):
        make_rule({"contract": "PERPETUAL"}).check_for(SPOT)
    with pytest.raises(ValueError, match="top: needs quote"):
        make_rule({"top": 3}).check_for(SPOT)


def test_a_contract_whose_quarter_is_forgotten_counts_as_every_contract_with_a_delivery() -> None:
    past = MarketSymbol("BTCUSDT_210326", "", "USDT", "DELIVERY", listed=False)
    delisted = {"delisted": True}
    assert select(make_rule({"contract": "CURRENT_QUARTER"} | delisted), [past]) == [past]
    assert select(make_rule({"contract": ["PERPETUAL"]} | delisted), [past]) == []
