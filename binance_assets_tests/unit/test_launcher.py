"""The run launcher for workers: its configuration, a run that was canceled before its launch, a silent worker."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from binance_assets.orchestration.dagster_internals.runs import WorkerStatus
from binance_assets.orchestration.worker_runs import WORKER_TAG, claim_of, new_task, offer, takes
from binance_assets.settings import ConfigurationError
from binance_assets_tests.support.instances import instance_in

pytestmark = pytest.mark.services


@dg.op
def nothing() -> None: ...


@dg.job
def some_job() -> None:
    nothing()


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


def test_a_run_that_a_user_cancels_while_the_daemon_takes_it_from_the_queue_stays_canceled(tmp_path: Path) -> None:
    from binance_assets.orchestration.launcher import WorkerLauncher

    origin: Any = dg.reconstructable(some_job).get_python_origin()
    with instance_in(tmp_path) as instance:
        launcher = WorkerLauncher("redis://127.0.0.1:1/0")  # nothing listens there, so a task that is sent fails
        launcher.register_instance(instance)
        run = instance.create_run_for_job(some_job, status=dg.DagsterRunStatus.STARTING, job_code_origin=origin)
        instance.report_run_canceling(run)
        instance.report_run_canceled(run)
        starting = dg.DagsterEvent(dg.DagsterEventType.RUN_STARTING.value, run.job_name)
        instance.report_dagster_event(starting, run.run_id)  # as the daemon does, which saw the run in the queue
        context: Any = SimpleNamespace(dagster_run=instance.get_run_by_id(run.run_id), workspace=None)
        assert context.dagster_run.status == dg.DagsterRunStatus.STARTING
        launcher.launch_run(context)
        ended = instance.get_run_by_id(run.run_id)
        assert ended is not None
        assert ended.status == dg.DagsterRunStatus.CANCELED


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
