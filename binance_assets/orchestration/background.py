"""Results that are computed in another thread, so that the step can act while it waits for the next one.

Here belongs the handover between two threads. What does not belong here: what is computed (``prefetch``) and what the
step does meanwhile (``assets``).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import Final, Generic, TypeVar

T = TypeVar("T")

# How often a waiting step gets to act. A wait without a timeout would ignore Ctrl-C on Windows.
_TICK_SECONDS: Final = 0.2
# How many results may wait for the step: a bound for memory. Days of 1s have 86,400 candles each.
_MAX_WAITING: Final = 8


class _End:
    """The end of the results."""


class BackgroundIterator(Generic[T]):
    """Iterates in a thread over ``items``; yields None from time to time while no item arrives.

    Close it in any case, for example with :func:`contextlib.closing`.

    Args:
        items: The iterator; no other thread uses it from now on. If it waits for a network, the caller that closes
            this object ends that wait by other means: the thread itself cannot be ended.
    """

    def __init__(self, items: Iterator[T]) -> None:
        self._items = items
        self._queue: queue.Queue[T | _End | BaseException] = queue.Queue(_MAX_WAITING)
        self._closed = threading.Event()
        # A daemon thread, so that a hung socket does not keep the process alive.
        threading.Thread(target=self._run, name="binance-results", daemon=True).start()

    def __iter__(self) -> Iterator[T | None]:
        """Yield the items, and None while waiting for one.

        Raises:
            BaseException: What the iterator raised, after the items before it.
        """
        while True:
            try:
                item = self._queue.get(timeout=_TICK_SECONDS)
            except queue.Empty:
                yield None
                continue
            if isinstance(item, _End):
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        """Let the thread end after its current item."""
        self._closed.set()

    def _run(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    return
            self._put(_End())
        except BaseException as error:  # raised again in the thread of the step
            self._put(error)
        finally:
            if isinstance(self._items, Generator):
                self._items.close()

    def _put(self, item: T | _End | BaseException) -> bool:
        """Hand over an item; return whether anybody still waits for it."""
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=_TICK_SECONDS)
            except queue.Full:
                continue
            return True
        return False
