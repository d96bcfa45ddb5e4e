"""The check, the partitions tab, and the coverage name the same partitions, whatever happened before."""

# No `from __future__ import annotations` here: Dagster reads the types of an asset's arguments when it is defined.
import datetime as dt
import os
import shutil
from collections.abc import Callable, Collection
from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from binance_assets.definitions import build_defs
from binance_assets.exchange.session import Exchange
from binance_assets.ingest.options import DownloadOptions
from binance_assets.ingest.override import override
from binance_assets.model.intervals import parse_derived_interval
from binance_assets.model.partitions import partition_for_key
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import Series, derived_series, parse_series
from binance_assets.model.timestamps import HOUR, to_ms
from binance_assets.orchestration import losses
from binance_assets.orchestration.checks import CHECK_NAME, refresh_check
from binance_assets.orchestration.dagster_internals.event_reads import latest_check_records
from binance_assets.orchestration.dagster_internals.event_writes import report_failed_run
from binance_assets.orchestration.gaps import LOSSES_JOB
from binance_assets.orchestration.keys import asset_key
from binance_assets.orchestration.lake_state import ended_since, is_look_due, next_look
from binance_assets.orchestration.metrics import RunMetrics
from binance_assets.orchestration.partitions import DAILY, range_tags
from binance_assets.orchestration.runs import report_present
from binance_assets.orchestration.status import Absent, absent_partitions, last_refusal, last_runs
from binance_assets.sandbox import Fault, Sandbox
from binance_assets.settings import Settings, read_settings
from binance_assets.storage.lake import Lake
from binance_assets.storage.universe import Derived
from binance_assets_tests.support.dagster_internals import SensorExecutionData
from binance_assets_tests.support.environment import environment_of
from binance_assets_tests.support.exchange import ALL_SOURCES
from binance_assets_tests.support.instances import execute, fetch, instance_in, universe_of
from binance_assets_tests.support.lakes import keys, local, state_folder

pytestmark = pytest.mark.usefixtures("without_plot")

BTC = parse_series("spot/BTCUSDT/1h")
FOUR_HOURS = Derived(derived_series(BTC.market, "BTCUSDT", parse_derived_interval("4h")), BTC)


@dg.asset(deps=[asset_key(BTC)], partitions_def=DAILY, backfill_policy=dg.BackfillPolicy.single_run())
def report() -> None:
    """A user's own asset downstream of a series."""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"source": "rest"})


@pytest.fixture
def definitions(settings: Settings) -> dg.Definitions:
    ours = build_defs(settings, universe_of(BTC, derived=[FOUR_HOURS]))
    return dg.Definitions.merge(ours, dg.Definitions(assets=[report]))


@pytest.fixture
def lake(settings: Settings) -> Lake:
    return Lake(settings.lake)


def march(*days: int) -> list[str]:
    return [f"2024-03-{day:02}" for day in days]


def lose(sandbox: Sandbox, *days: int) -> None:
    """Remove the candle at noon of days from both sources."""
    for key in march(*days):
        noon = to_ms(dt.date.fromisoformat(key)) + 12 * HOUR
        for path in ALL_SOURCES:
            sandbox.faults.add(
                Fault("missing_row", symbol="BTCUSDT", start=noon, end=noon + HOUR, path=path, interval="1h")
            )


def statuses(instance: dg.DagsterInstance, key: dg.AssetKey) -> dict[str, str]:
    """Return what the partitions tab shows of the partitions that it does not show as missing."""
    shown = instance.get_status_by_partition(key, DAILY.get_partition_keys(), DAILY) or {}
    return {day: status.value for day, status in shown.items() if status is not None}


def evaluation(instance: dg.DagsterInstance, series: Series) -> dg.AssetCheckEvaluation:
    """Return the evaluation that the asset's page shows."""
    key = dg.AssetCheckKey(asset_key(series), CHECK_NAME)
    record = latest_check_records(instance, [key])[key]
    assert record.event is not None, record.status
    assert record.event.dagster_event is not None
    data = record.event.dagster_event.event_specific_data
    assert isinstance(data, dg.AssetCheckEvaluation)
    return data


def named(check: dg.AssetCheckEvaluation) -> set[str]:
    """Return the partitions that an evaluation names."""
    tables = [check.metadata.get(name) for name in ("refused", "absent")]
    return {
        str(row.data["day"]) for table in tables if isinstance(table, dg.TableMetadataValue) for row in table.records
    }


def assert_all_agree(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    lake: Lake,
    absent: list[str],
    series: Series = BTC,
    lost: Collection[str] = (),
) -> None:
    """Assert that the check, the partitions tab, and the coverage name the absent partitions, and only those.

    Of these, the lost ones were in the lake once: no run refused them, so they count as missing.
    """
    check = evaluation(instance, series)
    assert (check.passed, named(check)) == (not absent, set(absent))
    assert check.metadata["days_absent"].value == len(absent)
    shown = statuses(instance, asset_key(series))
    assert {day for day, status in shown.items() if status == "FAILED"} == set(absent)
    assert {day for day, status in shown.items() if status == "MATERIALIZED"} == set(keys(lake, series))
    selection = [dg.AssetKey([series.market.name, "coverage"])]
    assert execute(definitions, instance, dg.RunRequest(asset_selection=selection), "__ASSET_JOB").success
    table = pl.read_parquet(state_folder(lake) / "coverage" / f"{series.market}.parquet")
    assert table.filter(series=str(series))["refused"].item() == len(absent) - len(lost)
    assert absent_partitions(instance, lake, [series]) == Absent(
        {series: frozenset(absent) - {*lost}}, {series: frozenset(lost)}
    )
    assert evaluation(instance, series) == check  # the coverage found nothing to correct


def run_of(
    definitions: dg.Definitions, instance: dg.DagsterInstance, first: str, last: str, *keys: dg.AssetKey
) -> dg.ExecuteInProcessResult:
    request = dg.RunRequest(asset_selection=list(keys), tags=range_tags(first, last))
    return execute(definitions, instance, request, "__ASSET_JOB")


def job() -> dg.JobDefinition:
    """Return the job of the code location that the environment describes, as another process would load it."""
    return build_defs(read_settings(os.environ), universe_of(BTC)).resolve_job_def("spot_daily")


def test_the_three_agree_through_refusals_repairs_re_execution_and_restarts(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    lake: Lake,
    sandbox: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (environment_of(sandbox, tmp_path) | {"BINANCE_ASSETS_SOURCE": "rest"}).items():
        monkeypatch.setenv(name, value)
    lose(sandbox, 2, 4)
    tags = range_tags("2024-03-01", "2024-03-05")
    with dg.execute_job(dg.reconstructable(job), instance, tags=tags, raise_on_error=False) as refusing:
        assert not refusing.success
    assert_all_agree(definitions, instance, lake, march(2, 4))

    assert fetch(definitions, instance, [BTC], march(6))[0].success  # another day does not make the two appear
    assert_all_agree(definitions, instance, lake, march(2, 4))
    check = evaluation(instance, BTC)
    assert (check.severity, check.blocking) == (dg.AssetCheckSeverity.ERROR, False)
    begin = "2 asked for earlier and not in the lake: 2024-03-02 lost: no candles for 2024-03-02 12:00 to 13:00"
    assert str(check.description).startswith(begin)

    assert not fetch(definitions, instance, [BTC], march(2))[0].success  # refused again
    assert_all_agree(definitions, instance, lake, march(2, 4))
    with instance_in(Path(instance.root_directory)) as restarted:  # as another process opens it
        assert_all_agree(definitions, restarted, lake, march(2, 4))

    sandbox.faults.clear()
    assert fetch(definitions, instance, [BTC], march(2))[0].success
    assert_all_agree(definitions, instance, lake, march(4))

    options = dg.ReexecutionOptions.from_failure(refusing.run_id, instance)
    with dg.execute_job(dg.reconstructable(job), instance, tags=tags, reexecution_options=options) as again:
        assert again.success
    assert_all_agree(definitions, instance, lake, [])


def test_a_person_accepts_a_day_and_the_check_passes_without_a_run(
    settings: Settings, definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    lose(sandbox, 2)
    fetch(definitions, instance, [BTC], march(1, 2, 3))
    assert_all_agree(definitions, instance, lake, march(2))
    exchange, partition = Exchange(BTC.market, settings), partition_for_key("2024-03-02", BTC.interval)
    options = DownloadOptions("rest", listing_cache=lake)
    with closing(exchange):
        override(lake, exchange, BTC, [partition], options, who="a user", reason="no other source")
    report_present(instance, lake, BTC, [partition], again=True)  # what the command `accept` does
    refresh_check(instance, lake, BTC)
    assert_all_agree(definitions, instance, lake, [])
    assert last_runs(instance, [BTC])[BTC].status == "FAILURE"  # of the only run, although a later event has none


def test_a_refused_refresh_fails_its_run_and_the_stored_day_is_no_gap(
    definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    fetch(definitions, instance, [BTC], march(1, 2))
    lose(sandbox, 2)
    (result,) = fetch(definitions, instance, [BTC], march(1, 2))
    assert not result.success
    assert [check.passed for check in result.get_asset_check_evaluations()] == [False]
    assert_all_agree(definitions, instance, lake, [])


def delete(file: Path, _: Path) -> None:
    file.unlink()


def damage(file: Path, _: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def move_folder(file: Path, aside: Path) -> None:
    file.parent.rename(aside)


@pytest.mark.parametrize(
    ("lose_file", "reason"),
    [(delete, "deleted or moved"), (damage, "cannot be read"), (move_folder, "deleted or moved")],
)
def test_files_that_disappear_without_a_run_are_named_until_they_are_back(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    lake: Lake,
    sandbox: Sandbox,
    tmp_path: Path,
    lose_file: Callable[[Path, Path], None],
    reason: str,
) -> None:
    lose(sandbox, 2)
    fetch(definitions, instance, [BTC], march(1, 2, 3))
    refresh_check(instance, lake, BTC)
    file, kept = local(lake.folder(BTC)) / "2024.parquet", tmp_path / "kept"
    shutil.copy(file, kept)
    tick(definitions, instance, None)
    lose_file(file, tmp_path / "aside")
    absent = absent_partitions(instance, lake, [BTC])  # what the command `status` shows
    assert (absent.unwritten[BTC], absent.lost[BTC]) == (frozenset(march(2)), frozenset(march(1, 3)))
    data = tick(definitions, instance, None)
    assert [request.asset_selection for request in data.run_requests or []] == [[dg.AssetKey(["spot", "coverage"])]]
    assert reason in str(evaluation(instance, BTC).description)
    gap = last_refusal(instance, BTC, partition_for_key("2024-03-01", BTC.interval))  # what the command `show` prints
    assert gap is not None
    assert reason in gap.reason
    assert_all_agree(definitions, instance, lake, march(1, 2, 3), lost=march(1, 3))
    runs = [run for run in instance.get_runs() if run.job_name == LOSSES_JOB]
    assert [run.status for run in runs] == [dg.DagsterRunStatus.FAILURE]
    assert not tick(definitions, instance, data.cursor).run_requests  # nothing is recorded twice

    file.parent.mkdir(exist_ok=True)
    shutil.copy(kept, file)
    refresh_check(instance, lake, BTC)
    assert_all_agree(definitions, instance, lake, march(2))


def test_the_coverage_notices_lost_files_itself_and_a_lake_that_is_not_there_is_not_recorded(
    definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(definitions, instance, [BTC], march(1, 2))
    (local(lake.folder(BTC)) / "2024.parquet").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(losses, "MOST_RECORDED", 1)
        assert losses.record_losses(instance, lake, [BTC]) == {}
    aside = local(lake.root).rename(local(lake.root).with_name("aside"))
    assert losses.record_losses(instance, lake, [BTC]) == {}
    aside.rename(local(lake.root))
    selection = [dg.AssetKey(["spot", "coverage"])]
    assert execute(definitions, instance, dg.RunRequest(asset_selection=selection), "__ASSET_JOB").success
    assert_all_agree(definitions, instance, lake, march(1, 2), lost=march(1, 2))
    assert fetch(definitions, instance, [BTC], march(1, 2))[0].success
    assert_all_agree(definitions, instance, lake, [])


def test_a_partition_that_a_later_run_skipped_because_it_was_present_can_be_lost_too(
    definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake
) -> None:
    fetch(definitions, instance, [BTC], march(1))
    assert fetch(definitions, instance, [BTC], march(1), {"only_missing": True})[0].success
    assert losses.find_losses(instance, lake, [BTC]) == {}
    file = local(lake.folder(BTC)) / "2024.parquet"
    content = file.read_bytes()
    file.unlink()
    assert absent_partitions(instance, lake, [BTC]).lost[BTC] == set(march(1))
    assert list(losses.record_losses(instance, lake, [BTC])) == [BTC]
    refresh_check(instance, lake, BTC)
    assert (named(evaluation(instance, BTC)), statuses(instance, asset_key(BTC))) == (
        {"2024-03-01"},
        {"2024-03-01": "FAILED"},
    )
    assert losses.record_losses(instance, lake, [BTC]) == {}
    file.write_bytes(content)
    refresh_check(instance, lake, BTC)
    assert statuses(instance, asset_key(BTC)) == {"2024-03-01": "MATERIALIZED"}


def test_a_second_lake_has_not_lost_what_the_first_one_holds(
    definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake, tmp_path: Path
) -> None:
    fetch(definitions, instance, [BTC], march(1, 2))
    second = Lake(tmp_path / "second")
    second.prepare("sandbox")
    assert losses.find_losses(instance, second, [BTC]) == {}
    assert losses.record_losses(instance, second, [BTC]) == {}
    link = tmp_path / "link"
    link.symlink_to(local(lake.root))  # another name of the first lake, which has lost a file
    (local(lake.folder(BTC)) / "2024.parquet").unlink()
    for name in (lake.root, link):
        assert [part.key for part in losses.find_losses(instance, Lake(name), [BTC])[BTC]] == march(1, 2)
    # A lake that was moved is no second one: what did not come along is lost.
    moved = Lake(local(lake.root).rename(tmp_path / "moved"))
    assert [part.key for part in losses.find_losses(instance, moved, [BTC])[BTC]] == march(1, 2)


def test_a_partition_that_is_written_while_its_loss_is_recorded_is_not_left_failed(
    definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(definitions, instance, [BTC], march(1))
    file = local(lake.folder(BTC)) / "2024.parquet"
    content = file.read_bytes()
    file.unlink()

    def write_and_report(*arguments: Any) -> None:
        file.write_bytes(content)
        report_failed_run(*arguments)

    monkeypatch.setattr(losses, "report_failed_run", write_and_report)
    assert losses.record_losses(instance, lake, [BTC])
    assert statuses(instance, asset_key(BTC)) == {"2024-03-01": "MATERIALIZED"}


class During:
    """A listener that calls a function once, at a moment of the first step."""

    def __init__(self, moment: str, call: Callable[[], object]) -> None:
        self._calls = {moment: call}

    def started(self, _series: Series, _exchange: Exchange) -> None:
        self._at("started")

    def finished(self, _series: Series, _metrics: RunMetrics) -> None:
        self._at("finished")  # before the step evaluates its check

    def partition_done(self, _series: Series, _result: PartitionResult) -> None: ...

    def partition_declined(self, _series: Series, _result: PartitionResult) -> None: ...

    def _at(self, moment: str) -> None:
        if moment in self._calls:
            self._calls.pop(moment)()


def fail_with(error: type[BaseException]) -> Callable[[], object]:
    def fail() -> None:
        raise error

    return fail


def test_hundreds_of_gaps_are_counted_and_the_first_are_named(
    settings: Settings, instance: dg.DagsterInstance, lake: Lake
) -> None:
    definitions = build_defs(settings, universe_of(BTC), During("started", fail_with(RuntimeError)))
    run_of(definitions, instance, "2022-01-01", "2022-12-31", asset_key(BTC))
    refresh_check(instance, lake, BTC)
    check = evaluation(instance, BTC)
    assert (check.passed, check.metadata["days_absent"].value) == (False, 365)
    assert (len(named(check)), min(named(check))) == (100, "2022-01-01")
    assert str(check.description) == (
        "365 asked for earlier and not in the lake: 2022-01-01 and 99 more: its run failed before the partition was "
        "written; the reasons of 265 more are not listed"
    )


@pytest.mark.parametrize("is_refused_first", [False, True])
def test_two_runs_at_the_same_time(
    settings: Settings, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox, is_refused_first: bool
) -> None:
    """The page shows the evaluation of the run that was planned last, which may not be the last evaluation."""
    lose(sandbox, 1 if is_refused_first else 3)
    other = build_defs(settings, universe_of(BTC))
    during = During("finished", lambda: fetch(other, instance, [BTC], march(3, 4)))
    definitions = build_defs(settings, universe_of(BTC), during)
    fetch(definitions, instance, [BTC], march(1, 2))
    assert len(instance.get_runs()) == 2
    assert_all_agree(definitions, instance, lake, march(1 if is_refused_first else 3))


@pytest.mark.parametrize("error", [RuntimeError, dg.DagsterExecutionInterruptedError])
def test_after_a_run_that_ended_without_a_result_the_sensor_lets_all_agree(
    settings: Settings, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox, error: type[BaseException]
) -> None:
    lose(sandbox, 3)
    fetch(build_defs(settings, universe_of(BTC)), instance, [BTC], march(1, 2))
    definitions = build_defs(settings, universe_of(BTC), During("finished", fail_with(error)))
    cursor = tick(definitions, instance, None).cursor
    (ended,) = fetch(definitions, instance, [BTC], march(2, 3, 4))
    assert not ended.success
    data = tick(definitions, instance, cursor)
    assert [request.asset_selection for request in data.run_requests or []] == [[dg.AssetKey(["spot", "coverage"])]]
    assert named(evaluation(instance, BTC)) == set(march(3))
    assert "before the partition was written" in str(evaluation(instance, BTC).description)
    assert_all_agree(definitions, instance, lake, march(3))
    assert not tick(definitions, instance, data.cursor).run_requests


def tick(definitions: dg.Definitions, instance: dg.DagsterInstance, cursor: str | None) -> SensorExecutionData:
    repository = definitions.get_repository_def()
    context = dg.build_sensor_context(instance=instance, repository_def=repository, cursor=cursor)
    return repository.get_sensor_def("lake_state").evaluate_tick(context)


@pytest.mark.parametrize("took", [0.0, 0.5, 36.0, 40.0, 10_000.0])
def test_a_slow_look_for_lost_files_is_followed_by_a_pause(took: float) -> None:
    now = 1_800_000_000.0
    look = next_look(now, took)
    assert is_look_due(look, look)
    assert took == 0 or not is_look_due(now + 0.9 * min(100 * took, 3_600), look)
    assert is_look_due(now - 7_200, look)  # the clock was set back


# What a refused partition does to the assets downstream, and where it explains itself.


def test_the_good_days_of_downstream_assets_are_not_failed_by_a_refused_day_in_the_same_run(
    definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    lose(sandbox, 2)
    downstream = asset_key(FOUR_HOURS.series)
    fetch(definitions, instance, [BTC, FOUR_HOURS.series], march(3))
    cursor = tick(definitions, instance, None).cursor
    result = run_of(definitions, instance, "2024-03-01", "2024-03-03", asset_key(BTC), downstream, report.key)
    assert not result.success
    assert statuses(instance, downstream) == {"2024-03-02": "FAILED", "2024-03-03": "MATERIALIZED"}
    assert statuses(instance, report.key) == {"2024-03-02": "FAILED"}
    (failure,) = (event.step_failure_data for event in result.all_events if event.is_step_failure)
    assert failure.user_failure_data is not None
    text = str(failure.user_failure_data.description)
    assert text.startswith("spot/BTCUSDT/1h: 1 refused: 2024-03-02 lost: no candles for 2024-03-02 12:00 to 13:00")
    assert text.endswith("not executed in this run, because of the refused partitions: report, spot/BTCUSDT/4h")
    assert "\n" not in text

    tick(definitions, instance, cursor)  # names the absent day in the check of the derived series
    reason = "2024-03-02 unreachable: spot/BTCUSDT/1h 2024-03-02 was refused as lost: no candles for 2024-03-02 12:00"
    assert reason in str(evaluation(instance, FOUR_HOURS.series).description)
    assert_all_agree(definitions, instance, lake, march(2), FOUR_HOURS.series)
    assert fetch(definitions, instance, [FOUR_HOURS.series], march(1))[0].success  # what its sensor requests
    assert_all_agree(definitions, instance, lake, march(2), FOUR_HOURS.series)


def test_what_an_earlier_run_refused_downstream_stays_named_when_another_day_is_refused(
    definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    downstream = asset_key(FOUR_HOURS.series)
    cursor = tick(definitions, instance, None).cursor
    lose(sandbox, 2)
    assert not run_of(definitions, instance, "2024-03-01", "2024-03-03", asset_key(BTC), downstream).success
    sandbox.faults.clear()
    lose(sandbox, 4)
    assert not run_of(definitions, instance, "2024-03-01", "2024-03-04", asset_key(BTC), downstream).success
    tick(definitions, instance, cursor)
    assert_all_agree(definitions, instance, lake, march(2, 4), FOUR_HOURS.series)
    assert fetch(definitions, instance, [FOUR_HOURS.series], march(1, 2, 3))[0].success  # what its sensor requests
    assert_all_agree(definitions, instance, lake, march(4), FOUR_HOURS.series)


def test_more_ended_runs_than_a_tick_reads_are_read_by_the_next_ticks(instance: dg.DagsterInstance) -> None:
    runs = [instance.add_run(dg.DagsterRun("spot_daily", status=dg.DagsterRunStatus.STARTED)) for _ in range(7)]
    for run in runs:
        instance.report_run_failed(run)
    cursor = {"since": dt.datetime.now(dt.UTC).isoformat(), "seen": []}
    read = []
    for _ in range(4):
        ended, cursor = ended_since(instance, cursor, limit=3)
        read.append([record.dagster_run.run_id for record in ended])
    assert [len(part) for part in read] == [3, 3, 1, 0]
    assert {run_id for part in read for run_id in part} == {run.run_id for run in runs}


def test_the_page_of_a_refused_partition_says_why(
    definitions: dg.Definitions, instance: dg.DagsterInstance, sandbox: Sandbox
) -> None:
    lose(sandbox, 2)
    fetch(definitions, instance, [BTC], march(1, 2, 3))
    records = instance.fetch_observations(asset_key(BTC), limit=10).records
    assert [record.partition_key for record in records] == ["2024-03-02"]
    observation = records[0].asset_observation
    assert observation is not None
    metadata = {name: str(value.value) for name, value in observation.metadata.items()}
    assert (metadata["verdict"], metadata["missing"]) == ("lost", "2024-03-02 12:00 to 13:00")
    assert metadata["reason"].startswith("no candles for 2024-03-02 12:00 to 13:00")
