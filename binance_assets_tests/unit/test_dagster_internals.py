"""Contract tests: undocumented names, signatures and behavior of Dagster that this project uses."""

# No `from __future__ import annotations` here: Dagster reads the types of an asset's arguments when it is defined.
import importlib
import inspect
import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
from ruamel.yaml import YAML

import binance_assets
from binance_assets.orchestration.checks import CHECK_NAME
from binance_assets.orchestration.dagster_internals import code_location
from binance_assets.orchestration.dagster_internals.code_location import AssetJob, PartitionedSchedule
from binance_assets.orchestration.dagster_internals.event_reads import (
    check_evaluations,
    latest_check_records,
    partitions_reported,
    run_of_latest_check,
    unmaterialized_attempts,
)
from binance_assets.orchestration.dagster_internals.event_storage import (
    INDEX_SHARD,
    AssetCheckExecutionsTable,
    DagsterSqliteStorage,
    SqliteEventLogStorage,
    SqliteRunStorage,
)
from binance_assets.orchestration.dagster_internals.event_writes import (
    log_materializations,
    report_materializations,
    withdraw_plan,
)
from binance_assets.orchestration.dagster_internals.instance import (
    NO_COMPUTE_LOGS,
    QUEUE_DAEMON,
    open_instance_in,
    seconds_since_daemon,
    state_folder,
)
from binance_assets.orchestration.dagster_internals.programs import run_dagster_dev
from binance_assets.orchestration.dagster_internals.steps import expected_step_order, has_downstream_in_run, keys_in_run
from binance_assets.orchestration.event_log import KNOWN_VERSIONS
from binance_assets.orchestration.partitions import DAILY, PARTITION_TAG, range_tags, tagged_range
from binance_assets_tests.support.environment import CHECKOUT
from binance_assets_tests.support.event_runs import DAYS, run_days
from binance_assets_tests.support.instances import new_instance

PACKAGE = Path(binance_assets.__file__).parent
FENCE = PACKAGE / "orchestration" / "dagster_internals"
FENCE_OF_TESTS = CHECKOUT / "binance_assets_tests" / "support" / "dagster_internals.py"


def test_private_names_appear_in_one_package_and_one_module_of_the_tests() -> None:
    """Ruff bans the imports; this finds names in strings and comments as well."""
    private = re.compile(r"dagster\._[a-z]")
    files = {file for folder in (PACKAGE, CHECKOUT / "binance_assets_tests") for file in folder.rglob("*.py")}
    found = {file for file in files if private.search(file.read_text())}
    assert FENCE_OF_TESTS in found
    assert {file.parent for file in found - {FENCE_OF_TESTS}} == {FENCE}


# The types of jobs and schedules.


def test_public_functions_return_the_private_types() -> None:
    @dg.asset(partitions_def=DAILY)
    def days() -> None: ...

    job = dg.define_asset_job("job", [days])
    assert type(job) is AssetJob
    assert job.name == "job"
    assert type(dg.build_schedule_from_partitioned_job(job)) is PartitionedSchedule


@pytest.mark.parametrize("name", ["UnresolvedAssetJobDefinition", "UnresolvedPartitionedAssetScheduleDefinition"])
def test_the_types_are_still_not_public(name: str) -> None:
    assert hasattr(code_location, name)
    assert not hasattr(dg, name), "use the public name and drop the private import"


# The instance.


def test_an_instance_keeps_its_state_apart_from_its_configuration(tmp_path: Path) -> None:
    state, config = tmp_path / "state", tmp_path / "config"
    state.mkdir()
    config.mkdir()
    (config / "dagster.yaml").write_text("retention: {schedule: {purge_after_days: 7}}")
    with open_instance_in(state, config) as instance:
        assert instance.get_settings("retention") == {"schedule": {"purge_after_days": 7}}
        assert type(instance.compute_log_manager).__name__ == NO_COMPUTE_LOGS["class"]
    assert any(state.rglob("*.db"))
    assert [file.name for file in config.iterdir()] == ["dagster.yaml"]


def _class_paths(node: Any) -> list[tuple[str, str]]:
    """Return all ``module`` and ``class`` pairs of a configuration."""
    if not isinstance(node, dict):
        return []
    own = [(node["module"], node["class"])] if {"module", "class"} <= node.keys() else []
    return own + [pair for value in node.values() for pair in _class_paths(value)]


def test_the_classes_that_configuration_names_exist() -> None:
    pairs = _class_paths(YAML(typ="safe").load(CHECKOUT / "dagster.yaml")) + _class_paths(NO_COMPUTE_LOGS)
    assert len(pairs) == 4
    for module, name in pairs:
        assert inspect.isclass(getattr(importlib.import_module(module), name))


def test_the_instance_on_postgres_differs_from_the_default_only_in_where_it_keeps_its_state() -> None:
    default, on_postgres = (
        YAML(typ="safe").load(CHECKOUT / name) for name in ("dagster.yaml", "deploy/dagster-postgres.yaml")
    )
    assert on_postgres.pop("storage") != default.pop("storage")
    del default["local_artifact_storage"], default["compute_logs"]  # below DAGSTER_HOME there
    assert on_postgres == default


def test_the_instance_with_workers_differs_from_that_on_postgres_only_in_how_it_runs() -> None:
    on_postgres, with_workers = (
        YAML(typ="safe").load(CHECKOUT / "deploy" / name) for name in ("dagster-postgres.yaml", "dagster-celery.yaml")
    )
    assert with_workers.pop("run_launcher")["class"] == "WorkerLauncher"
    assert with_workers.pop("compute_logs") == NO_COMPUTE_LOGS
    for section in ("run_queue", "run_monitoring", "run_retries"):
        on_postgres[section] |= {name: with_workers[section][name] for name in with_workers[section]}
    assert with_workers == on_postgres


# The user interface.


def test_dagster_dev_starts_its_web_server_first_and_with_the_function_that_is_replaced() -> None:
    dev = importlib.import_module(f"{dg.__name__}._cli.dev")
    started = re.findall(r"open_ipc_subprocess\(\s*\[sys.executable, \"-m\", \"(\w+)\"", inspect.getsource(dev))
    assert started == ["dagster_webserver"]
    starts = [match.start() for match in re.finditer(r"open_ipc_subprocess\(", inspect.getsource(dev))]
    assert len(starts) == 2
    assert "dagster_webserver" in inspect.getsource(dev)[starts[0] : starts[1]]
    assert "subprocess.Popen" not in inspect.getsource(dev)


def test_the_web_server_starts_before_the_code_location_loads_and_the_daemon_when_it_responds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As ``dagster dev`` starts its children, with programs of the shell in place of its own."""
    monkeypatch.chdir(tmp_path)
    dev = importlib.import_module(f"{dg.__name__}._cli.dev")
    own, seen = psutil.Process(), list[int]()

    def is_up() -> bool:
        seen.append(len(own.children()) - before)
        return len(seen) > 2

    def dagster_dev() -> None:
        dev.ProxyServerManager()
        read, _ = dev.get_ipc_shutdown_pipe()
        server = dev.open_ipc_subprocess(["python", "-m", "dagster_webserver", "--port", "80"], pass_fds=[read])
        children.append(server)
        children.append(dev.open_ipc_subprocess(["sh", "-c", f"exec sleep 60 <&{read}"], pass_fds=[read]))
        seen.append(len(own.children()) - before)
        server.wait(60)

    before, children = len(own.children()), list[Any]()
    monkeypatch.setattr(dev, "ProxyServerManager", lambda: seen.append(len(own.children()) - before))
    monkeypatch.setattr(dev.dev_command, "main", lambda *_arguments, **_options: dagster_dev())
    run_dagster_dev([], ["sh", "-c", "read line; echo $line > arguments"], is_up)
    assert Path("arguments").read_text() == '["--port", "80"]\n'
    assert max(seen[:-1]) == seen[0] == 1  # the web server alone, while the code location loads and until it responds
    assert len(children) == 2
    assert all(child.returncode is not None for child in children)


def test_dagster_dev_loads_and_makes_pipes_with_the_functions_that_are_replaced() -> None:
    source = inspect.getsource(importlib.import_module(f"{dg.__name__}._cli.dev"))
    calls = re.findall(r"(?<!import )\b(ProxyServerManager|get_ipc_shutdown_pipe|open_ipc_subprocess)\(", source)
    pairs = 2 * ["get_ipc_shutdown_pipe", "open_ipc_subprocess"]
    assert calls == [*pairs, "ProxyServerManager"]  # which is entered first, in a function that is defined below


def test_the_web_server_serves_what_the_function_that_is_replaced_returns() -> None:
    cli = importlib.import_module("dagster_webserver.cli")
    source = inspect.getsource(cli)
    assert re.findall(r"(\w+) = create_app_from_workspace_process_context\(", source) == ["app"]
    assert re.findall(r"uvicorn\.(\w+)\(\s*(\w+)", source) == [("run", "app")]


def test_an_unknown_way_to_start_the_web_server_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As if Dagster started another process first: nothing is started unguarded."""
    monkeypatch.chdir(tmp_path)
    dev = importlib.import_module(f"{dg.__name__}._cli.dev")

    def start_another_process() -> None:
        dev.open_ipc_subprocess(["python", "-m", "another_webserver"])

    monkeypatch.setattr(dev.dev_command, "main", lambda *_arguments, **_options: start_another_process())
    with pytest.raises(RuntimeError, match="in a way that is not known here"):
        run_dagster_dev([], ["unused"], lambda: False)


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        (dg.DagsterInstance.get_runs, ["filters", "cursor", "limit"]),
        (dg.DagsterInstance.get_materialized_partitions, ["asset_key"]),
        (dg.DagsterInstance.report_run_canceling, ["run", "message"]),
        (dg.DagsterInstance.report_run_canceled, ["dagster_run"]),
        (dg.DagsterInstance.report_run_failed, ["dagster_run", "message"]),
        (dg.Definitions.resolve_job_def, ["name"]),
        (dg.AssetKey.to_python_identifier, []),
    ],
)
def test_undocumented_methods_take_these_arguments(method: Callable[..., Any], parameters: list[str]) -> None:
    assert [*inspect.signature(method).parameters][1 : len(parameters) + 1] == parameters


# What the event log storage extends.


def test_the_installed_version_of_dagster_is_one_that_the_event_log_knows() -> None:
    """After an update: compare Dagster's ``sqlite_event_log.py`` with the one before, then add the version."""
    assert dg.__version__ in KNOWN_VERSIONS


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("store_event", ["event"]),
        ("store_event_batch", ["events"]),
        ("dispose", []),
        ("path_for_shard", ["run_id"]),
        ("conn_string_for_shard", ["shard_name"]),
        ("index_connection", []),
        ("_connect", ["shard"]),
        ("_initdb", ["engine"]),
        ("_event_to_row", ["event"]),
        ("_tags_for_asset_event", ["event"]),
        ("_store_asset_event_tags", ["conn", "events", "event_ids"]),
        ("_store_asset_event", ["conn", "event", "event_id"]),
        ("store_asset_check_event", ["event", "event_id"]),
        ("_has_asset_key_col_on_connection", ["conn", "column_name"]),
        ("_store_asset_check_evaluation_planned", ["event", "event_id"]),
        ("_update_asset_check_evaluation", ["event", "event_id"]),
    ],
)
def test_the_event_log_overrides_and_calls_methods_that_exist(method: str, parameters: list[str]) -> None:
    signature = inspect.signature(getattr(SqliteEventLogStorage, method))
    assert [*signature.parameters][1 : len(parameters) + 1] == parameters


def test_the_run_storage_connects_only_in_the_method_that_is_overridden() -> None:
    assert [*inspect.signature(SqliteRunStorage.__init__).parameters][1:] == ["conn_string", "inst_data"]
    engines = [line for line in inspect.getsource(SqliteRunStorage).splitlines() if "create_engine(" in line]
    assert [line.strip() for line in engines] == [
        "engine = create_engine(conn_string, poolclass=NullPool)",  # before there is a storage
        "engine = create_engine(self._conn_string, poolclass=NullPool)",
    ]
    assert engines[1] in inspect.getsource(SqliteRunStorage.connect)


def test_the_storages_have_the_attributes_that_the_event_log_uses(tmp_path: Path) -> None:
    with dg.DagsterInstance.local_temp(str(tmp_path), {"compute_logs": NO_COMPUTE_LOGS}):
        storage = DagsterSqliteStorage(str(tmp_path))
        log = storage.event_log_storage
        assert log is storage._event_log_storage
        assert isinstance(log, SqliteEventLogStorage)
        assert storage.run_storage is storage._run_storage
        assert isinstance(storage.run_storage, SqliteRunStorage)
        assert isinstance(log._initialized_dbs, set)
        assert Path(log.path_for_shard(INDEX_SHARD)) == Path(log._base_dir, "index.db")
        assert {"asset_key", "check_name", "run_id", "execution_status", "partition"} <= {
            *AssetCheckExecutionsTable.columns.keys()
        }


def test_materializations_that_are_logged_as_a_batch_are_events_of_the_step(tmp_path: Path) -> None:
    keys = ["2024-01-01", "2024-01-02"]

    @dg.asset(partitions_def=DAILY, output_required=False, backfill_policy=dg.BackfillPolicy.single_run())
    def days(context: dg.AssetExecutionContext) -> Iterator[dg.DagsterEvent]:
        yield from log_materializations(context, [dg.AssetMaterialization("days", partition=key) for key in keys])

    with new_instance(tmp_path / "dagster") as instance:
        job = dg.Definitions(assets=[days]).resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(instance=instance, tags=range_tags(*keys))
        events = result.asset_materializations_for_node("days")
        logged = instance.all_logs(result.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    assert [event.partition for event in events] == keys
    assert [(entry.step_key, entry.get_dagster_event().partition) for entry in logged] == [
        ("days", key) for key in keys
    ]


def test_materializations_that_are_reported_as_a_batch_are_those_that_the_public_way_reports(tmp_path: Path) -> None:
    reported = [dg.AssetMaterialization("days", partition=f"2024-01-0{day}") for day in (1, 2, 3)]
    with new_instance(tmp_path / "one") as one, new_instance(tmp_path / "batch") as batch:
        for materialization in reported:
            one.report_runless_asset_event(materialization)
        report_materializations(batch, reported)
        found = [
            [
                entry.event_log_entry._replace(timestamp=0)
                for entry in instance.fetch_materializations(dg.AssetKey("days"), limit=10).records
            ]
            for instance in (one, batch)
        ]
    assert found[0] == found[1]
    assert len(found[0]) == 3


# What a step knows about its run.


def _asset(
    name: str, seen: dict[str, Any], deps: list[str] | None = None, passed: bool | None = None
) -> dg.AssetsDefinition:
    """Return an asset that records what its step sees in ``seen``; with ``passed`` it evaluates a check."""
    checks = None if passed is None else [dg.AssetCheckSpec("check", asset=["group", name])]

    @dg.asset(key=["group", name], deps=[["group", dep] for dep in deps or []], check_specs=checks)
    def asset(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
        seen[name] = (keys_in_run(context), has_downstream_in_run(context))
        results = [] if passed is None else [dg.AssetCheckResult(passed=passed, metadata={"rows": 3})]
        return dg.MaterializeResult(check_results=results)

    return asset


def _keys(*names: str) -> list[dg.AssetKey]:
    return [dg.AssetKey(["group", name]) for name in names]


def test_a_step_knows_the_assets_of_its_run_and_whether_one_depends_on_it() -> None:
    seen: dict[str, Any] = {}
    assets = [_asset("root", seen), _asset("leaf", seen, ["root"]), _asset("other", seen)]
    definitions = dg.Definitions(assets=assets, executor=dg.in_process_executor)
    job = definitions.resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        job.execute_in_process(instance=instance)
        everything = set(_keys("root", "leaf", "other"))
        assert seen == {"root": (everything, True), "leaf": (everything, False), "other": (everything, False)}
        seen.clear()
        job.execute_in_process(instance=instance, asset_selection=_keys("root", "other"))
        part = set(_keys("root", "other"))
        assert seen == {"root": (part, False), "other": (part, False)}


def test_root_steps_run_in_the_expected_order() -> None:
    names = ["m", "z", "a", "b10", "b9", "B"]
    definitions = dg.Definitions(assets=[_asset(name, {}) for name in names], executor=dg.in_process_executor)
    with dg.DagsterInstance.ephemeral() as instance:
        result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(instance=instance)
    started = [event.step_key for event in result.all_events if event.event_type == dg.DagsterEventType.STEP_START]
    assert started == [key.to_python_identifier() for key in expected_step_order(_keys(*names))]
    assert started == ["group__B", "group__a", "group__b10", "group__b9", "group__m", "group__z"]


# Events and runs.


def test_the_history_of_a_check_has_run_ids_and_evaluations_newest_first(tmp_path: Path) -> None:
    check = dg.AssetCheckKey(dg.AssetKey(["group", "checked"]), "check")
    with new_instance(tmp_path / "dagster") as instance:
        ids = []
        for passed in (True, False):
            definitions = dg.Definitions(assets=[_asset("checked", {}, passed=passed)])
            job = definitions.resolve_implicit_global_asset_job_def()
            ids.append(job.execute_in_process(instance=instance).run_id)
        history = list(check_evaluations(instance, check, 10))
        assert [(run_id, evaluation.passed) for run_id, evaluation in history] == [(ids[1], False), (ids[0], True)]
        assert history[0][1].metadata["rows"].value == 3
        assert len(list(check_evaluations(instance, check, 1))) == 1


def test_dagster_takes_a_version_4_uuid_as_the_id_of_a_run() -> None:
    definitions = dg.Definitions(assets=[_asset("root", {})])
    job, run_id = definitions.resolve_implicit_global_asset_job_def(), str(uuid.uuid4())
    with dg.DagsterInstance.ephemeral() as instance:
        assert job.execute_in_process(instance=instance, run_id=run_id).run_id == run_id
        own = job.execute_in_process(instance=instance).run_id
    assert uuid.UUID(own).version == 4


def test_the_tags_of_a_range_select_its_partitions() -> None:
    seen: list[list[str]] = []

    @dg.asset(partitions_def=DAILY, backfill_policy=dg.BackfillPolicy.single_run())
    def days(context: dg.AssetExecutionContext) -> None:
        seen.append(list(context.partition_keys))

    job = dg.Definitions(assets=[days]).resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        job.execute_in_process(instance=instance, tags=range_tags("2024-01-01", "2024-01-03"))
        single = job.execute_in_process(instance=instance, partition_key="2024-01-05")
        assert seen == [["2024-01-01", "2024-01-02", "2024-01-03"], ["2024-01-05"]]
        run = instance.get_run_by_id(single.run_id)
    assert run is not None
    assert run.tags[PARTITION_TAG] == "2024-01-05"
    assert tagged_range(run.tags) == ("2024-01-05", "2024-01-05")
    assert tagged_range(range_tags("2024-01-01", "2024-01-03")) == ("2024-01-01", "2024-01-03")
    assert tagged_range({}) is None


# The folder of an instance.


def test_the_folder_of_an_instance_is_that_of_its_state(tmp_path: Path) -> None:
    config, state = tmp_path / "config", tmp_path / "state"
    config.mkdir()
    (config / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    with open_instance_in(state, config) as instance:
        assert state_folder(instance) == state


# What a run planned.


def test_the_cheap_questions_have_the_answers_of_dagsters_own(instance: dg.DagsterInstance) -> None:
    check, storage = dg.AssetCheckKey(DAYS, CHECK_NAME), instance.event_log_storage

    def answers() -> tuple[set[str], str | None]:
        attempts = storage.get_latest_asset_partition_materialization_attempts_without_materializations(DAYS)
        latest = latest_check_records(instance, [check]).get(check)
        assert unmaterialized_attempts(instance, [DAYS]) == {DAYS: attempts}
        assert run_of_latest_check(instance, check) == (latest and latest.run_id)
        return set(attempts), latest and latest.run_id

    assert answers() == (set(), None)
    first = run_days(instance, "2024-03-01", "2024-03-03")
    assert answers() == (set(), first.run_id)
    second = run_days(instance, "2024-03-03", "2024-03-04", refused=["2024-03-03"])
    assert answers() == ({"2024-03-03"}, second.run_id)
    withdraw_plan(instance, DAYS, ["2024-03-03"])  # it was materialized before, and looks like that again
    shown = instance.get_status_by_partition(DAYS, ["2024-03-03"], DAILY) or {}
    assert [status and status.value for status in shown.values()] == ["MATERIALIZED"]
    assert answers() == ({"2024-03-03"}, second.run_id)  # planned, but by no run
    assert run_days(instance, "2024-03-03", "2024-03-03").success
    assert answers()[0] == set()
    run_days(instance, "2024-03-05", "2024-03-05", refused=["2024-03-05"])
    assert answers()[0] == {"2024-03-05"}
    instance.wipe_assets([DAYS])
    assert answers()[0] == set()


def test_the_daemon_that_takes_runs_from_the_queue_has_this_name(instance: dg.DagsterInstance) -> None:
    assert QUEUE_DAEMON in instance.get_required_daemon_types()


def test_an_instance_reports_no_daemon_and_no_partition_before_there_is_one(instance: dg.DagsterInstance) -> None:
    assert seconds_since_daemon(instance) is None
    assert partitions_reported(instance, [], [DAYS]) == {}


def test_partitions_of_runs_are_counted_once_they_are_reported(instance: dg.DagsterInstance) -> None:
    first, second = run_days(instance, "2024-01-01", "2024-01-03"), run_days(instance, "2024-01-05", "2024-01-05")
    ids = [first.run_id, second.run_id]
    assert partitions_reported(instance, ids[:1], [DAYS]) == {ids[0]: 3}
    assert partitions_reported(instance, ids, [DAYS]) == {ids[0]: 3, ids[1]: 1}
    assert partitions_reported(instance, ids, [dg.AssetKey("another")]) == {}
