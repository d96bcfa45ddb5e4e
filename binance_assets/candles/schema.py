"""The Pandera schema of the candle table, one per market and interval: the columns, and the rules for every row.

Names, types and descriptions of the columns come from :mod:`binance_assets.candles.columns`. Together they are the only
description of the table: the Parquet files, Dagster's column metadata and the documentation follow them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

import polars as pl

from binance_assets.candles.columns import DESCRIPTIONS, PRICES, columns
from binance_assets.model.intervals import Interval
from binance_assets.model.markets import AMOUNT_DECIMALS, COINM, Market
from binance_assets.model.timestamps import MINUTE

if TYPE_CHECKING:
    import pandera.polars as pa
    from pandera.api.polars.types import PolarsData

_HALF_A_UNIT: Final = 0.5 * 10**-AMOUNT_DECIMALS  # half of the last decimal that Binance reports
# No amount of the real exchange comes near, and the sums of such amounts still fit into the integers that add them up.
_TOO_MUCH: Final = 1e18
# A product of two rounded numbers is off by less than two parts in 10**16.
_FLOAT_ROUNDING: Final = 1e-15


@dataclass(frozen=True, slots=True)
class _Rule:
    """A rule for every row.

    Attributes:
        column: The column that it is about.
        message: What must be true of that column, as the end of a sentence that begins with its name.
        holds: True in rows that follow the rule.
    """

    column: str
    message: str
    holds: pl.Expr

    def check(self) -> pa.Check:
        import pandera.polars as pa  # see `candle_schema`

        text = f"{self.column} {self.message}"
        return pa.Check(_all_true(self.holds), name=text, error=text, ignore_na=False)


@cache
def candle_schema(market: Market, interval: Interval, contract_size: int | None = None) -> pa.DataFrameSchema:
    """Return the schema that every accepted table of candles of a market and interval satisfies.

    It checks types; no nulls; open times strictly ascending and on the grid of the interval (``3d``: one grid per
    table); ``low <= open, close <= high``; prices positive and finite; volumes and trades not negative; volumes below
    10^18; taker volumes at most the total; the mean price of all trades, of those of takers, and of those of makers
    from low to high; no amounts and a single price without trades. It does not look for gaps, see
    :mod:`binance_assets.completeness.validation`.

    Args:
        market: The market.
        interval: The interval.
        contract_size: Value of a contract in USD (COIN-M); None leaves out the rules about mean prices on COIN-M.
    """
    import pandera.polars as pa  # only what is wrong needs it, see `follows_schema`

    described_columns = {
        name: pa.Column(dtype, description=DESCRIPTIONS[name]) for name, dtype in columns(market).items()
    }
    checks = [rule.check() for rule in _rules(market, interval, contract_size)]
    return pa.DataFrameSchema(
        described_columns, checks=checks, strict=True, ordered=True, name=f"{market.name}_{interval.name}"
    )


def follows_schema(candles: pl.DataFrame, market: Market, interval: Interval, contract_size: int | None = None) -> bool:
    """Return whether a table satisfies :func:`candle_schema`, without Pandera and without saying what it breaks.

    It evaluates the same rules as one expression, which takes a millisecond for a month of 1m. A call of Pandera costs
    twenty, whatever the size of the table, and its import half a second where hypothesis is installed.
    """
    if list(candles.schema.items()) != list(columns(market).items()):
        return False
    is_broken = (~every_rule(market, interval, contract_size).fill_null(False)).any()
    return not candles.select(is_broken).item()


@cache
def every_rule(market: Market, interval: Interval, contract_size: int | None = None) -> pl.Expr:
    """Return an expression that is true in the rows that follow every rule, of a table that is sorted by open time."""
    is_filled = [pl.col(name).is_not_null() for name in columns(market)]
    return pl.all_horizontal([*is_filled, *(rule.holds for rule in _rules(market, interval, contract_size))])


def _rules(market: Market, interval: Interval, contract_size: int | None) -> list[_Rule]:
    volume, turnover, taker_volume, taker_turnover = market.value_columns
    open_time, close_time = pl.col("open_time"), pl.col("close_time")
    step = pl.duration(milliseconds=interval.step)
    # In Polars NaN is greater than any number, so the rules check explicitly that values are finite.
    prices = [_Rule(name, "is a positive number", _finite(name) & (pl.col(name) > 0)) for name in PRICES]
    amounts = [
        rule
        for name in market.value_columns
        for rule in (
            _Rule(name, "is a number and not negative", pl.col(name).is_between(0, math.inf, closed="left")),
            _Rule(name, "is less than 10^18", pl.col(name) < _TOO_MUCH),
        )
    ]
    return [
        *prices,
        *amounts,
        _Rule("trades", "is not negative", pl.col("trades") >= 0),
        _Rule("open_time", "is later than the one before", (open_time > open_time.shift(1)).fill_null(True)),
        _Rule("open_time", f"is on the grid of {interval}", _on_grid(interval)),
        # Not equality: if the exchange stopped during a candle, its close time is earlier, or 1 ms past the grid.
        _Rule("close_time", "is within the candle", close_time.is_between(open_time, open_time + step)),
        _Rule("low", "is at most open and close", pl.col("low") <= pl.min_horizontal("open", "close")),
        _Rule("high", "is at least open and close", pl.col("high") >= pl.max_horizontal("open", "close")),
        _Rule(taker_volume, f"is at most {volume}", pl.col(taker_volume) <= pl.col(volume)),
        _Rule(taker_turnover, f"is at most {turnover}", pl.col(taker_turnover) <= pl.col(turnover)),
        *_rules_without_trades(market),
        *(_mean_price_rules(market) if market is not COINM else _inverse_rules(market, interval, contract_size)),
    ]


def _rules_without_trades(market: Market) -> list[_Rule]:
    """Return the rules for candles without trades.

    Source: 8 million spot rows of the archive, 2017 to 2026: without trades all amounts are 0, and the four prices are
    equal. The reverse is false: a candle of a single price may have trades.
    """
    has_trades = pl.col("trades") > 0
    one_price = pl.all_horizontal(pl.col("open") == pl.col(name) for name in PRICES)
    return [
        *(_Rule(name, "is 0 without trades", has_trades | (pl.col(name) == 0)) for name in market.value_columns),
        _Rule("open", "is the only price without trades", has_trades | one_price),
    ]


def _mean_price_rules(market: Market) -> list[_Rule]:
    """Return the rules that turnover is volume times a price from low to high: of all trades, of takers, of makers.

    Source: they hold in 8 million spot rows and 7 million USD-M rows, as exact decimals without any tolerance. So the
    tolerance is the rounding of Float64, for makers that of the amounts of which theirs are the difference.
    """
    volume, turnover, taker_volume, taker_turnover = (pl.col(name) for name in market.value_columns)
    low, high = pl.col("low"), pl.col("high")
    rounding = _FLOAT_ROUNDING * high * volume

    def within(amount: pl.Expr, quantity: pl.Expr) -> pl.Expr:
        return (amount >= low * quantity - rounding) & (amount <= high * quantity + rounding)

    return _mean_price(
        market,
        within(turnover, volume),
        within(taker_turnover, taker_volume),
        within(turnover - taker_turnover, volume - taker_volume),
    )


def _inverse_rules(market: Market, interval: Interval, contract_size: int | None) -> list[_Rule]:
    """Return the same rules for COIN-M, whose contracts are worth a fixed amount of USD.

    Source: 2,880 recorded candles of 1m, in which the base volume is rounded to 8 decimals. A coarser candle may add up
    the rounding of each of its minutes.
    """
    if contract_size is None:
        return []
    volume, base, taker_volume, taker_base = (pl.col(name) for name in market.value_columns)
    rounding = _HALF_A_UNIT * max(1, interval.step // MINUTE) + _FLOAT_ROUNDING * base

    def within(amount: pl.Expr, contracts: pl.Expr, tolerance: pl.Expr) -> pl.Expr:
        value = contract_size * contracts
        return (amount >= value / pl.col("high") - tolerance) & (amount <= value / pl.col("low") + tolerance)

    return _mean_price(
        market,
        within(base, volume, rounding),
        within(taker_base, taker_volume, rounding),
        within(base - taker_base, volume - taker_volume, 2 * rounding),
    )


def _mean_price(market: Market, of_all: pl.Expr, of_takers: pl.Expr, of_makers: pl.Expr) -> list[_Rule]:
    volume, turnover, taker_volume, taker_turnover = market.value_columns
    return [
        _Rule(turnover, f"is {volume} at a mean price from low to high", of_all),
        _Rule(taker_turnover, f"is {taker_volume} at a mean price from low to high", of_takers),
        _Rule(turnover, "without that of takers is the volume of makers at a mean price from low to high", of_makers),
    ]


def _finite(name: str) -> pl.Expr:
    return pl.col(name).is_finite()


def _on_grid(interval: Interval) -> pl.Expr:
    open_time = pl.col("open_time")
    if interval.is_month:
        return open_time == open_time.dt.truncate("1mo")
    phase = (open_time.dt.epoch("ms") - interval.anchor) % interval.step
    if interval.has_symbol_phase:
        return (phase == phase.mode().first()) & (open_time == open_time.dt.truncate("1d"))
    return phase == 0


def _all_true(holds: pl.Expr) -> Callable[[PolarsData], pl.LazyFrame]:
    return lambda data: data.lazyframe.select(holds.fill_null(False))
