"""The columns of the candle table: names, types and descriptions, without Pandera."""

from __future__ import annotations

from functools import cache
from typing import Final

import polars as pl

from binance_assets.model.markets import Market

TIME: Final = pl.Datetime("ms", "UTC")

DESCRIPTIONS: Final = {
    "open_time": "Time at which the candle opens, UTC",
    "open": "First price, in the quote asset",
    "high": "Highest price",
    "low": "Lowest price",
    "close": "Last price",
    "volume": "Traded amount: base asset on spot and USD-M, number of contracts on COIN-M",
    "close_time": "Last millisecond of the candle, UTC; earlier if the exchange stopped during the candle",
    "quote_volume": "Traded amount in the quote asset",
    "base_volume": "Traded amount in the base asset",
    "trades": "Number of trades",
    "taker_buy_volume": "Part of volume in which the buyer was the taker",
    "taker_buy_quote_volume": "Part of quote_volume in which the buyer was the taker",
    "taker_buy_base_volume": "Part of base_volume in which the buyer was the taker",
}

PRICES: Final = ("open", "high", "low", "close")


@cache
def columns(market: Market) -> dict[str, pl.DataType]:
    """Return the names and types of the columns of ``market``'s candle table, in the order of Binance's row fields."""
    volume, turnover, taker_volume, taker_turnover = market.value_columns
    names = ("open_time", *PRICES, volume, "close_time", turnover, "trades", taker_volume, taker_turnover)
    types: dict[str, pl.DataType] = {"open_time": TIME, "close_time": TIME, "trades": pl.Int64()}
    return {name: types.get(name, pl.Float64()) for name in names}


def empty_candles(market: Market) -> pl.DataFrame:
    """Return a table without rows, with the columns of ``market``."""
    return pl.DataFrame(schema=columns(market))
