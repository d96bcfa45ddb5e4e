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
from typing import Final

import dagster as dg

from binance_assets.orchestration.dagster_internals.runs import report_engine_event

TASK_TAG: Final = "dagster-celery/task_id"
"""The tag of a run with the task that may execute it; dagster-celery has the same."""

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


def taken_by(run: dg.DagsterRun) -> str:
    """Return the worker that has taken the task of a run; an empty text if none has."""
    return run.tags.get(_tag_of(run.tags.get(TASK_TAG, "")), "")


def was_taken(run: dg.DagsterRun, task: str) -> bool:
    """Return whether a worker has taken a task, also if the task was withdrawn since."""
    return bool(run.tags.get(_tag_of(task)))


def _tag_of(task: str) -> str:
    """Return the tag with the worker that has taken a task. A worker that is late overwrites that of no other task."""
    return f".dagster/binance_assets_worker_{task.partition('.')[2]}"


def takes(instance: dg.DagsterInstance, task: str, worker: str) -> bool:
    """Return whether a worker takes the run of a task, and record that it does.

    It leaves a run that another task may execute: its message arrived late, or twice. It leaves one that has started or
    ended, and cancels one that is being canceled.

    The launcher withdraws the task and then looks whether it was taken; the worker takes it and then looks whether it
    was withdrawn. So at least one of them sees the other. Dagster reads all tags of a run to add one, and the last of
    two that do so at the same time overwrites the other's; so the worker looks twice, and the launcher after a moment.
    """
    run = instance.get_run_by_id(run_of(task))
    if run is None:
        return False
    if run.status == dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, "It was canceled before a worker took it.")
        return False
    is_free = run.tags.get(TASK_TAG) == task and not was_taken(run, task)
    if is_free and run.status == dg.DagsterRunStatus.STARTING:
        instance.add_run_tags(run.run_id, {_tag_of(task): worker})
        if _is_for(instance, task):
            instance.add_run_tags(run.run_id, {WORKER_TAG: worker})
            if _is_for(instance, task):
                report_engine_event(instance, run, f"Taken by the worker {worker}.")
                return True
        instance.add_run_tags(run.run_id, {_tag_of(task): ""})
    report_engine_event(instance, run, f"Ignored on the worker {worker}: a message that came late or twice.")
    return False


def _is_for(instance: dg.DagsterInstance, task: str) -> bool:
    """Return whether a task is the one that may execute its run."""
    run = instance.get_run_by_id(run_of(task))
    return run is not None and run.tags.get(TASK_TAG) == task


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
