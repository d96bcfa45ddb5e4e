"""What a test run would leave behind: temporary files in one folder, and the processes that were started with it."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

_END_SECONDS: Final = 60
_TRACKER: Final = "multiprocessing.resource_tracker"


def new_temporary_folder(parent: Path) -> Path:
    """Create the folder of all temporary files of a test run, and let the processes of the run inherit it.

    Browsers, servers, and Dagster leave sockets and folders in the folder for temporary files when they are killed.

    Args:
        parent: Where the folder goes. Its path is short, because paths of sockets have at most 107 bytes.
    """
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=parent))
    folder.chmod(0o711)  # PostgreSQL runs as a user of its own, with a folder below this one
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None  # read the variable again
    return folder


def processes_left_by(folder: Path) -> list[str]:
    """Return the commands of the processes that inherited a temporary folder and have not ended soon after the run."""
    deadline = time.monotonic() + _END_SECONDS
    while (found := list(_commands_with(str(folder)))) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def _commands_with(folder: str) -> Iterator[str]:
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get("TMPDIR") == folder:
                yield " ".join(process.cmdline())


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
        if any(_TRACKER in word for word in process.cmdline()):
            return False
        process.kill()
    return True
