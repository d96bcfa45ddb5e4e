"""The private Dagster names that tests use, and nothing else; each has no public counterpart.

Tests of schedules and sensors need the types of what a tick returns, a run that is launched from a code location, and
an event with a time in the past.
"""

from __future__ import annotations

import dagster as dg
from dagster._core.definitions.schedule_definition import ScheduleExecutionData
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster._core.events import StepMaterializationData
from dagster._core.instance.utils import RUNLESS_JOB_NAME, RUNLESS_RUN_ID
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

__all__ = ["ScheduleExecutionData", "SensorExecutionData", "job_origin", "report_materialization_at"]


def job_origin(job: str) -> RemoteJobOrigin:
    """Return the origin of a job of this code location, which a queued run must have."""
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("binance_assets"), "__repository__")
    return RemoteJobOrigin(repository, job)


def report_materialization_at(instance: dg.DagsterInstance, event: dg.AssetMaterialization, time: float) -> None:
    """Record a materialization outside a run, with another time than now (Unix seconds)."""
    data = StepMaterializationData(event)
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION.value
    instance.report_dagster_event(
        dg.DagsterEvent(kind, job_name=RUNLESS_JOB_NAME, event_specific_data=data), RUNLESS_RUN_ID, timestamp=time
    )
