"""What a chart of a range shows, as plain values: candles, units, and the spans without candles, with reasons."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import polars as pl

from binance_assets.model.timestamps import DAY, HOUR, MINUTE, SECOND

UP: Final = "#5aa9e6"
"""The color of a candle that closes where it opened, or higher."""

DOWN: Final = "#1d3557"
"""The color of a candle that closes lower. It differs from :data:`UP` in lightness, whatever colors a reader sees."""

Kind = Literal["outage", "suspended", "accepted", "refused", "missing", "untraded"]
"""Why a span has no candles."""


@dataclass(frozen=True, slots=True)
class Look:
    """How spans of a kind are drawn: candles are blue, so that what is missing stands out.

    Attributes:
        label: What the legend calls them.
        color: Their color.
        is_hatched: Whether they are hatched, which also tells two kinds apart without colors.
    """

    label: str
    color: str
    is_hatched: bool = False


LOOKS: Final[dict[Kind, Look]] = {
    "outage": Look("outage of the exchange", "#e69f00"),
    "suspended": Look("trading suspended", "#8d99ae"),
    "accepted": Look("gap that a person accepted", "#9b5de5", is_hatched=True),
    "refused": Look("refused", "#d00000"),
    "missing": Look("not in the lake", "#d00000", is_hatched=True),
    "untraded": Look("before the first or after the last candle", "#ced4da", is_hatched=True),
}
"""How each kind is drawn, in the order of the legend."""


@dataclass(frozen=True, slots=True)
class ChartSpan:
    """A span without candles.

    Attributes:
        kind: Why there are none.
        start: Where it begins, ms UTC.
        end: Where it ends, excluded, ms UTC.
        reason: The reason in one line; it may hold text from outside.
    """

    kind: Kind
    start: int
    end: int
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class ChartContent:
    """What a chart shows.

    Attributes:
        title: What the candles are.
        notes: What to know about them, in lines.
        hint: What to know about zooming in; empty if there is nothing to know.
        price_unit: The unit of the prices.
        volume_unit: The unit of the volume.
        start: Where the chart begins, ms UTC.
        end: Where it ends, excluded, ms UTC.
        candles: At least one candle, sorted; columns ``open_time`` and ``end`` (Datetime, UTC; when the candle opens,
            and when the next one would), ``open``, ``high``, ``low``, ``close``, ``volume``, ``trades``.
        spans: The spans without candles, ascending.
    """

    title: str
    notes: Sequence[str]
    hint: str
    price_unit: str
    volume_unit: str
    start: int
    end: int
    candles: pl.DataFrame
    spans: Sequence[ChartSpan]

    @property
    def kinds(self) -> list[Kind]:
        """The kinds of the spans, in the order of the legend."""
        return [kind for kind in LOOKS if any(span.kind == kind for span in self.spans)]


def joined(spans: Iterable[ChartSpan]) -> list[ChartSpan]:
    """Return spans (ascending) in which those that touch each other and have the same kind and reason are one."""
    merged: list[ChartSpan] = []
    for span in spans:
        last = merged[-1] if merged else None
        if last and (last.kind, last.reason, last.end) == (span.kind, span.reason, span.start):
            merged[-1] = replace(last, end=span.end)
        else:
            merged.append(span)
    return merged


def clipped_to(spans: Iterable[ChartSpan], start: int, end: int) -> Iterator[ChartSpan]:
    """Yield the parts of spans in ``[start, end)``, ms UTC."""
    for span in spans:
        part = replace(span, start=max(start, span.start), end=min(end, span.end))
        if part.start < part.end:
            yield part


_UNITS: Final = (("d", DAY), ("h", HOUR), ("min", MINUTE), ("s", SECOND))


def duration_text(length: int) -> str:
    """Return a length of time (ms) for people, in its two largest units: ``1 h 20 min``."""
    parts: list[str] = []
    for unit, size in _UNITS:
        count, length = divmod(length, size)
        if count or parts:
            parts.append(f"{count:,} {unit}" if count else "")
    return " ".join(part for part in parts[:2] if part) or "0 s"


def decimals(candles: pl.DataFrame, column: str) -> int:
    """Return how many decimals the numbers of a column have, at most 8."""
    numbers = candles[column]
    return next((count for count in range(8) if (numbers.round(count) - numbers).abs().max() == 0), 8)
