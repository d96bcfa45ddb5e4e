"""ccxt, concurrent: ``fetch_ohlcv`` with ``paginate``, pointed at the sandbox by ``urls`` of its constructor."""

from __future__ import annotations

import asyncio
from typing import Any

import ccxt.async_support as ccxt

from benchmarks.race.drivers.ccxt_options import COLUMNS, exchange_options, paging, unified_symbol
from benchmarks.race.drivers.task import Task, finish, read_task, write_rows


async def fetch(task: Task) -> list[list[Any]]:
    """Return the candles of the task."""
    async with ccxt.binance(exchange_options(task)) as exchange:
        symbol, parameters = unified_symbol(task), paging(task)
        rows: list[list[Any]] = await exchange.fetch_ohlcv(symbol, "1m", since=task.start_ms, params=parameters)
        return rows


if __name__ == "__main__":
    candles = asyncio.run(fetch(read_task()))
    finish()
    write_rows(candles, COLUMNS)
