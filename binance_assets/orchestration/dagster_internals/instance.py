"""Instances: opening one, its folder, its launcher, and the heartbeat of its daemon."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

import dagster as dg
import sqlalchemy as db
from dagster._core.instance import InstanceRef
from dagster._core.storage.runs import SqlRunStorage
from dagster._core.storage.runs.schema import KeyValueStoreTable

from binance_assets.settings import ConfigurationError

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


def stored_value(instance: dg.DagsterInstance, key: str) -> str | None:
    """Return the value of a key in the run storage, in which Dagster's daemon keeps its cursors; None without one."""
    return instance.daemon_cursor_storage.get_cursor_values({key}).get(key)


def swap_value(instance: dg.DagsterInstance, key: str, old: str | None, new: str | None) -> bool:
    """Replace the value of a key in the run storage if it is ``old``; return whether it was.

    One statement decides, so of several that expect the same value, on whatever hosts, exactly one succeeds. Dagster
    itself replaces such values without a comparison, and so it does with the tags of a run.

    Args:
        instance: The instance, whose storage is SQLite or Postgres.
        key: The key; a unique index makes sure that it has one value.
        old: What the value has to be; None if there must be no value.
        new: What it becomes; None to delete it.
    """
    storage, table = instance.run_storage, KeyValueStoreTable
    if not isinstance(storage, SqlRunStorage):
        raise ConfigurationError("runs on workers need Dagster's storage in SQLite or Postgres")
    is_old = db.and_(table.c.key == key, table.c.value == old)
    statement: Any
    if old is None:
        statement = db.text("INSERT INTO kvs (key, value) VALUES (:key, :new) ON CONFLICT (key) DO NOTHING")
        statement = statement.bindparams(key=key, new=new)
    else:
        statement = table.delete().where(is_old) if new is None else table.update().where(is_old).values(value=new)
    with storage.connect() as connection:
        return bool(connection.execute(statement).rowcount)


QUEUE_DAEMON: Final = "QUEUED_RUN_COORDINATOR"
"""The part of Dagster's daemon that takes runs from the queue."""


def seconds_since_daemon(instance: dg.DagsterInstance) -> float | None:
    """Return how long ago the daemon last reported that it takes runs from the queue; None if it never did.

    Heartbeats have no public name. The clocks of the daemon and of this process may be those of two hosts.
    """
    heartbeat = instance.get_daemon_heartbeats().get(QUEUE_DAEMON)
    return None if heartbeat is None else max(0.0, time.time() - heartbeat.timestamp)
