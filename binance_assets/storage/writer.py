"""Writing partitions as they arrive: those of a span are collected, but never for long."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Final

from binance_assets.model.partitions import Partition
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import Series
from binance_assets.storage.lake import Lake, check_accepted
from binance_assets.storage.metadata import StoredPartition
from binance_assets.storage.spans import by_span, span_name

FLUSH_SECONDS: Final = 1.0
"""How long a partition may wait to be written: what a killed process loses."""

# Less than a month of 1m: with more, spans before the latest one are written, because little of them may follow.
_MOST_WITH_EARLIER_SPANS: Final = 40_000
# About three months of 1m: a bound for memory, and large enough that most files are written once.
_MAX_ROWS: Final = 150_000


class PartitionWriter:
    """Collects accepted partitions of a series and writes them, each file as rarely as the wait allows.

    It has no thread of its own: a caller that waits for results calls :meth:`flush_if_due` while nothing arrives.

    Args:
        lake: The lake, prepared.
        series: The series.
        clock: Seconds on a clock that never steps back.
    """

    def __init__(self, lake: Lake, series: Series, clock: Callable[[], float] = time.monotonic) -> None:
        self._lake = lake
        self._series = series
        self._clock = clock
        self._pending: dict[Partition, PartitionResult] = {}
        self._added_at: dict[Partition, float] = {}
        self._rows = 0  # of the pending results

    def add(self, result: PartitionResult) -> dict[Partition, StoredPartition]:
        """Collect an accepted partition; return what has been written, which is usually nothing.

        Raises:
            LakeError: A file cannot be written.
            ValueError: The partition is refused.
        """
        check_accepted(self._series, result)
        self._forget(result.partition)
        self._pending[result.partition] = result
        self._rows += result.candles.height
        self._added_at[result.partition] = self._clock()
        written = self.flush_if_due()
        if self._rows > _MOST_WITH_EARLIER_SPANS:
            written |= self._flush_other_spans(result.partition)
        return written

    def flush_if_due(self) -> dict[Partition, StoredPartition]:
        """Write everything if a partition has waited long enough; return what has been written.

        Raises:
            LakeError: A file cannot be written.
        """
        is_due = self._pending and self._clock() >= min(self._added_at.values()) + FLUSH_SECONDS
        return self.flush() if is_due else {}

    def flush(self) -> dict[Partition, StoredPartition]:
        """Write everything collected; return what has been written.

        Call it again if it was interrupted: everything stays collected until all of it is written.

        Raises:
            LakeError: A file cannot be written.
        """
        return self._write(list(self._pending))

    def _flush_other_spans(self, latest: Partition) -> dict[Partition, StoredPartition]:
        """Write all spans but that of the latest partition, of which more may follow; that one too if it is too large.

        So the first file is there before the second span is complete, and a killed process has written what it can.
        """
        spans = by_span(self._pending, self._series.interval)
        spans.pop(span_name(latest.key, self._series.interval))
        earlier = [partition for members in spans.values() for partition in members]
        written = self._write(earlier) if earlier else {}
        return written | (self.flush() if self._rows > _MAX_ROWS else {})

    def _write(self, partitions: Sequence[Partition]) -> dict[Partition, StoredPartition]:
        written = self._lake.write_all(self._series, [self._pending[partition] for partition in partitions])
        for partition in partitions:
            self._forget(partition)
        return written

    def _forget(self, partition: Partition) -> None:
        pending = self._pending.pop(partition, None)
        self._added_at.pop(partition, None)
        self._rows -= pending.candles.height if pending is not None else 0


def write_results(
    lake: Lake, series: Series, results: Iterator[PartitionResult | None]
) -> Generator[tuple[PartitionResult | None, dict[Partition, StoredPartition]]]:
    """Write the accepted results; yield each result, and the partitions that were written since the last one.

    A result is written a moment later, together with others of its file. What has arrived is written whatever ends the
    iteration. Close the generator in any case.

    Args:
        lake: The lake, prepared.
        series: The series.
        results: The results; None while waiting for one, so that what was collected is written in time.

    Raises:
        LakeError: A file cannot be written.
        BaseException: What ``results`` raised, after the partitions that were written then.
    """
    writer = PartitionWriter(lake, series)
    try:
        for result in results:
            if result is not None and result.is_accepted:
                yield result, writer.add(result)
            else:
                yield result, writer.flush_if_due()
    except GeneratorExit:
        writer.flush()
        raise
    except BaseException:
        yield None, writer.flush()
        raise
    yield None, writer.flush()
