"""The names of the targets, and what each can do about gaps, without a heavy import: the command line needs them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_ALL: Final = ("keep", "null", "flat", "raise")
_NO_NULLS: Final = ("keep", "flat", "raise")

MISSING_BY_TARGET: Final[Mapping[str, tuple[str, ...]]] = {
    "parquet": _ALL,
    "csv": _ALL,
    "feather": _ALL,
    # freqtrade keeps gaps in its files and fills them when it loads (`ohlcv_fill_up_missing_data`, 2026.9).
    "freqtrade": _NO_NULLS,
    # backtesting.py refuses a table with a NaN among the prices (0.6.6).
    "backtesting": _NO_NULLS,
    # A Bar of NautilusTrader has no null.
    "nautilus": _NO_NULLS,
    # Each time of qlib's calendar has a value; NaN is that of an absent candle, as in the files of its `dump_bin`.
    "qlib": ("null", "flat", "raise"),
    "zipline": _NO_NULLS,
}
"""What each target accepts for gaps; the first is its default. :mod:`binance_assets.api.gaps` defines the words."""


def chosen_missing(target: str, missing: str | None) -> str:
    """Return what becomes of gaps in the files of a target; None for its default.

    Raises:
        ValueError: There is no such target, or it cannot represent gaps like that.
    """
    if target not in MISSING_BY_TARGET:
        raise ValueError(f"there is no target {target!r}; choose one of {', '.join(MISSING_BY_TARGET)}")
    choices = MISSING_BY_TARGET[target]
    if missing is None:
        return choices[0]
    if missing not in choices:
        raise ValueError(
            f"missing={missing!r} is none of {', '.join(map(repr, choices))}, which {target} can represent"
        )
    return missing
