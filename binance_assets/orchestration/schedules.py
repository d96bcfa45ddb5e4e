"""Schedules: each job once for the partition that has just ended. They are stopped until somebody starts them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from dagster._core.definitions.partitions.partitioned_schedule import UnresolvedPartitionedAssetScheduleDefinition
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

    Schedule = dg.ScheduleDefinition | UnresolvedPartitionedAssetScheduleDefinition


def candle_schedules(jobs: Iterable[UnresolvedAssetJobDefinition]) -> list[Schedule]:
    """A schedule ``<job>_schedule`` for each job."""
    return [_daily(job) if job.name.endswith("_daily") else _monthly(job) for job in jobs]


def _daily(job: UnresolvedAssetJobDefinition) -> Schedule:
    # Not at midnight sharp, when every user of Binance asks.
    return dg.build_schedule_from_partitioned_job(
        job,
        name=f"{job.name}_schedule",
        hour_of_day=0,
        minute_of_hour=7,
        description="Fetches the day that has just ended.",
    )


def _monthly(job: UnresolvedAssetJobDefinition) -> Schedule:
    # The last week that opens in a month closes on the 7th of the next at the latest.
    return dg.build_schedule_from_partitioned_job(
        job,
        name=f"{job.name}_schedule",
        day_of_month=8,
        hour_of_day=0,
        minute_of_hour=17,
        description="Fetches the month that has ended, once its last week has closed.",
    )
