"""The exit codes of the command line, and the error that ends a command with one of them.

0 means that every requested partition is in the lake.
"""

from __future__ import annotations

from typing import Final

INCOMPLETE: Final = 1
"""Not every requested partition is in the lake, or ``verify`` found a difference."""

BAD_INPUT: Final = 2
"""The input or the configuration is wrong; nothing was written."""

INTERRUPTED: Final = 130
"""The user or the system interrupted the command; finished partitions are kept."""


class CommandFailed(Exception):
    """The command could not do its work although its input is valid (exit code 1); the message is one line."""
