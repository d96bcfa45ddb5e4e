"""The one module that touches private or undocumented Dagster names.

Here belongs each name under ``dagster._``, as an import or as text in configuration, and each attribute that leads
into Dagster's undocumented object model. Every entry states why no public name does the same, and
``binance_assets_tests/unit/test_dagster_internals.py`` fails if Dagster changes it. What does not belong here:
anything about candles.

Some names need no private import: ``dg.AssetCheckEvaluation`` is public, a run id is a version 4 UUID, and the tags of
a range run are documented strings (see ``partitions``).
"""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import dagster as dg
from alembic.config import Config
from alembic.script import ScriptDirectory
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned
from dagster._core.definitions.partitions.partitioned_schedule import UnresolvedPartitionedAssetScheduleDefinition
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.events import (
    ASSET_CHECK_EVENTS,
    ASSET_EVENTS,
    EVENT_TYPE_TO_PIPELINE_RUN_STATUS,
    DagsterEventBatchMetadata,
    StepMaterializationData,
)
from dagster._core.events.log import EventLogEntry
from dagster._core.instance import InstanceRef
from dagster._core.instance.utils import RUNLESS_JOB_NAME, RUNLESS_RUN_ID
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable, SqlEventLogStorageTable
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME as INDEX_SHARD
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value
from dagster._core.storage.sql import ALEMBIC_SCRIPTS_LOCATION
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from starlette.types import ASGIApp

# The return types of the public functions `define_asset_job` and `build_schedule_from_partitioned_job`. Dagster exports
# the functions but not the types, and strict type checking needs names for them.
AssetJob = UnresolvedAssetJobDefinition
PartitionedSchedule = UnresolvedPartitionedAssetScheduleDefinition

# What the event log storage (`event_log`) extends. Dagster names `EventLogEntry` and the storages in its documentation,
# but says that users should not extend them; it has no other way to store events in batches on SQLite.
__all__ = [
    "ASSET_CHECK_EVENTS",
    "ASSET_EVENTS",
    "INDEX_SHARD",
    "RUN_STATUS_EVENTS",
    "AssetCheckExecutionsTable",
    "DagsterSqliteStorage",
    "EventLogEntry",
    "SqlEventLogStorageTable",
    "SqliteEventLogStorage",
]
RUN_STATUS_EVENTS: Final = frozenset(EVENT_TYPE_TO_PIPELINE_RUN_STATUS)

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


def run_dagster_dev(arguments: Sequence[str], webserver: Sequence[str]) -> None:
    """Run ``dagster dev`` in this process until interrupted, with another program as its web server.

    ``dagster dev`` has no option for the web server. It starts ``python -m dagster_webserver`` first of its children,
    with the function that is replaced here.

    Args:
        arguments: The arguments of ``dagster dev``.
        webserver: The command that receives the arguments of ``dagster-webserver``.

    Raises:
        RuntimeError: Dagster starts its web server in another way, so that it cannot be replaced.
    """
    from dagster._cli import dev

    def starting(start: Callable[..., object]) -> Callable[..., object]:
        replaced = False

        def start_child(parts: Sequence[str], **options: object) -> object:
            nonlocal replaced
            if list(parts[1:3]) == ["-m", "dagster_webserver"]:
                replaced, parts = True, [*webserver, *parts[3:]]
            if not replaced:
                raise RuntimeError(f"Dagster {dg.__version__} starts its web server in a way that is not known here")
            return start(parts, **options)

        return start_child

    with _replaced(dev, "open_ipc_subprocess", starting), warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.SupersessionWarning)
        dev.dev_command.main([*arguments], prog_name="dagster dev", standalone_mode=False)


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


@contextmanager
def _replaced(module: ModuleType | type, name: str, make: Callable[[Any], object]) -> Iterator[None]:
    """Replace a function, for the length of the block, by the one that ``make`` returns for it."""
    original = getattr(module, name)
    setattr(module, name, make(original))
    try:
        yield
    finally:
        setattr(module, name, original)


def failed_partitions(
    instance: dg.DagsterInstance, asset: dg.AssetKey, definition: dg.PartitionsDefinition[str]
) -> frozenset[str]:
    """Return the keys of the partitions that the asset's page shows as failed.

    ``DagsterInstance.get_status_by_partition``, the public way, looks at each partition since 2017: 0.2 s for an asset.
    It reads the same cached value, which names the failed ones.

    Args:
        instance: The instance.
        asset: The asset.
        definition: Its partitions.
    """
    cached = get_and_update_asset_status_cache_value(instance, asset, definition)
    if cached is None:
        return frozenset()
    failed = cached.deserialize_failed_partition_subsets(definition)
    if failed.is_empty:
        return frozenset()
    in_progress = cached.deserialize_in_progress_partition_subsets(definition)
    return frozenset(failed.get_partition_keys()) - frozenset(in_progress.get_partition_keys())


_migrations: ScriptDirectory | None = None


@contextmanager
def migrations_read_once() -> Iterator[None]:
    """Let Dagster read the list of its migrations once in this process, for the length of the block.

    Dagster compares the version of each database that it opens with that list, and reads it anew, from a hundred
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


def report_materializations(instance: dg.DagsterInstance, materializations: Sequence[dg.AssetMaterialization]) -> None:
    """Report materializations of one asset outside a run, as a batch.

    ``DagsterInstance.report_runless_asset_event``, the public way, stores each on its own.
    """
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION.value
    for materialization, batch in _as_batch(materializations):
        data = StepMaterializationData(materialization)
        event = dg.DagsterEvent(kind, job_name=RUNLESS_JOB_NAME, event_specific_data=data)
        instance.report_dagster_event(event, RUNLESS_RUN_ID, batch_metadata=batch)


def _as_batch(
    materializations: Sequence[dg.AssetMaterialization],
) -> Iterator[tuple[dg.AssetMaterialization, DagsterEventBatchMetadata]]:
    batch, last = str(uuid.uuid4()), len(materializations) - 1
    for number, materialization in enumerate(materializations):
        yield materialization, DagsterEventBatchMetadata(batch, is_end=number == last)
