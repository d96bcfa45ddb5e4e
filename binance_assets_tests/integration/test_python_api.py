"""Downloading from Python: the sandbox over real HTTP, into a real lake, and what is read from it."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import polars as pl
import pytest

import binance_assets as ba
from binance_assets.model.timestamps import DAY, MINUTE, from_iso
from binance_assets.sandbox import Fault, Sandbox
from binance_assets.settings import ConfigurationError, Settings
from binance_assets.storage.lake import Lake
from binance_assets_tests.support.exchange import ALL_SOURCES, expected_candles, klines
from binance_assets_tests.support.lakes import keys, local

BTC, ETH, COIN = "spot/BTCUSDT/1m", "spot/ETHUSDT/1m", "coinm/BTCUSD_PERP/1m"
START, END = "2024-03-01", "2024-03-03"
FIRST, LAST = from_iso("2024-03-01T00:00:00Z"), from_iso("2024-03-03T00:00:00Z")


def test_series_of_two_markets_are_downloaded_and_what_is_there_is_skipped(
    sandbox: Sandbox, settings: Settings
) -> None:
    seen: list[ba.DownloadProgress] = []
    names = [BTC, COIN, ETH]
    outcomes = ba.download(names, START, END, source="rest", progress=seen.append, settings=settings)
    assert [outcome.series for outcome in outcomes] == names
    assert all(outcome.is_complete and outcome.verdicts == {"complete": 2} for outcome in outcomes)
    assert all(outcome.rows == 2 * 1440 and outcome.requests and outcome.weight for outcome in outcomes)
    assert sorted((event.series, event.done) for event in seen if event.result) == [
        (name, done) for name in sorted(names) for done in (1, 2)
    ]
    for name in names:
        assert ba.load(name, START, END, lake=settings.lake).equals(expected_candles(sandbox, name, FIRST, LAST))
    lake = Lake(settings.lake)
    assert lake.venue == "sandbox"
    assert not settings.universe.exists()
    sandbox.requests.clear()
    again = ba.download(names, START, END, settings=settings)
    assert [(outcome.present, outcome.rows, outcome.requests) for outcome in again] == [(2, 0, 0)] * 3
    assert klines(sandbox, "1m") == []


def test_resampled_candles_are_those_of_the_exchange(sandbox: Sandbox, settings: Settings) -> None:
    ba.download([BTC, COIN], START, END, settings=settings)
    for name in (BTC, COIN):
        for every in ("5m", "1h", "1d"):
            coarse = ba.load(name, START, END, every, lake=settings.lake)
            assert coarse.equals(expected_candles(sandbox, name.replace("1m", every), FIRST, LAST)), (name, every)


def quiet_minute(sandbox: Sandbox) -> int:
    """Return the open time of a minute of the first day in which nothing was traded."""
    whole = expected_candles(sandbox, BTC, FIRST, FIRST + DAY)
    return int(whole.filter(pl.col("trades") == 0)["open_time"].to_physical()[0])


def add_gap(sandbox: Sandbox, start: int, end: int) -> None:
    """Take minutes out of the responses of both sources."""
    for path in ALL_SOURCES:
        sandbox.faults.add(Fault("missing_row", start=start, end=end, path=path, interval="1m"))


def test_a_refused_day_is_returned_and_reading_it_names_the_command(sandbox: Sandbox, settings: Settings) -> None:
    noon = from_iso("2024-03-02T12:00:00Z")
    add_gap(sandbox, noon, noon + MINUTE)
    (outcome,) = ba.download(BTC, START, END, settings=settings)
    assert (outcome.requested, outcome.present, outcome.is_complete) == (2, 1, False)
    assert [(result.partition.key, result.verdict) for result in outcome.refused] == [("2024-03-02", "lost")]
    with pytest.raises(ba.MissingPartitions, match="lacks 2024-03-02 of spot/BTCUSDT/1m; run binance-assets download"):
        ba.scan(BTC, START, END, lake=settings.lake)
    assert ba.load(BTC, START, END, allow_missing=True, lake=settings.lake).height == 1440


def test_an_outage_is_accepted_and_filled_when_it_is_read(sandbox: Sandbox, settings: Settings) -> None:
    quiet = quiet_minute(sandbox)
    add_gap(sandbox, quiet, quiet + MINUTE)
    (outcome,) = ba.download(BTC, START, "2024-03-02", settings=settings)
    assert (outcome.is_complete, outcome.verdicts) == (True, {"outage": 1})
    arguments = (BTC, START, "2024-03-02")
    assert ba.load(*arguments, lake=settings.lake).height == 1439
    flat = ba.load(*arguments, missing="flat", lake=settings.lake)
    whole = expected_candles(sandbox, BTC, FIRST, FIRST + DAY)
    # The exchange's own candle without trades is the flat one.
    assert flat.drop("is_filled").equals(whole)
    assert flat.filter("is_filled")["open_time"].to_physical().to_list() == [quiet]
    with pytest.raises(ba.MissingCandles):
        ba.scan(*arguments, missing="raise", lake=settings.lake)


def test_an_error_of_the_callback_ends_the_download_and_what_arrived_is_written(settings: Settings) -> None:
    class Stop(Exception):
        """What the callback raises."""

    def stop(progress: ba.DownloadProgress) -> None:
        raise Stop

    with pytest.raises(Stop):
        ba.download(BTC, START, END, progress=stop, settings=settings)
    assert keys(Lake(settings.lake), ba.parse_series(BTC))[:1] == [START]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((BTC, "2024-03-01", "2024-02"), ConfigurationError, "end 2024-02-01 is not after start 2024-03-01"),
        (("spot/BTCUSDT/1w", "2024-03-02"), ConfigurationError, "start 2024-03-02: 1w has monthly partitions"),
        (("spot/BTCUSDT/45m", START, END), ConfigurationError, "spot/BTCUSDT/45m is derived and cannot be fetched"),
        (("spot/BTCUSTD/1m", START, END), ConfigurationError, "no symbol BTCUSTD (did you mean BTCUSDT"),
        ((BTC, dt.datetime(2024, 3, 1, 12)), ConfigurationError, "start 2024-03-01 12:00 is not a midnight"),
    ],
)
def test_a_bad_request_is_answered_before_anything_is_written(
    settings: Settings, arguments: tuple[Any, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        ba.download(*arguments, settings=settings)
    assert not local(settings.lake).exists()


def test_a_lake_of_another_venue_is_refused(settings: Settings) -> None:
    Lake(settings.lake).prepare("binance")
    with pytest.raises(ba.LakeError, match="holds candles of venue 'binance', not of 'sandbox'"):
        ba.download(BTC, START, END, settings=settings)


def test_an_exchange_that_serves_us_nothing_is_an_error_of_the_exchange(sandbox: Sandbox, settings: Settings) -> None:
    for path in ("klines", "exchangeInfo", "time", "ping", "archive/listing"):
        sandbox.faults.add(Fault("status", value=451, path=path))
    sandbox.faults.add(Fault("status", value=404, path="archive"))
    for call in (
        lambda: ba.download(BTC, START, END, settings=settings),
        lambda: ba.symbols("spot", settings=settings),
    ):
        with pytest.raises(ba.ExchangeError, match="does not serve this location"):
            call()
    assert not local(settings.lake).exists()


def test_the_source_of_the_universe_counts(sandbox: Sandbox, settings: Settings) -> None:
    settings.universe.write_text("series: [{market: spot, symbols: [BTCUSDT], intervals: [1m], source: archive}]\n")
    ba.download(BTC, START, END, settings=settings)
    assert klines(sandbox, "1m") == []
    stored = Lake(settings.lake).stored_partitions(ba.parse_series(BTC))
    assert {entry.source for entry in stored.values()} == {"archive"}


def test_symbols_are_a_table(settings: Settings) -> None:
    table = ba.symbols("spot", quote="USDT", top=2, settings=settings)
    assert table["symbol"].to_list() == ["BTCUSDT", "ETHUSDT"]
    assert table["listed"].all()
    assert table["volume"].is_sorted(descending=True)
    days = ba.symbols("spot", match="BTCUSDT", days=True, settings=settings)
    assert days.select(pl.col("first").is_not_null()).item()
    with pytest.raises(ConfigurationError, match="'mars'"):
        ba.symbols("mars", settings=settings)
    with pytest.raises(ConfigurationError, match="match"):
        ba.symbols("spot", match="(", settings=settings)
