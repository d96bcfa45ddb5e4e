"""Code locations: the types of jobs and schedules, and a code location in a code server as another process sees it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import click
import dagster as dg
from dagster._core.definitions.partitions.partitioned_schedule import UnresolvedPartitionedAssetScheduleDefinition
from dagster._core.definitions.selector import JobSubsetSelector
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from binance_assets.model.outside import first_line
from binance_assets.settings import ConfigurationError

# The return types of the public functions `define_asset_job` and `build_schedule_from_partitioned_job`. Dagster exports
# the functions but not the types, and strict type checking needs names for them.
AssetJob = UnresolvedAssetJobDefinition
PartitionedSchedule = UnresolvedPartitionedAssetScheduleDefinition


@dataclass(frozen=True, slots=True)
class RemoteAutomation:
    """A schedule or a sensor of a code location, as the user interface knows it.

    Attributes:
        name: Its name.
        kind: Which of the two.
        description: What it does.
    """

    name: str
    kind: Literal["schedule", "sensor"]
    description: str
    _remote: Any

    def is_on(self, instance: dg.DagsterInstance) -> bool:
        """Return whether it is on in the instance, or by its definition if nobody has switched it."""
        stored = instance.get_instigator_state(self._remote.get_remote_origin_id(), self._remote.selector_id)
        return bool(self._remote.get_current_instigator_state(stored).is_running)

    def switch(self, instance: dg.DagsterInstance, on: bool) -> None:
        """Turn it on or off, as a click in the user interface does; do nothing if it is that already."""
        if self.is_on(instance) == on:
            return
        if on:
            start = instance.start_schedule if self.kind == "schedule" else instance.start_sensor
            start(self._remote)
        else:
            stop = instance.stop_schedule if self.kind == "schedule" else instance.stop_sensor
            stop(self._remote.get_remote_origin_id(), self._remote.selector_id, self._remote)


@contextmanager
def loaded_automations(instance: dg.DagsterInstance, target: Sequence[str]) -> Iterator[list[RemoteAutomation]]:
    """Load a code location in a code server, and yield its schedules and sensors by name.

    The command line of Dagster turns automations on and off by the same functions, but prints for people only. No
    public name gives the objects that these functions take.

    Args:
        instance: The instance.
        target: What to load, as arguments of Dagster's command line: ``-w FILE`` or ``-m MODULE``.

    Raises:
        ConfigurationError: The code location does not load, or there are several.
    """
    from dagster._cli.workspace.cli_target import (
        get_code_location_from_workspace,
        get_remote_repository_from_code_location,
    )

    with _loaded_workspace(instance, target) as workspace:
        location = get_code_location_from_workspace(workspace, None)
        repository = get_remote_repository_from_code_location(location, None)
        schedules = [
            RemoteAutomation(entry.name, "schedule", entry.description or "", entry)
            for entry in repository.get_schedules()
        ]
        sensors = [
            RemoteAutomation(entry.name, "sensor", entry.description or "", entry) for entry in repository.get_sensors()
        ]
        yield sorted(schedules + sensors, key=lambda entry: entry.name)


@contextmanager
def _loaded_workspace(instance: dg.DagsterInstance, target: Sequence[str]) -> Iterator[Any]:
    """Load code locations in code servers, or connect to those that run already, and yield Dagster's view of them."""
    from dagster._cli.workspace.cli_target import get_workspace_from_cli_opts
    from dagster_shared.cli import WorkspaceOpts

    option, name = target
    chosen = WorkspaceOpts(workspace=[name]) if option == "-w" else WorkspaceOpts(module_name=[name])
    try:
        with get_workspace_from_cli_opts(instance, dg.__version__, chosen, log_level="WARNING") as workspace:
            yield workspace
    except click.UsageError as error:
        raise ConfigurationError(f"the code location cannot be used: {first_line(error.message)}") from None


class LaunchTarget:
    """A code location whose runs can be put into the queue of the instance.

    Dagster's command line launches jobs, but neither a selection of their assets nor a range of partitions. No public
    name creates a run of a job that another process executes.
    """

    def __init__(self, instance: dg.DagsterInstance, workspace: Any, location: Any, repository: Any) -> None:
        self._instance, self._workspace = instance, workspace
        self._location, self._repository = location, repository

    def submit(
        self,
        run_id: str,
        job: str,
        assets: Sequence[dg.AssetKey],
        run_config: Mapping[str, Any],
        tags: Mapping[str, str],
    ) -> None:
        """Create a run over assets of a job, as a sensor does, and submit it to the run coordinator.

        Raises:
            ConfigurationError: The code location refuses the run, such as because its version has other settings.
        """
        selector = JobSubsetSelector(self._location.name, self._repository.name, job, None, list(assets))
        try:
            remote_job = self._location.get_job(selector)
            plan = self._location.get_execution_plan(remote_job, run_config, None, None, self._instance)
        except dg.DagsterError as error:
            raise ConfigurationError(f"the code location refuses a run of {job}: {_refusal(error)}") from None
        self._instance.create_run(
            job_name=job,
            run_id=run_id,
            run_config=run_config,
            status=dg.DagsterRunStatus.NOT_STARTED,
            tags=tags,
            root_run_id=None,
            parent_run_id=None,
            step_keys_to_execute=None,
            execution_plan_snapshot=plan.execution_plan_snapshot,
            job_snapshot=remote_job.job_snapshot,
            parent_job_snapshot=remote_job.parent_job_snapshot,
            asset_selection=frozenset(assets),
            asset_check_selection=None,
            resolved_op_selection=None,
            op_selection=None,
            remote_job_origin=remote_job.get_remote_origin(),
            job_code_origin=remote_job.get_python_origin(),
            asset_graph=self._repository.asset_graph,
        )
        self._instance.submit_run(run_id, self._workspace)


def _refusal(error: Exception) -> str:
    """Return why a code server refuses something: the first line of the innermost error that it reports."""
    reported = getattr(error, "user_code_process_error_infos", None)
    text = reported[-1].message if reported else str(error)
    return first_line(text, type(error).__name__)


@contextmanager
def launch_target(
    instance: dg.DagsterInstance, target: Sequence[str], assets: Mapping[dg.AssetKey, str]
) -> Iterator[LaunchTarget]:
    """Load the workspace, and yield the code location that has all assets in their jobs.

    Args:
        instance: The instance.
        target: What to load, as in :func:`loaded_automations`.
        assets: The name of the job of each asset.

    Raises:
        ConfigurationError: No code location loads that has them.
    """
    with _loaded_workspace(instance, target) as workspace:
        reason = "it has no code location"
        for location in workspace.code_locations:
            for repository in location.get_repositories().values():
                absent = [key for key, job in assets.items() if not _has(repository, key, job)]
                if not absent:
                    yield LaunchTarget(instance, workspace, location, repository)
                    return
                reason = (
                    f"the code location {location.name} does not have {absent[0].to_user_string()}; "
                    "reload it, or restart its code server, so that it reads the universe again"
                )
        for error in workspace.code_location_errors():
            reason = first_line(error.message, reason)
        raise ConfigurationError(f"{target[1]} cannot be used: {reason}")


def _has(repository: Any, key: dg.AssetKey, job: str) -> bool:
    node = repository.get_asset_node_snap(key)
    return node is not None and job in node.job_names and repository.has_job(job)
