"""Downloads from the sandbox exchange, and their comparison with its candles."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from contextlib import contextmanager

import polars as pl

from binance_assets.exchange.retry import Retrier
from binance_assets.exchange.session import Exchange
from binance_assets.ingest.download import download
from binance_assets.ingest.options import DownloadOptions
from binance_assets.model.partitions import partitions_between
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import parse_series
from binance_assets.model.timestamps import MINUTE
from binance_assets.sandbox import Sandbox, SandboxOptions, ServedRequest, running_sandbox
from binance_assets.settings import Settings, Source
from binance_assets.storage.lake import Lake
from binance_assets_tests.support.candles import parse_page

_QUICK = 1 / 50


def quick_retrier() -> Retrier:
    """Return a retrier with the same attempts and fifty times shorter delays."""
    return Retrier(lambda seconds, stop: stop.wait(seconds * _QUICK))


def pointed_to(settings: Settings, url: str) -> Settings:
    """Return settings whose hosts, those of the markets and of the archive, are all at ``url``."""
    urls = dict.fromkeys(("spot_url", "usdm_url", "coinm_url", "archive_url"), url)
    return Settings.model_validate(settings.model_dump() | urls)


SMALL_LIMIT = 600
"""The weight limit of spot in :func:`end_of_a_minute`: a tenth of the documented one; a lower one is not believed."""


@contextmanager
def end_of_a_minute(settings: Settings, seconds: int = 6, rtt_ms: float = 0.0) -> Iterator[tuple[Sandbox, Settings]]:
    """Serve a sandbox with small limits and a clock shortly before the end of a minute; yield settings for it.

    Args:
        settings: The settings to start from.
        seconds: How long the minute still lasts.
        rtt_ms: Round-trip time of the sandbox, ms.
    """
    offset = MINUTE - seconds * 1_000 - int(time.time() * 1_000) % MINUTE
    limits = {"spot": SMALL_LIMIT, "futures": 240}
    with running_sandbox(SandboxOptions(rtt_ms=rtt_ms, limits=limits, clock_offset_ms=offset)) as sandbox:
        yield sandbox, pointed_to(settings, sandbox.url)


def expected_candles(sandbox: Sandbox, name: str, start: int, end: int) -> pl.DataFrame:
    """Return the candles of a series that open in ``[start, end)`` (ms UTC), unaffected by faults."""
    series = parse_series(name)
    body = sandbox.body(series.market.name, series.symbol, series.interval.api_name, start, end)
    return parse_page(series.market, body)


def assert_complete_and_exact(sandbox: Sandbox, name: str, days: list[PartitionResult]) -> None:
    """Assert that all results are complete and have exactly the candles of the sandbox."""
    assert [day.verdict for day in days] == ["complete"] * len(days), [day.reason for day in days]
    for day in days:
        assert day.candles.equals(expected_candles(sandbox, name, day.partition.start, day.partition.end))


ALL_SOURCES = ("klines", "archive")
"""The paths of a fault that affects REST and the archive alike."""


def days_of(
    settings: Settings,
    name: str,
    start: str,
    end: str,
    source: Source = "rest",
    strict: bool = False,
    listing_cache: Lake | None = None,
) -> list[PartitionResult]:
    """Download a series from one day to another, the end excluded; return the results in order."""
    series = parse_series(name)
    exchange = Exchange(series.market, settings, retrier=quick_retrier())
    partitions = partitions_between(dt.date.fromisoformat(start), dt.date.fromisoformat(end), series.interval)
    try:
        return sorted(
            download(exchange, series, partitions, DownloadOptions(source, strict, listing_cache)),
            key=lambda day: day.partition,
        )
    finally:
        exchange.close()


def verdicts(days: list[PartitionResult]) -> list[str]:
    """Return the verdict of each result."""
    return [day.verdict for day in days]


def with_short_timeouts(settings: Settings, seconds: float = 0.5) -> Settings:
    """Return the settings with timeouts that are short enough for a test of a hang."""
    timeouts = {"connect_timeout": seconds, "read_timeout": seconds}
    return Settings.model_validate(settings.model_dump() | timeouts)


def klines(sandbox: Sandbox, interval: str) -> list[ServedRequest]:
    """Return the requests for candles of an interval."""
    return [
        request
        for request in sandbox.requests
        if request.path.endswith("/klines") and request.params["interval"] == interval
    ]


def assert_exact(sandbox: Sandbox, name: str, days: list[PartitionResult]) -> None:
    """Assert that all results, whatever their verdicts, have exactly the candles of the sandbox."""
    for day in days:
        assert day.candles.equals(expected_candles(sandbox, name, day.partition.start, day.partition.end)), (
            day.partition
        )
