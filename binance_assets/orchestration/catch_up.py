"""The schedules ``<market>_catch_up``: they request the recent days that the lake lacks.

The lake lacks a day because its run failed, because the day was refused, or because nobody requested it. A day that is
queued or running is not requested again. A day that was refused too often is left to the user.

Once a day, they also request the recent days that the lake has but that nothing proved. Such a run only fetches the
evidence, not the candles.

Here belongs which days to request. What does not belong here: the regular request for the newest partition
(``schedules``).
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Final

import dagster as dg
import polars as pl

from binance_assets.model.intervals import DAILY as ONE_DAY
from binance_assets.model.markets import Market
from binance_assets.model.partitions import FIRST_DAY, partitions_between
from binance_assets.model.series import Series, by_market
from binance_assets.model.wording import name_some
from binance_assets.orchestration.checks import unreachable_partitions
from binance_assets.orchestration.jobs import job_name
from binance_assets.orchestration.keys import asset_key, op_name
from binance_assets.orchestration.partitions import partition_ranges, range_tags, tagged_range
from binance_assets.settings import Settings
from binance_assets.storage.file_index import stored_in
from binance_assets.storage.lake import Lake

# Dagster's user interface hides tags with this prefix.
CATCH_UP_TAG: Final = ".dagster/binance_assets_catch_up"
OLD_CATCH_UP_TAG: Final = "binance_assets/catch_up"
"""The tag of runs that version 0.1.0 requested."""
MAX_ATTEMPTS: Final = 5
"""How often the catch-up requests a refused day before it leaves the day to the user."""

_UNDER_WAY: Final = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_MAX_RUNS: Final = 5_000
# The hour, UTC, of the tick that requests days in doubt. Attempts to prove a day are cheap, but need no hurry.
_DOUBT_HOUR: Final = 0
_MAX_NAMED: Final = 5

Day = tuple[Series, str]
"""A series and the key of a day."""

TradedSpan = tuple[dt.date | None, dt.date | None]
"""The first and the last day on which a symbol traded; None where it is not known, or has not ended."""

DaysBySeries = dict[Series, list[str]]
"""The keys of days by series, ascending."""


def catch_up_schedules(
    series: Sequence[Series], settings: Settings, traded: Mapping[Series, TradedSpan] | None = None
) -> list[dg.ScheduleDefinition]:
    """Return a schedule for each market that has daily partitions.

    Args:
        series: The fetched series.
        settings: The lake, and how many days to check.
        traded: The first and the last day of series of which they are known; no other days of those are requested.
    """
    daily = by_market(member for member in series if not member.interval.is_multi_day)
    return [_catch_up(market, members, settings, traded or {}) for market, members in daily.items()]


def _catch_up(
    market: Market, series: Sequence[Series], settings: Settings, traded: Mapping[Series, TradedSpan]
) -> dg.ScheduleDefinition:
    lake, job = Lake(settings.lake), job_name(market, "daily")
    known: pl.DataFrame | None = None  # what the files held at the last tick; the next one reads only new files

    @dg.schedule(
        name=f"{market}_catch_up",
        job_name=job,
        cron_schedule="37 * * * *",
        execution_timezone="UTC",
        description=f"Requests those of the last {settings.catch_up_days} days that the lake lacks, also after a "
        f"failure or a refusal. After {MAX_ATTEMPTS} attempts a day is left to the user. Once a day, it also tries to "
        "prove days that nothing proved yet, without fetching their candles.",
    )
    def catch_up(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        nonlocal known
        today = context.scheduled_execution_time.astimezone(dt.UTC).date()
        since = max(FIRST_DAY, today - dt.timedelta(days=settings.catch_up_days))
        at = context.scheduled_execution_time
        known = lake.file_index(market, series, since, today, known)
        missing, doubted = _missing_days(known, series, since, today, traded), DaysBySeries()
        if at.astimezone(dt.UTC).hour == _DOUBT_HOUR:
            doubted = _days_in_doubt(known, series, since, today)
        if missing or doubted:  # at rest, neither is, and the runs need not be read
            under_way = _days_under_way(context.instance, market, [*{**missing, **doubted}])
            missing, doubted = _without(missing, under_way), _without(doubted, under_way)
        given_up = _given_up(context.instance, market, missing, since)
        message = _given_up_message(given_up)
        if message is not None:
            context.log.warning(message)
        requests = [
            *_requests(market, _without(missing, given_up), at),
            *_requests(market, doubted, at, only_missing=True),
        ]
        yield from requests
        if not requests:
            yield dg.SkipReason(message or f"every day since {since} is in the lake or under way")

    return catch_up


def _missing_days(
    index: pl.DataFrame, series: Sequence[Series], since: dt.date, today: dt.date, traded: Mapping[Series, TradedSpan]
) -> DaysBySeries:
    """Return the days that the files of ``index`` do not hold, of each series that lacks some."""
    held = _keys_by_series(stored_in(index))
    days = [partition.key for partition in partitions_between(since, today, ONE_DAY)]
    missing = {}
    for member in series:
        present, (first, last) = held.get(str(member), set()), traded.get(member, (None, None))
        keys = [key for key in days if key not in present and _is_traded(key, first, last)]
        if keys:
            missing[member] = keys
    return missing


def _is_traded(key: str, first: dt.date | None, last: dt.date | None) -> bool:
    day = dt.date.fromisoformat(key)
    return (first is None or first <= day) and (last is None or day <= last)


def _days_in_doubt(index: pl.DataFrame, series: Sequence[Series], since: dt.date, today: dt.date) -> DaysBySeries:
    """Return the days that nothing proved, of each series that has some."""
    recent = pl.col("day").is_between(since, today, closed="left")
    doubted = _keys_by_series(stored_in(index).filter(recent, "is_in_doubt"))
    return {member: sorted(doubted[str(member)]) for member in series if str(member) in doubted}


def _keys_by_series(stored: pl.DataFrame) -> dict[str, set[str]]:
    keys = stored.group_by("series").agg(pl.col("day").dt.to_string("%F"))
    return {name: set(of_series) for name, of_series in keys.iter_rows()}


def _without(days: DaysBySeries, excluded: Set[Day]) -> DaysBySeries:
    left = {series: [key for key in keys if (series, key) not in excluded] for series, keys in days.items()}
    return {series: keys for series, keys in left.items() if keys}


def _days_under_way(instance: dg.DagsterInstance, market: Market, series: Sequence[Series]) -> set[Day]:
    runs = instance.get_runs(dg.RunsFilter(statuses=_UNDER_WAY), limit=_MAX_RUNS)
    return {day for run in runs for day in _days_of(run, market, series)}


def _given_up(
    instance: dg.DagsterInstance, market: Market, missing: Mapping[Series, Sequence[str]], since: dt.date
) -> set[Day]:
    """Return the missing days that the catch-up requested often enough; attempts without a response do not count."""
    if not missing:
        return set()
    midnight = dt.datetime.combine(since, dt.time(), dt.UTC)
    runs_of: defaultdict[Day, list[str]] = defaultdict(list)
    filters = [
        dg.RunsFilter(tags={tag: market.name}, created_after=midnight) for tag in (CATCH_UP_TAG, OLD_CATCH_UP_TAG)
    ]
    for run in (run for chosen in filters for run in instance.get_runs(chosen, limit=_MAX_RUNS)):
        for day in _days_of(run, market, [*missing]):
            runs_of[day].append(run.run_id)
    often = {
        (member, key)
        for member, keys in missing.items()
        for key in keys
        if len(runs_of.get((member, key), ())) >= MAX_ATTEMPTS
    }
    unreachable = {member: unreachable_partitions(instance, asset_key(member)) for member in {day[0] for day in often}}
    return {
        (member, key)
        for member, key in often
        if sum((run_id, key) not in unreachable[member] for run_id in runs_of[member, key]) >= MAX_ATTEMPTS
    }


def _days_of(run: dg.DagsterRun, market: Market, series: Sequence[Series]) -> Iterator[Day]:
    """Yield the days that a run covers, of those series of ``market`` that it selects."""
    selected = run.asset_selection
    if not selected and run.job_name != job_name(market, "daily"):
        return  # a whole job, but another one: its partitions may not even be days
    covered = tagged_range(run.tags)
    if covered is None:
        return
    first, last = map(dt.date.fromisoformat, covered)
    keys = [partition.key for partition in partitions_between(first, last + dt.timedelta(days=1), ONE_DAY)]
    for member in series:
        if not selected or asset_key(member) in selected:
            yield from ((member, key) for key in keys)


def _requests(
    market: Market, missing: Mapping[Series, Sequence[str]], at: dt.datetime, only_missing: bool = False
) -> Iterator[dg.RunRequest]:
    """Yield a run for each contiguous range of days, over all series that lack exactly this range.

    Usually that is one run per market. A run that covered other days of a series as well could fail, and Dagster would
    then show those days as failed although the lake has them.
    """
    series_by_range: defaultdict[tuple[str, str], list[Series]] = defaultdict(list)
    for series, keys in missing.items():
        for key_range in partition_ranges(keys):
            series_by_range[key_range].append(series)
    for (first, last), members in sorted(series_by_range.items()):
        config = {op_name(member): {"config": {"only_missing": True}} for member in members}
        yield dg.RunRequest(
            run_key=f"{market}:{at.isoformat()}:{first}:{last}" + (":doubt" if only_missing else ""),
            run_config={"ops": config} if only_missing else None,
            asset_selection=[asset_key(member) for member in members],
            tags={**range_tags(first, last), CATCH_UP_TAG: market.name},
        )


def _given_up_message(given_up: Set[Day]) -> str | None:
    """Return one line that names the days that are left to the user; None without such days."""
    if not given_up:
        return None
    days = sorted(f"{series} {key}" for series, key in given_up)
    return (
        f"gave up after {MAX_ATTEMPTS} attempts: {name_some(days, _MAX_NAMED)}; the check gap_free states the reason, "
        "and `binance-assets accept` writes a day despite its missing candles"
    )
