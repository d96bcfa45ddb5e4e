"""Reading by the names of series: ranges, gaps, resampling, shapes, opened files, and errors, over real lakes."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import binance_assets as ba
from binance_assets.candles.columns import columns
from binance_assets.candles.resampling import resample
from binance_assets.model.intervals import parse_derived_interval
from binance_assets.model.partitions import partition_for_key, partitions_between
from binance_assets.model.results import PartitionResult, Verdict
from binance_assets.model.series import Series, parse_series
from binance_assets.model.timestamps import DAY, HOUR, MINUTE, to_ms
from binance_assets.settings import ConfigurationError
from binance_assets.storage.lake import Lake
from binance_assets_tests.support.lakes import change, files_read_in, local
from binance_assets_tests.support.results import result_of, write_as_layout_1

HOURS, QUARTERS = parse_series("spot/BTCUSDT/1h"), parse_series("spot/BTCUSDT/15m")
COIN, MINUTES = parse_series("coinm/BTCUSD_PERP/1h"), parse_series("spot/BTCUSDT/1m")
FIRST = dt.datetime(2024, 3, 1)
START = to_ms(FIRST.date())
KEYS = [f"2024-03-0{day}" for day in range(1, 5)]


def with_gap(series: Series, key: str, first: int, count: int, verdict: Verdict = "outage") -> PartitionResult:
    """Return a partition without ``count`` candles, the first of which is number ``first``."""
    whole = result_of(series, key)
    step, start = series.interval.step, whole.partition.start
    kept = whole.candles.filter(~pl.int_range(pl.len()).is_between(first, first + count - 1))
    gap = (start + first * step, start + (first + count) * step)
    return PartitionResult(whole.partition, verdict, kept, (gap,), strict=False)


def opens(table: pl.DataFrame) -> list[int]:
    return table["open_time"].to_physical().to_list()


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Four days of hours and quarters; in the hours, 05:00 to 07:00 of the second day and the third day are missing."""
    lake = Lake(tmp_path_factory.mktemp("reading") / "lake")
    lake.prepare("sandbox")
    empty = result_of(HOURS, KEYS[2], 0, "suspended")
    hours = [result_of(HOURS, KEYS[0]), with_gap(HOURS, KEYS[1], 5, 2), empty, result_of(HOURS, KEYS[3])]
    lake.write_all(HOURS, hours)
    lake.write_all(QUARTERS, [*(result_of(QUARTERS, key) for key in KEYS[:3]), with_gap(QUARTERS, KEYS[3], 0, 6)])
    lake.write_all(COIN, [result_of(COIN, key) for key in KEYS[:2]])
    return lake


# -- ranges ---------------------------------------------------------------------------------------------------------


@given(first=st.integers(0, 4 * 96 * 15), minutes=st.integers(1, 3 * 1440))
def test_a_range_has_exactly_the_candles_that_open_in_it(lake: Lake, first: int, minutes: int) -> None:
    start = FIRST + dt.timedelta(minutes=min(first, 4 * 1440 - 1))
    end = min(start + dt.timedelta(minutes=minutes), FIRST + dt.timedelta(days=4))
    table = ba.load(QUARTERS, start, end, lake=lake)
    whole = ba.load(QUARTERS, lake=lake)
    assert table.equals(whole.filter(pl.col("open_time").dt.replace_time_zone(None).is_between(start, end, "left")))


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2024-03-02", "20240303"),
        (dt.date(2024, 3, 2), dt.date(2024, 3, 3)),
        (dt.datetime(2024, 3, 2), dt.datetime(2024, 3, 3, 1, tzinfo=dt.timezone(dt.timedelta(hours=1)))),
        (dt.datetime(2024, 3, 1, 23, 59, 59, 999_001), dt.datetime(2024, 3, 2, 23, 45, 0, 1)),
    ],
)
def test_a_moment_is_a_text_a_date_or_a_datetime_in_utc(lake: Lake, start: Any, end: Any) -> None:
    found = opens(ba.load(QUARTERS, start, end, lake=lake))
    assert found == list(range(START + DAY, START + 2 * DAY, 15 * MINUTE))


def test_without_an_end_a_range_reaches_to_the_last_stored_partition(lake: Lake) -> None:
    assert ba.load(HOURS, "2024-03-04", lake=lake).height == 24
    assert ba.load(HOURS, end="2024-03-02", lake=lake).height == 24
    assert ba.load(HOURS, lake=lake).height == 24 + 22 + 24


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start": "2024-3"}, "start: '2024-3' is not a date; write it like 2024-01-31"),
        ({"start": "2017"}, "start 2017-01-01: Binance opened in July 2017, so give 2017-07-01 or a later day"),
        ({"end": "2099"}, "end 2099-01-01 00:00 is later than today's midnight"),
        ({"start": "2024-03", "end": "2024-03"}, "end 2024-03-01 00:00 is not after start 2024-03-01 00:00"),
        ({"start": 2024}, "start 2024 is not a date; write a text, a date, or a datetime"),
        ({"every": "7m"}, "every: 7m cannot be derived, its candles would reach across midnight"),
        ({"every": "30m"}, "every=30m: candles of spot/BTCUSDT/1h do not add up to it"),
        ({"missing": "fill"}, "missing='fill' is none of 'keep', 'null', 'flat', 'raise'"),
        ({"series": "BTCUSDT"}, "'BTCUSDT' is not a series; write market/SYMBOL/interval"),
        ({"series": []}, "no series is named"),
        ({"series": [HOURS, "spot/BTCUSDT/1h"]}, "spot/BTCUSDT/1h is named twice"),
    ],
)
def test_a_bad_argument_is_answered_in_one_line(lake: Lake, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        ba.scan(**{"series": HOURS, "lake": lake, **arguments})
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


# -- files ----------------------------------------------------------------------------------------------------------


def test_a_month_out_of_ten_years_opens_one_file_and_lists_nothing(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    lake.write_all(MINUTES, [result_of(MINUTES, key) for key in ("2024-02-29", "2024-03-01", "2024-03-02")])
    source = local(lake.path(MINUTES, partition_for_key("2024-02-29", MINUTES.interval)))
    for year in range(2018, 2024):  # the names are enough: nobody looks at them
        (source.parent / f"{year}-01.parquet").write_bytes(source.read_bytes())
    listed: list[str] = []
    watching = True

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event in ("os.listdir", "os.scandir"):
            listed.append(str(arguments[0]))

    sys.addaudithook(watch)
    try:
        with files_read_in(lake) as opened:
            table = ba.scan(MINUTES, "2024-03-01", "2024-03-03", lake=lake)
    finally:
        watching = False
    assert set(opened) == {"2024-03.parquet"}
    assert [path for path in listed if str(lake.root) in path] == []
    assert "2024-03.parquet" in table.explain()
    assert table.explain().count(".parquet") == 1
    assert table.collect().height == 2 * 1440


def test_files_of_layout_1_are_found_by_name_beside_the_file_of_their_span(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    write_as_layout_1(lake.root, HOURS, result_of(HOURS, KEYS[1]))
    local(lake.root).joinpath("market=spot").touch()
    assert ba.load(HOURS, KEYS[1], KEYS[2], lake=lake).height == 24
    lake.write_all(QUARTERS, [result_of(QUARTERS, KEYS[0])])
    write_as_layout_1(lake.root, QUARTERS, result_of(QUARTERS, KEYS[1]))
    assert ba.load(QUARTERS, KEYS[0], KEYS[2], lake=lake).height == 2 * 96


def test_changed_candles_are_refused_unless_they_are_not_checked(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    lake.write_all(HOURS, [result_of(HOURS, KEYS[0])])
    change(lake, HOURS, KEYS[0], pl.col("close") + 1, content_hash="0" * 64)
    with pytest.raises(ba.LakeError, match="its candles are not those that were written"):
        ba.scan(HOURS, KEYS[0], KEYS[1], lake=lake)
    assert ba.scan(HOURS, KEYS[0], KEYS[1], check=False, lake=lake).collect().height == 24


# -- what the lake lacks --------------------------------------------------------------------------------------------


def test_an_absent_partition_raises_with_the_command_to_run(lake: Lake) -> None:
    with pytest.raises(ba.MissingPartitions) as raised:
        ba.scan(HOURS, "2024-02-28", "2024-03-06", lake=lake)
    assert [partition.key for partition in raised.value.partitions] == ["2024-02-28", "2024-02-29", "2024-03-05"]
    command = "run binance-assets download BTCUSDT --market spot --interval 1h --start 2024-02-28 --end 2024-03-06"
    assert command in str(raised.value)
    found = ba.load(HOURS, "2024-02-28", "2024-03-06", allow_missing=True, lake=lake)
    assert found.equals(ba.load(HOURS, lake=lake))


def test_a_series_without_files_raises_too(lake: Lake) -> None:
    with pytest.raises(
        ba.MissingPartitions, match="holds no partition of spot/ETHUSDT/1m; run binance-assets download"
    ):
        ba.scan("spot/ETHUSDT/1m", lake=lake)
    with pytest.raises(ba.MissingPartitions, match=r"Binance has no 45m: .* give a finer series and every='45m'"):
        ba.scan("spot/ETHUSDT/45m", lake=lake)
    assert ba.load("spot/ETHUSDT/1m", allow_missing=True, lake=lake).schema == pl.Schema(columns(MINUTES.market))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    path = local(lake.write(HOURS, result_of(HOURS, KEYS[0])).path)
    path.write_bytes(b"PAR1 is not enough")
    with pytest.raises(ba.MissingPartitions, match=f"{path} cannot be read"):
        ba.scan(HOURS, KEYS[0], KEYS[1], lake=lake)


# -- gaps ----------------------------------------------------------------------------------------------------------


def test_gaps_stay_absent_or_become_rows_of_nulls_on_the_whole_grid(lake: Lake) -> None:
    kept, nulls = ba.load(HOURS, lake=lake), ba.load(HOURS, missing="null", lake=lake)
    assert opens(nulls) == list(range(START, START + 4 * DAY, HOUR))
    assert nulls.drop_nulls().equals(kept)
    gaps = nulls.filter(pl.col("close").is_null())
    assert gaps.height == 2 + 24
    assert gaps.drop("open_time").null_count().row(0) == (26,) * 10


def test_flat_candles_repeat_the_last_close_and_are_marked(lake: Lake) -> None:
    flat, kept = ba.load(HOURS, missing="flat", lake=lake), ba.load(HOURS, lake=lake)
    assert opens(flat) == list(range(START, START + 4 * DAY, HOUR))
    assert flat.filter(~pl.col("is_filled")).drop("is_filled").equals(kept)
    filled = flat.filter("is_filled")
    expected = [4.0] * 2 + [23.0] * 24
    assert all(filled[price].to_list() == expected for price in ("open", "high", "low", "close"))
    assert filled.select("volume", "quote_volume", "trades", "taker_buy_volume").sum().row(0) == (0, 0, 0, 0)
    assert filled["close_time"].to_physical().to_list() == [time + HOUR - 1 for time in opens(filled)]
    assert flat.null_count().sum_horizontal().item() == 0


@given(start=st.integers(0, 95), hours=st.integers(1, 40))
def test_a_part_of_the_filled_candles_is_the_part_of_all_of_them(lake: Lake, start: int, hours: int) -> None:
    """In particular, a range that begins within a gap begins with the close before the gap."""
    first, last = FIRST + dt.timedelta(hours=start), FIRST + dt.timedelta(hours=min(96, start + hours))
    whole = ba.load(HOURS, missing="flat", verdicts=True, lake=lake)
    part = ba.load(HOURS, first, last, missing="flat", verdicts=True, lake=lake)
    assert part.equals(whole[start : start + hours])


def test_a_gap_without_a_candle_before_it_is_not_filled(lake: Lake, tmp_path: Path) -> None:
    other = Lake(tmp_path / "lake")
    other.write(HOURS, with_gap(HOURS, KEYS[0], 0, 3))
    assert ba.load(HOURS, missing="flat", lake=other).height == 21
    assert ba.load(HOURS, missing="null", lake=other).height == 24


def test_gaps_can_be_an_error_that_names_them(lake: Lake) -> None:
    with pytest.raises(
        ba.MissingCandles, match="no candles for 2024-03-02 05:00 to 07:00, 2024-03-03 00:00 to"
    ) as raised:
        ba.scan(HOURS, missing="raise", lake=lake)
    second = START + DAY
    assert raised.value.spans == [(second + 5 * HOUR, second + 7 * HOUR), (second + DAY, second + 2 * DAY)]
    assert ba.load(HOURS, end=FIRST + dt.timedelta(hours=29), missing="raise", lake=lake).height == 29


def test_each_candle_has_the_verdict_of_its_partition(lake: Lake) -> None:
    table = ba.load(HOURS, missing="null", verdicts=True, lake=lake)
    verdicts = table.group_by(pl.col("open_time").dt.date(), maintain_order=True).agg(pl.col("verdict").unique())
    assert verdicts["verdict"].to_list() == [["complete"], ["outage"], ["suspended"], ["complete"]]


def test_months_are_filled_on_the_grid_of_their_interval(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    for name in ("spot/BTCUSDT/1mo", "spot/BTCUSDT/1w", "spot/BTCUSDT/3d"):
        series = parse_series(name)
        whole = [result_of(series, f"2024-0{month}-01") for month in (1, 3)]
        lake.write_all(series, [whole[0], result_of(series, "2024-02-01", 0, "suspended"), whole[1]])
        table = ba.load(series, "2024-01", "2024-04", missing="flat", verdicts=True, lake=lake)
        assert opens(table) == list(series.interval.open_times(to_ms(dt.date(2024, 1, 1)), to_ms(dt.date(2024, 4, 1))))
        ends = [series.interval.close(time) - 1 for time in opens(table.filter("is_filled"))]
        assert table.filter("is_filled")["close_time"].to_physical().to_list() == ends
        assert set(table.filter("is_filled")["verdict"]) == {"suspended"}


# -- resampling -----------------------------------------------------------------------------------------------------


@given(
    every=st.sampled_from(["30m", "45m", "90m", "1h", "4h", "1d"]),
    first=st.integers(0, 3 * 1440),
    minutes=st.integers(1, 1440),
)
def test_coarse_candles_that_open_in_the_range_are_whole(lake: Lake, every: str, first: int, minutes: int) -> None:
    start, interval = FIRST + dt.timedelta(minutes=first), parse_derived_interval(every)
    end = start + dt.timedelta(minutes=minutes)
    whole = resample(QUARTERS.market, ba.load(QUARTERS, lake=lake), interval)
    asked = pl.col("open_time").dt.replace_time_zone(None).is_between(start, end, "left")
    assert ba.load(QUARTERS, start, end, every, lake=lake).equals(whole.filter(asked))


def test_a_coarse_candle_is_missing_if_all_of_its_finer_ones_are(lake: Lake) -> None:
    """The quarters of the last day begin at 01:30."""
    kept = ba.load(QUARTERS, "2024-03-04", every="1h", lake=lake)
    nulls = ba.load(QUARTERS, "2024-03-04", every="1h", missing="null", lake=lake)
    flat = ba.load(QUARTERS, "2024-03-04", every="1h", missing="flat", lake=lake)
    assert (kept.height, nulls.height, flat.height) == (23, 24, 24)
    assert nulls["close"].null_count() == 1
    assert flat.filter("is_filled")["close"].to_list() == [95.0]  # the last close of the day before
    with pytest.raises(ba.MissingCandles, match="2024-03-04 00:00 to 01:30"):
        ba.scan(QUARTERS, every="1h", missing="raise", lake=lake)


# -- several series -------------------------------------------------------------------------------------------------


def test_a_long_table_names_symbols_and_what_else_differs(lake: Lake) -> None:
    both = ba.load([HOURS, COIN], KEYS[0], KEYS[2], lake=lake)
    assert both.columns[:3] == ["symbol", "market", "open_time"]
    assert both.group_by("symbol", "market", maintain_order=True).len().rows() == [
        ("BTCUSDT", "spot", 46),
        ("BTCUSD_PERP", "coinm", 48),
    ]
    coin = both.filter(market="coinm")
    assert coin.select(*columns(COIN.market)).equals(ba.load(COIN, lake=lake))
    assert coin["quote_volume"].null_count() == 48
    assert ba.load([HOURS], lake=lake).columns[:2] == ["symbol", "open_time"]
    mixed = ba.load([HOURS, QUARTERS], KEYS[0], KEYS[1], lake=lake)
    assert mixed.columns[:3] == ["symbol", "interval", "open_time"]
    assert ba.load([HOURS, QUARTERS], KEYS[0], KEYS[1], "4h", lake=lake).columns[:2] == ["symbol", "open_time"]


def test_a_panel_has_a_column_for_each_series(lake: Lake) -> None:
    panel = ba.panel([HOURS, COIN], lake=lake)
    assert panel.columns == ["open_time", "BTCUSDT", "BTCUSD_PERP"]
    assert panel.height == 48 + 24
    assert panel["BTCUSDT"].null_count() == 2
    assert panel["open_time"].is_sorted()
    twice = ba.panel([HOURS, QUARTERS], KEYS[0], KEYS[1], "1h", column="trades", lake=lake)
    assert twice.columns == ["open_time", "spot/BTCUSDT/1h", "spot/BTCUSDT/15m"]


@pytest.mark.parametrize(
    ("column", "series", "message"),
    [
        ("base_volume", [COIN, HOURS], "spot/BTCUSDT/1h has no column 'base_volume' for a panel; it has open_time"),
        ("close", [HOURS, QUARTERS], "the series of a panel have several intervals; give every"),
    ],
)
def test_a_panel_that_makes_no_sense_is_refused(lake: Lake, column: str, series: list[Series], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ba.panel(series, column=column, lake=lake)


# -- where and how --------------------------------------------------------------------------------------------------


def test_the_lake_is_that_of_the_settings_and_of_the_env_file(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BINANCE_ASSETS_LAKE", str(tmp_path / "nowhere"))
    with pytest.raises(ba.MissingPartitions, match="nowhere holds no partition"):
        ba.scan(HOURS)
    (tmp_path / ".env").write_text(f"BINANCE_ASSETS_LAKE={lake.root}\n")
    assert ba.load("spot/BTCUSDT/1h").height == 70
    assert ba.load("spot/BTCUSDT/1h", lake=str(lake.root)).height == 70


def test_coverage_counts_what_the_lake_holds(lake: Lake) -> None:
    table = ba.coverage(lake=lake)
    assert table["series"].to_list() == [str(COIN), str(QUARTERS), str(HOURS)]
    assert table.row(2, named=True) | {"bytes": 0, "missing": 0} == dict.fromkeys(table.columns, 0) | {
        "series": str(HOURS),
        "first": KEYS[0],
        "last": KEYS[3],
        "partitions": 4,
        "complete": 2,
        "outage": 1,
        "suspended": 1,
        "unnamed_outages": 0,
        "rows": 70,
    }
    assert ba.coverage("spot/BTCUSDT/1h", lake=lake).height == 1


def test_tables_become_those_of_pandas_and_arrow(lake: Lake) -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    table = ba.scan(HOURS, lake=lake)
    frame = ba.as_pandas(table)
    assert list(frame.columns) == table.collect_schema().names()
    assert str(frame["open_time"].dt.tz) == "UTC"
    assert frame["close"].tolist() == table.collect()["close"].to_list()
    assert ba.as_arrow(table.collect()).num_rows == 70


WITHOUT_PANDAS = """\
import sys
sys.modules["pandas"] = None
import binance_assets as ba
table = ba.load("spot/BTCUSDT/1h", lake=sys.argv[1])
print(*sorted({"dagster", "pandera"} & set(sys.modules)), table.height)
try:
    ba.as_pandas(table)
except ImportError as error:
    print(error)
"""


def test_reading_loads_neither_dagster_nor_pandera_and_a_missing_extra_is_named(lake: Lake) -> None:
    command = [sys.executable, "-c", WITHOUT_PANDAS, str(lake.root)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert printed.splitlines() == ["70", "as_pandas needs pandas; pip install 'binance-assets[pandas]'"]


@pytest.mark.parametrize("every", [None, "2h"])
@pytest.mark.parametrize("missing", ["keep", "null", "flat"])
def test_both_engines_of_polars_give_the_same_table(lake: Lake, missing: ba.Missing, every: str | None) -> None:
    table = ba.scan([HOURS, COIN], end=KEYS[2], every=every, missing=missing, verdicts=True, lake=lake)
    assert table.collect().equals(table.collect(engine="streaming"))


def test_all_partitions_of_a_lake_are_read_in_the_order_of_time(lake: Lake) -> None:
    days = partitions_between(FIRST.date(), FIRST.date() + dt.timedelta(days=4), HOURS.interval)
    assert ba.load(HOURS, lake=lake).equals(lake.read(HOURS, days))
