"""The storages of events and runs: what ``event_log`` extends.

Dagster names ``EventLogEntry`` and the storages in its documentation, but says that users should not extend them. It
has no other way to store events in batches on SQLite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from alembic.config import Config
from alembic.script import ScriptDirectory
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned
from dagster._core.events import ASSET_CHECK_EVENTS, ASSET_EVENTS, EVENT_TYPE_TO_PIPELINE_RUN_STATUS
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable, AssetKeyTable, SqlEventLogStorageTable
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME as INDEX_SHARD
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.runs.sqlite.sqlite_run_storage import SqliteRunStorage
from dagster._core.storage.sql import ALEMBIC_SCRIPTS_LOCATION
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage

from binance_assets.orchestration.dagster_internals.replacement import replaced

__all__ = [
    "ASSET_CHECK_EVENTS",
    "ASSET_EVENTS",
    "INDEX_SHARD",
    "AssetCheckExecutionsTable",
    "AssetKeyTable",
    "DagsterSqliteStorage",
    "EventLogEntry",
    "SqlEventLogStorageTable",
    "SqliteEventLogStorage",
    "SqliteRunStorage",
]
RUN_STATUS_EVENTS: Final = frozenset(EVENT_TYPE_TO_PIPELINE_RUN_STATUS)
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

    with replaced(ScriptDirectory, "from_config", reading):
        yield
