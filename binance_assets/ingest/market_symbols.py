"""What a market has and had: its symbols from exchangeInfo and the archive's listing, and their first and last days.

exchangeInfo has what is traded, and for a while what was. The archive's listing has everything that ever traded, and
nothing else about it than names and days. Where the API does not serve this location (451), the names have to do.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from typing import Final

from binance_assets.exchange.errors import ExchangeError, RestrictedLocation, UnknownSymbol
from binance_assets.exchange.listing import TradedDays
from binance_assets.exchange.session import Exchange
from binance_assets.exchange.symbols import SymbolInfo
from binance_assets.model.intervals import DAILY
from binance_assets.model.markets import TRADED_ON, Market
from binance_assets.model.rules import MarketSymbol, SymbolRule, matches_name, select
from binance_assets.model.series import Series, is_trackable
from binance_assets.model.spelling import did_you_mean, nearest
from binance_assets.model.symbol_names import contract_by_name, quote_by_name, unknown_message
from binance_assets.model.timestamps import to_date
from binance_assets.settings import ConfigurationError

# Without exchangeInfo, a symbol counts as listed if the archive has a file of the last days. Files may be days late.
_LISTED_DAYS: Final = 10


@dataclass(frozen=True, slots=True)
class FoundSymbol:
    """A symbol that a rule selects.

    Attributes:
        symbol: The symbol.
        first: Its first day with a candle, UTC; None if unknown, or if it was not asked.
        last: Its last day with a candle, UTC; None while it is listed, if unknown, or if it was not asked.
        volume: Its quote volume of the last 24 hours; None if the rule has no ``top``.
    """

    symbol: MarketSymbol
    first: dt.date | None = None
    last: dt.date | None = None
    volume: float | None = None


Report = Callable[[str], None]
"""Receives a line about each step that takes long."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """The symbols of a market at a moment.

    Attributes:
        market: The market.
        symbols: The symbols by name.
        today: The day of the exchange's clock, UTC.
        listed: How many symbols exchangeInfo lists; None if it was not asked.
        archived: How many symbols the archive has; None if it was not asked.
        volumes: The quote volume of the last 24 hours by symbol; empty if it was not asked.
    """

    market: Market
    symbols: Mapping[str, MarketSymbol]
    today: dt.date
    listed: int | None = None
    archived: int | None = None
    volumes: Mapping[str, float] = field(default_factory=dict)

    @property
    def from_archive_alone(self) -> bool:
        """Whether exchangeInfo was not asked, so that all symbols count as listed until their days are known."""
        return self.listed is None


def count_of(symbols: Sized) -> str:
    """Return how many symbols there are, for a message."""
    return f"{len(symbols):,} symbol{'' if len(symbols) == 1 else 's'}"


def merged_symbols(
    market: Market, infos: Mapping[str, SymbolInfo], archived: Iterable[str], quotes: Iterable[str] = ()
) -> dict[str, MarketSymbol]:
    """Return the symbols that exchangeInfo or the archive names, ascending; a name that can be no symbol is left out.

    Args:
        market: The market.
        infos: What exchangeInfo lists; empty if it was not asked.
        archived: What the archive has.
        quotes: Further quote assets, to split the names of symbols that exchangeInfo does not list.
    """
    known = {info.quote for info in infos.values() if info.quote}.union(quotes)
    members = {
        symbol: MarketSymbol(symbol, info.status, info.quote, info.contract, info.status in TRADED_ON)
        for symbol, info in infos.items()
        if is_trackable(symbol)
    }
    for symbol in archived:
        if symbol not in members and is_trackable(symbol):
            members[symbol] = delisted_symbol(market, symbol, known)
    return {symbol: members[symbol] for symbol in sorted(members)}


def delisted_symbol(market: Market, symbol: str, quotes: Iterable[str] = ()) -> MarketSymbol:
    """Return what the name says about a symbol that exchangeInfo does not list."""
    return MarketSymbol(
        symbol, "", quote_by_name(market, symbol, quotes), contract_by_name(market, symbol), listed=False
    )


def read_catalog(
    exchange: Exchange,
    rules: Sequence[SymbolRule],
    with_archive: bool,
    archive_alone: bool = False,
    report: Report = lambda line: None,
) -> Catalog:
    """Read what a market has and, if wanted, had.

    Args:
        exchange: The market's exchange.
        rules: The rules for which it is read; their volumes are read if one has ``top``.
        with_archive: Whether to read the archive's listing.
        archive_alone: Whether to read nothing else, unless a rule needs it.
        report: Receives a line about each step that takes long.

    Raises:
        ExchangeError: A request failed.
        ConfigurationError: API and archive belong to different exchanges, or a rule needs exchangeInfo.
        Cancelled: The exchange was closed.
    """
    market = exchange.market
    if archive_alone and not any(_needs_info(rule) for rule in rules):
        return _archive_catalog(exchange, rules, "BINANCE_ASSETS_SOURCE=archive", report)
    report(f"{market}: reading exchangeInfo" + (" and the archive's listing" if with_archive else ""))
    try:
        infos = exchange.symbols.listed()
    except RestrictedLocation as error:
        return _archive_catalog(exchange, rules, error.reason, report)
    archived = _archived(exchange) if with_archive else None
    volumes = exchange.symbols.volumes() if any(rule.top is not None for rule in rules) else {}
    quotes = [quote for rule in rules for quote in rule.quote]
    members = merged_symbols(market, infos, archived or (), quotes)
    count = None if archived is None else len(archived)
    return Catalog(market, members, to_date(exchange.now()), len(infos), count, volumes)


def _needs_info(rule: SymbolRule) -> str | None:
    """Return the condition that only exchangeInfo can tell; None if the names and days of the archive will do."""
    if rule.top is not None:
        return "top"
    return "status" if set(rule.status) - {"TRADING"} else None


def _archived(exchange: Exchange) -> list[str]:
    if not exchange.archive_matches_api:
        raise ConfigurationError(
            f"the archive is Binance's, and the API of {exchange.market.title} is another exchange's; "
            "set BINANCE_ARCHIVE_URL to the archive of that exchange"
        )
    archived = exchange.listing.symbols()
    if exchange.cached_venue not in (None, exchange.listing.venue):
        raise ConfigurationError(
            f"BINANCE_ARCHIVE_URL and the API of {exchange.market.title} are not of the same exchange: "
            f"one is {exchange.listing.venue}, the other {exchange.cached_venue}"
        )
    return archived


def _archive_catalog(exchange: Exchange, rules: Sequence[SymbolRule], reason: str, report: Report) -> Catalog:
    """Return the catalog of the archive's listing alone.

    Raises:
        ExchangeError: A request failed.
        ConfigurationError: API and archive belong to different exchanges, or a rule needs exchangeInfo.
    """
    market = exchange.market
    for rule in rules:
        if (needed := _needs_info(rule)) is not None:
            raise ConfigurationError(
                f"{reason}; the archive's listing alone does not have {needed}: remove it from the rule ({rule})"
            )
    report(f"{market}: reading the archive's listing alone, because exchangeInfo is not available: {reason}")
    archived = _archived(exchange)
    quotes = [quote for rule in rules for quote in rule.quote]
    # Their last days show later which ones are listed.
    members = {
        symbol: replace(member, status="TRADING", listed=True)
        for symbol, member in merged_symbols(market, {}, archived, quotes).items()
    }
    return Catalog(market, members, to_date(exchange.archive.now()), None, len(archived))


def with_listed_by_days(
    catalog: Catalog, rules: Sequence[SymbolRule], exchange: Exchange, report: Report = lambda line: None
) -> tuple[Catalog, dict[str, TradedDays]]:
    """Return a catalog of the archive alone, with what is no longer listed by its last day, and the days themselves.

    Only symbols that a rule can select are looked up.

    Raises:
        ExchangeError: A request failed.
    """
    names = list(dict.fromkeys(m.symbol for rule in rules for m in matches_name(rule, catalog.symbols.values())))
    days = dict(archived_days(exchange, names, report))
    since = catalog.today - dt.timedelta(days=_LISTED_DAYS)
    over = {
        name: replace(catalog.symbols[name], status="", listed=False)
        for name in names
        if name not in days or days[name].last < since
    }
    return replace(catalog, symbols={**catalog.symbols, **over}), days


def archived_days(
    exchange: Exchange, symbols: Sequence[str], report: Report = lambda line: None
) -> Iterator[tuple[str, TradedDays]]:
    """Yield the days of each symbol of which the archive has files; nothing if it is the archive of another exchange.

    Raises:
        ExchangeError: A request failed.
        Cancelled: The exchange was closed.
    """
    if not exchange.archive_matches_api:
        return  # it may have other days of a symbol of the same name
    if symbols:
        report(f"{exchange.market}: reading the archive's days of {count_of(symbols)}")
    for symbol, days in exchange.listing.days(symbols):
        if isinstance(days, ExchangeError):
            raise days
        if days is not None:
            yield symbol, days


def first_days(
    exchange: Exchange, symbols: Sequence[str], report: Report = lambda line: None
) -> Iterator[tuple[str, dt.date]]:
    """Yield the first day with a candle of each symbol that klines knows; one without candles has none.

    Raises:
        ExchangeError: A request failed.
        Cancelled: The exchange was closed.
    """

    def request(symbol: str) -> int | None:
        try:
            return exchange.symbols.first_open_time(Series(exchange.market, symbol, DAILY))
        except UnknownSymbol:  # it is listed, but was not traded yet
            return None

    if symbols:
        report(f"{exchange.market}: reading the first candles of {count_of(symbols)}")
        for symbol, first in exchange.map_concurrently(symbols, request):
            if first is not None:
                yield symbol, to_date(first)


class NothingSelected(Exception):
    """A rule selects no symbol; the message is one line that names what is probably meant."""


def why_nothing(catalog: Catalog, rule: SymbolRule) -> str:
    """Return one line about a rule that selects no symbol of a catalog, with the words that are probably meant."""
    symbols = catalog.symbols.values()
    meant = [
        *_meant(rule.quote, {member.quote for member in symbols}).values(),
        *_meant(rule.status, {member.status for member in symbols}).values(),
        *_meant(rule.contract, {member.contract for member in symbols}).values(),
    ]
    return f"{catalog.market.title} has no symbol{f' with {rule}' if rule.values() else ''}{did_you_mean(meant)}"


def why_no_quote(catalog: Catalog, rule: SymbolRule) -> str | None:
    """Return one line about quote assets of a rule that are probably misspelled; None if none is."""
    meant = _meant(rule.quote, {member.quote for member in catalog.symbols.values()})
    if not meant:
        return None
    return f"{catalog.market.title} has no symbol with quote={','.join(meant)}{did_you_mean(meant.values())}"


def _meant(words: Iterable[str], known: set[str]) -> dict[str, str]:
    """Return for each unknown word the known one that is spelled almost alike; a word without one is left out."""
    unknown = {word: nearest(word, known - {""}) for word in words if word not in known}
    return {word: near[0] for word, near in unknown.items() if near}


def find_symbols(
    exchange: Exchange,
    rule: SymbolRule,
    with_days: bool = True,
    archive_alone: bool = False,
    report: Report = lambda line: None,
    *,
    must_find: bool = False,
) -> list[FoundSymbol]:
    """Return the symbols of a market that a rule selects: by name, or the largest volume first if the rule has ``top``.

    Args:
        exchange: The market's exchange.
        rule: The rule.
        with_days: Whether to ask for first and last days, a request for each symbol.
        archive_alone: Whether to do without exchangeInfo where that is possible.
        report: Receives a line about each step that takes long.
        must_find: Whether to raise an error instead of returning no symbol.

    Raises:
        ExchangeError: A request failed.
        ConfigurationError: API and archive belong to different exchanges, or cannot serve the rule.
        NothingSelected: The rule selects no symbol.
        Cancelled: The exchange was closed.
    """
    catalog = read_catalog(exchange, [rule], rule.delisted, archive_alone, report)
    days: dict[str, TradedDays] = {}
    firsts: dict[str, dt.date] = {}
    if catalog.from_archive_alone:
        catalog, days = with_listed_by_days(catalog, [rule], exchange, report)
    chosen = select(rule, catalog.symbols.values(), catalog.volumes)
    if must_find and not chosen:
        raise NothingSelected(why_nothing(catalog, rule))
    if with_days and not catalog.from_archive_alone:
        firsts = dict(first_days(exchange, [member.symbol for member in chosen if member.listed], report))
        days = dict(archived_days(exchange, [member.symbol for member in chosen if not member.listed], report))
    if rule.top is not None:
        chosen = sorted(chosen, key=lambda member: -catalog.volumes.get(member.symbol, 0.0))
    found = []
    for member in chosen:
        span = days.get(member.symbol)
        first = firsts.get(member.symbol) or (span.first if span is not None else None)
        last = span.last if span is not None and not member.listed else None
        volume = catalog.volumes.get(member.symbol) if rule.top is not None else None
        found.append(FoundSymbol(member, first, last, volume))
    return found


def unknown_symbols(exchange: Exchange, symbols: Sequence[str]) -> tuple[list[str], set[str]]:
    """Return those of ``symbols`` that the market never had, and all symbols that are known.

    The archive's listing is read only if exchangeInfo lacks one of them.

    Raises:
        ExchangeError: A request failed.
        Cancelled: The exchange was closed.
    """
    try:
        known = {symbol for symbol in exchange.symbols.listed() if is_trackable(symbol)}
    except RestrictedLocation:
        known = set()
    if not known.issuperset(symbols) and exchange.archive_matches_api:
        known.update(exchange.listing.symbols())
    return [symbol for symbol in symbols if symbol not in known], known


def why_unknown(exchange: Exchange, symbols: Sequence[str]) -> str | None:
    """Return one line that names those of ``symbols`` that the market never had, with the nearest names.

    None if it had them all.

    Raises:
        ExchangeError: A request failed.
        Cancelled: The exchange was closed.
    """
    unknown, known = unknown_symbols(exchange, symbols)
    return unknown_message(unknown, known, exchange.market) if unknown else None
