"""What a partition is validated against, beside itself."""

from __future__ import annotations

from dataclasses import dataclass

from binance_assets.completeness.control_totals import ControlTotals


@dataclass(frozen=True, slots=True)
class TradingSpan:
    """From when to when a series has candles, as far as it matters.

    Attributes:
        first: Open time of its first candle, ms UTC; None where it is known to be earlier than what is judged.
        end: When its last candle closed for good, ms UTC; None while it goes on.
        unknown: Why the first candle could not be asked for although it matters; empty where it is known.
    """

    first: int | None = None
    end: int | None = None
    unknown: str = ""


@dataclass(frozen=True, slots=True)
class ReferenceData:
    """What a period is held against, beside itself.

    Attributes:
        now: The server's time, ms UTC, at which candles count as finished.
        control_totals: The exchange's ``1d`` candles.
        trading_span: When the series begins and ends.
        strict: Whether periods whose sums differ are refused.
        control_totals_error: Why the exchange's sums could not be had; empty where they could.
    """

    now: int
    control_totals: ControlTotals
    trading_span: TradingSpan = TradingSpan()
    strict: bool = False
    control_totals_error: str = ""
