"""Writes to a lake in processes that are killed at a chosen step, which needs neither luck nor a mock.

``python -m binance_assets_tests.support.killed_writers`` reads commands from standard input, a list of JSON objects
in a line. It forks a process for each, which kills itself just before its n-th access to a file: opening, renaming,
deleting, listing. Python itself reports these accesses (``sys.addaudithook``). The parent never uses Polars, whose
threads would not survive the fork.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from binance_assets.candles.columns import columns
from binance_assets.model.bucket_paths import LakePath
from binance_assets.model.partitions import partition_for_key
from binance_assets.model.results import PartitionResult, Provenance
from binance_assets.model.series import Series, parse_series
from binance_assets.storage.lake import Lake
from binance_assets_tests.support.environment import CHECKOUT

_FILE_EVENTS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.listdir", "os.scandir", "shutil.copyfile")


@dataclass(frozen=True, slots=True)
class Spec:
    """A partition to write.

    Attributes:
        key: Its key.
        seed: A number that its candles and its note show, so that versions of a partition differ.
        rows: Number of candles.
        verdict: Its verdict.
    """

    key: str
    seed: int
    rows: int = 2
    verdict: Any = "complete"

    def result(self, series: Series) -> PartitionResult:
        """Return the result that has this partition."""
        partition = partition_for_key(self.key, series.interval)
        opens = list(series.interval.open_times(partition.start, partition.end))[: self.rows]
        values = {
            name: [time if name.endswith("_time") else self.seed for time in opens] for name in columns(series.market)
        }
        candles = pl.DataFrame(values, schema_overrides=dict.fromkeys(values, pl.Int64)).cast(
            columns(series.market)  # type: ignore[arg-type]
        )
        source = Provenance("archive", f"X-{self.key}.zip", f"{self.seed:064x}", partition.end)
        return PartitionResult(partition, self.verdict, candles, (), f"seed {self.seed}", source)


def write(root: LakePath, series: Series, specs: Sequence[Spec]) -> None:
    """Write partitions, all in one call."""
    lake = Lake(root)
    lake.prepare("sandbox")
    lake.write_all(series, [spec.result(series) for spec in specs])


def migrate(root: Path) -> None:
    """Bring a lake to the current layout."""
    lake = Lake(root)
    lake.migrate_state()
    for series in lake.series():
        for name in lake.outdated_spans(series):
            lake.migrate_span(series, name)


class KilledWriters:
    """The process that forks the writers.

    Args:
        process: It.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def write(self, root: Path, series: Series, specs: Sequence[Spec], kill_at: int | None = None) -> bool:
        """Write partitions; return whether the writer lived to the end.

        Args:
            root: The lake.
            series: The series.
            specs: The partitions.
            kill_at: The access to a file before which the writer is killed, counted from 1; None to let it live.
        """
        command = {"root": str(root), "series": str(series), "calls": [_plain(specs)], "kill_at": kill_at}
        return self._run([command])

    def migrate(self, root: Path, kill_at: int | None = None) -> bool:
        """Bring a lake to the current layout; return whether the process lived to the end."""
        return self._run([{"root": str(root), "kill_at": kill_at}])

    def write_at_once(self, root: Path, series: Series, specs: Sequence[Spec], count: int) -> None:
        """Write partitions, each in a call of its own, with ``count`` processes at the same time."""
        calls = [[_plain([spec]) for spec in specs[number::count]] for number in range(count)]
        shared = {"root": str(root), "series": str(series), "kill_at": None}
        assert self._run([{**shared, "calls": share} for share in calls])

    def _run(self, commands: list[dict[str, Any]]) -> bool:
        """Carry out commands at the same time; return whether no process was killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(commands) + "\n")
        self._process.stdin.flush()
        ends = json.loads(self._process.stdout.readline())
        assert set(ends) <= {0, -signal.SIGKILL}, f"the writers ended with {ends}"
        return set(ends) == {0}


def _plain(specs: Sequence[Spec]) -> list[list[Any]]:
    return [[spec.key, spec.seed, spec.rows, spec.verdict] for spec in specs]


@contextmanager
def killed_writers() -> Iterator[KilledWriters]:
    """Start the process that forks the writers, and end it."""
    arguments = [sys.executable, "-m", __name__]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT) as process:
        yield KilledWriters(process)
        assert process.stdin is not None
        process.stdin.close()


def _main() -> None:
    for line in sys.stdin:
        children = [_fork(command) for command in json.loads(line)]
        ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(json.dumps(ends), flush=True)


def _fork(command: dict[str, Any]) -> int:
    """Carry out a command in a new process, and return its ID."""
    child = os.fork()
    if child == 0:
        _child(command)
    return child


def _child(command: dict[str, Any]) -> None:
    """Carry out a command, and end this process."""
    root = Path(command["root"])
    try:
        if command["kill_at"] is not None:
            _kill_before_step(command["kill_at"], root.parent)
        if "calls" not in command:
            migrate(root)
        for specs in command.get("calls", ()):
            write(root, parse_series(command["series"]), [Spec(*spec) for spec in specs])
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def _kill_before_step(number: int, folder: Path) -> None:
    """Make this process kill itself before its access number ``number`` to a file below ``folder``."""
    steps = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal steps
        if event in _FILE_EVENTS and str(arguments[0]).startswith(str(folder)):
            steps += 1
            if steps == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


if __name__ == "__main__":
    _main()
