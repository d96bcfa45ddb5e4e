"""The universe: the file that lists the tracked series.

    series:
      - market: spot
        symbols: [BTCUSDT, ETHUSDT]
        intervals: [1m]

An entry may also have ``source`` (auto, rest, or archive) and ``derive`` (intervals derived from the fetched ones, such
as ``[5m, 45m, 1h]``), and ``owners`` (whom Dagster names on the pages of its assets). In place of a list, ``symbols``
may be a rule, such as ``{quote: USDT, delisted: true}``. What it selects is in the lock file beside the universe, so
that reading needs no network. A series that a list names belongs to the entry of the list, whether a rule selects it
too or not. Of several rules, the first one has it.

A missing file is an empty universe. This module reads the file; ``universe_editor`` changes it.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError

from binance_assets.model.intervals import Interval, parse_derived_interval, parse_interval
from binance_assets.model.markets import MARKETS, Market, parse_market
from binance_assets.model.outside import printable, reason_of
from binance_assets.model.rules import SymbolRule, make_rule
from binance_assets.model.series import Series, derived_series
from binance_assets.model.spelling import did_you_mean, nearest
from binance_assets.settings import Settings, Source
from binance_assets.storage.plain_yaml import UnusualYaml, plain_document
from binance_assets.storage.universe_lock import LockedRule, is_current, lock_path, locked_for, read_lock
from binance_assets.storage.universe_lock import UniverseError as UniverseError

# 100,000 series, each in an entry of its own, take 7 MB and 700,000 values.
_MOST_BYTES: Final = 10_000_000
_MOST_NODES: Final = 1_000_000
_MOST_SERIES: Final = 1_000_000

_MOST_BRACKETS: Final = 32  # two are needed: a list in an entry in braces
_BRACKET: Final = re.compile(r"[\[\]{}]")
_COMMENT: Final = re.compile(r"(?:^|(?<=\s))#.*", re.MULTILINE)

# Dagster's own pattern for owners (1.13.28); it also refuses a top-level domain of more than seven letters.
_EMAIL: Final = re.compile(r"\b[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Z|a-z]{2,7}\b")


@dataclass(frozen=True, slots=True)
class Tracked:
    """A series that is fetched.

    Attributes:
        series: The series.
        source: The source that the file names for it; None for that of the settings.
        first: The first day with candles according to the lock file, UTC; None if unknown.
        last: The last day with candles of a delisted symbol according to the lock file, UTC; None if it has not ended.
        owners: Who owns the asset, as Dagster writes owners.
    """

    series: Series
    source: Source | None = None
    first: dt.date | None = None
    last: dt.date | None = None
    owners: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RuleEntry:
    """An entry whose symbols a rule selects.

    Attributes:
        number: The number of the entry in the file, from 1.
        market: The market.
        rule: The rule.
    """

    number: int
    market: Market
    rule: SymbolRule


@dataclass(frozen=True, slots=True)
class Derived:
    """A series that is derived from a fetched one, without a request.

    Attributes:
        series: The series.
        base: The series that it is derived from: the coarsest fetched one of the same entry whose interval divides
            the interval of ``series`` evenly.
        owners: Who owns the asset, as Dagster writes owners.
    """

    series: Series
    base: Series
    owners: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Universe:
    """The content of the file.

    Attributes:
        tracked: The fetched series, in the file's order.
        derived: The derived series, in the file's order.
        rules: The entries with a rule, in the file's order.
        notes: A line for each rule whose selection in the lock file is not that of a refresh, or is empty.
    """

    tracked: tuple[Tracked, ...] = ()
    derived: tuple[Derived, ...] = ()
    rules: tuple[RuleEntry, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def series(self) -> list[Series]:
        """The fetched series."""
        return [tracked.series for tracked in self.tracked]

    @property
    def all_series(self) -> list[Series]:
        """The fetched series, and the derived ones."""
        return [*self.series, *(derived.series for derived in self.derived)]

    @property
    def ended(self) -> dict[Series, dt.date]:
        """The last day of each series, fetched or derived, whose symbol is delisted."""
        last = {tracked.series: tracked.last for tracked in self.tracked if tracked.last is not None}
        return last | {derived.series: last[derived.base] for derived in self.derived if derived.base in last}

    @property
    def derived_names(self) -> frozenset[str]:
        """The names of the derived series, such as ``spot/BTCUSDT/45m``."""
        return frozenset(str(derived.series) for derived in self.derived)


def _owner(text: str) -> str:
    """Return an owner that Dagster accepts.

    Raises:
        ValueError: It is neither an email address nor a team.
    """
    if not text.isprintable() or not (
        _EMAIL.fullmatch(text) or (text.startswith("team:") and len(text) > len("team:"))
    ):
        raise ValueError(f"{text!r} is not an owner; write an email address, or a team as team:NAME")
    return text


class _AnyEntry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    market: Annotated[str, AfterValidator(lambda text: parse_market(text).name)]
    intervals: list[Annotated[str, AfterValidator(lambda text: parse_interval(text).name)]]
    source: Source | None = None
    derive: list[Annotated[str, AfterValidator(lambda text: parse_derived_interval(text).name)]] = []
    owners: list[Annotated[str, AfterValidator(_owner)]] = []


class _Entry(_AnyEntry):
    symbols: list[str]

    @property
    def size(self) -> int:
        """The number of its series."""
        return len(self.symbols) * (len(self.intervals) + len(self.derive))

    def tracked(self) -> Iterator[Tracked]:
        owners = tuple(self.owners)
        for symbol in self.symbols:
            for interval in self.intervals:
                series = Series(parse_market(self.market), symbol, parse_interval(interval))
                yield Tracked(series, self.source, owners=owners)

    def derived_names(self) -> Iterator[str]:
        for symbol in self.symbols:
            for interval in self.derive:
                yield f"{self.market}/{symbol}/{interval}"

    def derived(self) -> Iterator[Derived]:
        market, owners = parse_market(self.market), tuple(self.owners)
        fetched = [parse_interval(text) for text in self.intervals]
        intervals = [parse_derived_interval(text) for text in self.derive]
        pairs = [(interval, _base_interval(interval, fetched, market)) for interval in intervals]
        for symbol in self.symbols:
            for interval, base in pairs:
                yield Derived(derived_series(market, symbol, interval), Series(market, symbol, base), owners)


class _RuleEntry(_AnyEntry):
    symbols: SymbolRule

    def listing(self, symbols: Iterable[str]) -> _Entry:
        """Return the entry that lists ``symbols`` in place of the rule."""
        return _Entry.model_construct(
            market=self.market,
            symbols=list(symbols),
            intervals=self.intervals,
            source=self.source,
            derive=self.derive,
            owners=self.owners,
        )


def _base_interval(interval: Interval, fetched: Iterable[Interval], market: Market) -> Interval:
    """Return the coarsest of ``fetched`` from which ``interval`` can be derived, because it has the fewest candles.

    Raises:
        ValueError: None of them divides ``interval`` evenly; the message says how to fix the entry.
    """
    candidates = base_intervals(interval, fetched)
    if candidates:
        return candidates[-1]
    possible = base_intervals(interval, market.intervals)
    remedies = [f"add {possible[-1]} to intervals"] if possible else []
    raise ValueError(
        f"{interval} cannot be derived because this entry fetches no finer interval that divides it evenly; "
        + " or ".join([*remedies, f"remove {interval} from derive"])
    )


def base_intervals(interval: Interval, candidates: Iterable[Interval]) -> list[Interval]:
    """Return the candidates that ``interval`` can be derived from: finer ones that divide it evenly, finest first."""
    # A derived interval is at most a day, so every base interval has daily partitions too.
    fitting = (candidate for candidate in candidates if _divides(candidate, interval))
    return sorted(fitting, key=lambda candidate: candidate.step)


def _divides(finer: Interval, interval: Interval) -> bool:
    return finer.step < interval.step and interval.step % finer.step == 0


UniverseEntry = _Entry
"""The schema of an entry that lists its symbols, for those who take entries from elsewhere than the universe file."""


def read_universe(path: Path, lock: Path | None = None) -> Universe:
    """Read the universe file, and its lock file if an entry has a rule.

    Args:
        path: The file.
        lock: The lock file; None for the one beside the file.

    Raises:
        UniverseError: A file cannot be read, or the universe contradicts itself.
    """
    return universe_of(path, _plain_entries(path), lock)


def _plain_entries(path: Path) -> Sequence[Any]:
    """Return the entries of the file without its comments, not yet validated.

    Raises:
        UniverseError: As :func:`load_document`, which reads what is unusual and finds what is wrong.
    """
    with suppress(OSError, UnicodeDecodeError, UnusualYaml):
        document = plain_document(_read_text(path), _MOST_NODES)
        if isinstance(document, dict) and document.keys() == {"series"} and isinstance(document["series"], list):
            return document["series"]
    return raw_entries(path, load_document(path))


def universe_of(path: Path, raw: Iterable[Any], lock: Path | None = None) -> Universe:
    """Return the universe that a list of entries describes.

    Args:
        path: The file that has the entries, for messages.
        raw: The entries, not yet validated.
        lock: The lock file; None for the one beside the file.

    Raises:
        UniverseError: A file cannot be read, or the universe contradicts itself.
    """
    entries = [_entry(path, number, entry) for number, entry in enumerate(raw, 1)]
    rules = tuple(
        RuleEntry(number, parse_market(entry.market), entry.symbols)
        for number, entry in enumerate(entries, 1)
        if isinstance(entry, _RuleEntry)
    )
    lists = {number: entry for number, entry in enumerate(entries, 1) if isinstance(entry, _Entry)}
    listed = _listed_universe(path, lists)
    if not rules:
        return listed
    locked = locked_for([(rule.market, rule.rule) for rule in rules], read_lock(lock or lock_path(path)))
    by_number = {rule.number: found for rule, found in zip(rules, locked, strict=True)}
    universe = _with_rules(path, listed, entries, by_number)
    notes = tuple(note for rule in rules if (note := _note(path, rule, by_number[rule.number])) is not None)
    return replace(universe, rules=rules, notes=notes)


def _listed_universe(path: Path, entries: Mapping[int, _Entry]) -> Universe:
    """Return the universe of the entries that list their symbols.

    Args:
        path: The file, for messages.
        entries: The entries by number.

    Raises:
        UniverseError: They contradict each other.
    """
    _check_size(path, entries.values())
    try:
        tracked = tuple(tracked for entry in entries.values() for tracked in entry.tracked())
    except ValueError as error:
        raise UniverseError(f"{path}: {printable(error)}") from None
    _check_names(
        path,
        [str(fetched.series) for fetched in tracked],
        [name for entry in entries.values() for name in entry.derived_names()],
    )
    derived = tuple(derived for number, entry in entries.items() for derived in _derived(path, number, entry))
    return Universe(tracked, derived)


def _check_size(path: Path, entries: Iterable[_Entry]) -> None:
    if sum(entry.size for entry in entries) > _MOST_SERIES:
        raise UniverseError(f"{path}: the file lists more than {_MOST_SERIES:,} series")


def _with_rules(
    path: Path, listed: Universe, entries: Sequence[_Entry | _RuleEntry], locked: Mapping[int, LockedRule | None]
) -> Universe:
    """Return a universe with what the rules select besides the series that it has already.

    Args:
        path: The file, for messages.
        listed: The universe of the entries that list their symbols.
        entries: All entries.
        locked: What the lock file has of each rule, by the number of the entry.

    Raises:
        UniverseError: The lock file names a symbol or a series that cannot be.
    """
    tracked, derived = list(listed.tracked), list(listed.derived)
    taken = {*(str(series) for series in listed.series), *listed.derived_names}
    selected = [
        (number, entry.listing(selected_symbols(entry.symbols, locked[number])), locked[number])
        for number, entry in enumerate(entries, 1)
        if isinstance(entry, _RuleEntry)
    ]
    _check_size(path, (entry for _, entry, _ in selected))
    for number, entry, found in selected:
        try:
            fetched = [member for member in entry.tracked() if str(member.series) not in taken]
        except ValueError as error:
            raise UniverseError(f"{path}: entry {number} of series: {printable(error)}") from None
        tracked += [_with_days(member, found) for member in fetched]
        taken |= {str(member.series) for member in fetched}
        # A base series that another entry derives cannot be the base of more.
        bases = {member.series for member in tracked}
        more = [
            member
            for member in _derived(path, number, entry)
            if str(member.series) not in taken and member.base in bases
        ]
        derived += more
        taken |= {str(member.series) for member in more}
    return Universe(tuple(tracked), tuple(derived))


def selected_symbols(rule: SymbolRule, locked: LockedRule | None) -> list[str]:
    """Return the symbols that the lock file has of a rule, without those that the rule excludes by now."""
    excluded = set(rule.exclude)
    return [symbol for symbol in locked.symbols if symbol not in excluded] if locked is not None else []


def _with_days(member: Tracked, locked: LockedRule | None) -> Tracked:
    if locked is None:
        return member
    record = locked.symbols[member.series.symbol]
    return replace(member, first=record.first, last=None if record.listed else record.last)


def _note(path: Path, entry: RuleEntry, locked: LockedRule | None) -> str | None:
    """Return a line about a rule whose selection in the lock file is not that of a refresh, or is empty."""
    remedy = "run `binance-assets universe refresh`"
    if locked is None:
        return f"{path}: entry {entry.number} of series has a rule that selects nothing yet; {remedy}"
    if not is_current(entry.rule, locked):
        return f"{path}: the rule in entry {entry.number} of series has changed since the last refresh; {remedy}"
    if not selected_symbols(entry.rule, locked):
        market = entry.market
        hint = f"check its conditions with `binance-assets symbols {market}`"
        return f"{path}: the rule in entry {entry.number} of series selects no symbol of {market.title}; {hint}"
    return None


def _check_names(path: Path, fetched: list[str], derived: list[str]) -> None:
    derived_names = set(derived)
    for name in fetched:
        if name in derived_names:
            raise UniverseError(f"{path}: {name} is both fetched and derived; remove one of the two")
    for name, times in Counter((*fetched, *derived)).items():
        if times > 1:
            raise UniverseError(f"{path}: {name} is listed twice; remove one of the two")


def _derived(path: Path, number: int, entry: _Entry) -> list[Derived]:
    try:
        return list(entry.derived())
    except ValueError as error:
        raise UniverseError(f"{path}: entry {number} of series, derive: {printable(error)}") from None


def round_trip_yaml() -> YAML:
    """Return a YAML reader and writer that keeps comments and writes lists as the documentation shows them."""
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 120
    yaml.composer.warn_double_anchors = False  # a warning of five lines, with text from the file
    return yaml


def load_document(path: Path) -> CommentedMap:
    """Load the universe file with its comments; a missing or empty file gives an empty document.

    Raises:
        UniverseError: The file cannot be read, is not YAML, or has a key other than ``series``.
    """
    try:
        text = _read_text(path)
        _check_nesting(text)
        document = round_trip_yaml().load(text)
    except FileNotFoundError:
        return CommentedMap(series=CommentedSeq())
    except OSError as error:
        raise UniverseError(f"{path} cannot be read: {error}") from None
    except UniverseError:
        raise
    except UnicodeDecodeError as error:
        raise UniverseError(f"{path} cannot be read: {printable(error)}") from None
    except MarkedYAMLError as error:
        raise UniverseError(f"{path} is not YAML: {_position(error)}") from None
    except Exception as error:  # also a ValueError or a TypeError of the YAML reader, for a number or a tag
        raise UniverseError(f"{path} is not YAML: {reason_of(error)}") from None
    if _nodes(document, {}) > _MOST_NODES:
        raise UniverseError(f"{path}: with its aliases written out, the file has more than {_MOST_NODES:,} values")
    if document is None:
        return CommentedMap(series=CommentedSeq())
    if not isinstance(document, CommentedMap) or set(document) - {"series"}:
        raise UniverseError(f"{path}: the file must have one key, series, with a list of entries")
    return document


def _position(error: MarkedYAMLError) -> str:
    """Return where a text is not YAML, and why; the text of the error itself has lines of the file."""
    reason = printable(error.problem or error.context or "it cannot be read")
    mark = error.problem_mark or error.context_mark
    return f"line {mark.line + 1}, column {mark.column + 1}: {reason}" if mark else reason


def _read_text(path: Path) -> str:
    """Return the text of the file.

    Raises:
        OSError, UnicodeDecodeError: It cannot be read.
        UniverseError: It is too large.
    """
    with path.open("rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise UniverseError(f"{path} is larger than {_MOST_BYTES:,} bytes, which no universe needs")
    return content.decode().replace("\r\n", "\n")


def _check_nesting(text: str) -> None:
    """Refuse brackets within brackets, for which the YAML reader takes a time that grows with the square of the depth.

    Raises:
        ValueError: There are more than a universe can have.
    """
    depth = 0
    for match in _BRACKET.finditer(_COMMENT.sub("", text)):
        depth = depth + 1 if match[0] in "[{" else max(0, depth - 1)
        if depth > _MOST_BRACKETS:
            raise ValueError(f"there are more than {_MOST_BRACKETS} brackets within each other")


def _nodes(raw: object, counted: dict[int, int]) -> int:
    """Return the number of values of a loaded document with its aliases written out, without writing them out.

    Args:
        raw: The document, or a part of it.
        counted: The numbers of parts that were counted before, by identity.
    """
    if not isinstance(raw, (CommentedMap, CommentedSeq)):
        return 1
    if id(raw) not in counted:
        counted[id(raw)] = _MOST_NODES  # for a list that contains itself, until it is counted
        members = raw.values() if isinstance(raw, CommentedMap) else raw
        counted[id(raw)] = 1 + sum(_nodes(member, counted) for member in members)
    return counted[id(raw)]


def raw_entries(path: Path, document: CommentedMap) -> CommentedSeq:
    """Return the document's list of entries, not yet validated; an edit of the list edits the document.

    Args:
        path: The file, for the message.
        document: Its content. A list is added to it where it has none.

    Raises:
        UniverseError: ``series`` is not a list.
    """
    if document.get("series") is None:
        document["series"] = CommentedSeq()
    entries = document["series"]
    if not isinstance(entries, CommentedSeq):
        raise UniverseError(f"{path}: series must be a list of entries")
    return entries


def _entry(path: Path, number: int, raw: Any) -> _Entry | _RuleEntry:
    plain = _plain(raw)
    try:
        if isinstance(plain, dict) and isinstance(plain.get("symbols"), dict):
            return _RuleEntry.model_validate(plain | {"symbols": _rule(path, number, plain)})
        return _Entry.model_validate(plain)
    except ValidationError as error:
        # A misspelled key also leaves the right one missing, but only the first names the mistake.
        first = min(error.errors(), key=lambda entry: entry["type"] != "extra_forbidden")
        field = printable(".".join(str(part) for part in first["loc"]))
        message = _reason(first["type"], field) or printable(first["msg"].removeprefix("Value error, "))
        raise UniverseError(f"{path}: entry {number} of series{', ' + field if field else ''}: {message}") from None


def _reason(kind: str, field: str) -> str | None:
    """Return what is wrong with a key of an entry; None for the words of Pydantic."""
    if kind == "extra_forbidden":
        return f"there is no such key{did_you_mean(nearest(field, _Entry.model_fields))}"
    return {"missing": "the key is missing", "list_type": "write a list, such as [A, B]"}.get(kind)


def _rule(path: Path, number: int, plain: Mapping[str, Any]) -> SymbolRule:
    """Return the rule of an entry.

    Raises:
        UniverseError: It is not valid, or makes no sense on the market of the entry.
    """
    try:
        rule = make_rule(plain["symbols"])
        market = plain.get("market")
        if isinstance(market, str) and market in MARKETS:  # the entry refuses any other
            rule.check_for(MARKETS[market])
    except (TypeError, ValueError) as error:  # a TypeError for a condition that is no text
        raise UniverseError(f"{path}: entry {number} of series, symbols: {printable(error)}") from None
    return rule


def _plain(raw: Any) -> Any:
    """Return a loaded value as Python's own dicts and lists, which Pydantic's strict mode requires."""
    if isinstance(raw, CommentedMap):
        return {key: _plain(value) for key, value in raw.items()}
    return [_plain(value) for value in raw] if isinstance(raw, CommentedSeq) else raw


def sources_of(
    series: Iterable[Series], universe: Universe, settings: Settings, source: Source | None
) -> dict[Series, Source]:
    """Return the source of each series: ``source`` if given, else the universe's for it, else the settings'."""
    named = {tracked.series: tracked.source for tracked in universe.tracked}
    return {member: source or named.get(member) or settings.source for member in series}
