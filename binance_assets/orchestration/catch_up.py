"""The schedules ``<market>_catch_up``: they ask again for the recent days that are not there.

A day is not there because its run failed, because it was refused, or because nobody asked. What is queued or running is
left alone, and what was refused again and again is left to a person.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Final

import dagster as dg
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)

from binance_assets.model.markets import Market
from binance_assets.model.partitions import FIRST_DAY, partitions_between
from binance_assets.model.series import Series, by_market
from binance_assets.orchestration.assets import asset_key
from binance_assets.orchestration.checks import unreachable_days
from binance_assets.orchestration.jobs import job_name
from binance_assets.orchestration.partitions import partition_ranges, range_tags
from binance_assets.settings import Settings
from binance_assets.storage.lake import Lake

CATCH_UP_TAG: Final = "binance_assets/catch_up"
MOST_ATTEMPTS: Final = 5
"""How often the catch-up asks for a day that is refused before it leaves it to a person."""

_UNDER_WAY: Final = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_MOST_RUNS: Final = 5_000
_NAMED_DAYS: Final = 5

Days = dict[Series, list[str]]
"""Keys of days by series, ascending."""


def catch_up_schedules(series: Sequence[Series], settings: Settings) -> list[dg.ScheduleDefinition]:
    """A schedule for each market that has series by days."""
    daily = by_market(one for one in series if not one.interval.is_multi_day)
    return [_catch_up(market, members, settings) for market, members in daily.items()]


def _catch_up(market: Market, series: Sequence[Series], settings: Settings) -> dg.ScheduleDefinition:
    lake, job = Lake(settings.lake), job_name(market, "daily")

    @dg.schedule(
        name=f"{market}_catch_up",
        job_name=job,
        cron_schedule="37 * * * *",
        execution_timezone="UTC",
        description=f"Asks again for days of the last {settings.catch_up_days} that are not there: missing, failed or "
        f"refused. After {MOST_ATTEMPTS} attempts a day is left to a person.",
    )
    def catch_up(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        today = context.scheduled_execution_time.astimezone(dt.UTC).date()
        since = max(FIRST_DAY, today - dt.timedelta(days=settings.catch_up_days))
        lacking = _lacking(lake, series, since, today)
        lacking = _without(lacking, _under_way(context.instance, market, series))
        attempts = _attempts(context.instance, market, series, since)
        given_up = {(one, key) for one, keys in lacking.items() for key in keys if attempts[one, key] >= MOST_ATTEMPTS}
        message = _tell(given_up)
        if message:
            context.log.warning(message)
        requests = list(_requests(market, _without(lacking, given_up), context.scheduled_execution_time))
        yield from requests
        if not requests:
            yield dg.SkipReason(message or f"every day since {since} is there, or on its way")

    return catch_up


def _lacking(lake: Lake, series: Sequence[Series], since: dt.date, today: dt.date) -> Days:
    return {
        one: [
            partition.key
            for partition in partitions_between(since, today, one.interval)
            if lake.stored(one, partition) is None
        ]
        for one in series
    }


def _without(days: Days, taken: set[tuple[Series, str]]) -> Days:
    return {one: [key for key in keys if (one, key) not in taken] for one, keys in days.items()}


def _under_way(instance: dg.DagsterInstance, market: Market, series: Sequence[Series]) -> set[tuple[Series, str]]:
    runs = instance.get_runs(dg.RunsFilter(statuses=_UNDER_WAY), limit=_MOST_RUNS)
    return {day for run in runs for day in _days_of(run, market, series)}


def _attempts(
    instance: dg.DagsterInstance, market: Market, series: Sequence[Series], since: dt.date
) -> Counter[tuple[Series, str]]:
    """How often the catch-up asked for each day in vain; while Binance is not there, no attempt counts."""
    begin = dt.datetime.combine(since, dt.time(), dt.UTC)
    filter_ = dg.RunsFilter(tags={CATCH_UP_TAG: market.name}, created_after=begin)
    runs = instance.get_runs(filter_, limit=_MOST_RUNS)
    if not runs:
        return Counter()
    not_there = {one: unreachable_days(instance, asset_key(one)) for one in series}
    asked = ((run.run_id, *day) for run in runs for day in _days_of(run, market, series))
    return Counter((one, key) for run_id, one, key in asked if (run_id, key) not in not_there[one])


def _days_of(run: dg.DagsterRun, market: Market, series: Sequence[Series]) -> Iterator[tuple[Series, str]]:
    """The days that a run was asked for, of those series of ``market`` that it is over."""
    chosen = run.asset_selection
    if not chosen and run.job_name != job_name(market, "daily"):
        return  # a whole job, and another one: its partitions may not even be days
    first = run.tags.get(ASSET_PARTITION_RANGE_START_TAG) or run.tags.get(PARTITION_NAME_TAG)
    last = run.tags.get(ASSET_PARTITION_RANGE_END_TAG) or first
    if first is None or last is None:
        return
    for one in series:
        if chosen and asset_key(one) not in chosen:
            continue
        end = dt.date.fromisoformat(last) + dt.timedelta(days=1)
        for partition in partitions_between(dt.date.fromisoformat(first), end, one.interval):
            yield one, partition.key


def _requests(market: Market, wanted: Mapping[Series, Sequence[str]], at: dt.datetime) -> Iterator[dg.RunRequest]:
    """A run for each contiguous range of days, over all series that lack just this range: mostly one for the market.

    A run over more days than a series lacks would turn the others red where it fails, though they are there.
    """
    lacking: defaultdict[tuple[str, str], list[Series]] = defaultdict(list)
    for one, keys in wanted.items():
        for days in partition_ranges(keys):
            lacking[days].append(one)
    for (first, last), series in sorted(lacking.items()):
        yield dg.RunRequest(
            run_key=f"{market}:{at.isoformat()}:{first}:{last}",
            asset_selection=[asset_key(one) for one in series],
            tags={**range_tags(first, last), CATCH_UP_TAG: market.name},
        )


def _tell(given_up: Set[tuple[Series, str]]) -> str:
    """What is left to a person, in one line; empty where nothing is."""
    if not given_up:
        return ""
    days = sorted(f"{one} {key}" for one, key in given_up)
    more = f" and {len(days) - _NAMED_DAYS} more" if len(days) > _NAMED_DAYS else ""
    return (
        f"left to a person after {MOST_ATTEMPTS} attempts: {', '.join(days[:_NAMED_DAYS])}{more}; the check gap_free "
        "says why, and `binance-assets accept` takes a day as it is"
    )
