"""Parsing: a klines response becomes a typed table, bit-equal to its numbers, or a ValueError; nothing else."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from binance_assets.candles.columns import columns
from binance_assets.candles.parsing import check_window, csv_rows, parse_archive, parse_rows
from binance_assets.model.intervals import parse_interval
from binance_assets.model.markets import COINM, MARKETS, SPOT, USDM, Market
from binance_assets.model.timestamps import CANDLE_TIMES, to_ms
from binance_assets_tests.support.candles import archive_rows, body_of, expected, parse_page

MINUTES = parse_interval("1m")

# Rows as the exchange sends them: spot with 8 decimals, USD-M with the symbol's decimals, COIN-M in whole contracts.
SPOT_ROW: list[Any] = [1588636800000, "8871.92000000", "8888.00000000", "8871.92000000", "8887.62000000", "47.66737000",
            1588636859999, "423305.63773405", 617, "25.94719700", "230410.46415390", "0"]  # fmt: skip
USDM_ROW: list[Any] = [1672531200000, "16537.50", "16618.80", "16488.00", "16610.30", "105502.965",
            1672617599999, "1746449849.73920", 594299, "52617.509", "871082706.82390", "0"]  # fmt: skip
COINM_ROW: list[Any] = [1666569600000, "19560.7", "19566.7", "19555.5", "19556.2", "19431",
             1666569659999, "99.33183109", 425, "9916", "50.69336469", "0"]  # fmt: skip


@pytest.mark.parametrize(("market", "row"), [(SPOT, SPOT_ROW), (USDM, USDM_ROW), (COINM, COINM_ROW)])
def test_rows_of_each_market_become_typed_columns(market: Market, row: list[Any]) -> None:
    frame = parse_page(market, body_of([row]))
    assert dict(frame.schema) == columns(market)
    assert frame.equals(expected(market, [row]))


def test_columns_of_coin_m_count_contracts() -> None:
    frame = parse_page(COINM, body_of([COINM_ROW]))
    assert frame.row(0, named=True)["volume"] == 19431
    assert frame.row(0, named=True)["base_volume"] == 99.33183109
    assert frame.columns[5:] == [
        "volume", "close_time", "base_volume", "trades", "taker_buy_volume", "taker_buy_base_volume",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("market", "file"),
    [
        (SPOT, "spot/BTCUSDT-1m-2020-01-01.zip"),
        (SPOT, "spot/BTCUSDT-1m-2023-03-24.zip"),
        (SPOT, "spot/ARBUSDT-1m-2023-07-25.zip"),
        (USDM, "usdm/BTCUSDT-1m-2022-09-05.zip"),
        (COINM, "coinm/BTCUSD_PERP-1m-2022-10-24.zip"),
    ],
)
def test_recorded_days_are_bit_equal(recorded_zips: Path, market: Market, file: str) -> None:
    rows = archive_rows(recorded_zips / file)
    assert parse_page(market, body_of(rows)).equals(expected(market, rows))


def test_recorded_responses_are_bit_equal(recorded: Path) -> None:
    paths = sorted((recorded / "spot").glob("gct_*.json"))
    assert paths
    for path in paths:
        rows = json.loads(path.read_text())["body"]
        assert parse_page(SPOT, body_of(rows)).equals(expected(SPOT, rows))


decimals = st.decimals(0, 10**12, places=8, allow_nan=False).map(lambda number: f"{number:.8f}")


@given(
    st.sampled_from(list(MARKETS.values())),
    st.lists(
        st.tuples(
            st.integers(CANDLE_TIMES[0], CANDLE_TIMES[-60_000]),
            st.lists(decimals, min_size=9, max_size=9),
            st.integers(0, 2**40),
        )
    ),
)
def test_any_numbers_are_bit_equal(market: Market, drawn: list[tuple[int, list[str], int]]) -> None:
    rows = [[t, *d[:5], t + 59_999, d[5], n, *d[6:8], "0"] for t, d, n in drawn]
    table = expected(market, rows)
    assert parse_page(market, body_of(rows)).equals(table.unique(maintain_order=True))


@pytest.mark.parametrize("layout", [{"indent": 2}, {"separators": (", ", ": ")}])
def test_white_space_does_not_matter(layout: dict[str, Any]) -> None:
    rows = [SPOT_ROW, [SPOT_ROW[0] + 60_000, *SPOT_ROW[1:]]]
    assert parse_page(SPOT, json.dumps(rows, **layout).encode()).equals(expected(SPOT, rows))


def test_numbers_may_arrive_as_text_and_text_as_numbers() -> None:
    swapped = [str(field) if isinstance(field, int) else float(field) for field in SPOT_ROW]
    assert parse_page(SPOT, body_of([swapped])).equals(expected(SPOT, [SPOT_ROW]))


def test_empty_response_is_an_empty_table_with_all_columns() -> None:
    assert parse_page(COINM, b"[]").schema == columns(COINM)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"{}",
        b'{"code":-1121,"msg":"Invalid symbol."}',
        b"[[]]",
        b"[1,2]",
        b"[[[1]]]",
        body_of([SPOT_ROW])[:-40],
        body_of([SPOT_ROW[:11]]),
        body_of([[*SPOT_ROW, "0"]]),
        body_of([SPOT_ROW[:11], [*SPOT_ROW, "0"]]),
        body_of([["", *SPOT_ROW[1:]]]),
        body_of([[*SPOT_ROW[:4], "", *SPOT_ROW[5:]]]),
        body_of([[*SPOT_ROW[:4], None, *SPOT_ROW[5:]]]),
        body_of([[*SPOT_ROW[:4], "dear", *SPOT_ROW[5:]]]),
        body_of([[*SPOT_ROW[:4], True, *SPOT_ROW[5:]]]),
        body_of([[*SPOT_ROW[:4], ["1"], *SPOT_ROW[5:]]]),
        body_of([[1.5, *SPOT_ROW[1:]]]),
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_any_other_body_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_page(SPOT, body)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_table_or_a_value_error(body: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert dict(parse_page(SPOT, body).schema) == columns(SPOT)


MINUTE_ROWS = [[SPOT_ROW[0] + minute * 60_000, *SPOT_ROW[1:]] for minute in range(3)]
patches = st.binary(max_size=6) | st.text('[]",.+-0123456789eE \r\n', max_size=6).map(str.encode)


@settings(max_examples=500)
@given(st.lists(st.tuples(st.integers(0, 500), patches, st.integers(0, 6)), min_size=1, max_size=3))
def test_mutated_responses_are_the_table_of_their_json_or_a_value_error(changes: list[tuple[int, bytes, int]]) -> None:
    mutated = mutate(body_of(MINUTE_ROWS), changes)
    table, reason = table_or_reason(lambda: parse_page(SPOT, mutated))
    assert "\n" not in reason
    if table is not None:
        rows = json.loads(mutated)  # whatever JSON refuses is refused
        assert table.equals(expected(SPOT, rows).unique(maintain_order=True))


@settings(max_examples=500)
@given(
    st.sampled_from([1, 1_000]),
    st.lists(st.tuples(st.integers(0, 400), patches, st.integers(0, 6)), min_size=1, max_size=3),
)
def test_mutated_files_are_the_table_of_their_lines_or_a_value_error(
    unit: int, changes: list[tuple[int, bytes, int]]
) -> None:
    lines = [",".join(map(str, [row[0] * unit, *row[1:6], row[6] * unit, *row[7:]])) for row in MINUTE_ROWS]
    mutated = mutate("\n".join(lines).encode(), changes)
    table, reason = table_or_reason(lambda: parse_archive(SPOT, mutated))
    assert "\n" not in reason
    if table is not None:
        lines = mutated.removeprefix(b"\xef\xbb\xbf").decode("latin-1").split("\n")
        rows = [line.split(",") for line in lines if line.strip("\r")]
        in_ms = [[int(row[0]) // unit, *row[1:6], int(row[6]) // unit, *row[7:]] for row in rows if row[0].isdigit()]
        assert table.equals(expected(SPOT, in_ms).unique(maintain_order=True))
        assert all(len(row) == 12 for row in rows)


def table_or_reason(parse: Callable[[], pl.DataFrame]) -> tuple[pl.DataFrame | None, str]:
    """Return the table, or None and the text of the ValueError; any other error is a failure."""
    try:
        return parse(), ""
    except ValueError as error:
        return None, str(error)


def mutate(text: bytes, changes: list[tuple[int, bytes, int]]) -> bytes:
    """Return ``text`` after each ``(position, inserted bytes, number of bytes removed)``."""
    for position, patch, cut in changes:
        text = text[:position] + patch + text[position + cut :]
    return text


@given(st.binary(max_size=300))
def test_any_lines_are_a_table_or_a_value_error(text: bytes) -> None:
    for parse in (parse_rows, parse_archive):
        with contextlib.suppress(ValueError):
            assert dict(parse(SPOT, text).schema) == columns(SPOT)


BODY = body_of(MINUTE_ROWS)


@pytest.mark.parametrize(
    "body",
    [
        BODY.replace(b'"8871.92000000"', b'"88[71.92000000"', 1),
        BODY.replace(b'"8871.92000000"', b'"88]71.92000000"', 1),
        BODY.replace(b'"8871.92000000"', b'88"71.92000000', 1),
        BODY.replace(b'"8871.92000000"', b'"8871.92000000', 1),
        BODY.replace(b'"8871.92000000"', b'8871.92000000"', 1),
        BODY.replace(b'"8871.92000000"', b'"+8871.92000000"', 1),
        BODY.replace(b'"8871.92000000"', b"+8871.92000000", 1),
        BODY.replace(b'"8871.92000000"', b"08871.92000000", 1),
        BODY.replace(b'"8871.92000000"', b'"8871.92.000000"', 1),
        BODY.replace(b'"8871.92000000"', b'"8.87192e3"', 1),
        BODY.replace(b'"8871.92000000"', b'"8_871.92"', 1),
        BODY.replace(b'"8871.92000000"', b'"0x1p3"', 1),
        BODY.replace(b'"8871.92000000"', b'"."', 1),
        BODY.replace(b'"8871.92000000"', b'"-"', 1),
        BODY.replace(b'"8871.92000000"', b'"--1"', 1),
        BODY.replace(b'"8871.92000000"', b'"NaN"', 1),
        BODY.replace(b'"8871.92000000"', b'"inf"', 1),
        BODY.replace(b'"8871.92000000"', b"NaN", 1),
        BODY.replace(b'"8871.92000000"', b"-Infinity", 1),
        BODY.replace(b'"8871.92000000"', b"1e999", 1),
        BODY.replace(b'"8871.92000000","8888.00000000"', b'"8871.92000000,8888.00000000"', 1),
        BODY.replace(b'"8871.92000000","8888.00000000"', b'8871.92000000"8888.00000000,', 1),
        BODY.replace(b'"8871.92000000"', b'"8871.9200000"0', 1),
        BODY.replace(b'"8871.92000000"', b'88"71.92000000"', 1),
        BODY.replace(b'"8871.92000000"', b'8"871.920000"00', 1),
        BODY.replace(b'"8871.92000000"', b'8871.92000000""', 1),
        BODY.replace(b'"0"]', b'"0"0]', 1),
        BODY.replace(b'"0"]', b'0"0"]', 1),
        BODY.replace(b'"0"]', b'"0""]', 1),
        BODY.replace(b"],[1", b"],1[", 1),
        BODY.replace(b"[[1", b"[1[", 1),
        BODY.replace(b"[[1", b"1[[", 1),
        BODY.replace(b'"]]', b'"]1]', 1),
        BODY.replace(b'"]]', b'"]]1', 1),
        BODY.replace(b"],[", b"],", 1),
        BODY.replace(b"],[", b",[", 1),
        BODY.replace(b"],[", b"]x,[", 1),
        BODY.replace(b"],[", b"]1,[", 1),
        BODY.replace(b"],[", b"],,[", 1),
        BODY.replace(b"],[", b"][", 1),
        BODY.replace(b"],[", b"],[],[", 1),
        BODY[:-1],
        BODY[:-2] + b",]]",
        BODY + b",",
        BODY + BODY,
        b"[" + BODY,
        BODY.replace(b"617", b"0617", 1),
        BODY.replace(b"617", b"00", 1),
        BODY.replace(b"617", b"617.", 1),
        BODY.replace(b"617", b"617.0", 1),
        BODY.replace(b"617", b"", 1),
        BODY.replace(b"617", b"6171e1", 1),
        BODY.replace(b"617", b"9223372036854775808", 1),
        BODY.replace(b"1588636800000", b"01588636800000", 1),
        BODY.replace(b"1588636859999", b"01588636859999", 1),
        BODY.replace(b"1588636800000", b"1588636800000.", 1),
    ],
)
def test_page_that_json_refuses_or_with_other_than_plain_numbers_is_refused(body: bytes) -> None:
    assert body != BODY
    with pytest.raises(ValueError, match=r"."):
        parse_page(SPOT, body)


def test_refused_field_is_named() -> None:
    with pytest.raises(ValueError, match=r"a field is not a number of the expected kind: '88\[71\.92'"):
        parse_page(SPOT, BODY.replace(b"8871.92000000", b"88[71.92", 1))


def test_numbers_may_have_a_sign_and_an_exponent_where_json_allows_them() -> None:
    body = BODY.replace(b'"8871.92000000"', b"-8.87192e3", 1).replace(b'"8888.00000000"', b'"-8888"', 1)
    assert parse_page(SPOT, body).row(0)[1:3] == (-8871.92, -8888)


@pytest.mark.parametrize("field", [0, 6])
@pytest.mark.parametrize(
    ("time", "is_time"),
    [
        (CANDLE_TIMES[0], True),
        (CANDLE_TIMES[-1], True),
        (CANDLE_TIMES[0] - 1, False),
        (CANDLE_TIMES[-1] + 1, False),
        (0, False),
        (-1, False),
        (SPOT_ROW[0] // 1_000, False),
        (SPOT_ROW[0] * 1_000, False),
        (2**63 - 1, False),
        (2**63, False),
        (-SPOT_ROW[0] // 10, False),
    ],
)
def test_times_are_from_2017_to_2099(field: int, time: int, is_time: bool) -> None:
    rows = [MINUTE_ROWS[0], [*MINUTE_ROWS[1][:field], time, *MINUTE_ROWS[1][field + 1 :]]]
    lines = ",".join(map(str, rows[0])) + "\n" + ",".join(map(str, rows[1]))
    page_table, page_reason = table_or_reason(lambda: parse_page(SPOT, body_of(rows)))
    file_table, file_reason = table_or_reason(lambda: parse_archive(SPOT, lines.encode()))
    assert (page_reason == "", file_reason == "") == (is_time, is_time)
    if is_time:
        assert page_table is not None
        assert file_table is not None
        assert page_table.equals(expected(SPOT, rows))
        assert file_table.equals(expected(SPOT, rows))


def test_first_and_last_day_of_candle_times() -> None:
    assert (CANDLE_TIMES.start, CANDLE_TIMES.stop) == (to_ms(dt.date(2017, 1, 1)), to_ms(dt.date(2100, 1, 1)))


def test_page_with_one_row_in_microseconds_is_refused_wherever_the_row_is() -> None:
    for position in range(3):
        rows = [list(row) for row in MINUTE_ROWS]
        rows[position][0] *= 1_000
        rows[position][6] *= 1_000
        with pytest.raises(ValueError, match="some times are in milliseconds and some in microseconds"):
            parse_page(SPOT, body_of(rows))


def test_page_in_microseconds_is_refused() -> None:
    rows = [[row[0] * 1_000, *row[1:6], row[6] * 1_000, *row[7:]] for row in MINUTE_ROWS]
    with pytest.raises(ValueError, match="open_time 1588636800000000 is not a time from 2017 to 2099"):
        parse_page(SPOT, body_of(rows))


@pytest.mark.parametrize("order", [(0, 0, 1), (0, 1, 0, 1), (0, 1, 2, 1), (0, 0, 0, 0)])
def test_exact_repeats_of_rows_are_dropped(order: tuple[int, ...]) -> None:
    rows = [MINUTE_ROWS[n] for n in order]
    kept = [MINUTE_ROWS[n] for n in sorted(set(order))]
    assert parse_page(SPOT, body_of(rows)).equals(expected(SPOT, kept))
    pages = [csv_rows(body_of([row])) for row in rows]
    assert parse_rows(SPOT, b"".join(pages)).equals(expected(SPOT, kept))
    text = "".join(",".join(map(str, row)) + "\n" for row in rows).encode()
    assert parse_archive(SPOT, text).equals(expected(SPOT, kept))


def test_different_rows_with_the_same_open_time_are_kept_and_refused_by_the_window() -> None:
    changed = [*SPOT_ROW[:8], SPOT_ROW[8] + 1, *SPOT_ROW[9:]]
    table = parse_page(SPOT, body_of([SPOT_ROW, changed]))
    assert table.equals(expected(SPOT, [SPOT_ROW, changed]))
    with pytest.raises(ValueError, match="repeated"):
        check_window(table, MINUTES, SPOT_ROW[0], SPOT_ROW[0] + 180_000)


def page(*minutes: int, shift: int = 0) -> pl.DataFrame:
    """Return candles that open in ``minutes`` and differ in their number of trades."""
    start = SPOT_ROW[0]
    rows = [[start + m * 60_000 + shift, *SPOT_ROW[1:8], n, *SPOT_ROW[9:]] for n, m in enumerate(minutes)]
    return parse_page(SPOT, body_of(rows))


def test_page_with_the_requested_candles_passes() -> None:
    check_window(page(0, 1, 2), MINUTES, SPOT_ROW[0], SPOT_ROW[0] + 180_000)
    check_window(page(0, 2), MINUTES, SPOT_ROW[0], SPOT_ROW[0] + 180_000)
    check_window(page(), MINUTES, SPOT_ROW[0], SPOT_ROW[0] + 180_000)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (page(0, 1, 1, 2), "repeated"),
        (page(0, 2, 1), "out of order"),
        (page(-1, 0, 1), "outside the requested window"),
        (page(1, 2, 3), "outside the requested window"),
        (page(0, 1, shift=1), "off the grid"),
    ],
)
def test_page_with_other_candles_is_refused(rows: pl.DataFrame, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_window(rows, MINUTES, SPOT_ROW[0], SPOT_ROW[0] + 180_000)
