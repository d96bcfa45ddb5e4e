"""Schedules: each job runs once for the partition that has just ended. They are stopped until a user starts them.

Here belong the schedules of the newest partition. What does not belong here: the repeated requests for recent
partitions that are missing (``catch_up``).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence

import dagster as dg

from binance_assets.model.series import Series
from binance_assets.orchestration.dagster_internals.code_location import AssetJob, PartitionedSchedule
from binance_assets.orchestration.jobs import job_name
from binance_assets.orchestration.keys import asset_key
from binance_assets.orchestration.partitions import partition_kind

_DAILY = "Fetches the day that has just ended."
_MONTHLY = "Fetches the month that has ended, once its last week has closed."

Schedule = dg.ScheduleDefinition | PartitionedSchedule


def candle_schedules(
    jobs: Iterable[AssetJob], series: Sequence[Series] = (), ended: Mapping[Series, dt.date] | None = None
) -> list[Schedule]:
    """Return a schedule ``<job>_schedule`` for each job.

    Args:
        jobs: The jobs.
        series: The fetched series.
        ended: The last day of each series that has ended; none of its later partitions is requested.
    """
    schedules: list[Schedule] = []
    for job in jobs:
        members = {
            m: (ended or {}).get(m) for m in series if job_name(m.market, partition_kind(m.interval)) == job.name
        }
        is_daily = job.name.endswith("_daily")
        if any(members.values()):
            schedules.append(_of_traded(job, members, is_daily))
        else:
            schedules.append(_daily(job) if is_daily else _monthly(job))
    return schedules


def _of_traded(job: AssetJob, series: Mapping[Series, dt.date | None], is_daily: bool) -> dg.ScheduleDefinition:
    """Return a schedule over those series of a job that still traded in the partition.

    Args:
        job: The job.
        series: Its series, each with its last day if it has ended.
        is_daily: Whether its partitions are days.
    """

    @dg.schedule(
        name=f"{job.name}_schedule",
        job_name=job.name,
        cron_schedule="7 0 * * *" if is_daily else "17 0 8 * *",
        execution_timezone="UTC",
        description=f"{_DAILY if is_daily else _MONTHLY} Leaves out symbols that were delisted before.",
    )
    def of_traded(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        today = context.scheduled_execution_time.astimezone(dt.UTC).date()
        yesterday = today - dt.timedelta(days=1)
        first = yesterday if is_daily else (today.replace(day=1) - dt.timedelta(days=1)).replace(day=1)
        traded = [asset_key(member) for member, last in series.items() if last is None or last >= first]
        if not traded:
            return dg.SkipReason(f"no symbol of this job was traded since {first}")
        return dg.RunRequest(run_key=first.isoformat(), partition_key=first.isoformat(), asset_selection=traded)

    return of_traded


def _daily(job: AssetJob) -> Schedule:
    # Not exactly at midnight, when many users of Binance send requests.
    return dg.build_schedule_from_partitioned_job(
        job,
        name=f"{job.name}_schedule",
        hour_of_day=0,
        minute_of_hour=7,
        description=_DAILY,
    )


def _monthly(job: AssetJob) -> Schedule:
    # The last week that opens in a month closes on the 7th of the next at the latest.
    return dg.build_schedule_from_partitioned_job(
        job,
        name=f"{job.name}_schedule",
        day_of_month=8,
        hour_of_day=0,
        minute_of_hour=17,
        description=_MONTHLY,
    )
