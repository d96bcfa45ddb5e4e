"""What a run uses in one market: requests, request weight, round trips."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from binance_assets.model.intervals import DAILY
from binance_assets.model.series import Series

Owner = tuple[str, str] | None
"""Symbol and interval (as the API names it) that a request was for; None for a request that belongs to no series."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """What a run has used in one market so far.

    Attributes:
        requests: Requests sent to the API and the archive, retries included.
        weight: Request weight that they cost according to the table of markets; the archive costs none.
        workers: Requests that may be in flight at once.
        warmup: Pages that were fetched at once to measure the round trip.
        rtt_ms: Mean round trip during the warm-up, ms; None before the first response.
    """

    requests: int
    weight: int
    workers: int
    warmup: int
    rtt_ms: float | None


@dataclass(frozen=True, slots=True)
class Usage:
    """Requests, and the weight that they cost."""

    requests: int = 0
    weight: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.requests + other.requests, self.weight + other.weight)


def series_owner(series: Series) -> Owner:
    """Return the owner of the requests for candles of ``series``."""
    return (series.symbol, series.interval.api_name)


class UsageRecorder:
    """Counts requests by the series they were for, and measures round trips; safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._undrained: dict[Owner, Usage] = {}
        self._drained = Usage()
        self._warmup_pages = 0
        self._round_trip_seconds = 0.0

    def record_request(self, owner: Owner, weight: int) -> None:
        """Count one request.

        Args:
            owner: What it was for.
            weight: The request weight it cost.
        """
        with self._lock:
            self._undrained[owner] = self._undrained.get(owner, Usage()) + Usage(1, weight)

    def record_round_trip(self, seconds: float) -> None:
        """Count one page of the warm-up, which took ``seconds`` from the request to the response."""
        with self._lock:
            self._warmup_pages += 1
            self._round_trip_seconds += seconds

    @property
    def mean_round_trip(self) -> float | None:
        """Mean round trip of the warm-up, seconds; None before the first response."""
        with self._lock:
            return self._round_trip_seconds / self._warmup_pages if self._warmup_pages else None

    def drain(self, series: Series) -> Usage:
        """Return and reset what was used for ``series``, its 1d candles, and for no series, such as the time.

        Several series may be fetched at the same time. Each request is returned once, so the usages of all series of
        a run add up to what the run used.
        """
        owners = (series_owner(series), (series.symbol, DAILY.api_name), None)
        with self._lock:
            usage = sum((self._undrained.pop(owner, Usage()) for owner in owners), Usage())
            self._drained += usage
            return usage

    def metrics(self, workers: int) -> Metrics:
        """Return what was used so far, drained or not.

        Args:
            workers: Requests that may be in flight at once.
        """
        mean = self.mean_round_trip
        with self._lock:
            total = sum(self._undrained.values(), self._drained)
            rtt_ms = None if mean is None else round(mean * 1_000, 2)
            return Metrics(total.requests, total.weight, workers, self._warmup_pages, rtt_ms)
