"""A worker: the Celery app that executes runs, with the broker and the queue that ``dagster.yaml`` names.

``celery -A binance_assets.orchestration.worker worker --concurrency 2`` starts one. Its process forks a child for each
run, so it imports neither Polars nor the code location: a child that inherits their threads would hang.

Here belongs the app, which is made when this module is imported. What does not belong here: what the daemon does
(``launcher``), what a worker asks Dagster (``worker_runs``), and the run itself, which is a task of dagster-celery.
"""

from __future__ import annotations

import os
import signal
import uuid
from typing import Any

import celery
import dagster as dg
from celery.signals import celeryd_init, worker_ready
from dagster_celery.tasks import create_execute_job_task

from binance_assets.orchestration.dagster_internals.instance import launcher_of
from binance_assets.orchestration.dagster_internals.runs import interrupts_kept
from binance_assets.orchestration.instance import home_folder
from binance_assets.orchestration.launcher import WorkerLauncher
from binance_assets.orchestration.worker_runs import interrupted_by_reports, release, run_of, takes
from binance_assets.settings import ConfigurationError


class RunTask(celery.Task):  # type: ignore[misc]
    """The task of a run: it executes the run if it is the task that the launcher sent for it last."""

    def __call__(self, **arguments: object) -> object:
        """Execute a run, in a process of its own; return whatever the task of dagster-celery returns."""
        task, worker = self.request.id, self.request.hostname
        with interrupts_kept(), dg.DagsterInstance.get() as instance:
            if not takes(instance, task, worker):
                return None
            try:
                with interrupted_by_reports(instance, run_of(task)):
                    return self.run(**arguments)
            finally:
                release(instance, task, worker)


def worker_app() -> celery.Celery:
    """Return the Celery app of the instance in ``$DAGSTER_HOME``, with the task that executes runs.

    Raises:
        ConfigurationError: ``$DAGSTER_HOME`` names no folder, or its ``dagster.yaml`` another launcher.
    """
    home = home_folder(os.environ)
    launcher = None if home is None else launcher_of(home)
    if not isinstance(launcher, WorkerLauncher):
        raise ConfigurationError(
            "a worker needs DAGSTER_HOME, the folder of a dagster.yaml whose run_launcher is the class WorkerLauncher "
            f"of the module {WorkerLauncher.__module__}, as deploy/dagster-celery.yaml"
        )
    create_execute_job_task(launcher.celery, base=RunTask)
    return launcher.celery


@celeryd_init.connect  # type: ignore[untyped-decorator]
def _with_new_name(instance: Any, **_: object) -> None:
    """Give a worker a name that no other start has, so that it does not answer for a run that an earlier one lost."""
    name, _at, host = instance.hostname.partition("@")
    instance.hostname = f"{name}-{uuid.uuid4().hex[:8]}@{host}"


@worker_ready.connect  # type: ignore[untyped-decorator]
def _interrupt_runs_on_sigterm(**_: object) -> None:
    """Make SIGTERM, as systemd and Kubernetes send it, interrupt the runs; Dagster retries them on another worker.

    Celery would wait for hours until they end, and answer nobody meanwhile, so the worker would count as dead.
    """
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGQUIT))


app = worker_app()
