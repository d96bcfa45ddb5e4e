"""How much memory a piece of code needs."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def most_memory(limit: int) -> Iterator[None]:
    """Fail unless the code within the ``with`` statement stays below ``limit`` allocated bytes."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()
