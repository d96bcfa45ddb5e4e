"""The Dagster instance on which the command line works: the same as the user interface's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import dagster as dg
from dagster._core.instance import InstanceRef  # the public constructor cannot separate state from configuration

from binance_assets.settings import ConfigurationError
from binance_assets.storage.locks import file_lock

_CONFIG: Final = "dagster.yaml"
_STATE: Final = ".dagster"
# What a step prints is not kept: Dagster would start two processes to do so, which a Ctrl-C hits as well.
_QUIET: Final = {
    "compute_logs": {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}
}


def open_instance(folder: Path, environment: Mapping[str, str]) -> dg.DagsterInstance:
    """The instance for a working folder; a context manager.

    ``$DAGSTER_HOME`` where it is set; otherwise the ``dagster.yaml`` of the folder, or the project's own where it
    has none, both with their state in ``.dagster`` of the folder.

    Args:
        folder: The working folder.
        environment: Where ``DAGSTER_HOME`` is looked up.

    Raises:
        ConfigurationError: ``DAGSTER_HOME`` is no folder, or the instance is not usable.
    """
    home = environment.get("DAGSTER_HOME", "").strip()
    if home and not (Path(home).is_absolute() and Path(home).is_dir()):
        raise ConfigurationError(f"DAGSTER_HOME={home!r} must be the absolute path of an existing folder")
    state = Path(home) if home else folder / _STATE
    config = state if home else folder if (folder / _CONFIG).exists() else _own_config().parent
    try:
        with file_lock(state / ".lock"):  # two processes that make the same database get in each other's way
            return dg.DagsterInstance.from_ref(
                InstanceRef.from_dir(str(state), config_dir=str(config), overrides=_QUIET)
            )
    except Exception as error:  # Dagster lets through whatever its storages raise
        raise ConfigurationError(f"the Dagster instance in {state} is not usable: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)[:300]}"


def _own_config() -> Path:
    """The project's dagster.yaml: in an installed package inside it, in a checkout beside it."""
    package = Path(__file__).resolve().parents[1]
    return next(path for path in (package / _CONFIG, package.parent / _CONFIG) if path.exists())
