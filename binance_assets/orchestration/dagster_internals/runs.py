"""Runs: how a launcher puts one back into the queue, and how a run ends that a user cancels."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.events.log import EventLogEntry
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus
from dagster._core.storage.tags import AUTO_RETRY_RUN_ID_TAG, MAX_RETRIES_TAG, WILL_RETRY_TAG
from dagster._utils.interrupts import capture_interrupts as interrupts_kept

__all__ = [
    "AUTO_RETRY_RUN_ID_TAG",
    "MAX_RETRIES_TAG",
    "WILL_RETRY_TAG",
    "CheckRunHealthResult",
    "WorkerStatus",
    "interrupts_kept",
]


class RequeueRun(DagsterUserCodeUnreachableError):
    """A run that cannot be launched now.

    Of the errors that a launcher may raise, Dagster puts a run back into its queue for the base of this class only, as
    ``max_user_code_failure_retries`` of the queue says, and waits before it launches the next one.
    """


def report_engine_event(instance: dg.DagsterInstance, run: dg.DagsterRun, message: str) -> None:
    """Add a line to the events of a run; an instance has no public method for a line that no step logs."""
    instance.report_engine_event(message, run)


class EndOfRun:
    """Records a run that a user ends as canceled, however late its steps notice it.

    Dagster records a run that is canceled already as failed if one of its steps ends late. No public name prevents
    that. The code that ends the run calls :meth:`ask` first and :meth:`close` last.

    Args:
        instance: The instance that records the run.
        run_id: The run, which is executed in this process.
    """

    def __init__(self, instance: dg.DagsterInstance, run_id: str) -> None:
        self._instance = instance
        self._run_id = run_id
        self._lock = threading.RLock()
        self._is_asked_for = False
        self._closed_by: int | None = None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch the events of the run for the length of the block, in which it is executed."""
        handle = self._instance.handle_new_event

        def watch(event: EventLogEntry, **options: Any) -> None:
            if event.run_id != self._run_id or self._closed_by == threading.get_ident():
                handle(event, **options)
                return
            with self._lock:
                if self._closed_by is not None:
                    return
                run = self._instance.get_run_by_id(self._run_id) if self._is_asked_for and _is_failure(event) else None
                if run is None:
                    handle(event, **options)
                else:
                    self._instance.report_run_canceled(run, message=str(event.get_dagster_event().message))

        vars(self._instance)["handle_new_event"] = watch
        try:
            yield
        finally:
            vars(self._instance).pop("handle_new_event", None)

    def ask(self) -> None:
        """Record a failure of the run as its cancellation from now on."""
        self._is_asked_for = True

    def close(self, seconds: float) -> None:
        """Record no event of the run from now on, except those of this thread.

        Args:
            seconds: How long to wait for an event that is being recorded.
        """
        has_lock = self._lock.acquire(timeout=seconds)
        self._closed_by = threading.get_ident()
        if has_lock:
            self._lock.release()


def _is_failure(event: EventLogEntry) -> bool:
    return event.is_dagster_event and event.get_dagster_event().is_run_failure
