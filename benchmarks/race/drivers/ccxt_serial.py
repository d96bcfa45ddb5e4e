"""ccxt, serial: ``fetch_ohlcv`` with ``paginate``, pointed at the sandbox by ``urls`` of its constructor."""

from __future__ import annotations

import ccxt

from benchmarks.race.drivers.ccxt_options import COLUMNS, exchange_options, paging, unified_symbol
from benchmarks.race.drivers.task import finish, read_task, write_rows

if __name__ == "__main__":
    task = read_task()
    exchange = ccxt.binance(exchange_options(task))
    candles = exchange.fetch_ohlcv(unified_symbol(task), "1m", since=task.start_ms, params=paging(task))
    finish()
    write_rows(candles, COLUMNS)
