"""File locks: one holder at a time, released when its process ends, with an interruptible wait."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from binance_assets.storage.locks import file_lock
from binance_assets_tests.support.environment import CHECKOUT

HOLD = """
import sys
import time
from pathlib import Path
from binance_assets.storage.locks import file_lock

print("waiting", flush=True)
with file_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


class Holder:
    """A process that takes the lock and keeps it."""

    def __init__(self, lock: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(lock)],
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.line() == "waiting"

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self, number: signal.Signals) -> str:
        self.process.send_signal(number)
        return self.process.communicate(timeout=60)[1]


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "folder" / ".lock"


@pytest.fixture
def holder(lock: Path) -> Iterator[Holder]:
    """A process that holds the lock."""
    started = Holder(lock)
    assert started.line() == "held"
    yield started
    started.end(signal.SIGKILL)


def waiting_process(lock: Path) -> Holder:
    """Return a process that waits for the lock."""
    started = Holder(lock)
    with pytest.raises(subprocess.TimeoutExpired):
        started.process.wait(0.5)
    return started


def test_a_process_waits_for_the_holder_and_gets_the_lock_when_it_is_killed(lock: Path, holder: Holder) -> None:
    waiting = waiting_process(lock)
    holder.end(signal.SIGKILL)
    assert waiting.line() == "held"
    waiting.end(signal.SIGKILL)


def test_an_interrupt_ends_the_wait(lock: Path, holder: Holder) -> None:
    waiting = waiting_process(lock)
    assert "KeyboardInterrupt" in waiting.end(signal.SIGINT)
    assert holder.process.poll() is None


def test_an_error_in_the_block_releases_the_lock(lock: Path) -> None:
    with pytest.raises(ValueError, match="in the block"), file_lock(lock):
        raise ValueError("in the block")
    with file_lock(lock):
        assert lock.exists()


def test_a_lock_file_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with pytest.raises(OSError, match="lock"), file_lock(tmp_path / ".lock"):
        pass
