"""The lock file of the universe: its format, what the universe takes from it, and edits of rules."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binance_assets.model.markets import MARKETS, SPOT
from binance_assets.model.rules import SymbolRule, make_rule
from binance_assets.model.series import parse_series
from binance_assets.storage.universe import UniverseError, read_universe
from binance_assets.storage.universe_editor import track, untrack
from binance_assets.storage.universe_lock import (
    CatalogSize,
    LockedRule,
    LockedSymbol,
    UniverseLock,
    lock_path,
    read_lock,
    write_lock,
)

TODAY = dt.date(2026, 11, 26)
BTC = LockedSymbol(TODAY, dt.date(2017, 8, 17), None, listed=True)
SRM = LockedSymbol(TODAY, dt.date(2020, 8, 11), dt.date(2022, 11, 28), listed=False)
RULE = make_rule({"quote": "USDT", "delisted": True})
ENTRY = "  - {market: spot, symbols: {quote: USDT, delisted: true}, intervals: [1d]}\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "universe.yaml"


def lock_with(path: Path, *rules: LockedRule) -> None:
    write_lock(
        lock_path(path), UniverseLock(TODAY, rules or (LockedRule(SPOT, RULE, {"BTCUSDT": BTC, "SRMUSDT": SRM}),))
    )


def names(path: Path) -> list[str]:
    return [str(series) for series in read_universe(path).series]


def test_the_owners_of_a_rule_own_what_it_selects(path: Path) -> None:
    path.write_text("series:\n" + ENTRY.replace("}\n", ", owners: [team:data], derive: []}\n"))
    lock_with(path)
    assert [tracked.owners for tracked in read_universe(path).tracked] == [("team:data",)] * 2


days = st.dates(dt.date(2017, 7, 1), dt.date(2099, 12, 31))
records = st.builds(LockedSymbol, days, st.none() | days, st.none() | days, st.booleans())
symbol_names = st.from_regex(r"[A-Z0-9]{1,8}(_PERP|_[0-9]{6})?", fullmatch=True) | st.sampled_from(
    ["币安人生USDT", "NO", "1E5", "0X1F", "NULL", "2024", "Y", "1_000"]
)
patterns = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)


def is_rule(pattern: str) -> bool:
    try:
        make_rule({"match": pattern})
    except ValueError:
        return False
    return True


rules = st.builds(
    lambda quote, pattern, top: make_rule({"quote": quote, "match": pattern, "top": top}),
    st.lists(st.sampled_from(["USDT", "NO"]), max_size=2),
    patterns.filter(is_rule),
    st.none() | st.integers(1, 10_000),
)
locks = st.builds(
    UniverseLock,
    days,
    st.lists(
        st.builds(
            LockedRule,
            st.sampled_from(list(MARKETS.values())),
            rules,
            st.dictionaries(symbol_names, records, max_size=4),
        ),
        max_size=3,
    ).map(tuple),
    st.dictionaries(st.sampled_from(list(MARKETS)), st.builds(CatalogSize, st.integers(0, 9_999), st.none())),
)


@given(locks)
def test_a_lock_reads_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, lock: UniverseLock) -> None:
    path = tmp_path_factory.getbasetemp() / "any.lock.yaml"
    write_lock(path, lock)
    assert read_lock(path) == lock


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_a_lock_or_its_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.lock.yaml"
    path.write_bytes(content)
    with pytest.raises(UniverseError, match="is not a lock file") as error:
        read_lock(path)
    assert str(error.value).isprintable()


HEAD = "version: 1\nrefreshed: 2026-11-26\n"
RULES = HEAD + "rules: [{market: spot, rule: {quote: USDT}, symbols: "


@pytest.mark.parametrize(
    "text",
    [
        "<<<<<<< HEAD\n" + HEAD,
        HEAD,
        HEAD.replace("1", "2", 1) + "rules: []",
        HEAD + "rules: [{market: moon, rule: {}, symbols: {}}]",
        HEAD + "rules: [{market: spot, rule: {x: 1}, symbols: {}}]",
        RULES + "{BTCUSDT: {since: 2026-11-26}}}]",
        RULES + "{btc usdt: {since: 2026-11-26, listed: true}}}]",
        RULES + "{BTCUSDT: {since: 1970-01-01, listed: true}}}]",
        RULES + "{BTCUSDT: {since: never, listed: true}}}]",
        RULES + "{BTCUSDT: {since: 2026-11-26, listed: 1}}}]",
        HEAD + "rules: &a [*a]",
        HEAD + "rules: !!python/object/apply:os.system [ls]",
        "[" * 100_000,
        "- " * 100_000,
    ],
)
def test_a_lock_that_is_none_is_refused_in_a_line_that_names_it(path: Path, text: str) -> None:
    path.write_text("series:\n" + ENTRY)
    lock_path(path).write_text(text)
    with pytest.raises(UniverseError) as error:
        read_universe(path)
    message = str(error.value)
    assert message.startswith(str(lock_path(path)))
    assert "universe refresh" in message
    assert message.isprintable()


def test_a_lock_of_a_gigabyte_is_not_read(path: Path) -> None:
    with lock_path(path).open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(UniverseError, match="larger than 10,000,000 bytes"):
        read_lock(lock_path(path))


def test_a_lock_edited_by_hand_is_read(path: Path) -> None:
    path.write_text("series:\n" + ENTRY)
    lock_path(path).write_text(
        "version: 1 # ours\nrefreshed: '2026-11-26'\nrules:\n- market: spot\n  rule:\n"
        "    delisted: true\n    quote: usdt\n"
        "  symbols:\n    BTCUSDT:\n      since: 2026-11-26\n      listed: true\n"
    )
    assert names(path) == ["spot/BTCUSDT/1d"]
    assert read_universe(path).notes == ()


# What the universe takes from it


def test_a_rule_selects_what_the_lock_says_with_first_and_last_day(path: Path) -> None:
    path.write_text("series:\n" + ENTRY.replace("[1d]", "[1h], derive: [1d]"))
    lock_with(path)
    universe = read_universe(path)
    assert [(str(t.series), t.first, t.last) for t in universe.tracked] == [
        ("spot/BTCUSDT/1h", BTC.first, None),
        ("spot/SRMUSDT/1h", SRM.first, SRM.last),
    ]
    assert {str(series): day for series, day in universe.ended.items()} == {
        "spot/SRMUSDT/1h": SRM.last,
        "spot/SRMUSDT/1d": SRM.last,
    }
    assert universe.notes == ()


def test_a_rule_without_a_lock_selects_nothing_and_says_what_to_do(path: Path) -> None:
    path.write_text("series:\n" + ENTRY)
    universe = read_universe(path)
    assert universe.series == []
    (note,) = universe.notes
    assert "entry 1 of series has a rule that selects nothing yet; run `binance-assets universe refresh`" in note


@pytest.mark.parametrize(("symbols", "exclude"), [({}, "[]"), ({"BTCUSDT": BTC, "SRMUSDT": SRM}, "[BTCUSDT, SRMUSDT]")])
def test_a_rule_that_selects_no_symbol_is_named(path: Path, symbols: dict[str, LockedSymbol], exclude: str) -> None:
    lock_with(path, LockedRule(SPOT, RULE, symbols))
    path.write_text("series:\n" + ENTRY.replace("delisted", f"exclude: {exclude}, delisted"))
    (note,) = read_universe(path).notes
    assert "the rule in entry 1 of series selects no symbol of spot; check its conditions" in note


def test_an_edited_rule_keeps_its_selection_until_the_next_refresh(path: Path) -> None:
    lock_with(path)
    path.write_text("series:\n" + ENTRY.replace("quote: USDT", "quote: [USDT, USDC]"))
    assert names(path) == ["spot/BTCUSDT/1d", "spot/SRMUSDT/1d"]
    (note,) = read_universe(path).notes
    assert "the rule in entry 1 of series has changed since the last refresh" in note


def test_an_exclusion_applies_at_once(path: Path) -> None:
    lock_with(path)
    path.write_text("series:\n" + ENTRY.replace("delisted", "exclude: [srmusdt], delisted"))
    assert names(path) == ["spot/BTCUSDT/1d"]
    assert read_universe(path).notes == ()


def test_a_series_that_a_list_names_belongs_to_the_list_and_of_two_rules_to_the_first(path: Path) -> None:
    lock_with(path, LockedRule(SPOT, RULE, {"BTCUSDT": BTC, "SRMUSDT": SRM}), LockedRule(SPOT, RULE, {"SRMUSDT": SRM}))
    listed = "  - {market: spot, symbols: [BTCUSDT], intervals: [1d], source: rest}\n"
    path.write_text("series:\n" + ENTRY + listed + ENTRY.replace("[1d]", "[1d], source: archive"))
    assert sorted((str(t.series), t.source) for t in read_universe(path).tracked) == [
        ("spot/BTCUSDT/1d", "rest"),
        ("spot/SRMUSDT/1d", None),
    ]


def test_what_a_list_derives_is_not_fetched_by_a_rule(path: Path) -> None:
    lock_with(path)
    path.write_text("series:\n  - {market: spot, symbols: [BTCUSDT], intervals: [1m], derive: [1d]}\n" + ENTRY)
    universe = read_universe(path)
    assert names(path) == ["spot/BTCUSDT/1m", "spot/SRMUSDT/1d"]
    assert universe.derived_names == {"spot/BTCUSDT/1d"}


def test_a_market_that_is_no_text_is_named_in_an_entry_with_a_rule(path: Path) -> None:
    path.write_text("series: [{market: [spot], symbols: {quote: USDT}, intervals: [1d]}]")
    with pytest.raises(UniverseError, match="entry 1 of series, market: Input should be a valid string"):
        read_universe(path)


@pytest.mark.parametrize(
    ("symbols", "message"),
    [
        ("{quotes: USDT}", "entry 1 of series, symbols: quotes: a rule has no such condition"),
        ("{top: 3}", "entry 1 of series, symbols: top: needs quote"),
        ("{contract: PERPETUAL}", "entry 1 of series, symbols: contract: spot has no contracts"),
        ("{match: '('}", "entry 1 of series, symbols: match: '(' is not a regular expression"),
        ("{1: 2}", "entry 1 of series, symbols"),
    ],
)
def test_a_bad_rule_is_refused_with_the_number_of_its_entry(path: Path, symbols: str, message: str) -> None:
    path.write_text(f"series: [{{market: spot, symbols: {symbols}, intervals: [1d]}}]")
    with pytest.raises(UniverseError, match=r"^[^\n]*$") as error:
        read_universe(path)
    assert message in str(error.value)


# Edits


def test_untrack_excludes_a_symbol_from_its_rule_and_keeps_comments(path: Path) -> None:
    path.write_text("# mine\nseries:\n" + ENTRY)
    lock_with(path)
    removed = [parse_series("spot/SRMUSDT/1d")]
    assert untrack(path, removed) == removed
    assert names(path) == ["spot/BTCUSDT/1d"]
    assert path.read_text().startswith("# mine\n")
    assert "exclude: [SRMUSDT]" in path.read_text()
    assert untrack(path, removed) == []


def test_untrack_of_one_interval_keeps_the_others_of_the_symbol(path: Path) -> None:
    path.write_text("series:\n" + ENTRY.replace("[1d]", "[1h, 1d]"))
    lock_with(path)
    untrack(path, [parse_series("spot/SRMUSDT/1h")])
    assert sorted(names(path)) == ["spot/BTCUSDT/1d", "spot/BTCUSDT/1h", "spot/SRMUSDT/1d"]


def test_untrack_of_all_intervals_excludes_the_symbol_once(path: Path) -> None:
    path.write_text("series:\n" + ENTRY.replace("[1d]", "[1h, 1d]"))
    lock_with(path)
    untrack(path, [parse_series("spot/SRMUSDT/1h"), parse_series("spot/SRMUSDT/1d")])
    assert sorted(names(path)) == ["spot/BTCUSDT/1d", "spot/BTCUSDT/1h"]
    assert "exclude: [SRMUSDT]" in path.read_text()


def test_untrack_removes_a_series_from_list_and_rule_alike(path: Path) -> None:
    path.write_text("series:\n  - {market: spot, symbols: [BTCUSDT], intervals: [1d]}\n" + ENTRY)
    lock_with(path)
    untrack(path, [parse_series("spot/BTCUSDT/1d"), parse_series("spot/SRMUSDT/1d")])
    assert names(path) == []


def test_track_leaves_rules_alone(path: Path) -> None:
    path.write_text("series:\n" + ENTRY)
    lock_with(path)
    assert track(path, [parse_series("spot/BTCUSDT/1d")]) == []
    added = [parse_series("spot/ETHUSDT/1d")]
    assert track(path, added) == added
    assert sorted(names(path)) == ["spot/BTCUSDT/1d", "spot/ETHUSDT/1d", "spot/SRMUSDT/1d"]
    assert SymbolRule.model_validate(read_universe(path).rules[0].rule) == RULE
