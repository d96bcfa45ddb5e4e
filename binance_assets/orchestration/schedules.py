"""Schedules: each job runs once for the partition that has just ended. They are stopped until a user starts them.

Here belong the schedules of the newest partition. What does not belong here: the repeated requests for recent
partitions that are missing (``catch_up``).
"""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg

from binance_assets.orchestration.dagster_internals import AssetJob, PartitionedSchedule

Schedule = dg.ScheduleDefinition | PartitionedSchedule


def candle_schedules(jobs: Iterable[AssetJob]) -> list[Schedule]:
    """Return a schedule ``<job>_schedule`` for each job."""
    return [_daily(job) if job.name.endswith("_daily") else _monthly(job) for job in jobs]


def _daily(job: AssetJob) -> Schedule:
    # Not exactly at midnight, when many users of Binance send requests.
    return dg.build_schedule_from_partitioned_job(
        job,
        name=f"{job.name}_schedule",
        hour_of_day=0,
        minute_of_hour=7,
        description="Fetches the day that has just ended.",
    )


def _monthly(job: AssetJob) -> Schedule:
    # The last week that opens in a month closes on the 7th of the next at the latest.
    return dg.build_schedule_from_partitioned_job(
        job,
        name=f"{job.name}_schedule",
        day_of_month=8,
        hour_of_day=0,
        minute_of_hour=17,
        description="Fetches the month that has ended, once its last week has closed.",
    )
