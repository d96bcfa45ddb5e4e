"""What people mean when they misspell a market, an interval, a symbol, or the name of a series.

Nothing here decides what is valid. A message that refuses a text asks here for the spelling to use instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

from binance_assets.model.intervals import INTERVALS
from binance_assets.model.markets import MARKETS

_SEPARATORS: Final = re.compile(r"[/\s,;|]+")
_UNITS: Final = {"min": "m", "sec": "s", "hour": "h", "day": "d", "week": "w", "month": "mo"}
_INTERVAL: Final = re.compile(r"([0-9]{1,4})\s*([A-Za-z]{1,6}?)s?")
_CONTRACT: Final = re.compile(r"[A-Z0-9]+_[0-9]{6}")
_COINM: Final = re.compile(r"[A-Z0-9]+USD_(PERP|[0-9]{6})")
_LONGEST: Final = 100  # a longer text is no misspelled name
_CLOSE: Final = 0.8  # two swapped letters of seven, or one letter more or less
_NAMED: Final = 3


def nearest(word: str, known: Iterable[str], cutoff: float = 0.7) -> list[str]:
    """Return the known words that are spelled almost like ``word``, the nearest first; the case does not matter.

    Args:
        word: What somebody wrote.
        known: The words that exist.
        cutoff: How alike two words must be, from 0 to 1.
    """
    import difflib

    by_case = {name.casefold(): name for name in known}
    found = difflib.get_close_matches(word.casefold()[:_LONGEST], list(by_case), n=_NAMED, cutoff=cutoff)
    return [by_case[name] for name in found]


def did_you_mean(words: Iterable[str]) -> str:
    """Return the question for a message, such as `` (did you mean BTCUSDT?)``; empty without words."""
    names = " or ".join(words)
    return f" (did you mean {names}?)" if names else ""


def did_you_mean_market(text: str) -> str:
    """Return the question for a message about a text that is no market; empty if none is spelled like it."""
    return did_you_mean(nearest(text, MARKETS))


def did_you_mean_interval(text: str) -> str:
    """Return the question for a message about a text that is no interval; empty if none is spelled like it."""
    known, likely = {interval.name for interval in INTERVALS}, _likely_interval(text)
    return did_you_mean([likely] if likely in known else [])


def did_you_mean_series(text: str, is_series: Callable[[str], bool]) -> str:
    """Return the question for a message about a text that is no series; empty if it looks like none.

    ``BTC/USDT``, ``btcusdt``, ``spot/btc-usdt/1M``, ``spot BTCUSDT 5min``, and ccxt's ``BTC/USDT:USDT`` are understood.
    What is not written becomes ``spot``, or the market of the contract, and ``1m``.

    Args:
        text: What somebody wrote.
        is_series: Returns whether a text is the name of a series.
    """
    likely = _likely_series(text)
    return did_you_mean([likely] if likely is not None and is_series(likely) else [])


def _likely_series(text: str) -> str | None:
    words = [word for word in _SEPARATORS.split(text[: _LONGEST + 1].strip()) if word]
    if not words or len(text) > _LONGEST:
        return None
    market, words = _leading_market(words)
    interval, words = _trailing_interval(words)
    if not words or _INTERVAL.fullmatch(words[-1]):  # an interval that does not exist, or one without a symbol
        return None
    joined = "".join(words)
    symbol = joined.partition(":")[0].upper().replace("-", "")
    if _COINM.fullmatch(symbol):
        market = "coinm"
    elif market is None:
        market = "usdm" if ":" in joined or _CONTRACT.fullmatch(symbol) else "spot"
    if market == "coinm" and symbol.endswith("USD"):
        symbol += "_PERP"
    return f"{market}/{symbol}/{interval or '1m'}"


def _leading_market(words: list[str]) -> tuple[str | None, list[str]]:
    first = words[0].lower().replace("-", "")
    near = nearest(first, MARKETS) if len(words) > 2 else []
    market = first if first in MARKETS else next(iter(near), None)
    return (market, words[1:]) if market else (None, words)


def _trailing_interval(words: list[str]) -> tuple[str | None, list[str]]:
    interval = _likely_interval(words[-1]) if len(words) > 1 else None
    return (interval, words[:-1]) if interval else (None, words)


def _likely_interval(text: str) -> str | None:
    """Return the interval that a text may mean, such as ``5m`` for ``5min``, and ``1h`` for ``1H``; None if none."""
    match = _INTERVAL.fullmatch(text)
    if match is None:
        return None
    unit = "mo" if match[2] == "M" else match[2].lower()
    unit = _UNITS.get(unit, unit)
    return f"{match[1]}{unit}" if unit in _UNITS.values() else None


def nearest_series(name: str, known: Iterable[str]) -> list[str]:
    """Return the known series that somebody may mean who wrote the name of another one.

    Those of the same symbol are meant, or else those whose symbol is spelled almost alike; first those of the same
    market and interval.

    Args:
        name: The name of a series, such as ``spot/BTCUSDT/1m``.
        known: The names of the series that exist.
    """
    market, symbol, interval = name.split("/")
    by_symbol: dict[str, list[list[str]]] = {}
    for other in known:
        if other != name:
            by_symbol.setdefault(other.split("/")[1], []).append(other.split("/"))
    symbols = [symbol] if symbol in by_symbol else nearest(symbol, by_symbol, _CLOSE)
    found = [parts for near in symbols for parts in by_symbol[near]]
    found.sort(key=lambda parts: (parts[0] != market, parts[2] != interval))
    return ["/".join(parts) for parts in found[:_NAMED]]
