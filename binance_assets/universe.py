"""The universe: the file that lists the tracked series.

    series:
      - market: spot
        symbols: [BTCUSDT, ETHUSDT]
        intervals: [1m]

``source`` (auto, rest or archive) and ``derive`` (intervals made from the fetched ones) may stand beside them. A
missing file is an empty universe. Edits keep comments and replace the file at once.
"""

from __future__ import annotations

import io
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError

from binance_assets.intervals import parse_interval
from binance_assets.markets import parse_market
from binance_assets.processes import alone_in
from binance_assets.series import Series
from binance_assets.settings import ConfigurationError, Source

_DERIVED_INTERVAL: Final = re.compile(r"[1-9]\d*[smhd]")


class UniverseError(ConfigurationError):
    """The universe cannot be read or written; the message names the file and the entry."""


@dataclass(frozen=True, slots=True)
class Tracked:
    """A series that is fetched.

    Attributes:
        series: The series.
        source: Where it comes from; None means as the settings say.
    """

    series: Series
    source: Source | None = None


@dataclass(frozen=True, slots=True)
class Universe:
    """What the file says.

    Attributes:
        tracked: The series that are fetched, in the file's order.
        derived: Names of the series that are made from fetched ones.
    """

    tracked: tuple[Tracked, ...] = ()
    derived: tuple[str, ...] = ()

    @property
    def series(self) -> list[Series]:
        """The series that are fetched."""
        return [tracked.series for tracked in self.tracked]


def _derived_interval(text: str) -> str:
    if not _DERIVED_INTERVAL.fullmatch(text):
        raise ValueError(f"{text!r} is not an interval to derive; write it like 5m, 1h or 45m")
    return text


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    market: Annotated[str, AfterValidator(lambda text: parse_market(text).name)]
    symbols: list[str]
    intervals: list[Annotated[str, AfterValidator(lambda text: parse_interval(text).name)]]
    source: Source | None = None
    derive: list[Annotated[str, AfterValidator(_derived_interval)]] = []

    def tracked(self) -> Iterator[Tracked]:
        for symbol in self.symbols:
            for interval in self.intervals:
                yield Tracked(Series(parse_market(self.market), symbol, parse_interval(interval)), self.source)

    def derived(self) -> Iterator[str]:
        for symbol in self.symbols:
            for interval in self.derive:
                yield f"{self.market}/{symbol}/{interval}"


def read_universe(path: Path) -> Universe:
    """The universe in ``path``.

    Raises:
        UniverseError: The file is not readable as one.
    """
    entries = [_entry(path, number, raw) for number, raw in enumerate(_entries(path, _load(path)), 1)]
    try:
        tracked = tuple(found for entry in entries for found in entry.tracked())
    except ValueError as error:
        raise UniverseError(f"{path}: {error}") from None
    derived = tuple(name for entry in entries for name in entry.derived())
    names = [str(found.series) for found in tracked]
    for name in names:
        if name in derived:
            raise UniverseError(f"{path}: {name} is both fetched and derived; keep one of the two")
    for name in (*names, *derived):
        if (*names, *derived).count(name) > 1:
            raise UniverseError(f"{path}: {name} is listed twice; keep one of the two")
    return Universe(tracked, derived)


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
        document = _load(path)
        for one in new:
            _add(_entries(path, document), one)
        _replace(path, document)
    return new


def untrack(path: Path, series: list[Series]) -> list[Series]:
    """Remove from the universe what it tracks; files in the lake stay.

    Returns:
        The series that were removed.

    Raises:
        UniverseError: The file cannot be read or written.
    """
    with _locked(path):
        return _untrack(path, series)


def _untrack(path: Path, series: list[Series]) -> list[Series]:
    known = set(read_universe(path).series)
    gone = [one for one in dict.fromkeys(series) if one in known]
    if gone:
        document = _load(path)
        for one in gone:
            _remove(_entries(path, document), one)
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


def _yaml() -> YAML:
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 120
    return yaml


def _load(path: Path) -> CommentedMap:
    try:
        document = _yaml().load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return CommentedMap(series=CommentedSeq())
    except (OSError, UnicodeDecodeError) as error:
        raise UniverseError(f"{path} cannot be read: {error}") from None
    except (YAMLError, RecursionError) as error:
        raise UniverseError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if document is None:
        return CommentedMap(series=CommentedSeq())
    if not isinstance(document, CommentedMap) or set(document) - {"series"}:
        raise UniverseError(f"{path}: the file holds one key, series, with a list of entries")
    return document


def _entries(path: Path, document: CommentedMap) -> CommentedSeq:
    if document.get("series") is None:
        document["series"] = CommentedSeq()
    entries = document["series"]
    if not isinstance(entries, CommentedSeq):
        raise UniverseError(f"{path}: series must be a list of entries")
    return entries


def _entry(path: Path, number: int, raw: Any) -> _Entry:
    try:
        return _Entry.model_validate(_plain(raw))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise UniverseError(f"{path}: entry {number} of series{', ' + where if where else ''}: {message}") from None


def _plain(raw: Any) -> Any:
    if isinstance(raw, CommentedMap):
        return {key: _plain(value) for key, value in raw.items()}
    return [_plain(value) for value in raw] if isinstance(raw, CommentedSeq) else raw


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


def _remove(entries: CommentedSeq, series: Series) -> None:
    for position, entry in enumerate(entries):
        names = [parse_interval(text) for text in entry["intervals"]]
        if entry["market"] != series.market.name or series.symbol not in entry["symbols"]:
            continue
        if series.interval not in names:
            continue
        if len(entry["symbols"]) == 1 and len(names) == 1:
            del entries[position]
        elif len(entry["symbols"]) == 1:
            del entry["intervals"][names.index(series.interval)]
        else:
            entry["symbols"].remove(series.symbol)
            left = [interval.name for interval in names if interval != series.interval]
            if left:
                rest = CommentedMap(market=series.market.name, symbols=_flow([series.symbol]), intervals=_flow(left))
                rest.update({key: entry[key] for key in ("source", "derive") if key in entry})
                entries.insert(position + 1, rest)
        return


def _replace(path: Path, document: CommentedMap) -> None:
    text = io.StringIO()
    _yaml().dump(document, text)
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
