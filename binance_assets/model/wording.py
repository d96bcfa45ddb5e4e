"""How messages list many things: the first few by name, the rest as a number."""

from __future__ import annotations

from collections.abc import Iterable


def name_some(items: Iterable[object], limit: int, separator: str = ", ") -> str:
    """Return the first ``limit`` items as text, and how many more there are.

    Args:
        items: What to name, in order.
        limit: How many to name.
        separator: What stands between two names.

    Returns:
        ``a, b``, or ``a, b and 3 more`` where five were given and two are named.
    """
    names = [str(item) for item in items]
    more = len(names) - limit
    return separator.join(names[:limit]) + (f" and {more} more" if more > 0 else "")
