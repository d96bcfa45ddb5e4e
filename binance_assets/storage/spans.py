"""Spans: which partitions share a file of the lake, and how the file is named.

A file per day would hold 24 candles of 1h, and a reader of the whole lake would open hundreds of thousands of files. A
file per year would hold half a million candles of 1m, and a write would replace all of them for one day. So a file of
finer candles spans less time:

====================  =======  ======================
interval              span     file
====================  =======  ======================
below 1m              a day    ``2024-01-01.parquet``
1m to below 15m       a month  ``2024-01.parquet``
15m and coarser       a year   ``2024.parquet``
====================  =======  ======================

The name of a span is the beginning of the keys of its partitions. Layout 1 of the lake had a file for each partition,
named after its key.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from typing import Final

from binance_assets.model.intervals import Interval
from binance_assets.model.partitions import Partition, next_month, partition_for_key, partitions_between
from binance_assets.model.timestamps import MINUTE

_DAY, _MONTH, _YEAR = (len(name) for name in ("2024-01-01", "2024-01", "2024"))

KEY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
"""A partition key, which is also the name of a file of layout 1."""

_NAMES: Final = {_DAY: KEY, _MONTH: re.compile(r"\d{4}-\d{2}"), _YEAR: re.compile(r"\d{4}")}


def _name_length(interval: Interval) -> int:
    if interval.step < MINUTE:
        return _DAY
    return _MONTH if interval.step < 15 * MINUTE else _YEAR


def span_name(key: str, interval: Interval) -> str:
    """Return the name of the span that holds the partition with the key ``key``: ``2024-01``."""
    return key[: _name_length(interval)]


def is_span_name(name: str, interval: Interval) -> bool:
    """Return whether a file of that name holds a span of a series of ``interval``."""
    return _NAMES[_name_length(interval)].fullmatch(name) is not None


def partitions_of_file(name: str, interval: Interval) -> list[Partition]:
    """Return all partitions that a file of that name may hold, ascending: those of a span, or one in layout 1.

    A name without such a month or day, or of a year without a successor, has no partitions.
    """
    try:
        first = dt.date.fromisoformat((name + "-01-01")[:_DAY])
        if len(name) == _DAY:
            return [partition_for_key(name, interval)]
        end = next_month(first) if len(name) == _MONTH else first.replace(year=first.year + 1)
    except (ValueError, OverflowError):
        return []
    return partitions_between(first, end, interval)


def by_span(partitions: Iterable[Partition], interval: Interval) -> dict[str, list[Partition]]:
    """Group partitions by the name of their span, both in the given order."""
    groups: dict[str, list[Partition]] = {}
    for partition in partitions:
        groups.setdefault(span_name(partition.key, interval), []).append(partition)
    return groups
