"""Automations: the schedules and sensors of the code location that the user interface shows, and whether they are on.

The command line turns them on and off in the instance as the user interface does: it loads the same code location in a
code server, because Dagster knows an automation by its location and repository.

Here belongs what the command ``schedules`` needs. What does not belong here: what the automations do (``schedules``,
``catch_up``, ``sensors``), and the private names of Dagster (``dagster_internals``).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import dagster as dg

from binance_assets.model.spelling import did_you_mean, nearest
from binance_assets.model.wording import name_some
from binance_assets.orchestration.dagster_internals.code_location import RemoteAutomation, loaded_automations
from binance_assets.orchestration.user_interface import target_of
from binance_assets.settings import ConfigurationError


@dataclass(frozen=True, slots=True)
class Automation:
    """A schedule or a sensor.

    Attributes:
        name: Its name.
        kind: Which of the two.
        is_on: Whether it runs while the user interface or Dagster's daemon does.
        description: What it does.
    """

    name: str
    kind: Literal["schedule", "sensor"]
    is_on: bool
    description: str


def list_automations(instance: dg.DagsterInstance, folder: Path) -> list[Automation]:
    """Return the automations of the code location that ``ui`` loads in a working folder."""
    with loaded_automations(instance, target_of(folder)) as remotes:
        return _states(instance, remotes)


def switch(instance: dg.DagsterInstance, folder: Path, names: Collection[str], on: bool) -> list[Automation]:
    """Turn automations on or off, and return all of them.

    Args:
        instance: The instance that the user interface uses.
        folder: The working folder.
        names: Their names; empty for all schedules.
        on: Whether to turn them on.

    Raises:
        ConfigurationError: The code location has no automation of such a name; nothing was changed.
    """
    with loaded_automations(instance, target_of(folder)) as remotes:
        by_name = {remote.name: remote for remote in remotes}
        unknown = [name for name in names if name not in by_name]
        if unknown:
            hint = did_you_mean(nearest(unknown[0], by_name))
            known = ", ".join(by_name) or "none"
            raise ConfigurationError(f"there is no {name_some(unknown, 3)}{hint}; there are {known}")
        for name in names or [remote.name for remote in remotes if remote.kind == "schedule"]:
            by_name[name].switch(instance, on)
        return _states(instance, remotes)


def _states(instance: dg.DagsterInstance, remotes: Sequence[RemoteAutomation]) -> list[Automation]:
    return [Automation(remote.name, remote.kind, remote.is_on(instance), remote.description) for remote in remotes]
