"""Runs in the queue: which run is followed instead of a second one, when one is over, and what is shown meanwhile."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sqlalchemy.exc import OperationalError

from binance_assets.ingest.request import DownloadPlan
from binance_assets.model.partitions import partitions_between
from binance_assets.model.series import parse_series
from binance_assets.orchestration.backfill import runs_for
from binance_assets.orchestration.keys import asset_key, op_name
from binance_assets.orchestration.queued_runs import (
    MOST_TOGETHER,
    SILENCE_SECONDS,
    Download,
    QueuedRun,
    cancel,
    check_queue,
    covers,
    follow,
    in_words,
)
from binance_assets.settings import ConfigurationError, Source
from binance_assets.waiting import activity
from binance_assets_tests.support.dagster_internals import materialization_entries
from binance_assets_tests.support.instances import new_instance

BTC = parse_series("spot/BTCUSDT/1h")


def plan(days: int, series: str = "spot/BTCUSDT/1h") -> DownloadPlan:
    """Return the plan of a series that lacks the first days of 2024."""
    member = parse_series(series)
    first = dt.date(2024, 1, 1)
    partitions = tuple(partitions_between(first, first + dt.timedelta(days=days), member.interval))
    return DownloadPlan(member, partitions, (), partitions)


def run(first: str, last: str, only_missing: bool = True, source: str | None = None) -> dg.DagsterRun:
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    step = {"only_missing": only_missing} | ({"source": source} if source else {})
    config = {"ops": {op_name(BTC): {"config": step}}}
    return dg.DagsterRun("spot_daily", asset_selection=frozenset([asset_key(BTC)]), tags=tags, run_config=config)


@pytest.mark.parametrize(
    ("first", "last", "only_missing", "refresh", "expected"),
    [
        ("2024-01-01", "2024-01-10", True, False, True),
        ("2023-12-01", "2024-02-01", True, False, True),
        ("2024-01-02", "2024-01-10", True, False, False),
        ("2024-01-01", "2024-01-09", True, False, False),
        ("2024-01-01", "2024-01-10", True, True, False),  # it would skip what is to be fetched again
        ("2024-01-01", "2024-01-10", False, True, True),
    ],
)
def test_a_run_is_followed_if_it_fetches_all_that_is_missing(
    first: str, last: str, only_missing: bool, refresh: bool, expected: bool
) -> None:
    assert covers(run(first, last, only_missing), plan(10), refresh, None) is expected


@pytest.mark.parametrize("asked", [None, "rest", "archive"])
@pytest.mark.parametrize("fetched_from", [None, "rest", "archive"])
def test_a_run_from_another_source_is_not_followed(fetched_from: Source | None, asked: Source | None) -> None:
    """Without a source, the code location decides, so such a run is not one from the source that it names today."""
    under_way = run("2024-01-01", "2024-01-10", source=fetched_from)
    assert covers(under_way, plan(10), False, asked) is (fetched_from == asked)


def test_a_run_of_other_series_or_without_partitions_is_not_followed() -> None:
    other = plan(10, "spot/ETHUSDT/1h")
    assert not covers(run("2024-01-01", "2024-01-10"), other, False, None)
    assert not covers(dg.DagsterRun("spot_daily", asset_selection=frozenset([asset_key(BTC)])), plan(10), False, None)


@pytest.mark.parametrize(
    ("series", "days", "sizes"),
    [(4, 60, [1, 1, 1, 1]), (4, 366, [1, 1, 1, 1]), (3, 40, [2, 1]), (150, 1, [100, 50]), (12, 10, [10, 2])],
)
def test_a_series_is_a_run_of_its_own_unless_its_range_is_short(series: int, days: int, sizes: list[int]) -> None:
    plans = [plan(days, f"spot/S{number:03}USDT/1h") for number in range(series)]
    runs = list(runs_for(plans, only_missing=True, most=MOST_TOGETHER, source="archive"))
    assert [len(run.series) for run in runs] == sizes
    config = runs[0].steps_config["ops"][op_name(plans[0].series)]["config"]
    assert config == {"only_missing": True, "source": "archive"}


@pytest.mark.parametrize(
    ("states", "silence", "expected"),
    [
        ({"queued": 2, "running": 3}, 5.0, "2 runs queued, 3 running"),
        ({"queued": 1, "": 4}, 5.0, "1 run queued"),
        ({"starting": 1, "waiting for another attempt": 1}, 5.0, "1 run starting, 1 waiting for another attempt"),
        (
            {"queued": 1_200, "running": 1},
            SILENCE_SECONDS + 10,
            "1,200 runs queued, 1 running; nothing takes runs from the queue: Dagster's daemon last reported 130 s ago",
        ),
        ({"running": 1}, 5_000.0, "1 run running"),  # it needs no daemon
        ({"queued": 1}, None, "1 run queued; nothing takes runs from the queue: Dagster's daemon has never run"),
    ],
)
def test_a_line_names_how_many_runs_wait_for_what(states: dict[str, int], silence: float | None, expected: str) -> None:
    assert in_words(states, silence) == expected


class TestTheEndOfARun:
    """When a run is over, and when Dagster starts another one in its place."""

    def update(self, status: dg.DagsterRunStatus, now: float = 0.0, **tags: str) -> QueuedRun:
        self.queued.update(
            replace_run(self.run, status, {f"dagster/{name}": value for name, value in tags.items()}), True, now
        )
        return self.queued

    def setup_method(self) -> None:
        self.run = run("2024-01-01", "2024-01-10")
        self.queued = QueuedRun((BTC,), 10, [self.run.run_id], is_own=True)

    @pytest.mark.parametrize("status", [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.CANCELED])
    def test_a_run_that_succeeded_or_was_canceled_is_over(self, status: dg.DagsterRunStatus) -> None:
        assert self.update(status).is_over

    @pytest.mark.parametrize("status", [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED])
    def test_a_run_that_has_not_ended_is_not_over(self, status: dg.DagsterRunStatus) -> None:
        assert not self.update(status).is_over

    def test_a_failure_that_is_not_retried_is_over(self) -> None:
        assert self.update(dg.DagsterRunStatus.FAILURE, will_retry="false").is_over

    def test_the_next_attempt_takes_the_place_of_a_failed_run(self) -> None:
        assert not self.update(dg.DagsterRunStatus.FAILURE, will_retry="true").is_over
        queued = self.update(dg.DagsterRunStatus.FAILURE, 1.0, will_retry="true", auto_retry_run_id="another")
        assert (queued.run_id, queued.is_over) == ("another", False)

    def test_a_next_attempt_that_does_not_come_is_not_waited_for_forever(self) -> None:
        assert not self.update(dg.DagsterRunStatus.FAILURE, 1_000.0, will_retry="true").is_over
        assert self.update(dg.DagsterRunStatus.FAILURE, 1_100.0, will_retry="true").is_over

    def test_a_failure_is_over_soon_if_dagster_does_not_decide(self) -> None:
        assert not self.update(dg.DagsterRunStatus.FAILURE, 1_000.0).is_over
        assert self.update(dg.DagsterRunStatus.FAILURE, 1_006.0).is_over

    def test_a_deleted_run_is_over(self) -> None:
        self.queued.update(None, True, 0.0)
        assert self.queued.is_over


def replace_run(of: dg.DagsterRun, status: dg.DagsterRunStatus, tags: dict[str, str]) -> dg.DagsterRun:
    return dg.DagsterRun(of.job_name, of.run_id, status=status, tags={**of.tags, **tags})


def test_without_a_daemon_the_way_out_is_named(instance: dg.DagsterInstance) -> None:
    with pytest.raises(ConfigurationError, match=r"Dagster's daemon has never run. Start it \(binance-assets ui"):
        check_queue(instance)


def test_an_instance_without_a_queue_is_refused_with_the_way_out() -> None:
    with (
        dg.DagsterInstance.ephemeral() as without_queue,
        pytest.raises(ConfigurationError, match=r"dagster.yaml names another run_coordinator; remove it there"),
    ):
        check_queue(without_queue)


class Counted:
    """A follower that counts, and keeps what the command waits for whenever it is called."""

    def __init__(self) -> None:
        self.done = 0

    def advance(self, count: int) -> None:
        self.done += count

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} is not for a run that is followed")


def test_a_run_that_is_followed_counts_for_what_was_asked_of_it_only(instance: dg.DagsterInstance) -> None:
    """It may fetch more days, and other series."""
    ended = run("2024-01-01", "2024-01-10").with_status(dg.DagsterRunStatus.SUCCESS)
    instance.add_run(ended)
    days = ("2024-01-01", "2024-01-02", "2024-01-03")
    for entry in materialization_entries(asset_key(BTC), days, ended.run_id):
        instance.event_log_storage.store_event(entry)
    download = Download(instance, 12, [QueuedRun((BTC,), 2, [ended.run_id], is_own=False)])
    follower = Counted()
    follow(download, follower)
    assert (follower.done, download.left) == (2, [])


def test_a_storage_that_is_away_for_a_moment_ends_nothing(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = run("2024-01-01", "2024-01-10").with_status(dg.DagsterRunStatus.SUCCESS)
    instance.add_run(ended)
    read, announced = instance.get_runs, list[str]()

    def away_at_first(*values: Any, **options: Any) -> Any:
        announced.append(str(activity().wait))
        if len(announced) == 1:
            raise OperationalError("SELECT", {}, Exception("the server restarts"))
        return read(*values, **options)

    monkeypatch.setattr(instance, "get_runs", away_at_first)
    download = Download(instance, 10, [QueuedRun((BTC,), 10, [ended.run_id], is_own=True)])
    follow(download, Counted())
    assert download.left == []
    assert announced[-1].startswith("the storage of Dagster cannot be read: (builtins.Exception) the server restarts")


@pytest.fixture
def retrying(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance that starts failed runs again."""
    folder = tmp_path / "retrying"
    with new_instance(folder):
        pass
    overrides = {"run_retries": {"enabled": True}, "storage": {"sqlite": {"base_dir": str(folder)}}}
    with dg.DagsterInstance.local_temp(str(folder), overrides) as opened:
        yield opened


def test_a_canceled_download_leaves_no_attempt_behind(retrying: dg.DagsterInstance) -> None:
    """A run that is queued is canceled, one that has failed is not started again, and another command's run goes on."""
    statuses = (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.NOT_STARTED)
    queued, failed, other = (run("2024-01-01", "2024-01-10").with_status(status) for status in statuses)
    for added in (queued, failed, other):
        retrying.add_run(added)
    retrying.add_run_tags(failed.run_id, {"dagster/will_retry": "true"})
    runs = [QueuedRun((BTC,), 10, [added.run_id], is_own=added is not other) for added in (queued, failed, other)]
    assert cancel(Download(retrying, 30, runs)) == (
        "1 run was canceled, and 0 of 30 partitions were done; the same command continues from there"
    )
    found = {added.run_id: retrying.get_run_by_id(added.run_id) for added in (queued, failed, other)}
    assert [entry and entry.status.value for entry in found.values()] == ["CANCELED", "FAILURE", "NOT_STARTED"]
    tags = (found[failed.run_id] or failed).tags
    assert (tags["dagster/will_retry"], tags["dagster/max_retries"]) == ("false", "0")


def test_an_attempt_that_has_begun_already_is_canceled_too(retrying: dg.DagsterInstance) -> None:
    failed = run("2024-01-01", "2024-01-10").with_status(dg.DagsterRunStatus.FAILURE)
    attempt = run("2024-01-01", "2024-01-10").with_status(dg.DagsterRunStatus.NOT_STARTED)
    for added in (failed, attempt):
        retrying.add_run(added)
    retrying.add_run_tags(failed.run_id, {"dagster/will_retry": "true", "dagster/auto_retry_run_id": attempt.run_id})
    cancel(Download(retrying, 10, [QueuedRun((BTC,), 10, [failed.run_id], is_own=True)]))
    ended = retrying.get_run_by_id(attempt.run_id)
    assert ended is not None
    assert ended.status == dg.DagsterRunStatus.CANCELED
