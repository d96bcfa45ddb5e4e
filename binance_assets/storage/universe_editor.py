"""Edits of the universe file. They keep its comments and replace it atomically."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
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
            for addition in added:
                _add(raw_entries(path, document), addition)
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
            rules = _selecting(path, universe, entries)
            for removal in removed:
                _remove(path, entries, removal, rules)
            _replace(path, document)
    return removed


def _flow(values: list[str]) -> CommentedSeq:
    """Return a list that is written on one line."""
    sequence = CommentedSeq(values)
    sequence.fa.set_flow_style()
    return sequence


def _add(entries: CommentedSeq, series: Series) -> None:
    """Add a series to an entry that differs only in symbol or interval; append an entry if none fits."""
    market, symbol, interval = series.market.name, series.symbol, series.interval.name
    for entry in entries:
        if entry["market"] != market or set(entry) - {"market", "symbols", "intervals"} or _has_rule(entry):
            continue
        if list(entry["intervals"]) == [interval]:
            entry["symbols"].append(symbol)
            return
        if list(entry["symbols"]) == [symbol]:
            entry["intervals"].append(interval)
            return
    entries.append(CommentedMap(market=market, symbols=_flow([symbol]), intervals=_flow([interval])))


def _has_rule(entry: CommentedMap) -> bool:
    return isinstance(entry["symbols"], CommentedMap)


def _selecting(path: Path, universe: Universe, entries: CommentedSeq) -> list[tuple[CommentedMap, set[str]]]:
    """Return the raw entries with a rule, each with the symbols that the lock file has of it."""
    locked = locked_for([(entry.market, entry.rule) for entry in universe.rules], read_lock(lock_path(path)))
    return [
        (entries[entry.number - 1], set(selected_symbols(entry.rule, found)))
        for entry, found in zip(universe.rules, locked, strict=True)
    ]


def _remove(path: Path, entries: CommentedSeq, series: Series, rules: Sequence[tuple[CommentedMap, set[str]]]) -> None:
    """Remove a series from the entry that lists it, and from the rules that select it; other series stay.

    Args:
        path: The file, for messages.
        entries: The raw entries.
        series: The series.
        rules: The raw entries with a rule, each with the symbols that it selects.
    """
    market, symbol = series.market.name, series.symbol
    selecting = [entry for entry, symbols in rules if symbol in symbols]
    for entry in [*selecting, *(entry for entry in entries if not _has_rule(entry) and symbol in entry["symbols"])]:
        if entry["market"] == market and series.interval in [parse_interval(text) for text in entry["intervals"]]:
            (_exclude if _has_rule(entry) else _remove_listed)(path, entries, entry, series)


def _remove_listed(path: Path, entries: CommentedSeq, entry: CommentedMap, series: Series) -> None:
    intervals = [parse_interval(text) for text in entry["intervals"]]
    remaining = [interval for interval in intervals if interval != series.interval]
    _check_base_series(path, series, remaining, entry.get("derive", []))
    position = _position(entries, entry)
    if len(entry["symbols"]) == 1 and not remaining:
        del entries[position]
    elif len(entry["symbols"]) == 1:
        del entry["intervals"][intervals.index(series.interval)]
    else:
        entry["symbols"].remove(series.symbol)
        if remaining:
            entries.insert(position + 1, _split_off(entry, series.symbol, remaining))


def _exclude(path: Path, entries: CommentedSeq, entry: CommentedMap, series: Series) -> None:
    """Exclude the symbol from a rule; a new entry lists it in the other intervals."""
    intervals = [parse_interval(text) for text in entry["intervals"]]
    remaining = [interval for interval in intervals if interval != series.interval]
    _check_base_series(path, series, remaining, entry.get("derive", []))
    rule = entry["symbols"]
    excluded = rule.get("exclude") or []
    names = [excluded] if isinstance(excluded, str) else list(excluded)
    rule["exclude"] = _flow([*names, series.symbol])
    if remaining:
        entries.append(_split_off(entry, series.symbol, remaining))  # at the end, where it changes no other's number


def _position(entries: CommentedSeq, entry: CommentedMap) -> int:
    return next(position for position, member in enumerate(entries) if member is entry)


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
