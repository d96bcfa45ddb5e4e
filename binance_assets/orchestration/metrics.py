"""Metrics: what a run did for one series, in numbers.

Here belong the numbers of a finished step that the check's metadata and the command line show. What does not belong
here: progress during the step (``progress``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg


@dataclass(frozen=True, slots=True)
class RunMetrics:
    """What a run did for one series.

    Attributes:
        requests: Requests sent, retries included.
        weight: Request weight that they cost.
        workers: How many requests could be in flight at once.
        warmup: Pages fetched at once to measure the round trip.
        rtt_ms: Mean round trip of those pages, ms; None if none was fetched.
        rows: Accepted candles.
        seconds: Duration of the step, writing included.
        waited: How much of it was spent waiting while no request was in flight, seconds; see ``waiting``.
    """

    requests: int
    weight: int
    workers: int
    warmup: int
    rtt_ms: float | None
    rows: int
    seconds: float
    waited: float = 0.0

    @property
    def rows_per_second(self) -> int:
        """Accepted candles per second."""
        return round(self.rows / self.seconds) if self.seconds else 0

    def metadata(self) -> dict[str, dg.MetadataValue]:
        """Return the numbers as Dagster metadata."""
        values: dict[str, dg.MetadataValue] = {
            "requests": dg.MetadataValue.int(self.requests),
            "weight": dg.MetadataValue.int(self.weight),
            "workers": dg.MetadataValue.int(self.workers),
            "warmup_pages": dg.MetadataValue.int(self.warmup),
            "rows": dg.MetadataValue.int(self.rows),
            "seconds": dg.MetadataValue.float(round(self.seconds, 3)),
            "waited": dg.MetadataValue.float(round(self.waited, 3)),
            "rows_per_second": dg.MetadataValue.int(self.rows_per_second),
        }
        if self.rtt_ms is not None:
            values["rtt_ms"] = dg.MetadataValue.float(self.rtt_ms)
        return values

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> RunMetrics:
        """Return the numbers that :meth:`metadata` returned; 0 for those that an earlier version did not record."""
        values = {name: entry.value for name, entry in metadata.items()}
        return cls(
            requests=int(values.get("requests", 0)),
            weight=int(values.get("weight", 0)),
            workers=int(values.get("workers", 0)),
            warmup=int(values.get("warmup_pages", 0)),
            rtt_ms=float(values["rtt_ms"]) if "rtt_ms" in values else None,
            rows=int(values.get("rows", 0)),
            seconds=float(values.get("seconds", 0)),
            waited=float(values.get("waited", 0)),
        )
