"""The event log: Dagster's own SQLite storage with kept connections, and with batches in one transaction per database.

Dagster's storage opens four connections for an event of a partition, each with a new engine, and commits twice: about
13 ms for each of the thousands of events of a backfill. The storage of this module writes the same rows to the same
files, so an instance may change from one to the other at any time, and processes may use both at once.

Here belongs how events are stored. What does not belong here: which events there are (``events``), and the private
names behind this module (``dagster_internals``).
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import weakref
from collections import OrderedDict
from collections.abc import Container, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import cache
from typing import Any, ClassVar, Final, NamedTuple

import dagster as dg
import sqlalchemy as db
from sqlalchemy.pool import NullPool, StaticPool

from binance_assets.orchestration.dagster_internals.event_storage import (
    ASSET_CHECK_EVENTS,
    ASSET_EVENTS,
    INDEX_SHARD,
    PLANNED,
    RUN_STATUS_EVENTS,
    AssetCheckExecutionsTable,
    AssetKeyTable,
    DagsterSqliteStorage,
    EventLogEntry,
    SqlEventLogStorageTable,
    SqliteEventLogStorage,
    SqliteRunStorage,
    migrations_read_once,
    planned_for_the_whole_run,
)

KNOWN_VERSIONS: Final = ("1.13.27", "1.13.28")
"""The versions of Dagster with which the tests have run."""

# How many events Dagster collects at most; 0, its default, means that there are no batches.
_BATCH_SIZE: Final = ("DAGSTER_EVENT_BATCH_SIZE", "1000")
# Marks, for the processes that this one starts, that a line about Dagster's version was printed. Without the prefix of
# the settings: an unknown variable with that is refused.
_SAID: Final = "PLAIN_EVENT_LOG_OF_BINANCE_ASSETS"
# A run writes to the index and to its own database; a user interface reads those of several runs.
_MAX_KEPT: Final = 8
_BUSY_SECONDS: Final = 30
_DISPOSE_SECONDS: Final = 0.5

# Built once: SQLAlchemy finds the text of a statement by its structure, which takes longer than SQLite needs for it.
_INSERT: Final = SqlEventLogStorageTable.insert()
_DELETE_PLANNED: Final = AssetCheckExecutionsTable.delete().where(
    AssetCheckExecutionsTable.c.asset_key == db.bindparam("asset"),
    AssetCheckExecutionsTable.c.check_name == db.bindparam("check"),
    AssetCheckExecutionsTable.c.run_id == db.bindparam("run"),
    AssetCheckExecutionsTable.c.execution_status == PLANNED,
    AssetCheckExecutionsTable.c.partition.is_distinct_from(db.bindparam("evaluated")),
)

_FileIdentity = tuple[int, int] | None


class _Kept(NamedTuple):
    connection: db.Connection
    file: _FileIdentity


class BatchingEventLog(SqliteEventLogStorage):
    """Dagster's SQLite event log with kept connections and real batches.

    Each database (a *shard*: one per run, and the index over all runs) has one connection. One thread at a time uses
    it, as with Dagster's own storage. A connection is opened again after an error, after the file was deleted or
    replaced, and in a forked process.
    """

    # The statements that create the tables, the same for every run.
    _tables: ClassVar[str] = ""

    def __init__(self, base_dir: str) -> None:
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._under_way: dict[str, db.Connection] = {}
        self._columns: set[str] = set()
        self._has_checks = False
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._closer = self._make_closer()
        super().__init__(base_dir)

    def store_event(self, event: EventLogEntry) -> None:
        """Store one event; as with Dagster's own storage, the database of the run is committed first."""
        row = self._event_to_row(event)
        with self._connect(event.run_id) as connection:
            _insert(connection, [row])
        if _is_in_index(event):
            with self._connect(INDEX_SHARD) as index:
                self._store_in_index(index, [event], [row])
        self._notify_watchers(event.run_id)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store events as Dagster stores them one by one, but in one transaction per database.

        No transaction covers two databases. As with Dagster's own storage, the run's is committed first: a process that
        is killed between the two commits leaves events that the log of the run shows and the assets lack. If the commit
        of the index fails, Dagster stores the events again, one by one. Then the log of the run shows them twice, and
        the assets have them once.
        """
        rows = [self._event_to_row(event) for event in events]
        with ExitStack() as stack:
            index = stack.enter_context(self._connect(INDEX_SHARD))
            # Left, and so committed, before the index.
            run_ids = dict.fromkeys(event.run_id for event in events)
            runs = {run_id: stack.enter_context(self._connect(run_id)) for run_id in run_ids}
            for run_id, connection in runs.items():
                _insert(connection, [row for row in rows if row["run_id"] == run_id])
            self._store_in_index(index, events, rows)
        for run_id in runs:
            self._notify_watchers(run_id)

    def _store_in_index(
        self, index: db.Connection, events: Sequence[EventLogEntry], rows: Sequence[dict[str, Any]]
    ) -> None:
        """Store what Dagster keeps in the index: events of assets and checks, and changes of a run's status.

        A statement stores many rows, up to an event whose number is needed. Dagster stores each event as the latest one
        of its asset; here only the last of each kind is.
        """
        latest = {_kind(event): event for event in events if _is_one_of(event, ASSET_EVENTS)}
        waiting: list[dict[str, Any]] = []
        for event, row in zip(events, rows, strict=True):
            if not _is_in_index(event):
                continue
            waiting.append(row)
            is_check = _is_one_of(event, ASSET_CHECK_EVENTS)
            is_latest = latest.get(_kind(event)) is event
            if is_check or is_latest or self._tags_for_asset_event(event):
                number, waiting = _insert(index, waiting), []
                if is_check:
                    self.store_asset_check_event(event, number)
                else:
                    self._store_asset_event_tags(index, [event], [number])
                if is_latest:
                    self._store_asset_event(index, event, number)
        if waiting:
            _insert(index, waiting)

    def dispose(self) -> None:
        """Close the connections; a later call opens them again.

        A connection that a thread still uses after a moment stays open, so that an interrupted process ends in time.
        """
        if self._lock.acquire(timeout=_DISPOSE_SECONDS):
            try:
                _close_all(self._kept, self._process)
            finally:
                self._lock.release()
        super().dispose()

    @contextmanager
    def _connect(self, shard: str) -> Iterator[db.Connection]:
        """Yield the connection to a shard, in a transaction; within a batch, in that of the batch."""
        if self._process != os.getpid():
            self._reset_after_fork()
        with self._lock:
            if shard in self._under_way:
                yield self._under_way[shard]
                return
            connection = self._connection(shard)
            try:
                with connection.begin():
                    self._under_way[shard] = connection
                    yield connection
            except BaseException:
                self._close(shard)
                raise
            finally:
                self._under_way.pop(shard, None)

    def _connection(self, shard: str) -> db.Connection:
        file = _identity(self.path_for_shard(shard))
        if shard in self._kept and self._kept[shard].file == file is not None:
            self._kept.move_to_end(shard)
            return self._kept[shard].connection
        self._close(shard)
        if file is None:
            self._initialized_dbs.discard(shard)
        self._make_room()
        engine = db.create_engine(
            self.conn_string_for_shard(shard),
            poolclass=NullPool,
            connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False},
        )
        if shard not in self._initialized_dbs:
            with migrations_read_once():
                if file is None:
                    self._create_tables(self.path_for_shard(shard))
                self._initdb(engine)
            self._initialized_dbs.add(shard)
        connection = engine.connect()
        self._kept[shard] = _Kept(connection, _identity(self.path_for_shard(shard)))
        return connection

    def _create_tables(self, path: str) -> None:
        """Create the tables of a new database in one transaction.

        Dagster commits after each of forty statements, for every run. If anything fails, such as because another
        process has just created them, the transaction is rolled back and Dagster's own way follows.
        """
        with suppress(sqlite3.Error), closing(sqlite3.connect(path, timeout=_BUSY_SECONDS)) as database:
            BatchingEventLog._tables = self._tables or self._dump_tables()
            database.execute("PRAGMA journal_mode=WAL")
            database.executescript(self._tables)

    def _dump_tables(self) -> str:
        """Return the statements, in a transaction, that make a database as Dagster makes it."""
        engine = db.create_engine("sqlite://", poolclass=StaticPool)
        try:
            self._initdb(engine)
            with engine.connect() as connection:
                database: Any = connection.connection.driver_connection
                return "\n".join(database.iterdump())
        finally:
            engine.dispose()

    def _make_room(self) -> None:
        idle = [shard for shard in self._kept if shard not in self._under_way and shard != INDEX_SHARD]
        for shard in idle[: max(0, len(self._kept) + 1 - _MAX_KEPT)]:
            self._close(shard)

    def _close(self, shard: str) -> None:
        if shard in self._kept:
            self._kept.pop(shard).connection.close()

    def _reset_after_fork(self) -> None:
        """Forget the connections of the parent process, which this one must neither use nor close."""
        _INHERITED.append(self._kept)
        self._closer.detach()
        self._kept, self._under_way, self._lock = OrderedDict(), {}, threading.RLock()
        self._process = os.getpid()
        self._closer = self._make_closer()

    def _make_closer(self) -> weakref.finalize[..., BatchingEventLog]:
        """Let the garbage collector close the connections of a storage that nobody disposed of."""
        closer = weakref.finalize(self, _close_all, self._kept, self._process)
        closer.atexit = False  # another thread may still use one of them
        return closer

    def _notify_watchers(self, run_id: str) -> None:
        """Touch the database of a run, whose changes Dagster's live log waits for.

        With a kept connection, SQLite changes the file itself only once in a thousand pages.
        """
        try:
            os.utime(self.path_for_shard(run_id))
        except OSError:  # deleted meanwhile
            return

    def _has_asset_key_col_on_connection(self, conn: db.Connection, column_name: str) -> bool:
        """Return whether the table of assets has a column: a migration adds columns, and nothing removes one.

        Dagster asks for each event and for each asset that it reads.
        """
        if column_name not in self._columns and super()._has_asset_key_col_on_connection(conn, column_name):
            self._columns.add(column_name)
        return column_name in self._columns

    @property
    def supports_asset_checks(self) -> bool:
        """Whether there is a table of checks: a migration adds it. Dagster asks for each event of a check."""
        self._has_checks = self._has_checks or super().supports_asset_checks
        return self._has_checks

    def _store_asset_event(self, conn: db.Connection, event: EventLogEntry, event_id: int) -> None:
        """Store what the table of assets has of an event.

        Dagster inserts a row first, and updates it if there is one, which there nearly always is.
        """
        asset = None if event.dagster_event is None else event.dagster_event.asset_key
        has_columns = self._has_asset_key_index_cols_on_connection(conn)
        values = self._get_asset_entry_values(event, event_id, has_columns) if asset else {}
        if not asset or not values:
            return
        updated = conn.execute(_update_of_asset(tuple(values)), {**values, "asset": asset.to_string()})
        if not updated.rowcount:
            super()._store_asset_event(conn, event, event_id)

    def _store_asset_check_evaluation_planned(self, event: EventLogEntry, event_id: int | None) -> None:
        """Store one planned row for a run over several partitions, because such a run evaluates a check once.

        Dagster stores one per partition, which no evaluation resolves.
        """
        super()._store_asset_check_evaluation_planned(planned_for_the_whole_run(event), event_id)

    def _update_asset_check_evaluation(self, event: EventLogEntry, event_id: int | None) -> None:
        """Store the result of a check; what this run planned for another partition than the result's is resolved."""
        evaluation = _evaluation_of(event)
        check = {
            "asset": evaluation.asset_key.to_string(),
            "check": evaluation.check_name,
            "run": event.run_id,
            "evaluated": evaluation.partition,
        }
        with self.index_connection() as connection:
            connection.execute(_DELETE_PLANNED, check)
            super()._update_asset_check_evaluation(event, event_id)


def _insert(connection: db.Connection, rows: Sequence[dict[str, Any]]) -> int:
    """Store events, at least one; return the number of the last one."""
    if len(rows) > 1:
        connection.execute(_INSERT, rows[:-1])
    result = connection.execute(_INSERT, rows[-1])
    return int(next(iter(result.inserted_primary_key or ())))


@cache
def _update_of_asset(names: tuple[str, ...]) -> db.Update:
    """Return the statement that sets these columns of an asset, whose key is the parameter ``asset``."""
    columns: dict[str, Any] = {name: db.bindparam(name) for name in names}
    return AssetKeyTable.update().where(AssetKeyTable.c.asset_key == db.bindparam("asset")).values(columns)


def _is_in_index(event: EventLogEntry) -> bool:
    """Return whether Dagster stores an event in the index as well."""
    return any(_is_one_of(event, kinds) for kinds in (ASSET_EVENTS, ASSET_CHECK_EVENTS, RUN_STATUS_EVENTS))


def _is_one_of(event: EventLogEntry, kinds: Container[dg.DagsterEventType]) -> bool:
    return event.is_dagster_event and event.dagster_event_type in kinds


def _kind(event: EventLogEntry) -> tuple[dg.AssetKey | None, str] | None:
    data = event.dagster_event
    return None if data is None else (data.asset_key, data.event_type_value)


def _evaluation_of(event: EventLogEntry) -> dg.AssetCheckEvaluation:
    data: Any = event.get_dagster_event().event_specific_data
    if not isinstance(data, dg.AssetCheckEvaluation):
        raise TypeError(f"{type(data).__name__} is not the evaluation of a check")
    return data


# The connections of a parent process, in a forked one. Closing them would disturb the parent's locks.
_INHERITED: Final[list[object]] = []


def _close_all(kept: OrderedDict[str, _Kept], process: int) -> None:
    if process == os.getpid():
        while kept:
            kept.popitem()[1].connection.close()


def _identity(path: str) -> _FileIdentity:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


class OneEngineRunStorage(SqliteRunStorage):
    """Dagster's SQLite run storage with one engine.

    Dagster creates an engine for each connection, and an engine compiles every statement that it has not seen. This one
    keeps no connection, so threads and forked processes may share it.
    """

    def __init__(self, conn_string: str) -> None:
        self._engine = db.create_engine(conn_string, poolclass=NullPool)
        super().__init__(conn_string)

    @contextmanager
    def connect(self) -> Iterator[db.Connection]:
        """Yield a new connection, in a transaction."""
        with self._engine.connect() as connection, connection.begin():
            yield connection


class SqliteStorage(DagsterSqliteStorage):
    """Dagster's SQLite storage with :class:`BatchingEventLog` and one engine for the runs; ``dagster.yaml`` names it.

    With a version of Dagster that the tests do not know, it is Dagster's own. Otherwise it lets Dagster collect the
    events of a batch, unless the user chose a size or none at all: Dagster reads the size from the environment of the
    process. So assets of users that run in this process get batches as well.
    """

    def __init__(self, base_dir: str, inst_data: Any = None) -> None:
        with migrations_read_once():
            super().__init__(base_dir, inst_data)
        if dg.__version__ in KNOWN_VERSIONS:
            self._event_log_storage = BatchingEventLog(self._event_log_storage._base_dir)
            self._run_storage = OneEngineRunStorage(self._run_storage._conn_string)
            os.environ.setdefault(*_BATCH_SIZE)
        elif _SAID not in os.environ:
            os.environ[_SAID] = "1"
            logging.getLogger(__name__).warning(
                f"Dagster {dg.__version__} is not a version that binance_assets knows ({', '.join(KNOWN_VERSIONS)}): "
                "events are stored one by one, which is slower"
            )

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> SqliteStorage:
        """Return the storage that ``dagster.yaml`` describes."""
        return cls.from_local(inst_data=inst_data, **config_value)
