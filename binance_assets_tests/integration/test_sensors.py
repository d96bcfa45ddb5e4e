"""The sensors, the freshness policies, and the IO manager that loads candles for assets of users."""

# No `from __future__ import annotations` here: Dagster reads the types of an asset's arguments when it is defined.
import datetime as dt
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from binance_assets.definitions import build_defs
from binance_assets.model.intervals import parse_derived_interval
from binance_assets.model.partitions import Partition, partition_for_key, partitions_between
from binance_assets.model.series import Series, derived_series, parse_series
from binance_assets.model.timestamps import DAY, HOUR, to_ms
from binance_assets.orchestration import sensors
from binance_assets.orchestration.coverage import coverage_key
from binance_assets.orchestration.events import materialization
from binance_assets.orchestration.keys import asset_key
from binance_assets.orchestration.partitions import DAILY, partition_ranges, range_tags
from binance_assets.sandbox import Fault, Sandbox
from binance_assets.settings import Settings
from binance_assets.storage.lake import Lake
from binance_assets.storage.universe import Derived
from binance_assets_tests.support.dagster_internals import SensorExecutionData, report_materialization_at
from binance_assets_tests.support.exchange import ALL_SOURCES, expected_candles
from binance_assets_tests.support.instances import copy_of, execute, fetch, prepare, universe_of
from binance_assets_tests.support.lakes import change, local

pytestmark = pytest.mark.usefixtures("without_plot")

BTC, ETH, COIN = (parse_series(name) for name in ("spot/BTCUSDT/1h", "spot/ETHUSDT/1h", "coinm/BTCUSD_PERP/1h"))
WEEKS = parse_series("spot/BTCUSDT/1w")
FOUR_HOURS, HALF_DAYS = (
    Derived(derived_series(BTC.market, "BTCUSDT", parse_derived_interval(text)), BTC) for text in ("4h", "12h")
)
ETH_DAYS = Derived(derived_series(ETH.market, "ETHUSDT", parse_derived_interval("1d")), ETH)
DERIVED = [FOUR_HOURS, HALF_DAYS, ETH_DAYS]


@pytest.fixture(scope="module")
def prepared(shared_sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake and an instance with the first day of 2024 of three series, from the archive."""

    def fill(settings: Settings, instance: dg.DagsterInstance) -> None:
        definitions = build_defs(settings.model_copy(update={"source": "archive"}), universe_of(BTC, ETH, COIN))
        fetch(definitions, instance, [BTC, ETH, COIN], ["2024-01-01"])

    shared_sandbox.faults.clear()
    return prepare(tmp_path_factory.mktemp("prepared"), shared_sandbox, fill)


@pytest.fixture
def filled(prepared: Path, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """A copy of the prepared instance; the prepared lake is copied to where the settings expect it."""
    with copy_of(prepared, tmp_path) as opened:
        yield opened


@pytest.fixture
def definitions(settings: Settings) -> dg.Definitions:
    return build_defs(settings, universe_of(BTC, ETH, WEEKS, COIN, derived=DERIVED))


@pytest.fixture
def lake(settings: Settings) -> Lake:
    return Lake(settings.lake)


def tick(
    definitions: dg.Definitions, instance: dg.DagsterInstance, name: str, cursor: str | None = None
) -> SensorExecutionData:
    """Evaluate a sensor, each time in a new context, as after a restart of the daemon."""
    repository = definitions.get_repository_def()
    with dg.build_sensor_context(instance=instance, repository_def=repository, cursor=cursor) as context:
        return repository.get_sensor_def(name).evaluate_tick(context)


def requested(data: SensorExecutionData) -> list[tuple[str, str, str]]:
    """Return the assets, the first day, and the last day of each requested run."""
    return sorted(
        (
            " ".join(sorted("/".join(key.path) for key in request.asset_selection or [])),
            request.tags["dagster/asset_partition_range_start"],
            request.tags["dagster/asset_partition_range_end"],
        )
        for request in data.run_requests or []
    )


def days(first: str, last: str) -> list[Partition]:
    end = dt.date.fromisoformat(last) + dt.timedelta(days=1)
    return partitions_between(dt.date.fromisoformat(first), end, BTC.interval)


# The assets that a run derives from each base series, as `requested` names them.
FROM_BTC, FROM_ETH = "spot/BTCUSDT/12h spot/BTCUSDT/4h", "spot/ETHUSDT/1d"


def test_which_sensors_are_on_by_default(definitions: dg.Definitions) -> None:
    assert {sensor.name: sensor.default_status for sensor in definitions.get_repository_def().sensor_defs} == {
        "coverage": dg.DefaultSensorStatus.RUNNING,
        "derived_candles": dg.DefaultSensorStatus.RUNNING,
        "reissued_archives": dg.DefaultSensorStatus.STOPPED,
        "interrupted_runs": dg.DefaultSensorStatus.RUNNING,
        "lake_state": dg.DefaultSensorStatus.RUNNING,
        "run_failures": dg.DefaultSensorStatus.STOPPED,
        "check_failures": dg.DefaultSensorStatus.STOPPED,
    }
    schedules = definitions.get_repository_def().schedule_defs
    assert {schedule.default_status for schedule in schedules} == {dg.DefaultScheduleStatus.STOPPED}
    assert len(schedules) == 5


def test_a_sensor_without_work_is_not_defined(settings: Settings) -> None:
    plain, empty = (
        build_defs(settings, universe).get_repository_def() for universe in (universe_of(BTC), universe_of())
    )
    names = {sensor.name for sensor in plain.sensor_defs}
    always = {"coverage", "lake_state", "reissued_archives", "interrupted_runs", "run_failures", "check_failures"}
    assert names == always
    assert empty.sensor_defs == []


def test_no_series_is_fresh_by_activity_and_the_coverage_of_each_market_has_the_check_of_its_data(
    definitions: dg.Definitions,
) -> None:
    """Dagster's freshness policies call a series fresh as soon as any old day is fetched again."""
    graph = definitions.resolve_asset_graph()
    for series in (BTC, ETH, COIN, WEEKS, *(derived.series for derived in DERIVED)):
        assert graph.get(asset_key(series)).freshness_policy is None
        assert {key.name for key in graph.get(asset_key(series)).check_keys} == {"gap_free"}
    for market in (BTC.market, COIN.market):
        assert {key.name for key in graph.get(coverage_key(market)).check_keys} == {"fresh"}


# Derived days after their base series.


def test_no_partition_between_two_ticks_is_lost(
    definitions: dg.Definitions, filled: dg.DagsterInstance, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tick(definitions, filled, "derived_candles").cursor
    for series, partitions in ((BTC, days("2022-01-01", "2022-03-31")), (ETH, days("2023-02-01", "2023-02-10"))):
        stored = lake.stored(series, partition_for_key("2024-01-01", series.interval))
        assert stored is not None
        for partition in partitions:
            if not partition.key.startswith("2022-02"):
                filled.report_runless_asset_event(materialization(series, partition, stored))
    data = tick(definitions, filled, "derived_candles", before)
    assert requested(data) == [
        (FROM_BTC, "2022-01-01", "2022-01-31"),
        (FROM_BTC, "2022-03-01", "2022-03-31"),
        (FROM_ETH, "2023-02-01", "2023-02-10"),
    ]
    assert len({request.run_key for request in data.run_requests or []}) == 3
    again = tick(definitions, filled, "derived_candles", data.cursor)
    assert requested(again) == []
    assert again.cursor == data.cursor != before
    assert again.skip_message == "no new days of the base series"

    # The same events again, with lower limits: more events than one read of the event log, and than one tick.
    monkeypatch.setattr(sensors, "_EVENTS_PER_READ", 8)
    monkeypatch.setattr(sensors, "_MAX_EVENTS", 40)
    first = tick(definitions, filled, "derived_candles", before)
    assert requested(first) == [
        (FROM_BTC, "2022-01-01", "2022-01-31"),  # 31 days and 9 days are 40 events
        (FROM_BTC, "2022-03-01", "2022-03-09"),
        (FROM_ETH, "2023-02-01", "2023-02-10"),
    ]
    second = tick(definitions, filled, "derived_candles", first.cursor)
    assert requested(second) == [(FROM_BTC, "2022-03-10", "2022-03-31")]
    third = tick(definitions, filled, "derived_candles", second.cursor)
    assert (requested(third), third.cursor) == ([], data.cursor)


def test_the_first_tick_sees_events_from_before_the_sensor(
    definitions: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    assert requested(tick(definitions, instance, "derived_candles")) == []
    fetch(definitions, instance, [ETH], ["2024-01-01", "2024-01-02"])
    assert requested(tick(definitions, instance, "derived_candles")) == [(FROM_ETH, "2024-01-01", "2024-01-02")]


def test_a_day_that_is_fetched_again_launches_its_derived_days_again(
    definitions: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    fetch(definitions, instance, [BTC, ETH], ["2024-01-01", "2024-01-02", "2024-01-03"])
    first = tick(definitions, instance, "derived_candles")
    fetch(definitions, instance, [BTC], ["2024-01-02"])
    second = tick(definitions, instance, "derived_candles", first.cursor)
    assert requested(second) == [(FROM_BTC, "2024-01-02", "2024-01-02")]
    keys = [request.run_key for data in (first, second) for request in data.run_requests or []]
    assert len(set(keys)) == len(keys) == 3  # Dagster skips a run key that it has launched


def test_refused_days_and_series_without_derived_series_launch_nothing(
    definitions: dg.Definitions, instance: dg.DagsterInstance, sandbox: Sandbox
) -> None:
    noon = to_ms(dt.date(2024, 1, 2)) + 12 * HOUR
    for path in ALL_SOURCES:
        sandbox.faults.add(Fault("missing_row", start=noon, end=noon + HOUR, path=path, interval="1h"))
    fetch(definitions, instance, [BTC], ["2024-01-01", "2024-01-02", "2024-01-03"])
    fetch(definitions, instance, [COIN], ["2024-01-05"])
    assert requested(tick(definitions, instance, "derived_candles")) == [
        (FROM_BTC, "2024-01-01", "2024-01-01"),
        (FROM_BTC, "2024-01-03", "2024-01-03"),
    ]


def test_a_base_series_that_is_tracked_later_does_not_disturb_the_cursor_of_the_others(
    settings: Settings, filled: dg.DagsterInstance
) -> None:
    before = build_defs(settings, universe_of(BTC, ETH, derived=[FOUR_HOURS]))
    cursor = tick(before, filled, "derived_candles").cursor
    after = build_defs(settings, universe_of(BTC, ETH, derived=[FOUR_HOURS, ETH_DAYS]))
    assert requested(tick(after, filled, "derived_candles", cursor)) == [(FROM_ETH, "2024-01-01", "2024-01-01")]


def test_partition_ranges_are_the_fewest_and_contain_only_the_given_keys() -> None:
    assert partition_ranges([]) == []
    assert partition_ranges(["2024-03-01", "2024-02-28", "2024-02-29", "2024-02-29", "2024-03-03"]) == [
        ("2024-02-28", "2024-03-01"),
        ("2024-03-03", "2024-03-03"),
    ]


# Coverage once no more events come.


def report(instance: dg.DagsterInstance, lake: Lake, series: Series, key: str, seconds_ago: float) -> None:
    """Record a materialization of a day with a time in the past."""
    stored = lake.stored(series, partition_for_key("2024-01-01", series.interval))
    assert stored is not None
    event = materialization(series, partition_for_key(key, series.interval), stored)
    report_materialization_at(instance, event, time.time() - seconds_ago)


def markets(data: SensorExecutionData) -> list[str]:
    """Return the coverage assets that are requested, one run each."""
    selections = [request.asset_selection or [] for request in data.run_requests or []]
    return ["/".join(key.path) for (key,) in selections]


def test_coverage_waits_while_events_come_and_is_requested_once_when_they_stop(
    definitions: dg.Definitions, filled: dg.DagsterInstance, lake: Lake
) -> None:
    report(filled, lake, BTC, "2024-01-01", 0)
    report(filled, lake, COIN, "2024-01-01", 0)
    fresh = tick(definitions, filled, "coverage")
    assert markets(fresh) == []
    assert fresh.skip_message == "no new events, or more are still coming"
    report(filled, lake, BTC, "2024-01-02", 60)
    report(filled, lake, COIN, "2024-01-02", 60)
    quiet = tick(definitions, filled, "coverage", fresh.cursor)
    assert markets(quiet) == ["spot/coverage", "coinm/coverage"]
    assert markets(tick(definitions, filled, "coverage", quiet.cursor)) == []


def test_coverage_does_not_wait_for_a_clock_that_was_set_back(
    definitions: dg.Definitions, filled: dg.DagsterInstance, lake: Lake
) -> None:
    report(filled, lake, BTC, "2024-01-01", seconds_ago=-3600)
    assert "spot/coverage" in markets(tick(definitions, filled, "coverage"))
    report(filled, lake, COIN, "2024-01-01", 0)
    waiting = json.dumps({"coinm": {"seen": 0, "waits_since": time.time() + 3600}})
    assert "coinm/coverage" in markets(tick(definitions, filled, "coverage", waiting))


def test_coverage_is_requested_again_only_for_the_market_of_new_events(
    definitions: dg.Definitions, filled: dg.DagsterInstance, lake: Lake
) -> None:
    report(filled, lake, BTC, "2024-01-02", 60)
    report(filled, lake, COIN, "2024-01-02", 60)
    first = tick(definitions, filled, "coverage")
    report(filled, lake, BTC, "2024-01-02", 45)
    second = tick(definitions, filled, "coverage", first.cursor)
    assert markets(second) == ["spot/coverage"]
    keys = [request.run_key for data in (first, second) for request in data.run_requests or []]
    assert len(set(keys)) == len(keys) == 3
    report(filled, lake, BTC, "2024-01-03", 5)
    assert markets(tick(definitions, filled, "coverage", second.cursor)) == []


def test_a_long_backfill_postpones_coverage_by_a_bounded_time(
    definitions: dg.Definitions, filled: dg.DagsterInstance, lake: Lake
) -> None:
    report(filled, lake, BTC, "2024-01-01", 0)
    waiting = tick(definitions, filled, "coverage")
    state = json.loads(str(waiting.cursor))
    state["spot"]["waits_since"] -= 3_600
    report(filled, lake, COIN, "2024-01-02", 0)
    report(filled, lake, BTC, "2024-01-02", 0)
    overdue = tick(definitions, filled, "coverage", json.dumps(state))
    assert markets(overdue) == ["spot/coverage"]
    report(filled, lake, BTC, "2024-01-03", 0)
    assert markets(tick(definitions, filled, "coverage", overdue.cursor)) == []  # the wait starts again


def test_an_empty_instance_requests_no_coverage_and_a_derived_day_is_an_event_too(
    definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake
) -> None:
    nothing = tick(definitions, instance, "coverage")
    assert markets(nothing) == []
    fetch(definitions, instance, [BTC], ["2024-01-01"])
    report(instance, lake, BTC, "2024-01-02", 60)
    first = tick(definitions, instance, "coverage", nothing.cursor)
    assert markets(first) == ["spot/coverage"]
    fetch(definitions, instance, [FOUR_HOURS.series], ["2024-01-01"])
    report(instance, lake, FOUR_HOURS.series, "2024-01-02", 60)
    assert markets(tick(definitions, instance, "coverage", first.cursor)) == ["spot/coverage"]


# Files that the archive reissued.


@pytest.fixture
def from_archive(settings: Settings) -> dg.Definitions:
    settings = settings.model_copy(update={"source": "archive"})
    return build_defs(settings, universe_of(BTC, ETH, WEEKS, COIN, derived=DERIVED))


def sidecars(sandbox: Sandbox) -> list[str]:
    """Return the names of the requested checksum files."""
    return sorted(request.path.rpartition("/")[2] for request in sandbox.requests if "CHECKSUM" in request.path)


def test_with_equal_hashes_no_run_is_requested_and_no_file_is_fetched(
    from_archive: dg.Definitions, instance: dg.DagsterInstance, sandbox: Sandbox
) -> None:
    fetch(from_archive, instance, [BTC, ETH], ["2024-01-01", "2024-01-02", "2024-02-05"])
    sandbox.requests.clear()
    data = tick(from_archive, instance, "reissued_archives")
    assert requested(data) == []
    assert data.skip_message == "no file was reissued"
    names = [f"{symbol}USDT-1h-{date}.zip.CHECKSUM" for symbol in ("BTC", "ETH") for date in ("2024-01", "2024-02-05")]
    assert sidecars(sandbox) == names
    assert len(sandbox.requests) == 4


def test_a_day_whose_file_was_reissued_is_fetched_again_once(
    from_archive: dg.Definitions, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    for day in ("2024-01-01", "2024-01-02", "2024-01-03"):
        fetch(from_archive, instance, [BTC], [day])
    start = to_ms(dt.date(2024, 1, 2))
    sandbox.faults.add(Fault("reissued", path="archive/daily", start=start, end=start + DAY))
    data = tick(from_archive, instance, "reissued_archives")
    assert requested(data) == [("spot/BTCUSDT/1h", "2024-01-02", "2024-01-02")]
    (request,) = data.run_requests or []
    assert request.job_name == "spot_daily"
    again = tick(from_archive, instance, "reissued_archives", data.cursor)
    assert [repeated.run_key for repeated in again.run_requests or []] == [request.run_key]  # launched once
    assert execute(from_archive, instance, request).success
    stored = lake.stored(BTC, partition_for_key("2024-01-02", BTC.interval))
    assert stored is not None
    assert stored.archive_modified == "2024-01-03T09:30:00Z"
    assert requested(tick(from_archive, instance, "reissued_archives", again.cursor)) == []
    sandbox.faults.clear()  # the file changes once more
    (third,) = tick(from_archive, instance, "reissued_archives", again.cursor).run_requests or []
    assert third.run_key != request.run_key


def test_of_a_reissued_monthly_file_every_stored_day_is_fetched_again(
    from_archive: dg.Definitions, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    fetch(from_archive, instance, [COIN], ["2024-01-01", "2024-01-02", "2024-01-05", "2024-01-06"])
    fetch(from_archive, instance, [WEEKS], ["2024-01-01"])
    sandbox.faults.add(Fault("reissued", path="archive"))
    data = tick(from_archive, instance, "reissued_archives")
    assert requested(data) == [
        ("coinm/BTCUSD_PERP/1h", "2024-01-01", "2024-01-02"),
        ("coinm/BTCUSD_PERP/1h", "2024-01-05", "2024-01-06"),
        ("spot/BTCUSDT/1w", "2024-01-01", "2024-01-01"),
    ]
    assert {request.job_name for request in data.run_requests or []} == {"coinm_daily", "spot_monthly"}
    for request in data.run_requests or []:
        assert execute(from_archive, instance, request).success
    assert requested(tick(from_archive, instance, "reissued_archives", data.cursor)) == []


def test_a_day_fetched_before_the_reissue_is_found_beside_days_fetched_after_it(
    from_archive: dg.Definitions, instance: dg.DagsterInstance, sandbox: Sandbox
) -> None:
    fetch(from_archive, instance, [BTC], ["2024-01-01", "2024-01-02", "2024-01-03"])
    sandbox.faults.add(Fault("reissued", path="archive"))
    fetch(from_archive, instance, [BTC], ["2024-01-02", "2024-01-03"])
    assert requested(tick(from_archive, instance, "reissued_archives")) == [
        ("spot/BTCUSDT/1h", "2024-01-01", "2024-01-01")
    ]


def test_days_from_rest_are_not_checked(settings: Settings, instance: dg.DagsterInstance, sandbox: Sandbox) -> None:
    definitions = build_defs(settings.model_copy(update={"source": "rest"}), universe_of(BTC, COIN))
    fetch(definitions, instance, [BTC, COIN], ["2024-01-01", "2024-01-02"])
    sandbox.faults.add(Fault("reissued", path="archive"))
    sandbox.requests.clear()
    assert requested(tick(definitions, instance, "reissued_archives")) == []
    assert sandbox.requests == []


def test_a_withdrawn_file_is_not_fetched_again(
    from_archive: dg.Definitions, filled: dg.DagsterInstance, sandbox: Sandbox
) -> None:
    sandbox.faults.add(Fault("status", value=404, path="archive/checksum"))
    assert requested(tick(from_archive, filled, "reissued_archives")) == []
    assert sidecars(sandbox)


def test_an_archive_error_is_logged_and_the_other_series_are_checked(
    from_archive: dg.Definitions, instance: dg.DagsterInstance, sandbox: Sandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    fetch(from_archive, instance, [BTC, ETH], ["2024-01-01"])
    sandbox.faults.add(Fault("reissued", path="archive"))
    sandbox.faults.add(Fault("status", value=451, symbol="BTCUSDT", path="archive/checksum"))
    data = tick(from_archive, instance, "reissued_archives")
    assert requested(data) == [("spot/ETHUSDT/1h", "2024-01-01", "2024-01-01")]
    assert f"{BTC}: the archive could not be checked: " in capfd.readouterr().err


def test_an_unreachable_archive_is_logged(
    settings: Settings, filled: dg.DagsterInstance, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # no server listens on it
        address = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        definitions = build_defs(settings.model_copy(update={"archive_url": address}), universe_of(BTC))
        data = tick(definitions, filled, "reissued_archives")
    assert data.skip_message == "no file was reissued"
    assert f"{BTC}: the archive could not be checked: " in capfd.readouterr().err


# Downstream assets of users.


@dg.asset(
    ins={"candles": dg.AssetIn(asset_key(BTC), input_manager_key="candles")},
    partitions_def=DAILY,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def closes(candles: pl.LazyFrame) -> dg.MaterializeResult[None]:
    """An asset of a user, downstream of a series."""
    table = candles.select("open_time", "close").collect()
    opens = table["open_time"].to_physical()
    lazy_and_sorted = isinstance(candles, pl.LazyFrame) and opens.is_sorted()
    return dg.MaterializeResult(
        metadata={"rows": len(opens), "first": opens[0], "last": opens[-1], "lazy_and_sorted": lazy_and_sorted}
    )


@dg.asset(ins={"other": dg.AssetIn("without_candles", input_manager_key="candles")})
def reads_something_else(other: pl.LazyFrame) -> dg.MaterializeResult[None]:
    return dg.MaterializeResult()


@dg.asset(io_manager_key="candles")
def writes_candles() -> int:
    return 1


def with_assets(definitions: dg.Definitions, *own: dg.AssetsDefinition | dg.AssetSpec) -> dg.Definitions:
    return dg.Definitions.merge(definitions, dg.Definitions(assets=own))


def run_asset(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    asset: dg.AssetsDefinition,
    first: str = "",
    last: str = "",
) -> dg.ExecuteInProcessResult:
    tags = range_tags(first, last) if first else {}
    return execute(definitions, instance, dg.RunRequest(asset_selection=[asset.key], tags=tags), "__ASSET_JOB")


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    """Return the messages of the only failed step."""
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    raised, error = failure.step_failure_data.user_failure_data, failure.step_failure_data.error
    messages = [str(raised.description)] if raised else []
    while error:
        messages.append(error.message)
        error = error.cause
    return " ".join(messages)


@pytest.mark.parametrize(("last", "count"), [("2024-01-02", 1), ("2024-01-10", 9)])
def test_a_downstream_asset_gets_the_candles_of_its_partitions_lazily_and_sorted(
    definitions: dg.Definitions, instance: dg.DagsterInstance, sandbox: Sandbox, last: str, count: int
) -> None:
    fetch(definitions, instance, [BTC], [partition.key for partition in days("2024-01-01", "2024-01-11")])
    sandbox.requests.clear()
    result = run_asset(with_assets(definitions, closes), instance, closes, "2024-01-02", last)
    assert result.success
    metadata = result.asset_materializations_for_node("closes")[0].metadata
    start = to_ms(dt.date(2024, 1, 2))
    assert (metadata["rows"].value, metadata["lazy_and_sorted"].value) == (count * 24, True)
    assert (metadata["first"].value, metadata["last"].value) == (start, start + count * DAY - HOUR)
    assert not sandbox.requests


def test_a_downstream_asset_gets_the_table_of_the_lake(
    definitions: dg.Definitions, filled: dg.DagsterInstance, sandbox: Sandbox
) -> None:
    fetch(definitions, filled, [FOUR_HOURS.series], ["2024-01-01"])
    loaded: list[pl.DataFrame] = []

    @dg.asset(
        ins={"candles": dg.AssetIn(asset_key(FOUR_HOURS.series), input_manager_key="candles")}, partitions_def=DAILY
    )
    def keeps(candles: pl.LazyFrame) -> dg.MaterializeResult[None]:
        loaded.append(candles.collect())
        return dg.MaterializeResult()

    assert run_asset(with_assets(definitions, keeps), filled, keeps, "2024-01-01", "2024-01-01").success
    start = to_ms(dt.date(2024, 1, 1))
    assert loaded[0].equals(expected_candles(sandbox, str(FOUR_HOURS.series), start, start + DAY))


def test_a_missing_day_fails_the_downstream_step_and_is_named(
    definitions: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    fetch(definitions, instance, [BTC], ["2024-01-01", "2024-01-03"])
    result = run_asset(with_assets(definitions, closes), instance, closes, "2024-01-01", "2024-01-03")
    assert not result.success
    assert "spot/BTCUSDT/1h lacks 2024-01-02; materialize them first" in failure_of(result)
    result = run_asset(with_assets(definitions, closes), instance, closes, "2024-02-01", "2024-02-29")
    assert "2024-02-04, 2024-02-05 and 24 more" in failure_of(result)


def test_an_asset_that_asks_for_all_there_is_gets_it_from_the_first_stored_day_to_the_last(
    definitions: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    loaded: list[int] = []

    def reader(name: str, **arguments: Any) -> dg.AssetsDefinition:
        @dg.asset(name=name, ins={"candles": dg.AssetIn(asset_key(BTC), input_manager_key="candles", **arguments)})
        def reads(candles: pl.LazyFrame) -> dg.MaterializeResult[None]:
            loaded.append(candles.select(pl.len()).collect().item())
            return dg.MaterializeResult()

        return reads

    strict, lenient = reader("strict"), reader("lenient", metadata={"allow_missing_partitions": True})
    with_readers = with_assets(definitions, strict, lenient)
    nothing = failure_of(run_asset(with_readers, instance, strict))
    assert "the lake holds no partition of spot/BTCUSDT/1h; materialize them first" in nothing
    assert run_asset(with_readers, instance, lenient).success
    fetch(definitions, instance, [BTC], ["2024-01-01", "2024-01-03"])
    hole = failure_of(run_asset(with_readers, instance, strict))
    assert "spot/BTCUSDT/1h lacks 2024-01-02; materialize or accept them first" in hole
    assert "the lake holds 2024-01-01 to 2024-01-03" in hole
    assert run_asset(with_readers, instance, lenient).success
    fetch(definitions, instance, [BTC], ["2024-01-02"])
    assert run_asset(with_readers, instance, strict).success
    assert loaded == [0, 48, 72]


def test_candles_without_their_hash_fail_the_downstream_step(
    definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake
) -> None:
    fetch(definitions, instance, [BTC], ["2024-01-01", "2024-01-02"])
    change(lake, BTC, "2024-01-02", content_hash="AAAAAAAAAAAAAAAA")
    assert run_asset(with_assets(definitions, closes), instance, closes, "2024-01-01", "2024-01-01").success
    result = run_asset(with_assets(definitions, closes), instance, closes, "2024-01-01", "2024-01-02")
    assert "spot/BTCUSDT/1h 2024-01-02: its candles are not those that were written" in failure_of(result)


def test_an_upstream_asset_without_candles_is_refused(
    definitions: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    extended = with_assets(definitions, reads_something_else, dg.AssetSpec("without_candles"))
    result = run_asset(extended, instance, reads_something_else)
    assert not result.success
    assert "without_candles holds no candles" in failure_of(result)


def test_the_io_manager_writes_nothing(definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake) -> None:
    result = run_asset(with_assets(definitions, writes_candles), instance, writes_candles)
    assert not result.success
    assert 'the IO manager "candles" only reads' in failure_of(result)
    assert not local(lake.root).exists()
