"""Writing partitions as they arrive: those of a span are collected, but never for long."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from binance_assets.model.partitions import Partition
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import Series
from binance_assets.storage.lake import Lake, StoredPartition

FLUSH_SECONDS: Final = 2.0
"""How long a partition may wait to be written: what a killed process loses."""

# About three months of 1m: a bound for memory, and large enough that most files are written once.
_MAX_ROWS: Final = 150_000


class PartitionWriter:
    """Collects accepted partitions of a series and writes them, each file as rarely as the wait allows.

    It holds no thread: whoever waits for results calls :meth:`flush_if_due` while nothing arrives.

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
        self._rows = 0
        self._due = 0.0

    def add(self, result: PartitionResult) -> dict[Partition, StoredPartition]:
        """Collect an accepted partition; return what has been written, which is usually nothing.

        Raises:
            LakeError: A file cannot be written.
            ValueError: The partition is refused.
        """
        if not result.is_accepted:
            raise ValueError(f"{self._series} {result.partition} is refused ({result.verdict}) and must not be written")
        if not self._pending:
            self._due = self._clock() + FLUSH_SECONDS
        self._pending[result.partition] = result
        self._rows += result.candles.height
        return self.flush() if self._rows > _MAX_ROWS else self.flush_if_due()

    def flush_if_due(self) -> dict[Partition, StoredPartition]:
        """Write what has waited long enough; return what has been written.

        Raises:
            LakeError: A file cannot be written.
        """
        return self.flush() if self._pending and self._clock() >= self._due else {}

    def flush(self) -> dict[Partition, StoredPartition]:
        """Write everything collected; return what has been written.

        Call it again if it was interrupted: everything stays collected until all of it is written.

        Raises:
            LakeError: A file cannot be written.
        """
        written = self._lake.write_all(self._series, self._pending.values())
        self._pending, self._rows = {}, 0
        return written
