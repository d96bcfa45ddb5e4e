"""The decisions of a refresh: who is selected, who stays, what changed, and what is not believed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binance_assets.exchange.listing import TradedDays
from binance_assets.exchange.symbols import SymbolInfo
from binance_assets.ingest.market_symbols import Catalog, merged_symbols
from binance_assets.ingest.universe_refresh import (
    RefreshRefused,
    RuleOutcome,
    changes_between,
    check_plausible,
    check_selection,
    chosen_symbols,
    is_settled,
    new_record,
)
from binance_assets.model.markets import SPOT
from binance_assets.model.rules import MarketSymbol, SymbolRule, make_rule
from binance_assets.storage.universe import RuleEntry
from binance_assets.storage.universe_lock import CatalogSize, LockedRule, LockedSymbol

TODAY = dt.date(2026, 11, 26)
LISTED = LockedSymbol(dt.date(2026, 1, 1), dt.date(2020, 1, 1), None, listed=True)
DELISTED = LockedSymbol(dt.date(2026, 1, 1), dt.date(2020, 1, 1), dt.date(2022, 11, 28), listed=False)
ENDED_WHILE_TRACKED = LockedSymbol(dt.date(2026, 1, 1), dt.date(2020, 1, 1), dt.date(2026, 6, 1), listed=False)


def catalog_of(trading: Iterable[str], archived: Iterable[str] = (), **volumes: float) -> Catalog:
    infos = {symbol: SymbolInfo("TRADING", None, "USDT") for symbol in trading}
    return Catalog(SPOT, merged_symbols(SPOT, infos, archived), TODAY, len(infos), None, volumes)


def chosen(rule: SymbolRule, catalog: Catalog, previous: LockedRule | None = None) -> tuple[list[str], list[str]]:
    symbols, kept = chosen_symbols(rule, catalog, previous)
    return list(symbols), kept


def locked(rule: SymbolRule, **symbols: LockedSymbol) -> LockedRule:
    return LockedRule(SPOT, rule, symbols)


USDT = make_rule({"quote": "USDT"})
TOP = make_rule({"quote": "USDT", "top": 1})
EVER = make_rule({"quote": "USDT", "delisted": True})


def test_delisted_symbols_come_from_the_archive_if_the_rule_wants_them() -> None:
    catalog = catalog_of(["BTCUSDT"], ["BTCUSDT", "SRMUSDT", "SRMBTC"])
    assert chosen(USDT, catalog) == (["BTCUSDT"], [])
    assert chosen(EVER, catalog) == (["BTCUSDT", "SRMUSDT"], [])


def test_a_name_that_no_series_can_have_is_left_out() -> None:
    too_long_for_a_tag = "".join(chr(0x4E00 + 199 * number) for number in range(40))
    names = ["BTCUSDT", too_long_for_a_tag, "btcusdt", "A B", "", "A/B"]
    assert list(catalog_of(names[:3], names).symbols) == ["BTCUSDT"]


def test_what_is_delisted_stays_tracked_also_without_delisted() -> None:
    assert chosen(USDT, catalog_of(["BTCUSDT"]), locked(USDT, SRMUSDT=LISTED)) == (["BTCUSDT", "SRMUSDT"], ["SRMUSDT"])


def test_what_drops_out_of_top_stays_tracked() -> None:
    catalog = catalog_of(["AUSDT", "BUSDT"], AUSDT=1, BUSDT=2)
    assert chosen(TOP, catalog, locked(TOP, AUSDT=LISTED)) == (["AUSDT", "BUSDT"], ["AUSDT"])


def test_an_exclusion_removes_in_any_case() -> None:
    excluding = make_rule({"quote": "USDT", "exclude": ["SRMUSDT"]})
    assert chosen(excluding, catalog_of(["BTCUSDT"]), locked(USDT, SRMUSDT=DELISTED)) == (["BTCUSDT"], [])


def test_an_edited_top_removes_what_it_no_longer_selects_but_not_what_ended_while_it_was_tracked() -> None:
    catalog = catalog_of(["AUSDT", "BUSDT"], AUSDT=1, BUSDT=2)
    wider = make_rule({"quote": "USDT", "top": 2})
    before = locked(wider, AUSDT=LISTED, BUSDT=LISTED, OLDUSDT=ENDED_WHILE_TRACKED)
    assert chosen(TOP, catalog, before) == (["BUSDT", "OLDUSDT"], ["OLDUSDT"])


def test_without_delisted_go_the_symbols_that_it_added() -> None:
    before = locked(EVER, SRMUSDT=DELISTED, OLDUSDT=ENDED_WHILE_TRACKED)
    assert chosen(USDT, catalog_of(["BTCUSDT"]), before) == (["BTCUSDT", "OLDUSDT"], ["OLDUSDT"])


def test_an_edited_quote_removes_what_has_another_quote() -> None:
    fdusd = make_rule({"quote": "FDUSD"})
    assert chosen(fdusd, catalog_of(["BTCUSDT"]), locked(USDT, BTCUSDT=LISTED, OLDUSDT=ENDED_WHILE_TRACKED)) == ([], [])


@given(st.lists(st.sampled_from(["AUSDT", "BUSDT", "CUSDT", "DUSDT"]), unique=True), st.integers(1, 3))
def test_while_a_rule_stays_the_same_nothing_that_it_selected_is_ever_lost(trading: list[str], top: int) -> None:
    rule = make_rule({"quote": "USDT", "top": top})
    before = locked(rule, AUSDT=LISTED, ZUSDT=DELISTED)
    symbols, kept = chosen(rule, catalog_of(trading), before)
    assert {"AUSDT", "ZUSDT"} <= set(symbols)
    assert len(set(symbols) - set(kept)) == min(top, len(trading))
    assert chosen(rule, catalog_of(trading), locked(rule, **dict.fromkeys(symbols, LISTED)))[0] == symbols


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({"quote": "USDTT"}, "spot has no symbol with quote=USDTT (did you mean USDT?); nothing was changed: "),
        ({"quote": "USDT", "status": "TRADNG"}, "(did you mean TRADING?)"),
        ({"match": "BTC"}, "entry 3 of series: spot has no symbol with match=BTC; "),
    ],
)  # fmt: skip
def test_a_new_or_an_edited_rule_that_selects_nothing_removes_nothing(conditions: dict[str, str], message: str) -> None:
    catalog, rule = catalog_of(["BTCUSDT", "ETHUSDT"]), make_rule(conditions)
    nothing = RuleOutcome(RuleEntry(3, SPOT, rule), locked(rule), ())
    for previous in (None, locked(USDT, BTCUSDT=LISTED), locked(USDT)):
        with pytest.raises(RefreshRefused, match="--accept-loss") as refused:
            check_selection(catalog, nothing, previous)
        assert message in str(refused.value)
    check_selection(catalog, nothing, locked(rule))  # accepted once


def test_a_misspelled_quote_asset_among_others_loses_nothing() -> None:
    catalog = catalog_of(["BTCUSDT", "ETHUSDT"])
    for quotes, is_refused in ((["USDT", "USDTT"], True), (["USDT", "FDUSD"], False)):
        rule = make_rule({"quote": quotes})
        outcome = RuleOutcome(RuleEntry(1, SPOT, rule), locked(rule, BTCUSDT=LISTED), ())
        check_selection(catalog, outcome, locked(rule, BTCUSDT=LISTED))
        with (
            pytest.raises(RefreshRefused, match=r"quote=USDTT \(did you mean USDT\?\)") if is_refused else nullcontext()
        ):
            check_selection(catalog, outcome, locked(USDT, BTCUSDT=LISTED))


def test_an_exclusion_may_leave_nothing_of_a_rule() -> None:
    catalog = catalog_of(["BTCUSDT"])
    excluding = make_rule({"quote": "USDT", "exclude": ["BTCUSDT"]})
    check_selection(
        catalog, RuleOutcome(RuleEntry(1, SPOT, excluding), locked(excluding), ()), locked(USDT, BTCUSDT=LISTED)
    )


def member(symbol: str, listed: bool) -> MarketSymbol:
    return MarketSymbol(symbol, "TRADING" if listed else "", "USDT", "", listed)


def test_a_record_keeps_since_when_it_is_tracked_and_its_first_day() -> None:
    days = TradedDays(dt.date(2020, 8, 11), dt.date(2022, 11, 28))
    first = new_record(member("A", True), None, TODAY, dt.date(2021, 1, 1), None)
    assert first == LockedSymbol(TODAY, dt.date(2021, 1, 1), None, listed=True)
    over = new_record(member("A", False), first, TODAY + dt.timedelta(days=9), None, days)
    assert over == LockedSymbol(TODAY, days.first, days.last, listed=False)
    again = new_record(member("A", True), over, TODAY, None, None)
    assert again == LockedSymbol(TODAY, days.first, None, listed=True)
    assert new_record(member("A", False), over, TODAY, None, None).last == days.last


def test_days_are_settled_only_when_the_archive_had_time_to_publish_them() -> None:
    assert is_settled(DELISTED, dt.date(2022, 12, 9))
    assert not is_settled(DELISTED, dt.date(2022, 12, 8))
    assert not is_settled(DELISTED, None)
    assert not is_settled(LISTED, TODAY)


def test_changes_are_named_by_symbol() -> None:
    before = {"A": LISTED, "B": LISTED, "C": DELISTED, "D": DELISTED, "E": LISTED}
    earlier = LockedSymbol(LISTED.since, dt.date(2019, 1, 1), None, listed=True)
    ended = LockedSymbol(DELISTED.since, DELISTED.first, dt.date(2022, 11, 29), listed=False)
    after = {"B": DELISTED, "C": LISTED, "D": ended, "E": earlier, "F": LISTED}
    assert [(change.symbol, change.kind) for change in changes_between(SPOT, before, after)] == [
        ("A", "removed"),
        ("B", "delisted"),
        ("C", "returned"),
        ("D", "last_day"),
        ("E", "first_day"),
        ("F", "added"),
    ]
    assert list(changes_between(SPOT, after, after)) == []


@pytest.mark.parametrize(
    ("listed", "archived", "before", "message"),
    [
        (0, None, None, "exchangeInfo of spot names 0 symbols"),
        (499, None, CatalogSize(1_000), "exchangeInfo of spot names 499 symbols, and named 1,000 at the last refresh"),
        (500, 0, CatalogSize(500), "the archive's listing of spot names 0 symbols"),
        (500, 240, None, "the archive's listing of spot names 240 symbols, and exchangeInfo 500"),
        (500, 900, CatalogSize(500, 2_000), "names 900 symbols, and named 2,000"),
    ],
)
def test_an_answer_that_lost_most_symbols_is_not_believed(
    listed: int, archived: int | None, before: CatalogSize | None, message: str
) -> None:
    with pytest.raises(RefreshRefused, match="--accept-loss") as error:
        check_plausible(Catalog(SPOT, {}, TODAY, listed, archived), before, {}, {})
    assert message in str(error.value)
    check_plausible(Catalog(SPOT, {}, TODAY, 500, 900), CatalogSize(1_000, 1_800), {}, {})


def test_the_loss_of_most_tracked_symbols_is_not_believed() -> None:
    before = dict.fromkeys("ABCDEFGHIJ", LISTED)
    catalog = Catalog(SPOT, {}, TODAY, 500, None)
    check_plausible(catalog, None, before, before | dict.fromkeys("ABCDE", DELISTED))
    with pytest.raises(RefreshRefused, match="no longer lists 6 of 10 tracked symbols"):
        check_plausible(catalog, None, before, before | dict.fromkeys("ABCDEF", DELISTED))
