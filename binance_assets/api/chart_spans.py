"""The spans of a chart that have no candles, and why: from the metadata of the lake, and from what it does not hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from binance_assets.api.gaps import gaps_of
from binance_assets.charts.content import LOOKS, ChartSpan, Kind, clipped_to, duration_text, joined
from binance_assets.completeness.outages import outages_within
from binance_assets.model.outside import MESSAGE, printable
from binance_assets.model.partitions import Partition
from binance_assets.model.series import Series
from binance_assets.storage.metadata import StoredPartition


@dataclass(frozen=True, slots=True)
class Absence:
    """Why a partition is not in the lake.

    Attributes:
        verdict: The verdict with which it was refused; empty if no run came to one.
        reason: The reason in one line.
    """

    verdict: str
    reason: str


def spans_of(
    series: Series,
    partitions: Iterable[Partition],
    stored: Mapping[Partition, StoredPartition],
    absences: Mapping[str, Absence],
    start: int,
    end: int,
) -> list[ChartSpan]:
    """Return the spans without candles in ``[start, end)``, ascending.

    Args:
        series: The series.
        partitions: The partitions of the range, ascending.
        stored: Those of them that the lake holds.
        absences: What is known about the others, by key.
        start: Where the range begins, ms UTC.
        end: Where it ends, excluded, ms UTC.
    """
    found: list[ChartSpan] = []
    for partition in partitions:
        entry = stored.get(partition)
        if entry is None:
            found.append(_absent(partition, absences.get(partition.key)))
        else:
            found += sorted((*_untraded(series, partition, entry), *_gaps(series, partition, entry)), key=_begin)
    return joined(clipped_to(found, start, end))


def _begin(span: ChartSpan) -> int:
    return span.start


def _absent(partition: Partition, absence: Absence | None) -> ChartSpan:
    if absence is None:
        return ChartSpan("missing", partition.start, partition.end, "the lake does not hold it")
    reason = printable(absence.reason, MESSAGE)
    if not absence.verdict:
        return ChartSpan("missing", partition.start, partition.end, reason)
    return ChartSpan("refused", partition.start, partition.end, f"{printable(absence.verdict)}: {reason}")


def _gaps(series: Series, partition: Partition, entry: StoredPartition) -> Iterator[ChartSpan]:
    """Yield the gaps of a stored partition."""
    kind = _kind_of(entry)
    for start, end in gaps_of({partition: entry}):
        yield ChartSpan(kind, start, end, _reason(series, entry, start, end))


def _kind_of(entry: StoredPartition) -> Kind:
    if entry.accepted_by is not None:
        return "accepted"
    return "suspended" if entry.verdict == "suspended" else "outage"


def _reason(series: Series, entry: StoredPartition, start: int, end: int) -> str:
    if entry.accepted_by is not None:
        by = f"{entry.verdict}, accepted by {printable(entry.accepted_by)}"
        return f"{by}: {printable(entry.accepted_because or entry.note or '', MESSAGE)}"
    names = ", ".join(outage.name for outage in outages_within(series.market, [(start, end)]))
    return names or printable(entry.note or "", MESSAGE)


def _untraded(series: Series, partition: Partition, entry: StoredPartition) -> Iterator[ChartSpan]:
    """Yield the time of a stored partition before the first candle of the symbol, or after its last one."""
    if entry.verdict in ("before_listing", "listing"):
        end = partition.end if entry.first is None else entry.first
        yield ChartSpan("untraded", partition.start, end, "before the first candle")
    if entry.verdict == "delisted":
        start = partition.start if entry.last is None else series.interval.close(entry.last)
        yield ChartSpan("untraded", start, partition.end, "after the last candle")


def summary_of(spans: Iterable[ChartSpan]) -> str:
    """Return how long the spans of each kind are together, for people; an empty string without spans."""
    lengths: dict[Kind, int] = {}
    for span in spans:
        lengths[span.kind] = lengths.get(span.kind, 0) + span.end - span.start
    return ", ".join(f"{look.label} {duration_text(lengths[kind])}" for kind, look in LOOKS.items() if kind in lengths)
