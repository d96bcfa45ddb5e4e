"""Freshness: the check ``fresh`` of a market's coverage, which names the series whose candles are too old.

Dagster's own freshness policies look at the time of the last event. They call a series fresh whose last candle is two
years old, as soon as somebody fetches any old day of it again. So the assets have none, and this check looks at the end
of the last stored partition. It is one check for a market, evaluated with the coverage, so that a run over many series
does not evaluate another check for each.

Here belong the windows and their reasons. What does not belong here: the schedules that keep assets fresh
(``schedules``, ``catch_up``).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import dagster as dg
import polars as pl

from binance_assets.model.partitions import partition_for_key
from binance_assets.model.series import Series
from binance_assets.model.timestamps import to_date
from binance_assets.model.wording import name_some
from binance_assets.storage.file_index import stored_in

CHECK_NAME: Final = "fresh"
# The schedule fetches a day shortly after midnight, and the catch-up retries until the next noon.
_DAILY: Final = dt.timedelta(hours=36)
# The schedule fetches a month on the 8th of the next one.
_MONTHLY: Final = dt.timedelta(days=40)
_MAX_NAMED: Final = 5
_MAX_TABLE_ROWS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Stale:
    """A series whose candles are too old.

    Attributes:
        series: The series.
        last: Key of its last stored partition; None if the lake has none.
        age: How long ago that partition ended; None without one.
    """

    series: Series
    last: str | None
    age: dt.timedelta | None


def fresh_spec(key: dg.AssetKey) -> dg.AssetCheckSpec:
    """Return the spec of the check on the coverage ``key``."""
    return dg.AssetCheckSpec(
        CHECK_NAME,
        asset=key,
        description="The candles of every series reach up to the last finished day, or to the last finished month for "
        f"3d, 1w, and 1M. The last stored partition ended at most {_DAILY.total_seconds() / 3600:.0f} hours ago, or "
        f"{_MONTHLY.days} days for months. A delisted series is fresh.",
    )


def fresh_result(
    index: pl.DataFrame, series: Sequence[Series], now: dt.datetime, ended: Mapping[Series, dt.date] | None = None
) -> dg.AssetCheckResult:
    """Return the result of the check.

    Args:
        index: What the files of the series hold, from :meth:`binance_assets.storage.lake.Lake.file_index`.
        series: The series of the market.
        now: The time, UTC.
        ended: The last day of each series whose symbol is delisted, UTC.
    """
    stale = list(stale_series(index, series, now, ended or {}))
    metadata: dict[str, dg.MetadataValue] = {"stale": dg.MetadataValue.int(len(stale))}
    if stale:
        metadata["series"] = dg.MetadataValue.table([_record(entry) for entry in stale[:_MAX_TABLE_ROWS]])
    names = name_some((f"{entry.series} ({entry.last or 'no candles'})" for entry in stale), _MAX_NAMED)
    return dg.AssetCheckResult(
        passed=not stale,
        check_name=CHECK_NAME,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"the last stored partition is too old: {names}" if stale else None,
        metadata=metadata,
    )


def _record(entry: Stale) -> dg.TableRecord:
    age = "" if entry.age is None else f"{entry.age.total_seconds() / 86_400:.1f}"
    return dg.TableRecord({"series": str(entry.series), "last partition": entry.last or "", "days since its end": age})


def stale_series(
    index: pl.DataFrame, series: Sequence[Series], now: dt.datetime, ended: Mapping[Series, dt.date]
) -> Iterator[Stale]:
    """Yield the series whose last stored partition ended too long ago, and those without any.

    A delisted series is not stale once its last day is stored.

    Args:
        index: What the files of the series hold.
        series: The series.
        now: The time, UTC.
        ended: The last day of each series whose symbol is delisted, UTC.
    """
    last = stored_in(index).sort("day").group_by("series", maintain_order=True).last()
    by_name = {name: (day.isoformat(), verdict) for name, day, verdict in last["series", "day", "verdict"].iter_rows()}
    for member in series:
        key, verdict = by_name.get(str(member), (None, ""))
        if key is None:
            yield Stale(member, None, None)
            continue
        end = to_date(partition_for_key(key, member.interval).end)
        if member in ended and ended[member] < end:
            continue
        age = now - dt.datetime.combine(end, dt.time(), dt.UTC)
        if age > (_MONTHLY if member.interval.is_multi_day else _DAILY) and verdict != "delisted":
            yield Stale(member, key, age)
