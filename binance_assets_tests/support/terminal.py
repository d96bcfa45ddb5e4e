"""A terminal in which a process runs, and what it has shown so far."""

from __future__ import annotations

import os
import pty
import re
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager

# The line of progress: a spinner, and words.
_FRAME = re.compile(r"[\u2800-\u28ff]([^\r\n\u2800-\u28ff]*)")
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Terminal:
    """A terminal of 160 columns.

    Attributes:
        descriptor: What the process writes to.
        text: Everything that was shown so far, without escape sequences.
        pauses: The silences between two outputs, seconds.
    """

    def __init__(self, controller: int, descriptor: int) -> None:
        self.descriptor = descriptor
        self.text = ""
        self.pauses: list[float] = []
        self._controller = controller
        self._last = time.monotonic()

    @property
    def reasons(self) -> list[str]:
        """What each frame named as what the command does or waits for; the last frame may not be complete."""
        return [frame.strip() for frame in _FRAME.findall(self.text)[:-1]]

    def read(self, seconds: float) -> None:
        """Read what is shown within some seconds, at least what is there already."""
        deadline = time.monotonic() + seconds
        while select.select([self._controller], [], [], max(0.0, deadline - time.monotonic()))[0]:
            output = os.read(self._controller, 65_536).decode(errors="replace")
            self.pauses.append(time.monotonic() - self._last)
            self._last = time.monotonic()
            self.text += _ESCAPES.sub("", output)

    def wait_for(self, pattern: str, seconds: float) -> re.Match[str]:
        """Read until a pattern has been shown, and return its match.

        Raises:
            AssertionError: It was not shown in time.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if match := re.search(pattern, self.text):
                return match
            self.read(0.1)
        raise AssertionError(f"{pattern!r} is not shown within {seconds} s: {self.text[-2_000:]}")


@contextmanager
def open_terminal() -> Iterator[Terminal]:
    """Yield a new terminal."""
    controller, descriptor = pty.openpty()
    try:
        yield Terminal(controller, descriptor)
    finally:
        os.close(controller)
        os.close(descriptor)
