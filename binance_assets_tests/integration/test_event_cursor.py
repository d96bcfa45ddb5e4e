"""Event cursors: on Postgres, an event may appear after one with a higher number, and no sensor loses it."""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pydantic import SecretStr

from binance_assets.definitions import build_defs
from binance_assets.model.intervals import parse_derived_interval
from binance_assets.model.series import derived_series, parse_series
from binance_assets.orchestration import event_cursor
from binance_assets.orchestration.dagster_internals.event_writes import report_failed_run
from binance_assets.orchestration.event_cursor import last_settled_event
from binance_assets.orchestration.keys import asset_key
from binance_assets.orchestration.sensors import new_partitions
from binance_assets.sandbox import Sandbox
from binance_assets.settings import read_settings
from binance_assets.storage.universe import Derived
from binance_assets_tests.support.alert_hook import serving_hook
from binance_assets_tests.support.environment import environment_of
from binance_assets_tests.support.instances import postgres_instance, universe_of
from binance_assets_tests.support.postgres_server import PostgresServer

on_postgres = [
    pytest.mark.services,
    pytest.mark.skipif(find_spec("dagster_postgres") is None, reason="dagster-postgres is not installed"),
]
BTC = parse_series("spot/BTCUSDT/1h")
KEY = asset_key(BTC)
# A copy of the newest event of a type, as another process would store it, with a change of its text.
COPY = """
INSERT INTO event_logs (run_id, event, dagster_event_type, timestamp, step_key, asset_key, partition)
SELECT run_id, replace(event, %(old)s, %(new)s), dagster_event_type, timestamp, step_key, asset_key,
       replace(partition, %(old)s, %(new)s)
FROM event_logs WHERE dagster_event_type = %(kind)s ORDER BY id DESC LIMIT 1
"""


@pytest.fixture(scope="module")
def prepared(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with the empty tables of an instance."""
    url = postgres.new_database()
    with postgres_instance(tmp_path_factory.mktemp("prepared"), url):
        return url


@pytest.fixture
def url(postgres: PostgresServer, prepared: str) -> str:
    """A copy of the prepared database."""
    return postgres.new_database(prepared)


@pytest.fixture
def shared(url: str, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance on Postgres."""
    with postgres_instance(tmp_path, url) as opened:
        yield opened


@contextmanager
def late_event(url: str, kind: str, old: str = "", new: str = "") -> Iterator[Any]:
    """Store an event as :data:`COPY` does, in a transaction that the caller commits."""
    import psycopg2

    connection = psycopg2.connect(url.replace("+psycopg2", ""))
    try:
        connection.cursor().execute(COPY, {"kind": kind, "old": old, "new": new})
        yield connection
    finally:
        connection.close()


def report(instance: dg.DagsterInstance, day: str) -> None:
    instance.report_runless_asset_event(dg.AssetMaterialization(KEY, partition=day))


def test_on_sqlite_all_events_have_settled(instance: dg.DagsterInstance) -> None:
    report(instance, "2024-01-01")
    assert last_settled_event(instance, 0) is None
    assert new_partitions(instance, KEY, 0)[0] == ["2024-01-01"]


class TestOnPostgres:
    """What another process commits late."""

    pytestmark = on_postgres

    def test_a_cursor_does_not_pass_an_event_that_is_committed_late(
        self, shared: dg.DagsterInstance, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(event_cursor, "_PATIENCE_SECONDS", 0.1)
        report(shared, "2024-01-01")
        with late_event(url, "ASSET_MATERIALIZATION", "2024-01-01", "2024-01-02") as late:
            report(shared, "2024-01-03")
            days, last = new_partitions(shared, KEY, 0)
            assert days == ["2024-01-01"]  # what is before the late event is not held up
            assert new_partitions(shared, KEY, last) == ([], last)
            late.commit()
        days, last = new_partitions(shared, KEY, last)
        assert days == ["2024-01-02", "2024-01-03"]
        assert new_partitions(shared, KEY, last) == ([], last)

    def test_a_transaction_that_was_rolled_back_holds_up_nothing(self, shared: dg.DagsterInstance, url: str) -> None:
        report(shared, "2024-01-01")
        with late_event(url, "ASSET_MATERIALIZATION"):
            report(shared, "2024-01-02")
        assert new_partitions(shared, KEY, 0)[0] == ["2024-01-01", "2024-01-02"]

    def test_a_transaction_that_takes_a_moment_is_waited_for(
        self, shared: dg.DagsterInstance, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(event_cursor, "_PATIENCE_SECONDS", 30)
        report(shared, "2024-01-01")
        with late_event(url, "ASSET_MATERIALIZATION", "2024-01-01", "2024-01-02") as late:
            report(shared, "2024-01-03")
            timer = threading.Timer(0.2, late.commit)
            timer.start()
            days, _ = new_partitions(shared, KEY, 0)
            timer.join()
        assert days == ["2024-01-01", "2024-01-02", "2024-01-03"]

    def test_the_sensor_of_derived_days_loses_none_and_goes_on_from_an_old_cursor(
        self,
        shared: dg.DagsterInstance,
        url: str,
        postgres: PostgresServer,
        sandbox: Sandbox,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(event_cursor, "_PATIENCE_SECONDS", 0.1)
        derived = Derived(derived_series(BTC.market, "BTCUSDT", parse_derived_interval("4h")), BTC)
        settings = read_settings(environment_of(sandbox, tmp_path))
        repository = build_defs(settings, universe_of(BTC, derived=[derived])).get_repository_def()

        def tick(cursor: str | None) -> tuple[list[str], str]:
            with dg.build_sensor_context(instance=shared, repository_def=repository, cursor=cursor) as context:
                data = repository.get_sensor_def("derived_candles").evaluate_tick(context)
            ranges = [request.tags["dagster/asset_partition_range_start"] for request in data.run_requests or []]
            return ranges, str(data.cursor)

        report(shared, "2024-01-01")
        _, last = new_partitions(shared, KEY, 0)
        cursor = json.dumps({str(BTC): last})
        (record,) = postgres.execute("SELECT last_materialization FROM asset_keys", url)
        with late_event(url, "ASSET_MATERIALIZATION", "2024-01-01", "2024-03-01") as late:
            report(shared, "2024-02-01")
            assert tick(cursor) == ([], cursor)
            late.commit()
        # The other process also updates the record of the asset late: it has an older event than the newest one.
        postgres.execute("UPDATE asset_keys SET last_materialization = %s", url, record)
        days, after = tick(cursor)
        assert days == ["2024-02-01", "2024-03-01"]
        assert tick(after) == ([], after)

    def test_a_failed_run_that_is_committed_late_is_an_alert(
        self,
        shared: dg.DagsterInstance,
        url: str,
        sandbox: Sandbox,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(event_cursor, "_PATIENCE_SECONDS", 0.1)

        def fail(message: str) -> None:
            day = str(dt.date(2024, 1, 1))
            report_failed_run(shared, "job", {KEY: [dg.AssetObservation(KEY, partition=day)]}, message, {})

        with serving_hook() as hook:
            alert_url = SecretStr(hook.url.get_secret_value())
            settings = read_settings(environment_of(sandbox, tmp_path)).model_copy(update={"alert_url": alert_url})
            repository = build_defs(settings, universe_of(BTC)).get_repository_def()

            def tick(cursor: str | None) -> str:
                with dg.build_sensor_context(instance=shared, repository_def=repository, cursor=cursor) as context:
                    return str(repository.get_sensor_def("run_failures").evaluate_tick(context).cursor)

            fail("first")
            cursor = tick(None)
            with late_event(url, "PIPELINE_FAILURE") as late:
                fail("second")
                cursor = tick(cursor)
                assert hook.received == []
                late.commit()
            tick(tick(cursor))
            assert [alert["reason"] for alert in hook.received] == ["first", "second"]
