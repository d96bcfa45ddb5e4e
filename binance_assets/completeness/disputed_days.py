"""The known days on which the exchange's own candles of a whole market disagree, from ``disputed_days.csv``.

On these days the intervals of USD-M, or its two sources, differ by 1e-7 to 110 % in trades and amounts, for many
symbols at once. The table only names days that witnesses have examined; it never proves one. Source: an audit of
recorded candles, 2026-11 (258,553 candles of ``4h`` against ``1d``, 568,700 of ``1h`` against ``4h``).
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from functools import cache

from binance_assets.completeness.tables import table_rows
from binance_assets.model.markets import MARKETS, Market
from binance_assets.model.partitions import Partition
from binance_assets.model.timestamps import to_ms


@dataclass(frozen=True, slots=True)
class DisputedDay:
    """A day on which the candles of a market disagree.

    Attributes:
        market: Name of the market.
        day: The day, UTC.
        what: What is known about it.
    """

    market: str
    day: dt.date
    what: str

    @property
    def name(self) -> str:
        """The name for messages: ``known day of USD-M futures 2023-08-16: 1d candles of most symbols are wrong``."""
        return f"known day of {MARKETS[self.market].title} {self.day}: {self.what}"


@cache
def disputed_days() -> tuple[DisputedDay, ...]:
    """Return the known days of all markets, ascending."""
    rows = table_rows("disputed_days.csv")
    return tuple(DisputedDay(row["market"], dt.date.fromisoformat(row["day"]), row["what"]) for row in rows)


def disputed_days_within(market: Market, partition: Partition) -> list[DisputedDay]:
    """Return the known days of ``market`` in ``partition``."""
    return [
        disputed
        for disputed in disputed_days()
        if disputed.market == market.name and partition.start <= to_ms(disputed.day) < partition.end
    ]
