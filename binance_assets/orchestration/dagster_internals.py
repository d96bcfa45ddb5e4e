"""The one module that touches private or undocumented Dagster names.

Here belongs each name under ``dagster._``, as an import or as text in configuration, and each attribute that leads
into Dagster's undocumented object model. Every entry states why no public name does the same, and
``binance_assets_tests/unit/test_dagster_internals.py`` fails if Dagster changes it. What does not belong here:
anything about candles.

Some names need no private import: ``dg.AssetCheckEvaluation`` is public, a run id is a version 4 UUID, and the tags of
a range run are documented strings (see ``partitions``).
"""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, Final, Literal, TypeVar, cast

import click
import dagster as dg
import sqlalchemy as db
from alembic.config import Config
from alembic.script import ScriptDirectory
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned
from dagster._core.definitions.partitions.partitioned_schedule import UnresolvedPartitionedAssetScheduleDefinition
from dagster._core.definitions.selector import JobSubsetSelector
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.events import (
    ASSET_CHECK_EVENTS,
    ASSET_EVENTS,
    EVENT_TYPE_TO_PIPELINE_RUN_STATUS,
    AssetMaterializationPlannedData,
    AssetObservationData,
    DagsterEventBatchMetadata,
    StepMaterializationData,
)
from dagster._core.events.log import EventLogEntry
from dagster._core.execution.context.data_version_cache import InputAssetVersionInfo
from dagster._core.execution.context.metadata_logging import AssetMetadataHandle, OutputMetadataAccumulator
from dagster._core.instance import InstanceRef
from dagster._core.instance.utils import RUNLESS_JOB_NAME, RUNLESS_RUN_ID
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus
from dagster._core.storage.asset_check_execution_record import (
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
)
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable, AssetKeyTable, SqlEventLogStorageTable
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME as INDEX_SHARD
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value
from dagster._core.storage.runs.sqlite.sqlite_run_storage import SqliteRunStorage
from dagster._core.storage.sql import ALEMBIC_SCRIPTS_LOCATION
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._core.storage.tags import AUTO_RETRY_RUN_ID_TAG, MAX_RETRIES_TAG, WILL_RETRY_TAG
from dagster._utils.interrupts import capture_interrupts as interrupts_kept
from dagster_shared.record import copy
from starlette.types import ASGIApp

from binance_assets.model.outside import first_line
from binance_assets.processes import end_processes
from binance_assets.settings import ConfigurationError

# The return types of the public functions `define_asset_job` and `build_schedule_from_partitioned_job`. Dagster exports
# the functions but not the types, and strict type checking needs names for them.
AssetJob = UnresolvedAssetJobDefinition
PartitionedSchedule = UnresolvedPartitionedAssetScheduleDefinition

# What the event log storage (`event_log`) extends. Dagster names `EventLogEntry` and the storages in its documentation,
# but says that users should not extend them; it has no other way to store events in batches on SQLite.
__all__ = [
    "ASSET_CHECK_EVENTS",
    "ASSET_EVENTS",
    "AUTO_RETRY_RUN_ID_TAG",
    "INDEX_SHARD",
    "MAX_RETRIES_TAG",
    "RUN_STATUS_EVENTS",
    "WILL_RETRY_TAG",
    "AssetCheckExecutionRecord",
    "AssetCheckExecutionsTable",
    "AssetKeyTable",
    "CheckRunHealthResult",
    "DagsterSqliteStorage",
    "EventLogEntry",
    "SqlEventLogStorageTable",
    "SqliteEventLogStorage",
    "SqliteRunStorage",
    "WorkerStatus",
    "interrupts_kept",
]
RUN_STATUS_EVENTS: Final = frozenset(EVENT_TYPE_TO_PIPELINE_RUN_STATUS)

_Item = TypeVar("_Item")

# Dagster selects storage classes by module path, and it does not export this class. Without it, Dagster starts two
# more processes to capture what a step prints, and a Ctrl-C on the terminal reaches those as well.
NO_COMPUTE_LOGS: Final = {
    "module": "dagster._core.storage.noop_compute_log_manager",
    "class": "NoOpComputeLogManager",
}


def open_instance_in(state: Path, config: Path) -> dg.DagsterInstance:
    """Return the instance with its state in one folder and its ``dagster.yaml`` in another.

    ``DagsterInstance.get`` and ``local_temp``, the public constructors, read ``dagster.yaml`` from the folder that
    holds the state. Only ``InstanceRef.from_dir`` separates the two.

    Args:
        state: Folder of the databases and artifacts, unless ``dagster.yaml`` names others.
        config: Folder of ``dagster.yaml``.
    """
    ref = InstanceRef.from_dir(str(state), config_dir=str(config), overrides={"compute_logs": NO_COMPUTE_LOGS})
    return dg.DagsterInstance.from_ref(ref)


def state_folder(instance: dg.DagsterInstance) -> Path:
    """Return the folder of an instance, that of ``dagster.yaml`` unless :func:`open_instance_in` named another one.

    It exists also where Postgres keeps the runs. The property that names it is not documented.
    """
    return Path(instance.root_directory)


class RequeueRun(DagsterUserCodeUnreachableError):
    """A run that cannot be launched now.

    Of the errors that a launcher may raise, Dagster puts a run back into its queue for the base of this class only, as
    ``max_user_code_failure_retries`` of the queue says, and waits before it launches the next one.
    """


def launcher_of(home: Path) -> object:
    """Return the run launcher that the ``dagster.yaml`` of a folder names, without opening the storages.

    ``DagsterInstance.get`` connects to the storages, and a worker forks: its children must not share connections.
    """
    return InstanceRef.from_dir(str(home)).run_launcher


def report_engine_event(instance: dg.DagsterInstance, run: dg.DagsterRun, message: str) -> None:
    """Add a line to the events of a run; an instance has no public method for a line that no step logs."""
    instance.report_engine_event(message, run)


def keys_in_run(context: dg.AssetExecutionContext) -> Set[dg.AssetKey]:
    """Return the assets that were selected for the run of this step.

    A re-execution from failure has the selection of its parent run, although it executes only the failed steps.

    ``context.selected_asset_keys``, the public property, covers the step only, and the selection of a
    ``DagsterRun`` is empty for a whole job.
    """
    return frozenset(context.job_def.asset_layer.executable_asset_keys)


def has_downstream_in_run(context: dg.AssetExecutionContext) -> bool:
    """Return whether an asset of the same run depends on this one; the asset graph of a job has no public name."""
    layer = context.job_def.asset_layer
    return bool(layer.asset_graph.get(context.asset_key).child_keys & keys_in_run(context))


def downstream_in_run(context: dg.AssetExecutionContext) -> list[dg.AssetKey]:
    """Return the assets of the same run that depend on this one, directly or not, and have the same partitions."""
    graph, in_run = context.job_def.asset_layer.asset_graph, keys_in_run(context)
    found: list[dg.AssetKey] = []
    waiting = [context.asset_key]
    while waiting:
        children = sorted((graph.get(waiting.pop()).child_keys & in_run) - set(found))
        found += children
        waiting += children
    partitions = graph.get(context.asset_key).partitions_def
    return [key for key in found if graph.get(key).partitions_def == partitions]


def maps_to_all_partitions(context: dg.InputContext) -> bool:
    """Return whether an input asks for all partitions there are, as that of an unpartitioned asset does by default.

    The partition mapping of an input has no public name.
    """
    step = context.step_context
    downstream = step.job_def.asset_layer.get_assets_def_for_node(step.node_handle)
    if downstream is None or not downstream.keys:
        return False
    graph = step.job_def.asset_layer.asset_graph
    return isinstance(
        graph.get_partition_mapping(next(iter(downstream.keys)), context.asset_key), dg.AllPartitionMapping
    )


def executes_whole_run(context: dg.AssetExecutionContext) -> bool:
    """Return whether the process of this step executes all steps of its run, and nothing else.

    That is so with the in-process executor, which ``definitions`` names. The executor of a job has no public name.
    """
    return context.job_def.executor_def is dg.in_process_executor


def expected_step_order(keys: Iterable[dg.AssetKey]) -> list[dg.AssetKey]:
    """Return root assets in the order in which the in-process executor runs their steps.

    Dagster documents no order. It sorts steps of the same depth by their key, the name of the op. Rely on the order
    for speed only, never for correctness.
    """
    return sorted(keys, key=lambda key: key.to_python_identifier())


def check_evaluations(
    instance: dg.DagsterInstance, check: dg.AssetCheckKey, limit: int
) -> Iterator[tuple[str, dg.AssetCheckEvaluation]]:
    """Yield the latest evaluations of an asset check with their run ids, newest first.

    The public interface of an instance has no history of a check; its event log storage has.

    Args:
        instance: The instance.
        check: The check.
        limit: Number of evaluations to read.
    """
    for record in instance.event_log_storage.get_asset_check_execution_history(check, limit=limit):
        event = record.event.dagster_event if record.event else None
        evaluation = event.event_specific_data if event else None
        if isinstance(evaluation, dg.AssetCheckEvaluation):
            yield record.run_id, evaluation


def check_evaluations_after(
    instance: dg.DagsterInstance, after: int, limit: int, before: int | None = None
) -> Iterator[tuple[int, str, dg.AssetCheckEvaluation]]:
    """Yield the evaluations of all asset checks since an event: storage id, run id, and evaluation, oldest first.

    The public methods of an instance read the history of no check, and on SQLite they read such events from the
    databases of the runs, where no number orders them. The index has all of them.

    Args:
        instance: The instance.
        after: Storage id of the last event that was read.
        limit: Number of evaluations to read.
        before: Storage id of the first event that is not read; None to read all.
    """
    kind = dg.DagsterEventType.ASSET_CHECK_EVALUATION
    records_filter = dg.EventRecordsFilter(kind, after_cursor=after, before_cursor=before)
    for record in _check_events(instance, records_filter, limit, ascending=True):
        data: Any = record.event_log_entry.get_dagster_event().event_specific_data
        yield record.storage_id, record.run_id, data


def newest_check_evaluation(instance: dg.DagsterInstance) -> int:
    """Return the storage id of the newest evaluation of any asset check; 0 without one."""
    records_filter = dg.EventRecordsFilter(dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    return next((record.storage_id for record in _check_events(instance, records_filter, 1, ascending=False)), 0)


def _check_events(
    instance: dg.DagsterInstance, records_filter: dg.EventRecordsFilter, limit: int, ascending: bool
) -> Sequence[dg.EventLogRecord]:
    storage = instance.event_log_storage
    if isinstance(storage, SqlEventLogStorage):
        return SqlEventLogStorage.get_event_records(storage, records_filter, limit, ascending)
    return storage.get_event_records(records_filter, limit, ascending)


def latest_check_records(
    instance: dg.DagsterInstance, checks: Sequence[dg.AssetCheckKey]
) -> Mapping[dg.AssetCheckKey, AssetCheckExecutionRecord]:
    """Return what the asset's page shows of each check: its latest execution, planned, evaluated, or neither.

    The latest is the one that was planned last, also if another one was evaluated after it. The public interface of an
    instance has no executions of a check.
    """
    return instance.event_log_storage.get_latest_asset_check_execution_by_key(checks)


def run_of_latest_check(instance: dg.DagsterInstance, check: dg.AssetCheckKey) -> str | None:
    """Return the run of the execution that :func:`latest_check_records` returns, without the execution itself."""
    storage = instance.event_log_storage
    if isinstance(storage, SqlEventLogStorage):
        rows = _rows(storage, _LATEST_CHECK_RUN, asset=check.asset_key.to_string(), check=check.name)
        return str(rows[0][0]) if rows else None
    record = latest_check_records(instance, [check]).get(check)
    return None if record is None else record.run_id


_LATEST_CHECK_RUN: Final = db.text(
    "SELECT run_id FROM asset_check_executions WHERE asset_key = :asset AND check_name = :check "
    "ORDER BY id DESC LIMIT 1"
)
_ATTEMPTS: Final = db.text(
    # The joins are in the order of the index over asset, type, partition, and id; a table is read for attempts only.
    "SELECT asset_key, partition, run_id, id FROM event_logs WHERE id IN (SELECT planned.id FROM ("
    "SELECT asset_key, partition, MAX(id) AS id FROM event_logs WHERE asset_key IN :assets AND partition IS NOT NULL "
    "AND dagster_event_type = 'ASSET_MATERIALIZATION_PLANNED' GROUP BY asset_key, partition) AS planned "
    "WHERE NOT EXISTS (SELECT 1 FROM event_logs AS made WHERE made.asset_key = planned.asset_key "
    "AND made.dagster_event_type = 'ASSET_MATERIALIZATION' AND made.partition = planned.partition "
    "AND made.id > planned.id))"
).bindparams(db.bindparam("assets", expanding=True))
# Events from before an asset was wiped do not count. Dagster knows which those are; hardly any asset was ever wiped.
_WIPED: Final = db.text(
    "SELECT asset_key FROM asset_keys WHERE asset_key IN :assets AND asset_details IS NOT NULL"
).bindparams(db.bindparam("assets", expanding=True))
_LAST_PLANNED_RUN: Final = db.text(
    "SELECT run_id FROM event_logs WHERE asset_key = :asset AND run_id <> :no_run "
    "AND dagster_event_type = 'ASSET_MATERIALIZATION_PLANNED' ORDER BY id DESC LIMIT 1"
)
_ASSETS_PER_QUERY: Final = 500


def _rows(storage: SqlEventLogStorage, query: db.TextClause, **values: object) -> Sequence[Any]:
    with storage.index_connection() as connection:
        return connection.execute(query, values).fetchall()


def rows_of_postgres(instance: dg.DagsterInstance, query: db.TextClause, **values: object) -> Sequence[Any] | None:
    """Return the rows of a query to an event log on Postgres; None if the event log is elsewhere.

    The public interface of an instance does not show the transactions of its database.
    """
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        return None
    with storage.index_connection() as connection:
        is_postgres = connection.dialect.name == "postgresql"
        return connection.execute(query, values).fetchall() if is_postgres else None


def newest_materializations(instance: dg.DagsterInstance, assets: Sequence[dg.AssetKey]) -> dict[dg.AssetKey, int]:
    """Return the storage id of the newest materialization of each asset, 0 of one that has none, all read at once.

    On Postgres, it is read from the events. The record of an asset, which the public names return, has the event that
    was recorded last there: of two processes that write to the same asset, that may be the older event.
    """
    by_text = {asset.to_string(): asset for asset in assets}
    rows = rows_of_postgres(instance, _NEWEST_MATERIALIZATIONS, assets=list(by_text)) if assets else []
    if rows is not None:
        return {by_text[text]: newest or 0 for text, newest in rows}
    entries = [record.asset_entry for record in instance.get_asset_records(list(assets))]
    return {entry.asset_key: entry.last_materialization_storage_id or 0 for entry in entries}


_NEWEST_MATERIALIZATIONS: Final = db.text(
    "SELECT asset_key, (SELECT id FROM event_logs WHERE event_logs.asset_key = asset_keys.asset_key "
    "AND dagster_event_type = 'ASSET_MATERIALIZATION' ORDER BY id DESC LIMIT 1) "
    "FROM asset_keys WHERE asset_key IN :assets"
).bindparams(db.bindparam("assets", expanding=True))


def unmaterialized_attempts(
    instance: dg.DagsterInstance, assets: Sequence[dg.AssetKey]
) -> dict[dg.AssetKey, dict[str, tuple[str, int]]]:
    """Return the partitions that were planned and not materialized since, with the run and the event that planned them.

    One query for up to 500 assets. An asset's page shows the same partitions as in progress or failed, by the status
    of their run. The public interface of an instance names neither.
    """
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        read = storage.get_latest_asset_partition_materialization_attempts_without_materializations
        return {asset: dict(read(asset)) for asset in assets}
    by_text = {asset.to_string(): asset for asset in assets}
    texts, found = list(by_text), {asset: dict[str, tuple[str, int]]() for asset in assets}
    for start in range(0, len(texts), _ASSETS_PER_QUERY):
        for text, partition, run_id, event in _rows(
            storage, _ATTEMPTS, assets=texts[start : start + _ASSETS_PER_QUERY]
        ):
            found[by_text[text]][partition] = run_id, event
    attempted = [asset.to_string() for asset, attempts in found.items() if attempts]
    for (text,) in _rows(storage, _WIPED, assets=attempted) if attempted else ():
        asset = by_text[text]
        found[asset] = dict(storage.get_latest_asset_partition_materialization_attempts_without_materializations(asset))
    return found


def materialized_ranges(
    instance: dg.DagsterInstance, assets: Mapping[dg.AssetKey, dg.TimeWindowPartitionsDefinition]
) -> dict[dg.AssetKey, list[tuple[dt.date, dt.date]]]:
    """Return what the partitions tab of each asset shows as materialized, as ranges of days with the end excluded.

    Dagster keeps the ranges beside the asset. Its public names return a text for each of thousands of partitions.

    Args:
        instance: The instance.
        assets: The partitions of each asset, whose days begin at midnight UTC.
    """
    ranges: dict[dg.AssetKey, list[tuple[dt.date, dt.date]]] = {}
    for record in instance.get_asset_records(list(assets)):
        entry = record.asset_entry
        newest = entry.last_materialization_storage_id
        if not newest:
            continue
        partitions, status = assets[entry.asset_key], entry.cached_status
        identity = partitions.get_serializable_unique_identifier()
        if status is None or status.latest_storage_id < newest or status.partitions_def_id != identity:
            status = get_and_update_asset_status_cache_value(instance, entry.asset_key, partitions)
        subset: Any = status and status.deserialize_materialized_partition_subsets(partitions)
        windows = subset.included_time_windows if subset is not None else ()
        ranges[entry.asset_key] = [(window.start.date(), window.end.date()) for window in windows]
    return ranges


def last_planned_run(instance: dg.DagsterInstance, asset: dg.AssetKey) -> str | None:
    """Return the run that was the last to plan the asset; no public name finds it behind later events outside runs."""
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        return None
    rows = _rows(storage, _LAST_PLANNED_RUN, asset=asset.to_string(), no_run=RUNLESS_RUN_ID)
    return str(rows[0][0]) if rows else None


def latest_observation_ids(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partitions: Iterable[str]
) -> Mapping[str, int]:
    """Return the storage id of the latest observation of each partition that has one; no public name does it at once.

    Args:
        instance: The instance.
        asset: The asset.
        partitions: The partitions, at least one.
    """
    kind = dg.DagsterEventType.ASSET_OBSERVATION
    return instance.event_log_storage.get_latest_storage_id_by_partition(asset, kind, set(partitions))


def latest_materialization_ids(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partitions: Iterable[str]
) -> Mapping[str, int]:
    """Return the storage id of the latest materialization of each partition, as :func:`latest_observation_ids` does."""
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION
    return instance.event_log_storage.get_latest_storage_id_by_partition(asset, kind, set(partitions))


def recorded_paths(instance: dg.DagsterInstance, asset: dg.AssetKey, partitions: Sequence[str]) -> dict[str, str]:
    """Return the metadata ``path`` of the latest materialization of each partition, where it has one.

    Args:
        instance: The instance.
        asset: The asset.
        partitions: The partitions, at least one.
    """
    ids = list(latest_materialization_ids(instance, asset, partitions).values())
    paths: dict[str, str] = {}
    for start in range(0, len(ids), _ASSETS_PER_QUERY):
        some = ids[start : start + _ASSETS_PER_QUERY]
        found = instance.fetch_materializations(dg.AssetRecordsFilter(asset, storage_ids=some), limit=len(some))
        for record in found.records:
            materialization, key = record.asset_materialization, record.partition_key
            path = materialization.metadata.get("path") if materialization is not None else None
            if key is not None and isinstance(path, dg.PathMetadataValue) and path.path:
                paths[key] = path.path
    return paths


def add_partition_metadata(
    context: dg.AssetExecutionContext, metadata: Mapping[str, Mapping[str, dg.MetadataValue]]
) -> None:
    """Add metadata, by partition key, to the materializations that Dagster makes of the output of a step.

    ``context.add_asset_metadata``, the public method, lists the partitions of the run for each key, and copies what was
    added before, so its cost grows with the square of their number (read in the source of Dagster 1.13.27).
    """
    step = context.get_step_execution_context()
    added: dict[Any, Mapping[str, Any]] = {
        AssetMetadataHandle(asset_key=context.asset_key, partition_key=key): of_partition
        for key, of_partition in metadata.items()
    }
    before = step._metadata_accumulator.per_output_metadata
    step._metadata_accumulator = OutputMetadataAccumulator(per_output_metadata={**before, **added})


def find_target_of_check(context: dg.AssetExecutionContext) -> None:
    """Find the latest materialization of a step's asset, which the result of its check names, after the step wrote it.

    Dagster finds it with the whole record of the asset, in five statements that it builds for each step. It keeps what
    it found for the step, which no public name sets. Nothing is found for a run over one partition key, where Dagster
    looks up that partition instead, or in a storage without SQL.
    """
    step = context.get_step_execution_context()
    storage, found = context.instance.event_log_storage, cast("dict[dg.AssetKey, object]", step.input_asset_records)
    if not isinstance(storage, SqlEventLogStorage) or step.has_partition_key:
        return
    for number, run_id, event in _rows(storage, _LATEST_MATERIALIZATION, asset=context.asset_key.to_string()):
        kind, at = dg.DagsterEventType.ASSET_MATERIALIZATION, float(json.loads(event)["timestamp"])
        found[context.asset_key] = InputAssetVersionInfo(number, kind, None, run_id, at)


_LATEST_MATERIALIZATION: Final = db.text(
    "SELECT id, run_id, event FROM event_logs WHERE asset_key = :asset "
    "AND dagster_event_type = 'ASSET_MATERIALIZATION' ORDER BY id DESC LIMIT 1"
)


def as_not_blocking(
    context: dg.AssetExecutionContext, result: dg.AssetCheckResult
) -> tuple[dg.Output[None], dg.AssetCheckEvaluation]:
    """Return what a step yields for the result of its check, so that it does not fail the step although it failed.

    The check blocks, and Dagster lets a step choose only between that and a warning. It converts a result to these two.
    """
    evaluation = result.to_asset_check_evaluation(context.get_step_execution_context())
    name = context.assets_def.get_output_name_for_asset_check_key(evaluation.asset_check_key)
    return dg.Output(None, name), copy(evaluation, blocking=False)


def run_dagster_dev(arguments: Sequence[str], webserver: Sequence[str], is_up: Callable[[], bool]) -> None:
    """Run ``dagster dev`` in this process until interrupted, with another program as its web server.

    ``dagster dev`` has no option for the web server. It loads the code location, and then starts
    ``python -m dagster_webserver`` first of its children, with the function that is replaced here.

    Two things happen in another order than in Dagster, which makes the user interface of 2,000 series available seconds
    sooner. The web server starts while the code location loads, because its imports take as long. And the daemon
    starts once the web server responds: both ask the code server for all definitions, which it would describe for
    both at the same time, although the second answer takes half as long after the first.

    Its children end with it, also if it is interrupted before it watches them, or again while it ends them: Dagster
    then leaves a web server that keeps its port, and a daemon that goes on launching runs. Runs in progress continue.

    Args:
        arguments: The arguments of ``dagster dev``.
        webserver: The command that reads the arguments of ``dagster-webserver``, see :func:`read_arguments`.
        is_up: Returns whether the web server responds.

    Raises:
        RuntimeError: Dagster starts its web server in another way, so that it cannot be replaced.
    """
    from dagster._cli import dev

    children = _Children(webserver, is_up)
    try:
        with (
            _replaced(dev, "ProxyServerManager", children.before_loading),
            _replaced(dev, "get_ipc_shutdown_pipe", children.with_early_pipe),
            _replaced(dev, "open_ipc_subprocess", children.starting),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", dg.SupersessionWarning)
            dev.dev_command.main([*arguments], prog_name="dagster dev", standalone_mode=False)
    finally:
        end_processes(children.started)


class _Children:
    """The processes that ``dagster dev`` starts, and the functions with which it starts them.

    Args:
        webserver: The command of the web server.
        is_up: Returns whether the web server responds.
    """

    def __init__(self, webserver: Sequence[str], is_up: Callable[[], bool]) -> None:
        self.started: list[subprocess.Popen[bytes]] = []
        self._webserver = webserver
        self._is_up = is_up
        self._pipe: tuple[int, int] | None = None  # of the web server, until Dagster asks for it
        self._has_arguments = False

    def before_loading(self, load: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that starts the web server and then loads the code location."""

        def start_and_load(*values: object, **options: object) -> object:
            from dagster_shared.ipc import get_ipc_shutdown_pipe, open_ipc_subprocess

            self._pipe = get_ipc_shutdown_pipe()
            self._start_webserver(open_ipc_subprocess, pass_fds=[self._pipe[0]])
            return load(*values, **options)

        return start_and_load

    def with_early_pipe(self, make: Callable[[], tuple[int, int]]) -> Callable[[], tuple[int, int]]:
        """Return a function that returns the pipe of the web server, if that runs already, and then new ones."""

        def take_or_make() -> tuple[int, int]:
            pipe, self._pipe = self._pipe, None
            return pipe or make()

        return take_or_make

    def starting(self, start: Callable[..., Any]) -> Callable[..., object]:
        """Return a function that starts a child; the web server gets its arguments instead."""

        def start_child(parts: Sequence[str], **options: object) -> object:
            if list(parts[1:3]) == ["-m", "dagster_webserver"]:
                if not self.started:
                    self._start_webserver(start, **options)
                self._has_arguments = True
                return _pass_arguments(self.started[0], parts[3:])
            if not self._has_arguments:
                raise RuntimeError(f"Dagster {dg.__version__} starts its web server in a way that is not known here")
            self._await_webserver()
            child: subprocess.Popen[bytes] = start(parts, **options)
            self.started.append(child)
            return child

        return start_child

    def _start_webserver(self, start: Callable[..., Any], **options: object) -> None:
        self.started.append(start([*self._webserver], stdin=subprocess.PIPE, **options))

    def _await_webserver(self) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not self._is_up() and self.started[0].poll() is None and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)


_PATIENCE_SECONDS: Final = 30  # a web server that does not respond must not keep the daemon from its work
_POLL_SECONDS: Final = 0.1


def _pass_arguments(process: subprocess.Popen[bytes], arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    with suppress(BrokenPipeError), cast("BinaryIO", process.stdin) as file:  # `dagster dev` notices that it has ended
        file.write(json.dumps(list(arguments)).encode() + b"\n")
    return process


def read_arguments() -> list[str]:
    """Return the arguments that :func:`run_dagster_dev` passes to a web server; wait for them.

    Raises:
        SystemExit: The process that started this one has ended without them.
    """
    if not (line := sys.stdin.buffer.readline()):
        sys.exit(0)
    return [str(argument) for argument in json.loads(line)]


@dataclass(frozen=True, slots=True)
class RemoteAutomation:
    """A schedule or a sensor of a code location, as the user interface knows it.

    Attributes:
        name: Its name.
        kind: Which of the two.
        description: What it does.
    """

    name: str
    kind: Literal["schedule", "sensor"]
    description: str
    _remote: Any

    def is_on(self, instance: dg.DagsterInstance) -> bool:
        """Return whether it is on in the instance, or by its definition if nobody has switched it."""
        stored = instance.get_instigator_state(self._remote.get_remote_origin_id(), self._remote.selector_id)
        return bool(self._remote.get_current_instigator_state(stored).is_running)

    def switch(self, instance: dg.DagsterInstance, on: bool) -> None:
        """Turn it on or off, as a click in the user interface does; do nothing if it is that already."""
        if self.is_on(instance) == on:
            return
        if on:
            start = instance.start_schedule if self.kind == "schedule" else instance.start_sensor
            start(self._remote)
        else:
            stop = instance.stop_schedule if self.kind == "schedule" else instance.stop_sensor
            stop(self._remote.get_remote_origin_id(), self._remote.selector_id, self._remote)


@contextmanager
def loaded_automations(instance: dg.DagsterInstance, target: Sequence[str]) -> Iterator[list[RemoteAutomation]]:
    """Load a code location in a code server, and yield its schedules and sensors by name.

    The command line of Dagster turns automations on and off by the same functions, but prints for people only. No
    public name gives the objects that these functions take.

    Args:
        instance: The instance.
        target: What to load, as arguments of Dagster's command line: ``-w FILE`` or ``-m MODULE``.

    Raises:
        ConfigurationError: The code location does not load, or there are several.
    """
    from dagster._cli.workspace.cli_target import (
        get_code_location_from_workspace,
        get_remote_repository_from_code_location,
    )

    with _loaded_workspace(instance, target) as workspace:
        location = get_code_location_from_workspace(workspace, None)
        repository = get_remote_repository_from_code_location(location, None)
        schedules = [
            RemoteAutomation(entry.name, "schedule", entry.description or "", entry)
            for entry in repository.get_schedules()
        ]
        sensors = [
            RemoteAutomation(entry.name, "sensor", entry.description or "", entry) for entry in repository.get_sensors()
        ]
        yield sorted(schedules + sensors, key=lambda entry: entry.name)


@contextmanager
def _loaded_workspace(instance: dg.DagsterInstance, target: Sequence[str]) -> Iterator[Any]:
    """Load code locations in code servers, or connect to those that run already, and yield Dagster's view of them."""
    from dagster._cli.workspace.cli_target import get_workspace_from_cli_opts
    from dagster_shared.cli import WorkspaceOpts

    option, name = target
    chosen = WorkspaceOpts(workspace=[name]) if option == "-w" else WorkspaceOpts(module_name=[name])
    try:
        with get_workspace_from_cli_opts(instance, dg.__version__, chosen, log_level="WARNING") as workspace:
            yield workspace
    except click.UsageError as error:
        raise ConfigurationError(f"the code location cannot be used: {first_line(error.message)}") from None


class LaunchTarget:
    """A code location whose runs can be put into the queue of the instance.

    Dagster's command line launches jobs, but neither a selection of their assets nor a range of partitions. No public
    name creates a run of a job that another process executes.
    """

    def __init__(self, instance: dg.DagsterInstance, workspace: Any, location: Any, repository: Any) -> None:
        self._instance, self._workspace = instance, workspace
        self._location, self._repository = location, repository

    def submit(
        self,
        run_id: str,
        job: str,
        assets: Sequence[dg.AssetKey],
        run_config: Mapping[str, Any],
        tags: Mapping[str, str],
    ) -> None:
        """Create a run over assets of a job, as a sensor does, and submit it to the run coordinator.

        Raises:
            ConfigurationError: The code location refuses the run, such as because its version has other settings.
        """
        selector = JobSubsetSelector(self._location.name, self._repository.name, job, None, list(assets))
        try:
            remote_job = self._location.get_job(selector)
            plan = self._location.get_execution_plan(remote_job, run_config, None, None, self._instance)
        except dg.DagsterError as error:
            raise ConfigurationError(f"the code location refuses a run of {job}: {_refusal(error)}") from None
        self._instance.create_run(
            job_name=job,
            run_id=run_id,
            run_config=run_config,
            status=dg.DagsterRunStatus.NOT_STARTED,
            tags=tags,
            root_run_id=None,
            parent_run_id=None,
            step_keys_to_execute=None,
            execution_plan_snapshot=plan.execution_plan_snapshot,
            job_snapshot=remote_job.job_snapshot,
            parent_job_snapshot=remote_job.parent_job_snapshot,
            asset_selection=frozenset(assets),
            asset_check_selection=None,
            resolved_op_selection=None,
            op_selection=None,
            remote_job_origin=remote_job.get_remote_origin(),
            job_code_origin=remote_job.get_python_origin(),
            asset_graph=self._repository.asset_graph,
        )
        self._instance.submit_run(run_id, self._workspace)


def _refusal(error: Exception) -> str:
    """Return why a code server refuses something: the first line of the innermost error that it reports."""
    reported = getattr(error, "user_code_process_error_infos", None)
    text = reported[-1].message if reported else str(error)
    return first_line(text, type(error).__name__)


@contextmanager
def launch_target(
    instance: dg.DagsterInstance, target: Sequence[str], assets: Mapping[dg.AssetKey, str]
) -> Iterator[LaunchTarget]:
    """Load the workspace, and yield the code location that has all assets in their jobs.

    Args:
        instance: The instance.
        target: What to load, as in :func:`loaded_automations`.
        assets: The name of the job of each asset.

    Raises:
        ConfigurationError: No code location loads that has them.
    """
    with _loaded_workspace(instance, target) as workspace:
        reason = "it has no code location"
        for location in workspace.code_locations:
            for repository in location.get_repositories().values():
                absent = [key for key, job in assets.items() if not _has(repository, key, job)]
                if not absent:
                    yield LaunchTarget(instance, workspace, location, repository)
                    return
                reason = (
                    f"the code location {location.name} does not have {absent[0].to_user_string()}; "
                    "reload it, or restart its code server, so that it reads the universe again"
                )
        for error in workspace.code_location_errors():
            reason = first_line(error.message, reason)
        raise ConfigurationError(f"{target[1]} cannot be used: {reason}")


def _has(repository: Any, key: dg.AssetKey, job: str) -> bool:
    node = repository.get_asset_node_snap(key)
    return node is not None and job in node.job_names and repository.has_job(job)


QUEUE_DAEMON: Final = "QUEUED_RUN_COORDINATOR"
"""The part of Dagster's daemon that takes runs from the queue."""


def seconds_since_daemon(instance: dg.DagsterInstance) -> float | None:
    """Return how long ago the daemon last reported that it takes runs from the queue; None if it never did.

    Heartbeats have no public name. The clocks of the daemon and of this process may be those of two hosts.
    """
    heartbeat = instance.get_daemon_heartbeats().get(QUEUE_DAEMON)
    return None if heartbeat is None else max(0.0, time.time() - heartbeat.timestamp)


_REPORTED: Final = db.text(
    "SELECT run_id, count(*) FROM event_logs WHERE run_id IN :runs AND asset_key IN :assets AND partition IS NOT NULL "
    "AND dagster_event_type IN ('ASSET_MATERIALIZATION', 'ASSET_OBSERVATION') GROUP BY run_id"
).bindparams(db.bindparam("runs", expanding=True), db.bindparam("assets", expanding=True))


def partitions_reported(
    instance: dg.DagsterInstance, run_ids: Sequence[str], assets: Iterable[dg.AssetKey]
) -> dict[str, int]:
    """Return how many partitions of some assets each run has materialized or refused; none in a storage without SQL.

    The public interface of an instance reads whole events.
    """
    storage = instance.event_log_storage
    if not run_ids or not isinstance(storage, SqlEventLogStorage):
        return {}
    texts = [asset.to_string() for asset in assets]
    return {str(run): int(count) for run, count in _rows(storage, _REPORTED, runs=list(run_ids), assets=texts)}


def prepare_webserver() -> None:
    """Import what :func:`run_webserver` needs."""
    import dagster_webserver.cli  # noqa: F401


def run_webserver(arguments: Sequence[str], wrap: Callable[[ASGIApp], ASGIApp]) -> None:
    """Run ``dagster-webserver`` in this process, with its application wrapped in another one.

    The web server has no option for an ASGI middleware. Its command line makes the application with the function that
    is replaced here, and serves it with uvicorn.

    Args:
        arguments: The arguments of ``dagster-webserver``.
        wrap: Receives the application, and returns the one that is served.
    """
    from dagster_webserver import cli

    def creating(create: Callable[..., ASGIApp]) -> Callable[..., ASGIApp]:
        return lambda *values, **options: wrap(create(*values, **options))

    with _replaced(cli, "create_app_from_workspace_process_context", creating):
        cli.dagster_webserver.main([*arguments], prog_name="dagster-webserver", auto_envvar_prefix="DAGSTER_WEBSERVER")


class EndOfRun:
    """Decides that a run which a user ends is recorded as canceled, whenever its steps notice it.

    Dagster records a failure of a run that is canceled already, and so of every step that ends late. No public name
    keeps it from that. Whoever ends the run asks for its end first, and closes it at last.

    Args:
        instance: The instance that records the run.
        run_id: The run, which is executed in this process.
    """

    def __init__(self, instance: dg.DagsterInstance, run_id: str) -> None:
        self._instance = instance
        self._run_id = run_id
        self._lock = threading.RLock()
        self._is_asked_for = False
        self._closed_by: int | None = None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch the events of the run for the length of the block, in which it is executed."""
        handle = self._instance.handle_new_event

        def watch(event: EventLogEntry, **options: Any) -> None:
            if event.run_id != self._run_id or self._closed_by == threading.get_ident():
                handle(event, **options)
                return
            with self._lock:
                if self._closed_by is not None:
                    return
                run = self._instance.get_run_by_id(self._run_id) if self._is_asked_for and _is_failure(event) else None
                if run is None:
                    handle(event, **options)
                else:
                    self._instance.report_run_canceled(run, message=str(event.get_dagster_event().message))

        vars(self._instance)["handle_new_event"] = watch
        try:
            yield
        finally:
            vars(self._instance).pop("handle_new_event", None)

    def ask(self) -> None:
        """From now on, a failure of the run is recorded as its cancellation."""
        self._is_asked_for = True

    def close(self, seconds: float) -> None:
        """From now on, nothing is recorded of the run, except by this thread.

        Args:
            seconds: How long to wait for an event that is being recorded.
        """
        has_lock = self._lock.acquire(timeout=seconds)
        self._closed_by = threading.get_ident()
        if has_lock:
            self._lock.release()


def _is_failure(event: EventLogEntry) -> bool:
    return event.is_dagster_event and event.get_dagster_event().is_run_failure


@contextmanager
def _replaced(module: ModuleType | type, name: str, make: Callable[[Any], object]) -> Iterator[None]:
    """Replace a function, for the length of the block, by the one that ``make`` returns for it."""
    original = getattr(module, name)
    setattr(module, name, make(original))
    try:
        yield
    finally:
        setattr(module, name, original)


_migrations: ScriptDirectory | None = None


@contextmanager
def migrations_read_once() -> Iterator[None]:
    """Let Dagster read the list of its migrations once in this process, for the length of the block.

    Dagster compares the version of each database that it opens with that list. It reads the list from a hundred
    Python files, for each of the three databases of an instance and for that of each run. All have the same list.
    """

    def reading(read: Callable[[Config], ScriptDirectory]) -> Callable[[Config], ScriptDirectory]:
        def read_once(config: Config) -> ScriptDirectory:
            global _migrations
            if config.get_main_option("script_location") != ALEMBIC_SCRIPTS_LOCATION:
                return read(config)
            _migrations = _migrations or read(config)
            return _migrations

        return read_once

    with _replaced(ScriptDirectory, "from_config", reading):
        yield


PLANNED: Final = AssetCheckExecutionRecordStatus.PLANNED.value
"""The status of a check that a run has not evaluated yet, in the table of check executions."""


def planned_for_the_whole_run(event: EventLogEntry) -> EventLogEntry:
    """Return the event that plans a check, without its partitions if there are several.

    Dagster plans a check per partition of the run, also a check without partitions, and evaluates every check once in
    a run over several partitions. The event of a run over one partition is returned unchanged.
    """
    planned_event = event.get_dagster_event()
    planned = planned_event.asset_check_planned_data
    if planned.partitions_subset is None or len(planned.partitions_subset) == 1:
        return event
    without = AssetCheckEvaluationPlanned(asset_key=planned.asset_key, check_name=planned.check_name)
    return event._replace(dagster_event=planned_event._replace(event_specific_data=without))


def log_materializations(
    context: dg.AssetExecutionContext, materializations: Sequence[dg.AssetMaterialization]
) -> list[dg.DagsterEvent]:
    """Log materializations of one asset as a batch, and return their events, which the step must yield.

    Dagster logs an ``AssetMaterialization`` that a step yields on its own, and a batch only for an output. The events
    of a batch pass through the instance like any other; a storage without batches stores them one by one.

    Args:
        context: The step.
        materializations: Of one asset, because Dagster's Postgres storage updates the asset of the last one only.
    """
    step = context.get_step_execution_context()
    return [dg.DagsterEvent.asset_materialization(step, event, batch) for event, batch in _as_batch(materializations)]


def log_observations(
    context: dg.AssetExecutionContext, observations: Sequence[dg.AssetObservation]
) -> list[dg.DagsterEvent]:
    """Log observations of one asset as :func:`log_materializations` does, and return their events."""
    step = context.get_step_execution_context()
    return [dg.DagsterEvent.asset_observation(step, event, batch) for event, batch in _as_batch(observations)]


def withdraw_plan(instance: dg.DagsterInstance, asset: dg.AssetKey, partitions: Sequence[str]) -> None:
    """Let partitions that a run planned and will not execute look as if it had not planned them.

    Dagster shows every partition that a failed run planned and did not materialize as failed, also those of steps that
    never started. No public name takes a plan back. Planned once more outside a run, they are neither in progress nor
    failed: Dagster takes their run for a deleted one.
    """
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value
    for partition, batch in _as_batch(partitions):
        data = AssetMaterializationPlannedData(asset, partition)
        event = dg.DagsterEvent(kind, job_name=RUNLESS_JOB_NAME, event_specific_data=data)
        instance.report_dagster_event(event, RUNLESS_RUN_ID, batch_metadata=batch)


def report_materializations(instance: dg.DagsterInstance, materializations: Sequence[dg.AssetMaterialization]) -> None:
    """Report materializations of one asset outside a run, as a batch.

    ``DagsterInstance.report_runless_asset_event``, the public way, stores each on its own.
    """
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION.value
    for materialization, batch in _as_batch(materializations):
        data = StepMaterializationData(materialization)
        event = dg.DagsterEvent(kind, job_name=RUNLESS_JOB_NAME, event_specific_data=data)
        instance.report_dagster_event(event, RUNLESS_RUN_ID, batch_metadata=batch)


def report_failed_run(
    instance: dg.DagsterInstance,
    job: str,
    observations: Mapping[dg.AssetKey, Sequence[dg.AssetObservation]],
    message: str,
    tags: Mapping[str, str],
) -> None:
    """Record a run that has failed over the partitions that it observed, although no process has executed it.

    Dagster shows a partition as failed only if a failed run planned it after its last materialization. No public name
    plans a partition outside the execution of a run.

    Args:
        instance: The instance.
        job: The name that the list of runs shows.
        observations: What the page of each partition shows, by asset.
        message: Why the run failed.
        tags: Tags of the run; it is not retried.
    """
    planned, observed = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED, dg.DagsterEventType.ASSET_OBSERVATION
    run = instance.add_run(
        dg.DagsterRun(
            job,
            str(uuid.uuid4()),
            asset_selection=frozenset(observations),
            tags={**tags, MAX_RETRIES_TAG: "0"},
        )
    )
    try:
        for asset, of_asset in observations.items():
            for kind in (planned, observed):
                for observation, batch in _as_batch(of_asset):
                    data = (
                        AssetMaterializationPlannedData(asset, observation.partition)
                        if kind is planned
                        else AssetObservationData(observation)
                    )
                    event = dg.DagsterEvent(kind.value, job_name=job, event_specific_data=data)
                    instance.report_dagster_event(event, run.run_id, batch_metadata=batch)
    finally:  # a run that has not ended is believed to be about to write what it planned
        instance.report_run_failed(run, message)


def _as_batch(items: Sequence[_Item]) -> Iterator[tuple[_Item, DagsterEventBatchMetadata]]:
    batch, last = str(uuid.uuid4()), len(items) - 1
    for number, item in enumerate(items):
        yield item, DagsterEventBatchMetadata(batch, is_end=number == last)
