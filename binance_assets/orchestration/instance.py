"""The Dagster instance of a working folder: the command line and the user interface share it.

Here belongs where the instance keeps its state and which ``dagster.yaml`` applies. What does not belong here: its
settings (``dagster.yaml``) and the private constructor behind it (``dagster_internals``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import dagster as dg

from binance_assets.orchestration.dagster_internals import open_instance_in
from binance_assets.settings import ConfigurationError
from binance_assets.storage.locks import file_lock

_CONFIG: Final = "dagster.yaml"
_STATE: Final = ".dagster"
_MAX_ERROR_LENGTH: Final = 300


def open_instance(folder: Path, environment: Mapping[str, str]) -> dg.DagsterInstance:
    """Return the instance of a working folder, a context manager.

    With ``$DAGSTER_HOME`` it is the instance there. Otherwise its configuration is the ``dagster.yaml`` of the folder,
    or the project's own if the folder has none, and its state is in ``.dagster`` of the folder.

    Args:
        folder: The working folder.
        environment: Environment variables; ``DAGSTER_HOME`` is read.

    Raises:
        ConfigurationError: ``DAGSTER_HOME`` is not the absolute path of a folder, or the instance is not usable.
    """
    home = environment.get("DAGSTER_HOME", "").strip()
    if home and not (Path(home).is_absolute() and Path(home).is_dir()):
        raise ConfigurationError(f"DAGSTER_HOME={home!r} must be the absolute path of an existing folder")
    state = Path(home) if home else folder / _STATE
    config = state if home else folder if (folder / _CONFIG).exists() else _own_config().parent
    try:
        with file_lock(state / ".lock"):  # two processes that create the same database at once disturb each other
            return open_instance_in(state, config)
    except Exception as error:  # Dagster passes on whatever its storages raise
        raise ConfigurationError(f"the Dagster instance in {state} is not usable: {_first_words(error)}") from None


def _first_words(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)[:_MAX_ERROR_LENGTH]}"


def _own_config() -> Path:
    """Return the path of the project's dagster.yaml: inside an installed package, beside the package in a checkout."""
    package = Path(__file__).resolve().parents[1]
    return next(path for path in (package / _CONFIG, package.parent / _CONFIG) if path.exists())
