"""The Pandera schema of the candle table, one per market and interval: the columns, and the rules for every row.

Names, types and descriptions of the columns come from :mod:`binance_assets.candles.columns`. Together they are the only
description of the table: the Parquet files, Dagster's column metadata and the README follow them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import pandera.polars as pa
import polars as pl
from pandera.api.polars.types import PolarsData

from binance_assets.candles.columns import DESCRIPTIONS, PRICES, columns
from binance_assets.model.intervals import Interval
from binance_assets.model.markets import Market


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
        text = f"{self.column} {self.message}"
        return pa.Check(_all_true(self.holds), name=text, error=text, ignore_na=False)


@cache
def candle_schema(market: Market, interval: Interval) -> pa.DataFrameSchema:
    """Return the schema that every accepted table of candles of a market and interval satisfies.

    It checks types; no nulls; open times strictly ascending and on the grid of the interval (``3d``: one grid per
    table); ``low <= open, close <= high``; prices positive and finite; volumes and trades not negative; taker volumes
    at most the total. It does not look for gaps, see :mod:`binance_assets.completeness.validation`.
    """
    return _schema(market, interval, [rule.check() for rule in _rules(market, interval)], nullable=False)


@cache
def quick_schema(market: Market, interval: Interval) -> pa.DataFrameSchema:
    """Return a schema with the same rules as one check: ten times as fast, but without the name of the broken rule."""
    check = pa.Check(_all_true(every_rule(market, interval)), name="every rule holds", ignore_na=False)
    return _schema(market, interval, [check], nullable=True)


@cache
def every_rule(market: Market, interval: Interval) -> pl.Expr:
    """Return an expression that is true in the rows that follow every rule, of a table that is sorted by open time."""
    is_filled = [pl.col(name).is_not_null() for name in columns(market)]
    return pl.all_horizontal([*is_filled, *(rule.holds for rule in _rules(market, interval))])


def _schema(market: Market, interval: Interval, checks: list[pa.Check], nullable: bool) -> pa.DataFrameSchema:
    described_columns = {
        name: pa.Column(dtype, nullable=nullable, description=DESCRIPTIONS[name])
        for name, dtype in columns(market).items()
    }
    return pa.DataFrameSchema(
        described_columns, checks=checks, strict=True, ordered=True, name=f"{market.name}_{interval.name}"
    )


def _rules(market: Market, interval: Interval) -> list[_Rule]:
    volume, turnover, taker_volume, taker_turnover = market.value_columns
    open_time, close_time = pl.col("open_time"), pl.col("close_time")
    step = pl.duration(milliseconds=interval.step)
    # In Polars NaN is greater than any number, so the rules check explicitly that values are finite.
    prices = [_Rule(name, "is a positive number", _finite(name) & (pl.col(name) > 0)) for name in PRICES]
    amounts = [
        _Rule(name, "is a number and not negative", _finite(name) & (pl.col(name) >= 0))
        for name in market.value_columns
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
