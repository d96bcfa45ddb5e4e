"""Progress: how another part of the same process follows a run, and how it ends one.

Here belong the protocols that the command line implements. What does not belong here: the implementation
(``cli.progress``) and the numbers of a finished step (``metrics``).
"""

from __future__ import annotations

from typing import Protocol

from binance_assets.exchange.session import Exchange
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import Series
from binance_assets.orchestration.metrics import RunMetrics


class ProgressListener(Protocol):
    """Receives the progress of a run in the same process, such as the command line's progress bar."""

    def started(self, series: Series, exchange: Exchange) -> None:
        """Receive the start of a series; closing the exchange ends the run."""

    def partition_done(self, series: Series, result: PartitionResult) -> None:
        """Receive a partition that was refused, or accepted and is written now or a moment later."""

    def partition_declined(self, series: Series, result: PartitionResult) -> None:
        """Receive a partition, done before, that was not written because the stored one is better."""

    def finished(self, series: Series, metrics: RunMetrics) -> None:
        """Receive the end of a series."""


class Follower(ProgressListener, Protocol):
    """A listener that follows runs in other processes: it receives from time to time what they have recorded."""

    def advance(self, count: int) -> None:
        """Receive how many more partitions are done."""

    def note(self, text: str) -> None:
        """Receive a line for the user."""


class RunController(ProgressListener, Protocol):
    """A listener that can end the run."""

    def stop(self) -> None:
        """End the run under way."""
