"""A reader's session: the code blocks of a page, run one after another in one folder against the sandbox exchange."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from click.testing import CliRunner

from binance_assets.cli.main import cli
from binance_assets.sandbox import Fault, Sandbox
from binance_assets.storage.universe import read_universe
from binance_assets_tests.support.documented_blocks import Block
from binance_assets_tests.support.environment import CHECKOUT, cli_environment, without_progress
from binance_assets_tests.support.instances import copy_state_of_working_folder
from binance_assets_tests.support.warm_python import WarmPython

EXAMPLES: Final = CHECKOUT / "examples"

# What differs from run to run, as patterns and what stands for it. Both the page and the output are changed so.
MASKS: Final = (
    (r"\b20(2[6-9]|[3-9]\d)-\d\d-\d\d([ T]\d\d:\d\d(:\d\dZ?)?)?", "<now>"),  # no candle of the pages is so young
    (r"\b127\.0\.0\.1:\d+", "<address>"),
    (r"\b\d[\d,]*(\.\d+)? (ms|s|kB|MB|GB)\b", r"<number> \2"),
    (r"(?m)^(bytes|version) .*$", r"\1 <value>"),
    (r"\baccepted by \w+", "accepted by <user>"),
    (r"─+", "─"),
)
# Columns of tables whose values differ from run to run.
VARYING: Final = frozenset({"candles/s", "duration", "round trip", "seconds", "size", "waiting", "workers"})
VARYING_IN_STATUS: Final = VARYING | {"missing"}  # counted until yesterday

# Commands that start processes of their own, which print as well or end later.
_WITH_PROCESSES: Final = frozenset({"demo", "schedules", "ui"})
_SHELL_SYNTAX: Final = re.compile(r"[|&;<>()$`*?~]|^\s*\w+=")
_BASH: Final = 'set -e\n{\n%s\n}\n_code=$?\npwd > "$_STATE/folder"\nenv -0 > "$_STATE/environment"\nexit $_code\n'
_SECONDS: Final = 300  # until a command is killed; the demo computes for 20 seconds


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a ``console`` or ``bash`` block.

    Attributes:
        text: What the shell gets.
        shown: The output that the page shows; None if it shows none.
    """

    text: str
    shown: str | None = None


def commands_of(block: Block) -> list[Command]:
    """Return the commands of a block.

    In ``console``, a command begins with ``$``; it goes on after a backslash, and in lines that begin with ``>``.
    """
    if block.language != "console":
        lines = re.sub(r"\\\n", " ", block.text).splitlines()
        simple = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
        return [Command(line) for line in simple] if all(map(_is_simple, simple)) else [Command(block.text)]
    commands: list[Command] = []
    parts = re.split(r"^\$ ", block.text, maxsplit=int(block.is_one_command), flags=re.MULTILINE)
    for part in parts[1:]:
        first, *rest = part.splitlines()
        while rest and (first.endswith("\\") or rest[0].startswith("> ")):
            first = f"{first}\n{rest.pop(0).removeprefix('> ')}"
        shown = "\n".join(rest).strip("\n")
        commands.append(Command(first, shown or None))
    return commands


def _is_simple(line: str) -> bool:
    """Return whether a line is a program and its arguments, without anything that only a shell understands."""
    return not _SHELL_SYNTAX.search(re.sub(r"'[^']*'", "", line))


class Session:
    """The state of a reader: folder, environment, the names of Python. It ends with the test.

    ``binance-assets`` and Python blocks run in the process of the test; they differ from a process of their own only in
    their start. Other programs run in processes.
    """

    def __init__(self, sandbox: Sandbox, folder: Path, warm_python: WarmPython) -> None:
        self._sandbox = sandbox
        self._warm_python = warm_python
        self._state = folder / "state"
        self._folder = folder / "reader"
        for path in (self._state, self._folder):
            path.mkdir()
        copy_state_of_working_folder(self._folder)
        self._environment = cli_environment(sandbox, self._folder)
        del self._environment["BINANCE_ASSETS_LAKE"]
        self._environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{self._environment['PATH']}"
        self._names: dict[str, Any] = {"__name__": "__main__"}
        self._printed: str | None = None

    def run(self, block: Block) -> None:
        """Run or check a block.

        Raises:
            AssertionError: A command failed, or printed something else than the page shows.
        """
        printed, self._printed = self._printed, None
        if block.language == "fault":
            self._sandbox.faults.add(_fault(block.text))
        elif block.title:
            self._write(block)
        elif block.language == "text" and printed is not None:
            compare(block.text, [printed], str(block))
        elif block.language == "python":
            self._printed = self._python(block)
        elif block.language in ("bash", "console", "setup"):
            self._commands(block)
        if block.language in ("yaml", "json", "toml"):
            _check_syntax(block, self._state)

    def _write(self, block: Block) -> None:
        """Write the file that a block shows. If the project has it as an example, the two are equal."""
        example = EXAMPLES / Path(block.title).name
        assert not example.exists() or block.text == example.read_text(), f"{block} differs from {example.name}"
        path = self._folder / block.title
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)

    def _python(self, block: Block) -> str:
        code = compile("\n" * block.line + block.text, block.page, "exec")
        with self._as_reader(), contextlib.redirect_stdout(io.StringIO()) as output:
            exec(code, self._names)
        return output.getvalue()

    @contextlib.contextmanager
    def _as_reader(self) -> Iterator[None]:
        before = dict(os.environ)
        with contextlib.chdir(self._folder):
            os.environ.clear()
            os.environ.update(self._environment)
            try:
                yield
            finally:
                os.environ.clear()
                os.environ.update(before)

    def _commands(self, block: Block) -> None:
        commands = commands_of(block)
        assert commands, f"{block} has no command; one begins with $"
        codes = [0] * (len(commands) - len(block.exit_codes)) + list(block.exit_codes)
        for command, expected in zip(commands, codes, strict=True):
            code, *outputs = self._execute(command.text)
            assert code == expected, f"{block}: {command.text!r} ended with {code}:\n{outputs[0]}"
            if command.shown is not None:
                compare(command.shown, outputs, f"{block}: {command.text}")

    def _execute(self, text: str) -> tuple[int, str, str]:
        """Run a command; return its exit code, what a terminal would show, and its standard output alone."""
        if not _is_simple(text):
            return self._bash(text)
        program, *arguments = shlex.split(text.replace("\\\n", " "), comments=True)
        if program == "binance-assets" and arguments[0] in _WITH_PROCESSES:
            return self._warm(["-m", "binance_assets", *arguments])
        if program == "binance-assets":
            with self._as_reader():
                result = CliRunner().invoke(cli, arguments)
            return result.exit_code, result.output, result.stdout
        if program in ("python", "dagster"):
            return self._warm([*(["-m", "dagster"] if program == "dagster" else []), *arguments])
        return self._bash(text)

    def _warm(self, arguments: Sequence[str]) -> tuple[int, str, str]:
        """Run Python with arguments in a process that has already imported Dagster."""
        first = arguments[0] if arguments[0].startswith("-") else str(self._folder / arguments[0])
        environment = self._environment | {"PYTHONPATH": str(CHECKOUT)}
        ended = self._warm_python.run([first, *arguments[1:]], self._folder, environment, timeout=_SECONDS)
        return ended.returncode, ended.stdout + ended.stderr, ended.stdout

    def _bash(self, text: str) -> tuple[int, str, str]:
        """Run a command in bash, and take over its folder and its environment."""
        ended = subprocess.run(
            ["bash", "-c", _BASH % text],
            cwd=self._folder, env=self._environment | {"_STATE": str(self._state)}, timeout=_SECONDS, check=False,
            stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )  # fmt: skip
        if (folder := self._state / "folder").exists():
            self._folder = Path(folder.read_text().rstrip("\n"))
            entries = (self._state / "environment").read_text().split("\0")
            self._environment = dict(entry.split("=", 1) for entry in entries if entry)
        return ended.returncode, ended.stdout + ended.stderr, ended.stdout


def _fault(text: str) -> Fault:
    """Return the fault that a comment describes as JSON; ``start`` and ``end`` may be ISO times in UTC."""
    fields = json.loads(text)
    for name in ("start", "end"):
        if isinstance(fields.get(name), str):
            fields[name] = int(dt.datetime.fromisoformat(fields[name]).replace(tzinfo=dt.UTC).timestamp() * 1000)
    return Fault(**fields)


def _check_syntax(block: Block, folder: Path) -> None:
    """Parse a block that is data; a universe is read as the project reads it."""
    if block.language == "json":
        json.loads(block.text)
    elif block.language == "toml":
        tomllib.loads(block.text)
    elif "series" in (yaml.safe_load(block.text) or {}):
        path = folder / "universe.yaml"
        path.write_text(block.text)
        read_universe(path)


def compare(shown: str, outputs: Sequence[str], where: str) -> None:
    """Compare the output that a page shows with what was printed.

    Runs of spaces are equal, what varies is masked, and ``...`` on a page stands for any text of a line, alone in a
    line for any lines.

    Args:
        shown: What the page shows.
        outputs: What it may be: all output, or standard output without notes and progress.
        where: The place of the page.

    Raises:
        AssertionError: They differ.
    """
    expected, found = masked(shown), [masked(output) for output in outputs]
    lines = [re.escape(line).replace(r"\.\.\.", ".*") for line in expected.splitlines()]
    pattern = "\n".join(r"(?s:.*)" if line == ".*" else line for line in lines)
    is_shown = any(re.fullmatch(pattern, output) for output in found)
    assert is_shown, f"{where} prints\n{found[-1]}\nand the page shows\n{expected}"


def masked(text: str) -> str:
    """Return an output without what differs from run to run, without progress, and with single spaces."""
    varying: set[int] = set()
    lines = []
    for line in without_progress(text):
        cells = re.split(r" {2,}", line.strip())
        if len(cells) == 1:
            varying = set()
        names = VARYING_IN_STATUS if "last run" in cells else VARYING
        if found := {index for index, cell in enumerate(cells) if cell in names}:
            varying = found
        elif varying and len(cells) > max(varying):  # the last cells of a row may be empty
            cells = ["<value>" if index in varying else cell for index, cell in enumerate(cells)]
        lines.append(" ".join(cells))
    result = "\n".join(lines)
    for pattern, replacement in MASKS:
        result = re.sub(pattern, replacement, result)
    return result
