"""Runs on workers: which task may execute a run, what interrupts it, and what an automatic retry leaves out."""

from __future__ import annotations

import importlib
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import dagster as dg
import pytest
from sqlalchemy.exc import DBAPIError

from binance_assets.exchange.rate_limit.ledger import LedgerConnectionLost, LedgerError
from binance_assets.orchestration.retried import RETRY_TAG, materialized_before, step_retried_if_disconnected
from binance_assets.orchestration.worker_runs import (
    WORKER_TAG,
    Claim,
    claim_of,
    interrupted_by_reports,
    new_task,
    offer,
    release,
    run_of,
    takes,
    withdraw,
)
from binance_assets.settings import ConfigurationError
from binance_assets_tests.support.event_runs import DAYS, run_days


@dg.op
def nothing() -> None: ...


@dg.job
def some_job() -> None:
    nothing()


def launched(instance: dg.DagsterInstance, status: dg.DagsterRunStatus = dg.DagsterRunStatus.STARTING) -> str:
    """Return the task that was sent for a new run."""
    run = instance.create_run_for_job(some_job, status=status)
    task = new_task(run.run_id)
    assert offer(instance, task)
    return task


def run_with(instance: dg.DagsterInstance, task: str) -> dg.DagsterRun:
    run = instance.get_run_by_id(run_of(task))
    assert run is not None
    return run


def messages(instance: dg.DagsterInstance, task: str) -> list[str]:
    entries = instance.all_logs(run_of(task), of_type=dg.DagsterEventType.ENGINE_EVENT)
    return [entry.get_dagster_event().message or "" for entry in entries]


def test_a_worker_takes_a_run_once_and_ignores_the_same_message_after_that(instance: dg.DagsterInstance) -> None:
    task = launched(instance)
    assert takes(instance, task, "worker-1@north")
    assert not takes(instance, task, "worker-2@south")
    assert claim_of(instance, run_of(task)) == Claim(task, "worker-1@north")
    assert run_with(instance, task).tags[WORKER_TAG] == "worker-1@north"
    assert messages(instance, task) == [
        "Taken by the worker worker-1@north.",
        "Ignored on the worker worker-2@south: a message that came late or twice.",
    ]


@pytest.mark.parametrize(
    "status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.FAILURE]
)
def test_a_worker_leaves_a_run_that_waits_or_has_started_or_ended(
    instance: dg.DagsterInstance, status: dg.DagsterRunStatus
) -> None:
    assert not takes(instance, launched(instance, status), "worker@north")


def test_a_worker_leaves_a_run_for_which_another_task_was_sent(instance: dg.DagsterInstance) -> None:
    task = launched(instance)
    assert not takes(instance, new_task(run_of(task)), "worker@south")
    assert takes(instance, task, "worker@north")
    assert claim_of(instance, run_of(task)) == Claim(task, "worker@north")
    assert not takes(instance, new_task("00000000-0000-4000-8000-000000000000"), "worker@north")


def test_a_task_that_was_withdrawn_or_replaced_is_taken_by_no_worker(instance: dg.DagsterInstance) -> None:
    first = launched(instance)
    assert withdraw(instance, first)
    assert not takes(instance, first, "worker@north")
    second, third = new_task(run_of(first)), new_task(run_of(first))
    assert offer(instance, second)
    assert offer(instance, third)
    assert not takes(instance, second, "worker@north")
    assert takes(instance, third, "worker@north")


def test_a_task_that_a_worker_has_taken_can_neither_be_withdrawn_nor_replaced_until_its_process_ends(
    instance: dg.DagsterInstance,
) -> None:
    task = launched(instance)
    assert takes(instance, task, "worker@north")
    assert not withdraw(instance, task)
    assert not offer(instance, new_task(run_of(task)))
    release(instance, task, "worker@south")
    assert claim_of(instance, run_of(task)) == Claim(task, "worker@north")
    release(instance, task, "worker@north")
    assert claim_of(instance, run_of(task)) is None
    assert not takes(instance, task, "worker@south")


def test_of_workers_that_take_a_task_while_it_is_withdrawn_exactly_one_succeeds_or_none(
    instance: dg.DagsterInstance,
) -> None:
    assert_exactly_one_decides(instance, rounds=8)


def assert_exactly_one_decides(instance: dg.DagsterInstance, rounds: int) -> None:
    """Let three workers take a task while the launcher withdraws it, again and again: exactly one of the four succeeds.

    ``test_claims.py`` does the same with Postgres.
    """
    for _ in range(rounds):
        task, start, succeeded = launched(instance), threading.Barrier(4), list[str]()

        def take(worker: str, task: str = task, start: threading.Barrier = start) -> bool:
            start.wait(30)
            return takes(instance, task, worker)

        def end(task: str = task, start: threading.Barrier = start) -> bool:
            start.wait(30)
            return withdraw(instance, task)

        with ThreadPoolExecutor(4) as pool:
            decided = {pool.submit(take, f"worker-{number}@north"): f"worker-{number}@north" for number in range(3)}
            decided[pool.submit(end)] = "withdrawn"
            succeeded += [name for future, name in decided.items() if future.result(60)]
        assert len(succeeded) == 1, succeeded
        expected = None if succeeded == ["withdrawn"] else Claim(task, succeeded[0])
        assert claim_of(instance, run_of(task)) == expected


def test_a_run_that_is_canceled_before_a_worker_takes_it_ends_as_canceled(instance: dg.DagsterInstance) -> None:
    task = launched(instance, dg.DagsterRunStatus.CANCELING)
    assert not takes(instance, task, "worker@north")
    assert run_with(instance, task).status == dg.DagsterRunStatus.CANCELED


@pytest.mark.parametrize("report", ["report_run_canceling", "report_run_failed"])
def test_a_run_is_interrupted_when_it_is_reported_as_being_canceled_or_as_failed(
    instance: dg.DagsterInstance, report: str
) -> None:
    run = run_with(instance, launched(instance, dg.DagsterRunStatus.STARTED))

    def execute() -> None:
        with interrupted_by_reports(instance, run.run_id):
            getattr(instance, report)(run)
            threading.Event().wait(60)

    with pytest.raises(KeyboardInterrupt):
        execute()


def test_a_run_that_ends_by_itself_is_not_interrupted(instance: dg.DagsterInstance) -> None:
    run = run_with(instance, launched(instance, dg.DagsterRunStatus.STARTED))
    with interrupted_by_reports(instance, run.run_id):
        (watch,) = (thread for thread in threading.enumerate() if thread.name == "run-reports")
        instance.report_run_failed(run)
    watch.join(60)
    assert not watch.is_alive()


def test_a_retry_leaves_out_what_was_materialized_before_it_and_a_re_execution_by_a_user_does_not(
    instance: dg.DagsterInstance,
) -> None:
    def after(parent: str, **tags: str) -> dg.DagsterRun:
        return instance.create_run_for_job(some_job, parent_run_id=parent, root_run_id=parent, tags=tags)

    def before(run: dg.DagsterRun, attempt: int = 0) -> dict[dg.AssetKey, list[str]]:
        found = materialized_before(instance, run, attempt)
        return {asset: sorted(keys) for asset, keys in found.items()}

    first = run_days(instance, "2024-01-01", "2024-01-02").run_id
    assert before(after(first)) == {}
    second = after(first, **{RETRY_TAG: "1"})
    assert before(second) == {DAYS: ["2024-01-01", "2024-01-02"]}
    assert before(after(second.run_id, **{RETRY_TAG: "2"})) == before(second)
    own = instance.get_run_by_id(first)
    assert own is not None
    assert before(own) == {}
    assert before(own, attempt=1) == before(second)


def test_a_step_begins_again_if_its_connection_to_postgres_was_lost_and_for_no_other_error() -> None:
    def step(error: Exception) -> None:
        with step_retried_if_disconnected():
            raise error

    lost = DBAPIError("INSERT", None, Exception("server closed the connection"), connection_invalidated=True)
    away = type("DagsterPostgresException", (Exception,), {})("too many retries for DB connection")
    for error in (lost, away, LedgerConnectionLost("the ledger on Postgres")):
        with pytest.raises(dg.RetryRequested):
            step(error)
    with pytest.raises(DBAPIError, match="disk is full"):
        step(DBAPIError("INSERT", None, Exception("disk is full")))
    with pytest.raises(LedgerError):
        step(LedgerError("no such file"))


def test_the_launcher_without_its_extra_names_the_extra_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dagster_celery", None)
    monkeypatch.delitem(sys.modules, "binance_assets.orchestration.launcher", raising=False)
    for name in [name for name in sys.modules if name.startswith("dagster_celery.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigurationError, match=r"need the extra celery .*: pip install 'binance-assets\[celery\]'$"):
        importlib.import_module("binance_assets.orchestration.launcher")
