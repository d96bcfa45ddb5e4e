"""The result of a partition: its verdict, the provenance of its candles, the missing spans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import polars as pl

from binance_assets.model.partitions import Partition
from binance_assets.model.timestamps import to_text
from binance_assets.model.wording import name_some

Verdict = Literal[
    "complete",
    "outage",
    "listing",
    "before_listing",
    "delisted",
    "suspended",
    "unbalanced",
    "unproved",
    "lost",
    "unfinished",
    "invalid",
    "unreachable",
]

ACCEPTED: Final[frozenset[Verdict]] = frozenset(
    {"complete", "outage", "listing", "before_listing", "delisted", "suspended", "unbalanced", "unproved"}
)
"""Verdicts with which a partition is written; every other verdict refuses it."""

UNNAMED_OUTAGE: Final = "no known outage explains"
"""Words in the reason of an ``outage`` that the table of known outages does not name; the coverage counts them."""

_NAMED_SPANS: Final = 5


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where the candles of a partition came from.

    Attributes:
        source: ``rest`` or ``archive``; both, joined by ``+`` in the order in which they were fetched, if each had
            candles that the other lacked; ``derived`` for a derived series.
        file: Name of the archive file; None without one.
        sha256: SHA-256 of that file, in hex; None without a file.
        modified: When the archive says that the file was last changed, ms UTC; None if it does not say.
        base_series: Name of the series that the candles were derived from; None for fetched candles.
    """

    source: str
    file: str | None = None
    sha256: str | None = None
    modified: int | None = None
    base_series: str | None = None

    @property
    def label(self) -> str:
        """The source for messages, with the file if there is one."""
        return f"{self.source} ({self.file})" if self.file else self.source


REST: Final = Provenance("rest")


@dataclass(frozen=True, slots=True)
class PartitionResult:
    """One partition with its verdict and its candles.

    Attributes:
        partition: The partition.
        verdict: The verdict.
        candles: Its candles, with the columns of :func:`binance_assets.candles.columns.columns`; without rows where
            there are no candles.
        missing: The spans in which candles are missing, half-open ``(start, end)`` in ms UTC, ascending.
        reason: Why it was refused, or what to know about an accepted one, in one line. An empty string, not None, if
            there is nothing to report: files and tables store this text unchanged.
        provenance: Where its candles came from.
        strict: Whether a partition whose control totals differ is refused.
        accepted_by: Who accepted a refused partition; None if nobody did.
        accepted_because: The reason they gave; None if nobody did.
        witnesses: Other candles of the exchange that confirm the partition although its ``1d`` candle does not agree or
            is missing, such as ``1h candles of rest``.
    """

    partition: Partition
    verdict: Verdict
    candles: pl.DataFrame
    missing: tuple[tuple[int, int], ...] = ()
    reason: str = ""
    provenance: Provenance = REST
    strict: bool = False
    accepted_by: str | None = None
    accepted_because: str | None = None
    witnesses: tuple[str, ...] = ()

    @property
    def is_accepted(self) -> bool:
        """Whether the partition may be written."""
        if self.can_override:
            return bool(self.accepted_by)
        return self.verdict in ACCEPTED

    @property
    def can_override(self) -> bool:
        """Whether a person may accept it though it is refused: its candles are valid, and no source has better ones."""
        return self.verdict == "lost" or (self.verdict == "unbalanced" and self.strict and not self.witnesses)

    @property
    def needs_second_source(self) -> bool:
        """Whether a second look or another source may show more.

        This includes an outage: its missing candles may be candles without trades.
        """
        return self.verdict in ("lost", "invalid", "unbalanced", "outage")

    @property
    def is_conclusive(self) -> bool:
        """Whether it is accepted and no other source can improve it."""
        return self.is_accepted and not self.needs_second_source


def format_spans(spans: Sequence[tuple[int, int]]) -> str:
    """Return half-open spans (ms UTC) for people, ``2023-03-24 12:40 to 14:00``: the first few, and how many more."""
    return name_some((_format_span(start, end) for start, end in spans), _NAMED_SPANS)


def _format_span(start: int, end: int) -> str:
    first, last = to_text(start), to_text(end)
    is_same_day = first.split(" ")[0] == last.split(" ")[0]
    return f"{first} to {last.split(' ')[1] if is_same_day else last}"
