"""Instances: opening one, its folder, its launcher, and the heartbeat of its daemon."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import dagster as dg
from dagster._core.instance import InstanceRef

# Dagster selects storage classes by module path, and it does not export this class. Without it, Dagster starts two
# more processes to capture what a step prints, and a Ctrl-C on the terminal reaches those as well.
NO_COMPUTE_LOGS: Final = {
    "module": "dagster._core.storage.noop_compute_log_manager",
    "class": "NoOpComputeLogManager",
}


def open_instance_in(state: Path, config: Path) -> dg.DagsterInstance:
    """Return the instance with its state in one folder and its ``dagster.yaml`` in another.

    ``DagsterInstance.get`` and ``local_temp``, the public constructors, read ``dagster.yaml`` from the folder that
    holds the state. Only ``InstanceRef.from_dir`` separates the two.

    Args:
        state: Folder of the databases and artifacts, unless ``dagster.yaml`` names others.
        config: Folder of ``dagster.yaml``.
    """
    ref = InstanceRef.from_dir(str(state), config_dir=str(config), overrides={"compute_logs": NO_COMPUTE_LOGS})
    return dg.DagsterInstance.from_ref(ref)


def state_folder(instance: dg.DagsterInstance) -> Path:
    """Return the folder of an instance, that of ``dagster.yaml`` unless :func:`open_instance_in` named another one.

    It exists also where Postgres keeps the runs. The property that names it is not documented.
    """
    return Path(instance.root_directory)


def launcher_of(home: Path) -> object:
    """Return the run launcher that the ``dagster.yaml`` of a folder names, without opening the storages.

    ``DagsterInstance.get`` connects to the storages, and a worker forks: its children must not share connections.
    """
    return InstanceRef.from_dir(str(home)).run_launcher


QUEUE_DAEMON: Final = "QUEUED_RUN_COORDINATOR"
"""The part of Dagster's daemon that takes runs from the queue."""


def seconds_since_daemon(instance: dg.DagsterInstance) -> float | None:
    """Return how long ago the daemon last reported that it takes runs from the queue; None if it never did.

    Heartbeats have no public name. The clocks of the daemon and of this process may be those of two hosts.
    """
    heartbeat = instance.get_daemon_heartbeats().get(QUEUE_DAEMON)
    return None if heartbeat is None else max(0.0, time.time() - heartbeat.timestamp)
