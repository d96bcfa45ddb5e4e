"""What a run used of one market: requests, weight, round trips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Metrics:
    """What a run asked of one market.

    Attributes:
        requests: Requests sent, to the API and the archive, retries included.
        weight: Request weight they cost by the table of markets; the archive costs none.
        workers: Requests that may be in flight at once.
        warmup: Pages that were fetched one after another to measure the network.
        rtt_ms: Mean round trip during the warm-up, ms; None before the first answer.
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


Owner = tuple[str, str] | None


"""Symbol and interval that a request was for; None where it was for neither."""


SETTLED: Final = ("", "")
