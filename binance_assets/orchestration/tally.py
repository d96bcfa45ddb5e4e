"""The tally of a step: what it wrote, by verdict, and what it did not write.

Here belongs the counting that fetched and derived assets have in common. What does not belong here: the events of
partitions (``events``) and the result of the check (``checks``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

from binance_assets.candles.columns import empty_candles
from binance_assets.model.partitions import Partition
from binance_assets.model.results import PartitionResult, format_verdicts
from binance_assets.model.series import Series
from binance_assets.model.timestamps import from_iso
from binance_assets.storage.lake import Lake, StoredPartition


class Tally:
    """What a step has done so far.

    Attributes:
        refused: The partitions that were not written: refused ones, and those that are worse than what is stored. The
            reason names the stored partition that is kept.
        verdicts: Number of written partitions by verdict.
        rows: Number of written candles.

    Args:
        lake: The lake that the step writes to.
        series: The series.
    """

    def __init__(self, lake: Lake, series: Series) -> None:
        self.refused: list[PartitionResult] = []
        self.verdicts: Counter[str] = Counter()
        self.rows = 0
        self._lake = lake
        self._series = series
        self._stored: dict[Partition, StoredPartition] | None = None

    @property
    def accepted(self) -> int:
        """Number of written partitions."""
        return self.verdicts.total()

    @property
    def message(self) -> str:
        """How many partitions were written, and how many of them with a verdict other than ``complete``."""
        others = format_verdicts(self.verdicts)
        return f"{self.accepted} written" + (f" ({others})" if others else "")

    def count_written(
        self, written: Mapping[Partition, StoredPartition]
    ) -> tuple[dict[Partition, StoredPartition], list[PartitionResult]]:
        """Count what a write returned; return the partitions that it wrote, and the results that it declined."""
        stored = {partition: entry for partition, entry in written.items() if entry.declined is None}
        self.verdicts.update(entry.verdict for entry in stored.values())
        self.rows += sum(entry.rows for entry in stored.values())
        declined = [result for item in written.items() for result in self._declined(*item)]
        self.refused += declined
        return stored, declined

    def count_refused(self, result: PartitionResult) -> PartitionResult:
        """Count a refused result; return it with a reason that names the stored partition, if there is one."""
        stored = self._stored_before().get(result.partition)
        if stored is not None:
            result = replace(result, reason=f"{result.reason}; the stored partition is kept, it is {stored.verdict}")
        self.refused.append(result)
        return result

    def _declined(self, partition: Partition, stored: StoredPartition) -> Iterator[PartitionResult]:
        entry = stored.declined
        if entry is None:
            return
        missing = tuple((from_iso(start), from_iso(end)) for start, end in entry.missing)
        reason = f"the stored partition is better and is kept, it is {stored.verdict}"
        reason += f"; of the new one: {entry.note}" if entry.note else ""
        yield PartitionResult(partition, entry.verdict, empty_candles(self._series.market), missing, reason)

    def _stored_before(self) -> Mapping[Partition, StoredPartition]:
        """Return what is stored of the series; it is read once, because a run may refuse thousands of partitions."""
        if self._stored is None:
            self._stored = self._lake.stored_partitions(self._series)
        return self._stored
