"""Partition definitions: one for days and one for months, shared by all assets.

Shared, because assets whose partition definitions differ cannot be materialized in one run; what a symbol's life
leaves out is a matter of verdicts, not of definitions.
"""

from __future__ import annotations

from typing import Final

import dagster as dg

from binance_assets.intervals import Interval
from binance_assets.periods import FIRST_DAY

DAILY: Final = dg.DailyPartitionsDefinition(start_date=FIRST_DAY.isoformat(), timezone="UTC")
MONTHLY: Final = dg.MonthlyPartitionsDefinition(start_date=FIRST_DAY.isoformat(), timezone="UTC")

BY_NAME: Final[dict[str, dg.TimeWindowPartitionsDefinition]] = {"daily": DAILY, "monthly": MONTHLY}
"""The definitions by the name that jobs carry."""


def partitioning(interval: Interval) -> str:
    """``daily`` for intervals up to 1d, ``monthly`` for 3d, 1w and 1M."""
    return "monthly" if interval.is_coarse else "daily"


def partitions_of(interval: Interval) -> dg.TimeWindowPartitionsDefinition:
    """The partition definition of a series of ``interval``."""
    return BY_NAME[partitioning(interval)]
