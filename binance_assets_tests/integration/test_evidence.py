"""Weak evidence over real HTTP: defective 1d candles, and what replaces them."""

from __future__ import annotations

import datetime as dt

import pytest

from binance_assets.model.timestamps import DAY, to_ms
from binance_assets.sandbox import Fault, Sandbox, ServedRequest
from binance_assets.settings import Settings, Source
from binance_assets_tests.support.exchange import ALL_SOURCES, assert_exact, days_of, klines, verdicts

BTC = "spot/BTCUSDT/1h"
JAN_20 = to_ms(dt.date(2024, 1, 20))
ROW_DEFECTS = (
    "off_grid", "bad_prices", "negative_volume", "nan", "null", "empty_strings", "missing_row", "unordered",
    "doubled_row",
)  # fmt: skip
RANGE = ("2024-01-01", "2024-03-01")
API = ("klines", "time", "exchangeInfo", "ping")


def requests_for(sandbox: Sandbox, interval: str) -> list[str]:
    """The names of the archive files of an interval that were requested."""
    return [request.path.rpartition("/")[2] for request in sandbox.requests if f"/{interval}/" in request.path]


def refuse_location(sandbox: Sandbox) -> None:
    for path in API:
        sandbox.faults.add(Fault("status", value=451, path=path))


# -- rows of 1d -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ROW_DEFECTS)
def test_a_bad_1d_row_costs_no_day_because_the_archive_has_a_good_one(
    sandbox: Sandbox, settings: Settings, kind: str
) -> None:
    sandbox.faults.add(Fault(kind, interval="1d", start=JAN_20, end=JAN_20 + 1, value=15_000))
    assert verdicts(days_of(settings, BTC, *RANGE)) == ["complete"] * 60
    assert len(klines(sandbox, "1d")) <= 2


@pytest.mark.parametrize("kind", ["off_grid", "bad_prices", "nan", "missing_row"])
def test_a_bad_1d_row_in_both_sources_costs_its_own_day_only(sandbox: Sandbox, settings: Settings, kind: str) -> None:
    for path in ALL_SOURCES:
        sandbox.faults.add(Fault(kind, interval="1d", start=JAN_20, end=JAN_20 + 1, value=15_000, path=path))
    days = days_of(settings, BTC, *RANGE)
    assert verdicts(days) == ["complete"] * 19 + ["unproved"] + ["complete"] * 40
    assert_exact(sandbox, BTC, days)


def test_the_row_of_a_day_that_breaks_the_rules_is_named(sandbox: Sandbox, settings: Settings) -> None:
    for path in ALL_SOURCES:
        sandbox.faults.add(Fault("bad_prices", interval="1d", start=JAN_20, end=JAN_20 + 1, path=path))
    (day,) = days_of(settings, BTC, "2024-01-20", "2024-01-21")
    assert day.verdict == "unproved"
    assert "1d candles of BTCUSDT-1d-2024-01-20.zip breaks the rules for rows" in day.reason


def test_a_1d_page_that_fails_costs_no_day(sandbox: Sandbox, settings: Settings) -> None:
    late = to_ms(dt.date(2023, 1, 1))  # in the second of two pages
    sandbox.faults.add(Fault("status", value=400, interval="1d", start=late, path="klines"))
    days = days_of(settings, "spot/ETHUSDT/12h", "2021-01-01", "2024-01-01")
    assert verdicts(days) == ["complete"] * 1_095


@pytest.mark.parametrize("source", ["rest", "archive", "auto"])
def test_healthy_days_take_no_request_more_than_before(sandbox: Sandbox, settings: Settings, source: Source) -> None:
    assert verdicts(days_of(settings, "spot/ETHUSDT/1m", "2023-03-01", "2023-05-01", source)) == ["complete"] * 61
    assert len(klines(sandbox, "1d")) == 1
    assert requests_for(sandbox, "1d") == []
    assert klines(sandbox, "1h") == klines(sandbox, "4h") == []
    candles = {"rest": 1 + 88, "archive": 2 * 2, "auto": 2 * 2}[source]  # exchangeInfo is asked for the limit
    assert len(sandbox.requests) == 1 + 1 + candles


# -- files of 1d ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["404", "truncated_zip", "checksum_mismatch", "two_members"])
def test_daily_files_replace_a_bad_monthly_file_of_1d(sandbox: Sandbox, settings: Settings, fault: str) -> None:
    refuse_location(sandbox)
    kind, value = ("status", 404) if fault == "404" else (fault, None)
    path = "archive/monthly" if fault != "checksum_mismatch" else "archive/checksum"
    end = to_ms(dt.date(2024, 1, 31)) if fault != "checksum_mismatch" else None
    times = 2 if fault == "checksum_mismatch" else None
    sandbox.faults.add(Fault(kind, value=value, path=path, interval="1d", end=end, times=times))
    assert verdicts(days_of(settings, BTC, *RANGE, "archive")) == ["complete"] * 60


def test_one_bad_file_of_1d_costs_its_own_days_and_the_reason_names_the_file(
    sandbox: Sandbox, settings: Settings
) -> None:
    refuse_location(sandbox)
    sandbox.faults.add(Fault("truncated_zip", path="archive/monthly", interval="1d", end=JAN_20 + DAY))
    sandbox.faults.add(Fault("truncated_zip", path="archive/daily", interval="1d", start=JAN_20, end=JAN_20 + DAY))
    days = days_of(settings, BTC, *RANGE, "archive")
    assert verdicts(days) == ["complete"] * 19 + ["unproved"] + ["complete"] * 40
    assert "BTCUSDT-1d-2024-01-20.zip from the archive is not valid" in days[19].reason
    assert "location" not in days[19].reason


@pytest.mark.parametrize("kind", ["off_grid", "bad_prices", "nan", "fields_11"])
def test_a_daily_file_replaces_a_bad_row_of_a_monthly_file_of_1d(
    sandbox: Sandbox, settings: Settings, kind: str
) -> None:
    refuse_location(sandbox)
    sandbox.faults.add(Fault(kind, path="archive/monthly", interval="1d", start=JAN_20, end=JAN_20 + 1, value=15_000))
    assert verdicts(days_of(settings, BTC, *RANGE, "archive")) == ["complete"] * 60


# -- suspensions ----------------------------------------------------------------------------------------------------

USDC = "spot/USDCUSDT"
GAP = ("2022-09-29", "2023-03-12")
"""The first day of the suspension, and the day on which trading went on."""
DAYS_IN_GAP = 164


@pytest.mark.parametrize("source", ["rest", "archive", "auto"])
@pytest.mark.parametrize("interval", ["1m", "1h", "1d"])
def test_days_without_trading_between_two_listings_are_suspended(
    sandbox: Sandbox, settings: Settings, interval: str, source: Source
) -> None:
    days = days_of(settings, f"{USDC}/{interval}", "2022-09-27", "2023-03-14", source)
    assert verdicts(days) == ["complete"] * 2 + ["suspended"] * DAYS_IN_GAP + ["complete"] * 2
    assert all(day.is_accepted and day.candles.is_empty() and not day.missing for day in days[2:-2])
    assert_exact(sandbox, f"{USDC}/{interval}", days)


@pytest.mark.parametrize("source", ["rest", "archive"])
def test_a_suspension_costs_no_request_per_day(sandbox: Sandbox, settings: Settings, source: Source) -> None:
    days_of(settings, f"{USDC}/1m", "2022-09-28", "2023-03-13", source)
    in_gap = [request for request in sandbox.requests if is_in_gap(request)]
    # 1d once more, a candle of the gap, and for each of the seven months a file of 1d and one of 1m, some with hash.
    assert len(in_gap) <= 2 + 7 * 2 + 4 + 2 * 3


def is_in_gap(request: ServedRequest) -> bool:
    month = request.path.rpartition("USDCUSDT-1")[2][2:9]
    return "2022-09" <= month <= "2023-03" or "2022-09-29" <= start_of(request) <= "2023-03-11"


def start_of(request: ServedRequest) -> str:
    start = request.params.get("startTime", "0")
    return dt.datetime.fromtimestamp(int(start) / 1_000, dt.UTC).date().isoformat()


@pytest.mark.parametrize(
    ("start", "end"), [("2022-10-05", "2022-10-09"), ("2022-09-29", "2022-09-30"), ("2023-03-11", "2023-03-12")]
)
def test_a_range_within_a_suspension_is_suspended(sandbox: Sandbox, settings: Settings, start: str, end: str) -> None:
    days = days_of(settings, f"{USDC}/5m", start, end)
    assert set(verdicts(days)) == {"suspended"}
    assert len(sandbox.requests) <= 12


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ("3d", ["complete", *["suspended"] * 5, "outage"]),
        ("1w", ["complete", *["suspended"] * 5, "complete"]),
        ("1M", ["complete", *["suspended"] * 5, "complete"]),
    ],
)
def test_months_without_trading_are_suspended(
    sandbox: Sandbox, settings: Settings, interval: str, expected: list[str]
) -> None:
    months = days_of(settings, f"{USDC}/{interval}", "2022-09-01", "2023-04-01")
    assert verdicts(months) == expected, [month.reason for month in months]
    assert_exact(sandbox, f"{USDC}/{interval}", months)


@pytest.mark.parametrize("path", ALL_SOURCES)
def test_a_day_that_one_source_has_is_not_suspended(sandbox: Sandbox, settings: Settings, path: str) -> None:
    """The other source lacks the day altogether, and the 1d candle is missing in both."""
    gap = {"start": JAN_20, "end": JAN_20 + DAY}
    sandbox.faults.add(Fault("missing_row", path=path, interval="1h", **gap))
    for source in ALL_SOURCES:
        sandbox.faults.add(Fault("missing_row", path=source, interval="1d", **gap))
    before, day, after = days_of(settings, BTC, "2024-01-19", "2024-01-22")
    assert verdicts([before, day, after]) == ["complete", "unproved", "complete"]
    assert_exact(sandbox, BTC, [day])


def test_a_day_whose_files_cannot_be_read_is_not_suspended(sandbox: Sandbox, settings: Settings) -> None:
    gap = {"start": JAN_20, "end": JAN_20 + DAY}
    for interval in ("1h", "1d"):
        sandbox.faults.add(Fault("missing_row", interval=interval, **gap))
        sandbox.faults.add(Fault("truncated_zip", path="archive/daily", interval=interval, **gap))
    assert verdicts(days_of(settings, BTC, "2024-01-19", "2024-01-22")) == ["complete", "unreachable", "complete"]
