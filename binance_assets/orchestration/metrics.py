"""What a run did for one series, in numbers; and who in the same process may watch it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import dagster as dg

from binance_assets.exchange.session import Exchange
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import Series


@dataclass(frozen=True, slots=True)
class RunMetrics:
    """What a run did for one series.

    Attributes:
        requests: Requests sent, retries included.
        weight: Request weight they cost.
        workers: Requests that could be in flight at once.
        warmup: Pages fetched one after another to measure the network.
        rtt_ms: Mean round trip of those pages, ms; None where none was fetched.
        rows: Candles accepted.
        seconds: From the first request to the last verdict.
    """

    requests: int
    weight: int
    workers: int
    warmup: int
    rtt_ms: float | None
    rows: int
    seconds: float

    @property
    def rows_per_second(self) -> int:
        """Candles accepted per second."""
        return round(self.rows / self.seconds) if self.seconds else 0

    def metadata(self) -> dict[str, dg.MetadataValue]:
        """The figures as Dagster metadata."""
        values: dict[str, dg.MetadataValue] = {
            "requests": dg.MetadataValue.int(self.requests),
            "weight": dg.MetadataValue.int(self.weight),
            "workers": dg.MetadataValue.int(self.workers),
            "warmup_pages": dg.MetadataValue.int(self.warmup),
            "rows": dg.MetadataValue.int(self.rows),
            "seconds": dg.MetadataValue.float(round(self.seconds, 3)),
            "rows_per_second": dg.MetadataValue.int(self.rows_per_second),
        }
        if self.rtt_ms is not None:
            values["rtt_ms"] = dg.MetadataValue.float(self.rtt_ms)
        return values


class ProgressListener(Protocol):
    """Somebody in the same process who wants to see a run's progress, such as the command line."""

    def started(self, series: Series, exchange: Exchange) -> None:
        """A series begins; closing the exchange ends the run."""

    def partition_done(self, series: Series, result: PartitionResult) -> None:
        """A period was written or refused."""

    def finished(self, series: Series, metrics: RunMetrics) -> None:
        """A series is through."""
