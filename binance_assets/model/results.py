"""What became of a partition: its verdict, where its candles came from, what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import polars as pl

from binance_assets.model.partitions import Partition
from binance_assets.model.timestamps import to_text

Verdict = Literal[
    "complete",
    "outage",
    "listing",
    "before_listing",
    "delisted",
    "unbalanced",
    "unproved",
    "lost",
    "unfinished",
    "invalid",
    "unreachable",
]


ACCEPTED: Final[frozenset[Verdict]] = frozenset(
    {"complete", "outage", "listing", "before_listing", "delisted", "unbalanced", "unproved"}
)


"""Verdicts with which a period is written; all others refuse it."""


NAMED_FAILURES: Final = 5


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a period's candles came from.

    Attributes:
        source: ``rest`` or ``archive``, ``rest+archive`` where each had what the other lacked, or ``derived``.
        file: Name of the archive's file; empty for REST.
        sha256: Its SHA-256, in hex.
        modified: When it was last changed, as the archive says, ms UTC; None where it does not.
        base_series: The series that it was derived from; empty for what was fetched.
    """

    source: str
    file: str = ""
    sha256: str = ""
    modified: int | None = None
    base_series: str = ""

    @property
    def label(self) -> str:
        """Its name for people."""
        return f"{self.source} ({self.file})" if self.file else self.source


REST: Final = Provenance("rest")


@dataclass(frozen=True, slots=True)
class PartitionResult:
    """One period and what became of it.

    Attributes:
        partition: The period.
        verdict: One of the words above.
        candles: Its table; empty where there is none.
        missing: The spans without candles that should have some, ``(start, end)`` in ms UTC, half-open.
        reason: Why it was refused, or what is to be known of it all the same, in one line; empty where nothing is.
        provenance: Where its candles came from.
        strict: Whether a period whose sums differ is refused.
        accepted_by: Who took a ``lost`` period as it is; empty where nobody did.
        accepted_because: The reason they gave.
    """

    partition: Partition
    verdict: Verdict
    candles: pl.DataFrame
    missing: tuple[tuple[int, int], ...] = ()
    reason: str = ""
    provenance: Provenance = REST
    strict: bool = False
    accepted_by: str = ""
    accepted_because: str = ""

    @property
    def is_accepted(self) -> bool:
        """Whether the period may be written."""
        if self.can_override:
            return bool(self.accepted_by)
        return self.verdict in ACCEPTED

    @property
    def can_override(self) -> bool:
        """Whether it is refused, but for a person to accept: nothing better can be had, and what is there is sane."""
        return self.verdict == "lost" or (self.verdict == "unbalanced" and self.strict)

    @property
    def needs_second_source(self) -> bool:
        """Whether another look or source may show more; of an outage too, whose candles may just be without trades."""
        return self.verdict in ("lost", "invalid", "unbalanced", "outage")


def format_spans(spans: Sequence[tuple[int, int]]) -> str:
    """The spans as people read them, ``2023-03-24 12:40 to 14:00``; the first few of many."""
    message = []
    for start, end in spans[:NAMED_FAILURES]:
        first, last = to_text(start), to_text(end)
        message.append(f"{first} to {last.split(' ')[1] if first.split(' ')[0] == last.split(' ')[0] else last}")
    more = len(spans) - NAMED_FAILURES
    return ", ".join(message) + (f" and {more} more" if more > 0 else "")
