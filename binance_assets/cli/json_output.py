"""What ``--json`` prints, as types: of each command, exactly these keys.

The commands build values of these types, which mypy checks; a test validates what they print; and the reference in the
documentation is generated from them. Nothing imports this module while a command runs.

Days are the keys of partitions, such as ``2024-01-31``. Times are ISO 8601 in UTC, such as ``2024-01-31T12:00:00Z``.
"""

from __future__ import annotations

from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    NotRequired,  # Pydantic reads no other TypedDict before Python 3.12
    get_args,
)

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from binance_assets.model.results import Verdict

_VERDICTS: Final = "|".join(get_args(Verdict))
# Names of verdicts as text, because what counts or stores them has them as text.
VerdictName = Annotated[str, Field(pattern=f"^({_VERDICTS})$")]
AbsentVerdict = Annotated[str, Field(pattern=f"^({_VERDICTS}|missing)$")]

_exact = with_config(ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True))


@_exact
class RefusedDay(TypedDict):
    """A day that was not written."""

    day: str
    """Its key."""
    verdict: Verdict
    """Why it was refused."""
    missing: list[list[str]]
    """The gaps, each a pair of times, half-open."""
    reason: str
    """The reason in one line; empty if the gaps are the whole reason."""


@_exact
class Outcome(TypedDict):
    """What a download did for a series."""

    days_asked: int
    """Requested days that are over."""
    days_present: int
    """How many of them are in the lake now."""
    verdicts: dict[VerdictName, int]
    """How many of the days in the lake have a verdict other than ``complete``, by verdict."""
    refused: list[RefusedDay]
    """The days that were not written."""
    requests: int
    """Requests that were sent."""
    weight: int
    """Request weight that they used."""
    warmup: int
    """Pages that were fetched at once to measure the network."""
    workers: int
    """Most requests in flight at once."""
    rtt_ms: float | None
    """Measured round trip, ms; null without a measurement."""
    rows: int
    """Candles that were fetched."""
    seconds: float
    """Duration."""
    waited: float
    """Seconds in which something waited and no request was in flight."""


@_exact
class Plan(TypedDict):
    """What a download would do for a series."""

    days_asked: int
    """Requested days that are over."""
    days_present: int
    """How many of them are in the lake."""
    days_missing: list[str]
    """The keys of the days that would be fetched."""
    requests: int
    """Requests for pages that it would send."""
    weight: int
    """Request weight that it would use."""
    files: int
    """Files of the archive that it would fetch, with two requests each."""


@_exact
class Held(TypedDict("_Span", {"from": str | None, "to": str | None})):  # `from` is a keyword
    """What the lake holds of a series; ``from`` and ``to`` are its first and last day, null without partitions."""

    partitions: int
    """Number of partitions."""


@_exact
class Run(TypedDict):
    """The last run of a series."""

    id: str
    """Dagster's id of the run."""
    status: str
    """Dagster's status of the run, such as ``SUCCESS`` or ``FAILURE``."""
    started: str | None
    """When it started; null if it has not."""
    ended: str | None
    """When it ended; null if it has not."""


@_exact
class Status(TypedDict("_Span", {"from": str | None, "to": str | None})):  # `from` is a keyword
    """The state of a series; ``from`` and ``to`` are its first and last day in the lake, null without partitions."""

    partitions: int
    """Number of partitions in the lake."""
    verdicts: dict[VerdictName, int]
    """How many of them have each verdict."""
    missing: int
    """Partitions that the lake lacks and no run has refused, from the first stored one to the last that is over; also
    those that a run has written and that the lake does not hold anymore."""
    refused: int
    """Partitions that their last run did not write: it refused them, or it failed before."""
    rows: int
    """Candles in the lake."""
    bytes: int
    """Size of its files."""
    last_run: Run | None
    """The last run; null if Dagster knows none."""


@_exact
class Provenance(TypedDict):
    """Where the candles of a partition came from; each is null if it does not apply."""

    source: str | None
    """Source, such as ``rest`` or ``archive``."""
    archive_file: str | None
    """Name of the archive's file."""
    archive_sha256: str | None
    """SHA-256 of that file, in hex."""
    archive_modified: str | None
    """When the archive last changed that file."""
    derived_from: str | None
    """Name of the base series of a derived one."""
    accepted_by: str | None
    """Who accepted the partition."""
    accepted_because: str | None
    """The reason that this person gave."""
    version: str | None
    """Version of the program that wrote the partition."""


@_exact
class Candles(TypedDict):
    """The candles at the ends of a partition, ``--rows`` at each; the keys of a candle are the columns of the lake."""

    head: list[dict[str, str | float | int]]
    """The first candles."""
    tail: list[dict[str, str | float | int]]
    """The last candles."""


@_exact
class StoredDay(TypedDict):
    """A partition in the lake."""

    series: str
    """Name of the series."""
    day: str
    """Key of the partition."""
    stored: Literal[True]
    """It is in the lake."""
    verdict: Verdict
    """The verdict with which it was accepted."""
    reason: str
    """A remark in one line, such as the name of an outage; empty if there is nothing to remark."""
    missing: list[list[str]]
    """The gaps, each a pair of times, half-open."""
    provenance: Provenance
    """Where its candles came from."""
    file: str
    """The file that holds it, relative to the lake."""
    content_hash: str | None
    """Hash of its candles; null if the program that wrote the partition stored none."""
    rows: int
    """Number of candles."""
    bytes: int
    """Its share of the size of the file."""


class ShownDay(StoredDay):
    """A partition in the lake, with its candles."""

    candles: Candles
    """Its first and last candles."""


@_exact
class AbsentDay(TypedDict):
    """A partition that is not in the lake."""

    series: str
    """Name of the series."""
    day: str
    """Key of the partition."""
    stored: Literal[False]
    """It is not in the lake."""
    verdict: AbsentVerdict
    """Why it was refused the last time; ``missing`` if no run has refused it."""
    missing: str
    """The gaps, as text."""
    reason: str
    """The reason in one line."""


@_exact
class ChartSpan(TypedDict("_Times", {"from": str, "to": str})):  # `from` is a keyword
    """A span of a chart without candles, from ``from`` to before ``to``."""

    kind: Literal["outage", "suspended", "accepted", "refused", "missing", "untraded"]
    """Why it has none."""
    reason: str
    """The reason in one line."""


@_exact
class Plotted(TypedDict("_Times", {"from": str, "to": str})):  # `from` is a keyword
    """A chart that was written; it shows the candles from ``from`` to before ``to``."""

    path: str
    """The file."""
    series: str
    """Name of the series."""
    interval: str
    """The interval of the candles that it shows."""
    rows: int
    """Candles that were read."""
    candles: int
    """Candles that it shows."""
    spans: list[ChartSpan]
    """What is missing."""


@_exact
class Difference(TypedDict):
    """A partition that is not as it should be."""

    day: str
    """Its key."""
    difference: str
    """What differs, in one line."""


@_exact
class Verified(TypedDict):
    """What ``verify`` found in a series."""

    days_verified: int
    """Partitions that were validated."""
    differences: list[Difference]
    """What differs; empty if everything is as it should be."""


@_exact
class ExportedSeries(TypedDict):
    """What was exported of a series."""

    interval: str
    """The interval of the exported candles."""
    rows: int
    """Rows in the files."""
    first: str
    """Open time of the first candle."""
    last: str
    """Open time of the last candle."""
    files: list[str]
    """Its files, relative to the folder."""


@_exact
class Exported(TypedDict):
    """What an export wrote."""

    target: str
    """The tool, or the format."""
    folder: str
    """The folder of the files."""
    missing: Annotated[str, Field(pattern="^(keep|null|flat|raise)$")]
    """What was done about candles that the exchange lacks."""
    files: dict[str, int]
    """Size of each file in bytes, by its path relative to the folder."""
    series: dict[str, ExportedSeries]
    """What was exported, by the name of the series."""
    load: str
    """How the tool loads it."""


@_exact
class AutomationState(TypedDict):
    """A schedule or a sensor."""

    kind: Literal["schedule", "sensor"]
    """Which of the two."""
    on: bool
    """Whether it runs."""


@_exact
class FoundSymbol(TypedDict):
    """A symbol of a market; what is not known is null."""

    symbol: str
    """Its name."""
    state: Literal["listed", "delisted"]
    """Whether it trades."""
    status: str | None
    """Its status in exchangeInfo."""
    quote: str | None
    """Its quote asset."""
    contract: str | None
    """Its contract type on futures."""
    first: NotRequired[str | None]
    """Its first day; absent with ``--no-days``."""
    last: NotRequired[str | None]
    """Its last day, null while it trades; absent with ``--no-days``."""
    quote_volume: NotRequired[float]
    """Its quote volume of the last 24 hours; absent without ``--top``."""


@_exact
class FoundSymbols(TypedDict):
    """The symbols of a market."""

    market: str
    """Name of the market."""
    symbols: list[FoundSymbol]
    """The symbols."""


@_exact
class ResolvedRule(TypedDict):
    """A rule of the universe, and what it selects."""

    entry: int
    """Number of the entry in the universe, from 1."""
    market: str
    """Name of the market."""
    symbols: int
    """Number of symbols that it selects."""
    delisted: int
    """How many of them are delisted."""
    kept: list[str]
    """Symbols that the rule no longer selects and that stay tracked."""


@_exact
class SymbolChange(TypedDict):
    """A change of the lock file."""

    market: str
    """Name of the market."""
    symbol: str
    """Name of the symbol."""
    change: str
    """What changed, such as ``added`` or ``delisted``."""
    listed: bool
    """Whether it trades."""
    first: str | None
    """Its first day; null if it is not known."""
    last: str | None
    """Its last day; null while it trades."""


@_exact
class Refreshed(TypedDict):
    """What a refresh of the universe did."""

    lock: str
    """Path of the lock file."""
    written: bool
    """Whether it was written."""
    rules: list[ResolvedRule]
    """The rules."""
    changes: list[SymbolChange]
    """What changed."""


OUTPUTS: Final[dict[str, Any]] = {
    "download": dict[str, Outcome],
    "download --dry-run": dict[str, Plan],
    "series": dict[str, Held],
    "status": dict[str, Status],
    "show": ShownDay | AbsentDay,
    "plot": Plotted,
    "export": Exported,
    "verify": dict[str, Verified],
    "symbols": FoundSymbols,
    "universe refresh": Refreshed,
    "schedules": dict[str, AutomationState],
}
"""The type of what each command prints with ``--json``. The keys of an object are names of series, or of schedules."""
