"""Schedules, sensors, the catch-up, and the coverage with the storage of Dagster on a Postgres server."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import dagster as dg
import pytest

from binance_assets.definitions import build_defs
from binance_assets.model.intervals import parse_derived_interval
from binance_assets.model.partitions import partition_for_key
from binance_assets.model.series import derived_series, parse_series
from binance_assets.model.timestamps import HOUR, to_ms
from binance_assets.orchestration.dagster_internals.event_reads import materialized_ranges
from binance_assets.orchestration.keys import asset_key
from binance_assets.orchestration.partitions import DAILY
from binance_assets.sandbox import Fault, Sandbox
from binance_assets.settings import Settings
from binance_assets.storage.lake import Lake
from binance_assets.storage.universe import Derived
from binance_assets_tests.support.exchange import ALL_SOURCES
from binance_assets_tests.support.instances import execute, fetch, postgres_instance, universe_of
from binance_assets_tests.support.lakes import keys, remove
from binance_assets_tests.support.postgres_server import PostgresServer

pytestmark = [
    pytest.mark.services,
    pytest.mark.skipif(find_spec("dagster_postgres") is None, reason="dagster-postgres is not installed"),
    pytest.mark.usefixtures("without_plot"),
]

BTC, ETH = (parse_series(name) for name in ("spot/BTCUSDT/1h", "spot/ETHUSDT/1h"))
HALF_DAYS = Derived(derived_series(BTC.market, "BTCUSDT", parse_derived_interval("12h")), BTC)
DAYS = [f"2024-03-0{day}" for day in range(1, 8)]
NOON = dt.datetime(2024, 3, 8, 12, 37, tzinfo=dt.UTC)


class Automated:
    """The code location and an instance on Postgres."""

    def __init__(self, settings: Settings, instance: dg.DagsterInstance) -> None:
        self.lake, self.instance = Lake(settings.lake), instance
        self.definitions = build_defs(settings, universe_of(BTC, ETH, derived=[HALF_DAYS]))

    def schedule(self, name: str, at: dt.datetime) -> Sequence[dg.RunRequest]:
        """Return what a tick of a schedule requests."""
        repository = self.definitions.get_repository_def()
        context = dg.build_schedule_context(self.instance, at, repository_def=repository)
        with context:
            return repository.get_schedule_def(name).evaluate_tick(context).run_requests or []

    def sensor(self, name: str, cursor: str | None = None) -> tuple[Sequence[dg.RunRequest], str]:
        """Return what a tick of a sensor requests, and its cursor."""
        repository = self.definitions.get_repository_def()
        with dg.build_sensor_context(instance=self.instance, repository_def=repository, cursor=cursor) as context:
            data = repository.get_sensor_def(name).evaluate_tick(context)
        return data.run_requests or [], str(data.cursor)

    def execute(self, requests: Sequence[dg.RunRequest], job: str = "spot_daily") -> list[bool]:
        return [execute(self.definitions, self.instance, request, job).success for request in requests]


@pytest.fixture
def automated(settings: Settings, postgres: PostgresServer, tmp_path: Path) -> Iterator[Automated]:
    """The code location, of whose series the catch-up looks back a week."""
    with postgres_instance(tmp_path, postgres.new_database()) as instance:
        yield Automated(settings.model_copy(update={"catch_up_days": 7, "source": "rest"}), instance)


def test_a_day_passes_from_the_schedule_to_the_coverage_and_the_catch_up_repairs_what_is_lost(
    automated: Automated, sandbox: Sandbox
) -> None:
    lost = to_ms(dt.date(2024, 3, 3)) + 5 * HOUR
    for path in ALL_SOURCES:
        sandbox.faults.add(
            Fault("missing_row", symbol="BTCUSDT", start=lost, end=lost + HOUR, path=path, interval="1h")
        )
    fetch(automated.definitions, automated.instance, [BTC, ETH], DAYS[:-1])
    (request,) = automated.schedule("spot_daily_schedule", dt.datetime(2024, 3, 8, 0, 7, tzinfo=dt.UTC))
    assert request.partition_key == DAYS[-1]
    fetch(automated.definitions, automated.instance, [BTC, ETH], [DAYS[-1]])
    good = [day for day in DAYS if day != "2024-03-03"]

    # The sensor derives the good days, and goes on from its cursor.
    requests, cursor = automated.sensor("derived_candles")
    assert all(automated.execute(requests, "__ASSET_JOB"))
    assert keys(automated.lake, HALF_DAYS.series) == good
    assert automated.sensor("derived_candles", cursor) == ([], cursor)

    # The check names the bad day, and the partitions tab shows the others.
    ranges = materialized_ranges(automated.instance, {asset_key(BTC): DAILY, asset_key(ETH): DAILY})
    first, bad, after, end = dt.date(2024, 3, 1), dt.date(2024, 3, 3), dt.date(2024, 3, 4), dt.date(2024, 3, 8)
    assert ranges == {asset_key(BTC): [(first, bad), (after, end)], asset_key(ETH): [(first, end)]}
    (record,) = automated.instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(asset_key(BTC), "gap_free"), limit=1
    )
    assert record.status.value == "FAILED"

    # The catch-up requests it, and what somebody removed, once each.
    sandbox.faults.clear()
    remove(automated.lake, ETH, "2024-03-06")
    requests = automated.schedule("spot_catch_up", NOON)
    assert [request.tags["dagster/asset_partition_range_start"] for request in requests] == ["2024-03-03", "2024-03-06"]
    assert all(automated.execute(requests))
    assert automated.schedule("spot_catch_up", NOON) == []
    requests, _ = automated.sensor("derived_candles", cursor)
    assert all(automated.execute(requests, "__ASSET_JOB"))
    assert keys(automated.lake, HALF_DAYS.series) == DAYS

    # The coverage waits until no event has come for a moment; materialized now, it counts all days.
    requests, waiting = automated.sensor("coverage")
    assert (requests, "waits_since" in waiting) == ([], True)
    selection = [dg.AssetKey(["spot", "coverage"])]
    result = execute(automated.definitions, automated.instance, dg.RunRequest(asset_selection=selection), "__ASSET_JOB")
    assert result.success
    event = automated.instance.get_latest_materialization_event(selection[0])
    assert event is not None

    # Files that are deleted are lost partitions within a tick.
    remove(automated.lake, ETH, "2024-03-06")
    requests, _ = automated.sensor("lake_state")
    assert [str(request.asset_selection) for request in requests] == [str(selection)]
    assert partition_for_key("2024-03-06", ETH.interval) in automated.lake.missing(
        ETH, [partition_for_key(day, ETH.interval) for day in DAYS]
    )
    (failed,) = automated.instance.get_runs(dg.RunsFilter(job_name="lost_partitions"))
    assert failed.is_failure
