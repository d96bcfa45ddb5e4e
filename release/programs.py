"""Programs that a release runs: quiet while they succeed, and their last lines when they fail."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from release import ReleaseRefused

_LINES: Final = 15
_SECONDS: Final = 600


def run(
    command: Sequence[str | Path], folder: Path, environment: Mapping[str, str] | None = None, seconds: float = _SECONDS
) -> str:
    """Run a program and return what it printed on standard output.

    Args:
        command: The program and its arguments.
        folder: Its working folder.
        environment: Its environment; by default that of this process.
        seconds: How long it may take.

    Raises:
        ReleaseRefused: It failed, or took too long. The message ends with the last lines that it printed.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ReleaseRefused(f"{_name(words)} took more than {seconds:.0f} s") from None
    except OSError as error:
        raise ReleaseRefused(f"{_name(words)} does not start: {error.strerror}") from None
    if done.returncode:
        printed = "\n".join(f"{done.stdout}\n{done.stderr}".strip().splitlines()[-_LINES:])
        raise ReleaseRefused(f"{_name(words)} failed with exit code {done.returncode}:\n{printed}")
    return done.stdout


def _name(words: Sequence[str]) -> str:
    return " ".join([Path(words[0]).name, *words[1:4]])
