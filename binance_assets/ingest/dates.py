"""The dates of a request, checked before anything is imported that takes long to import."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

from binance_assets.model.partitions import FIRST_DAY, TOO_EARLY
from binance_assets.model.series import Series
from binance_assets.settings import ConfigurationError


def check_dates(series: Iterable[Series], start: dt.date | None, end: dt.date | None) -> None:
    """Refuse dates that cannot be valid, before any request is sent.

    Args:
        series: The requested series.
        start: First day, UTC; None for that of the first candle.
        end: Day after the last one, UTC; None for the end of the last finished partition.

    Raises:
        ConfigurationError: The message says which date is wrong, and why.
    """
    multi_day = next((member.interval for member in series if member.interval.is_multi_day), None)
    for option, day in (("--start", start), ("--end", end)):
        if day and multi_day and day.day != 1:
            raise ConfigurationError(
                f"{option} {day}: {multi_day} has monthly partitions, so give the first day of a month"
            )
    if start and start < FIRST_DAY:
        raise ConfigurationError(f"--start {start}: {TOO_EARLY}, or leave it out to begin with the first candle")
    if start and end and end <= start:
        raise ConfigurationError(f"--end {end} is not after --start {start}; the end is excluded")
