"""How long a command is silent: ``python -m benchmarks.silence [--scale FOLDER] [WORD...]``.

How it measures: each command runs in a pseudo-terminal, and every output is recorded with its time. An output counts
if it has words: a line of progress whose reason is empty is silence, and so is the time from the start of the process
until the first words, and from the last words until its end. The exchange is a sandbox in a process of its own, with
round trips of a second and a tenth of Binance's limits, so that a download also waits for the next minute. What would
take minutes is interrupted after some seconds, and its end is measured as well. Measure on an idle machine: the seconds
are those of the clock.

Without arguments, all commands are measured; words select those whose line contains one of them. With ``--scale``, the
commands that grow with the lake are measured too, on a copy of a folder that ``benchmarks.scale`` has prepared.
"""

from __future__ import annotations

import argparse
import datetime as dt
import itertools
import os
import pty
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import requests
from rich.console import Console
from rich.table import Table

from binance_assets.model.markets import MARKETS

MAX_SILENCE_SECONDS: Final = 2
_WORTH_A_LOOK_SECONDS: Final = 0.7
_ROUND_TRIP_MS: Final = 1_000
_SPOT_LIMIT: Final = 600
_MOST_SECONDS: Final = 170
_END_SECONDS: Final = 40
_COLUMNS: Final = "160"
_ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
_SPINNER: Final = re.compile(r"[\u2800-\u28ff]")
_WORDS: Final = re.compile(r"[0-9A-Za-z]")
_SERVE: Final = (
    "import sys; from binance_assets.sandbox import SandboxOptions, serve; "
    f"serve(SandboxOptions(rtt_ms={_ROUND_TRIP_MS}, limits={{'spot': {_SPOT_LIMIT}}}), int(sys.argv[1]))"
)


@dataclass(frozen=True)
class Silence:
    """A time without words.

    Attributes:
        seconds: How long it was.
        after: The words before it; empty at the start of the process.
        before: The words that ended it; empty at the end of the process.
    """

    seconds: float
    after: str
    before: str


@dataclass
class Recording:
    """What a command showed, and when.

    Attributes:
        code: The exit code; None if it had to be killed.
        seconds: From the start of the process until its end.
        words: The outputs that have words, with the seconds since the start.
    """

    code: int | None = None
    seconds: float = 0.0
    words: list[tuple[float, str]] = field(default_factory=list)

    @property
    def first(self) -> float:
        """The seconds until the first words."""
        return self.words[0][0] if self.words else self.seconds

    @property
    def silences(self) -> list[Silence]:
        """The times without words."""
        marks = [(0.0, ""), *self.words, (self.seconds, "")]
        pairs = itertools.pairwise(marks)
        return [Silence(later - at, text, following) for (at, text), (later, following) in pairs]

    @property
    def longest(self) -> Silence:
        """The longest of them."""
        return max(self.silences, key=lambda silence: silence.seconds)


def words_in(output: str) -> str:
    """Return the words of what a process wrote to a terminal; empty if the line below its bars gives no reason.

    Args:
        output: What one read returned, with escape sequences.
    """
    text = _ESCAPES.sub("", output)
    if _SPINNER.search(text):  # the line of progress is the last of a frame
        text = _SPINNER.split(text)[-1]
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if _WORDS.search(line)]
    return lines[-1] if lines else ""


def record(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, interrupt_after: float | None = None
) -> Recording:
    """Run a command in a pseudo-terminal, and return what it showed.

    Args:
        command: The program and its arguments.
        environment: Its variables.
        folder: Its working folder.
        interrupt_after: When it gets a Ctrl-C, in seconds; None for never.
    """
    controller, terminal = pty.openpty()
    variables = {**environment, "TERM": "xterm", "COLUMNS": _COLUMNS}
    began = time.monotonic()
    process = subprocess.Popen(
        command, cwd=folder, env=variables, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True
    )
    os.close(terminal)
    recording, deadline = Recording(), began + _MOST_SECONDS
    try:
        while time.monotonic() < deadline:
            if interrupt_after is not None and time.monotonic() - began >= interrupt_after:
                interrupt_after, deadline = None, time.monotonic() + _END_SECONDS
                os.kill(process.pid, signal.SIGINT)
            if not select.select([controller], [], [], 0.05)[0]:
                if process.poll() is not None:
                    break
                continue
            try:
                output = os.read(controller, 1 << 16).decode(errors="replace")
            except OSError:  # the process and its children have closed the terminal
                break
            if words := words_in(output):
                recording.words.append((time.monotonic() - began, words))
        recording.code = process.wait(max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        pass  # it is killed
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # with its children
            process.wait()
        os.close(controller)
    recording.seconds = time.monotonic() - began
    return recording


@contextmanager
def slow_exchange() -> Iterator[str]:
    """Serve a sandbox with round trips of a second and a tenth of the limits; yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                requests.get(f"{url}/api/v3/ping", timeout=5)
                break
            except requests.ConnectionError:
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


def environment_at(url: str, folder: Path) -> dict[str, str]:
    """Return the variables of commands that use only the sandbox, and a ledger in a folder."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("BINANCE_", "DAGSTER_"))}
    hosts = {f"BINANCE_{name.upper()}_URL": url for name in (*MARKETS, "archive")}
    return {**inherited, **hosts, "BINANCE_ASSETS_LEDGER": str(folder / "ledger.sqlite")}


@dataclass(frozen=True)
class Step:
    """A command to measure.

    Attributes:
        arguments: Those of ``binance-assets``, as a line.
        interrupt_after: When it gets a Ctrl-C, in seconds; None for never.
    """

    arguments: str
    interrupt_after: float | None = None


_RULES: Final = "series: [{market: spot, symbols: {quote: USDT, top: 20}, intervals: [1d]}]\n"
_HOUR: Final = "--market spot --interval 1h"
STEPS: Final = (
    Step("download BTCUSDT --market spot --interval 1m --source rest --start 2023 --end 2024", 25),
    Step("download ETHUSDT --market spot --interval 1m --source rest --start 2023-01-01 --end 2023-01-03"),
    Step("download BTCUSDT --market usdm --interval 1m --source archive --start 2023 --end 2024"),
    Step("download BTCUSDT --market usdm --interval 1m --source archive --start 2023 --end 2024"),
    Step(f"download SOLUSDT {_HOUR} --dry-run"),
    Step("verify usdm/BTCUSDT/1m"),
    Step("status"),
    Step("show usdm/BTCUSDT/1m 2023-03-01"),
    Step("plot usdm/BTCUSDT/1m --overwrite -o chart.html"),
    Step("plot usdm/BTCUSDT/1m --overwrite -o chart.png"),
    *(Step(f"export usdm/BTCUSDT/1m --to {target}") for target in ("csv", "freqtrade", "nautilus", "qlib", "zipline")),
    Step("symbols spot --quote USDT --top 20"),
    Step("symbols usdm --delisted"),
    Step("universe refresh --dry-run"),
    Step(f"track BNBUSDT {_HOUR}"),
    Step("schedules list"),
    Step("metrics"),
    Step("migrate"),
    Step("ui", 15),
    Step("demo"),
)
_AT_SCALE: Final = (
    Step("series"),
    Step("status"),
    Step("metrics"),
    Step("schedules list"),
    Step("download {spot} --market spot --interval 1m --start 2021-11-26 --dry-run"),
    Step("download {spot} --market spot --interval 1m --start {yesterday}", 60),
    Step("download S001USDT --market spot --interval 1m --start 2022 --refresh --source archive", 60),
    Step("verify spot/S001USDT/1m", 40),
    Step("plot spot/S001USDT/1m"),
    Step("export spot/S001USDT/1m --to parquet --allow-missing"),
    Step("migrate"),
    Step("ui", 25),
)


def main() -> None:
    """Measure the commands, and print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.silence", description="Measure the silence of commands."
    )
    parser.add_argument("--scale", type=Path, help="a folder that benchmarks.scale has prepared; it is copied")
    parser.add_argument("words", nargs="*", help="measure the commands whose line contains one of these")
    options = parser.parse_args()
    table = Table("command", "first words, s", "longest silence, s", "after", "before", "code", "s", box=None)
    with slow_exchange() as url, tempfile.TemporaryDirectory(prefix="silence-") as name:
        folder = Path(name) / "work"
        if options.scale:
            shutil.copytree(options.scale, folder)
        else:
            folder.mkdir()
            (folder / "rules.yaml").write_text(_RULES)
        for step in _AT_SCALE if options.scale else STEPS:
            if not options.words or any(word in step.arguments for word in options.words):
                recording = measure(step, url, folder)
                _report(step, recording)
                table.add_row(*_cells(step, recording))
    Console(width=200).print(table)


def _report(step: Step, recording: Recording) -> None:
    """Print the silences of a command that are worth a look."""
    print(f"{step.arguments[:100]}: {recording.seconds:.1f} s", flush=True)
    for silence in recording.silences:
        if silence.seconds >= _WORTH_A_LOOK_SECONDS:
            ends = f"after {silence.after[-90:]!r}, before {silence.before[:90]!r}"
            print(f"  {silence.seconds:.2f} s {ends}", flush=True)


def measure(step: Step, url: str, folder: Path) -> Recording:
    """Run a step in a folder, and return what it showed."""
    symbols = " ".join(f"S{number:03d}USDT" for number in range(1, 401))
    yesterday = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    arguments = step.arguments.replace("{spot}", symbols).replace("{yesterday}", str(yesterday))
    environment = environment_at(url, folder)
    if step.arguments.startswith("universe"):
        environment["BINANCE_ASSETS_UNIVERSE"] = "rules.yaml"
    command = [sys.executable, "-m", "binance_assets", *shlex.split(arguments)]
    return record(command, environment, folder, step.interrupt_after)


def _cells(step: Step, recording: Recording) -> list[str]:
    longest = recording.longest
    color = "[bold red]" if longest.seconds > MAX_SILENCE_SECONDS else ""
    numbers = f"{recording.first:.2f}", f"{color}{longest.seconds:.2f}"
    return [
        step.arguments[:60],
        *numbers,
        longest.after[:50],
        longest.before[:50],
        str(recording.code),
        f"{recording.seconds:.1f}",
    ]


if __name__ == "__main__":
    main()
