"""Whole processes of ``binance-assets download``, measured from outside: of this version and of an earlier one.

Here belongs how such a process is started and what is measured of it. What does not belong here: what it downloads and
which figures are to be reached (``run``).
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks.peak_memory import peak_megabytes

EARLIER: Final = "af4929a"
"""The commit that the ratios refer to."""

_POLL_SECONDS: Final = 0.02
_MOST_SECONDS: Final = 900


@dataclass(frozen=True)
class WholeRun:
    """What a process took.

    Attributes:
        seconds: From its start to its end.
        cpu: User and system time of the process and of those that it started, s.
        megabytes: Its peak memory.
        first_file: Seconds from its start until the first file is in the lake; None if there is none.
        code: Its exit code; negative if a signal ended it.
    """

    seconds: float
    cpu: float
    megabytes: float
    first_file: float | None
    code: int


class Download:
    """A running download with a folder of its own.

    Args:
        arguments: Those of ``binance-assets download``.
        environment: The environment of the process.
        folder: Its working folder, which holds the lake and the instance.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        self._lake = folder / "lake"
        self._began = time.perf_counter()
        self._first_file: float | None = None
        command = [sys.executable, "-m", "binance_assets", "download", *arguments, "--json"]
        with (folder / "output.json").open("w") as output, (folder / "errors.txt").open("w") as errors:
            self._process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=errors)

    def wait(self, only_first_file: bool = False) -> WholeRun:
        """Wait for the end of the process; or interrupt it once the first file is there."""
        peak = 0.0
        while True:
            peak = max(peak, peak_megabytes(self._process.pid))
            process, status, usage = os.wait4(self._process.pid, os.WNOHANG)
            seconds = time.perf_counter() - self._began
            if process:
                code = self._process.returncode = os.waitstatus_to_exitcode(status)
                return WholeRun(seconds, usage.ru_utime + usage.ru_stime, peak, self._first_file, code)
            if self._first_file is None and next(self._lake.rglob("*.parquet"), None) is not None:
                self._first_file = seconds
                if only_first_file:
                    self._process.send_signal(signal.SIGINT)
            if seconds > _MOST_SECONDS:
                self._process.kill()
            time.sleep(_POLL_SECONDS)


@contextmanager
def earlier_version() -> Iterator[dict[str, str]]:
    """Yield the variables with which Python imports the package as of :data:`EARLIER`.

    The dependencies are those of this environment. Without git or without that commit, for example in a shallow
    clone, nothing is yielded, and nothing can be compared.
    """
    command = ["git", "archive", EARLIER, "binance_assets", "dagster.yaml"]
    try:
        content = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        yield {}
        return
    with TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            archive.extractall(folder, filter="data")
        yield {"PYTHONPATH": folder}
