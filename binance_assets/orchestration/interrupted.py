"""Interrupted runs: the proof that the process of a run lives, and the end of runs whose process was killed.

A process that is killed reports nothing. When the machine loses power, or all processes are killed at once, nobody else
does either: Dagster believes for a day that the run is at work. So the process of a run keeps a file locked that is
named after the run. If the lock can be taken, the process has ended.

Here belong these files, the tags with which a command names its process, and what is reported for a dead one. What does
not belong here: when that is looked for (``sensors``, ``backfill``).
"""

from __future__ import annotations

import atexit
import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import dagster as dg

from binance_assets.orchestration.dagster_internals.instance import state_folder
from binance_assets.orchestration.dagster_internals.steps import executes_whole_run
from binance_assets.processes import is_alive, is_proved_dead, parse_identity, this_process
from binance_assets.storage.locks import own_file, taken_over

# Runs of earlier versions have these three tags, which the user interface shows. Version 0.1.0 has only these.
HOST_TAG: Final = "binance_assets/host"
PROCESS_TAG: Final = "binance_assets/process"
PROCESS_BEGAN_TAG: Final = "binance_assets/process_began"
# The whole identity of the process, and its host for messages; Dagster's user interface hides tags with this prefix.
IDENTITY_TAG: Final = ".dagster/binance_assets_process"
HIDDEN_HOST_TAG: Final = ".dagster/binance_assets_host"

# In the folder of the instance: a file for each run, which the process of the run keeps locked.
_LIVE_RUNS: Final = "binance_assets_runs"
_LIVE_RUN_NAME: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_UNFINISHED: Final = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def tags_of_this_process() -> dict[str, str]:
    """Return the tags of a run that a command executes in this process."""
    return {IDENTITY_TAG: str(this_process()), HIDDEN_HOST_TAG: socket.gethostname()}


@contextmanager
def proof_of_life(instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """Keep the file of a run locked while the run is executed; the lock ends with the process.

    A process that finds the file, in another container or after a reboot, learns from the lock whether the run is
    still executed. If the folder of the instance cannot be written, nothing is proved.
    """
    folder = state_folder(instance) / _LIVE_RUNS
    with ExitStack() as stack:
        with suppress(OSError):
            if os.name != "nt":  # where `own_file` locks nothing
                folder.mkdir(exist_ok=True)
                # It gets its name once it is locked: before, it would look like that of a dead process.
                file, new = folder / run_id, folder / f"{run_id}.new"
                stack.enter_context(own_file(new))
                new.replace(file)
                stack.callback(_remove, file, os.getpid())
        yield


def _remove(file: Path, process: int) -> None:
    if os.getpid() == process:  # a fork inherits what the interpreter does at its end
        with suppress(OSError):
            file.unlink(missing_ok=True)


class _RunOfThisProcess:
    """The run that this process executes, with its file.

    Dagster reports the end of a run after the last call of our code. So the file is kept until the process ends or
    executes another run.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._run_id = ""
        self._proof = ExitStack()

    def prove(self, instance: dg.DagsterInstance, run_id: str) -> None:
        with self._lock:
            if run_id != self._run_id:
                self._proof.close()
                self._run_id = run_id
                self._proof.enter_context(proof_of_life(instance, run_id))

    def end(self) -> None:
        self._proof.close()


_run_of_this_process = _RunOfThisProcess()
atexit.register(_run_of_this_process.end)


def prove_life(context: dg.AssetExecutionContext) -> None:
    """Prove from now on that the process of the step's run lives; each step of ours calls it first.

    Nothing is proved if the steps of the run have processes of their own, because the end of one is not that of the
    run, or if the instance is in memory. The runs of commands have a proof already.
    """
    if executes_whole_run(context) and not context.instance.is_ephemeral:
        _run_of_this_process.prove(context.instance, context.run.run_id)


def fail_runs_of_dead_processes(instance: dg.DagsterInstance) -> int:
    """Report as failed the runs whose process was killed before it could report anything.

    A process counts as dead only if that is proved. Either the lock on the file of its run can be taken. Or a command
    executes the run, there is no such file here, and the identity of its process is one that can be seen from here and
    does not exist. A process of another machine or container, whose file is not in the folder of this instance, may be
    alive. So may the process of a run that has neither file nor identity: other code or an earlier version executes it.

    Dagster starts a failed run again as ``run_retries`` in ``dagster.yaml`` says. A run that was being canceled is
    reported as canceled.

    Returns:
        The number of these runs.
    """
    unfinished = {run.run_id: run for run in instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED))}
    files = {path.name: path for path in _files_of_runs(state_folder(instance) / _LIVE_RUNS)}
    ended = sum(_end(instance, run) for run in unfinished.values() if run.run_id not in files and _is_proved_dead(run))
    for run_id, path in files.items():
        with taken_over(path) as abandoned:
            if abandoned:
                ended += run_id in unfinished and _end(instance, unfinished[run_id])
                path.unlink(missing_ok=True)
    return ended


def _files_of_runs(folder: Path) -> list[Path]:
    with suppress(OSError):  # absent until a run was executed
        return [path for path in folder.iterdir() if _LIVE_RUN_NAME.fullmatch(path.name)]
    return []


def _is_of_command(run: dg.DagsterRun) -> bool:
    # A re-execution in the UI inherits the tags of its parent, but belongs to another process.
    return (IDENTITY_TAG in run.tags or PROCESS_TAG in run.tags) and run.parent_run_id is None


def _is_proved_dead(run: dg.DagsterRun) -> bool:
    """Return whether the tags of a run prove that its process has ended; False for runs of no command."""
    if not _is_of_command(run):
        return False
    identity = parse_identity(run.tags.get(IDENTITY_TAG, ""))
    if identity is not None:
        return is_proved_dead(identity)
    process = run.tags.get(PROCESS_TAG, "")
    if IDENTITY_TAG in run.tags or run.tags.get(HOST_TAG) != socket.gethostname() or not process.isdecimal():
        return False
    return not is_alive(int(process), run.tags.get(PROCESS_BEGAN_TAG, ""))


def _named_process(run: dg.DagsterRun) -> str:
    identity = parse_identity(run.tags.get(IDENTITY_TAG, ""))
    process = run.tags.get(PROCESS_TAG) if identity is None else identity.pid
    return f"process {process} on host {run.tags.get(HIDDEN_HOST_TAG) or run.tags.get(HOST_TAG)}"


def _end(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Report the end of a run; return False if it has finished in the meantime."""
    now = instance.get_run_by_id(run.run_id)
    if now is None or now.is_finished:
        return False
    process = _named_process(run) if _is_of_command(run) else "process"
    message = (
        f"Its {process} does not exist anymore: it was killed, or the machine stopped. "
        "The partitions that it wrote are kept."
    )
    if now.status == dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceled(now, message)
    else:
        instance.report_run_failed(now, message)
    return True
