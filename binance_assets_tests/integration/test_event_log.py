"""The event log: what it stores is what Dagster's own SQLite storage stores, whatever ends a run or a process."""

# No `from __future__ import annotations` here: Dagster reads the types of an asset's arguments when it is defined.
import logging
import os
import re
import signal
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as db

from binance_assets.orchestration import event_log
from binance_assets.orchestration.checks import CHECK_NAME
from binance_assets.orchestration.event_log import BatchingEventLog
from binance_assets.orchestration.partitions import DAILY
from binance_assets.orchestration.sensors import new_partitions
from binance_assets.settings import read_settings
from binance_assets_tests.support.dagster_internals import check_rows, index_of, materialization_entries, watch
from binance_assets_tests.support.event_runs import DAYS, OP, daily_job, run_days
from binance_assets_tests.support.instances import instance_in, new_instance
from binance_assets_tests.support.polling import until
from binance_assets_tests.support.warm_python import WarmPython

CHECK = dg.AssetCheckKey(DAYS, CHECK_NAME)


def march(first: int, last: int) -> list[str]:
    return [f"2024-03-{day:02}" for day in range(first, last + 1)]


def all_statuses(instance: dg.DagsterInstance) -> dict[str, str]:
    statuses = instance.get_status_by_partition(DAYS, DAILY.get_partition_keys(), DAILY) or {}
    return {key: status.value for key, status in statuses.items() if status is not None}


def log_of(instance: dg.DagsterInstance, run_id: str) -> list[tuple[object, ...]]:
    """Return the log of a run without what differs between two runs: ids, numbers of processes, and durations."""
    return [
        (
            event.event_type_value,
            event.step_key,
            event.asset_key,
            event.partition,
            re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|pid: \d+|in \d+.*s|/\S+", "…", event.message or ""),
        )
        for entry in instance.all_logs(run_id)
        if (event := entry.dagster_event) is not None
    ]


def everything(instance: dg.DagsterInstance) -> dict[str, Any]:
    """Return all that Dagster's pages, its daemon and this project's sensors read, comparable between instances."""
    storage = instance.event_log_storage
    runs = sorted(instance.get_run_records(), key=lambda record: record.storage_id)
    number = {record.dagster_run.run_id: index for index, record in enumerate(runs)}
    (asset,) = instance.get_asset_records([DAYS])
    entry = asset.asset_entry
    attempts = storage.get_latest_asset_partition_materialization_attempts_without_materializations(DAYS)
    by_partition = storage.get_latest_storage_id_by_partition(DAYS, dg.DagsterEventType.ASSET_MATERIALIZATION)
    history = [
        row for row in storage.get_asset_check_execution_history(CHECK, limit=100) if row.status.value != "PLANNED"
    ]
    latest = storage.get_latest_asset_check_execution_by_key([CHECK])[CHECK]
    changes = {
        kind.value: instance.fetch_run_status_changes(kind, limit=100).records
        for kind in (dg.DagsterEventType.RUN_SUCCESS, dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_START)
    }
    return {
        "runs": [record.dagster_run.status for record in runs],
        "logs": [log_of(instance, record.dagster_run.run_id) for record in runs],
        "steps": [
            [
                (step.step_key, step.status, len(step.materialization_events))
                for step in instance.get_run_step_stats(run_id)
            ]
            for run_id in number
        ],
        "planned": [storage.get_asset_partitions_for_run(run_id) for run_id in number],
        "statuses": all_statuses(instance),
        "materialized": instance.get_materialized_partitions(DAYS),
        "order": sorted(by_partition, key=lambda key: by_partition[key]),
        "incomplete": {key: number[run_id] for key, (run_id, _) in attempts.items()},
        "sensor": new_partitions(instance, DAYS, 0)[0],
        "last": (
            entry.last_materialization and entry.last_materialization.asset_materialization,
            number[entry.last_run_id or ""],
            entry.last_materialization_storage_id == max(by_partition.values()),
        ),
        "checks": [
            (row.status, number[row.run_id], row.event and row.event.get_dagster_event().message) for row in history
        ],
        "latest check": (latest.status, number[latest.run_id]) if latest else None,
        "changes": {kind: [number[record.run_id] for record in records] for kind, records in changes.items()},
    }


def a_history_of_runs(instance: dg.DagsterInstance) -> dict[str, Any]:
    """Execute runs that end in each way; return what was seen in the middle of one."""
    seen: dict[str, Any] = {}

    def watch_statuses(context: dg.AssetExecutionContext) -> None:
        seen["within"] = all_statuses(context.instance)

    run_days(instance, "2024-03-01", "2024-03-10")
    run_days(instance, "2024-03-08", "2024-03-20", refused=["2024-03-09", "2024-03-15"])
    run_days(instance, "2024-03-18", "2024-03-31", fails_at="2024-03-20")
    run_days(instance, "2024-03-09", "2024-03-09")
    run_days(instance, "2024-03-15", "2024-03-15", refused=["2024-03-15"])
    run_days(instance, "2024-03-05", "2024-03-26", watch_statuses, refused=march(5, 8))
    instance.report_runless_asset_event(dg.AssetMaterialization(DAYS, partition="2024-03-15"))
    failed = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))[-2]
    options = dg.ReexecutionOptions.from_failure(failed.run_id, instance)
    with dg.execute_job(
        dg.reconstructable(daily_job),
        instance,
        tags={name: failed.tags[name] for name in failed.tags if name.startswith("dagster/asset_partition")},
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        reexecution_options=options,
    ) as again:
        assert again.success
    return seen


@pytest.fixture
def two_instances(tmp_path: Path) -> Iterator[tuple[dg.DagsterInstance, dg.DagsterInstance]]:
    """An instance on Dagster's own storage and one on this project's."""
    with new_instance(tmp_path / "own") as closed:
        closed.dispose()
    with instance_in(tmp_path / "own", dagsters_own=True) as own, new_instance(tmp_path / "ours") as ours:
        assert type(own.event_log_storage) is BatchingEventLog.__bases__[0]
        assert type(ours.event_log_storage) is BatchingEventLog
        yield own, ours


def test_everything_reads_as_with_dagsters_own_storage(
    two_instances: tuple[dg.DagsterInstance, dg.DagsterInstance],
) -> None:
    own, ours = two_instances
    assert a_history_of_runs(own) == a_history_of_runs(ours)
    expected, actual = everything(own), everything(ours)
    for part in expected:
        assert actual[part] == expected[part], part
    assert set(all_statuses(ours).values()) == {"MATERIALIZED", "FAILED"}


def test_the_database_of_a_run_is_made_as_by_dagsters_own_storage(
    tmp_path: Path, two_instances: tuple[dg.DagsterInstance, dg.DagsterInstance]
) -> None:
    found = []
    for name, instance in zip(("own", "ours"), two_instances, strict=True):
        assert instance.all_logs("run") == []  # which creates its database
        with closing(sqlite3.connect(tmp_path / name / "history" / "runs" / "run.db")) as database:
            made = database.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY 1, 2").fetchall()
            revision = database.execute("SELECT * FROM alembic_version").fetchall()
            found.append((made, revision, database.execute("PRAGMA journal_mode").fetchall()))
    assert found[0] == found[1]
    assert found[0][2] == [("wal",)]


def test_the_same_events_make_the_same_rows(two_instances: tuple[dg.DagsterInstance, dg.DagsterInstance]) -> None:
    own, ours = two_instances
    run_id = run_days(own, "2024-03-01", "2024-03-10", refused=["2024-03-04"]).run_id
    batch: list[Any] = []
    for entry in own.all_logs(run_id):
        if entry.get_dagster_event().event_type_value.startswith("ASSET_MATERIALIZATION"):
            batch.append(entry)
            continue
        if batch:
            ours.event_log_storage.store_event_batch(batch)
            batch = []
        ours.event_log_storage.store_event(entry)
    assert ours.all_logs(run_id) == own.all_logs(run_id)
    assert index_of(ours, "event_logs") == index_of(own, "event_logs")
    assert [row[:-2] for row in index_of(ours, "asset_keys")] == [row[:-2] for row in index_of(own, "asset_keys")]


def test_an_instance_may_change_its_storage_at_any_time(tmp_path: Path) -> None:
    with new_instance(tmp_path / "dagster") as instance:
        run_days(instance, "2024-03-01", "2024-03-05")
    for number, own in enumerate([True, False, True]):
        first = 6 + 5 * number
        with instance_in(tmp_path / "dagster", dagsters_own=own) as instance:
            assert instance.get_materialized_partitions(DAYS) == set(march(1, first - 1))
            assert len(instance.get_runs()) == number + 1
            assert run_days(instance, f"2024-03-{first:02}", f"2024-03-{first + 4:02}").success
            assert all(len(instance.all_logs(run.run_id)) > 10 for run in instance.get_runs())


def test_processes_share_the_files_with_each_other_and_with_dagsters_own_storage(
    tmp_path: Path, warm_python: WarmPython
) -> None:
    with new_instance(tmp_path / "dagster") as instance:
        processes = [
            warm_python.start(
                ["-m", "binance_assets_tests.support.event_runs", str(tmp_path / "dagster"), first, last, *own],
                cwd=tmp_path, env=dict(os.environ),
            )
            for first, last, own in [
                ("2024-01-01", "2024-01-31", []),
                ("2024-02-01", "2024-02-29", []),
                ("2024-03-01", "2024-03-31", ["own"]),
            ]
        ]  # fmt: skip
        assert run_days(instance, "2024-04-01", "2024-04-30").success
        for process in processes:
            _, errors = process.communicate(timeout=60)
            assert process.returncode == 0, errors
            assert "Exception while storing" not in errors
        assert len(instance.get_materialized_partitions(DAYS)) == 31 + 29 + 31 + 30
        assert set(all_statuses(instance).values()) == {"MATERIALIZED"}
        assert sorted(new_partitions(instance, DAYS, 0)[0]) == sorted(instance.get_materialized_partitions(DAYS))


@pytest.mark.parametrize(
    ("point", "in_the_index", "in_the_log"), [("before", 0, 0), ("within", 0, 0), ("between", 0, 4)]
)
def test_a_process_that_is_killed_in_a_batch_stores_all_of_it_or_nothing_in_each_database(
    tmp_path: Path, warm_python: WarmPython, point: str, in_the_index: int, in_the_log: int
) -> None:
    with new_instance(tmp_path / "dagster") as instance:
        process = warm_python.start(
            ["-m", "binance_assets_tests.support.event_runs", str(tmp_path / "dagster"), "2024-03-01", "2024-03-10",
             "kill", point],
            cwd=tmp_path, env=dict(os.environ),
        )  # fmt: skip
        _, errors = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, errors
        (run,) = instance.get_runs()
        assert len(instance.get_materialized_partitions(DAYS)) == in_the_index
        logged = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        assert len(logged) == in_the_log
        assert list(all_statuses(instance).values()).count("IN_PROGRESS") == 10 - in_the_index
        assert run_days(instance, "2024-03-01", "2024-03-10").success
        assert len(instance.get_materialized_partitions(DAYS)) == 10


def test_a_batch_that_cannot_be_stored_is_stored_not_at_all_and_then_event_by_event(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with new_instance(tmp_path / "dagster") as instance:
        with sqlite3.connect(tmp_path / "dagster" / "history" / "runs" / "index.db") as index:
            index.execute(
                "CREATE TRIGGER refuse BEFORE INSERT ON event_logs WHEN NEW.partition = '2024-03-03' AND "
                "NEW.dagster_event_type = 'ASSET_MATERIALIZATION' BEGIN SELECT RAISE(ABORT, 'refused'); END"
            )
        index.close()
        result = run_days(instance, "2024-03-01", "2024-03-06")
        assert not result.success
        assert "Falling back to storing" in capfd.readouterr().err
        assert new_partitions(instance, DAYS, 0)[0] == march(1, 2)
        events = instance.all_logs(result.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        assert [event.get_dagster_event().partition for event in events] == march(1, 3)  # as Dagster's own storage
        assert not instance.get_run_by_id(result.run_id).is_success  # type: ignore[union-attr]


@pytest.mark.parametrize(("failing", "in_the_log"), [("run", 6), ("index", 6 + 4)])
def test_an_event_is_once_in_the_index_whichever_commit_of_a_batch_fails(
    instance: dg.DagsterInstance, capfd: pytest.CaptureFixture[str], failing: str, in_the_log: int
) -> None:
    failures: list[str] = []
    materializes: list[bool] = []  # the first batch plans what the run materializes
    original = BatchingEventLog.store_event_batch

    def fail_once(connection: db.Connection) -> None:
        database = connection.engine.url.database or ""
        if materializes and not failures and database.endswith("/index.db") == (failing == "index"):
            failures.append(database)
            raise OSError(f"the disk of {database} is full")

    def store_event_batch(self: BatchingEventLog, events: Any) -> None:
        materializes[:] = [True] if events[0].get_dagster_event().is_step_materialization else []
        db.event.listen(db.Engine, "commit", fail_once)
        try:
            original(self, events)
        finally:
            db.event.remove(db.Engine, "commit", fail_once)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BatchingEventLog, "store_event_batch", store_event_batch)
        result = run_days(instance, "2024-03-01", "2024-03-06")
    assert result.success
    assert len(failures) == 1
    assert "Falling back to storing" in capfd.readouterr().err
    assert new_partitions(instance, DAYS, 0)[0] == march(1, 6)
    logged = instance.all_logs(result.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    assert len(logged) == in_the_log  # a batch has four days
    assert set(all_statuses(instance).values()) == {"MATERIALIZED"}


# Planned checks.


@pytest.mark.parametrize(("first", "last"), [("2024-03-01", "2024-03-10"), ("2024-03-01", "2024-03-01")])
@pytest.mark.parametrize("refused", [[], ["2024-03-01"]])
def test_no_planned_check_is_left_after_its_evaluation(
    instance: dg.DagsterInstance, first: str, last: str, refused: list[str]
) -> None:
    seen: list[object] = []
    run_days(instance, first, last, lambda context: seen.extend(check_rows(context.instance)), refused=refused)
    assert len(seen) == 1
    status = "FAILED" if refused else "SUCCEEDED"
    assert [(row.execution_status, row.partition) for row in check_rows(instance)] == [(status, None)]
    latest = instance.event_log_storage.get_latest_asset_check_execution_by_key([CHECK])[CHECK]
    assert latest is not None
    assert latest.status.value == status


def test_an_evaluation_resolves_what_dagsters_own_storage_planned(tmp_path: Path) -> None:
    """The run was created before the upgrade, or by a webserver with another storage."""
    folder = tmp_path / "dagster"
    with new_instance(folder) as closed:
        closed.dispose()

    def switch(context: dg.AssetExecutionContext) -> None:
        assert len(check_rows(context.instance)) == 10
        context.instance._event_storage = ours.event_log_storage

    with instance_in(folder, dagsters_own=True) as own, instance_in(folder) as ours:
        own_storage = own.event_log_storage
        run_days(own, "2024-03-01", "2024-03-10", switch)
        own._event_storage = own_storage
        assert [(row.execution_status, row.partition) for row in check_rows(own)] == [("SUCCEEDED", None)]


# Kept connections.


def open_databases() -> list[str]:
    files = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(descriptor)
        except OSError:
            continue
        if target.endswith(".db"):
            files.append(target)
    return files


def test_the_number_of_kept_connections_is_bounded_and_closing_the_instance_closes_them(tmp_path: Path) -> None:
    with new_instance(tmp_path / "dagster") as instance:
        entry = materialization_entries(DAYS, march(1, 1), "run")[0]
        for number in range(20):
            instance.event_log_storage.store_event(entry._replace(run_id=f"run{number}"))
        for number in range(20):
            assert len(instance.event_log_storage.get_logs_for_run(f"run{number}")) == 1
        mine = [file for file in open_databases() if file.startswith(str(tmp_path))]
        assert 1 <= len(mine) <= 9
        instance.event_log_storage.dispose()
        assert not [file for file in open_databases() if file.startswith(str(tmp_path))]
        assert len(instance.event_log_storage.get_logs_for_run("run0")) == 1


def test_a_deleted_run_and_a_wiped_instance_leave_no_event_and_take_new_ones(instance: dg.DagsterInstance) -> None:
    kept, deleted = (run_days(instance, day, day).run_id for day in march(1, 2))
    instance.delete_run(deleted)
    assert instance.all_logs(deleted) == []
    assert instance.all_logs(kept) != []
    instance.wipe()
    assert instance.get_asset_records([DAYS]) == []
    assert instance.all_logs(kept) == []
    assert run_days(instance, "2024-03-03", "2024-03-04").success
    assert instance.get_materialized_partitions(DAYS) == set(march(3, 4))


def test_another_process_may_delete_the_file_of_a_run(tmp_path: Path) -> None:
    with new_instance(tmp_path / "dagster") as instance:
        first, second = materialization_entries(DAYS, march(1, 2), "run")
        instance.event_log_storage.store_event(first)
        for file in (tmp_path / "dagster" / "history" / "runs").glob("run.db*"):
            file.unlink()
        instance.event_log_storage.store_event(second)
        assert [entry.get_dagster_event().partition for entry in instance.all_logs("run")] == march(2, 2)
    with instance_in(tmp_path / "dagster", dagsters_own=True) as own:
        assert [entry.get_dagster_event().partition for entry in own.all_logs("run")] == march(2, 2)


def test_threads_share_the_connections(instance: dg.DagsterInstance) -> None:
    def store(number: int) -> None:
        entries = materialization_entries(DAYS, march(1, 20), f"run{number % 3}")
        instance.event_log_storage.store_event_batch(entries[:10])
        for entry in entries[10:]:
            instance.event_log_storage.store_event(entry)
            instance.get_materialized_partitions(DAYS)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(store, range(6)))
    assert [len(instance.all_logs(f"run{number}")) for number in range(3)] == [40, 40, 40]
    assert len(new_partitions(instance, DAYS, 0)[0]) == 120


def test_a_forked_process_opens_its_own_connections(tmp_path: Path) -> None:
    with new_instance(tmp_path / "dagster") as instance:
        entries = materialization_entries(DAYS, march(1, 3), "run")
        instance.event_log_storage.store_event_batch(entries[:1])
        child = os.fork()
        if child == 0:
            stored = False
            try:
                instance.event_log_storage.store_event_batch(entries[1:2])
                stored = len(instance.all_logs("run")) == 2
            finally:
                os._exit(0 if stored else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        instance.event_log_storage.store_event_batch(entries[2:])
        assert [entry.get_dagster_event().partition for entry in instance.all_logs("run")] == march(1, 3)
        with sqlite3.connect(tmp_path / "dagster" / "history" / "runs" / "index.db") as index:
            assert index.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        index.close()


@pytest.mark.parametrize("own", [True, False], ids=["by Dagster's own storage", "by this storage"])
def test_the_live_log_of_a_run_shows_each_event_at_once(tmp_path: Path, own: bool) -> None:
    with new_instance(tmp_path / "dagster") as writer, instance_in(tmp_path / "dagster", dagsters_own=own) as reader:
        entries = materialization_entries(DAYS, march(1, 9), "run")
        writer.event_log_storage.store_event(entries[0])
        seen: list[str] = []
        came = threading.Event()

        def see(partition: str) -> None:
            seen.append(partition)
            came.set()

        with watch(reader, "run", see):
            writer.event_log_storage.store_event(entries[1])
            assert came.wait(60)
            came.clear()
            writer.event_log_storage.store_event_batch(entries[2:])
            until(120, lambda: len(seen) >= 9)
    assert seen == march(1, 9)


# Which storage there is.


def test_a_version_of_dagster_that_the_tests_do_not_know_gets_dagsters_own_storage_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dg, "__version__", "1.13.99")
    for name in (event_log._SAID, "DAGSTER_EVENT_BATCH_SIZE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            with new_instance(tmp_path / f"dagster{_}") as instance:
                assert type(instance.event_log_storage) is BatchingEventLog.__bases__[0]
                assert run_days(instance, "2024-03-01", "2024-03-06").success
                assert len(instance.get_materialized_partitions(DAYS)) == 6
    (line,) = [record.message for record in caplog.records if "1.13.99" in record.message]
    assert "\n" not in line
    assert "DAGSTER_EVENT_BATCH_SIZE" not in os.environ
    read_settings(os.environ)  # as the processes do that this one starts


def test_a_storage_without_batches_gets_the_events_one_by_one() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        result = run_days(instance, "2024-03-01", "2024-03-10", refused=["2024-03-02"])
        assert len(instance.get_materialized_partitions(DAYS)) == 9
        assert len(result.asset_materializations_for_node(OP)) == 9


@pytest.mark.parametrize("size", ["0", "3"])
def test_the_size_of_a_batch_that_the_user_chose_counts(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, size: str
) -> None:
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", size)
    sizes: list[int] = []
    original = BatchingEventLog.store_event_batch

    def counted(self: BatchingEventLog, events: Any) -> None:
        sizes.append(len(events))
        original(self, events)

    monkeypatch.setattr(BatchingEventLog, "store_event_batch", counted)
    assert run_days(instance, "2024-03-01", "2024-03-10").success
    assert len(instance.get_materialized_partitions(DAYS)) == 10
    assert max(sizes, default=0) == (3 if size == "3" else 0)
