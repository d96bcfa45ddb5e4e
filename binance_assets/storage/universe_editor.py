"""Edits of the universe file. They keep its comments and replace it atomically."""

from __future__ import annotations

import io
import os
import stat
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ruamel.yaml.comments import CommentedMap, CommentedSeq

from binance_assets.model.intervals import Interval, parse_derived_interval, parse_interval
from binance_assets.model.series import Series
from binance_assets.storage.locks import file_lock
from binance_assets.storage.state import sync_folder
from binance_assets.storage.universe import (
    UniverseError,
    base_intervals,
    load_document,
    raw_entries,
    read_universe,
    round_trip_yaml,
)


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
    with _locked(path):
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

    Args:
        path: The universe file.
        series: The series to remove.

    Returns:
        The removed series.

    Raises:
        UniverseError: The file cannot be read or written, or a derived series would lose its base series.
    """
    with _locked(path):
        tracked = set(read_universe(path).series)
        removed = [candidate for candidate in dict.fromkeys(series) if candidate in tracked]
        if removed:
            document = load_document(path)
            for removal in removed:
                _remove(path, raw_entries(path, document), removal)
            _replace(path, document)
    return removed


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other processes from editing the file at the same time."""
    try:
        target = _target(path)  # so that whoever edits the file by another link waits too
        with file_lock(target.with_name(f".{target.name}.lock")):
            yield
    except OSError as error:
        raise UniverseError(f"{path} cannot be written: {error}") from None


def _flow(values: list[str]) -> CommentedSeq:
    """Return a list that is written on one line."""
    sequence = CommentedSeq(values)
    sequence.fa.set_flow_style()
    return sequence


def _add(entries: CommentedSeq, series: Series) -> None:
    """Add a series to an entry that differs only in symbol or interval; append an entry if none fits."""
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
    """Remove a series from the entry that lists it; the entry's other series stay."""
    for position, entry in enumerate(entries):
        intervals = [parse_interval(text) for text in entry["intervals"]]
        if entry["market"] != series.market.name or series.symbol not in entry["symbols"]:
            continue
        if series.interval not in intervals:
            continue
        remaining = [interval for interval in intervals if interval != series.interval]
        _check_base_series(path, series, remaining, entry.get("derive", []))
        if len(entry["symbols"]) == 1 and not remaining:
            del entries[position]
        elif len(entry["symbols"]) == 1:
            del entry["intervals"][intervals.index(series.interval)]
        else:
            entry["symbols"].remove(series.symbol)
            if remaining:
                entries.insert(position + 1, _split_off(entry, series.symbol, remaining))
        return


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
            f"first remove {names} from that entry's derive, or {series.symbol} from its symbols"
        )


def _split_off(entry: CommentedMap, symbol: str, intervals: list[Interval]) -> CommentedMap:
    """Return an entry for one symbol and ``intervals``, with the market, source, and derive of ``entry``."""
    names = [interval.name for interval in intervals]
    split = CommentedMap(market=entry["market"], symbols=_flow([symbol]), intervals=_flow(names))
    if "source" in entry:
        split["source"] = entry["source"]
    if "derive" in entry:
        split["derive"] = _flow(list(entry["derive"]))  # a copy: YAML writes a shared list as an alias
    return split


def _replace(path: Path, document: CommentedMap) -> None:
    """Replace the file with the document, if the document is a valid universe; return once it is on the disk.

    A symbolic link stays one: the file to which it leads is replaced. Its mode stays, and its owner and group if this
    user may give files to them.
    """
    text, target = io.StringIO(), _target(path)
    round_trip_yaml().dump(document, text)
    incoming = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        with incoming.open("x", encoding="utf-8") as file:
            _copy_rights(target, incoming)
            file.write(text.getvalue())
            file.flush()
            os.fsync(file.fileno())
        read_universe(incoming)
        os.replace(incoming, target)
        sync_folder(target.parent)
    except UniverseError as error:
        raise UniverseError(str(error).replace(str(incoming), str(path))) from None
    except OSError as error:
        raise UniverseError(f"{path} cannot be written: {error}") from None
    finally:
        with suppress(OSError):
            incoming.unlink()


def _target(path: Path) -> Path:
    """Return the file to which ``path`` leads, whether it exists or not."""
    return Path(os.path.realpath(path))


def _copy_rights(source: Path, target: Path) -> None:
    """Give ``target`` the owner, the group, and the mode of ``source``, if that exists."""
    try:
        status = source.stat()
    except FileNotFoundError:
        return
    if hasattr(os, "chown"):
        for owner, group in ((status.st_uid, -1), (-1, status.st_gid)):
            with suppress(PermissionError):  # only root may give files away
                os.chown(target, owner, group)
    target.chmod(stat.S_IMODE(status.st_mode))  # last, because a change of the owner takes bits away
