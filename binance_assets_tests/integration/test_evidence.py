"""Weak evidence over real HTTP: defective 1d candles, and what replaces them."""

from __future__ import annotations

import datetime as dt
from contextlib import closing

import pytest

from binance_assets.exchange.errors import ExchangeError
from binance_assets.exchange.session import Exchange
from binance_assets.ingest.download import download
from binance_assets.ingest.options import DownloadOptions
from binance_assets.ingest.request import DownloadRequest, plan_request
from binance_assets.ingest.verify import verify
from binance_assets.model.intervals import DAILY
from binance_assets.model.partitions import partitions_between
from binance_assets.model.series import Series, parse_series
from binance_assets.model.timestamps import DAY, HOUR, MINUTE, to_ms
from binance_assets.sandbox import Fault, Sandbox, ServedRequest
from binance_assets.settings import ConfigurationError, Settings, Source
from binance_assets.storage.lake import Lake
from binance_assets_tests.support.exchange import ALL_SOURCES, assert_exact, days_of, klines, quick_retrier, verdicts

BTC = "spot/BTCUSDT/1h"
JAN_20 = to_ms(dt.date(2024, 1, 20))
JAN_21 = JAN_20 + DAY
ROW_DEFECTS = (
    "off_grid", "bad_prices", "negative_volume", "nan", "null", "empty_strings", "missing_row", "unordered",
    "doubled_row",
)  # fmt: skip
SOURCES: tuple[Source, ...] = ("rest", "archive", "auto")
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


def test_days_of_a_missing_month_of_1d_are_read_although_nothing_shows_that_it_has_daily_files(
    sandbox: Sandbox, settings: Settings
) -> None:
    """Only a 404 shows that a file does not exist. Another failure of a file that is looked up costs its own day."""
    refuse_location(sandbox)
    first, middle, last = (dt.date(2024, 1, day) for day in (1, 16, 31))
    end = to_ms(last) + DAY
    sandbox.faults.add(Fault("status", value=404, path="archive/monthly", interval="1d", end=end))
    for day in (first, middle, last):
        start = to_ms(day)
        fault = Fault("status", value=500, path="archive/checksum", interval="1d", start=start, end=start + DAY)
        sandbox.faults.add(fault)
    days = days_of(settings, BTC, *RANGE, "archive")
    assert [day.partition.key for day in days if day.verdict != "complete"] == [f"{first}", f"{middle}", f"{last}"]
    assert {day.verdict for day in days} == {"complete", "unproved"}


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


@pytest.mark.parametrize("source", ["rest", "archive", "auto"])
@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ("3d", ["complete", *["suspended"] * 5, "outage"]),
        ("1w", ["complete", *["suspended"] * 5, "complete"]),
        ("1M", ["complete", *["suspended"] * 5, "complete"]),
    ],
)
def test_months_without_trading_are_suspended(
    sandbox: Sandbox, settings: Settings, interval: str, expected: list[str], source: Source
) -> None:
    months = days_of(settings, f"{USDC}/{interval}", "2022-09-01", "2023-04-01", source)
    assert verdicts(months) == expected, [month.reason for month in months]
    assert_exact(sandbox, f"{USDC}/{interval}", months)


@pytest.mark.parametrize("path", ALL_SOURCES)
def test_a_day_that_one_source_has_is_not_suspended(sandbox: Sandbox, settings: Settings, path: str) -> None:
    """The other source lacks the day altogether, and the 1d candle is missing in both."""
    sandbox.faults.add(Fault("missing_row", path=path, interval="1h", start=JAN_20, end=JAN_21))
    for source in ALL_SOURCES:
        sandbox.faults.add(Fault("missing_row", path=source, interval="1d", start=JAN_20, end=JAN_21))
    before, day, after = days_of(settings, BTC, "2024-01-19", "2024-01-22")
    assert verdicts([before, day, after]) == ["complete", "unproved", "complete"]
    assert_exact(sandbox, BTC, [day])


def test_a_day_whose_files_cannot_be_read_is_not_suspended(sandbox: Sandbox, settings: Settings) -> None:
    for interval in ("1h", "1d"):
        for kind, path in (("missing_row", "klines"), ("truncated_zip", "archive/daily")):
            sandbox.faults.add(Fault(kind, path=path, interval=interval, start=JAN_20, end=JAN_21))
    assert verdicts(days_of(settings, BTC, "2024-01-19", "2024-01-22")) == ["complete", "unreachable", "complete"]


# -- symbols that the API does not know, and locations that it does not serve ---------------------------------------

CONTRACT = "usdm/BTCUSDT_210326"
"""Delivered on 2021-03-26 08:00 UTC; klines no longer knows it."""
REMOVED = "spot/SRMUSDT"
"""Removed on 2022-11-28 03:00 UTC; klines no longer knows it."""


@pytest.mark.parametrize("source", ["archive", "auto"])
@pytest.mark.parametrize("interval", ["1m", "1h", "1d"])
def test_a_removed_contract_comes_from_the_archive_from_its_listing_to_its_delivery(
    sandbox: Sandbox, settings: Settings, interval: str, source: Source
) -> None:
    name = f"{CONTRACT}/{interval}"
    days = days_of(settings, name, "2020-12-24", "2021-03-29", source)
    listing = "complete" if interval == "1d" else "listing"
    assert verdicts(days) == ["before_listing", listing, *["complete"] * 90, *["delisted"] * 3]
    assert_exact(sandbox, name, days)


@pytest.mark.parametrize("source", ["archive", "auto"])
@pytest.mark.parametrize("interval", ["1m", "1h", "1d"])
def test_a_removed_symbol_ends_with_its_last_file(
    sandbox: Sandbox, settings: Settings, interval: str, source: Source
) -> None:
    name = f"{REMOVED}/{interval}"
    days = days_of(settings, name, "2022-11-26", "2022-12-03", source)
    last = "complete" if interval == "1d" else "delisted"
    assert verdicts(days) == ["complete", "complete", last, *["delisted"] * 4]
    assert_exact(sandbox, name, days)


@pytest.mark.parametrize(
    ("kind", "value", "verdict"),
    [
        ("not_a_zip", None, "delisted"),  # whatever the checksum is, the archive has the file
        ("status", 500, "unreachable"),  # a file may have been overlooked
    ],
)
def test_the_life_of_a_removed_symbol_is_known_if_each_month_shows_whether_it_has_a_file(
    sandbox: Sandbox, settings: Settings, kind: str, value: int | None, verdict: str
) -> None:
    start = to_ms(dt.date(2021, 5, 1))
    fault = Fault(kind, value=value, path="archive/checksum", interval="1d", start=start, end=start + DAY)
    sandbox.faults.add(fault)
    days = days_of(settings, f"{REMOVED}/1h", "2023-05-01", "2023-05-04", "auto")
    assert set(verdicts(days)) == {verdict}, [day.reason for day in days]
    assert [request for request in sandbox.requests if request.path.endswith("SRMUSDT-1d-2021-05.zip.CHECKSUM")]


@pytest.mark.parametrize(
    ("name", "start", "end", "verdict"),
    [
        (f"{CONTRACT}/1h", "2021-05-01", "2021-05-04", "delisted"),
        (f"{CONTRACT}/1h", "2020-11-01", "2020-11-04", "before_listing"),
        (f"{REMOVED}/1h", "2023-05-01", "2023-05-04", "delisted"),
        (f"{REMOVED}/1h", "2019-05-01", "2019-05-04", "before_listing"),
    ],
)
def test_days_outside_the_life_of_a_removed_symbol_have_nothing_to_fetch(
    sandbox: Sandbox, settings: Settings, name: str, start: str, end: str, verdict: str
) -> None:
    assert set(verdicts(days_of(settings, name, start, end, "auto"))) == {verdict}


def test_a_symbol_that_neither_source_knows_is_unknown(settings: Settings) -> None:
    for name in ("spot/NOSUCHUSDT/1h", "usdm/BTCUSDT_210327/1h"):
        for source in ("rest", "archive", "auto"):
            days = days_of(settings, name, "2021-01-01", "2021-01-03", source)
            assert set(verdicts(days)) == {"unreachable"}
            assert "there is no symbol" in days[0].reason


def test_source_rest_does_not_look_into_the_archive_for_a_symbol(sandbox: Sandbox, settings: Settings) -> None:
    days = days_of(settings, f"{CONTRACT}/1h", "2021-03-01", "2021-03-03", "rest")
    assert set(verdicts(days)) == {"unreachable"}
    assert not [request for request in sandbox.requests if request.path.startswith("/data")]


@pytest.mark.parametrize("source", ["archive", "auto"])
@pytest.mark.parametrize(
    ("name", "last"),
    [(f"{CONTRACT}/1m", "2021-03-26"), (f"{REMOVED}/1m", "2022-11-28"), ("coinm/BTCUSD_200925/1h", "2020-09-25")],
)
def test_without_the_api_the_last_day_of_a_symbol_is_accepted(
    sandbox: Sandbox, settings: Settings, name: str, last: str, source: Source
) -> None:
    refuse_location(sandbox)
    day = dt.date.fromisoformat(last)
    days = days_of(settings, name, f"{day - dt.timedelta(2)}", f"{day + dt.timedelta(3)}", source)
    assert verdicts(days) == ["complete", "complete", "delisted", "delisted", "delisted"], [d.reason for d in days]
    assert_exact(sandbox, name, days)


@pytest.mark.parametrize("name", [f"{CONTRACT}/1h", f"{REMOVED}/1h"])
def test_a_candle_missing_from_the_last_day_of_a_removed_symbol_is_lost(
    sandbox: Sandbox, settings: Settings, name: str
) -> None:
    last = to_ms(dt.date(2021, 3, 26)) if name.startswith(CONTRACT) else to_ms(dt.date(2022, 11, 28))
    sandbox.faults.add(Fault("missing_row", path="archive", interval="1h", start=last + HOUR, end=last + 2 * HOUR))
    day = dt.datetime.fromtimestamp(last / 1_000, dt.UTC).date()
    days = days_of(settings, name, f"{day}", f"{day + dt.timedelta(2)}", "auto")
    assert verdicts(days) == ["lost", "delisted"]


@pytest.mark.parametrize(("name", "first"), [(f"{CONTRACT}/1h", "2020-12-25"), (f"{REMOVED}/1h", "2020-08-11")])
@pytest.mark.parametrize("start", [None, dt.date(2021, 1, 1)])
def test_a_user_may_request_a_symbol_that_only_the_archive_has(
    settings: Settings, name: str, first: str, start: dt.date | None
) -> None:
    series, lake = parse_series(name), Lake(settings.lake)
    exchange = Exchange(series.market, settings, retrier=quick_retrier())
    request = DownloadRequest((series,), start, dt.date(2021, 2, 1), refresh=False)
    try:
        for source in SOURCES:
            if source == "rest":
                with pytest.raises(ConfigurationError, match=f"no symbol {series.symbol} "):
                    plan_request(request, lake, exchange, (), source)
                continue
            (plan,) = plan_request(request, lake, exchange, (), source)
            assert plan.requested[0].key == (start.isoformat() if start else first)
    finally:
        exchange.close()


@pytest.mark.parametrize(("interval", "last"), [("1d", "2022-11-28"), ("1mo", "2022-11-01")])
def test_a_request_without_an_end_ends_with_the_last_day_of_a_delisted_symbol(
    settings: Settings, interval: str, last: str
) -> None:
    over, live = parse_series(f"spot/SRMUSDT/{interval}"), parse_series(f"spot/BTCUSDT/{interval}")
    ended, lake = {over: dt.date(2022, 11, 28)}, Lake(settings.lake)
    with closing(Exchange(over.market, settings, retrier=quick_retrier())) as exchange:

        def plans(start: str, *series: Series, end: dt.date | None = None, source: Source = "auto") -> list[list[str]]:
            request = DownloadRequest(series, dt.date.fromisoformat(start), end, refresh=True)
            found = plan_request(request, lake, exchange, series, source, ended, is_priced=True)
            assert [plan.is_archived_only for plan in found if plan.missing] == [
                source == "auto" and plan.series == over for plan in found if plan.missing
            ]
            assert [plan.missing for plan in found] == [plan.requested for plan in found]
            return [[partition.key for partition in plan.requested] for plan in found]

        of_both = plans("2022-11-01", over, live)
        assert (of_both[0][0], of_both[0][-1]) == ("2022-11-01", last)
        assert of_both[1][-1] > last
        later = plans("2023-01-01", over, live)  # the rest of a whole market is fetched all the same
        assert (later[0], later[1][0]) == ([], "2023-01-01")
        assert plans("2022-11-01", over, live, source="archive") == of_both
        (until_an_end,) = plans("2022-11-01", over, end=dt.date(2023, 1, 1))  # who names an end gets it
        assert until_an_end[-1] > last
        with pytest.raises(ConfigurationError, match=f"{over} ended on 2022-11-28"):
            plans("2023-01-01", over)


@pytest.mark.parametrize(
    ("name", "start", "first"),
    [(BTC, None, "2017-08-17"), ("spot/ARBUSDT/1h", None, "2023-03-23"), (BTC, dt.date(2024, 1, 20), "2024-01-20")],
)
def test_a_user_may_request_from_the_archive_where_the_api_does_not_serve_the_location(
    sandbox: Sandbox, settings: Settings, name: str, start: dt.date | None, first: str
) -> None:
    refuse_location(sandbox)
    request = DownloadRequest((parse_series(name),), start, None, refresh=False)
    with closing(Exchange(request.market, settings, retrier=quick_retrier())) as exchange:
        for source in SOURCES:
            if source == "rest":
                with pytest.raises(ExchangeError, match="does not serve this location"):
                    plan_request(request, Lake(settings.lake), exchange, (), source)
                continue
            (plan,) = plan_request(request, Lake(settings.lake), exchange, (), source)
            assert plan.requested[0].key == first
            assert plan.requested[-1].end <= exchange.archive.now()


# -- witnesses ------------------------------------------------------------------------------------------------------

MINUTES = "spot/BTCUSDT/1m"
ONE_DAY = ("2024-01-19", "2024-01-22")


def differ(sandbox: Sandbox, *paths: str, interval: str = "1d", kind: str = "one_trade_more") -> None:
    """Let the candles of 20 January show other totals."""
    for path in paths:
        sandbox.faults.add(Fault(kind, path=path, interval=interval, start=JAN_20, end=JAN_21))


def witnesses_of(sandbox: Sandbox) -> tuple[int, int, int, int]:
    """The numbers of requests for 1h and 4h by REST, and for files of 1d and of 1h or 4h."""
    files = len(requests_for(sandbox, "1h")) + len(requests_for(sandbox, "4h"))
    return len(klines(sandbox, "1h")), len(klines(sandbox, "4h")), len(requests_for(sandbox, "1d")), files


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", [MINUTES, "usdm/ETHUSDT/5m", "coinm/BTCUSD_PERP/15m", "spot/BTCUSDT/1d"])
def test_the_1d_candle_of_the_archive_replaces_a_wrong_one_of_the_api(
    sandbox: Sandbox, settings: Settings, name: str, strict: bool
) -> None:
    if name.endswith("1d"):
        differ(sandbox, "archive")
    else:
        differ(sandbox, "klines")
    source: Source = "archive" if name.endswith("1d") else "rest"
    days = days_of(settings, name, *ONE_DAY, source, strict=strict)
    assert verdicts(days) == ["complete"] * 3, [day.reason for day in days]
    assert_exact(sandbox, name, days)
    if not name.endswith("1d"):
        assert days[1].witnesses == ("1d candle of archive",)
        assert "its totals agree with the 1d candle of archive, but not with that of rest" in days[1].reason
        assert witnesses_of(sandbox) == (0, 0, 2, 0)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("source", ["rest", "archive", "auto"])
@pytest.mark.parametrize(
    ("name", "witness"),
    [(MINUTES, "1h"), ("usdm/BTCUSDT/1h", "4h"), ("coinm/BTCUSD_PERP/4h", "1h"), ("spot/BTCUSDT/6h", "1h")],
)
def test_hours_accept_a_day_whose_1d_candle_is_wrong_in_both_sources(
    sandbox: Sandbox, settings: Settings, name: str, witness: str, source: Source, strict: bool
) -> None:
    differ(sandbox, *ALL_SOURCES)
    before, day, after = days_of(settings, name, *ONE_DAY, source, strict=strict)
    assert verdicts([before, day, after]) == ["complete", "unbalanced", "complete"]
    assert (day.is_accepted, day.can_override) == (True, False)
    assert day.witnesses == (f"{witness} candles of rest",)
    assert f"but every hour agrees with the {witness} candles of rest" in day.reason
    assert_exact(sandbox, name, [day])


def test_4h_candles_are_asked_if_those_of_1h_do_not_agree(sandbox: Sandbox, settings: Settings) -> None:
    differ(sandbox, *ALL_SOURCES)
    differ(sandbox, *ALL_SOURCES, interval="1h", kind="doubled_amounts")
    _, day, _ = days_of(settings, MINUTES, *ONE_DAY, strict=True)
    assert (day.verdict, day.is_accepted, day.witnesses) == ("unbalanced", True, ("4h candles of rest",))


@pytest.mark.parametrize("source", ["rest", "archive", "auto"])
def test_a_day_that_hours_do_not_confirm_is_refused_if_strict(
    sandbox: Sandbox, settings: Settings, source: Source
) -> None:
    differ(sandbox, *ALL_SOURCES, interval="1m")
    for strict in (False, True):
        _, day, _ = days_of(settings, MINUTES, *ONE_DAY, source, strict=strict)
        assert (day.verdict, day.is_accepted, day.can_override) == ("unbalanced", not strict, strict)
        assert day.witnesses == ()
        assert "the 1h candles of rest differ as well" in day.reason


def test_a_loss_of_the_archive_in_all_its_intervals_is_refused_against_the_api(
    sandbox: Sandbox, settings: Settings
) -> None:
    """As on 2025-01-14, when the archive of USD-M lacks what the API has."""
    for interval in ("5m", "1h", "4h", "1d"):
        differ(sandbox, "archive", interval=interval, kind="doubled_amounts")
    sandbox.faults.add(Fault("status", value=400, interval="5m"))
    _, day, _ = days_of(settings, "usdm/BTCUSDT/5m", *ONE_DAY, "archive", strict=True)
    assert (day.verdict, day.is_accepted) == ("unbalanced", False)
    sandbox.faults.clear()
    for interval in ("5m", "1h", "4h", "1d"):
        differ(sandbox, "archive", interval=interval, kind="doubled_amounts")
    _, healed, _ = days_of(settings, "usdm/BTCUSDT/5m", *ONE_DAY, "archive", strict=True)
    assert (healed.verdict, healed.provenance.source) == ("complete", "rest")


def test_without_the_api_the_hours_of_the_archive_are_witnesses(sandbox: Sandbox, settings: Settings) -> None:
    refuse_location(sandbox)
    differ(sandbox, "archive")
    _, day, _ = days_of(settings, MINUTES, *ONE_DAY, "archive", strict=True)
    assert (day.verdict, day.is_accepted, day.witnesses) == ("unbalanced", True, ("1h candles of archive",))


@pytest.mark.parametrize(
    ("kind", "value"), [("truncated_zip", None), ("not_a_zip", None), ("fields_11", None), ("status", 404)]
)
def test_daily_files_replace_a_bad_monthly_file_of_witness_hours(
    sandbox: Sandbox, settings: Settings, kind: str, value: int | None
) -> None:
    refuse_location(sandbox)
    two_days = Fault("one_trade_more", path="archive", interval="1d", start=JAN_20, end=JAN_20 + 2 * DAY)
    sandbox.faults.add(two_days)
    sandbox.faults.add(Fault(kind, value=value, path="archive/monthly", interval="1h"))
    days = days_of(settings, MINUTES, "2024-01-19", "2024-01-23", "archive", strict=True)
    assert verdicts(days) == ["complete", "unbalanced", "unbalanced", "complete"]
    assert [day.witnesses for day in days[1:3]] == [("1h candles of archive",)] * 2, [day.reason for day in days]
    assert "BTCUSDT-1h-2024-01-20.zip" in requests_for(sandbox, "1h")
    assert requests_for(sandbox, "4h") == []


@pytest.mark.parametrize("strict", [False, True])
def test_a_day_without_a_1d_candle_is_confirmed_or_refuted_by_its_hours(
    sandbox: Sandbox, settings: Settings, strict: bool
) -> None:
    differ(sandbox, *ALL_SOURCES, kind="missing_row")
    _, day, _ = days_of(settings, MINUTES, *ONE_DAY, strict=strict)
    assert (day.verdict, day.witnesses) == ("unproved", ("1h candles of rest",))
    differ(sandbox, *ALL_SOURCES, interval="1m")
    _, changed, _ = days_of(settings, MINUTES, *ONE_DAY, strict=strict)
    assert (changed.verdict, changed.is_accepted, changed.witnesses) == ("unbalanced", not strict, ())


def test_a_gap_that_one_1d_candle_proves_needs_the_hours_of_the_other_source(
    sandbox: Sandbox, settings: Settings
) -> None:
    rows = sandbox.rows("spot", "BTCUSDT", "1m", JAN_20, JAN_21)
    quiet = next(int(row[0]) for row in rows if row[8] == 0)
    for path in ALL_SOURCES:
        sandbox.faults.add(Fault("missing_row", start=quiet, end=quiet + 1, path=path, interval="1m"))
    differ(sandbox, "klines")
    _, day, _ = days_of(settings, MINUTES, *ONE_DAY, strict=True)
    assert (day.verdict, day.witnesses) == ("outage", ("1d candle of archive", "1h candles of rest"))
    sandbox.faults.add(Fault("missing_row", interval="1h"))
    sandbox.faults.add(Fault("missing_row", interval="4h"))
    _, unproved, _ = days_of(settings, MINUTES, *ONE_DAY, strict=True)
    assert (unproved.verdict, unproved.is_accepted) == ("lost", False)


@pytest.mark.parametrize("interval", ["3d", "1w", "1M"])
def test_hours_confirm_a_month_with_a_wrong_1d_candle(sandbox: Sandbox, settings: Settings, interval: str) -> None:
    differ(sandbox, *ALL_SOURCES)
    months = days_of(settings, f"spot/ETHUSDT/{interval}", "2023-12-01", "2024-03-01", strict=True)
    assert verdicts(months) == ["complete", "unbalanced", "complete"]
    assert months[1].witnesses == ("1h candles of rest",)


def test_witnesses_of_many_days_take_few_requests_and_one_per_symbol(sandbox: Sandbox, settings: Settings) -> None:
    for path in ALL_SOURCES:
        sandbox.faults.add(Fault("one_trade_more", path=path, interval="1d", start=JAN_20, end=JAN_20 + 10 * DAY))
    exchange = Exchange(parse_series(MINUTES).market, settings, retrier=quick_retrier())
    days = partitions_between(dt.date(2024, 1, 15), dt.date(2024, 2, 5), DAILY)
    try:
        for name in ("spot/BTCUSDT/5m", "spot/BTCUSDT/15m"):
            results = list(download(exchange, parse_series(name), days, DownloadOptions(strict=True)))
            assert sorted(result.verdict for result in results) == ["complete"] * 11 + ["unbalanced"] * 10
            assert all(result.is_accepted for result in results)
    finally:
        exchange.close()
    assert witnesses_of(sandbox) == (1, 0, 2, 0)


def test_the_lake_is_verified_with_the_same_witnesses(sandbox: Sandbox, settings: Settings) -> None:
    differ(sandbox, "klines")
    lake, series = Lake(settings.lake), parse_series("spot/BTCUSDT/1h")
    lake.prepare("sandbox")
    days = days_of(settings, str(series), *ONE_DAY)
    for day in days:
        lake.write(series, day)
    exchange = Exchange(series.market, settings, retrier=quick_retrier())
    try:
        findings = verify(lake, exchange, series, [day.partition for day in days], "rest", True, lambda _: None)
        assert [finding.message for finding in findings] == []
    finally:
        exchange.close()


# -- outages that no table names ------------------------------------------------------------------------------------


def quiet_minute(sandbox: Sandbox, start: int = JAN_20) -> int:
    """The open time of a minute of the day of ``start`` in which nothing was traded."""
    return next(int(row[0]) for row in sandbox.rows("spot", "BTCUSDT", "1m", start, start + DAY) if row[8] == 0)


def test_an_unnamed_outage_that_both_sources_show_says_so(sandbox: Sandbox, settings: Settings) -> None:
    quiet = quiet_minute(sandbox)
    for path in ALL_SOURCES:
        sandbox.faults.add(Fault("missing_row", start=quiet, end=quiet + 1, path=path, interval="1m"))
    (day,) = days_of(settings, MINUTES, "2024-01-20", "2024-01-21")
    assert (day.verdict, day.is_accepted) == ("outage", True)
    assert day.missing == ((quiet, quiet + MINUTE),)
    assert "no known outage explains it" in day.reason


@pytest.mark.parametrize("source", ["archive", "auto"])
def test_an_unnamed_outage_that_only_the_archive_shows_is_refused(
    sandbox: Sandbox, settings: Settings, source: Source
) -> None:
    refuse_location(sandbox)
    quiet = quiet_minute(sandbox)
    sandbox.faults.add(Fault("missing_row", start=quiet, end=quiet + 1, path="archive", interval="1m"))
    (day,) = days_of(settings, MINUTES, "2024-01-20", "2024-01-21", source)
    assert (day.verdict, day.is_accepted, day.can_override) == ("lost", False, True)
    assert "only archive shows this, and rest could not be compared" in day.reason


@pytest.mark.parametrize(("status", "verdict"), [(404, "lost"), (500, "lost")])
def test_an_unnamed_outage_that_only_the_api_shows_is_refused(
    sandbox: Sandbox, settings: Settings, status: int, verdict: str
) -> None:
    quiet = quiet_minute(sandbox)
    sandbox.faults.add(Fault("missing_row", start=quiet, end=quiet + 1, interval="1m"))
    sandbox.faults.add(Fault("status", value=status, path="archive", interval="1m"))
    (day,) = days_of(settings, MINUTES, "2024-01-20", "2024-01-21")
    assert (day.verdict, day.is_accepted) == (verdict, False)
    assert "only rest shows this, and archive could not be compared" in day.reason


def test_an_unnamed_outage_of_yesterday_waits_for_the_file_of_the_archive(sandbox: Sandbox, settings: Settings) -> None:
    yesterday = sandbox.now_ms() // DAY * DAY - 2 * DAY
    quiet = quiet_minute(sandbox, yesterday)
    sandbox.faults.add(Fault("missing_row", start=quiet, end=quiet + 1, interval="1m"))
    sandbox.faults.add(Fault("status", value=404, path="archive", interval="1m"))
    first = dt.datetime.fromtimestamp(yesterday / 1_000, dt.UTC).date()
    (day,) = days_of(settings, MINUTES, f"{first}", f"{first + dt.timedelta(1)}")
    assert (day.verdict, day.is_accepted) == ("unfinished", False)


def test_an_unnamed_outage_before_the_archive_begins_needs_no_second_source(
    sandbox: Sandbox, settings: Settings
) -> None:
    start = to_ms(dt.date(2019, 12, 1))
    rows = sandbox.rows("usdm", "BTCUSDT", "1m", start, start + DAY)
    quiet = next(int(row[0]) for row in rows if row[8] == 0)
    sandbox.faults.add(Fault("missing_row", start=quiet, end=quiet + 1, interval="1m"))
    (day,) = days_of(settings, "usdm/BTCUSDT/1m", "2019-12-01", "2019-12-02")
    assert (day.verdict, day.is_accepted) == ("outage", True)
    assert "only rest covers this day" in day.reason


def test_a_gap_of_a_suspension_is_called_so(settings: Settings) -> None:
    (march,) = days_of(settings, f"{USDC}/3d", "2023-03-01", "2023-04-01")
    assert march.verdict == "outage"
    assert march.reason.endswith("and nothing was traded (trading of the symbol was suspended)")


def test_a_day_with_a_gap_whose_1d_candle_neither_source_has_is_lost(sandbox: Sandbox, settings: Settings) -> None:
    """The archive has no file of 1d at all, so that nothing but the missing candle can be the reason."""
    differ(sandbox, "klines", kind="missing_row")
    sandbox.faults.add(Fault("status", value=404, path="archive", interval="1d"))
    for path in ALL_SOURCES:
        sandbox.faults.add(Fault("missing_row", start=JAN_20, end=JAN_20 + 1, path=path, interval="1m"))
    _, day, _ = days_of(settings, MINUTES, *ONE_DAY)
    assert (day.verdict, day.can_override) == ("lost", True)
    assert "there is no 1d candle that could prove that nothing was traded" in day.reason


def test_without_the_api_a_missing_row_of_1d_is_named(sandbox: Sandbox, settings: Settings) -> None:
    refuse_location(sandbox)
    differ(sandbox, "archive", kind="missing_row")
    for interval in ("1h", "4h"):
        sandbox.faults.add(Fault("status", value=404, path="archive", interval=interval))
    sandbox.requests.clear()
    _, day, _ = days_of(settings, MINUTES, *ONE_DAY, "archive")
    assert (day.verdict, day.is_accepted) == ("unproved", True)
    assert "the archive has no 1d candle of this day" in day.reason
    assert len(requests_for(sandbox, "1d")) == 2


@pytest.mark.parametrize(("source", "other"), [("rest", "archive"), ("archive", "rest")])
def test_a_day_without_a_1d_candle_that_its_hours_refute_comes_from_the_other_source(
    sandbox: Sandbox, settings: Settings, source: Source, other: str
) -> None:
    differ(sandbox, *ALL_SOURCES, kind="missing_row")
    differ(sandbox, "klines" if source == "rest" else "archive", interval="1m")
    days = days_of(settings, MINUTES, *ONE_DAY, source, strict=True)
    assert verdicts(days) == ["complete", "unproved", "complete"]
    assert (days[1].provenance.source, days[1].witnesses) == (other, ("1h candles of rest",))
    assert_exact(sandbox, MINUTES, days)
