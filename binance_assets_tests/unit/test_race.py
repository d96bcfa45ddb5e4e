"""The comparisons of `make race`, the reading of what tools write, and the tables that the race writes."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import polars as pl
import pytest

from benchmarks.race.__main__ import ranges
from benchmarks.race.comparison import (
    Comparison,
    Response,
    alarming_lines,
    compare,
    normalized_lines,
    response_to_hole,
)
from benchmarks.race.exchange import RaceExchange, archive_keys
from benchmarks.race.listing import Listing
from benchmarks.race.outputs import Output, read_output
from benchmarks.race.report import BEGIN_MARK, END_MARK, describe, insert_report, markdown_table
from benchmarks.race.workloads import ARCHIVE_RANGE, api_holes, archive_holes, months
from binance_assets_tests.support.environment import CHECKOUT

MINUTE = 60_000
START, END = 10 * MINUTE, 15 * MINUTE
TRUTH = pl.DataFrame(
    {
        "open_time": [START + i * MINUTE for i in range(5)],
        "open": [1.0, 2.0, 3.0, 4.0, 5.0],
        "trades": [7, 0, 8, 9, 1],
    }
)


def compared(candles: pl.DataFrame) -> Comparison:
    return compare(candles, TRUTH, START, END)


# -- comparing --------------------------------------------------------------------------------------------------


def test_the_truth_itself_is_exact() -> None:
    assert compared(TRUTH).is_exact
    assert describe(compared(TRUTH)) == "exact"


def test_a_tool_that_keeps_fewer_columns_can_still_be_exact() -> None:
    comparison = compared(TRUTH.drop("trades"))
    assert comparison.is_exact
    assert comparison.columns == 2


def test_a_missing_candle_is_counted() -> None:
    comparison = compared(TRUTH.filter(pl.col("open_time") != START + MINUTE))
    assert (comparison.rows, comparison.expected, comparison.missing) == (4, 5, 1)
    assert not comparison.covers_truth
    assert describe(comparison) == "1 missing"


def test_a_doubled_candle_is_counted_and_does_not_hide_a_missing_one() -> None:
    comparison = compared(pl.concat([TRUTH.head(1), TRUTH.head(4)]).sort("open_time"))
    assert (comparison.rows, comparison.duplicates, comparison.missing) == (5, 1, 1)
    assert describe(comparison) == "1 missing, 1 doubled"


def test_candles_past_the_range_are_not_unknown_ones() -> None:
    past = TRUTH.tail(1).with_columns(open_time=pl.lit(END, pl.Int64))
    off_grid = TRUTH.tail(1).with_columns(pl.col("open_time") + 1)
    comparison = compared(pl.concat([TRUTH, off_grid, past]))
    assert (comparison.outside, comparison.unknown, comparison.missing) == (1, 1, 0)
    assert comparison.covers_truth
    assert not comparison.is_exact


def test_the_order_of_rows_matters() -> None:
    comparison = compared(TRUTH.reverse())
    assert not comparison.is_sorted
    assert describe(comparison) == "not sorted"


def test_a_different_value_is_counted_once_per_row() -> None:
    changed = TRUTH.with_columns(open=pl.Series([1.0, 2.0, 3.5, 4.0, 5.0]), trades=pl.Series([7, 0, 0, 9, None]))
    assert compared(changed).different == 2


def test_no_candles_at_all_are_all_missing() -> None:
    assert compared(TRUTH.clear()).missing == 5
    assert describe(None) == "none"


# -- what a tool did about a hole -----------------------------------------------------------------------------


WHOLE = compared(TRUTH)
HOLED = compared(TRUTH.head(4))


@pytest.mark.parametrize(
    ("comparison", "is_repairable", "exit_code", "reports", "alarms", "expected"),
    [
        (WHOLE, True, 0, [], ["falling back"], Response.REPAIRED),
        (WHOLE, False, 0, [], [], Response.SILENT),
        (WHOLE, False, 0, ["outage"], [], Response.REPORTED),
        (WHOLE, True, 1, [], [], Response.STOPPED),
        (HOLED, True, 0, ["missing 2024-02"], ["warning"], Response.REPORTED),
        (HOLED, True, 1, [], ["Traceback"], Response.STOPPED),
        (HOLED, True, 0, [], ["404"], Response.WARNED),
        (HOLED, True, 0, [], [], Response.SILENT),
        (None, True, 0, [], [], Response.SILENT),
    ],
)
def test_the_response_to_a_hole(
    comparison: Comparison | None,
    is_repairable: bool,
    exit_code: int,
    reports: list[str],
    alarms: list[str],
    expected: Response,
) -> None:
    assert response_to_hole(comparison, is_repairable, exit_code, reports, alarms) is expected


def test_only_lines_that_sound_like_an_alarm_and_are_new_count() -> None:
    usual = "INFO - 31 files\nWARNING - no key given (3 s)\n"
    known = normalized_lines(usual)
    holed = "INFO - 30 files\r\x1b[33mWARNING - no key given (4 s)\x1b[0m\nFile not found: 2024-02\n"
    assert alarming_lines(holed, known) == ["File not found: 2024-02"]


def test_only_an_outage_leaves_nothing_to_repair() -> None:
    missing_candle, outage = api_holes()
    assert missing_candle.is_repairable
    assert not outage.is_repairable
    assert missing_candle.truth().height == outage.truth().height + 1 == 3 * 1440


def test_a_withheld_file_is_not_listed_and_all_others_are() -> None:
    missing_file, *_ = archive_holes()
    exchange = RaceExchange("", Listing())
    exchange.list_files(ARCHIVE_RANGE, missing_file)
    withheld = set(archive_keys(ARCHIVE_RANGE)) - set(exchange.listing.keys)
    assert {key.rpartition("/")[2] for key in withheld} == {"BTCUSDT-1m-2024-02.zip", "BTCUSDT-1m-2024-02-10.zip"}


# -- reading what tools write ---------------------------------------------------------------------------------


def test_a_csv_of_the_archive_is_read_with_and_without_a_header(tmp_path: Path) -> None:
    row = "1704067200000,1.5,2,1,1.5,3,1704067259999,4,5,6,7,0\n"
    header = "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker,taker_quote,ignore\n"
    (tmp_path / "BTCUSDT-1m-2024-02.csv").write_text(row.replace("1704067200000", "1706745600000"))
    (tmp_path / "BTCUSDT-1m-2024-01.csv").write_text(header + row)
    candles = read_output(Output.ARCHIVE_CSV, tmp_path)
    assert candles is not None
    assert candles.get_column("open_time").to_list() == [1704067200000, 1706745600000]
    assert (candles.get_column("trades").to_list(), candles.width) == ([5, 5], 11)


def test_times_of_parquet_files_become_milliseconds(tmp_path: Path) -> None:
    moment = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    frame = pl.DataFrame({"date": [moment], "open": [1.5]}, schema_overrides={"date": pl.Datetime("ns", "UTC")})
    frame.write_parquet(tmp_path / "candles.parquet")
    candles = read_output(Output.PARQUET, tmp_path)
    assert candles is not None
    assert candles.rows() == [(1704067200000, 1.5)]


def test_a_tool_that_wrote_nothing_has_no_candles(tmp_path: Path) -> None:
    assert [read_output(output, tmp_path) for output in Output] == [None, None, None]


# -- the listing and the page ---------------------------------------------------------------------------------


def test_the_listing_names_only_keys_below_the_prefix_and_after_the_marker() -> None:
    listing = Listing(keys=["data/b/2.zip", "data/b/1.zip", "data/c/1.zip"])
    assert listing.xml("data/b/", "").count("<Key>") == 2
    assert "<Key>data/b/2.zip</Key>" in listing.xml("data/b/", "data/b/1.zip")
    assert listing.xml("data/b/", "data/b/2.zip").count("<Key>") == 0


def test_the_table_aligns_numbers_and_keeps_its_columns() -> None:
    table = markdown_table(["tool", "rows"], [["a|b", "1,440"]], right=1)
    assert table == "| tool | rows |\n|---|---:|\n| a/b | 1,440 |"


def test_the_report_replaces_what_is_between_the_marks() -> None:
    page = f"# Race\n\n{BEGIN_MARK}\nold\n{END_MARK}\nend\n"
    assert insert_report(page, "new") == f"# Race\n\n{BEGIN_MARK}\n\nnew\n\n{END_MARK}\nend\n"
    with pytest.raises(ValueError, match="no marks"):
        insert_report("# Race\n", "new")


def test_the_page_has_the_marks_and_names_no_address_and_no_path() -> None:
    page = (CHECKOUT / "docs" / "race.md").read_text()
    assert insert_report(page, "").count(BEGIN_MARK) == 1
    assert not [word for word in ("127.0.0.1", "localhost", "/tmp", "/home", "/root", "site-packages") if word in page]


def test_the_choice_of_market_and_months_narrows_the_race() -> None:
    assert ranges(None, None) == [("spot", 1), ("spot", 12), ("usdm", 1)]
    assert ranges("usdm", [12]) == [("usdm", 12)]
    assert ranges(None, [2]) == [("spot", 2), ("usdm", 2)]


def test_a_range_of_months_ends_with_the_first_day_after_them() -> None:
    assert (months("spot", 12).end, months("usdm", 1).end) == (dt.date(2025, 1, 1), dt.date(2024, 2, 1))
    assert len(ARCHIVE_RANGE.days) == 31 + 29 + 31
    assert [months("spot", count).months for count in range(1, 13)] == list(range(1, 13))
