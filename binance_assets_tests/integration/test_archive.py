"""The archive as a source: which files are fetched, what they hold, and what happens if a file is bad."""

from __future__ import annotations

import datetime as dt
import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from binance_assets.exchange.archive_files import ArchiveFile, all_files, cheaper_files, daily_files_only
from binance_assets.exchange.errors import NoFile
from binance_assets.exchange.session import Exchange
from binance_assets.ingest.request import forecast
from binance_assets.model.markets import COINM, MARKETS, SPOT, USDM, Market
from binance_assets.model.partitions import Partition, next_partition_first_day, partition_for_key, partitions_between
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import Series, parse_series
from binance_assets.model.timestamps import DAY, HOUR, MINUTE, SECOND, to_date, to_ms
from binance_assets.sandbox import Fault, Sandbox, SandboxOptions, running_sandbox
from binance_assets.sandbox.archive import parse_path
from binance_assets.sandbox.faults import ARCHIVE_ROW_FAULTS
from binance_assets.settings import Settings, Source, read_settings
from binance_assets.storage.lake import Lake
from binance_assets_tests.support.candles import archive_rows, expected
from binance_assets_tests.support.environment import environment_of
from binance_assets_tests.support.exchange import (
    ALL_SOURCES,
    assert_exact,
    days_of,
    expected_candles,
    klines,
    pointed_to,
    verdicts,
    with_short_timeouts,
)
from binance_assets_tests.support.hostile_server import Pieces, answer, hostile_server
from binance_assets_tests.support.lakes import stored

BTC = "spot/BTCUSDT/1m"
JAN_2 = to_ms(dt.date(2024, 1, 2))
NOON = JAN_2 + 12 * HOUR
WEEK = ("2024-01-01", "2024-01-04")
Choose = Callable[[Series, Sequence[Partition], int], list[ArchiveFile]]


# -- which files to fetch ---------------------------------------------------------------------------------------------


@st.composite
def archive_requests(draw: st.DrawFn) -> tuple[Series, list[Partition], int]:
    """Draw a series, some of its partitions, and the time (ms UTC) of a request for them."""
    market = draw(st.sampled_from(list(MARKETS.values())))
    symbol = "BTCUSD_PERP" if market is COINM else "BTCUSDT"
    series = Series(market, symbol, draw(st.sampled_from(market.intervals)))
    first = draw(st.dates(dt.date(2019, 6, 1), dt.date(2026, 6, 1)))
    end = first = first.replace(day=1) if series.interval.is_multi_day else first
    wanted = draw(st.lists(st.booleans(), min_size=1, max_size=100))
    for _ in wanted:
        end = next_partition_first_day(end, series.interval)
    every = partitions_between(first, end, series.interval)
    partitions = [partition for partition, is_wanted in zip(every, wanted, strict=True) if is_wanted]
    return series, partitions, draw(st.integers(every[0].start, every[-1].end + 40 * DAY))


@pytest.mark.parametrize("choose", [cheaper_files, all_files, daily_files_only])
@given(request_=archive_requests())
def test_each_partition_is_in_at_most_one_file_and_no_file_is_too_recent(
    choose: Choose, request_: tuple[Series, list[Partition], int]
) -> None:
    series, partitions, now = request_
    files = choose(series, partitions, now)
    held = [partition for file in files for partition in file.partitions]
    assert held == sorted(set(held)), "in order, and each once"
    assert set(held) <= set(partitions)
    for file in files:
        assert file.partitions
        assert all(file.start <= partition.start and partition.end <= file.end for partition in file.partitions)
        min_age = 3 * DAY if file.monthly else 2 * DAY if choose is cheaper_files else 0
        assert file.end + min_age <= now
        assert file.end > to_ms(series.market.archived)
        assert file.monthly or file.start >= to_ms(series.market.archived)


@pytest.mark.parametrize("choose", [cheaper_files, all_files, daily_files_only])
@given(request_=archive_requests())
def test_file_names_match_those_of_the_archive(choose: Choose, request_: tuple[Series, list[Partition], int]) -> None:
    series = request_[0]
    for file in choose(*request_):
        parsed = parse_path(file.path)
        assert parsed is not None, file.path
        assert parsed == parse_path(f"{file.path.rpartition('/')[0]}/{file.name}")
        (parsed_file, is_checksum) = parsed
        assert (parsed_file.market, parsed_file.symbol, parsed_file.interval) == (
            series.market,
            series.symbol,
            series.interval,
        )
        assert (parsed_file.start, parsed_file.end, is_checksum) == (file.start, file.end, False)


@pytest.mark.parametrize(
    ("name", "key", "path"),
    [
        (BTC, "2020-01-01", "spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2020-01-01.zip"),
        ("usdm/BTCUSDT/1h", "2022-09-05", "futures/um/daily/klines/BTCUSDT/1h/BTCUSDT-1h-2022-09-05.zip"),
        ("spot/SOLUSDT/1M", "2024-02-01", "spot/monthly/klines/SOLUSDT/1mo/SOLUSDT-1mo-2024-02.zip"),
        ("coinm/BTCUSD_PERP/3d", "2023-12-01", "futures/cm/monthly/klines/BTCUSD_PERP/3d/BTCUSD_PERP-3d-2023-12.zip"),
    ],
)
def test_files_have_the_paths_of_the_archive(name: str, key: str, path: str) -> None:
    series = parse_series(name)
    (file,) = daily_files_only(series, [partition_for_key(key, series.interval)], to_ms(dt.date(2026, 1, 1)))
    assert file.path == f"/data/{path}"


@given(request_=archive_requests())
def test_auto_fetches_a_file_only_if_it_is_cheaper_than_rest(request_: tuple[Series, list[Partition], int]) -> None:
    series, _, now = request_
    rows_per_page = 1000 if series.market is SPOT else 499
    for file in cheaper_files(*request_):
        rows = sum((partition.end - partition.start) // series.interval.step for partition in file.partitions)
        assert rows > 2 * rows_per_page
    least = forecast(*request_[:2], "auto", now)
    rest = forecast(*request_[:2], "rest", now)
    assert least.weight <= rest.weight
    assert (rest.files, rest.weight == 0) == (0, rest.requests == 0)


@given(request_=archive_requests())
def test_each_partition_is_requested_from_one_source(request_: tuple[Series, list[Partition], int]) -> None:
    series, partitions, now = request_
    files = cheaper_files(series, partitions, now)
    expected_cost = forecast(series, partitions, "auto", now)
    assert expected_cost.files == len(files)
    assert (expected_cost.weight == 0) == (
        len([partition for file in files for partition in file.partitions]) == len(partitions)
    )


@given(
    market=st.sampled_from([SPOT, USDM, COINM]), month=st.dates(dt.date(2020, 9, 1), dt.date(2026, 1, 1)),
    months=st.integers(1, 5), hours=st.integers(72, 2_000),
)  # fmt: skip
def test_each_whole_past_month_of_1m_is_one_file(market: Market, month: dt.date, months: int, hours: int) -> None:
    series = Series(market, "BTCUSD_PERP" if market is COINM else "BTCUSDT", parse_series(BTC).interval)
    first = month.replace(day=1)
    end = first
    for _ in range(months):
        end = (end + dt.timedelta(32)).replace(day=1)
    partitions = partitions_between(first, end, series.interval)
    for choose in (cheaper_files, all_files):
        files = choose(series, partitions, to_ms(end) + hours * HOUR)
        assert [file.monthly for file in files] == [True] * months
        assert [partition for file in files for partition in file.partitions] == partitions


@given(now=st.integers(to_ms(dt.date(2021, 1, 1)), to_ms(dt.date(2026, 1, 1))), market=st.sampled_from([SPOT, USDM]))
def test_today_and_the_last_two_days_are_left_to_rest(now: int, market: Market) -> None:
    series = Series(market, "BTCUSDT", parse_series(BTC).interval)
    today = to_date(now)
    last_month = (today.replace(day=1) - dt.timedelta(1)).replace(day=1)
    partitions = partitions_between(last_month, today + dt.timedelta(1), series.interval)
    held = {partition for file in cheaper_files(series, partitions, now) for partition in file.partitions}
    assert held.isdisjoint(partitions[-3:])
    if market is USDM:
        assert held == set(partitions[:-3])
    elif today.day > 3:  # a day of spot is two pages, which costs no more than a zip and its checksum
        assert held == {partition for partition in partitions if to_date(partition.start) < today.replace(day=1)}


# -- what the files hold ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["archive", "auto"])
@pytest.mark.parametrize(
    ("name", "start", "end"),
    [
        (BTC, "2024-02-28", "2024-03-02"),
        (BTC, "2024-12-31", "2025-01-02"),
        ("spot/ETHUSDT/1m", "2024-12-01", "2025-02-01"),
        ("spot/BTCUSDT/1s", "2024-12-31", "2025-01-02"),
        ("spot/ETHUSDT/1h", "2024-12-01", "2025-02-01"),
        ("spot/BTCUSDT/1d", "2024-11-01", "2025-03-01"),
        ("spot/SOLUSDT/3d", "2024-11-01", "2025-03-01"),
        ("spot/SOLUSDT/1w", "2024-11-01", "2025-03-01"),
        ("spot/SOLUSDT/1M", "2024-11-01", "2025-03-01"),
        ("usdm/ETHUSDT/1m", "2022-06-29", "2022-07-03"),
        ("usdm/ETHUSDT/1h", "2022-06-01", "2022-08-01"),
        ("usdm/ETHUSDT/1d", "2022-06-01", "2022-08-01"),
        ("usdm/ETHUSDT/3d", "2022-05-01", "2022-09-01"),
        ("usdm/ETHUSDT/1w", "2022-05-01", "2022-09-01"),
        ("usdm/ETHUSDT/1M", "2022-05-01", "2022-09-01"),
        ("usdm/币安人生USDT/1h", "2025-12-30", "2026-01-03"),
        ("coinm/BTCUSD_PERP/1m", "2021-12-31", "2022-01-02"),
        ("coinm/BTCUSD_PERP/1h", "2021-12-01", "2022-02-01"),
        ("coinm/BTCUSD_PERP/1d", "2021-12-01", "2022-02-01"),
        ("coinm/BTCUSD_PERP/3d", "2021-11-01", "2022-03-01"),
        ("coinm/ETHUSD_PERP/1w", "2021-11-01", "2022-03-01"),
        ("coinm/ETHUSD_PERP/1M", "2021-11-01", "2022-03-01"),
    ],
)
def test_every_candle_equals_that_of_klines(
    sandbox: Sandbox, settings: Settings, name: str, start: str, end: str, source: Source
) -> None:
    days = days_of(settings, name, start, end, source)
    assert set(verdicts(days)) == {"complete"}, [day.reason for day in days]
    assert_exact(sandbox, name, days)
    if source == "archive":
        assert {day.provenance.source for day in days} == {"archive"}
        assert klines(sandbox, parse_series(name).interval.api_name if not name.endswith("/1d") else "") == []


@pytest.mark.parametrize("kind", ["header", "no_header", "junk_last_column", "reissued", "doubled_row"])
@pytest.mark.parametrize("name", [BTC, "usdm/ETHUSDT/1m", "coinm/BTCUSD_PERP/1m"])
def test_headers_junk_columns_repeated_rows_and_reissued_files_change_no_candle(
    sandbox: Sandbox, settings: Settings, name: str, kind: str
) -> None:
    sandbox.faults.add(Fault(kind, path="archive", interval="1m"))
    days = days_of(settings, name, "2024-12-31", "2025-01-02", "archive")
    assert verdicts(days) == ["complete"] * 2
    assert {day.provenance.source for day in days} == {"archive"}
    assert_exact(sandbox, name, days)


@pytest.fixture(scope="module")
def replaying(recorded_zips: Path) -> Iterator[Sandbox]:
    with running_sandbox(SandboxOptions(replay=recorded_zips)) as running:
        yield running


@pytest.mark.parametrize(
    ("name", "day", "file"),
    [
        (BTC, "2020-01-02", "spot/BTCUSDT-1m-2020-01-02.zip"),
        ("spot/ARBUSDT/1m", "2023-07-25", "spot/ARBUSDT-1m-2023-07-25.zip"),
        ("spot/ARBUSDT/15m", "2023-07-25", "spot/ARBUSDT-15m-2023-07-25.zip"),
        ("usdm/BTCUSDT/1m", "2022-09-05", "usdm/BTCUSDT-1m-2022-09-05.zip"),
        ("usdm/ETHUSDT/1h", "2022-08-24", "usdm/ETHUSDT-1h-2022-08-24.zip"),
        ("coinm/BTCUSD_PERP/1m", "2022-10-24", "coinm/BTCUSD_PERP-1m-2022-10-24.zip"),
    ],
)
def test_a_recorded_day_is_read_from_its_file(
    replaying: Sandbox, recorded_zips: Path, tmp_path: Path, name: str, day: str, file: str
) -> None:
    settings = read_settings(environment_of(replaying, tmp_path))
    (result,) = days_of(settings, name, day, f"{dt.date.fromisoformat(day) + dt.timedelta(1)}", "archive")
    assert (result.verdict, result.provenance.source) == ("complete", "archive"), result.reason
    assert result.provenance.file == Path(file).name
    assert result.candles.equals(expected(parse_series(name).market, archive_rows(recorded_zips / file)))


@pytest.mark.usefixtures("recorded")
def test_recorded_hours_are_complete_before_and_after_the_change_to_microseconds(
    replaying: Sandbox, tmp_path: Path
) -> None:
    settings = read_settings(environment_of(replaying, tmp_path))
    days = days_of(settings, "spot/BTCUSDT/1h", "2024-12-20", "2025-01-10", "archive")
    assert verdicts(days) == ["complete"] * 21, [day.reason for day in days]
    assert {day.provenance.file for day in days} == {"BTCUSDT-1h-2024-12.zip", "BTCUSDT-1h-2025-01.zip"}
    assert_exact(replaying, "spot/BTCUSDT/1h", days)


# -- bad files, one kind at a time and all at once --------------------------------------------------------------------

WHOLE_FILE: dict[str, dict[str, Any]] = {
    "404": {"kind": "status", "value": 404},
    "403": {"kind": "status", "value": 403},
    "500": {"kind": "status", "value": 500},
    "503": {"kind": "status", "value": 503},
    **{
        kind: {"kind": kind}
        for kind in ("checksum_mismatch", "truncated_zip", "not_a_zip", "two_members", "other_member", "reset",
                     "reset_amid_body", "truncated_body", "hang", "empty", "contradicting_row", "microseconds",
                     "stray_bracket", "unordered", "off_grid", "outside", "fields_11", "fields_13", "empty_strings",
                     "null")
    },
}  # fmt: skip
"""Faults after which nothing of a file is used."""
ONE_DAY = ("missing_row", "bad_prices", "negative_volume", "nan", "one_trade_more", "doubled_amounts")
"""Faults of one row, after which the other days of the file are still used."""
FIRST, END = dt.date(2024, 1, 30), dt.date(2024, 2, 3)
CASES = [(fault, kind) for fault in (*WHOLE_FILE, *ONE_DAY, "truncated_file") for kind in ("monthly", "daily")]
MARKETS_WITH_ALL_FAULTS = ("spot", "usdm", "coinm")
Case = tuple[str, str] | str
"""A fault and the kind of file that has it, or the market that has all faults."""
ALL_FAULTS = (*WHOLE_FILE, *ONE_DAY, "truncated_file", "reissued", "header")


def archive_fault(name: str, path: str, symbol: str, share: float = 1.0) -> Fault:
    start = end = None
    if name in ONE_DAY and share == 1:
        day = to_ms(FIRST if path == "archive/monthly" else END - dt.timedelta(1))
        start, end = day + 12 * HOUR, day + 12 * HOUR + MINUTE
    kind = WHOLE_FILE.get(name, {"kind": name})
    return Fault(**kind, start=start, end=end, path=path, symbol=symbol, interval="1m", share=share)


class ArchiveCases:
    """Downloads from a sandbox in February 2024, when January is in monthly files and February in daily ones.

    Each case has its fault on a symbol of its own, so that cases can run at the same time: those that wait for a
    timeout do not delay the others. Only these have short timeouts. A machine under load may reach a short timeout
    before the sandbox has responded, and the other cases must not see that.
    """

    def __init__(self, sandbox: Sandbox, folder: Path) -> None:
        self.sandbox = sandbox
        self.settings = read_settings(environment_of(sandbox, folder))
        self._hanging = with_short_timeouts(self.settings, seconds=1)
        self._all_faults = with_short_timeouts(self.settings, seconds=4)  # slow responses must not look like hangs
        self._numbers = count(1)
        self.cases: dict[Case, tuple[str, Future[list[PartitionResult]]]] = {}

    def run(self) -> None:
        with ThreadPoolExecutor(4) as threads:
            for case in sorted(CASES, key=lambda case: case[0] != "hang"):  # those that wait begin first
                fault, kind = case
                settings = self._hanging if fault == "hang" else self.settings
                symbol = f"N{next(self._numbers):03}USDT"  # listed on 2024-01-29: its file of January is short
                self.sandbox.faults.add(archive_fault(fault, f"archive/{kind}", symbol))
                name = f"usdm/{symbol}/1m"
                self.cases[case] = name, threads.submit(days_of, settings, name, str(FIRST), str(END), "auto")
            for market in MARKETS_WITH_ALL_FAULTS:
                symbol = "BTCUSD_PERP" if market == "coinm" else f"S{next(self._numbers):03}USDT"
                self.add_all_faults(symbol)
                name = f"{market}/{symbol}/1m"
                self.cases[market] = (
                    name, threads.submit(days_of, self._all_faults, name, "2024-01-20", "2024-02-08", "archive"),
                )  # fmt: skip

    def add_all_faults(self, symbol: str) -> None:
        """Corrupt a quarter of the archive's responses and some of the API's."""
        share = 0.25 / len(ALL_FAULTS)
        for fault in ALL_FAULTS:
            self.sandbox.faults.add(archive_fault(fault, "archive", symbol, share))
        for kind in ("missing_row", "reset", "bad_prices"):
            self.sandbox.faults.add(Fault(kind, symbol=symbol, interval="1m", share=0.05))

    def results_for(self, case: Case) -> tuple[str, list[PartitionResult]]:
        """Return the series of a case, and its results."""
        name, future = self.cases[case]
        return name, future.result()


@pytest.fixture(scope="module")
def archive_cases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArchiveCases]:
    offset = to_ms(dt.date(2024, 2, 20)) + 12 * HOUR - int(time.time() * SECOND)
    options = SandboxOptions(clock_offset_ms=offset, limits={"spot": 60_000, "futures": 24_000})
    with running_sandbox(options) as sandbox:
        cases = ArchiveCases(sandbox, tmp_path_factory.mktemp("cases"))
        cases.run()
        yield cases


@pytest.mark.parametrize(("fault", "kind"), CASES)
def test_rest_replaces_the_days_of_a_bad_file_and_the_reason_says_why(
    archive_cases: ArchiveCases, fault: str, kind: str
) -> None:
    name, days = archive_cases.results_for((fault, kind))
    assert verdicts(days) == ["complete"] * 4, [day.reason for day in days]
    assert_exact(archive_cases.sandbox, name, days)
    affected = days[:2] if kind == "monthly" else days[2:]
    if fault in ONE_DAY:
        affected = days[:1] if kind == "monthly" else days[3:]
    for day in days:
        if day in affected:
            assert day.provenance.source == "rest", day.partition
            if fault == "404":  # a file that is not there is no defect, and nothing to remark on a good day
                assert day.reason == ""
                continue
            assert day.reason.startswith("from rest, because of archive (")
            assert f"-1m-{str(day.partition)[: 7 if kind == 'monthly' else 10]}.zip): " in day.reason
            assert "\n" not in day.reason
        elif fault != "reset":  # after which nothing else is requested from the archive
            assert (day.provenance.source, day.reason) == ("archive", ""), day.partition


@pytest.mark.parametrize("market", MARKETS_WITH_ALL_FAULTS)
def test_with_all_faults_at_once_partitions_are_correct_or_refused_with_a_reason(
    archive_cases: ArchiveCases, market: str
) -> None:
    name, days = archive_cases.results_for(market)
    assert len(days) == 19
    for day in days:
        if day.is_accepted:
            whole = expected_candles(archive_cases.sandbox, name, day.partition.start, day.partition.end)
            assert day.candles.equals(whole.join(day.candles, on="open_time", how="semi")), day.partition
            assert whole.join(day.candles, on="open_time", how="anti")["trades"].sum() == 0, day.partition
        else:
            assert day.verdict in {"lost", "invalid", "unreachable"}
            assert day.reason
            assert "\n" not in day.reason
    assert sum(day.is_accepted for day in days) >= 10, [day.reason for day in days]


def test_all_kinds_of_row_faults_of_files_are_covered() -> None:
    # No difference in a CSV, a row that is dropped, and a change of the 1d candle only.
    harmless = {"strings_as_numbers", "doubled_row", "other_totals"}
    assert set(ARCHIVE_ROW_FAULTS) - {*WHOLE_FILE, *ONE_DAY} == harmless


@pytest.mark.parametrize(
    "kind", ["checksum_mismatch", "truncated_zip", "not_a_zip", "reset_amid_body", "truncated_body"]
)
def test_a_file_that_is_bad_once_is_fetched_a_second_time(sandbox: Sandbox, settings: Settings, kind: str) -> None:
    sandbox.faults.add(Fault(kind, path="archive", interval="1m", times=1))
    days = days_of(settings, BTC, *WEEK, "archive")
    assert verdicts(days) == ["complete"] * 3
    assert {(day.provenance.source, day.reason) for day in days} == {("archive", "")}


# -- one source completes the other -----------------------------------------------------------------------------------


def remove_candle(sandbox: Sandbox, path: str, minute: int = NOON) -> None:
    sandbox.faults.add(Fault("missing_row", start=minute, end=minute + MINUTE, path=path, interval="1m"))


def test_source_archive_uses_daily_files_if_the_monthly_file_is_missing(sandbox: Sandbox, settings: Settings) -> None:
    sandbox.faults.add(Fault("status", value=404, path="archive/monthly", interval="1m"))
    days = days_of(settings, BTC, *WEEK, "archive")
    assert verdicts(days) == ["complete"] * 3
    assert [day.provenance.file for day in days] == [f"BTCUSDT-1m-2024-01-0{n}.zip" for n in (1, 2, 3)]
    assert [day.reason for day in days] == [""] * 3  # a missing file is nothing to remark on a good day
    assert klines(sandbox, "1m") == []


def test_a_daily_file_replaces_a_day_that_is_incomplete_in_the_monthly_file(
    sandbox: Sandbox, settings: Settings
) -> None:
    remove_candle(sandbox, "archive/monthly")
    days = days_of(settings, BTC, *WEEK, "archive")
    assert verdicts(days) == ["complete"] * 3
    assert [day.provenance.file for day in days] == [
        "BTCUSDT-1m-2024-01.zip", "BTCUSDT-1m-2024-01-02.zip", "BTCUSDT-1m-2024-01.zip",
    ]  # fmt: skip
    assert "because of archive (BTCUSDT-1m-2024-01.zip): no candles for" in days[1].reason
    assert klines(sandbox, "1m") == []


@pytest.mark.parametrize("name", [BTC, "usdm/ETHUSDT/1m", "coinm/BTCUSD_PERP/1m"])
def test_the_archive_serves_locations_that_the_api_refuses(sandbox: Sandbox, settings: Settings, name: str) -> None:
    for path in ("klines", "time", "exchangeInfo", "ping"):
        sandbox.faults.add(Fault("status", value=451, path=path))
    for source in ("archive", "auto"):
        days = days_of(settings, name, *WEEK, source)
        assert verdicts(days) == ["complete"] * 3, [day.reason for day in days]
        assert {day.provenance.source for day in days} == {"archive"}
        assert_exact(sandbox, name, days)
    sandbox.requests.clear()
    refused = days_of(settings, name, *WEEK, "rest")
    assert set(verdicts(refused)) == {"unreachable"}
    assert "Binance does not serve this location" in refused[0].reason
    assert "\n" not in refused[0].reason
    assert len(sandbox.requests) == 1


def test_without_the_api_only_the_partitions_that_the_archive_lacks_are_refused(
    sandbox: Sandbox, settings: Settings
) -> None:
    for path in ("klines", "time", "exchangeInfo", "ping"):
        sandbox.faults.add(Fault("status", value=451, path=path))
    remove_candle(sandbox, "archive")
    for source in ("archive", "auto"):
        before, day, after = days_of(settings, BTC, *WEEK, source)
        assert (before.verdict, day.verdict, after.verdict) == ("complete", "lost", "complete")
        assert day.missing == ((NOON, NOON + MINUTE),)


def test_a_file_that_is_not_published_yet_is_named_in_the_reason(settings: Settings) -> None:
    offset = DAY + 6 * HOUR - int(time.time() * 1_000) % DAY
    with running_sandbox(SandboxOptions(clock_offset_ms=offset)) as sandbox:
        at_six = pointed_to(settings, sandbox.url)
        today = to_date(sandbox.now_ms())
        days = days_of(at_six, "spot/BTCUSDT/1h", f"{today - dt.timedelta(3)}", f"{today}", "archive")
        assert verdicts(days) == ["complete", "complete", "unreachable"]
        assert "the archive has no BTCUSDT-1h-" in days[-1].reason
        with_rest = days_of(at_six, "spot/BTCUSDT/1h", f"{today - dt.timedelta(3)}", f"{today}", "auto")
        assert verdicts(with_rest) == ["complete"] * 3


@pytest.mark.parametrize("source", ["rest", "archive", "auto"])
def test_a_candle_that_one_source_lacks_comes_from_the_other_source(
    sandbox: Sandbox, settings: Settings, source: Source
) -> None:
    for lacking, other in (("klines", "archive"), ("archive", "rest")):
        sandbox.faults.clear()
        remove_candle(sandbox, lacking)
        days = days_of(settings, BTC, *WEEK, source)
        assert verdicts(days) == ["complete"] * 3
        assert_exact(sandbox, BTC, days)
        assert days[1].provenance.source == other
        if (lacking == "klines") == (source == "rest"):
            assert days[1].reason.startswith(f"from {other}")
            assert "no candles for 2024-01-02 12:00 to 12:01" in days[1].reason
        else:
            assert days[1].reason == ""


@pytest.mark.parametrize("source", ["rest", "archive", "auto"])
def test_two_sources_that_lack_different_candles_complete_each_other(
    sandbox: Sandbox, settings: Settings, source: Source
) -> None:
    remove_candle(sandbox, "klines")
    remove_candle(sandbox, "archive", NOON + HOUR)
    days = days_of(settings, BTC, *WEEK, source)
    assert verdicts(days) == ["complete"] * 3
    assert_exact(sandbox, BTC, days)
    assert set(days[1].provenance.source.split("+")) == {"rest", "archive"}
    assert str(days[1].provenance.file).startswith("BTCUSDT-1m-2024-01")
    assert "together" in days[1].reason


@pytest.mark.parametrize("source", ["rest", "archive", "auto"])
def test_a_candle_that_both_sources_lack_is_lost_and_the_smaller_gap_is_reported(
    sandbox: Sandbox, settings: Settings, source: Source
) -> None:
    for path in ALL_SOURCES:
        remove_candle(sandbox, path)
    remove_candle(sandbox, "klines", NOON + MINUTE)
    days = days_of(settings, BTC, *WEEK, source)
    assert verdicts(days) == ["complete", "lost", "complete"]
    assert (days[1].missing, days[1].candles.height) == (((NOON, NOON + MINUTE),), 1_439)


# -- what is stored ---------------------------------------------------------------------------------------------------


def test_a_day_in_the_lake_names_the_zip_it_came_from(sandbox: Sandbox, settings: Settings) -> None:
    series, lake = parse_series(BTC), Lake(settings.lake)
    lake.prepare("sandbox")
    remove_candle(sandbox, "archive/monthly")
    from_archive, from_rest, _ = days_of(settings, BTC, *WEEK, "auto")
    lake.write_all(series, [from_archive, from_rest])
    entry = stored(lake, series, from_archive.partition.key)
    path = "/data/spot/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2024-01.zip"
    zipped = requests.get(sandbox.url + path, timeout=60)
    checksum = requests.get(f"{sandbox.url}{path}.CHECKSUM", timeout=60).text.split()
    assert (entry.source, entry.archive_file, entry.note) == ("archive", "BTCUSDT-1m-2024-01.zip", None)
    assert entry.archive_sha256 == hashlib.sha256(zipped.content).hexdigest() == checksum[0]
    assert entry.archive_modified == "2024-02-03T08:30:00Z"
    assert zipped.headers["Last-Modified"] == "Sat, 03 Feb 2024 08:30:00 GMT"

    other = stored(lake, series, from_rest.partition.key)
    assert other.path == entry.path  # one file holds days of both sources
    assert other.source == "rest"
    assert (other.archive_file, other.archive_sha256, other.archive_modified) == (None, None, None)
    assert str(other.note).startswith("from rest, because of archive (BTCUSDT-1m-2024-01.zip): no candles for")


def test_a_reissued_file_has_another_hash_and_date(sandbox: Sandbox, settings: Settings) -> None:
    (before,) = days_of(settings, BTC, "2024-01-02", "2024-01-03", "archive")
    sandbox.faults.add(Fault("reissued", path="archive"))
    (after,) = days_of(settings, BTC, "2024-01-02", "2024-01-03", "archive")
    assert before.candles.equals(after.candles)
    assert before.provenance.sha256 != after.provenance.sha256
    assert (before.provenance.modified or 0) < (after.provenance.modified or 0)


def test_a_month_from_the_archive_costs_only_the_weight_of_its_control_totals(
    sandbox: Sandbox, settings: Settings
) -> None:
    series = parse_series(BTC)
    days = days_of(settings, BTC, "2024-01-01", "2024-03-01", "auto")
    assert verdicts(days) == ["complete"] * 60
    assert sum(request.weight for request in sandbox.requests) == 1 + 2
    assert len([request for request in sandbox.requests if request.path.endswith(".zip")]) == 2
    cost = forecast(series, [day.partition for day in days], "auto", sandbox.now_ms())
    assert (cost.requests, cost.weight, cost.files) == (4, 0, 2)
    assert len(sandbox.requests) == cost.requests + 2  # the time and the control totals


def test_rest_replaces_an_unreachable_archive(sandbox: Sandbox, settings: Settings) -> None:
    unreachable = with_short_timeouts(settings.model_copy(update={"archive_url": "http://127.0.0.1:9"}))
    days = days_of(unreachable, BTC, *WEEK, "auto")
    assert verdicts(days) == ["complete"] * 3
    assert all("because of archive" in day.reason for day in days)
    assert_exact(sandbox, BTC, days)


def test_an_archive_of_another_venue_is_not_used(sandbox: Sandbox, settings: Settings) -> None:
    with_real_archive = settings.model_copy(update={"archive_url": "https://data.binance.vision"})
    expected_verdicts: dict[Source, str] = {"auto": "complete", "archive": "unreachable"}
    for source, verdict in expected_verdicts.items():
        days = days_of(with_real_archive, BTC, *WEEK, source)
        assert set(verdicts(days)) == {verdict}
        assert {day.provenance.source for day in days} == {"rest"}
    assert "set BINANCE_ARCHIVE_URL" in days[0].reason


def test_a_stream_of_no_files_yields_nothing(settings: Settings) -> None:
    exchange = Exchange(SPOT, settings)
    assert list(exchange.archive.stream([], lambda _, content: content)) == []
    exchange.close()


@pytest.mark.parametrize(("most_workers", "asked_early"), [(50, True), (23, False)])
def test_a_checksum_is_requested_with_its_file_until_a_file_is_missing(
    settings: Settings, most_workers: int, asked_early: bool
) -> None:
    asked, early = threading.Semaphore(0), list[bool]()

    def respond(path: str) -> Pieces:
        if path.endswith(".CHECKSUM"):
            asked.release()
        else:
            early.append(asked.acquire(timeout=60 if asked_early and not early else 0.1))
        return answer(b"", status="404 Not Found")

    with hostile_server(respond) as server:
        values = settings.model_dump() | {"archive_url": server.url, "max_workers": most_workers}
        exchange = Exchange(SPOT, Settings.model_validate(values))
        days = partitions_between(dt.date(2024, 1, 1), dt.date(2024, 3, 1), parse_series(BTC).interval)
        for file in all_files(parse_series(BTC), days, to_ms(dt.date(2026, 1, 1))):
            ((_, outcome),) = exchange.archive.stream([file], lambda _, content: content, with_checksums=True)
            assert isinstance(outcome, NoFile)
        exchange.close()
        assert early == [asked_early, False]
        assert server.counts(".CHECKSUM") == asked_early
