"""What a test run would leave behind: temporary files in one folder, and the processes that were started with it."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

_END_SECONDS: Final = 60
_LONGEST_PARENT: Final = 45  # bytes; the sockets of Postgres, Chromium, and Dagster add 62 at most, of 107
TRACKER: Final = "multiprocessing.resource_tracker"
"""What the command of a tracker contains."""


def new_temporary_folder(parent: Path) -> Path:
    """Create the folder of all temporary files of a test run, and let the processes of the run inherit it.

    Browsers, servers, and Dagster leave sockets and folders in the folder for temporary files when they are killed.

    Args:
        parent: Where the folder goes; instead of one with a long path, it is ``/tmp``, because paths of sockets have at
            most 107 bytes.
    """
    is_short = len(os.fsencode(parent)) <= _LONGEST_PARENT
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=parent if is_short else "/tmp"))
    folder.chmod(0o711)  # PostgreSQL runs as a user of its own, with a folder below this one
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None  # read the variable again
    return folder


def end_processes_left_by(folder: Path, patience: float) -> list[str]:
    """Kill the processes whose temporary folder is that of a run or in it, and that do not end; return their commands.

    A worker that is interrupted ends without its fixtures, whose servers and browsers would run on. The children of
    this process are left alone: helpers of libraries, which end with it.

    Args:
        folder: The folder of the run that is over.
        patience: How long the processes have to end by themselves, seconds.
    """
    _, left = psutil.wait_procs(_processes_with(folder), timeout=patience)
    commands = []
    for process in left:
        with suppress(psutil.Error):
            commands.append(" ".join(process.cmdline()))
            process.kill()
    psutil.wait_procs(left, timeout=_END_SECONDS)
    return commands


def _processes_with(folder: Path) -> list[psutil.Process]:
    this = psutil.Process()
    own, found = {this, *this.children(recursive=True)}, []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process not in own and Path(process.environ().get("TMPDIR", "")).is_relative_to(folder):
                found.append(process)
    return found


def kill_group(leader: int) -> None:
    """Kill a process group at once, so that no process notices the end of another.

    Only the trackers of ``multiprocessing`` go on for a moment: they remove the semaphores of the killed processes,
    which would stay in shared memory otherwise.

    Args:
        leader: The process ID of its leader, which may have ended.
    """
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGSTOP)
        trackers = [process for process in _members(leader) if not _killed(process)]
        os.killpg(leader, signal.SIGCONT)
        psutil.wait_procs(trackers, timeout=_END_SECONDS)
        os.killpg(leader, signal.SIGKILL)


def _members(leader: int) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with suppress(ProcessLookupError):
            if os.getpgid(process.pid) == leader:
                yield process


def _killed(process: psutil.Process) -> bool:
    """Kill a process unless it is a tracker; return whether it is gone."""
    with suppress(psutil.NoSuchProcess):
        if any(TRACKER in word for word in process.cmdline()):
            return False
        process.kill()
    return True
