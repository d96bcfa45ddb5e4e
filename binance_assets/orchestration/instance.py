"""The Dagster instance of a working folder: the command line and the user interface share it.

Here belongs where the instance keeps its state and which ``dagster.yaml`` applies. What does not belong here: the
settings in that file, and the private constructor of the instance (``dagster_internals``).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Final

import dagster as dg

from binance_assets.model.outside import printable
from binance_assets.orchestration.dagster_internals.instance import open_instance_in
from binance_assets.settings import POSTGRES_SCHEME, ConfigurationError
from binance_assets.storage.locks import LOCK_NAME, file_lock

_CONFIG: Final = "dagster.yaml"
_STATE: Final = ".dagster"
_MAX_ERROR_LENGTH: Final = 300
_POSTGRES_HINT: Final = f"the URL of its Postgres storage must begin with {POSTGRES_SCHEME} and not with postgresql://"


def open_instance(folder: Path, environment: Mapping[str, str]) -> dg.DagsterInstance:
    """Return the instance of a working folder, a context manager.

    ``$DAGSTER_HOME`` is the folder of both its state and its configuration. Without the variable, the state is in
    ``.dagster`` of the working folder, and the configuration is the ``dagster.yaml`` of the working folder, or the
    project's own if the working folder has none.

    Args:
        folder: The working folder.
        environment: Environment variables; ``DAGSTER_HOME`` is read.

    Raises:
        ConfigurationError: ``DAGSTER_HOME`` is not the absolute path of a folder, or the instance is not usable.
    """
    home = home_folder(environment)
    state = folder / _STATE if home is None else home
    config = _config_folder(folder) if home is None else home
    try:
        with file_lock(state / LOCK_NAME):  # two processes that create the same database at once disturb each other
            return open_instance_in(state, config)
    except Exception as error:  # Dagster passes on whatever its storages raise
        reason = _POSTGRES_HINT if _is_about_psycopg(error) else _short_message(error)
        raise ConfigurationError(f"the Dagster instance in {state} is not usable: {reason}") from None


def home_folder(environment: Mapping[str, str]) -> Path | None:
    """Return the folder that ``DAGSTER_HOME`` names, or None without the variable.

    Raises:
        ConfigurationError: It is not the absolute path of a folder.
    """
    home = environment.get("DAGSTER_HOME", "").strip()
    if home and not (Path(home).is_absolute() and Path(home).is_dir()):
        raise ConfigurationError(f"DAGSTER_HOME={home!r} must be the absolute path of an existing folder")
    return Path(home) if home else None


def has_instance(folder: Path, environment: Mapping[str, str]) -> bool:
    """Return whether :func:`open_instance` would find an instance, so that a command that only reads creates none."""
    return bool(environment.get("DAGSTER_HOME", "").strip()) or (folder / _STATE).is_dir()


def keep_instance(folder: Path, environment: MutableMapping[str, str]) -> None:
    """Make ``dagster dev`` use the instance that :func:`open_instance` opens.

    Without ``$DAGSTER_HOME``, ``dagster dev`` reports that it uses a temporary folder, and keeps there what
    ``dagster.yaml`` does not place elsewhere, until it ends. So the state folder becomes ``$DAGSTER_HOME``, with a copy
    of the ``dagster.yaml`` that applies.

    Args:
        folder: The working folder.
        environment: Environment variables of this process; ``DAGSTER_HOME`` may be set.
    """
    if environment.get("DAGSTER_HOME", "").strip():
        return
    state = folder.absolute() / _STATE
    shutil.copyfile(_config_folder(folder) / _CONFIG, state / _CONFIG)
    environment["DAGSTER_HOME"] = str(state)


def _short_message(error: Exception) -> str:
    # SQLAlchemy names the cause in the first line, then the statement, then where to read about the error.
    cause = str(error).partition("\n[SQL: ")[0]
    return f"{type(error).__name__}: {printable(cause, _MAX_ERROR_LENGTH)}"


def _config_folder(folder: Path) -> Path:
    """Return the folder of the ``dagster.yaml`` that applies in a working folder without ``$DAGSTER_HOME``.

    The project's own file is inside an installed package, and beside the package in a checkout.
    """
    package = Path(__file__).resolve().parents[1]
    return next(parent for parent in (folder, package, package.parent) if (parent / _CONFIG).exists())


def _is_about_psycopg(error: BaseException) -> bool:
    """Return whether an error comes from psycopg 3, which the URL of a Postgres storage chose by mistake."""
    names = (type(cause).__module__ for cause in (error, error.__cause__, error.__context__) if cause is not None)
    return getattr(error, "name", None) == "psycopg" or any(name.startswith("psycopg.") for name in names)
