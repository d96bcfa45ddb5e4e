"""The reference data that a partition is validated against, besides its own candles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from binance_assets.completeness.control_totals import ControlTotals
from binance_assets.model.partitions import Partition
from binance_assets.model.timestamps import DAY

EvidenceSource = Literal["rest", "archive"]
"""The source of a ``1d`` candle, or of the candles of a witness."""


@dataclass(frozen=True, slots=True)
class TradingSpan:
    """The time in which a series has candles, as far as it affects the validated partitions.

    Attributes:
        first: Open time of the first candle, ms UTC; None if it is known to be before the validated partitions, or
            unknown.
        end: When the last candle closed and trading ended, ms UTC; None while the symbol is traded, or if the end is
            unknown or not needed.
        first_unknown_because: Why the first candle is unknown although it matters; None otherwise.
    """

    first: int | None = None
    end: int | None = None
    first_unknown_because: str | None = None


@dataclass(frozen=True, slots=True)
class ReferenceData:
    """What a partition is validated against, besides its own candles.

    Attributes:
        now: The server time by which a candle must have closed to count as finished, ms UTC.
        control_totals: The exchange's ``1d`` candles.
        trading_span: When the series begins and ends.
        strict: Whether partitions whose totals differ from the control totals are refused.
        control_totals_error: Why the control totals are not available; None if they are.
        daily_errors: Why the ``1d`` candle of a single day is not known, by the day, ms UTC.
        archived_days: The days whose ``1d`` candle comes from the archive rather than from the API, ms UTC.
        rest_error: Why the API does not serve this series at all, although it can be reached; None if it does.
    """

    now: int
    control_totals: ControlTotals
    trading_span: TradingSpan = TradingSpan()
    strict: bool = True
    control_totals_error: str | None = None
    daily_errors: Mapping[int, str] = field(default_factory=dict, kw_only=True)
    archived_days: frozenset[int] = field(default=frozenset(), kw_only=True)
    rest_error: str | None = field(default=None, kw_only=True)

    def error_for(self, start: int, end: int) -> str | None:
        """Return why a ``1d`` candle of the days in ``[start, end)`` (ms UTC) is not known; None without an error."""
        errors = (self.daily_errors.get(day) for day in range(start // DAY * DAY, end, DAY))
        return self.control_totals_error or next((error for error in errors if error is not None), None)

    def is_suspended(self, partition: Partition) -> bool:
        """Return whether trading was suspended throughout ``partition``."""
        suspended = self.control_totals.suspended
        return bool(suspended) and suspended.issuperset(range(partition.start, partition.end, DAY))

    def sources(self, partition: Partition) -> set[EvidenceSource]:
        """Return the sources of the ``1d`` candles of ``partition``."""
        days = range(partition.start, partition.end, DAY)
        return {"archive" if day in self.archived_days else "rest" for day in days if self.control_totals.has_day(day)}
