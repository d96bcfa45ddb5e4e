"""The universe: the file that lists the tracked series.

    series:
      - market: spot
        symbols: [BTCUSDT, ETHUSDT]
        intervals: [1m]

``source`` (auto, rest or archive) and ``derive`` (intervals made from the fetched ones, such as ``[5m, 45m, 1h]``) may
stand beside them. A missing file is an empty universe. Edits keep comments and replace the file at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError

from binance_assets.model.intervals import Interval, parse_derived_interval, parse_interval
from binance_assets.model.markets import Market, parse_market
from binance_assets.model.series import Series, derived_series
from binance_assets.settings import ConfigurationError, Source


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
class Derived:
    """A series that is made from a fetched one, without a request.

    Attributes:
        series: The series.
        source: The fetched series that it is made from: of the same entry, and the coarsest that divides it.
    """

    series: Series
    source: Series


@dataclass(frozen=True, slots=True)
class Universe:
    """What the file says.

    Attributes:
        tracked: The series that are fetched, in the file's order.
        derived: The series that are made from fetched ones, in the file's order.
    """

    tracked: tuple[Tracked, ...] = ()
    derived: tuple[Derived, ...] = ()

    @property
    def series(self) -> list[Series]:
        """The series that are fetched."""
        return [tracked.series for tracked in self.tracked]

    @property
    def derived_names(self) -> frozenset[str]:
        """The names of the series that are made from fetched ones, such as ``spot/BTCUSDT/45m``."""
        return frozenset(str(derived.series) for derived in self.derived)


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    market: Annotated[str, AfterValidator(lambda text: parse_market(text).name)]
    symbols: list[str]
    intervals: list[Annotated[str, AfterValidator(lambda text: parse_interval(text).name)]]
    source: Source | None = None
    derive: list[Annotated[str, AfterValidator(lambda text: parse_derived_interval(text).name)]] = []

    def tracked(self) -> Iterator[Tracked]:
        for symbol in self.symbols:
            for interval in self.intervals:
                yield Tracked(Series(parse_market(self.market), symbol, parse_interval(interval)), self.source)

    def derived_names(self) -> Iterator[str]:
        for symbol in self.symbols:
            for interval in self.derive:
                yield f"{self.market}/{symbol}/{interval}"

    def derived(self) -> Iterator[Derived]:
        market = parse_market(self.market)
        fetched = [parse_interval(text) for text in self.intervals]
        wanted = [parse_derived_interval(text) for text in self.derive]
        pairs = [(interval, _source_of(interval, fetched, market)) for interval in wanted]
        for symbol in self.symbols:
            for interval, source in pairs:
                yield Derived(derived_series(market, symbol, interval), Series(market, symbol, source))


def _source_of(interval: Interval, fetched: Iterable[Interval], market: Market) -> Interval:
    """The one of ``fetched`` with the fewest candles that ``interval`` can be made from."""
    fitting = divisors(interval, fetched)
    if fitting:
        return fitting[-1]
    lacking = divisors(interval, market.intervals)
    ways_out = [f"add {lacking[-1]} to intervals"] if lacking else []
    raise ValueError(
        f"{interval} cannot be derived, no finer interval that divides it evenly is fetched here; "
        + " or ".join([*ways_out, f"remove {interval} from derive"])
    )


def divisors(interval: Interval, among: Iterable[Interval]) -> list[Interval]:
    """Those of ``among`` that are finer than ``interval`` and divide it evenly, finest first."""
    # An interval to derive is at most a day, so all of these are kept by day as well.
    fitting = (one for one in among if one.step < interval.step and interval.step % one.step == 0)
    return sorted(fitting, key=lambda one: one.step)


def read_universe(path: Path) -> Universe:
    """The universe in ``path``.

    Raises:
        UniverseError: The file is not readable as one.
    """
    entries = [_entry(path, number, raw) for number, raw in enumerate(entries_of(path, load_document(path)), 1)]
    try:
        tracked = tuple(found for entry in entries for found in entry.tracked())
    except ValueError as error:
        raise UniverseError(f"{path}: {error}") from None
    _check_names(
        path,
        [str(found.series) for found in tracked],
        [name for entry in entries for name in entry.derived_names()],
    )
    derived = tuple(found for number, entry in enumerate(entries, 1) for found in _derived(path, number, entry))
    return Universe(tracked, derived)


def _check_names(path: Path, fetched: list[str], derived: list[str]) -> None:
    derived_names = set(derived)
    for name in fetched:
        if name in derived_names:
            raise UniverseError(f"{path}: {name} is both fetched and derived; keep one of the two")
    for name, times in Counter((*fetched, *derived)).items():
        if times > 1:
            raise UniverseError(f"{path}: {name} is listed twice; keep one of the two")


def _derived(path: Path, number: int, entry: _Entry) -> list[Derived]:
    try:
        return list(entry.derived())
    except ValueError as error:
        raise UniverseError(f"{path}: entry {number} of series, derive: {error}") from None


def round_trip_yaml() -> YAML:
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 120
    return yaml


def load_document(path: Path) -> CommentedMap:
    try:
        document = round_trip_yaml().load(path.read_text(encoding="utf-8"))
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


def entries_of(path: Path, document: CommentedMap) -> CommentedSeq:
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
