"""How ccxt is pointed at the sandbox and asked for a range: the same for its serial and its concurrent interface."""

from __future__ import annotations

import math
from typing import Any, Final

from benchmarks.race.drivers.task import Task

COLUMNS: Final = ("open_time", "open", "high", "low", "close", "volume")
_ROWS_PER_CALL: Final = 1000
_MINUTE_MS: Final = 60_000


def exchange_options(task: Task) -> dict[str, Any]:
    """Return the constructor's configuration: addresses and the one market that the task needs."""
    kind = "spot" if task.market == "spot" else "linear"
    api = {"public": f"{task.url}/api/v3", "fapiPublic": f"{task.url}/fapi/v1"}
    return {"enableRateLimit": True, "urls": {"api": api}, "options": {"fetchMarkets": {"types": [kind]}}}


def unified_symbol(task: Task) -> str:
    """Return ccxt's name of the symbol."""
    pair = f"{task.symbol.removesuffix('USDT')}/USDT"
    return pair if task.market == "spot" else f"{pair}:USDT"


def paging(task: Task) -> dict[str, Any]:
    """Return the parameters of ``fetch_ohlcv``. Its default of 10 calls would not cover the range."""
    calls = math.ceil((task.end_ms - task.start_ms) / _MINUTE_MS / _ROWS_PER_CALL) + 1
    return {"paginate": True, "paginationCalls": calls, "until": task.end_ms - 1}
