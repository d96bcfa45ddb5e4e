"""Recorded candles of the real exchange, replayed by the sandbox, through the real client over real HTTP."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from binance_assets.exchange.pages import Page
from binance_assets.exchange.session import Exchange
from binance_assets.ingest.download import download
from binance_assets.ingest.options import DownloadOptions
from binance_assets.model.markets import Market
from binance_assets.model.partitions import partitions_between
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import parse_series
from binance_assets.model.timestamps import HOUR, MINUTE
from binance_assets.sandbox import Sandbox, SandboxOptions, running_sandbox
from binance_assets.settings import Settings, Source, read_settings
from binance_assets_tests.support.candles import archive_rows, expected, parse_page
from binance_assets_tests.support.environment import environment_of


@pytest.fixture(scope="module")
def replaying(recorded_zips: Path) -> Iterator[Sandbox]:
    with running_sandbox(SandboxOptions(replay=recorded_zips)) as running:
        yield running


@pytest.fixture
def settings(replaying: Sandbox, tmp_path: Path) -> Settings:
    return read_settings(environment_of(replaying, tmp_path))


def fetch(settings: Settings, name: str, start: str, end: str, source: Source = "rest") -> list[PartitionResult]:
    series = parse_series(name)
    exchange = Exchange(series.market, settings)
    partitions = partitions_between(dt.date.fromisoformat(start), dt.date.fromisoformat(end), series.interval)
    try:
        return list(download(exchange, series, partitions, DownloadOptions(source)))
    finally:
        exchange.close()


def rest_rows(path: Path) -> list[list[Any]]:
    rows: list[list[Any]] = json.loads(path.read_text())
    return rows


@pytest.mark.parametrize(
    ("name", "day", "file"),
    [
        ("spot/BTCUSDT/1m", "2020-01-01", "spot/BTCUSDT-1m-2020-01-01.zip"),
        ("spot/BTCUSDT/1m", "2020-01-02", "spot/BTCUSDT-1m-2020-01-02.zip"),
        ("spot/BTCUSDT/1m", "2020-01-03", "spot/BTCUSDT-1m-2020-01-03.zip"),
        ("spot/ARBUSDT/1m", "2023-07-25", "spot/ARBUSDT-1m-2023-07-25.zip"),
        ("spot/ARBUSDT/15m", "2023-07-25", "spot/ARBUSDT-15m-2023-07-25.zip"),
        ("usdm/BTCUSDT/1m", "2022-09-05", "usdm/BTCUSDT-1m-2022-09-05.zip"),
        ("usdm/ETHUSDT/1h", "2022-08-24", "usdm/ETHUSDT-1h-2022-08-24.zip"),
        ("coinm/BTCUSD_PERP/1m", "2022-10-24", "coinm/BTCUSD_PERP-1m-2022-10-24.zip"),
    ],
)
def test_recorded_day_arrives_bit_equal(
    settings: Settings, recorded_zips: Path, name: str, day: str, file: str
) -> None:
    (result,) = fetch(settings, name, day, (dt.date.fromisoformat(day) + dt.timedelta(1)).isoformat())
    assert result.verdict == "complete", result.reason
    assert result.candles.equals(expected(parse_series(name).market, archive_rows(recorded_zips / file)))


@pytest.mark.parametrize("source", ["rest", "archive", "auto"])
def test_day_of_the_outage_is_proved_by_control_totals_and_the_days_around_it_are_complete(
    settings: Settings, source: Source
) -> None:
    before, outage, after = sorted_days(fetch(settings, "spot/BTCUSDT/1m", "2023-03-23", "2023-03-26", source))
    assert [before.verdict, outage.verdict, after.verdict] == ["complete", "outage", "complete"]
    assert "2023-03-24 12:40 to 14:00" in outage.reason
    assert "spot outage of 2023-03-24 12:39" in outage.reason
    assert outage.candles.height == 1_360


@pytest.mark.usefixtures("recorded")
def test_hours_of_february_2018_are_complete_except_for_an_outage_of_33_hours(settings: Settings) -> None:
    days = sorted_days(fetch(settings, "spot/BTCUSDT/1h", "2018-02-01", "2018-03-01"))
    assert all(day.is_accepted for day in days), [day.reason for day in days if not day.is_accepted]
    assert {day.partition.key for day in days if day.verdict == "outage"} == {"2018-02-08", "2018-02-09"}
    assert sum(len(hours(day)) for day in days) == 33


def hours(day: PartitionResult) -> list[int]:
    return [time for start, end in day.missing for time in range(start, end, HOUR)]


def sorted_days(days: list[PartitionResult]) -> list[PartitionResult]:
    return sorted(days, key=lambda day: day.partition)


@pytest.mark.parametrize(
    ("name", "file", "start", "end"),
    [
        ("spot/BTCUSDT/3d", "REST_spot_BTCUSDT_3d_2020-01-01.json", "2020-02-01", "2020-12-01"),
        ("spot/DOTUSDT/3d", "REST_spot_DOTUSDT_3d_2020-01-01.json", "2020-09-01", "2021-06-01"),
        ("spot/BTCUSDT/1w", "REST_spot_BTCUSDT_1w_2010-01-01.json", "2018-01-01", "2019-01-01"),
        ("spot/SOLUSDT/1M", "REST_spot_SOLUSDT_1M_2010-01-01.json", "2020-08-01", "2021-08-01"),
    ],
)
def test_recorded_multi_day_candles_fill_their_months(
    settings: Settings, recorded: Path, name: str, file: str, start: str, end: str
) -> None:
    months = fetch(settings, name, start, end)
    # No 1d candles of these symbols are recorded that could prove them.
    assert {month.verdict for month in months} == {"unproved"}, [month.reason for month in months]
    first, last = months[0].partition.start, months[-1].partition.end
    rows = [row for row in rest_rows(recorded / "spot" / file) if first <= row[0] < last]
    assert sum(month.candles.height for month in months) == len(rows)


def recorded_responses(folder: Path) -> Iterator[tuple[dict[str, str], list[list[Any]]]]:
    for path in sorted(folder.glob("gct_*.json")):
        pair = json.loads(path.read_text())
        query = dict(part.split("=") for part in pair["query"].split("&"))
        if "startTime" in query and isinstance(pair["body"], list):
            yield query, pair["body"]


def parse_body(market: Market, _: Page, body: bytes) -> pl.DataFrame:
    return parse_page(market, body)


@pytest.mark.parametrize("market", ["spot", "usdm"])
def test_recorded_windows_are_inclusive_at_both_ends(settings: Settings, recorded: Path, market: str) -> None:
    responses = list(recorded_responses(recorded / market))
    assert responses
    for query, rows in responses:
        series = parse_series(f"{market}/{query['symbol']}/{query['interval']}")
        exchange = Exchange(series.market, settings)
        page = Page(int(query["startTime"]), int(query["endTime"]) + 1, int(query.get("limit", 500)), 5)
        candles = exchange.klines(series, page, partial(parse_body, series.market))
        assert candles.equals(expected(series.market, rows))
        exchange.close()


def test_every_recorded_minute_of_coin_m_arrives_once_although_coin_m_returns_the_newest_rows(
    settings: Settings, replaying: Sandbox, recorded_zips: Path
) -> None:
    replaying.requests.clear()
    (day,) = fetch(settings, "coinm/BTCUSD_PERP/1m", "2022-10-24", "2022-10-25")
    opens = day.candles["open_time"].to_physical().to_list()
    rows = archive_rows(recorded_zips / "coinm" / "BTCUSD_PERP-1m-2022-10-24.zip")
    assert opens == [row[0] for row in rows]
    windows = [request.params for request in replaying.requests if request.params.get("interval") == "1m"]
    windows = windows[1:]  # the first one looks for the symbol's first candle
    assert [int(window["limit"]) for window in windows] == [499, 499, 499]
    assert all(int(window["endTime"]) - int(window["startTime"]) < int(window["limit"]) * MINUTE for window in windows)
