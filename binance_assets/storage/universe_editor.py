"""Edits of the universe file. They keep its comments and replace it atomically."""

from __future__ import annotations

import io
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ruamel.yaml.comments import CommentedMap, CommentedSeq

from binance_assets.model.intervals import Interval, parse_derived_interval, parse_interval
from binance_assets.model.series import Series
from binance_assets.storage.edited_file import edit_lock, replace_file
from binance_assets.storage.universe import (
    Universe,
    UniverseError,
    base_intervals,
    load_document,
    raw_entries,
    read_universe,
    round_trip_yaml,
    selected_symbols,
)
from binance_assets.storage.universe_lock import lock_path, locked_for, read_lock

_Key = tuple[str, str]
"""A market, and a symbol or an interval."""


def track(path: Path, series: Sequence[Series]) -> list[Series]:
    """Add to the universe the series that it does not track yet.

    Args:
        path: The universe file.
        series: The series to track.

    Returns:
        The added series.

    Raises:
        UniverseError: The file cannot be read or written, or the result would contradict itself.
    """
    with _errors(path), edit_lock(path):
        tracked = set(read_universe(path).series)
        added = [candidate for candidate in dict.fromkeys(series) if candidate not in tracked]
        if added:
            document = load_document(path)
            additions = _Additions(raw_entries(path, document))
            for addition in added:
                additions.add(addition)
            _replace(path, document)
    return added


def untrack(path: Path, series: Sequence[Series]) -> list[Series]:
    """Remove series from the universe; their files stay in the lake.

    A series that a rule selects is removed by an exclusion: ``exclude`` of the rule lists its symbol.

    Args:
        path: The universe file.
        series: The series to remove.

    Returns:
        The removed series.

    Raises:
        UniverseError: The file cannot be read or written, or a derived series would lose its base series.
    """
    with _errors(path), edit_lock(path):
        universe = read_universe(path)
        tracked = set(universe.series)
        removed = [candidate for candidate in dict.fromkeys(series) if candidate in tracked]
        if removed:
            document = load_document(path)
            entries = raw_entries(path, document)
            removals = _Removals(path, entries, _selecting(path, universe, entries))
            for removal in removed:
                removals.remove(removal)
            removals.apply()
            _replace(path, document)
    return removed


def _flow(values: list[str]) -> CommentedSeq:
    """Return a list that is written on one line."""
    sequence = CommentedSeq(values)
    sequence.fa.set_flow_style()
    return sequence


class _Additions:
    """Adds series to the entries of the file, each in a time that does not depend on their number.

    An entry can only stop to fit: it gets another symbol or another interval.

    Args:
        entries: The raw entries.
    """

    def __init__(self, entries: CommentedSeq) -> None:
        self._entries = entries
        self._of_interval = defaultdict[_Key, deque[int]](deque)  # positions of entries with one interval, ascending
        self._of_symbol = defaultdict[_Key, deque[int]](deque)  # and of those with one symbol
        for position, entry in enumerate(entries):
            self._note(position, entry)

    def add(self, series: Series) -> None:
        """Add a series to the first entry that differs only in symbol or interval; append an entry if none fits."""
        market, symbol, interval = series.market.name, series.symbol, series.interval.name
        by_interval = self._first(self._of_interval, "intervals", (market, interval))
        by_symbol = self._first(self._of_symbol, "symbols", (market, symbol))
        if min(by_interval, by_symbol) == len(self._entries):
            entry = CommentedMap(market=market, symbols=_flow([symbol]), intervals=_flow([interval]))
            self._entries.append(entry)
            self._note(len(self._entries) - 1, entry)
        elif by_interval <= by_symbol:
            self._entries[by_interval]["symbols"].append(symbol)
        else:
            self._entries[by_symbol]["intervals"].append(interval)

    def _note(self, position: int, entry: CommentedMap) -> None:
        if set(entry) - {"market", "symbols", "intervals"} or _has_rule(entry):
            return
        for name, positions in (("intervals", self._of_interval), ("symbols", self._of_symbol)):
            if len(entry[name]) == 1:
                positions[entry["market"], entry[name][0]].append(position)

    def _first(self, positions: Mapping[_Key, deque[int]], name: str, key: _Key) -> int:
        """Return the position of the first entry that still has one value; the number of entries if there is none."""
        candidates = positions[key]
        while candidates and len(self._entries[candidates[0]][name]) != 1:
            candidates.popleft()
        return candidates[0] if candidates else len(self._entries)


def _has_rule(entry: CommentedMap) -> bool:
    return isinstance(entry["symbols"], CommentedMap)


def _selecting(path: Path, universe: Universe, entries: CommentedSeq) -> list[tuple[CommentedMap, set[str]]]:
    """Return the raw entries with a rule, each with the symbols that the lock file has of it."""
    locked = locked_for([(entry.market, entry.rule) for entry in universe.rules], read_lock(lock_path(path)))
    return [
        (entries[entry.number - 1], set(selected_symbols(entry.rule, found)))
        for entry, found in zip(universe.rules, locked, strict=True)
    ]


class _Removals:
    """Removes series from the entries that list them and from the rules that select them; other series stay.

    What changes positions is done at the end, in one pass, so each removal takes the same time in any file.

    Args:
        path: The file, for messages.
        entries: The raw entries.
        rules: The raw entries with a rule, each with the symbols that it selects.
    """

    def __init__(self, path: Path, entries: CommentedSeq, rules: Sequence[tuple[CommentedMap, set[str]]]) -> None:
        self._path, self._entries, self._rules = path, entries, rules
        self._listing = defaultdict[_Key, list[CommentedMap]](list)
        for entry in entries:
            for symbol in () if _has_rule(entry) else entry["symbols"]:
                self._listing[entry["market"], symbol].append(entry)
        # All by the identity of the entry.
        self._removed = defaultdict[int, set[str]](set)
        self._split = defaultdict[int, list[CommentedMap]](list)
        self._deleted, self._excluded = set[int](), defaultdict[int, set[str]](set)

    def remove(self, series: Series) -> None:
        """Remove a series.

        Raises:
            UniverseError: A derived series would lose its base series.
        """
        market, symbol = series.market.name, series.symbol
        for entry in [entry for entry, symbols in self._rules if symbol in symbols and entry["market"] == market]:
            if series.interval in _intervals(entry) and symbol not in self._excluded[id(entry)]:
                self._exclude(entry, series)
        for entry in [*self._listing[market, symbol]]:
            if series.interval in _intervals(entry):
                self._remove_listed(entry, series)

    def apply(self) -> None:
        """Remove symbols and entries, and insert those that were split off, right after the one that they are from."""
        for position in reversed(range(len(self._entries))):
            entry = self._entries[position]
            for split in self._split[id(entry)]:
                if id(split) not in self._deleted:
                    self._entries.insert(position + 1, split)
            if id(entry) in self._deleted:
                del self._entries[position]
            elif removed := self._removed[id(entry)]:
                symbols = entry["symbols"]
                for number in [number for number, symbol in enumerate(symbols) if symbol in removed][::-1]:
                    del symbols[number]

    def _remove_listed(self, entry: CommentedMap, series: Series) -> None:
        intervals, removed = _intervals(entry), self._removed[id(entry)]
        remaining = [interval for interval in intervals if interval != series.interval]
        _check_base_series(self._path, series, remaining, entry.get("derive", []))
        if len(entry["symbols"]) - len(removed) > 1:
            removed.add(series.symbol)
            listing = self._listing[series.market.name, series.symbol]
            listing[:] = [other for other in listing if other is not entry]
            if remaining:
                split = _split_off(entry, series.symbol, remaining)
                self._split[id(entry)].append(split)
                listing.append(split)
        elif remaining:
            del entry["intervals"][intervals.index(series.interval)]
        else:
            self._deleted.add(id(entry))

    def _exclude(self, entry: CommentedMap, series: Series) -> None:
        """Exclude the symbol from a rule; a new entry lists it in the other intervals."""
        remaining = [interval for interval in _intervals(entry) if interval != series.interval]
        _check_base_series(self._path, series, remaining, entry.get("derive", []))
        rule = entry["symbols"]
        if not self._excluded[id(entry)]:
            excluded = rule.get("exclude") or []
            rule["exclude"] = _flow([excluded] if isinstance(excluded, str) else list(excluded))
        rule["exclude"].append(series.symbol)
        self._excluded[id(entry)].add(series.symbol)
        if remaining:  # at the end, where it changes no other's number
            split = _split_off(entry, series.symbol, remaining)
            self._entries.append(split)
            self._listing[series.market.name, series.symbol].append(split)


def _intervals(entry: CommentedMap) -> list[Interval]:
    return [parse_interval(text) for text in entry["intervals"]]


def _check_base_series(path: Path, series: Series, remaining: list[Interval], derive: list[str]) -> None:
    """Refuse to remove ``series`` if a derived interval of its entry is a multiple of none of the ``remaining`` ones.

    Raises:
        UniverseError: The message says what to remove first.
    """
    orphans = [text for text in derive if not base_intervals(parse_derived_interval(text), remaining)]
    if orphans:
        names = ", ".join(orphans)
        raise UniverseError(
            f"{path}: {names} of {series.symbol} would have no base series without {series}; "
            f"first remove {names} from its entry's derive, or {series.symbol} from its symbols (of a rule: exclude it)"
        )


def _split_off(entry: CommentedMap, symbol: str, intervals: list[Interval]) -> CommentedMap:
    """Return an entry for one symbol and ``intervals``, with the market, source, derive, and owners of ``entry``."""
    names = [interval.name for interval in intervals]
    split = CommentedMap(market=entry["market"], symbols=_flow([symbol]), intervals=_flow(names))
    if "source" in entry:
        split["source"] = entry["source"]
    for name in ("derive", "owners"):
        if name in entry:
            split[name] = _flow(list(entry[name]))  # a copy: YAML writes a shared list as an alias
    return split


def _replace(path: Path, document: CommentedMap) -> None:
    """Replace the file with the document, if the document is a valid universe; return once it is on the disk."""
    text = io.StringIO()
    round_trip_yaml().dump(document, text)
    with _errors(path):
        replace_file(path, text.getvalue(), lambda incoming: _check(path, incoming))


def _check(path: Path, incoming: Path) -> None:
    try:
        read_universe(incoming, lock_path(path))
    except UniverseError as error:
        raise UniverseError(str(error).replace(str(incoming), str(path))) from None


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UniverseError(f"{path} cannot be written: {error}") from None
