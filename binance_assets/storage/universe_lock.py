"""The lock file of the universe: which symbols its rules selected at the last refresh.

It lies beside the universe: ``universe.lock.yaml`` beside ``universe.yaml``. Only ``universe refresh`` writes it; the
definitions read it, so that loading them needs no network. It may be edited by hand, and is checked like the universe::

    version: 1
    refreshed: 2026-11-26
    catalog:
      spot: {listed: 1510, archived: 3620}
    rules:
      - market: spot
        rule: {"quote": ["USDT"], "delisted": true}
        symbols:
          "BTCUSDT": {since: 2026-11-26, first: 2017-08-17, listed: true}
          "SRMUSDT": {since: 2026-11-26, first: 2020-08-11, last: 2022-11-28, listed: false}
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from binance_assets.model.markets import Market, parse_market
from binance_assets.model.outside import printable, reason_of
from binance_assets.model.partitions import FIRST_DAY
from binance_assets.model.rules import SymbolRule, make_rule
from binance_assets.model.series import is_trackable
from binance_assets.settings import ConfigurationError
from binance_assets.storage.edited_file import replace_file

# The loader of libyaml, thirty times as fast as that in Python; wheels of PyYAML have it.
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MOST_BYTES: Final = 10_000_000
_MOST_RULES: Final = 1_000
_MOST_SYMBOLS: Final = 100_000  # of all rules
_DEEPEST: Final = 12
_OPENING: Final = (
    *(yaml.BlockMappingStartToken, yaml.BlockSequenceStartToken, yaml.FlowMappingStartToken),
    yaml.FlowSequenceStartToken,
)
_CLOSING: Final = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)
_HEADER: Final = """\
# Written by `binance-assets universe refresh`: the symbols that the rules of the universe select. Keep it with the
# universe. The next refresh replaces it; to drop a symbol, list it in the `exclude` of its rule.
"""


class UniverseError(ConfigurationError):
    """The universe cannot be read or written; the message is one line that names the file and the entry."""


@dataclass(frozen=True, slots=True)
class LockedSymbol:
    """A symbol that a rule selects.

    Attributes:
        since: The day of the refresh that selected it first.
        first: The first day with candles, UTC; None if unknown.
        last: The last day with candles, UTC; None while it is listed, or if unknown.
        listed: Whether it may still trade.
    """

    since: dt.date
    first: dt.date | None
    last: dt.date | None
    listed: bool


@dataclass(frozen=True, slots=True)
class LockedRule:
    """What a rule selects.

    Attributes:
        market: The market.
        rule: The rule, as it was at the refresh.
        symbols: The selected symbols.
    """

    market: Market
    rule: SymbolRule
    symbols: Mapping[str, LockedSymbol]


@dataclass(frozen=True, slots=True)
class CatalogSize:
    """How many symbols a market had at a refresh.

    Attributes:
        listed: In exchangeInfo.
        archived: In the archive; None if its listing was not needed.
    """

    listed: int
    archived: int | None = None


@dataclass(frozen=True, slots=True)
class UniverseLock:
    """The content of the lock file.

    Attributes:
        refreshed: The day of the refresh, UTC; None if there was none.
        rules: What each rule selects, in the order of the universe.
        catalog: How many symbols each market had, by its name.
    """

    refreshed: dt.date | None = None
    rules: tuple[LockedRule, ...] = ()
    catalog: Mapping[str, CatalogSize] = field(default_factory=dict)


def lock_path(universe: Path) -> Path:
    """Return the lock file of a universe file: ``universe.lock.yaml`` for ``universe.yaml``."""
    return universe.with_name(f"{universe.stem}.lock{universe.suffix}")


def _as_date(value: Any) -> Any:
    return dt.date.fromisoformat(value) if isinstance(value, str) else value


def _plausible(day: dt.date) -> dt.date:
    if not FIRST_DAY - dt.timedelta(days=31) <= day < dt.date(2100, 1, 1):
        raise ValueError("is not a day that a candle can have")
    return day


def _symbol(text: str) -> str:
    if not is_trackable(text):
        raise ValueError(f"{printable(text)!r} is not a symbol")
    return text


_Day = Annotated[dt.date, BeforeValidator(_as_date), AfterValidator(_plausible)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Symbol(_Record):
    since: _Day
    first: _Day | None = None
    last: _Day | None = None
    listed: bool


class _Rule(_Record):
    market: Annotated[str, AfterValidator(lambda text: parse_market(text).name)]
    rule: Annotated[dict[str, Any], Field(max_length=20)]
    symbols: dict[Annotated[str, AfterValidator(_symbol)], _Symbol]


class _Size(_Record):
    listed: Annotated[int, Field(ge=0, le=10_000_000)]
    archived: Annotated[int, Field(ge=0, le=10_000_000)] | None = None


class _Lock(_Record):
    version: Literal[1]
    refreshed: _Day
    catalog: Annotated[dict[str, _Size], Field(max_length=20)] = {}
    rules: Annotated[list[_Rule], Field(max_length=_MOST_RULES)]


def read_lock(path: Path) -> UniverseLock:
    """Read a lock file; one that does not exist is empty.

    Raises:
        UniverseError: It cannot be read, or is not a lock file.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        return UniverseLock()
    except OSError as error:
        raise UniverseError(f"{path} cannot be read: {error}") from None
    if len(content) > _MOST_BYTES:
        raise UniverseError(f"{path} is larger than {_MOST_BYTES:,} bytes, which no lock file needs")
    try:
        return _parse(content.decode())
    except ValidationError as error:
        first = error.errors()[0]
        where = printable(".".join(str(part) for part in first["loc"]))
        cause = f"{where}: {printable(first['msg'].removeprefix('Value error, '))}"
    except Exception as error:  # the YAML reader also raises a RecursionError, or a ValueError for a date
        cause = reason_of(error)
    raise UniverseError(
        f"{path} is not a lock file: {cause}; repair it, or delete it and run `binance-assets universe refresh`"
    )


def _parse(text: str) -> UniverseLock:
    """Return the content of a lock file.

    Raises:
        Exception: It is not a lock file.
    """
    _check_tokens(text)
    lock = _Lock.model_validate(yaml.load(text, Loader=_LOADER))  # noqa: S506 (a safe loader)
    if sum(len(rule.symbols) for rule in lock.rules) > _MOST_SYMBOLS:
        raise ValueError(f"it has more than {_MOST_SYMBOLS:,} symbols")
    rules = tuple(
        LockedRule(
            parse_market(entry.market),
            make_rule(entry.rule),
            {
                name: LockedSymbol(record.since, record.first, record.last, record.listed)
                for name, record in entry.symbols.items()
            },
        )
        for entry in lock.rules
    )
    catalog = {market: CatalogSize(size.listed, size.archived) for market, size in lock.catalog.items()}
    return UniverseLock(lock.refreshed, rules, catalog)


def _check_tokens(text: str) -> None:
    """Refuse what no lock file needs and what costs the reader memory or stack: aliases, tags, deep nesting.

    Raises:
        ValueError: The text has some.
    """
    depth = 0
    for token in yaml.scan(text, Loader=_LOADER):
        if isinstance(token, (yaml.AliasToken, yaml.AnchorToken, yaml.TagToken)):
            raise ValueError("it has an anchor, an alias, or a tag")
        if isinstance(token, _OPENING):
            depth += 1
        elif isinstance(token, _CLOSING):
            depth -= 1
        if depth > _DEEPEST:
            raise ValueError(f"it is nested more than {_DEEPEST} levels deep")


def write_lock(path: Path, lock: UniverseLock) -> None:
    """Replace a lock file; return once it is on the disk.

    Raises:
        UniverseError: It cannot be written.
    """

    def check(incoming: Path) -> None:
        if read_lock(incoming) != lock:
            raise UniverseError(f"{path} cannot be written: it would not read as what was resolved")

    try:
        replace_file(path, "".join(_lines(lock)), check)
    except OSError as error:
        raise UniverseError(f"{path} cannot be written: {error}") from None


def _lines(lock: UniverseLock) -> Iterator[str]:
    yield _HEADER
    yield f"version: 1\nrefreshed: {lock.refreshed}\n"
    yield "catalog:\n" if lock.catalog else "catalog: {}\n"
    for market, size in lock.catalog.items():
        yield f"  {market}: {_flow(listed=size.listed, archived=size.archived)}\n"
    yield "rules:\n" if lock.rules else "rules: []\n"
    for entry in lock.rules:
        yield f"  - market: {entry.market}\n    rule: {json.dumps(entry.rule.values(), ensure_ascii=False)}\n"
        yield "    symbols:\n" if entry.symbols else "    symbols: {}\n"
        for name, record in entry.symbols.items():
            days = {"since": record.since, "first": record.first, "last": record.last}
            yield f"      {json.dumps(name, ensure_ascii=False)}: {_flow(**days, listed=str(record.listed).lower())}\n"


def _flow(**values: object) -> str:
    return "{" + ", ".join(f"{name}: {value}" for name, value in values.items() if value is not None) + "}"


def locked_for(rules: Sequence[tuple[Market, SymbolRule]], lock: UniverseLock) -> list[LockedRule | None]:
    """Return the part of the lock for each rule, or for the rule as it was before an edit; None where it has none.

    Equal rules belong together. Of those that are left, the first of a market in the universe belongs to the first of
    that market in the lock, and so on.
    """
    left = list(lock.rules)
    found: list[LockedRule | None] = [_take(left, market, rule) for market, rule in rules]
    for position, (market, _) in enumerate(rules):
        if found[position] is None:
            found[position] = _take(left, market)
    return found


def _take(left: list[LockedRule], market: Market, rule: SymbolRule | None = None) -> LockedRule | None:
    for position, entry in enumerate(left):
        if entry.market is market and (rule is None or entry.rule == rule):
            return left.pop(position)
    return None


def is_current(rule: SymbolRule, locked: LockedRule) -> bool:
    """Return whether what the lock has of a rule is what the rule says; further exclusions apply without a refresh."""
    without = {"exclude": ()}
    return (
        rule.model_copy(update=without) == locked.rule.model_copy(update=without)
        and set(rule.exclude) >= set(locked.rule.exclude)
    )  # fmt: skip
