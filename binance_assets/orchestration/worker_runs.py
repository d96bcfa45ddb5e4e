"""Runs on a worker: whether a task may execute a run, and what interrupts it.

Here belongs what a worker asks Dagster's storage, and nothing of Celery. What does not belong here: how a task reaches
a worker (``launcher``), and the worker itself (``worker``).
"""

from __future__ import annotations

import os
import signal
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

import dagster as dg

from binance_assets.orchestration.dagster_internals.instance import stored_value, swap_value
from binance_assets.orchestration.dagster_internals.runs import report_engine_event

WORKER_TAG: Final = "binance_assets/worker"
"""The tag of a run with the worker that executes it, for people: a name that is new at each start, and the host."""

_POLL_SECONDS: Final = 1.0
# A run that reports its end itself needs a moment to return after it.
_OWN_END_SECONDS: Final = 2.0
# What an interrupted run may take to end before its process is killed.
_END_SECONDS: Final = 60.0
_STOPPED: Final = (dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.FAILURE)


def new_task(run_id: str) -> str:
    """Return the id of a new task for a run, which no earlier attempt to launch it had."""
    return f"{run_id}.{uuid.uuid4().hex[:8]}"


def run_of(task: str) -> str:
    """Return the run of a task."""
    return task.partition(".")[0]


class Claim(NamedTuple):
    """What may execute a run.

    Attributes:
        task: The task that was sent for it last.
        worker: The worker that has taken the task, by a name that is new at each start; empty if none has.
    """

    task: str
    worker: str = ""


def claim_of(instance: dg.DagsterInstance, run_id: str) -> Claim | None:
    """Return what may execute a run; None if nothing may: no task was sent, it was withdrawn, or its process ended."""
    value = stored_value(instance, _key(run_id))
    return None if value is None else Claim(*value.split(" ", 1))


def offer(instance: dg.DagsterInstance, task: str) -> bool:
    """Let a worker take the run of a task, and no earlier task; return whether no worker has taken it already."""
    before = claim_of(instance, run_of(task))
    return not (before and before.worker) and _replace(instance, run_of(task), before, Claim(task))


def withdraw(instance: dg.DagsterInstance, task: str) -> bool:
    """Let no worker take a task anymore; return whether none had."""
    return _replace(instance, run_of(task), Claim(task), None)


def release(instance: dg.DagsterInstance, task: str, worker: str) -> None:
    """Record that the process of a task has ended on a worker."""
    _replace(instance, run_of(task), Claim(task, worker), None)


def was_canceled(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Return whether a run was canceled, whatever its status is now.

    Dagster's daemon reads the status of a run in the queue, and then records that it starts. If a user cancels the run
    in between, the run is canceled first and starting then (1.13.27).
    """
    return bool(instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_CANCELED))


def takes(instance: dg.DagsterInstance, task: str, worker: str) -> bool:
    """Return whether a worker takes the run of a task, and record that it does.

    It leaves a run that another task may execute: its message arrived late, or twice. It leaves one that has started or
    ended, and cancels one that is being canceled. The launcher withdraws a task by a compare-and-swap, and a worker
    takes it by another one of the same value, so exactly one of them succeeds.
    """
    run = instance.get_run_by_id(run_of(task))
    if run is None:
        return False
    if run.status == dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, "It was canceled before a worker took it.")
        return False
    is_free = run.status == dg.DagsterRunStatus.STARTING
    if is_free and _replace(instance, run.run_id, Claim(task), Claim(task, worker)):
        instance.add_run_tags(run.run_id, {WORKER_TAG: worker})
        report_engine_event(instance, run, f"Taken by the worker {worker}.")
        return True
    report_engine_event(instance, run, f"Ignored on the worker {worker}: a message that came late or twice.")
    return False


def _replace(instance: dg.DagsterInstance, run_id: str, old: Claim | None, new: Claim | None) -> bool:
    return swap_value(instance, _key(run_id), old and _text(old), new and _text(new))


def _text(claim: Claim) -> str:
    return f"{claim.task} {claim.worker}"


def _key(run_id: str) -> str:
    return f"binance_assets/task/{run_id}"


@contextmanager
def interrupted_by_reports(instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """Interrupt the main thread as soon as Dagster reports the run as being canceled, or as ended by somebody else.

    So Terminate works while the broker is away, and a host that was cut off, and whose run is retried elsewhere, stops.
    """
    ended = threading.Event()
    threading.Thread(target=_watch, args=(instance, run_id, ended), name="run-reports", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _watch(instance: dg.DagsterInstance, run_id: str, ended: threading.Event) -> None:
    while not ended.wait(_POLL_SECONDS):
        run = None
        with suppress(Exception):  # the storage is away, and Dagster's own retries deal with that
            run = instance.get_run_by_id(run_id)
        if run is None or (run.status != dg.DagsterRunStatus.CANCELING and run.status not in _STOPPED):
            continue
        if run.status in _STOPPED and ended.wait(_OWN_END_SECONDS):
            return
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        if not ended.wait(_END_SECONDS):
            os._exit(1)  # its main thread hangs where no interrupt reaches it
        return
