"""The Dagster instance on which the command line works: the same as the user interface's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import dagster as dg
from dagster._core.instance import InstanceRef  # the public constructor cannot separate state from configuration

from binance_assets.settings import ConfigurationError

_CONFIG: Final = "dagster.yaml"
_STATE: Final = ".dagster"


def open_instance(folder: Path, environment: Mapping[str, str]) -> dg.DagsterInstance:
    """The instance for a working folder; a context manager.

    ``$DAGSTER_HOME`` where it is set; otherwise the ``dagster.yaml`` of the folder, or the project's own where it
    has none, both with their state in ``.dagster`` of the folder.

    Args:
        folder: The working folder.
        environment: Where ``DAGSTER_HOME`` is looked up.

    Raises:
        ConfigurationError: ``DAGSTER_HOME`` is no folder, or the configuration is not usable.
    """
    home = environment.get("DAGSTER_HOME", "").strip()
    if home and not (Path(home).is_absolute() and Path(home).is_dir()):
        raise ConfigurationError(f"DAGSTER_HOME={home!r} must be the absolute path of an existing folder")
    state = Path(home) if home else folder / _STATE
    config = state if home else folder if (folder / _CONFIG).exists() else _own_config().parent
    state.mkdir(parents=True, exist_ok=True)
    try:
        return dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(state), config_dir=str(config)))
    except dg.DagsterError as error:
        first_line = str(error).strip().splitlines()[0]
        raise ConfigurationError(f"{config / _CONFIG} is not usable: {first_line}") from None


def _own_config() -> Path:
    """The project's dagster.yaml: in an installed package inside it, in a checkout beside it."""
    package = Path(__file__).resolve().parents[1]
    return next(path for path in (package / _CONFIG, package.parent / _CONFIG) if path.exists())
