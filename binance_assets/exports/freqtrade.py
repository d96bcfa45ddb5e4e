"""freqtrade: Feather files as its ``download-data`` leaves them, for a data folder such as ``user_data/data/binance``.

``BTC_USDT-1m.feather`` is the pair ``BTC/USDT``; ``futures/BTC_USDT_USDT-1m-futures.feather`` is ``BTC/USDT:USDT``. The
columns are ``date`` (open time, UTC, ms) and ``open, high, low, close, volume`` (Float64; volume in the base asset, as
ccxt has it on every market). Gaps stay absent: freqtrade fills them when it loads.

Source: ``freqtrade/data/history/datahandlers/idatahandler.py`` and ``featherdatahandler.py``, freqtrade 2026.9; for the
trading mode, without which it lists no futures, ``freqtrade/commands/data_commands.py``. Pairs are the unified symbols
of ccxt.
"""

from __future__ import annotations

import re
from typing import Final

import polars as pl

from binance_assets.candles.columns import PRICES
from binance_assets.exports.streams import write_feather
from binance_assets.exports.target import Candles, Item, base_volume, table_target
from binance_assets.model.markets import COINM, SPOT
from binance_assets.model.series import Series
from binance_assets.model.symbol_names import quote_by_name

_CONTRACT: Final = re.compile(r"(?P<pair>.+)_(?:PERP|(?P<delivery>[0-9]{6}))")
_IN_FILE_NAMES: Final = str.maketrans("/:", "__")


def pair_of(series: Series) -> str:
    """Return the pair: ``BTC/USDT``, on futures ``BTC/USDT:USDT``, with a delivery ``BTC/USDT:USDT-240628``.

    Raises:
        ValueError: The name of the symbol does not show its quote asset.
    """
    match = _CONTRACT.fullmatch(series.symbol)
    symbol, delivery = (match["pair"], match["delivery"]) if match else (series.symbol, None)
    quote = quote_by_name(series.market, series.symbol)
    base = symbol.removesuffix(quote)
    if not quote or not base:
        raise ValueError(f"the name of {series} does not show its quote asset, so its pair in freqtrade is unknown")
    if series.market is SPOT:
        return f"{base}/{quote}"
    pair = f"{base}/{quote}:{base if series.market is COINM else quote}"
    return f"{pair}-{delivery}" if delivery else pair


def _path(item: Item) -> str:
    pair = pair_of(item.series).translate(_IN_FILE_NAMES)
    timeframe = item.interval.api_name.replace("M", "Mo")  # so that 1m and 1M differ where a file system folds case
    if item.series.market is SPOT:
        return f"{pair}-{timeframe}.feather"
    return f"futures/{pair}-{timeframe}-futures.feather"


def _shape(candles: Candles) -> pl.LazyFrame:
    volume = base_volume(candles.item.series.market)
    return candles.table.select(pl.col("open_time").alias("date"), *PRICES, pl.col(volume).alias("volume"))


def _load(item: Item) -> str:
    mode = "" if item.series.market is SPOT else " --trading-mode futures"
    return f"freqtrade list-data --datadir {{folder}}{mode} --show-timerange"


def _check(item: Item) -> None:
    pair_of(item.series)


FREQTRADE: Final = table_target("freqtrade", _load, _path, _shape, write_feather, _check)
