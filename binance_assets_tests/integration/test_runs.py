"""Runs: how they end when the user interrupts them, and how the limit of a pool holds them back."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import dagster as dg
import pytest

from binance_assets.definitions import build_defs
from binance_assets.exchange.session import Exchange
from binance_assets.model.partitions import partition_for_key
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import Series, parse_series
from binance_assets.orchestration.metrics import RunMetrics
from binance_assets.orchestration.runs import Execution, RangeRun
from binance_assets.settings import Settings
from binance_assets_tests.support.instances import SQLITE_STORAGE, fetch, universe_of
from binance_assets_tests.support.polling import until

BTC = parse_series("spot/BTCUSDT/1h")


def test_the_tags_of_a_run_are_hidden_from_the_lists_of_the_user_interface() -> None:
    day = partition_for_key("2024-03-01", BTC.interval)
    tags = RangeRun("spot_daily", (BTC,), day, day, only_missing=False).tags
    assert [name for name in tags if not name.startswith(("dagster/", ".dagster/"))] == []
    assert any(name.startswith(".dagster/binance_assets_") for name in tags)


class Failing:
    """A listener in whose first step the user presses Ctrl-C, and which then fails the step a moment later."""

    def __init__(self) -> None:
        self.canceling = threading.Event()

    def started(self, _series: Series, _exchange: Exchange) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        self.canceling.wait(60)
        threading.Event().wait(0.2)  # what the step does until it notices that it is to end
        raise RuntimeError("something that the interrupt cut off")

    def finished(self, _series: Series, _metrics: RunMetrics) -> None: ...

    def partition_done(self, _series: Series, _result: PartitionResult) -> None: ...

    def partition_declined(self, _series: Series, _result: PartitionResult) -> None: ...


def test_a_run_whose_step_fails_while_it_is_canceled_is_canceled(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    """Until Python 3.13, an interrupted ``Thread.join`` takes a thread for dead that still works."""
    listener, day = Failing(), partition_for_key("2024-03-01", BTC.interval)
    definitions = build_defs(settings, universe_of(BTC), listener)
    execution = Execution(instance, definitions, RangeRun("spot_daily", (BTC,), day, day, only_missing=False))
    with pytest.raises(KeyboardInterrupt):
        execution.wait()
    execution.report_canceling()
    listener.canceling.set()
    execution.report_canceled()
    run = instance.get_run_by_id(execution.run_id)
    assert run is not None
    assert run.status == dg.DagsterRunStatus.CANCELED
    until(120, lambda: not any(thread.name == "dagster-run" for thread in threading.enumerate()))


@pytest.mark.parametrize("is_known", [True, False])
def test_a_run_whose_step_fails_after_it_was_canceled_stays_canceled(
    settings: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    """Dagster itself records a failure then, also where the interrupt came before it knew the run."""
    listener, day = Failing(), partition_for_key("2024-03-01", BTC.interval)
    definitions = build_defs(settings, universe_of(BTC), listener)
    execution = Execution(instance, definitions, RangeRun("spot_daily", (BTC,), day, day, only_missing=False))
    with pytest.raises(KeyboardInterrupt):
        execution.wait()
    with monkeypatch.context() as patch:
        if not is_known:
            patch.setattr(type(instance), "get_run_by_id", lambda *_: None)
        execution.report_canceling()
    if is_known:
        execution.report_canceled()  # its grace passes: the step waits for what follows
    listener.canceling.set()
    until(120, lambda: not any(thread.name == "dagster-run" for thread in threading.enumerate()))
    run = instance.get_run_by_id(execution.run_id)
    assert run is not None
    assert run.status == dg.DagsterRunStatus.CANCELED
    assert "handle_new_event" not in vars(instance)


def test_a_step_waits_for_a_slot_in_the_pool_of_its_market(settings: Settings, tmp_path: Path) -> None:
    """What ``dagster.yaml`` can say: at most one step at a time for each request weight that markets share."""
    folder, pool = tmp_path / "dagster", "binance_spot"
    folder.mkdir()
    config = {
        "storage": {"custom": {**SQLITE_STORAGE, "config": {"base_dir": str(folder)}}},
        "concurrency": {"pools": {"granularity": "op", "default_limit": 1}},
    }
    with dg.DagsterInstance.local_temp(str(folder), config) as instance:
        storage = instance.event_log_storage
        storage.initialize_concurrency_limit_to_default(pool)
        assert storage.claim_concurrency_slot(pool, "another run", "its step").is_claimed
        ended = threading.Event()

        def free_slot_once_the_step_waits() -> None:
            while not storage.get_concurrency_info(pool).pending_step_count and not ended.wait(0.05):
                pass
            storage.free_concurrency_slots_for_run("another run")

        other = threading.Thread(target=free_slot_once_the_step_waits)
        other.start()
        (result,) = fetch(build_defs(settings, universe_of(BTC)), instance, [BTC], ["2024-03-01"])
        ended.set()
        other.join(60)
        assert result.success
        assert [event.message for event in result.all_events if "pool" in (event.message or "")] == [
            f"Step blocked by limit for pool {pool}"
        ]
