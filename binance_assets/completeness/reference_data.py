"""The reference data that a partition is validated against, besides its own candles."""

from __future__ import annotations

from dataclasses import dataclass

from binance_assets.completeness.control_totals import ControlTotals


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
    """

    now: int
    control_totals: ControlTotals
    trading_span: TradingSpan = TradingSpan()
    strict: bool = True
    control_totals_error: str | None = None
