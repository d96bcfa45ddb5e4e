"""The private Dagster names that tests use, and nothing else; each has no public counterpart.

Tests of schedules and sensors need the types that a tick returns, the origin of a run that a user queued, and an event
with a time in the past. Tests of the event log need its tables, events of their own, and what the live log does. Those
of the files in ``deploy/`` need what an instance accepts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import dagster as dg
import sqlalchemy as db
from dagster._config import process_config, resolve_to_config_type
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.automation_tick_evaluation_context import build_run_requests_with_backfill_policies
from dagster._core.definitions.events import AssetKeyPartitionKey
from dagster._core.definitions.schedule_definition import ScheduleExecutionData
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster._core.events import StepMaterializationData
from dagster._core.events.log import EventLogEntry
from dagster._core.instance.ref import InstanceRef
from dagster._core.instance.utils import RUNLESS_JOB_NAME, RUNLESS_RUN_ID
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._serdes import ConfigurableClassData

__all__ = [
    "ScheduleExecutionData",
    "SensorExecutionData",
    "check_rows",
    "config_problems",
    "index_of",
    "job_origin",
    "launcher_in",
    "materialization_entries",
    "report_materialization_at",
    "runs_of_backfill",
    "watch",
]


def config_problems(home: str) -> list[str]:
    """Return what Dagster does not accept in the ``dagster.yaml`` of a folder, without connecting to a storage.

    Each class that the file names is imported, and says whether it accepts its part.
    """
    try:
        ref = InstanceRef.from_dir(home)
    except dg.DagsterInvalidConfigError as error:
        return [problem.message for problem in error.errors]
    problems = []
    for data in (part for part in ref if isinstance(part, ConfigurableClassData)):
        accepted: Any = getattr(import_module(data.module_name), data.class_name).config_type()
        processed = process_config(resolve_to_config_type(accepted), data.config_dict)
        problems += [f"{data.class_name}: {problem.message}" for problem in processed.errors or ()]
    return problems


def launcher_in(home: str) -> Any:
    """Return the run launcher that the ``dagster.yaml`` of a folder configures."""
    return InstanceRef.from_dir(home).run_launcher


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


def materialization_entries(asset: dg.AssetKey, keys: Sequence[str], run_id: str) -> list[EventLogEntry]:
    """Return the log entries of materializations of a step of a run that need not exist."""
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION.value
    datas = [StepMaterializationData(dg.AssetMaterialization(asset, partition=key)) for key in keys]
    make_entry: Any = EventLogEntry
    return [
        make_entry(
            error_info=None,
            level="DEBUG",
            user_message="",
            run_id=run_id,
            timestamp=1_700_000_000.0 + number,
            job_name="job",
            dagster_event=dg.DagsterEvent(kind, "job", event_specific_data=data),
        )
        for number, data in enumerate(datas)
    ]


def index_of(instance: dg.DagsterInstance, table: str) -> list[Any]:
    """Return the rows of a table in the index of the event log, in the order in which they were inserted."""
    storage: Any = instance.event_log_storage
    with storage.index_connection() as connection:
        return list(connection.execute(db.text(f"SELECT * FROM {table} ORDER BY id")).fetchall())


def check_rows(instance: dg.DagsterInstance) -> list[Any]:
    """Return the planned and evaluated checks as the event log stores them."""
    return index_of(instance, "asset_check_executions")


@contextmanager
def watch(instance: dg.DagsterInstance, run_id: str, see: Callable[[str], object]) -> Iterator[None]:
    """Call ``see`` with the partition of each new event of a run, as the live log of a run's page does."""

    def callback(entry: EventLogEntry, _: str) -> None:
        see(entry.get_dagster_event().partition or "")

    instance.watch_event_logs(run_id, None, callback)
    try:
        yield
    finally:
        instance.end_watch_event_logs(run_id, callback)


def runs_of_backfill(
    graph: AssetGraph, assets: Sequence[dg.AssetKey], partitions: Sequence[str]
) -> Sequence[dg.RunRequest]:
    """Return the runs into which the daemon divides a backfill of partitions of assets."""
    chosen = [AssetKeyPartitionKey(asset, partition) for asset in assets for partition in partitions]
    with dg.DagsterInstance.ephemeral() as instance:
        return build_run_requests_with_backfill_policies(chosen, graph, instance)
