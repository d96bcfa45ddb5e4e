"""The sensors, freshness, and what a downstream asset of a user gets from the lake."""

# No `from __future__ import annotations` here: Dagster reads the types of an asset's arguments when it is defined.
import datetime as dt
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster._core.events import StepMaterializationData
from dagster._core.instance.utils import RUNLESS_JOB_NAME, RUNLESS_RUN_ID

from binance_assets.definitions import build_defs
from binance_assets.model.intervals import parse_derived_interval
from binance_assets.model.partitions import Partition, partition_for_key, partitions_between
from binance_assets.model.series import Series, derived_series, parse_series
from binance_assets.model.timestamps import DAY, HOUR, to_ms
from binance_assets.orchestration import sensors
from binance_assets.orchestration.assets import asset_key, materialization
from binance_assets.orchestration.partitions import DAILY, partition_ranges, range_tags
from binance_assets.sandbox import Fault, Sandbox
from binance_assets.settings import Settings
from binance_assets.storage.lake import Lake
from binance_assets.storage.universe import Derived
from binance_assets_tests.support.exchange import truth
from binance_assets_tests.support.instances import execute, fetch, new_instance, universe_of

BTC, ETH, COIN = (parse_series(name) for name in ("spot/BTCUSDT/1h", "spot/ETHUSDT/1h", "coinm/BTCUSD_PERP/1h"))
WEEKS = parse_series("spot/BTCUSDT/1w")
FOUR_HOURS, HALF_DAYS = (
    Derived(derived_series(BTC.market, "BTCUSDT", parse_derived_interval(text)), BTC) for text in ("4h", "12h")
)
ETH_DAYS = Derived(derived_series(ETH.market, "ETHUSDT", parse_derived_interval("1d")), ETH)
DERIVED = [FOUR_HOURS, HALF_DAYS, ETH_DAYS]


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with new_instance(tmp_path / "dagster") as opened:
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
    """What a sensor answers; each time in a context of its own, as after a restart of the daemon."""
    repository = definitions.get_repository_def()
    with dg.build_sensor_context(instance=instance, repository_def=repository, cursor=cursor) as context:
        return repository.get_sensor_def(name).evaluate_tick(context)


def asked(data: SensorExecutionData) -> list[tuple[str, str, str]]:
    """The runs asked for: assets, first and last day."""
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


OF_BTC, OF_ETH = "spot/BTCUSDT/12h spot/BTCUSDT/4h", "spot/ETHUSDT/1d"


def test_which_sensors_run_by_themselves(definitions: dg.Definitions) -> None:
    assert {sensor.name: sensor.default_status for sensor in definitions.get_repository_def().sensor_defs} == {
        "coverage": dg.DefaultSensorStatus.RUNNING,
        "derived_candles": dg.DefaultSensorStatus.RUNNING,
        "reissued_archives": dg.DefaultSensorStatus.STOPPED,
    }
    schedules = definitions.get_repository_def().schedule_defs
    assert {schedule.default_status for schedule in schedules} == {dg.DefaultScheduleStatus.STOPPED}
    assert len(schedules) == 5


def test_a_sensor_that_would_have_nothing_to_do_does_not_exist(settings: Settings) -> None:
    plain, empty = (
        build_defs(settings, universe).get_repository_def() for universe in (universe_of(BTC), universe_of())
    )
    assert {sensor.name for sensor in plain.sensor_defs} == {"coverage", "reissued_archives"}
    assert empty.sensor_defs == []


def test_every_series_has_a_freshness_policy_and_months_are_given_longer(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    daily = dg.FreshnessPolicy.time_window(fail_window=dt.timedelta(hours=36), warn_window=dt.timedelta(hours=26))
    for series in (BTC, ETH, COIN, *(derived.series for derived in DERIVED)):
        assert graph.get(asset_key(series)).freshness_policy == daily
    monthly = dg.FreshnessPolicy.time_window(fail_window=dt.timedelta(days=40), warn_window=dt.timedelta(days=33))
    assert graph.get(asset_key(WEEKS)).freshness_policy == monthly


# Derived days after their source's.


def test_of_hundreds_of_days_between_two_ticks_none_is_lost(
    definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(definitions, instance, [BTC, ETH], ["2024-01-01"])
    before = tick(definitions, instance, "derived_candles").cursor
    for series, partitions in ((BTC, days("2022-01-01", "2022-12-31")), (ETH, days("2023-02-01", "2023-02-10"))):
        stored = lake.stored(series, partition_for_key("2024-01-01", series.interval))
        assert stored is not None
        for partition in partitions:
            if not partition.key.startswith("2022-06"):
                instance.report_runless_asset_event(materialization(series, partition, stored))
    data = tick(definitions, instance, "derived_candles", before)
    assert asked(data) == [
        (OF_BTC, "2022-01-01", "2022-05-31"),
        (OF_BTC, "2022-07-01", "2022-12-31"),
        (OF_ETH, "2023-02-01", "2023-02-10"),
    ]
    assert len({request.run_key for request in data.run_requests or []}) == 3
    again = tick(definitions, instance, "derived_candles", data.cursor)
    assert asked(again) == []
    assert again.cursor == data.cursor != before
    assert again.skip_message == "no new days of the sources"

    # The same, where they are more than one tick and one question to the event log may bring.
    monkeypatch.setattr(sensors, "_EVENTS_AT_ONCE", 40)
    monkeypatch.setattr(sensors, "_MOST_EVENTS", 200)
    first = tick(definitions, instance, "derived_candles", before)
    assert asked(first) == [
        (OF_BTC, "2022-01-01", "2022-05-31"),  # 151 days, and 49
        (OF_BTC, "2022-07-01", "2022-08-18"),
        (OF_ETH, "2023-02-01", "2023-02-10"),
    ]
    second = tick(definitions, instance, "derived_candles", first.cursor)
    assert asked(second) == [(OF_BTC, "2022-08-19", "2022-12-31")]
    third = tick(definitions, instance, "derived_candles", second.cursor)
    assert (asked(third), third.cursor) == ([], data.cursor)


def test_the_first_tick_sees_what_was_there_before_the_sensor(
    definitions: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    assert asked(tick(definitions, instance, "derived_candles")) == []
    fetch(definitions, instance, [ETH], ["2024-01-01", "2024-01-02"])
    assert asked(tick(definitions, instance, "derived_candles")) == [(OF_ETH, "2024-01-01", "2024-01-02")]


def test_a_day_that_is_fetched_again_launches_its_derived_days_again(
    definitions: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    fetch(definitions, instance, [BTC, ETH], ["2024-01-01", "2024-01-02", "2024-01-03"])
    first = tick(definitions, instance, "derived_candles")
    fetch(definitions, instance, [BTC], ["2024-01-02"])
    second = tick(definitions, instance, "derived_candles", first.cursor)
    assert asked(second) == [(OF_BTC, "2024-01-02", "2024-01-02")]
    keys = [request.run_key for data in (first, second) for request in data.run_requests or []]
    assert len(set(keys)) == len(keys) == 3  # Dagster would pass over a key that it has seen


def test_refused_days_and_series_without_derived_ones_launch_nothing(
    definitions: dg.Definitions, instance: dg.DagsterInstance, sandbox: Sandbox
) -> None:
    noon = to_ms(dt.date(2024, 1, 2)) + 12 * HOUR
    for path in ("klines", "archive"):
        sandbox.faults.add(Fault("missing_row", start=noon, end=noon + HOUR, path=path, interval="1h"))
    fetch(definitions, instance, [BTC], ["2024-01-01", "2024-01-02", "2024-01-03"])
    fetch(definitions, instance, [COIN], ["2024-01-05"])
    assert asked(tick(definitions, instance, "derived_candles")) == [
        (OF_BTC, "2024-01-01", "2024-01-01"),
        (OF_BTC, "2024-01-03", "2024-01-03"),
    ]


def test_a_source_that_is_tracked_later_does_not_disturb_the_cursor_of_the_others(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    before = build_defs(settings, universe_of(BTC, ETH, derived=[FOUR_HOURS]))
    fetch(before, instance, [BTC, ETH], ["2024-01-01"])
    cursor = tick(before, instance, "derived_candles").cursor
    after = build_defs(settings, universe_of(BTC, ETH, derived=[FOUR_HOURS, ETH_DAYS]))
    assert asked(tick(after, instance, "derived_candles", cursor)) == [(OF_ETH, "2024-01-01", "2024-01-01")]


def test_ranges_are_the_fewest_and_leave_out_what_is_not_there() -> None:
    assert partition_ranges([]) == []
    assert partition_ranges(["2024-03-01", "2024-02-28", "2024-02-29", "2024-02-29", "2024-03-03"]) == [
        ("2024-02-28", "2024-03-01"),
        ("2024-03-03", "2024-03-03"),
    ]


# Coverage when a market has come to rest.


def report_at(instance: dg.DagsterInstance, lake: Lake, series: Series, key: str, seconds_ago: float) -> None:
    """The materialization of a day as if it had been so long ago."""
    stored = lake.stored(series, partition_for_key("2024-01-01", series.interval))
    assert stored is not None
    event = dg.DagsterEvent(
        dg.DagsterEventType.ASSET_MATERIALIZATION.value,
        job_name=RUNLESS_JOB_NAME,
        event_specific_data=StepMaterializationData(
            materialization(series, partition_for_key(key, series.interval), stored)
        ),
    )
    instance.report_dagster_event(event, RUNLESS_RUN_ID, timestamp=time.time() - seconds_ago)


def markets(data: SensorExecutionData) -> list[str]:
    """The markets whose coverage is asked for, a run each."""
    selections = [request.asset_selection or [] for request in data.run_requests or []]
    return ["/".join(key.path) for (key,) in selections]


@pytest.fixture
def fetched(definitions: dg.Definitions, instance: dg.DagsterInstance) -> dg.Definitions:
    fetch(definitions, instance, [BTC, COIN], ["2024-01-01"])
    return definitions


def test_coverage_waits_for_what_is_fresh_and_is_asked_for_once_when_it_is_not(
    fetched: dg.Definitions, instance: dg.DagsterInstance, lake: Lake
) -> None:
    fresh = tick(fetched, instance, "coverage")
    assert markets(fresh) == []
    assert fresh.skip_message == "nothing new, or more is still coming"
    report_at(instance, lake, BTC, "2024-01-02", 60)
    report_at(instance, lake, COIN, "2024-01-02", 60)
    rested = tick(fetched, instance, "coverage", fresh.cursor)
    assert markets(rested) == ["spot/coverage", "coinm/coverage"]
    assert markets(tick(fetched, instance, "coverage", rested.cursor)) == []


def test_coverage_is_asked_for_again_after_new_events_only_of_that_market(
    fetched: dg.Definitions, instance: dg.DagsterInstance, lake: Lake
) -> None:
    report_at(instance, lake, BTC, "2024-01-02", 60)
    report_at(instance, lake, COIN, "2024-01-02", 60)
    first = tick(fetched, instance, "coverage")
    report_at(instance, lake, BTC, "2024-01-02", 45)
    second = tick(fetched, instance, "coverage", first.cursor)
    assert markets(second) == ["spot/coverage"]
    keys = [request.run_key for data in (first, second) for request in data.run_requests or []]
    assert len(set(keys)) == len(keys) == 3
    report_at(instance, lake, BTC, "2024-01-03", 5)
    assert markets(tick(fetched, instance, "coverage", second.cursor)) == []


def test_coverage_is_not_postponed_for_ever_while_a_long_backfill_goes_on(
    fetched: dg.Definitions, instance: dg.DagsterInstance, lake: Lake
) -> None:
    waiting = tick(fetched, instance, "coverage")
    state = json.loads(str(waiting.cursor))
    state["spot"]["waits_since"] -= 3_600
    report_at(instance, lake, BTC, "2024-01-02", 0)
    overdue = tick(fetched, instance, "coverage", json.dumps(state))
    assert markets(overdue) == ["spot/coverage"]
    report_at(instance, lake, BTC, "2024-01-03", 0)
    assert markets(tick(fetched, instance, "coverage", overdue.cursor)) == []  # it waits anew


def test_a_fresh_instance_has_no_coverage_to_refresh_and_a_derived_day_counts_too(
    definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake
) -> None:
    nothing = tick(definitions, instance, "coverage")
    assert markets(nothing) == []
    fetch(definitions, instance, [BTC], ["2024-01-01"])
    report_at(instance, lake, BTC, "2024-01-02", 60)
    first = tick(definitions, instance, "coverage", nothing.cursor)
    assert markets(first) == ["spot/coverage"]
    fetch(definitions, instance, [FOUR_HOURS.series], ["2024-01-01"])
    report_at(instance, lake, FOUR_HOURS.series, "2024-01-02", 60)
    assert markets(tick(definitions, instance, "coverage", first.cursor)) == ["spot/coverage"]


# Files that the archive issued anew.


@pytest.fixture
def from_archive(settings: Settings) -> dg.Definitions:
    settings = settings.model_copy(update={"source": "archive"})
    return build_defs(settings, universe_of(BTC, ETH, WEEKS, COIN, derived=DERIVED))


def sidecars(sandbox: Sandbox) -> list[str]:
    """The checksums that the archive was asked for."""
    return sorted(request.path.rpartition("/")[2] for request in sandbox.requests if "CHECKSUM" in request.path)


def test_where_the_hashes_agree_nothing_is_asked_for_and_no_file_is_fetched(
    from_archive: dg.Definitions, instance: dg.DagsterInstance, sandbox: Sandbox
) -> None:
    fetch(from_archive, instance, [BTC, ETH], ["2024-01-01", "2024-01-02", "2024-02-05"])
    sandbox.requests.clear()
    data = tick(from_archive, instance, "reissued_archives")
    assert asked(data) == []
    assert data.skip_message == "no file was issued anew"
    names = [f"{symbol}USDT-1h-{date}.zip.CHECKSUM" for symbol in ("BTC", "ETH") for date in ("2024-01", "2024-02-05")]
    assert sidecars(sandbox) == names
    assert len(sandbox.requests) == 4


def test_a_day_whose_file_was_issued_anew_is_fetched_again_once(
    from_archive: dg.Definitions, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    for day in ("2024-01-01", "2024-01-02", "2024-01-03"):
        fetch(from_archive, instance, [BTC], [day])
    start = to_ms(dt.date(2024, 1, 2))
    sandbox.faults.add(Fault("reissued", path="archive/daily", start=start, end=start + DAY))
    data = tick(from_archive, instance, "reissued_archives")
    assert asked(data) == [("spot/BTCUSDT/1h", "2024-01-02", "2024-01-02")]
    (request,) = data.run_requests or []
    assert request.job_name == "spot_daily"
    again = tick(from_archive, instance, "reissued_archives", data.cursor)
    assert [one.run_key for one in again.run_requests or []] == [request.run_key]  # Dagster launches a key once
    assert execute(from_archive, instance, request).success
    stored = lake.stored(BTC, partition_for_key("2024-01-02", BTC.interval))
    assert stored is not None
    assert stored.archive_modified == "2024-01-03T09:30:00Z"
    assert asked(tick(from_archive, instance, "reissued_archives", again.cursor)) == []
    sandbox.faults.clear()  # and yet another file
    (third,) = tick(from_archive, instance, "reissued_archives", again.cursor).run_requests or []
    assert third.run_key != request.run_key


def test_of_a_month_that_was_issued_anew_every_day_kept_of_it_is_fetched_again(
    from_archive: dg.Definitions, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    fetch(from_archive, instance, [COIN], ["2024-01-01", "2024-01-02", "2024-01-05", "2024-01-06"])
    fetch(from_archive, instance, [WEEKS], ["2024-01-01"])
    sandbox.faults.add(Fault("reissued", path="archive"))
    data = tick(from_archive, instance, "reissued_archives")
    assert asked(data) == [
        ("coinm/BTCUSD_PERP/1h", "2024-01-01", "2024-01-02"),
        ("coinm/BTCUSD_PERP/1h", "2024-01-05", "2024-01-06"),
        ("spot/BTCUSDT/1w", "2024-01-01", "2024-01-01"),
    ]
    assert {request.job_name for request in data.run_requests or []} == {"coinm_daily", "spot_monthly"}
    for request in data.run_requests or []:
        assert execute(from_archive, instance, request).success
    assert asked(tick(from_archive, instance, "reissued_archives", data.cursor)) == []


def test_a_day_from_before_the_new_issue_is_found_beside_one_from_after_it(
    from_archive: dg.Definitions, instance: dg.DagsterInstance, sandbox: Sandbox
) -> None:
    fetch(from_archive, instance, [BTC], ["2024-01-01", "2024-01-02", "2024-01-03"])
    sandbox.faults.add(Fault("reissued", path="archive"))
    fetch(from_archive, instance, [BTC], ["2024-01-02", "2024-01-03"])
    assert asked(tick(from_archive, instance, "reissued_archives")) == [("spot/BTCUSDT/1h", "2024-01-01", "2024-01-01")]


def test_days_from_rest_are_not_asked_about(settings: Settings, instance: dg.DagsterInstance, sandbox: Sandbox) -> None:
    definitions = build_defs(settings.model_copy(update={"source": "rest"}), universe_of(BTC, COIN))
    fetch(definitions, instance, [BTC, COIN], ["2024-01-01", "2024-01-02"])
    sandbox.faults.add(Fault("reissued", path="archive"))
    sandbox.requests.clear()
    assert asked(tick(definitions, instance, "reissued_archives")) == []
    assert sandbox.requests == []


def test_a_file_that_was_withdrawn_is_no_reason_to_fetch_again(
    from_archive: dg.Definitions, instance: dg.DagsterInstance, sandbox: Sandbox
) -> None:
    fetch(from_archive, instance, [BTC], ["2024-01-01"])
    sandbox.faults.add(Fault("status", value=404, path="archive/checksum"))
    assert asked(tick(from_archive, instance, "reissued_archives")) == []


def test_an_archive_that_does_not_answer_is_told_and_the_other_series_are_asked_about(
    from_archive: dg.Definitions, instance: dg.DagsterInstance, sandbox: Sandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    fetch(from_archive, instance, [BTC, ETH], ["2024-01-01"])
    sandbox.faults.add(Fault("reissued", path="archive"))
    sandbox.faults.add(Fault("status", value=451, symbol="BTCUSDT", path="archive/checksum"))
    data = tick(from_archive, instance, "reissued_archives")
    assert asked(data) == [("spot/ETHUSDT/1h", "2024-01-01", "2024-01-01")]
    assert f"{BTC}: the archive could not be asked: " in capfd.readouterr().err


def test_an_archive_that_cannot_be_reached_is_told(
    settings: Settings, from_archive: dg.Definitions, instance: dg.DagsterInstance, capfd: pytest.CaptureFixture[str]
) -> None:
    fetch(from_archive, instance, [BTC], ["2024-01-01"])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens there
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        definitions = build_defs(settings.model_copy(update={"archive_url": address}), universe_of(BTC))
        data = tick(definitions, instance, "reissued_archives")
    assert data.skip_message == "no file was issued anew"
    assert f"{BTC}: the archive could not be asked: " in capfd.readouterr().err


# Downstream assets of users.


@dg.asset(
    ins={"candles": dg.AssetIn(asset_key(BTC), input_manager_key="candles")},
    partitions_def=DAILY,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def closes(candles: pl.LazyFrame) -> dg.MaterializeResult[None]:
    """What a user makes of the candles."""
    table = candles.select("open_time", "close").collect()
    opens = table["open_time"].to_physical()
    sound = isinstance(candles, pl.LazyFrame) and opens.is_sorted()
    return dg.MaterializeResult(metadata={"rows": len(opens), "first": opens[0], "last": opens[-1], "sound": sound})


@dg.asset(ins={"report": dg.AssetIn("closes_of_nobody", input_manager_key="candles")})
def reads_something_else(report: pl.LazyFrame) -> dg.MaterializeResult[None]:
    return dg.MaterializeResult()


@dg.asset(io_manager_key="candles")
def writes_candles() -> int:
    return 1


def with_own(definitions: dg.Definitions, *own: dg.AssetsDefinition | dg.AssetSpec) -> dg.Definitions:
    return dg.Definitions.merge(definitions, dg.Definitions(assets=own))


def run_own(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    asset: dg.AssetsDefinition,
    first: str = "",
    last: str = "",
) -> dg.ExecuteInProcessResult:
    tags = range_tags(first, last) if first else {}
    return execute(definitions, instance, dg.RunRequest(asset_selection=[asset.key], tags=tags), "__ASSET_JOB")


def why(result: dg.ExecuteInProcessResult) -> str:
    """Why the only step failed, as the user reads it."""
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    found, error = failure.step_failure_data.user_failure_data, failure.step_failure_data.error
    texts = [str(found.description)] if found else []
    while error:
        texts.append(error.message)
        error = error.cause
    return " ".join(texts)


@pytest.mark.parametrize(("last", "count"), [("2024-01-02", 1), ("2024-01-31", 30)])
def test_a_downstream_asset_gets_the_candles_of_its_days_lazily_and_sorted(
    definitions: dg.Definitions, instance: dg.DagsterInstance, sandbox: Sandbox, last: str, count: int
) -> None:
    fetch(definitions, instance, [BTC], [partition.key for partition in days("2024-01-01", "2024-01-31")])
    sandbox.requests.clear()
    result = run_own(with_own(definitions, closes), instance, closes, "2024-01-02", last)
    assert result.success
    said = result.asset_materializations_for_node("closes")[0].metadata
    start = to_ms(dt.date(2024, 1, 2))
    assert (said["rows"].value, said["sound"].value) == (count * 24, True)
    assert (said["first"].value, said["last"].value) == (start, start + count * DAY - HOUR)
    assert not sandbox.requests


def test_what_a_downstream_asset_gets_is_the_table_of_the_lake(
    definitions: dg.Definitions, instance: dg.DagsterInstance, sandbox: Sandbox, tmp_path: Path
) -> None:
    fetch(definitions, instance, [BTC], ["2024-01-01"])
    fetch(definitions, instance, [FOUR_HOURS.series], ["2024-01-01"])
    got: list[pl.DataFrame] = []

    @dg.asset(
        ins={"candles": dg.AssetIn(asset_key(FOUR_HOURS.series), input_manager_key="candles")}, partitions_def=DAILY
    )
    def keeps(candles: pl.LazyFrame) -> dg.MaterializeResult[None]:
        got.append(candles.collect())
        return dg.MaterializeResult()

    assert run_own(with_own(definitions, keeps), instance, keeps, "2024-01-01", "2024-01-01").success
    start = to_ms(dt.date(2024, 1, 1))
    assert got[0].equals(truth(sandbox, str(FOUR_HOURS.series), start, start + DAY))


def test_a_day_that_is_not_there_fails_the_downstream_step_and_is_named(
    definitions: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    fetch(definitions, instance, [BTC], ["2024-01-01", "2024-01-03"])
    result = run_own(with_own(definitions, closes), instance, closes, "2024-01-01", "2024-01-03")
    assert not result.success
    assert "spot/BTCUSDT/1h lacks 2024-01-02; materialize them first" in why(result)
    result = run_own(with_own(definitions, closes), instance, closes, "2024-02-01", "2024-02-29")
    assert "2024-02-04, 2024-02-05 and 24 more" in why(result)


def test_an_asset_without_candles_is_not_read_as_candles(
    definitions: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    own = with_own(definitions, reads_something_else, dg.AssetSpec("closes_of_nobody"))
    result = run_own(own, instance, reads_something_else)
    assert not result.success
    assert "closes_of_nobody holds no candles" in why(result)


def test_the_manager_of_candles_writes_nothing(
    definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake
) -> None:
    result = run_own(with_own(definitions, writes_candles), instance, writes_candles)
    assert not result.success
    assert 'the IO manager "candles" only reads' in why(result)
    assert not lake.root.exists()
