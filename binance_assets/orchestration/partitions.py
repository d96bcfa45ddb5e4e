"""Partition definitions: one for days and one for months, shared by all assets.

They are shared because assets whose partition definitions differ cannot be materialized in one run. The time before a
symbol's listing and after its delisting is a matter of verdicts, not of definitions.

Here belong definitions, ranges of keys, and the tags of a range run. What does not belong here: the partition as a
span of time (``model.partitions``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import dagster as dg

from binance_assets.model.intervals import DAILY as ONE_DAY
from binance_assets.model.intervals import Interval
from binance_assets.model.partitions import FIRST_DAY, Partition, merge_ranges, partition_for_key
from binance_assets.model.timestamps import DAY

DAILY: Final = dg.DailyPartitionsDefinition(start_date=FIRST_DAY.isoformat(), timezone="UTC")
MONTHLY: Final = dg.MonthlyPartitionsDefinition(start_date=FIRST_DAY.isoformat(), timezone="UTC")

# Dagster's names for the tags of a run over one partition and over a range. Its UI and daemon set them, and users see
# them on every run.
PARTITION_TAG: Final = "dagster/partition"
RANGE_START_TAG: Final = "dagster/asset_partition_range_start"
RANGE_END_TAG: Final = "dagster/asset_partition_range_end"

BY_KIND: Final[dict[str, dg.TimeWindowPartitionsDefinition]] = {"daily": DAILY, "monthly": MONTHLY}
"""The definitions by the word that stands in the names of jobs."""


def partition_kind(interval: Interval) -> str:
    """Return ``daily`` for intervals up to 1d, ``monthly`` for 3d, 1w and 1M."""
    return "monthly" if interval.is_multi_day else "daily"


def partitions_def_for(interval: Interval) -> dg.TimeWindowPartitionsDefinition:
    """Return the partition definition of a series of ``interval``."""
    return BY_KIND[partition_kind(interval)]


def partition_ranges(keys: Sequence[str]) -> list[tuple[str, str]]:
    """Return daily keys as the fewest contiguous ranges, each by its first and last key."""
    partitions = [partition_for_key(key, ONE_DAY) for key in sorted(set(keys))]
    return [
        (Partition(start, start + DAY).key, Partition(end - DAY, end).key) for start, end in merge_ranges(partitions)
    ]


def range_tags(first: str, last: str) -> dict[str, str]:
    """Return the tags that make a run cover the partitions from ``first`` to ``last``, both included."""
    return {RANGE_START_TAG: first, RANGE_END_TAG: last}


def tagged_range(tags: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the first and last partition key that a run covers by its tags; None if it has no partitions."""
    first = tags.get(RANGE_START_TAG) or tags.get(PARTITION_TAG)
    last = tags.get(RANGE_END_TAG) or first
    return (first, last) if first and last else None
