"""Processes that see the world differently: with another wall clock, or in a container with processes of its own.

The programs that do so must be installed. Without them the test is skipped, and fails if the variable CI is set.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from typing import Final, NoReturn

import pytest

FAKE_CLOCK_ENVIRONMENT: Final = {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_NO_CACHE": "1", "NO_FAKE_STAT": "1"}
"""Only the wall clock is another one: the clock since the boot belongs to the machine, and so do the times of files."""


def with_wall_clock(offset: str) -> list[str]:
    """Return the words before a command that let it run with a wall clock that is ``offset``, such as ``-1h``, off."""
    program = shutil.which("faketime")
    if program is None:
        _skip("this test needs faketime")
    return [program, "-f", offset]


def in_container(hostname: str | None = None) -> list[str]:
    """Return the words before a command that let it run with process IDs of its own, as in a container.

    The command ends when the process that the test started is killed.

    Args:
        hostname: The host name that it sees; None for that of the test.
    """
    if not _may_create_namespaces():
        _skip("this user may not create namespaces")
    words = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return words if hostname is None else [*words, "--uts", "sh", "-c", f'hostname {hostname} && exec "$@"', "sh"]


@cache
def _may_create_namespaces() -> bool:
    words = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts", "true"]
    return shutil.which("unshare") is not None and subprocess.run(words, check=False).returncode == 0


def _skip(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
