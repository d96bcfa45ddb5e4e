"""The refresh of the universe: what its rules select now, how that differs from the lock file, and the new lock file.

A symbol that was selected once stays tracked, so that history does not vanish with the symbols that failed: when it is
delisted, when it drops out of ``top``, and when its status changes. Only an edit of the rule removes it. So nothing is
written unless every source responded, and responded plausibly.

Here belongs the resolution of rules. What does not belong here: how a rule selects (``model.rules``), and the format of
the lock file (``storage.universe_lock``).
"""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from binance_assets.exchange.errors import Cancelled
from binance_assets.exchange.listing import TradedDays
from binance_assets.exchange.retry import Retrier
from binance_assets.exchange.session import Exchange
from binance_assets.ingest.market_symbols import (
    Catalog,
    Report,
    archived_days,
    count_of,
    delisted_symbol,
    first_days,
    read_catalog,
    why_no_quote,
    why_nothing,
    with_listed_by_days,
)
from binance_assets.model.markets import MARKETS, Market
from binance_assets.model.rules import MarketSymbol, SymbolRule, matches_name, select
from binance_assets.settings import Settings
from binance_assets.storage.edited_file import edit_lock
from binance_assets.storage.universe import RuleEntry, UniverseError, read_universe
from binance_assets.storage.universe_lock import (
    CatalogSize,
    LockedRule,
    LockedSymbol,
    UniverseLock,
    is_current,
    lock_path,
    locked_for,
    read_lock,
    write_lock,
)

ChangeKind = Literal["added", "delisted", "returned", "first_day", "last_day", "removed"]
"""What happened to a symbol since the last refresh."""

# Files of the archive may be days late, so a last day that was read soon after it is read again.
_SETTLED_DAYS: Final = 10
# How many symbols of a rule must have been listed for the loss of most of them to look like a mistake.
_FEW: Final = 10
_ACCEPT: Final = "if that is right, repeat the command with --accept-loss"


class RefreshRefused(Exception):
    """The universe was not refreshed, although every source responded; the message is one line with the way out."""


@dataclass(frozen=True, slots=True)
class Change:
    """A difference between two lock files.

    Attributes:
        kind: What happened.
        market: The market.
        symbol: The symbol.
        record: Its record in the new lock file; if it is removed, that in the old one.
        before: Its record in the old lock file; None without one.
    """

    kind: ChangeKind
    market: Market
    symbol: str
    record: LockedSymbol
    before: LockedSymbol | None


@dataclass(frozen=True, slots=True)
class RuleOutcome:
    """What a rule selects.

    Attributes:
        entry: The entry of the universe.
        locked: What it selects.
        kept: The symbols among them that the rule no longer selects, and that stay.
    """

    entry: RuleEntry
    locked: LockedRule
    kept: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refresh:
    """The outcome of a refresh.

    Attributes:
        path: The lock file.
        rules: What each rule selects.
        changes: How that differs from the lock file before.
        written: Whether the lock file was replaced.
    """

    path: Path
    rules: tuple[RuleOutcome, ...]
    changes: tuple[Change, ...]
    written: bool


# -- pure -----------------------------------------------------------------------------------------------------------


def chosen_symbols(
    rule: SymbolRule, catalog: Catalog, previous: LockedRule | None
) -> tuple[dict[str, MarketSymbol], list[str]]:
    """Return the symbols that a rule selects or keeps, ascending, and the names of those that it only keeps.

    Args:
        rule: The rule.
        catalog: What the market has and had.
        previous: What the lock file has of the rule, perhaps before it was edited; None if nothing.
    """
    chosen = {member.symbol: member for member in select(rule, catalog.symbols.values(), catalog.volumes)}
    kept = {}
    for symbol, record in previous.symbols.items() if previous is not None else ():
        member = catalog.symbols.get(symbol) or delisted_symbol(catalog.market, symbol, rule.quote)
        if symbol not in chosen and previous is not None and _stays(rule, member, record, previous):
            kept[symbol] = member
    merged = chosen | kept
    return {symbol: merged[symbol] for symbol in sorted(merged)}, sorted(kept)


def _stays(rule: SymbolRule, member: MarketSymbol, record: LockedSymbol, previous: LockedRule) -> bool:
    """Return whether a symbol that the rule does not select stays tracked."""
    if member.symbol in rule.exclude:
        return False
    if is_current(rule, previous):
        return True
    if not matches_name(rule, [member]):
        return False
    if member.listed:
        return (rule.top, rule.status) == (previous.rule.top, previous.rule.status)
    # A symbol that was tracked while it traded stays. One that `delisted` added goes with `delisted`.
    return record.last is None or record.since <= record.last


def is_settled(record: LockedSymbol, refreshed: dt.date | None) -> bool:
    """Return whether the days of a delisted symbol cannot change any more, except by a new listing.

    Args:
        record: Its record in the lock file.
        refreshed: The day of the refresh that wrote it.
    """
    if record.listed or record.first is None or record.last is None or refreshed is None:
        return False
    return (refreshed - record.last).days > _SETTLED_DAYS


def new_record(
    member: MarketSymbol, before: LockedSymbol | None, today: dt.date, first: dt.date | None, days: TradedDays | None
) -> LockedSymbol:
    """Return what the lock file is to have of a symbol.

    Args:
        member: What the market says about it now.
        before: Its record in the lock file; None without one.
        today: The day of the refresh.
        first: The first day with a candle, according to klines; None if unknown.
        days: Its days in the archive; None if they were not read, or if there are none.
    """
    since = before.since if before is not None else today
    known_first = before.first if before is not None else None
    firsts = [day for day in (first, known_first, days.first if days is not None else None) if day is not None]
    last = None
    if not member.listed:
        last = days.last if days is not None else (before.last if before is not None else None)
    return LockedSymbol(since, min(firsts, default=None), last, member.listed)


def records_of(market: Market, rules: Iterable[LockedRule | None]) -> dict[str, LockedSymbol]:
    """Return what some rules have of the symbols of a market; of a symbol of several rules, what the first one has."""
    records: dict[str, LockedSymbol] = {}
    for locked in rules:
        if locked is not None and locked.market is market:
            records = {**locked.symbols, **records}
    return records


def changes_between(
    market: Market, before: Mapping[str, LockedSymbol], after: Mapping[str, LockedSymbol]
) -> Iterator[Change]:
    """Yield how the selected symbols of a market differ from those that were selected before, by symbol."""
    for symbol in sorted({*before, *after}):
        was, record = before.get(symbol), after.get(symbol)
        if record is None:
            if was is not None:
                yield Change("removed", market, symbol, was, was)
        elif was is None:
            yield Change("added", market, symbol, record, None)
        elif was.listed != record.listed:
            yield Change("returned" if record.listed else "delisted", market, symbol, record, was)
        elif was.first != record.first:
            yield Change("first_day", market, symbol, record, was)
        elif was.last != record.last:
            yield Change("last_day", market, symbol, record, was)


def check_plausible(
    catalog: Catalog, size: CatalogSize | None, before: Mapping[str, LockedSymbol], after: Mapping[str, LockedSymbol]
) -> None:
    """Refuse a response that lacks most of what there was: a broken host or proxy sends such responses.

    Args:
        catalog: What the market has and had.
        size: How many symbols it had at the last refresh; None without one.
        before: What the lock file had of the selected symbols.
        after: What it is to have.

    Raises:
        RefreshRefused: The message says what was lost.
    """
    check_sizes(catalog, size)
    listed = [symbol for symbol, record in before.items() if record.listed and symbol in after]
    lost = sum(not after[symbol].listed for symbol in listed)
    if len(listed) >= _FEW and lost > len(listed) / 2:
        raise RefreshRefused(
            f"{catalog.market.title} no longer lists {lost:,} of {len(listed):,} tracked symbols; "
            f"nothing was changed: {_ACCEPT}"
        )


def check_selection(catalog: Catalog, outcome: RuleOutcome, previous: LockedRule | None) -> None:
    """Refuse a new or an edited rule with a typo, by which it selects nothing, or loses what it had of a quote asset.

    Args:
        catalog: What the market has and had.
        outcome: What the rule selects.
        previous: What the lock file has of the rule, perhaps before it was edited; None if nothing.

    Raises:
        RefreshRefused: The message names the rule, and what is probably meant.
    """
    entry = outcome.entry
    if previous is not None and is_current(entry.rule, previous):
        return
    why = why_no_quote if outcome.locked.symbols else why_nothing
    if (reason := why(catalog, entry.rule)) is not None:
        raise RefreshRefused(f"entry {entry.number} of series: {reason}; nothing was changed: {_ACCEPT}")


def check_sizes(catalog: Catalog, size: CatalogSize | None) -> None:
    """Refuse a catalog that has lost most of its symbols, before anything is requested for each of them.

    Args:
        catalog: What the market has and had.
        size: How many symbols it had at the last refresh; None without one.

    Raises:
        RefreshRefused: The message says what was lost.
    """
    sizes = [("exchangeInfo", catalog.listed, size and size.listed)]
    sizes += [("the archive's listing", catalog.archived, size and size.archived)]
    for source, now, then in sizes:
        if now is not None and now < max(1, (then or 0) / 2):
            raise RefreshRefused(
                f"{source} of {catalog.market.title} names {now:,} symbols"
                + (f", and named {then:,} at the last refresh" if then else "")
                + f"; nothing was changed: {_ACCEPT}"
            )
    if catalog.listed is not None and catalog.archived is not None and catalog.archived < catalog.listed / 2:
        raise RefreshRefused(
            f"the archive's listing of {catalog.market.title} names {catalog.archived:,} symbols, and exchangeInfo "
            f"{catalog.listed:,}; nothing was changed: {_ACCEPT}"
        )


# -- with the network and files --------------------------------------------------------------------------------------


def refresh_universe(
    path: Path,
    settings: Settings,
    dry_run: bool = False,
    accept_loss: bool = False,
    report: Report = lambda line: None,
    retrier: Retrier | None = None,
    deadline: float | None = None,
) -> Refresh:
    """Resolve the rules of the universe, and replace its lock file.

    Args:
        path: The universe file.
        settings: Hosts, limits, the source of candles.
        dry_run: Whether to leave the lock file as it is.
        accept_loss: Whether to accept a response that lacks most symbols, and a new rule that seems to have a typo.
        report: Receives a line about each step that takes long.
        retrier: How to retry failed requests; None waits in real time between two attempts.
        deadline: ``time.monotonic()`` after which to give up; None for no such time.

    Raises:
        UniverseError: A file cannot be read or written.
        ConfigurationError: The sources do not fit together, or cannot serve a rule.
        ExchangeError: A source failed.
        RefreshRefused: A response is not plausible, a new or an edited rule selects nothing or has a typo, the
            universe changed meanwhile, or the deadline passed.
    """
    entries, lock = read_universe(path).rules, read_lock(lock_path(path))
    previous = dict(zip(entries, locked_for([(e.market, e.rule) for e in entries], lock), strict=True))
    if not entries and not lock.rules:
        return Refresh(lock_path(path), (), (), written=False)
    outcomes: dict[int, RuleOutcome] = {}
    changes: list[Change] = []
    sizes: dict[str, CatalogSize] = {}
    today = dt.date.min if entries or lock.refreshed is None else lock.refreshed  # without a rule, nobody is asked
    for market in MARKETS.values():
        before, after = records_of(market, lock.rules), {}
        of_market = {entry: previous[entry] for entry in entries if entry.market is market}
        if of_market:
            exchange = Exchange(market, settings, retrier=retrier)
            with _closed_by(exchange, deadline):
                catalog, resolved = _resolve_market(exchange, settings, of_market, lock, accept_loss, report)
            after = records_of(market, [outcome.locked for outcome in resolved])
            today, size = max(today, catalog.today), lock.catalog.get(market.name)
            if not accept_loss:
                check_plausible(catalog, size, before, after)
                for outcome in resolved:
                    check_selection(catalog, outcome, of_market[outcome.entry])
            outcomes |= {outcome.entry.number: outcome for outcome in resolved}
            sizes[market.name] = _new_size(catalog, size)
        changes += changes_between(market, before, after)
    rules = tuple(outcomes[entry.number] for entry in entries)
    if not dry_run:
        _apply(path, entries, lock, UniverseLock(today, tuple(rule.locked for rule in rules), sizes))
    return Refresh(lock_path(path), rules, tuple(changes), written=not dry_run)


def _new_size(catalog: Catalog, before: CatalogSize | None) -> CatalogSize:
    """Return the sizes to compare the next catalog with; what was not read stays as it was."""
    old = before or CatalogSize(0)
    return CatalogSize(
        catalog.listed if catalog.listed is not None else old.listed,
        catalog.archived if catalog.archived is not None else old.archived,
    )


@contextmanager
def _closed_by(exchange: Exchange, deadline: float | None) -> Iterator[None]:
    """Close an exchange at the end, or at a deadline, which ends all its waits.

    Raises:
        RefreshRefused: The deadline passed.
    """
    seconds = 0.0 if deadline is None else max(0.0, deadline - time.monotonic())
    timer = threading.Timer(seconds, exchange.close)
    timer.daemon = True
    if deadline is not None:
        timer.start()
    try:
        yield
    except Cancelled:
        message = "the refresh takes longer than a tick may; run `binance-assets universe refresh` once"
        raise RefreshRefused(message) from None
    finally:
        timer.cancel()
        exchange.close()


def _resolve_market(
    exchange: Exchange,
    settings: Settings,
    entries: Mapping[RuleEntry, LockedRule | None],
    lock: UniverseLock,
    accept_loss: bool,
    report: Report,
) -> tuple[Catalog, list[RuleOutcome]]:
    """Return what a market has and had, and what each of its rules selects; see :func:`refresh_universe`."""
    market, rules = exchange.market, [entry.rule for entry in entries]
    with_archive = any(rule.delisted for rule in rules)
    catalog = read_catalog(exchange, rules, with_archive, settings.source == "archive", report)
    if not accept_loss:
        check_sizes(catalog, lock.catalog.get(market.name))
    days: dict[str, TradedDays] = {}
    if catalog.from_archive_alone:
        catalog, days = with_listed_by_days(catalog, rules, exchange, report)
    chosen = {entry: chosen_symbols(entry.rule, catalog, locked) for entry, locked in entries.items()}
    members = {symbol: member for symbols, _ in chosen.values() for symbol, member in symbols.items()}
    records = _records(exchange, catalog, days, members, records_of(market, lock.rules), lock.refreshed, report)
    outcomes = []
    for entry, (symbols, kept) in chosen.items():
        locked = LockedRule(market, entry.rule, {symbol: records[symbol] for symbol in symbols})
        outcomes.append(RuleOutcome(entry, locked, tuple(kept)))
    return catalog, outcomes


def _records(
    exchange: Exchange,
    catalog: Catalog,
    days: Mapping[str, TradedDays],
    members: Mapping[str, MarketSymbol],
    before: Mapping[str, LockedSymbol],
    refreshed: dt.date | None,
    report: Report,
) -> dict[str, LockedSymbol]:
    """Return the new record of each symbol; requests the days that are not known or not settled.

    Args:
        exchange: The exchange.
        catalog: What the market has and had.
        days: Days in the archive that are known already.
        members: The symbols.
        before: What the lock file had of them.
        refreshed: The day of the refresh that wrote it.
        report: Receives a line about each step that takes long.
    """
    ended, begun = [], []
    for symbol, member in members.items():
        record = before.get(symbol)
        if not member.listed and symbol not in days and not (record and is_settled(record, refreshed)):
            ended.append(symbol)
        if member.listed and (record is None or record.first is None):
            begun.append(symbol)
    days = {**days, **dict(archived_days(exchange, ended, report))}
    firsts = {} if catalog.from_archive_alone else dict(first_days(exchange, begun, report))
    report(f"{exchange.market}: {count_of(members)}")
    return {
        symbol: new_record(member, before.get(symbol), catalog.today, firsts.get(symbol), days.get(symbol))
        for symbol, member in members.items()
    }


def _apply(path: Path, entries: Sequence[RuleEntry], before: UniverseLock, after: UniverseLock) -> None:
    """Replace the lock file, unless universe or lock file changed since they were read.

    Raises:
        UniverseError: A file cannot be read or written.
        RefreshRefused: They changed.
    """
    try:
        with edit_lock(path):
            if read_universe(path).rules != entries or read_lock(lock_path(path)) != before:
                raise RefreshRefused(f"{path} or its lock file changed meanwhile; run the command again")
            write_lock(lock_path(path), after)
    except OSError as error:
        raise UniverseError(f"{lock_path(path)} cannot be written: {error}") from None
