"""Parsing: a klines response becomes a typed table, bit-equal to its numbers, or a ValueError; nothing else."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from binance_assets.candles.columns import columns
from binance_assets.candles.parsing import check_window
from binance_assets.model.intervals import parse_interval
from binance_assets.model.markets import COINM, MARKETS, SPOT, USDM, Market
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
    st.lists(st.tuples(st.integers(0, 2**41), st.lists(decimals, min_size=9, max_size=9), st.integers(0, 2**40))),
)
def test_any_numbers_are_bit_equal(market: Market, drawn: list[tuple[int, list[str], int]]) -> None:
    rows = [[t, *d[:5], t + 59_999, d[5], n, *d[6:8], "0"] for t, d, n in drawn]
    assert parse_page(market, body_of(rows)).equals(expected(market, rows))


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


@given(st.integers(0, 600), st.binary(max_size=6), st.integers(0, 6))
def test_mutated_responses_are_a_table_or_a_value_error(position: int, patch: bytes, cut: int) -> None:
    body = body_of([SPOT_ROW, [SPOT_ROW[0] + 60_000, *SPOT_ROW[1:]], [SPOT_ROW[0] + 120_000, *SPOT_ROW[1:]]])
    mutated = body[:position] + patch + body[position + cut :]
    with contextlib.suppress(ValueError):
        assert dict(parse_page(SPOT, mutated).schema) == columns(SPOT)


def page(*minutes: int, shift: int = 0) -> pl.DataFrame:
    start = SPOT_ROW[0]
    return parse_page(SPOT, body_of([[start + m * 60_000 + shift, *SPOT_ROW[1:]] for m in minutes]))


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
