"""The known outages of whole markets of Binance, from the table ``known_outages.csv`` beside this module.

The table only names outages that the control totals have proved; it never proves one. The times at which trading
stopped and resumed (UTC) were the same on eight spot symbols, in rows recorded from the API and in files of the
archive, 2017 to 2026. The minute of the stop may have a candle, cut short at ``last_candle``. Binance publishes no such
list.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import cache
from typing import Final

from binance_assets.completeness.tables import table_rows
from binance_assets.model.markets import Market
from binance_assets.model.timestamps import DAY, from_iso, to_text

_SHORT_MINUTE: Final = from_iso("2021-12-24T04:59Z")


@dataclass(frozen=True, slots=True)
class Outage:
    """An outage of a whole market.

    Attributes:
        market: Name of the market.
        stop: Trading stopped within the minute that begins here, ms UTC.
        resume: Trading resumed here, ms UTC.
    """

    market: str
    stop: int
    resume: int

    @property
    def name(self) -> str:
        """The name for messages: ``spot outage of 2023-03-24 12:39 to 2023-03-24 14:00``."""
        return f"{self.market} outage of {to_text(self.stop)} to {to_text(self.resume)}"


@cache
def known_outages() -> tuple[Outage, ...]:
    """Return the known outages of all markets, ascending."""
    rows = table_rows("known_outages.csv")
    return tuple(Outage(row["market"], from_iso(row["stop"]), from_iso(row["resume"])) for row in rows)


def explains_short_candle(market: Market, start: int, end: int) -> bool:
    """Return whether Binance is known to have cut short the candles of ``[start, end)`` (ms UTC) of a market.

    It does so when trading stops. On 2021-12-24 the minute of 04:59 closed at 04:59:54.362 for most spot symbols,
    although trading went on (recorded rows).
    """
    stops = any(
        outage.market == market.name and outage.stop <= end and start <= outage.resume for outage in known_outages()
    )
    return stops or (market.name == "spot" and start <= _SHORT_MINUTE < end)


def outages_within(market: Market, spans: Sequence[tuple[int, int]]) -> list[Outage]:
    """Return the known outages that overlap one of ``spans``.

    Args:
        market: The market.
        spans: Times without candles, half-open, ms UTC.
    """
    return [
        outage
        for outage in known_outages()
        if outage.market == market.name and any(start < outage.resume and outage.stop < end for start, end in spans)
    ]


def unnamed_spans(
    market: Market, spans: Sequence[tuple[int, int]], suspended: Set[int] = frozenset()
) -> list[tuple[int, int]]:
    """Return those of ``spans`` that no known outage and no suspension explains.

    Args:
        market: The market.
        spans: Times without candles, half-open, ms UTC.
        suspended: The days on which trading of the symbol was suspended, ms UTC.
    """
    return [
        (start, end)
        for start, end in spans
        if not outages_within(market, [(start, end)]) and not _is_suspended(start, end, suspended)
    ]


def _is_suspended(start: int, end: int, suspended: Set[int]) -> bool:
    """Return whether trading was suspended on some day in ``[start, end)``, ms UTC."""
    return bool(suspended) and not suspended.isdisjoint(range(start // DAY * DAY, end, DAY))
