"""The replacement of a function of Dagster that has no option for what is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


@contextmanager
def replaced(module: ModuleType | type, name: str, make: Callable[[Any], object]) -> Iterator[None]:
    """Replace a function, for the length of the block, by the one that ``make`` returns for it."""
    original = getattr(module, name)
    setattr(module, name, make(original))
    try:
        yield
    finally:
        setattr(module, name, original)
