"""The schedules: the partition that has just ended, many series in one run, and what is asked again."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.schedule_definition import ScheduleExecutionData
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

from binance_assets.definitions import build_defs
from binance_assets.model.intervals import parse_derived_interval
from binance_assets.model.partitions import partitions_between
from binance_assets.model.series import Series, derived_series, parse_series
from binance_assets.model.timestamps import DAY, HOUR, MINUTE, to_ms
from binance_assets.orchestration.assets import asset_key
from binance_assets.orchestration.catch_up import CATCH_UP_TAG, MOST_ATTEMPTS
from binance_assets.orchestration.partitions import range_tags
from binance_assets.sandbox import Fault, Sandbox
from binance_assets.settings import Settings
from binance_assets.storage.lake import Lake
from binance_assets.storage.universe import Derived
from binance_assets_tests.support.exchange import truth
from binance_assets_tests.support.instances import execute, fetch, new_instance, universe_of

BTC, ETH, SOL = (parse_series(f"spot/{symbol}/1h") for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT"))
FUTURE = parse_series("usdm/BTCUSDT/1h")
WEEKS = parse_series("spot/BTCUSDT/1w")
QUARTERS = Derived(derived_series(BTC.market, "BTCUSDT", parse_derived_interval("4h")), BTC)

# The schedule's clock: half past midnight of the 8th, and a week looked back upon.
NIGHT = dt.datetime(2024, 3, 8, 0, 37, tzinfo=dt.UTC)
LAST_WEEK = [f"2024-03-0{day}" for day in range(1, 8)]


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with new_instance(tmp_path / "dagster") as opened:
        yield opened


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"catch_up_days": 7, "source": "rest"})


@pytest.fixture
def lake(settings: Settings) -> Lake:
    return Lake(settings.lake)


def evaluate(
    definitions: dg.Definitions, instance: dg.DagsterInstance, name: str, at: dt.datetime = NIGHT
) -> ScheduleExecutionData:
    """What a schedule answers at ``at``."""
    repository = definitions.get_repository_def()
    context = dg.build_schedule_context(instance=instance, scheduled_execution_time=at, repository_def=repository)
    return repository.get_schedule_def(name).evaluate_tick(context)


def spans_of(data: ScheduleExecutionData) -> list[tuple[str, str]]:
    """The ranges of the runs that were asked for."""
    tags = [request.tags for request in data.run_requests or []]
    return [(tag["dagster/asset_partition_range_start"], tag["dagster/asset_partition_range_end"]) for tag in tags]


def asked_of(data: ScheduleExecutionData) -> dict[str, list[str]]:
    """The days that were asked for, by series."""
    asked: dict[str, list[str]] = {}
    for request, (first, last) in zip(data.run_requests or [], spans_of(data), strict=True):
        end = dt.date.fromisoformat(last) + dt.timedelta(days=1)
        for key in request.asset_selection or []:
            days = partitions_between(dt.date.fromisoformat(first), end, BTC.interval)
            asked.setdefault("/".join(key.path), []).extend(day.key for day in days)
    return {name: sorted(keys) for name, keys in asked.items()}


def catch_up_runs(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    return list(instance.get_runs(dg.RunsFilter(tags={CATCH_UP_TAG: "spot"})))


def lose(sandbox: Sandbox, symbol: str, day: str) -> None:
    """From now on neither source has the noon of that day."""
    noon = to_ms(dt.date.fromisoformat(day)) + 12 * HOUR
    for path in ("klines", "archive"):
        lost = Fault("missing_row", market="spot", symbol=symbol, start=noon, end=noon + HOUR, path=path, interval="1h")
        sandbox.faults.add(lost)


# The partition that has just ended.


@pytest.mark.parametrize(
    ("name", "at", "expected"),
    [
        ("spot_daily_schedule", dt.datetime(2024, 3, 1, 0, 7, tzinfo=dt.UTC), "2024-02-29"),
        ("usdm_daily_schedule", dt.datetime(2025, 1, 1, 0, 7, tzinfo=dt.UTC), "2024-12-31"),
        ("spot_monthly_schedule", dt.datetime(2024, 3, 8, 0, 17, tzinfo=dt.UTC), "2024-02-01"),
    ],
)
def test_a_schedule_asks_once_for_the_partition_that_has_just_ended(
    settings: Settings, instance: dg.DagsterInstance, name: str, at: dt.datetime, expected: str
) -> None:
    definitions = build_defs(settings, universe_of(BTC, WEEKS, FUTURE, derived=[QUARTERS]))
    (request,) = evaluate(definitions, instance, name, at).run_requests or []
    assert request.partition_key == expected
    assert definitions.resolve_schedule_def(name).default_status == dg.DefaultScheduleStatus.STOPPED


def test_the_jobs_hold_what_is_fetched_and_neither_what_is_derived_nor_the_coverage(settings: Settings) -> None:
    definitions = build_defs(settings, universe_of(BTC, ETH, WEEKS, FUTURE, derived=[QUARTERS]))
    for name, series in (("spot_daily", [BTC, ETH]), ("spot_monthly", [WEEKS]), ("usdm_daily", [FUTURE])):
        job = definitions.resolve_job_def(name)
        assert job.asset_layer.executable_asset_keys == {asset_key(one) for one in series}
    assert {job.name for job in definitions.get_repository_def().get_all_jobs()} == {
        "spot_daily", "spot_monthly", "usdm_daily", "__ASSET_JOB",
    }  # fmt: skip


# Many series in one run.

MINUTES = [parse_series(f"spot/{name}/1m") for name in ("BTCUSDT", *(f"S{number:03d}USDT" for number in range(1, 12)))]
YESTERDAY = dt.datetime(2024, 3, 2, 0, 7, tzinfo=dt.UTC)


def test_a_day_of_twelve_series_is_one_run_and_its_books_are_those_of_the_sandbox(
    settings: Settings, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    definitions = build_defs(settings, universe_of(*MINUTES))
    (request,) = evaluate(definitions, instance, "spot_daily_schedule", YESTERDAY).run_requests or []
    result = execute(definitions, instance, request, "spot_daily")
    assert result.success
    start = to_ms(dt.date(2024, 3, 1))
    for series in MINUTES:
        assert lake.keys(series) == ["2024-03-01"]
        (partition,) = lake.partitions(series)
        assert lake.read(series, partition).equals(truth(sandbox, str(series), start, start + DAY))
        assert len(result.asset_materializations_for_node("__".join(series.key))) == 1
    message = [check.metadata for check in result.get_asset_check_evaluations()]
    assert len(message) == 12
    assert sum(int(str(each["requests"].value)) for each in message) == len(sandbox.requests)
    assert sum(int(str(each["weight"].value)) for each in message) == sum(
        request.weight for request in sandbox.requests
    )


def test_of_twelve_series_a_bad_one_fails_alone(
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
    assert [series for series in MINUTES if not lake.keys(series)] == [bad, unknown]
    failed = [check for check in result.get_asset_check_evaluations() if not check.passed]
    assert {check.asset_key for check in failed} == {asset_key(bad), asset_key(unknown)}


def test_fetching_ahead_gives_the_files_that_runs_of_one_series_give(
    settings: Settings, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    some, days = MINUTES[:4], ["2024-03-01", "2024-03-02", "2024-03-03"]
    for path in ("klines", "archive"):
        start = to_ms(dt.date(2024, 3, 2))
        sandbox.faults.add(Fault("missing_row", symbol=some[1].symbol, start=start, interval="1m", path=path))
    together = build_defs(settings, universe_of(*some))
    fetch(together, instance, some, days)
    apart = settings.model_copy(update={"lake": settings.lake.with_name("apart")})
    for series in some:
        fetch(build_defs(apart, universe_of(series)), instance, [series], days)
    for series in some:
        assert lake.keys(series) == Lake(apart.lake).keys(series)
        for partition in lake.partitions(series):
            assert lake.path(series, partition).read_bytes() == Lake(apart.lake).path(series, partition).read_bytes()
    assert lake.keys(some[1]) == ["2024-03-01"]


# What is asked again.


def test_the_days_that_are_not_there_are_asked_for_as_one_range(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    definitions = build_defs(settings, universe_of(BTC, ETH))
    data = evaluate(definitions, instance, "spot_catch_up")
    assert spans_of(data) == [("2024-03-01", "2024-03-07")]
    assert asked_of(data) == {str(BTC): LAST_WEEK, str(ETH): LAST_WEEK}


def test_the_days_that_are_there_are_not_asked_for(settings: Settings, instance: dg.DagsterInstance) -> None:
    definitions = build_defs(settings, universe_of(BTC))
    fetch(definitions, instance, [BTC], ["2024-02-28", "2024-03-03", "2024-03-04"])
    data = evaluate(definitions, instance, "spot_catch_up")
    assert spans_of(data) == [("2024-03-01", "2024-03-02"), ("2024-03-05", "2024-03-07")]
    fetch(definitions, instance, [BTC], LAST_WEEK)
    data = evaluate(definitions, instance, "spot_catch_up")
    assert not data.run_requests
    assert data.skip_message == "every day since 2024-03-01 is there, or on its way"


def test_how_far_back_it_looks_is_a_setting(settings: Settings, instance: dg.DagsterInstance) -> None:
    definitions = build_defs(settings.model_copy(update={"catch_up_days": 2}), universe_of(BTC))
    assert spans_of(evaluate(definitions, instance, "spot_catch_up")) == [("2024-03-06", "2024-03-07")]


def test_before_the_first_partition_there_is_nothing_to_catch_up_with(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    definitions = build_defs(settings, universe_of(BTC))
    at = dt.datetime(2017, 7, 3, 0, 37, tzinfo=dt.UTC)
    assert spans_of(evaluate(definitions, instance, "spot_catch_up", at)) == [("2017-07-01", "2017-07-02")]


def test_a_file_that_cannot_be_read_is_a_day_that_is_not_there(
    settings: Settings, instance: dg.DagsterInstance, lake: Lake
) -> None:
    definitions = build_defs(settings, universe_of(BTC))
    fetch(definitions, instance, [BTC], LAST_WEEK)
    lake.path(BTC, lake.partitions(BTC)[3]).write_bytes(b"torn")
    assert asked_of(evaluate(definitions, instance, "spot_catch_up")) == {str(BTC): ["2024-03-04"]}


def test_of_two_series_each_is_asked_for_what_it_lacks_and_the_run_fetches_just_that(
    settings: Settings, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    definitions = build_defs(settings, universe_of(BTC, ETH))
    fetch(definitions, instance, [BTC], ["2024-03-01", "2024-03-02", "2024-03-04", "2024-03-05", "2024-03-07"])
    fetch(definitions, instance, [ETH], ["2024-03-01", "2024-03-03", "2024-03-04", "2024-03-05", "2024-03-06"])
    data = evaluate(definitions, instance, "spot_catch_up")
    assert asked_of(data) == {str(BTC): ["2024-03-03", "2024-03-06"], str(ETH): ["2024-03-02", "2024-03-07"]}
    sandbox.requests.clear()
    for request in data.run_requests or []:
        assert execute(definitions, instance, request, "spot_daily").success
    assert lake.keys(BTC) == lake.keys(ETH) == LAST_WEEK
    windows = {
        (served.params["symbol"], int(served.params["startTime"]) // DAY * DAY)
        for served in sandbox.requests
        if served.params.get("interval") == "1h"
    }
    asked = {("BTCUSDT", 3), ("BTCUSDT", 6), ("ETHUSDT", 2), ("ETHUSDT", 7)}
    assert windows == {(symbol, to_ms(dt.date(2024, 3, day))) for symbol, day in asked}
    assert not evaluate(definitions, instance, "spot_catch_up").run_requests


def test_what_a_whole_market_lacks_is_one_run(settings: Settings, instance: dg.DagsterInstance) -> None:
    definitions = build_defs(settings, universe_of(BTC, ETH))
    fetch(definitions, instance, [BTC, ETH], LAST_WEEK[:5])
    (request,) = evaluate(definitions, instance, "spot_catch_up").run_requests or []
    assert set(request.asset_selection or []) == {asset_key(BTC), asset_key(ETH)}


def test_each_market_has_its_own_and_months_are_no_business_of_it(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    definitions = build_defs(settings, universe_of(BTC, FUTURE, WEEKS, parse_series("coinm/BTCUSD_PERP/1w")))
    names = {schedule.name for schedule in definitions.get_repository_def().schedule_defs}
    assert {name for name in names if "catch_up" in name} == {"spot_catch_up", "usdm_catch_up"}
    assert set(asked_of(evaluate(definitions, instance, "spot_catch_up"))) == {str(BTC)}
    assert set(asked_of(evaluate(definitions, instance, "usdm_catch_up"))) == {str(FUTURE)}
    for name in ("spot_catch_up", "usdm_catch_up"):
        assert definitions.resolve_schedule_def(name).default_status == dg.DefaultScheduleStatus.STOPPED


# What is on its way.


def begin(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    job: str,
    tags: Mapping[str, str],
    status: dg.DagsterRunStatus,
    series: Sequence[Series] | None = None,
    run_config: Mapping[str, object] | None = None,
) -> None:
    """A run that somebody launched, and what became of it."""
    location = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("binance_assets"), "__repository__")
    instance.create_run_for_job(
        definitions.resolve_job_def(job),
        tags=tags,
        run_config=run_config,
        status=status,
        asset_selection=None if series is None else frozenset(asset_key(one) for one in series),
        remote_job_origin=RemoteJobOrigin(location, job),
    )


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTED])
def test_what_is_queued_or_running_is_not_asked_again(
    settings: Settings, instance: dg.DagsterInstance, status: dg.DagsterRunStatus
) -> None:
    definitions = build_defs(settings, universe_of(BTC, ETH))
    begin(definitions, instance, "__ASSET_JOB", range_tags("2024-02-20", "2024-03-04"), status, [BTC])
    # A whole job, as a schedule launches it, and as a process that executes it itself does.
    begin(definitions, instance, "spot_daily", {"dagster/partition": "2024-03-07"}, status)
    begin(definitions, instance, "spot_daily", {"dagster/partition": "2024-03-06"}, status, [])
    assert asked_of(evaluate(definitions, instance, "spot_catch_up")) == {
        str(BTC): ["2024-03-05"],
        str(ETH): ["2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04", "2024-03-05"],
    }


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED])
def test_what_came_to_nothing_is_asked_again(
    settings: Settings, instance: dg.DagsterInstance, status: dg.DagsterRunStatus
) -> None:
    definitions = build_defs(settings, universe_of(BTC))
    begin(definitions, instance, "spot_daily", range_tags("2024-03-01", "2024-03-07"), status, [BTC])
    assert asked_of(evaluate(definitions, instance, "spot_catch_up")) == {str(BTC): LAST_WEEK}


def test_a_catch_up_that_is_queued_covers_its_days_and_series_and_no_others(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    definitions = build_defs(settings, universe_of(BTC, ETH))
    fetch(definitions, instance, [ETH], LAST_WEEK[:3])
    fetch(definitions, instance, [BTC], LAST_WEEK[4:])
    queued = dg.DagsterRunStatus.QUEUED
    of_one, of_other = evaluate(definitions, instance, "spot_catch_up").run_requests or []
    for request, series in ((of_one, BTC), (of_other, ETH)):
        assert request.asset_selection == [asset_key(series)]
        begin(definitions, instance, "spot_daily", request.tags, queued, [series])
    assert not evaluate(definitions, instance, "spot_catch_up").run_requests
    Lake(settings.lake).path(BTC, Lake(settings.lake).partitions(BTC)[0]).unlink()  # not among those on their way
    assert asked_of(evaluate(definitions, instance, "spot_catch_up")) == {str(BTC): ["2024-03-05"]}


def test_runs_of_other_jobs_are_not_taken_for_runs_of_these_series(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    hourly = dg.HourlyPartitionsDefinition("2024-01-01-00:00")

    @dg.asset(partitions_def=hourly)
    def of_somebody_else() -> None: ...

    own = dg.Definitions(assets=[of_somebody_else], jobs=[dg.define_asset_job("hours", [of_somebody_else])])
    definitions = dg.Definitions.merge(build_defs(settings, universe_of(BTC, FUTURE, WEEKS)), own)
    queued = dg.DagsterRunStatus.QUEUED
    begin(definitions, instance, "hours", {"dagster/partition": "2024-03-07-05:00"}, queued)
    begin(definitions, instance, "usdm_daily", {"dagster/partition": "2024-03-06"}, queued)
    begin(definitions, instance, "spot_monthly", {"dagster/partition": "2024-03-01"}, queued)
    assert asked_of(evaluate(definitions, instance, "spot_catch_up")) == {str(BTC): LAST_WEEK}


# What is refused again and again.


def test_a_refused_day_is_asked_for_some_times_and_then_left_to_a_person(
    settings: Settings, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    definitions = build_defs(settings, universe_of(BTC))
    lose(sandbox, "BTCUSDT", "2024-03-05")
    for attempt in range(MOST_ATTEMPTS):
        data = evaluate(definitions, instance, "spot_catch_up", NIGHT + dt.timedelta(hours=attempt))
        assert asked_of(data) == {str(BTC): ["2024-03-05"] if attempt else LAST_WEEK}
        (request,) = data.run_requests or []
        assert not execute(definitions, instance, request, "spot_daily").success
    assert lake.keys(BTC) == [day for day in LAST_WEEK if day != "2024-03-05"]
    data = evaluate(definitions, instance, "spot_catch_up", NIGHT + dt.timedelta(hours=MOST_ATTEMPTS))
    assert not data.run_requests
    assert f"{BTC} 2024-03-05" in str(data.skip_message)
    assert "binance-assets accept" in str(data.skip_message)
    assert len(catch_up_runs(instance)) == MOST_ATTEMPTS
    # The next day comes all the same.
    data = evaluate(definitions, instance, "spot_catch_up", NIGHT + dt.timedelta(days=1))
    assert asked_of(data) == {str(BTC): ["2024-03-08"]}


def test_attempts_do_not_count_while_the_exchange_is_not_there(
    settings: Settings, instance: dg.DagsterInstance, lake: Lake
) -> None:
    gone = Settings.model_validate(
        settings.model_dump() | dict.fromkeys(("spot_url", "archive_url"), "http://127.0.0.1:9")
    )
    away = build_defs(gone, universe_of(BTC))
    for _ in range(MOST_ATTEMPTS + 1):
        (request,) = evaluate(away, instance, "spot_catch_up").run_requests or []
        assert not execute(away, instance, request, "spot_daily").success
    back = build_defs(settings, universe_of(BTC))
    (request,) = evaluate(back, instance, "spot_catch_up").run_requests or []
    assert execute(back, instance, request, "spot_daily").success
    assert lake.keys(BTC) == LAST_WEEK


def test_a_day_that_a_person_fetched_after_all_is_forgotten(
    settings: Settings, instance: dg.DagsterInstance, sandbox: Sandbox
) -> None:
    definitions = build_defs(settings, universe_of(BTC))
    fetch(definitions, instance, [BTC], LAST_WEEK[:-1])
    lose(sandbox, "BTCUSDT", "2024-03-07")
    for hour in range(MOST_ATTEMPTS):
        data = evaluate(definitions, instance, "spot_catch_up", NIGHT + dt.timedelta(hours=hour))
        (request,) = data.run_requests or []
        execute(definitions, instance, request, "spot_daily")
    sandbox.faults.clear()
    fetch(definitions, instance, [BTC], ["2024-03-07"])
    data = evaluate(definitions, instance, "spot_catch_up", NIGHT + dt.timedelta(hours=MOST_ATTEMPTS))
    assert data.skip_message == "every day since 2024-03-01 is there, or on its way"


def test_attempts_are_counted_day_by_day_and_series_by_series(settings: Settings, instance: dg.DagsterInstance) -> None:
    definitions = build_defs(settings, universe_of(BTC, ETH))
    tags = {**range_tags("2024-03-02", "2024-03-02"), CATCH_UP_TAG: "spot"}
    for _ in range(MOST_ATTEMPTS):
        begin(definitions, instance, "spot_daily", tags, dg.DagsterRunStatus.FAILURE, [BTC])
    asked = asked_of(evaluate(definitions, instance, "spot_catch_up"))
    assert asked == {str(BTC): [day for day in LAST_WEEK if day != "2024-03-02"], str(ETH): LAST_WEEK}


# What a run may be told.


def test_a_run_may_be_told_to_fetch_only_what_is_missing(
    settings: Settings, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    definitions = build_defs(settings, universe_of(BTC))
    fetch(definitions, instance, [BTC], ["2024-03-02"])
    (result,) = fetch(definitions, instance, [BTC], LAST_WEEK[:3], {"only_missing": True})
    assert result.success
    assert len(result.asset_materializations_for_node("__".join(BTC.key))) == 2
    assert lake.keys(BTC) == LAST_WEEK[:3]
    sandbox.requests.clear()
    (result,) = fetch(definitions, instance, [BTC], LAST_WEEK[:3], {"only_missing": True})
    assert result.success
    assert not sandbox.requests
