"""What a partition is validated against, beside itself."""

from __future__ import annotations

from dataclasses import dataclass

from binance_assets.completeness.control_totals import Books


@dataclass(frozen=True, slots=True)
class Life:
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
class Evidence:
    """What a period is held against, beside itself.

    Attributes:
        now: The server's time, ms UTC, at which candles count as finished.
        books: The exchange's ``1d`` candles.
        life: When the series begins and ends.
        strict: Whether periods whose sums differ are refused.
        no_books: Why the exchange's sums could not be had; empty where they could.
    """

    now: int
    books: Books
    life: Life = Life()
    strict: bool = False
    no_books: str = ""
