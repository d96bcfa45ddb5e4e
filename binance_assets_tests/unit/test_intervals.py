"""Intervals, their grids, partitions, series and timestamps."""

from __future__ import annotations

import datetime as dt
import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binance_assets.model.intervals import INTERVALS, Interval, parse_derived_interval, parse_interval
from binance_assets.model.markets import COINM, SPOT, USDM, exchange_at, is_other_exchange, limits_address
from binance_assets.model.partitions import (
    FIRST_DAY,
    Partition,
    closes_at,
    last_finished_end,
    merge_ranges,
    next_partition_first_day,
    partition_for_key,
    partitions_between,
)
from binance_assets.model.series import Series, derived_series, parse_series
from binance_assets.model.timestamps import DAY, MINUTE, to_date, to_ms, to_text

intervals = st.sampled_from(INTERVALS)
days = st.dates(FIRST_DAY, dt.date(2030, 1, 1))


def test_markets_have_binances_intervals() -> None:
    assert len(SPOT.intervals) == 16
    assert [interval.api_name for interval in USDM.intervals] == [
        interval.api_name for interval in SPOT.intervals if interval.api_name != "1s"
    ]
    assert COINM.intervals == USDM.intervals


def test_month_has_two_spellings_and_is_not_the_minute() -> None:
    assert parse_interval("1M") is parse_interval("1mo")
    assert parse_interval("1M").name == "1mo"
    assert parse_interval("1m").step == 60_000
    assert str(parse_series("spot/BTCUSDT/1M")) == "spot/BTCUSDT/1mo"


@pytest.mark.parametrize("interval", [interval for interval in INTERVALS if not interval.is_multi_day], ids=str)
def test_derived_interval_is_binances_own_if_there_is_one(interval: Interval) -> None:
    assert parse_derived_interval(interval.name) is interval


@pytest.mark.parametrize(("text", "minutes"), [("10m", 10), ("45m", 45), ("90m", 90), ("3h", 180), ("30s", 0.5)])
def test_interval_that_binance_lacks_has_a_grid_from_midnight(text: str, minutes: float) -> None:
    interval = parse_derived_interval(text)
    step = int(minutes * MINUTE)
    assert str(interval) == text
    assert interval == parse_derived_interval(text)
    midnight = to_ms(dt.date(2024, 2, 29))
    assert list(interval.open_times(midnight, midnight + DAY)) == list(range(midnight, midnight + DAY, step))
    assert partition_for_key("2024-02-29", interval) == Partition(midnight, midnight + DAY)
    with pytest.raises(ValueError, match="no interval"):
        parse_interval(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("7m", "reach across midnight"),
        ("5h", "reach across midnight"),
        ("7s", "divides a day evenly"),
        ("60m", "write 1h"),
        ("24h", "write 1d"),
        ("60s", "write 1m"),
        ("1440m", "write 1d"),
        ("180m", "write 3h"),
        ("5400s", "write 90m"),
        ("2d", "longer than a day"),
        ("3d", "longer than a day"),
        ("25h", "write at most 1d"),
        ("999999999d", "longer than a day"),
        ("1w", "write it like"),
        ("1M", "write it like"),
        ("1mo", "write it like"),
        ("0m", "write it like"),
        ("05m", "write it like"),
        ("1.5h", "write it like"),
        ("-5m", "write it like"),
        ("5m\n", "write it like"),
        ("\u0665m", "write it like"),
        ("9" * 5_000 + "m", "write it like"),
        ("", "write it like"),
    ],
)
def test_interval_that_cannot_be_derived_is_refused_with_the_way_out(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        parse_derived_interval(text)
    assert "\n" not in str(raised.value)


@given(st.integers(1, 200_000), st.sampled_from("smhd"))
def test_every_derived_interval_divides_a_day_and_has_one_spelling(count: int, unit: str) -> None:
    try:
        interval = parse_derived_interval(f"{count}{unit}")
    except ValueError:
        return
    assert str(interval) == f"{count}{unit}"
    assert DAY % interval.step == 0
    assert interval.step == count * {"s": 1_000, "m": MINUTE, "h": 60 * MINUTE, "d": DAY}[unit]


@given(intervals, days, st.integers(0, 2))
def test_partitions_split_the_grid_without_loss_or_repetition(
    interval: Interval, start: dt.date, phase_days: int
) -> None:
    phase = phase_days * DAY if interval.has_symbol_phase else 0
    first = start.replace(day=1) if interval.is_multi_day else start
    end = first
    for _ in range(4):
        end = next_partition_first_day(end, interval)
    whole = list(interval.open_times(to_ms(first), to_ms(end), phase))
    split = [
        time
        for partition in partitions_between(first, end, interval)
        for time in interval.open_times(partition.start, partition.end, phase)
    ]
    assert split == whole
    for earlier, later in itertools.pairwise(whole):
        assert interval.close(earlier) == later


@given(intervals, st.integers(to_ms(FIRST_DAY), to_ms(dt.date(2030, 1, 1))))
def test_slot_starts_at_or_before_the_times_in_it(interval: Interval, time: int) -> None:
    slot = interval.slot(time)
    assert interval.slot_start(slot) <= time < interval.slot_start(slot + 1)


def test_week_opens_on_monday_and_month_on_its_first_day() -> None:
    week, month = parse_interval("1w"), parse_interval("1M")
    assert all(to_date(week.slot_start(n)).weekday() == 0 for n in range(2_500, 2_510))
    assert all(to_date(month.slot_start(n)).day == 1 for n in range(2_024 * 12, 2_026 * 12))


def test_partition_closes_with_the_last_candle_that_opens_in_it() -> None:
    january = partition_for_key("2024-01-01", parse_interval("1w"))
    assert to_date(january.end) == dt.date(2024, 2, 1)
    assert to_date(closes_at(january, parse_interval("1w"))) == dt.date(
        2024, 2, 5
    )  # the week that begins on Monday 29 January
    assert to_date(closes_at(january, parse_interval("1M"))) == dt.date(2024, 2, 1)
    first_day = partition_for_key("2024-01-01", parse_interval("1h"))
    assert to_date(closes_at(first_day, parse_interval("1h"))) == dt.date(2024, 1, 2)


def test_month_of_3d_closes_by_the_phase_of_the_symbol() -> None:
    three_days = parse_interval("3d")
    january = partition_for_key("2024-01-01", three_days)
    ends = {to_date(closes_at(january, three_days, phase * DAY)) for phase in range(3)}
    assert ends == {dt.date(2024, 2, 1), dt.date(2024, 2, 2), dt.date(2024, 2, 3)}
    assert last_finished_end(to_ms(dt.date(2024, 2, 2)), three_days) == dt.date(2024, 1, 1)
    assert last_finished_end(to_ms(dt.date(2024, 2, 3)), three_days) == dt.date(2024, 2, 1)


@pytest.mark.parametrize(
    ("interval", "now", "end"),
    [
        ("1m", "2024-03-01 00:00", "2024-03-01"),
        ("1d", "2024-03-01 23:59", "2024-03-01"),
        ("1M", "2024-03-01 00:00", "2024-03-01"),
        ("1w", "2024-03-03 23:59", "2024-02-01"),
        ("1w", "2024-03-04 00:00", "2024-03-01"),
    ],
)
def test_partitions_are_finished_when_their_last_candle_has_closed(interval: str, now: str, end: str) -> None:
    moment = int(dt.datetime.fromisoformat(now + "+00:00").timestamp() * 1_000)
    assert last_finished_end(moment, parse_interval(interval)).isoformat() == end


def test_adjacent_partitions_merge_into_ranges() -> None:
    assert merge_ranges([Partition(0, 1), Partition(1, 2), Partition(3, 4)]) == [(0, 2), (3, 4)]
    assert merge_ranges([]) == []


def test_recorded_multi_day_candles_are_on_their_grids(recorded: Path) -> None:
    for name, api_name in (("BTCUSDT_1w_2010", "1w"), ("SOLUSDT_1M_2010", "1M"), ("BTCUSDT_3d_2020", "3d")):
        rows = json.loads((recorded / "spot" / f"REST_spot_{name}-01-01.json").read_text())
        interval = parse_interval(api_name)
        opens = [row[0] for row in rows]
        phase = interval.phase(opens[0])
        assert opens == list(interval.open_times(opens[0], opens[-1] + 1, phase))


def test_phase_of_3d_differs_between_symbols(recorded: Path) -> None:
    phases = set()
    for symbol in ("BTCUSDT", "DOTUSDT"):
        rows = json.loads((recorded / "spot" / f"REST_spot_{symbol}_3d_2020-01-01.json").read_text())
        phases.add(parse_interval("3d").phase(rows[0][0]))
    assert len(phases) == 2


@pytest.mark.parametrize("text", ["BTC/USDT", "btcusdt", "", "../etc", "BTC USDT", "A" * 41, "-BTC", "BTC.USDT"])
def test_text_that_is_not_a_symbol_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a symbol"):
        Series(SPOT, text, parse_interval("1m"))


@pytest.mark.parametrize("text", ["spot/BTCUSDT", "moon/BTCUSDT/1m", "spot/BTCUSDT/7m", "usdm/BTCUSDT/1s", ""])
def test_text_that_is_not_a_series_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_series(text)


def test_derived_series_may_have_an_interval_that_the_market_lacks() -> None:
    derived = derived_series(SPOT, "BTCUSDT", parse_derived_interval("45m"))
    assert str(derived) == "spot/BTCUSDT/45m"
    assert derived.key == ("spot", "BTCUSDT", "45m")
    assert derived.derived
    for name in ("spot/BTCUSDT/45m", "spot/BTCUSDT/90m"):
        with pytest.raises(ValueError, match="there is no interval"):
            parse_series(name)
    with pytest.raises(ValueError, match="spot has no candles of 45m"):
        Series(SPOT, "BTCUSDT", parse_derived_interval("45m"))
    with pytest.raises(ValueError, match="USD-M futures has no candles of 1s"):
        Series(USDM, "BTCUSDT", parse_interval("1s"))


def test_derived_series_follows_the_symbol_rules_and_is_at_most_a_day() -> None:
    with pytest.raises(ValueError, match="not a symbol"):
        derived_series(SPOT, "btc/usdt", parse_derived_interval("45m"))
    for interval in ("3d", "1w", "1M"):
        with pytest.raises(ValueError, match="longer than a day"):
            derived_series(SPOT, "BTCUSDT", parse_interval(interval))


def test_derived_and_fetched_series_are_equal() -> None:
    derived, fetched = derived_series(SPOT, "BTCUSDT", parse_interval("1h")), parse_series("spot/BTCUSDT/1h")
    assert derived == fetched
    assert hash(derived) == hash(fetched)
    assert (derived.derived, fetched.derived) == (True, False)


def test_non_ascii_symbol_is_punycode_in_keys_only() -> None:
    series = parse_series("usdm/币安人生USDT/1m")
    assert str(series) == "usdm/币安人生USDT/1m"
    assert series.key[1].startswith("xn_USDT_")
    assert series.key[1].isascii()


def test_timestamps_are_formatted_in_utc() -> None:
    assert to_text(to_ms(dt.date(2024, 1, 1)) + 45_000) == "2024-01-01 00:00:45"


def test_binance_hosts_share_a_budget_and_other_hosts_do_not() -> None:
    assert limits_address("https://fapi.binance.com") == limits_address("https://dapi.binance.com")
    assert limits_address("https://data-api.binance.vision") == limits_address("https://api.binance.com")
    assert limits_address("http://127.0.0.1:8900") == "127.0.0.1:8900"
    assert limits_address("https://testnet.binance.vision") != limits_address("https://api.binance.com")


@pytest.mark.parametrize(
    ("url", "exchange", "is_other"),
    [
        ("https://api.binance.com", "binance.com", False),
        ("https://API3.binance.com:443", "binance.com", False),
        ("https://api-gcp.binance.com", "binance.com", False),
        ("https://data-api.binance.vision", "binance.com", False),
        ("https://fapi.binance.com", "binance.com", False),
        ("https://dapi.binance.com", "binance.com", False),
        ("https://data.binance.vision", "binance.com", False),
        ("https://testnet.binance.vision", "testnet.binance.vision", True),
        ("https://testnet.binancefuture.com", "testnet.binancefuture.com", True),
        ("https://demo-fapi.binance.com", "demo-fapi.binance.com", True),
        ("https://api.binance.us", "api.binance.us", True),
        ("https://api.binance.com.example.org", "api.binance.com.example.org", False),
        ("http://proxy.local:8080", "proxy.local", False),
        ("http://127.0.0.1:8900", "127.0.0.1", False),
    ],
)
def test_hosts_of_one_exchange_have_one_name(url: str, exchange: str, is_other: bool) -> None:
    assert (exchange_at(url), is_other_exchange(url)) == (exchange, is_other)
