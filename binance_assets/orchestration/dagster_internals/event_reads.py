"""Reads of the event log for which an instance has no public method: assets, partitions, and checks."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

import dagster as dg
import sqlalchemy as db
from dagster._core.execution.context.data_version_cache import InputAssetVersionInfo
from dagster._core.instance.utils import RUNLESS_RUN_ID
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value

__all__ = [
    "AssetCheckExecutionRecord",
]


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

    The public interface of an instance does not show the transactions of its database. Its storage is a class of
    dagster-postgres, which only the extra ``postgres`` installs.
    """
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage) or type(storage).__name__ != "PostgresEventLogStorage":
        return None
    return _rows(storage, query, **values)


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
