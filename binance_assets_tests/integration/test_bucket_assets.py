"""Dagster over a lake in a bucket: lost objects, two lakes on one instance, the catch-up, and the Python API."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import dagster as dg
import pytest

import binance_assets as ba
from binance_assets.definitions import build_defs
from binance_assets.model.bucket_paths import BucketPath
from binance_assets.model.partitions import partition_for_key
from binance_assets.model.series import parse_series
from binance_assets.orchestration import losses
from binance_assets.orchestration.gaps import LOSSES_JOB
from binance_assets.orchestration.status import last_refusal
from binance_assets.sandbox import Sandbox
from binance_assets.settings import Settings
from binance_assets.storage import bucket_client
from binance_assets.storage.lake import Lake, LakeError
from binance_assets_tests.support.environment import environment_of
from binance_assets_tests.support.instances import fetch, universe_of
from binance_assets_tests.support.lakes import keys
from binance_assets_tests.support.results import result_of
from binance_assets_tests.support.s3_server import S3Server

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("without_plot")]

HOURS = parse_series("spot/BTCUSDT/1h")
DAYS = ["2024-03-01", "2024-03-02"]
AWAY = "http://127.0.0.1:1"


@pytest.fixture
def lake(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """A lake in the bucket that the variables of the process lead to."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    lake = Lake(s3_server.new_lake())
    lake.prepare("sandbox")
    return lake


@pytest.fixture
def settings(settings: Settings, lake: Lake) -> Settings:
    return settings.model_copy(update={"lake": lake.root, "source": "rest", "catch_up_days": 7})


@pytest.fixture
def definitions(settings: Settings) -> dg.Definitions:
    return build_defs(settings, universe_of(HOURS))


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer retries, so that the test need not wait for them."""
    monkeypatch.setattr(bucket_client, "_RETRIES", 1)


def recorded(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """Return the runs that show recorded losses."""
    return [run for run in instance.get_runs() if run.job_name == LOSSES_JOB]


def place_of(lake: Lake) -> BucketPath:
    assert isinstance(lake.root, BucketPath)
    return lake.root


@pytest.mark.usefixtures("quickly")
def test_a_deleted_object_is_a_loss_and_a_server_that_is_away_is_none(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    settings: Settings,
    s3_server: S3Server,
    lake: Lake,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fetch(definitions, instance, [HOURS], DAYS)
    assert losses.record_losses(instance, lake, [HOURS]) == {}
    s3_server.remove(lake.folder(HOURS) / "2024.parquet")
    for changes in ({"AWS_ENDPOINT_URL": AWAY}, {"AWS_SECRET_ACCESS_KEY": "wrong-word"}):
        with monkeypatch.context() as patch:
            for name, value in changes.items():
                patch.setenv(name, value)
            with pytest.raises(LakeError, match=r"cannot be reached|SignatureDoesNotMatch"):
                losses.record_losses(instance, Lake(lake.root), [HOURS])
            repository = build_defs(settings, universe_of(HOURS)).get_repository_def()
            context = dg.build_sensor_context(instance=instance, repository_def=repository)
            repository.get_sensor_def("lake_state").evaluate_tick(context)
    assert recorded(instance) == []

    found = losses.record_losses(instance, lake, [HOURS])
    assert {series: [part.key for part in gone] for series, gone in found.items()} == {HOURS: DAYS}
    assert [run.status for run in recorded(instance)] == [dg.DagsterRunStatus.FAILURE]
    refusal = last_refusal(instance, HOURS, partition_for_key(DAYS[0], HOURS.interval))
    assert refusal is not None
    assert f"{lake.folder(HOURS)}/2024.parquet was deleted or moved" in refusal.reason


@pytest.mark.usefixtures("quickly")
def test_a_second_lake_has_not_lost_what_one_in_a_bucket_holds_or_may_hold(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    s3_server: S3Server,
    lake: Lake,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fetch(definitions, instance, [HOURS], DAYS)
    folder, other = Lake(tmp_path / "second"), Lake(s3_server.new_lake())
    for second in (folder, other):
        second.prepare("sandbox")
        assert losses.find_losses(instance, second, [HOURS]) == {}
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", AWAY)
        assert losses.find_losses(instance, folder, [HOURS]) == {}
    # A lake that is gone is none; what did not move with it is lost.
    s3_server.remove(lake.folder(HOURS) / "2024.parquet")
    s3_server.remove(place_of(lake).with_name(f"{lake.root.name}.state") / "lake.json")
    for second in (folder, other):
        assert [part.key for part in losses.find_losses(instance, second, [HOURS])[HOURS]] == DAYS


def test_a_lake_in_a_bucket_has_not_lost_what_one_in_a_folder_holds(
    instance: dg.DagsterInstance, settings: Settings, lake: Lake, tmp_path: Path
) -> None:
    first = settings.model_copy(update={"lake": tmp_path / "first"})
    fetch(build_defs(first, universe_of(HOURS)), instance, [HOURS], DAYS)
    assert losses.find_losses(instance, lake, [HOURS]) == {}
    (tmp_path / "first").rename(tmp_path / "moved")
    assert [part.key for part in losses.find_losses(instance, lake, [HOURS])[HOURS]] == DAYS


def test_the_catch_up_requests_the_days_that_the_bucket_lacks(
    definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake
) -> None:
    repository = definitions.get_repository_def()

    def requested() -> list[tuple[str, str]]:
        context = dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=dt.datetime(2024, 3, 8, 0, 37, tzinfo=dt.UTC),
            repository_def=repository,
        )
        data = repository.get_schedule_def("spot_catch_up").evaluate_tick(context)
        ends = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
        return [(request.tags[ends[0]], request.tags[ends[1]]) for request in data.run_requests or []]

    lake.write_all(HOURS, [result_of(HOURS, f"2024-03-0{day}") for day in (1, 2, 3, 6, 7)])
    assert requested() == [("2024-03-04", "2024-03-05")]
    lake.write_all(HOURS, [result_of(HOURS, f"2024-03-0{day}") for day in (4, 5)])
    assert requested() == []


def test_the_python_api_downloads_into_a_bucket_and_fetches_nothing_twice(
    sandbox: Sandbox, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in environment_of(sandbox, tmp_path).items():
        if name != "BINANCE_ASSETS_UNIVERSE":  # none is there
            monkeypatch.setenv(name, value)
    place = str(lake.root)
    (outcome,) = ba.download(str(HOURS), "2024-03-01", "2024-03-04", lake=place)
    assert (outcome.requested, outcome.present, outcome.rows) == (3, 3, 72)
    assert keys(lake, HOURS) == ["2024-03-01", "2024-03-02", "2024-03-03"]
    (again,) = ba.download(str(HOURS), "2024-03-01", "2024-03-04", lake=place)
    assert (again.present, again.rows) == (3, 0)
    assert ba.load(str(HOURS), lake=place).height == 72
    assert not (tmp_path / "lake").exists()
