"""The schedules: the partition that has just ended, many series in one run, and the catch-up of missing days."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import dagster as dg
import pytest

from binance_assets.definitions import build_defs
from binance_assets.model.intervals import parse_derived_interval
from binance_assets.model.partitions import partitions_between
from binance_assets.model.series import Series, derived_series, parse_series
from binance_assets.model.timestamps import DAY, HOUR, MINUTE, to_ms
from binance_assets.orchestration.catch_up import CATCH_UP_TAG, MAX_ATTEMPTS
from binance_assets.orchestration.keys import asset_key, op_name
from binance_assets.orchestration.partitions import range_tags
from binance_assets.sandbox import Fault, Sandbox
from binance_assets.settings import Settings, read_settings
from binance_assets.storage.lake import Lake
from binance_assets.storage.universe import Derived
from binance_assets_tests.support.dagster_internals import ScheduleExecutionData, job_origin
from binance_assets_tests.support.environment import environment_of
from binance_assets_tests.support.exchange import ALL_SOURCES, expected_candles
from binance_assets_tests.support.instances import execute, fetch, universe_of, with_quick_retries
from binance_assets_tests.support.lakes import content_of, files_read_in, keys, local, remove, state_folder, stored
from binance_assets_tests.support.results import result_of

pytestmark = pytest.mark.usefixtures("without_plot")

BTC, ETH, SOL = (parse_series(f"spot/{symbol}/1h") for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT"))
FUTURE = parse_series("usdm/BTCUSDT/1h")
WEEKS = parse_series("spot/BTCUSDT/1w")
QUARTERS = Derived(derived_series(BTC.market, "BTCUSDT", parse_derived_interval("4h")), BTC)

# The time of the tick: shortly after midnight on the 8th. The catch-up looks back one week.
NIGHT = dt.datetime(2024, 3, 8, 0, 37, tzinfo=dt.UTC)
LAST_WEEK = [f"2024-03-0{day}" for day in range(1, 8)]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"catch_up_days": 7, "source": "rest"})


@pytest.fixture
def lake(settings: Settings) -> Lake:
    return Lake(settings.lake)


def evaluate(
    definitions: dg.Definitions, instance: dg.DagsterInstance, name: str, at: dt.datetime = NIGHT
) -> ScheduleExecutionData:
    """Return what the tick of a schedule at ``at`` requests."""
    repository = definitions.get_repository_def()
    context = dg.build_schedule_context(instance=instance, scheduled_execution_time=at, repository_def=repository)
    return repository.get_schedule_def(name).evaluate_tick(context)


def ranges_of(data: ScheduleExecutionData) -> list[tuple[str, str]]:
    """Return the first and last key of each requested run."""
    tags = [request.tags for request in data.run_requests or []]
    return [(tag["dagster/asset_partition_range_start"], tag["dagster/asset_partition_range_end"]) for tag in tags]


def requested_days(data: ScheduleExecutionData) -> dict[str, list[str]]:
    """Return the requested days by series."""
    requested: dict[str, list[str]] = {}
    for request, (first, last) in zip(data.run_requests or [], ranges_of(data), strict=True):
        end = dt.date.fromisoformat(last) + dt.timedelta(days=1)
        for key in request.asset_selection or []:
            days = partitions_between(dt.date.fromisoformat(first), end, BTC.interval)
            requested.setdefault("/".join(key.path), []).extend(day.key for day in days)
    return {name: sorted(keys) for name, keys in requested.items()}


def catch_up_runs(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    return list(instance.get_runs(dg.RunsFilter(tags={CATCH_UP_TAG: "spot"})))


def lose(sandbox: Sandbox, symbol: str, day: str) -> None:
    """Remove the candle at noon of a day from both sources."""
    noon = to_ms(dt.date.fromisoformat(day)) + 12 * HOUR
    for path in ALL_SOURCES:
        lost = Fault("missing_row", market="spot", symbol=symbol, start=noon, end=noon + HOUR, path=path, interval="1h")
        sandbox.faults.add(lost)


# A tick at rest.


def test_a_tick_reads_only_the_files_that_changed_since_the_last_one(
    settings: Settings, instance: dg.DagsterInstance, lake: Lake
) -> None:
    for series in (BTC, ETH):
        lake.write_all(series, [result_of(series, key) for key in ("2023-12-31", *LAST_WEEK)])
    definitions = build_defs(settings, universe_of(BTC, ETH))
    assert evaluate(definitions, instance, "spot_catch_up").run_requests == []
    with files_read_in(lake) as opened:
        assert evaluate(definitions, instance, "spot_catch_up").run_requests == []
        assert opened == []
    remove(lake, ETH, "2024-03-06")
    with files_read_in(lake) as opened:
        data = evaluate(definitions, instance, "spot_catch_up")
        assert opened == ["2024.parquet"]
    assert requested_days(data) == {"spot/ETHUSDT/1h": ["2024-03-06"]}


# The partition that has just ended.


@pytest.mark.parametrize(
    ("name", "at", "expected"),
    [
        ("spot_daily_schedule", dt.datetime(2024, 3, 1, 0, 7, tzinfo=dt.UTC), "2024-02-29"),
        ("usdm_daily_schedule", dt.datetime(2025, 1, 1, 0, 7, tzinfo=dt.UTC), "2024-12-31"),
        ("spot_monthly_schedule", dt.datetime(2024, 3, 8, 0, 17, tzinfo=dt.UTC), "2024-02-01"),
    ],
)
def test_a_schedule_requests_the_partition_that_has_just_ended_once(
    settings: Settings, instance: dg.DagsterInstance, name: str, at: dt.datetime, expected: str
) -> None:
    definitions = build_defs(settings, universe_of(BTC, WEEKS, FUTURE, derived=[QUARTERS]))
    (request,) = evaluate(definitions, instance, name, at).run_requests or []
    assert request.partition_key == expected
    assert definitions.resolve_schedule_def(name).default_status == dg.DefaultScheduleStatus.STOPPED


def test_the_jobs_contain_the_fetched_series_but_neither_derived_series_nor_the_coverage(settings: Settings) -> None:
    definitions = build_defs(settings, universe_of(BTC, ETH, WEEKS, FUTURE, derived=[QUARTERS]))
    for name, series in (("spot_daily", [BTC, ETH]), ("spot_monthly", [WEEKS]), ("usdm_daily", [FUTURE])):
        job = definitions.resolve_job_def(name)
        assert job.asset_layer.executable_asset_keys == {asset_key(member) for member in series}
    assert {job.name for job in definitions.get_repository_def().get_all_jobs()} == {
        "spot_daily", "spot_monthly", "usdm_daily", "__ASSET_JOB",
    }  # fmt: skip


# Days in doubt.


def lose_totals(sandbox: Sandbox, symbol: str, day: str) -> None:
    """Remove the 1d candle of a day from both sources."""
    start = to_ms(dt.date.fromisoformat(day))
    for path in ALL_SOURCES:
        lost = Fault("missing_row", market="spot", symbol=symbol, start=start, end=start + 1, path=path, interval="1d")
        sandbox.faults.add(lost)


def test_once_a_day_the_catch_up_proves_days_in_doubt_without_asking_for_their_candles(
    settings: Settings, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    definitions = build_defs(settings, universe_of(BTC, ETH))
    lose_totals(sandbox, "BTCUSDT", "2024-03-05")
    fetch(definitions, instance, [BTC, ETH], LAST_WEEK)
    before = lake.read(BTC, lake.partitions(BTC))
    assert stored(lake, BTC, "2024-03-05").verdict == "unproved"
    for hour in (1, 12, 23):
        assert evaluate(definitions, instance, "spot_catch_up", NIGHT + dt.timedelta(hours=hour)).run_requests == []

    (request,) = evaluate(definitions, instance, "spot_catch_up").run_requests or []
    sandbox.requests.clear()
    assert execute(definitions, instance, request, "spot_daily").success  # nothing is new: the candle is still absent
    assert stored(lake, BTC, "2024-03-05").verdict == "unproved"

    sandbox.faults.clear()
    (request,) = evaluate(definitions, instance, "spot_catch_up").run_requests or []
    result = execute(definitions, instance, request, "spot_daily")
    assert result.success
    assert [event.partition for event in result.asset_materializations_for_node(op_name(BTC))] == ["2024-03-05"]
    assert result.asset_materializations_for_node(op_name(ETH)) == []
    entry = stored(lake, BTC, "2024-03-05")
    assert (entry.verdict, entry.replaced and entry.replaced.verdict) == ("complete", "unproved")
    assert lake.read(BTC, lake.partitions(BTC)).equals(before)
    # A request for one row shows whether the day without a 1d candle has candles at all.
    hourly = [sent for sent in sandbox.requests if sent.params.get("interval") == "1h"]
    assert [sent for sent in hourly if sent.params.get("limit") != "1"] == []
    assert not [sent for sent in sandbox.requests if "/1h/" in sent.path]
    assert evaluate(definitions, instance, "spot_catch_up").run_requests == []


# Many series in one run.

MINUTES = [parse_series(f"spot/{name}/1m") for name in ("BTCUSDT", *(f"S{number:03d}USDT" for number in range(1, 12)))]
YESTERDAY = dt.datetime(2024, 3, 2, 0, 7, tzinfo=dt.UTC)


def test_one_day_of_twelve_series_is_one_run_and_its_metrics_match_the_log_of_the_sandbox(
    settings: Settings, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    definitions = build_defs(settings, universe_of(*MINUTES))
    (request,) = evaluate(definitions, instance, "spot_daily_schedule", YESTERDAY).run_requests or []
    result = execute(definitions, instance, request, "spot_daily")
    assert result.success
    start = to_ms(dt.date(2024, 3, 1))
    for series in MINUTES:
        assert keys(lake, series) == ["2024-03-01"]
        expected = expected_candles(sandbox, str(series), start, start + DAY)
        assert lake.read(series, lake.partitions(series)).equals(expected)
        assert len(result.asset_materializations_for_node(op_name(series))) == 1
    checks = [check.metadata for check in result.get_asset_check_evaluations()]
    assert len(checks) == 12
    assert sum(int(str(check["requests"].value)) for check in checks) == len(sandbox.requests)
    weight = sum(request.weight for request in sandbox.requests)
    assert sum(int(str(check["weight"].value)) for check in checks) == weight


def daily_job() -> dg.JobDefinition:
    """Return the job of the code location that the environment describes, as another process would load it."""
    return build_defs(read_settings(os.environ), universe_of(*MINUTES[:3])).resolve_job_def("spot_daily")


def test_a_re_execution_from_failure_fetches_the_failed_series_only(
    settings: Settings,
    instance: dg.DagsterInstance,
    sandbox: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (environment_of(sandbox, tmp_path) | {"BINANCE_ASSETS_SOURCE": "rest"}).items():
        monkeypatch.setenv(name, value)
    bad, noon = MINUTES[1], to_ms(dt.date(2024, 3, 1)) + 12 * HOUR
    for path in ALL_SOURCES:
        sandbox.faults.add(
            Fault("missing_row", symbol=bad.symbol, start=noon, end=noon + MINUTE, path=path, interval="1m")
        )
    tags = range_tags("2024-03-01", "2024-03-01")
    with dg.execute_job(dg.reconstructable(daily_job), instance, tags=tags, raise_on_error=False) as first:
        assert not first.success
    sandbox.faults.clear()
    sandbox.requests.clear()
    options = dg.ReexecutionOptions.from_failure(first.run_id, instance)
    with dg.execute_job(dg.reconstructable(daily_job), instance, tags=tags, reexecution_options=options) as second:
        assert second.success
    assert {request.params["symbol"] for request in sandbox.requests if "symbol" in request.params} == {bad.symbol}
    assert keys(Lake(settings.lake), bad) == ["2024-03-01"]


def test_a_refused_and_an_unknown_series_do_not_affect_the_other_ten(
    settings: Settings, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    bad, unknown = MINUTES[5], MINUTES[7]
    noon = to_ms(dt.date(2024, 3, 1)) + 12 * HOUR
    sandbox.faults.add(Fault("missing_row", symbol=bad.symbol, start=noon, end=noon + MINUTE, interval="1m"))
    sandbox.faults.add(Fault("missing_row", symbol=bad.symbol, start=noon, end=noon + MINUTE, path="archive"))
    sandbox.faults.add(Fault("invalid_symbol", symbol=unknown.symbol))
    sandbox.faults.add(Fault("status", value=404, symbol=unknown.symbol, path="archive"))
    definitions = build_defs(settings, universe_of(*MINUTES))
    (request,) = evaluate(definitions, instance, "spot_daily_schedule", YESTERDAY).run_requests or []
    result = execute(definitions, instance, request, "spot_daily")
    assert not result.success
    assert [series for series in MINUTES if not keys(lake, series)] == [bad, unknown]
    failed = [check for check in result.get_asset_check_evaluations() if not check.passed]
    assert {check.asset_key for check in failed} == {asset_key(bad), asset_key(unknown)}


def test_prefetching_writes_the_same_files_as_runs_of_single_series(
    settings: Settings, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    members, days = MINUTES[:3], ["2024-03-01", "2024-03-02"]
    for path in ALL_SOURCES:
        start = to_ms(dt.date(2024, 3, 2))
        sandbox.faults.add(Fault("missing_row", symbol=members[1].symbol, start=start, interval="1m", path=path))
    together = build_defs(settings, universe_of(*members))
    fetch(together, instance, members, days)
    apart = settings.model_copy(update={"lake": settings.lake.with_name("apart")})
    for series in members:
        fetch(build_defs(apart, universe_of(series)), instance, [series], days)
    for series in members:
        assert keys(lake, series) == keys(Lake(apart.lake), series)
        first = lake.partitions(series)[0]  # its file holds the others too
        assert content_of(local(lake.path(series, first))) == content_of(local(Lake(apart.lake).path(series, first)))
    assert keys(lake, members[1]) == ["2024-03-01"]


def test_each_series_of_a_run_is_prefetched_with_its_own_configuration(
    settings: Settings, instance: dg.DagsterInstance, sandbox: Sandbox
) -> None:
    members, day = MINUTES[:3], "2024-03-01"
    definitions = build_defs(settings, universe_of(*members))
    fetch(definitions, instance, members, [day])
    sandbox.requests.clear()
    only_missing = dict(zip(members, (True, False, True), strict=True))
    request = dg.RunRequest(
        asset_selection=[asset_key(series) for series in members],
        tags=range_tags(day, day),
        run_config={"ops": {op_name(series): {"config": {"only_missing": only_missing[series]}} for series in members}},
    )
    result = execute(definitions, instance, request, "__ASSET_JOB")
    assert result.success
    assert [len(result.asset_materializations_for_node(op_name(series))) for series in members] == [0, 1, 0]
    windows = [served.params["startTime"] for served in sandbox.requests if served.params.get("interval") == "1m"]
    assert len(windows) == len(set(windows)) == 2  # the pages of one day, each requested once
    symbols = {served.params["symbol"] for served in sandbox.requests if "symbol" in served.params}
    assert symbols == {members[1].symbol}


# Which days the catch-up requests.


def test_missing_days_are_requested_as_one_range(settings: Settings, instance: dg.DagsterInstance) -> None:
    definitions = build_defs(settings, universe_of(BTC, ETH))
    data = evaluate(definitions, instance, "spot_catch_up")
    assert ranges_of(data) == [("2024-03-01", "2024-03-07")]
    assert requested_days(data) == {str(BTC): LAST_WEEK, str(ETH): LAST_WEEK}


def test_present_days_are_not_requested(settings: Settings, instance: dg.DagsterInstance) -> None:
    definitions = build_defs(settings, universe_of(BTC))
    fetch(definitions, instance, [BTC], ["2024-02-28", "2024-03-03", "2024-03-04"])
    data = evaluate(definitions, instance, "spot_catch_up")
    assert ranges_of(data) == [("2024-03-01", "2024-03-02"), ("2024-03-05", "2024-03-07")]
    fetch(definitions, instance, [BTC], LAST_WEEK)
    data = evaluate(definitions, instance, "spot_catch_up")
    assert not data.run_requests
    assert data.skip_message == "every day since 2024-03-01 is in the lake or under way"


def test_a_setting_says_how_far_back_the_catch_up_looks(settings: Settings, instance: dg.DagsterInstance) -> None:
    definitions = build_defs(settings.model_copy(update={"catch_up_days": 2}), universe_of(BTC))
    assert ranges_of(evaluate(definitions, instance, "spot_catch_up")) == [("2024-03-06", "2024-03-07")]


def test_no_day_before_the_first_partition_is_requested(settings: Settings, instance: dg.DagsterInstance) -> None:
    definitions = build_defs(settings, universe_of(BTC))
    at = dt.datetime(2017, 7, 3, 0, 37, tzinfo=dt.UTC)
    assert ranges_of(evaluate(definitions, instance, "spot_catch_up", at)) == [("2017-07-01", "2017-07-02")]


def test_the_days_of_an_unreadable_file_are_requested_and_the_run_replaces_the_file(
    settings: Settings, instance: dg.DagsterInstance, lake: Lake
) -> None:
    definitions = build_defs(settings.model_copy(update={"catch_up_days": 5}), universe_of(BTC))
    days = ["2023-12-30", "2023-12-31", "2024-01-01", "2024-01-02", "2024-01-03"]
    fetch(definitions, instance, [BTC], days)
    damaged = local(lake.path(BTC, lake.partitions(BTC)[-1]))
    intact = content_of(damaged)
    damaged.write_bytes(b"torn")
    assert keys(lake, BTC) == days[:2]  # the file of the other year
    night = dt.datetime(2024, 1, 4, 0, 37, tzinfo=dt.UTC)
    data = evaluate(definitions, instance, "spot_catch_up", night)
    assert requested_days(data) == {str(BTC): days[2:]}
    (request,) = data.run_requests or []
    assert execute(definitions, instance, request, "spot_daily").success
    assert keys(lake, BTC) == days
    assert content_of(damaged) == intact
    copy = state_folder(lake) / "damaged" / damaged.relative_to(local(lake.root))
    assert copy.read_bytes() == b"torn"


def test_each_of_two_series_is_requested_for_its_own_missing_days_and_the_runs_fetch_only_those(
    settings: Settings, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    definitions = build_defs(settings, universe_of(BTC, ETH))
    fetch(definitions, instance, [BTC], ["2024-03-01", "2024-03-02", "2024-03-04", "2024-03-05", "2024-03-07"])
    fetch(definitions, instance, [ETH], ["2024-03-01", "2024-03-03", "2024-03-04", "2024-03-05", "2024-03-06"])
    data = evaluate(definitions, instance, "spot_catch_up")
    assert requested_days(data) == {str(BTC): ["2024-03-03", "2024-03-06"], str(ETH): ["2024-03-02", "2024-03-07"]}
    sandbox.requests.clear()
    for request in data.run_requests or []:
        assert execute(definitions, instance, request, "spot_daily").success
    assert keys(lake, BTC) == keys(lake, ETH) == LAST_WEEK
    windows = {
        (served.params["symbol"], int(served.params["startTime"]) // DAY * DAY)
        for served in sandbox.requests
        if served.params.get("interval") == "1h"
    }
    expected = {("BTCUSDT", 3), ("BTCUSDT", 6), ("ETHUSDT", 2), ("ETHUSDT", 7)}
    assert windows == {(symbol, to_ms(dt.date(2024, 3, day))) for symbol, day in expected}
    assert not evaluate(definitions, instance, "spot_catch_up").run_requests


def test_a_range_that_all_series_of_a_market_lack_is_one_run(settings: Settings, instance: dg.DagsterInstance) -> None:
    definitions = build_defs(settings, universe_of(BTC, ETH))
    fetch(definitions, instance, [BTC, ETH], LAST_WEEK[:5])
    (request,) = evaluate(definitions, instance, "spot_catch_up").run_requests or []
    assert set(request.asset_selection or []) == {asset_key(BTC), asset_key(ETH)}


def test_each_market_has_its_own_catch_up_and_monthly_partitions_have_none(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    definitions = build_defs(settings, universe_of(BTC, FUTURE, WEEKS, parse_series("coinm/BTCUSD_PERP/1w")))
    names = {schedule.name for schedule in definitions.get_repository_def().schedule_defs}
    assert {name for name in names if "catch_up" in name} == {"spot_catch_up", "usdm_catch_up"}
    assert set(requested_days(evaluate(definitions, instance, "spot_catch_up"))) == {str(BTC)}
    assert set(requested_days(evaluate(definitions, instance, "usdm_catch_up"))) == {str(FUTURE)}
    for name in ("spot_catch_up", "usdm_catch_up"):
        assert definitions.resolve_schedule_def(name).default_status == dg.DefaultScheduleStatus.STOPPED


# Runs under way.


def begin(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    job: str,
    tags: Mapping[str, str],
    status: dg.DagsterRunStatus,
    series: Sequence[Series] | None = None,
    run_config: Mapping[str, object] | None = None,
) -> None:
    """Record a run that was launched elsewhere, with its status."""
    instance.create_run_for_job(
        definitions.resolve_job_def(job),
        tags=tags,
        run_config=run_config,
        status=status,
        asset_selection=None if series is None else frozenset(asset_key(member) for member in series),
        remote_job_origin=job_origin(job),
    )


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTED])
def test_days_that_are_queued_or_running_are_not_requested_again(
    settings: Settings, instance: dg.DagsterInstance, status: dg.DagsterRunStatus
) -> None:
    definitions = build_defs(settings, universe_of(BTC, ETH))
    begin(definitions, instance, "__ASSET_JOB", range_tags("2024-02-20", "2024-03-04"), status, [BTC])
    # Two runs of the whole job: as a schedule launches it, and as a process records it that executes the job itself.
    begin(definitions, instance, "spot_daily", {"dagster/partition": "2024-03-07"}, status)
    begin(definitions, instance, "spot_daily", {"dagster/partition": "2024-03-06"}, status, [])
    assert requested_days(evaluate(definitions, instance, "spot_catch_up")) == {
        str(BTC): ["2024-03-05"],
        str(ETH): ["2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04", "2024-03-05"],
    }


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED])
def test_days_of_failed_and_canceled_runs_are_requested_again(
    settings: Settings, instance: dg.DagsterInstance, status: dg.DagsterRunStatus
) -> None:
    definitions = build_defs(settings, universe_of(BTC))
    begin(definitions, instance, "spot_daily", range_tags("2024-03-01", "2024-03-07"), status, [BTC])
    assert requested_days(evaluate(definitions, instance, "spot_catch_up")) == {str(BTC): LAST_WEEK}


def test_a_queued_catch_up_covers_its_own_days_and_series_only(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    definitions = build_defs(settings, universe_of(BTC, ETH))
    fetch(definitions, instance, [ETH], LAST_WEEK[:3])
    fetch(definitions, instance, [BTC], LAST_WEEK[4:])
    queued = dg.DagsterRunStatus.QUEUED
    for_btc, for_eth = evaluate(definitions, instance, "spot_catch_up").run_requests or []
    for request, series in ((for_btc, BTC), (for_eth, ETH)):
        assert request.asset_selection == [asset_key(series)]
        begin(definitions, instance, "spot_daily", request.tags, queued, [series])
    assert not evaluate(definitions, instance, "spot_catch_up").run_requests
    lake = Lake(settings.lake)
    local(lake.path(BTC, lake.partitions(BTC)[0])).unlink()  # no queued run covers its days
    assert requested_days(evaluate(definitions, instance, "spot_catch_up")) == {str(BTC): LAST_WEEK[4:]}


def test_runs_of_other_jobs_do_not_count_as_runs_of_these_series(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    hourly = dg.HourlyPartitionsDefinition("2024-01-01-00:00")

    @dg.asset(partitions_def=hourly)
    def asset_of_a_user() -> None: ...

    own = dg.Definitions(assets=[asset_of_a_user], jobs=[dg.define_asset_job("hours", [asset_of_a_user])])
    definitions = dg.Definitions.merge(build_defs(settings, universe_of(BTC, FUTURE, WEEKS)), own)
    queued = dg.DagsterRunStatus.QUEUED
    begin(definitions, instance, "hours", {"dagster/partition": "2024-03-07-05:00"}, queued)
    begin(definitions, instance, "usdm_daily", {"dagster/partition": "2024-03-06"}, queued)
    begin(definitions, instance, "spot_monthly", {"dagster/partition": "2024-03-01"}, queued)
    assert requested_days(evaluate(definitions, instance, "spot_catch_up")) == {str(BTC): LAST_WEEK}


# Days that are refused repeatedly.


def test_a_refused_day_is_requested_five_times_and_then_left_to_the_user(
    settings: Settings, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    definitions = build_defs(settings, universe_of(BTC))
    lose(sandbox, "BTCUSDT", "2024-03-05")
    for attempt in range(MAX_ATTEMPTS):
        data = evaluate(definitions, instance, "spot_catch_up", NIGHT + dt.timedelta(hours=attempt))
        assert requested_days(data) == {str(BTC): ["2024-03-05"] if attempt else LAST_WEEK}
        (request,) = data.run_requests or []
        assert not execute(definitions, instance, request, "spot_daily").success
    assert keys(lake, BTC) == [day for day in LAST_WEEK if day != "2024-03-05"]
    data = evaluate(definitions, instance, "spot_catch_up", NIGHT + dt.timedelta(hours=MAX_ATTEMPTS))
    assert not data.run_requests
    assert f"{BTC} 2024-03-05" in str(data.skip_message)
    assert "binance-assets accept" in str(data.skip_message)
    assert len(catch_up_runs(instance)) == MAX_ATTEMPTS
    # A new day is still requested.
    data = evaluate(definitions, instance, "spot_catch_up", NIGHT + dt.timedelta(days=1))
    assert requested_days(data) == {str(BTC): ["2024-03-08"]}


def test_attempts_do_not_count_while_the_exchange_is_unreachable(
    settings: Settings, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    no_server = dict.fromkeys(("spot_url", "archive_url"), "http://127.0.0.1:9")  # retried, so one attempt is enough
    unreachable = Settings.model_validate(settings.model_dump() | no_server)
    down = with_quick_retries(build_defs(unreachable, universe_of(BTC)), unreachable)
    up = build_defs(settings, universe_of(BTC))
    sandbox.faults.add(Fault("status", value=451, market="spot"))  # refuses this location, without a retry
    sandbox.faults.add(Fault("status", value=451, market="spot", path="archive"))
    for definitions in (down, *[up] * MAX_ATTEMPTS):
        (request,) = evaluate(definitions, instance, "spot_catch_up").run_requests or []
        result = execute(definitions, instance, request, "spot_daily")
        assert not result.success
        (check,) = result.get_asset_check_evaluations()
        assert "refused: 2024-03-01 and 6 more unreachable: " in str(check.description)
    sandbox.faults.clear()
    (request,) = evaluate(up, instance, "spot_catch_up").run_requests or []
    assert execute(up, instance, request, "spot_daily").success
    assert keys(lake, BTC) == LAST_WEEK


def test_attempts_are_forgotten_once_the_day_is_fetched(
    settings: Settings, instance: dg.DagsterInstance, sandbox: Sandbox
) -> None:
    definitions = build_defs(settings, universe_of(BTC))
    fetch(definitions, instance, [BTC], LAST_WEEK[:-1])
    lose(sandbox, "BTCUSDT", "2024-03-07")
    for hour in range(MAX_ATTEMPTS):
        data = evaluate(definitions, instance, "spot_catch_up", NIGHT + dt.timedelta(hours=hour))
        (request,) = data.run_requests or []
        execute(definitions, instance, request, "spot_daily")
    sandbox.faults.clear()
    fetch(definitions, instance, [BTC], ["2024-03-07"])
    data = evaluate(definitions, instance, "spot_catch_up", NIGHT + dt.timedelta(hours=MAX_ATTEMPTS))
    assert data.skip_message == "every day since 2024-03-01 is in the lake or under way"


def test_attempts_are_counted_per_day_and_series(settings: Settings, instance: dg.DagsterInstance) -> None:
    definitions = build_defs(settings, universe_of(BTC, ETH))
    tags = {**range_tags("2024-03-02", "2024-03-02"), CATCH_UP_TAG: "spot"}
    for _ in range(MAX_ATTEMPTS):
        begin(definitions, instance, "spot_daily", tags, dg.DagsterRunStatus.FAILURE, [BTC])
    requested = requested_days(evaluate(definitions, instance, "spot_catch_up"))
    assert requested == {str(BTC): [day for day in LAST_WEEK if day != "2024-03-02"], str(ETH): LAST_WEEK}


# The configuration of a run.


def test_a_run_with_only_missing_skips_present_days(
    settings: Settings, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    definitions = build_defs(settings, universe_of(BTC))
    fetch(definitions, instance, [BTC], ["2024-03-02"])
    (result,) = fetch(definitions, instance, [BTC], LAST_WEEK[:3], {"only_missing": True})
    assert result.success
    assert len(result.asset_materializations_for_node(op_name(BTC))) == 2
    assert keys(lake, BTC) == LAST_WEEK[:3]
    sandbox.requests.clear()
    (result,) = fetch(definitions, instance, [BTC], LAST_WEEK[:3], {"only_missing": True})
    assert result.success
    assert not sandbox.requests
