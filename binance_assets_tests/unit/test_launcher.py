"""The run launcher for workers: its configuration, and a worker that is silent."""

from __future__ import annotations

import dagster as dg
import pytest

from binance_assets.orchestration.dagster_internals.runs import WorkerStatus
from binance_assets.orchestration.worker_runs import WORKER_TAG, claim_of, new_task, offer, takes
from binance_assets.settings import ConfigurationError

pytestmark = pytest.mark.services


@pytest.mark.parametrize(
    "broker",
    ["nowhere://host", "http://host/", "redis://:secret/word@host:6379/0", "redis://:secret-word@host:word/0"],
)
def test_a_broker_that_celery_cannot_use_is_refused_in_one_line_without_its_password(broker: str) -> None:
    from binance_assets.orchestration.launcher import WorkerLauncher

    with pytest.raises(ConfigurationError, match=r"^the broker of the run launcher is no URL .*%25$") as raised:
        WorkerLauncher(broker)
    assert "secret" not in str(raised.value)


def test_a_broker_is_not_asked_for_before_a_run_is_launched() -> None:
    from binance_assets.orchestration.launcher import WorkerLauncher

    assert WorkerLauncher("redis://:secret-word@127.0.0.1:1/0").pickup_seconds > 0


def test_a_run_whose_worker_is_silent_counts_as_dead_and_no_task_may_execute_it_anymore(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    from binance_assets.orchestration import launcher

    monkeypatch.setattr(launcher, "_ANSWER_SECONDS", 0.1)
    run = dg.DagsterRun("some_job", status=dg.DagsterRunStatus.STARTED, tags={WORKER_TAG: ""})
    task = new_task(run.run_id)
    health = launcher.WorkerLauncher("memory://", silence_seconds=0)
    health.register_instance(instance)
    assert offer(instance, task)
    instance.add_run(run.with_status(dg.DagsterRunStatus.STARTING))
    assert takes(instance, task, "worker@north")
    silent = health.check_run_worker_health(run)
    assert (silent.status, silent.msg) == (
        WorkerStatus.NOT_FOUND,
        "worker@north has been silent for 0 s: its host is down or cut off",
    )
    assert claim_of(instance, run.run_id) is None
    assert health.check_run_worker_health(run).msg == "its process on a worker has ended without a report"
