"""The sandbox exchange as the tests see it: true rows, faults, downloads."""

from __future__ import annotations

import datetime as dt

import polars as pl

from binance_assets.exchange.retry import Retrier
from binance_assets.exchange.session import Exchange
from binance_assets.ingest.download import download
from binance_assets.ingest.options import DownloadOptions
from binance_assets.model.partitions import partitions_between
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import parse_series
from binance_assets.sandbox import Sandbox, ServedRequest
from binance_assets.settings import Settings, Source
from binance_assets.storage.lake import Lake
from binance_assets_tests.support.candles import body_of, parse_page

_QUICK = 1 / 50


def quick_retrier() -> Retrier:
    """Return a retrier with the same attempts and fifty times shorter delays."""
    return Retrier(lambda seconds, stop: stop.wait(seconds * _QUICK))


def truth(sandbox: Sandbox, name: str, start: int, end: int) -> pl.DataFrame:
    series = parse_series(name)
    rows = sandbox.rows(series.market.name, series.symbol, series.interval.api_name, start, end)
    return parse_page(series.market, body_of(rows))


def assert_the_truth(sandbox: Sandbox, name: str, days: list[PartitionResult]) -> None:
    assert [day.verdict for day in days] == ["complete"] * len(days), [day.reason for day in days]
    for day in days:
        assert day.candles.equals(truth(sandbox, name, day.partition.start, day.partition.end))


ALL_SOURCES = ("klines", "archive")


EVERYWHERE = ("klines", "archive")


def days_of(
    connection: Settings,
    name: str,
    start: str,
    end: str,
    source: Source = "rest",
    strict: bool = False,
    listing_cache: Lake | None = None,
) -> list[PartitionResult]:
    """The verdicts from one day to another, the end excluded, in order of time."""
    series = parse_series(name)
    exchange = Exchange(series.market, connection, retrier=quick_retrier())
    partitions = partitions_between(dt.date.fromisoformat(start), dt.date.fromisoformat(end), series.interval)
    try:
        return sorted(
            download(exchange, series, partitions, DownloadOptions(source, strict, listing_cache)),
            key=lambda day: day.partition,
        )
    finally:
        exchange.close()


def verdicts(days: list[PartitionResult]) -> list[str]:
    return [day.verdict for day in days]


def impatient(connection: Settings) -> Settings:
    """The same with time-outs that a test can wait for."""
    return Settings.model_validate(connection.model_dump() | {"connect_timeout": 0.5, "read_timeout": 0.5})


def klines(sandbox: Sandbox, interval: str) -> list[ServedRequest]:
    """The requests for candles of an interval."""
    return [one for one in sandbox.requests if one.path.endswith("/klines") and one.params["interval"] == interval]


def assert_as_the_exchange_has_them(sandbox: Sandbox, name: str, days: list[PartitionResult]) -> None:
    for day in days:
        assert day.candles.equals(truth(sandbox, name, day.partition.start, day.partition.end)), day.partition
