"""Edits of the universe file that keep its comments and replace it atomically."""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ruamel.yaml.comments import CommentedMap, CommentedSeq

from binance_assets.model.intervals import Interval, parse_derived_interval, parse_interval
from binance_assets.model.series import Series
from binance_assets.storage.locks import alone_in
from binance_assets.storage.universe import (
    UniverseError,
    divisors,
    entries_of,
    load_document,
    read_universe,
    round_trip_yaml,
)


def track(path: Path, series: list[Series]) -> list[Series]:
    """Add to the universe what it does not track yet.

    Returns:
        The series that were added.

    Raises:
        UniverseError: The file cannot be read or written, or the result would contradict itself.
    """
    with _locked(path):
        return _track(path, series)


def _track(path: Path, series: list[Series]) -> list[Series]:
    known = set(read_universe(path).series)
    new = [one for one in dict.fromkeys(series) if one not in known]
    if new:
        document = load_document(path)
        for one in new:
            _add(entries_of(path, document), one)
        _replace(path, document)
    return new


def untrack(path: Path, series: list[Series]) -> list[Series]:
    """Remove from the universe what it tracks; files in the lake stay.

    Returns:
        The series that were removed.

    Raises:
        UniverseError: The file cannot be read or written, or a derived series would be left without a source.
    """
    with _locked(path):
        return _untrack(path, series)


def _untrack(path: Path, series: list[Series]) -> list[Series]:
    known = set(read_universe(path).series)
    gone = [one for one in dict.fromkeys(series) if one in known]
    if gone:
        document = load_document(path)
        for one in gone:
            _remove(path, entries_of(path, document), one)
        _replace(path, document)
    return gone


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other processes from editing the file meanwhile."""
    try:
        with alone_in(path.parent):
            yield
    except OSError as error:
        raise UniverseError(f"{path} cannot be written: {error}") from None


def _flow(values: list[str]) -> CommentedSeq:
    sequence = CommentedSeq(values)
    sequence.fa.set_flow_style()
    return sequence


def _add(entries: CommentedSeq, series: Series) -> None:
    market, symbol, interval = series.market.name, series.symbol, series.interval.name
    for entry in entries:
        if entry["market"] != market or set(entry) - {"market", "symbols", "intervals"}:
            continue
        if list(entry["intervals"]) == [interval]:
            entry["symbols"].append(symbol)
            return
        if list(entry["symbols"]) == [symbol]:
            entry["intervals"].append(interval)
            return
    entries.append(CommentedMap(market=market, symbols=_flow([symbol]), intervals=_flow([interval])))


def _remove(path: Path, entries: CommentedSeq, series: Series) -> None:
    for position, entry in enumerate(entries):
        names = [parse_interval(text) for text in entry["intervals"]]
        if entry["market"] != series.market.name or series.symbol not in entry["symbols"]:
            continue
        if series.interval not in names:
            continue
        left = [interval for interval in names if interval != series.interval]
        _check_sources(path, series, left, entry.get("derive", []))
        if len(entry["symbols"]) == 1 and not left:
            del entries[position]
        elif len(entry["symbols"]) == 1:
            del entry["intervals"][names.index(series.interval)]
        else:
            entry["symbols"].remove(series.symbol)
            if left:
                entries.insert(position + 1, _split_off(entry, series.symbol, left))
        return


def _check_sources(path: Path, series: Series, left: list[Interval], derive: list[str]) -> None:
    """Refuse to take ``series`` out of an entry that derives something from it alone."""
    orphans = [text for text in derive if not divisors(parse_derived_interval(text), left)]
    if orphans:
        named = ", ".join(orphans)
        raise UniverseError(
            f"{path}: {named} of {series.symbol} would have no source without {series}; "
            f"take {named} out of that entry's derive first, or {series.symbol} out of its symbols"
        )


def _split_off(entry: CommentedMap, symbol: str, intervals: list[Interval]) -> CommentedMap:
    """An entry for one symbol that says otherwise what ``entry`` says."""
    names = [interval.name for interval in intervals]
    rest = CommentedMap(market=entry["market"], symbols=_flow([symbol]), intervals=_flow(names))
    if "source" in entry:
        rest["source"] = entry["source"]
    if "derive" in entry:
        rest["derive"] = _flow(list(entry["derive"]))  # a list of its own: a shared one is written as an alias
    return rest


def _replace(path: Path, document: CommentedMap) -> None:
    text = io.StringIO()
    round_trip_yaml().dump(document, text)
    incoming = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        incoming.write_text(text.getvalue(), encoding="utf-8")
        read_universe(incoming)
        os.replace(incoming, path)
    except UniverseError as error:
        raise UniverseError(str(error).replace(str(incoming), str(path))) from None
    except OSError as error:
        raise UniverseError(f"{path} cannot be written: {error}") from None
    finally:
        with suppress(OSError):
            incoming.unlink()
