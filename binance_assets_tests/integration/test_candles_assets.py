"""Fetched assets on a real Dagster instance: one day, a range, refused days, downstream assets, several markets."""

# No `from __future__ import annotations` here: Dagster reads the types of an asset's arguments when it is defined.
import base64
import datetime as dt
import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from PIL import Image

from binance_assets.candles.content_hash import content_hash
from binance_assets.definitions import build_defs
from binance_assets.model.partitions import partition_for_key
from binance_assets.model.series import parse_series
from binance_assets.model.timestamps import DAY, HOUR, MINUTE, to_ms
from binance_assets.orchestration.keys import asset_key, op_name
from binance_assets.sandbox import Fault, Sandbox
from binance_assets.settings import Settings
from binance_assets.storage.lake import Lake
from binance_assets.storage.universe import Tracked, Universe
from binance_assets_tests.support.environment import cli_environment
from binance_assets_tests.support.exchange import ALL_SOURCES, expected_candles
from binance_assets_tests.support.instances import with_quick_retries
from binance_assets_tests.support.lakes import keys, local, read, stored
from binance_assets_tests.support.warm_python import WarmPython

pytestmark = pytest.mark.usefixtures("without_plot")

BTC, ETH, COIN = (parse_series(name) for name in ("spot/BTCUSDT/1m", "usdm/ETHUSDT/1h", "coinm/BTCUSD_PERP/1h"))
WEEKS = parse_series("spot/BTCUSDT/1w")
UNIVERSE = Universe(tuple(Tracked(series) for series in (BTC, ETH, COIN, WEEKS)))
NOON_OF_THE_3RD = to_ms(dt.date(2024, 1, 3)) + 12 * HOUR


def lose_two_minutes(sandbox: Sandbox) -> None:
    """Remove the candles of two minutes from noon of the 3rd from both sources."""
    for path in ALL_SOURCES:
        sandbox.faults.add(
            Fault("missing_row", start=NOON_OF_THE_3RD, end=NOON_OF_THE_3RD + 2 * MINUTE, path=path, interval="1m")
        )


@dg.asset(
    deps=[asset_key(BTC)],
    partitions_def=dg.DailyPartitionsDefinition("2017-07-01", timezone="UTC"),
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def report(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """A user's own asset downstream of a series."""
    return dg.MaterializeResult(metadata={"days": len(context.partition_keys)})


@pytest.fixture
def definitions(settings: Settings) -> dg.Definitions:
    return dg.Definitions.merge(build_defs(settings, UNIVERSE), dg.Definitions(assets=[report]))


@pytest.fixture
def lake(settings: Settings) -> Lake:
    return Lake(settings.lake)


def run(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    keys: Sequence[dg.AssetKey],
    first: str,
    last: str,
    only_missing: bool = False,
) -> dg.ExecuteInProcessResult:
    """Run a range as the UI does: with the implicit asset job, and the range in the tags of the run."""
    names = [key.to_python_identifier() for key in keys if len(key.path) == 3]
    return definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance,
        asset_selection=list(keys),
        tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last},
        run_config={"ops": {name: {"config": {"only_missing": only_missing}} for name in names}},
        raise_on_error=False,
    )


def materialized(instance: dg.DagsterInstance, key: dg.AssetKey) -> list[str]:
    return sorted(instance.get_materialized_partitions(key))


def check_of(result: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    (evaluation,) = result.get_asset_check_evaluations()
    return evaluation


@pytest.mark.usefixtures("plot")
def test_a_single_day(definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox) -> None:
    job = definitions.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(instance=instance, asset_selection=[asset_key(BTC)], partition_key="2024-01-01")
    assert result.success
    assert materialized(instance, asset_key(BTC)) == ["2024-01-01"]
    (path,) = local(lake.root).rglob("*.parquet")
    start = to_ms(dt.date(2024, 1, 1))
    assert pl.read_parquet(path, hive_partitioning=False).equals(
        expected_candles(sandbox, str(BTC), start, start + DAY)
    )
    (event,) = result.asset_materializations_for_node(op_name(BTC))
    preview, chart = event.metadata["preview"], event.metadata["chart"]
    assert isinstance(preview, dg.TableMetadataValue)
    assert [str(record.data["open_time"])[11:16] for record in preview.records[2:4]] == ["00:02", "23:57"]
    png = base64.b64decode(str(chart.value).partition("base64,")[2].removesuffix(")"))
    with Image.open(io.BytesIO(png)) as image:
        assert (image.format, len(png) < 60_000) == ("PNG", True)


@pytest.mark.usefixtures("plot")
def test_a_day_whose_chart_fails_is_reported_without_it(
    definitions: dg.Definitions, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # as an installation that is broken
    result = run(definitions, instance, [asset_key(COIN)], "2024-01-01", "2024-01-01")
    assert result.success
    (event,) = result.asset_materializations_for_node(op_name(COIN))
    assert "preview" in event.metadata
    assert "chart" not in event.metadata


def test_a_day_of_many_assets_has_neither_preview_nor_chart(settings: Settings, instance: dg.DagsterInstance) -> None:
    intervals = ("3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d")
    series = [parse_series(f"spot/BTCUSDT/{interval}") for interval in intervals]
    definitions = build_defs(settings, Universe(tuple(map(Tracked, series))))
    result = run(definitions, instance, [asset_key(member) for member in series], "2024-01-01", "2024-01-01")
    assert result.success
    for member in series:
        (event,) = result.asset_materializations_for_node(op_name(member))
        assert not {"preview", "chart"} & event.metadata.keys()


def test_a_range_is_one_run_with_an_event_for_every_day(
    definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake
) -> None:
    result = run(definitions, instance, [asset_key(BTC)], "2024-01-01", "2024-01-06")
    assert result.success
    assert len(materialized(instance, asset_key(BTC))) == 6
    assert keys(lake, BTC) == materialized(instance, asset_key(BTC))
    assert check_of(result).passed
    events = result.asset_materializations_for_node(op_name(BTC))
    assert len(events) == 6
    assert not any({"preview", "chart"} & event.metadata.keys() for event in events)


def test_the_metadata_of_a_day(definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake) -> None:
    run(definitions, instance, [asset_key(BTC)], "2024-01-01", "2024-01-02")
    event = instance.get_latest_materialization_event(asset_key(BTC))
    assert event is not None
    assert event.asset_materialization is not None
    metadata = {name: value.value for name, value in event.asset_materialization.metadata.items()}
    path, entry = local(lake.path(BTC, partition_for_key("2024-01-02", BTC.interval))), stored(lake, BTC, "2024-01-02")
    assert metadata["dagster/partition_row_count"] == 1440
    assert metadata["path"] == str(path)
    assert metadata["bytes"] == entry.size
    assert path.stat().st_size == sum(stored(lake, BTC, key).size for key in ("2024-01-01", "2024-01-02"))
    assert (metadata["verdict"], metadata["source"]) == ("complete", "archive")
    assert metadata["archive_file"] == "BTCUSDT-1m-2024-01.zip"
    assert re.fullmatch("[0-9a-f]{64}", str(metadata["archive_sha256"]))
    assert metadata["content_hash"] == entry.content_hash == content_hash(read(lake, BTC, "2024-01-02"))
    assert metadata["archive_modified"] == "2024-02-03T08:30:00Z"
    assert metadata["first_open_time"] == dt.datetime(2024, 1, 2, tzinfo=dt.UTC).timestamp()
    assert metadata["last_open_time"] == dt.datetime(2024, 1, 2, 23, 59, tzinfo=dt.UTC).timestamp()


def test_the_metadata_of_a_run(settings: Settings, instance: dg.DagsterInstance) -> None:
    definitions = build_defs(settings.model_copy(update={"source": "rest"}), UNIVERSE)
    metadata = check_of(run(definitions, instance, [asset_key(BTC)], "2024-01-01", "2024-01-10")).metadata
    assert metadata["rows"].value == 14_400
    assert metadata["requests"].value == 15 + 3  # 15 pages; and the time, the limit, the totals of the days
    assert metadata["weight"].value == 30 + 1 + 20 + 2
    assert {"rtt_ms", "workers", "rows_per_second", "seconds"} <= set(metadata)


def test_a_refused_day_is_not_written_but_named_and_the_others_are_written(
    definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    lose_two_minutes(sandbox)
    result = run(definitions, instance, [asset_key(BTC)], "2024-01-01", "2024-01-05")
    assert not result.success
    good = ["2024-01-01", "2024-01-02", "2024-01-04", "2024-01-05"]
    assert materialized(instance, asset_key(BTC)) == keys(lake, BTC) == good
    check = check_of(result)
    assert not check.passed
    assert check.blocking
    assert "2024-01-03 lost: no candles for 2024-01-03 12:00 to 12:02" in str(check.description)
    refused = check.metadata["refused"]
    assert isinstance(refused, dg.TableMetadataValue)
    (record,) = refused.records
    assert (record.data["day"], record.data["verdict"]) == ("2024-01-03", "lost")


def test_the_next_run_fetches_a_repaired_day(
    definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    lose_two_minutes(sandbox)
    run(definitions, instance, [asset_key(BTC)], "2024-01-01", "2024-01-05")
    sandbox.faults.clear()
    sandbox.requests.clear()
    assert run(definitions, instance, [asset_key(BTC)], "2024-01-01", "2024-01-05", only_missing=True).success
    assert len(keys(lake, BTC)) == 5
    windows = [request.params["startTime"] for request in sandbox.requests if request.params.get("interval") == "1m"]
    assert windows
    assert all(int(start) >= to_ms(dt.date(2024, 1, 3)) for start in windows)
    assert not any(request.path.endswith(".zip") for request in sandbox.requests)  # two pages are cheaper


def test_a_run_over_missing_days_records_also_those_of_which_an_event_was_lost(
    definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    run(definitions, instance, [asset_key(BTC)], "2024-01-01", "2024-01-01")
    with dg.DagsterInstance.ephemeral() as lost:  # whose events of the next two days nobody keeps
        run(definitions, lost, [asset_key(BTC)], "2024-01-02", "2024-01-03")
    assert materialized(instance, asset_key(BTC)) == ["2024-01-01"]
    sandbox.requests.clear()
    for expected in (["2024-01-04", "2024-01-02", "2024-01-03"], []):
        result = run(definitions, instance, [asset_key(BTC)], "2024-01-01", "2024-01-04", only_missing=True)
        assert result.success
        assert [event.partition for event in result.asset_materializations_for_node(op_name(BTC))] == expected
    assert materialized(instance, asset_key(BTC)) == keys(lake, BTC)
    windows = [request.params["startTime"] for request in sandbox.requests if request.params.get("interval") == "1m"]
    assert all(int(start) >= NOON_OF_THE_3RD + 12 * HOUR for start in windows)


def test_a_refused_refresh_keeps_the_earlier_file(
    definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    run(definitions, instance, [asset_key(BTC)], "2024-01-03", "2024-01-03")
    (path,) = local(lake.root).rglob("*.parquet")
    before = path.read_bytes()
    lose_two_minutes(sandbox)
    assert not run(definitions, instance, [asset_key(BTC)], "2024-01-03", "2024-01-03").success
    assert path.read_bytes() == before


def lose_the_totals_of_the_3rd(sandbox: Sandbox) -> None:
    """Remove the 1d candle of the 3rd from both sources, so that nothing proves the day."""
    start = NOON_OF_THE_3RD - 12 * HOUR
    for path in ALL_SOURCES:
        sandbox.faults.add(Fault("missing_row", start=start, end=start + 1, path=path, interval="1d"))


def test_the_check_of_a_refused_refresh_says_that_the_stored_day_is_kept(
    definitions: dg.Definitions, instance: dg.DagsterInstance, sandbox: Sandbox
) -> None:
    run(definitions, instance, [asset_key(BTC)], "2024-01-03", "2024-01-03")
    lose_two_minutes(sandbox)
    check = check_of(run(definitions, instance, [asset_key(BTC)], "2024-01-03", "2024-01-04"))
    assert str(check.description).startswith("1 refused: 2024-01-03 lost: no candles for 2024-01-03 12:00 to 12:02")
    assert str(check.description).endswith("; the stored partition is kept, it is complete")
    assert check.metadata["days_accepted"].value == 1


def test_a_worse_day_does_not_replace_a_better_one_and_the_check_names_both_verdicts(
    definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    run(definitions, instance, [asset_key(BTC)], "2024-01-03", "2024-01-03")
    before = read(lake, BTC, "2024-01-03")
    lose_the_totals_of_the_3rd(sandbox)
    result = run(definitions, instance, [asset_key(BTC)], "2024-01-02", "2024-01-04")
    assert not result.success
    assert [stored(lake, BTC, f"2024-01-0{day}").verdict for day in (2, 3, 4)] == ["complete"] * 3
    assert read(lake, BTC, "2024-01-03").equals(before)
    assert len(result.asset_materializations_for_node(op_name(BTC))) == 2
    check = check_of(result)
    assert not check.passed
    assert "2024-01-03 unproved: the stored partition is better and is kept, it is complete" in str(check.description)
    assert (check.metadata["days_accepted"].value, check.metadata["days_refused"].value) == (2, 1)
    assert check.metadata["rows"].value == 2 * 1440


def test_verdicts_other_than_complete_are_counted_in_the_check_and_in_the_log(
    definitions: dg.Definitions, instance: dg.DagsterInstance, sandbox: Sandbox
) -> None:
    lose_the_totals_of_the_3rd(sandbox)
    result = run(definitions, instance, [asset_key(BTC)], "2024-01-02", "2024-01-04")
    check = check_of(result)
    assert (check.passed, check.metadata["days_accepted"].value) == (True, 3)
    assert check.metadata["verdicts"].value == {"unproved": 1}
    messages = [entry.user_message for entry in instance.all_logs(result.run_id)]
    assert any(message.startswith("spot/BTCUSDT/1m: 3 written (1 unproved), 4320 candles") for message in messages)
    again = check_of(run(definitions, instance, [asset_key(BTC)], "2024-01-02", "2024-01-02"))
    assert again.metadata["verdicts"].value == {}


def test_a_downstream_asset_runs_in_the_same_run_after_an_accepted_range(
    definitions: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    result = run(definitions, instance, [asset_key(BTC), report.key], "2024-01-01", "2024-01-03")
    assert result.success
    assert materialized(instance, report.key) == ["2024-01-01", "2024-01-02", "2024-01-03"]


def test_a_downstream_asset_does_not_run_after_a_range_with_a_refused_day(
    definitions: dg.Definitions, instance: dg.DagsterInstance, sandbox: Sandbox
) -> None:
    lose_two_minutes(sandbox)
    result = run(definitions, instance, [asset_key(BTC), report.key], "2024-01-01", "2024-01-04")
    assert not result.success
    assert materialized(instance, report.key) == []
    assert len(materialized(instance, asset_key(BTC))) == 3


def test_assets_of_different_markets_in_one_run(
    definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake
) -> None:
    assets = [asset_key(series) for series in (BTC, ETH, COIN)]
    assert run(definitions, instance, assets, "2024-01-01", "2024-01-04").success
    assert [len(keys(lake, series)) for series in (BTC, ETH, COIN)] == [4, 4, 4]


def test_a_failing_asset_does_not_stop_the_other(
    definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    sandbox.faults.add(Fault("status", value=451, market="spot"))
    sandbox.faults.add(Fault("status", value=404, market="spot", path="archive"))
    assert not run(definitions, instance, [asset_key(BTC), asset_key(ETH)], "2024-01-01", "2024-01-02").success
    assert (keys(lake, BTC), len(keys(lake, ETH))) == ([], 2)


def test_monthly_partitions(definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake) -> None:
    assert run(definitions, instance, [asset_key(WEEKS)], "2024-01-01", "2024-03-01").success
    assert keys(lake, WEEKS) == ["2024-01-01", "2024-02-01", "2024-03-01"]


def test_a_lake_of_real_candles_refuses_the_sandbox_in_one_line(
    definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake
) -> None:
    lake.prepare("binance")
    result = run(definitions, instance, [asset_key(BTC)], "2024-01-01", "2024-01-02")
    assert not result.success
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert failure.step_failure_data.user_failure_data is not None
    assert "venue 'binance'" in str(failure.step_failure_data.user_failure_data.description)
    assert keys(lake, BTC) == []


def test_without_a_known_venue_nothing_is_written(
    settings: Settings, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    definitions = with_quick_retries(build_defs(settings, UNIVERSE), settings)
    lake.prepare("binance")
    sandbox.faults.add(Fault("status", value=500, path="time", times=6))  # for every retry
    result = run(definitions, instance, [asset_key(BTC)], "2024-01-01", "2024-01-02")
    assert not result.success
    assert keys(lake, BTC) == []


def test_the_schedules_request_the_partition_that_has_just_ended(definitions: dg.Definitions) -> None:
    for name, now, expected in (
        ("spot_daily_schedule", dt.datetime(2024, 3, 2, 0, 7, tzinfo=dt.UTC), "2024-03-01"),
        ("spot_monthly_schedule", dt.datetime(2024, 3, 8, 0, 17, tzinfo=dt.UTC), "2024-02-01"),
    ):
        schedule = definitions.resolve_schedule_def(name)
        assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED
        context = dg.build_schedule_context(
            scheduled_execution_time=now, repository_def=definitions.get_repository_def()
        )
        (request,) = schedule.evaluate_tick(context).run_requests or []
        assert request.partition_key == expected


def test_the_dagster_command_line_materializes_a_range(
    sandbox: Sandbox, tmp_path: Path, warm_python: WarmPython
) -> None:
    (tmp_path / "universe.yaml").write_text("series: [{market: spot, symbols: [BTCUSDT], intervals: [1m]}]")
    (tmp_path / "home").mkdir()
    result = warm_python.run(
        ["-m", "dagster", "asset", "materialize", "-m", "binance_assets.definitions",
         "--select", "spot/BTCUSDT/1m", "--partition-range", "2024-01-01...2024-01-03"],
        cwd=tmp_path, env=cli_environment(sandbox, tmp_path) | {"DAGSTER_HOME": str(tmp_path / "home")}, timeout=120,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2_000:]
    assert "BetaWarning" not in result.stderr
    assert keys(Lake(tmp_path / "lake"), BTC) == ["2024-01-01", "2024-01-02", "2024-01-03"]
    assert [path.name for path in (tmp_path / "lake").rglob("*.parquet")] == ["2024-01.parquet"]


def test_the_code_location_of_an_empty_universe_loads(settings: Settings) -> None:
    build_defs(settings, Universe()).get_repository_def().load_all_definitions()
