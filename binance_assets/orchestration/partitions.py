"""Partition definitions: one for days and one for months, shared by all assets.

Shared, because assets whose partition definitions differ cannot be materialized in one run; what a symbol's life
leaves out is a matter of verdicts, not of definitions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import dagster as dg
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from binance_assets.model.intervals import Interval, parse_interval
from binance_assets.model.partitions import FIRST_DAY, Partition, merge_ranges, partition_for_key
from binance_assets.model.timestamps import DAY

DAILY: Final = dg.DailyPartitionsDefinition(start_date=FIRST_DAY.isoformat(), timezone="UTC")
MONTHLY: Final = dg.MonthlyPartitionsDefinition(start_date=FIRST_DAY.isoformat(), timezone="UTC")

_ONE_DAY: Final = parse_interval("1d")

BY_NAME: Final[dict[str, dg.TimeWindowPartitionsDefinition]] = {"daily": DAILY, "monthly": MONTHLY}
"""The definitions by the name that jobs carry."""


def partition_kind(interval: Interval) -> str:
    """``daily`` for intervals up to 1d, ``monthly`` for 3d, 1w and 1M."""
    return "monthly" if interval.is_multi_day else "daily"


def partitions_def_for(interval: Interval) -> dg.TimeWindowPartitionsDefinition:
    """The partition definition of a series of ``interval``."""
    return BY_NAME[partition_kind(interval)]


def partition_ranges(keys: Sequence[str]) -> list[tuple[str, str]]:
    """Days as the fewest contiguous ranges, each by its first and last key."""
    partitions = [partition_for_key(key, _ONE_DAY) for key in sorted(set(keys))]
    return [
        (Partition(start, start + DAY).key, Partition(end - DAY, end).key) for start, end in merge_ranges(partitions)
    ]


def range_tags(first: str, last: str) -> dict[str, str]:
    """The tags that make a run cover the partitions from ``first`` to ``last``, both included."""
    return {ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last}
