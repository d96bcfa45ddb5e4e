"""The known moments in which a whole market of Binance stood still, from the table ``known_outages.csv`` beside this.

The table names outages that the books have proved; it never proves one. Its stops and resumes (UTC; the stop minute
may have a candle of its own, cut short at ``last_candle``) were seen alike on eight spot symbols, in rows recorded from
the API and in files of the archive, 2017 to 2026. Binance publishes no such list.
"""

from __future__ import annotations

import csv
import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from binance_assets.model.markets import Market
from binance_assets.model.timestamps import SECOND, to_text


@dataclass(frozen=True, slots=True)
class Outage:
    """One outage of a market.

    Attributes:
        market: Name of the market.
        stop: Trading stopped within the minute that begins here, ms UTC.
        resume: Trading went on from here, ms UTC.
    """

    market: str
    stop: int
    resume: int

    @property
    def name(self) -> str:
        """What people may look up: ``spot outage of 2023-03-24 12:39 to 2023-03-24 14:00``."""
        return f"{self.market} outage of {to_text(self.stop)} to {to_text(self.resume)}"


@cache
def known_outages() -> tuple[Outage, ...]:
    """The table, ascending."""
    text = files("binance_assets.completeness").joinpath("known_outages.csv").read_text(encoding="utf-8")
    return tuple(
        Outage(row["market"], _ms(row["stop"]), _ms(row["resume"])) for row in csv.DictReader(text.splitlines())
    )


def outages_within(market: Market, spans: Sequence[tuple[int, int]]) -> list[Outage]:
    """The known outages that explain a part of ``spans``.

    Args:
        market: The market.
        spans: Times without candles, half-open, ms UTC.
    """
    return [
        outage
        for outage in known_outages()
        if outage.market == market.name and any(start < outage.resume and outage.stop < end for start, end in spans)
    ]


def _ms(text: str) -> int:
    return int(dt.datetime.fromisoformat(text).timestamp()) * SECOND
