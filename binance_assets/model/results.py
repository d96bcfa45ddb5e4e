"""The result of a partition: its verdict, the provenance of its candles, the missing spans."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
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

IN_DOUBT: Final[frozenset[Verdict]] = frozenset({"unproved", "unbalanced"})
"""Verdicts of accepted partitions that fresh evidence may change while the candles stay the same."""

VERDICT_ORDER: Final[tuple[Verdict, ...]] = (
    "complete",
    "listing",
    "delisted",
    "before_listing",
    "outage",
    "unproved",
    "suspended",
    "unbalanced",
    "lost",
    "invalid",
)
"""The verdicts from best to worst. All others come after them.

First come those that the exchange's own totals prove: without gaps, then with gaps. Then one that nothing proves, and
a suspension, which any candles replace. Then those that the totals contradict: without gaps, then with gaps. A
partition that breaks a rule is the last.
"""

Quality = tuple[int, int, bool]
"""How good a partition is, lower is better; see :func:`quality`."""

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
        has_no_file: Whether it was not fetched because the archive has no such file, which is not a defect.
        witnesses: Other candles of the exchange that confirm the partition although its ``1d`` candle does not agree or
            is missing, such as ``1h candles of rest``.
    """

    partition: Partition
    verdict: Verdict
    candles: pl.DataFrame
    missing: tuple[tuple[int, int], ...] = ()
    reason: str = ""
    provenance: Provenance = REST
    strict: bool = True
    accepted_by: str | None = None
    accepted_because: str | None = None
    has_no_file: bool = False
    witnesses: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        """Compare all fields, the candles by their values: ``==`` of two frames is a frame, which is neither."""
        if not isinstance(other, PartitionResult):
            return NotImplemented
        others = (field.name for field in fields(self) if field.name != "candles")
        return all(getattr(self, name) == getattr(other, name) for name in others) and self.candles.equals(
            other.candles
        )

    @property
    def is_accepted(self) -> bool:
        """Whether the partition may be written: by its verdict, or because a person accepted it."""
        return self.accepted_by is not None or (self.verdict in ACCEPTED and not self.can_override)

    @property
    def can_override(self) -> bool:
        """Whether a person may accept it though it is refused: no source has better candles.

        This includes candles that break a rule as the exchange has them, and an ``unfinished`` partition that is over,
        where nothing shows that trading went on, as at the end of a dead symbol.
        """
        if self.verdict == "unbalanced":
            return self.strict and not self.witnesses
        has_candles = not self.candles.is_empty()
        is_end = self.verdict == "unfinished" and bool(self.missing)
        return self.verdict == "lost" or is_end or (self.verdict == "invalid" and has_candles)

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


def quality(verdict: Verdict, missing: Iterable[tuple[int, int]], is_empty: bool) -> Quality:
    """Return how good a partition is, lower is better.

    This is the only rule by which two results of a partition are compared, in a download and with what is stored.

    Args:
        verdict: Its verdict, which counts first, in the order of :data:`VERDICT_ORDER`.
        missing: The spans in which candles are missing, half-open, ms; their total length counts next.
        is_empty: Whether it has no candles at all: a ``delisted`` partition may have some, or none.
    """
    rank = VERDICT_ORDER.index(verdict) if verdict in VERDICT_ORDER else len(VERDICT_ORDER)
    return rank, sum(end - start for start, end in missing), is_empty


def quality_rank(result: PartitionResult) -> Quality:
    """Return how good a result is, lower is better."""
    return quality(result.verdict, result.missing, result.candles.is_empty())


def other_verdicts(verdicts: Mapping[str, int]) -> dict[str, int]:
    """Return the counts of the verdicts other than ``complete``, by name."""
    return {verdict: count for verdict, count in sorted(verdicts.items()) if verdict != "complete" and count}


def format_verdicts(verdicts: Mapping[str, int]) -> str:
    """Return the counts of the verdicts other than ``complete`` for people; an empty string if there are none."""
    return ", ".join(f"{count:,} {verdict}" for verdict, count in other_verdicts(verdicts).items())


def group_by_reason(results: Iterable[PartitionResult]) -> list[list[PartitionResult]]:
    """Return ``results`` in groups of the same verdict and reason, in the order of their first members."""
    groups: dict[tuple[str, str], list[PartitionResult]] = {}
    for result in results:
        reason = result.reason or format_spans(result.missing)
        groups.setdefault((result.verdict, reason), []).append(result)
    return list(groups.values())


def name_partitions(group: Sequence[PartitionResult]) -> str:
    """Return the partitions of a group for a message: ``2024-01-01``, or ``2024-01-01 and 30 more``."""
    return name_some((result.partition.key for result in group), 1)


def format_spans(spans: Sequence[tuple[int, int]]) -> str:
    """Return half-open spans (ms UTC) for people, ``2023-03-24 12:40 to 14:00``: the first few, and how many more."""
    return name_some((_format_span(start, end) for start, end in spans), _NAMED_SPANS)


def _format_span(start: int, end: int) -> str:
    first, last = to_text(start), to_text(end)
    is_same_day = first.split(" ")[0] == last.split(" ")[0]
    return f"{first} to {last.split(' ')[1] if is_same_day else last}"
