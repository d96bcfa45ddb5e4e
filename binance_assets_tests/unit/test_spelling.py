"""Messages about names that do not exist ask for the ones that are probably meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binance_assets.api.arguments import market_of, series_of
from binance_assets.cli.options import IntervalType, MarketType, series_named
from binance_assets.model.series import parse_series
from binance_assets.model.spelling import did_you_mean, nearest, nearest_series
from binance_assets.settings import ConfigurationError


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("BTCUSDT", "spot/BTCUSDT/1m"),
        ("btcusdt", "spot/BTCUSDT/1m"),
        ("BTC/USDT", "spot/BTCUSDT/1m"),
        ("BTC-USDT", "spot/BTCUSDT/1m"),
        ("BTC/USDT:USDT", "usdm/BTCUSDT/1m"),
        ("spot/btcusdt/1h", "spot/BTCUSDT/1h"),
        ("spot/BTC/USDT/1h", "spot/BTCUSDT/1h"),
        ("SPOT/BTC-USDT/1H", "spot/BTCUSDT/1h"),
        ("spto/BTCUSDT/5m", "spot/BTCUSDT/5m"),
        ("usd-m BTCUSDT 5min", "usdm/BTCUSDT/5m"),
        ("BTCUSDT/15m", "spot/BTCUSDT/15m"),
        ("spot/BTCUSDT", "spot/BTCUSDT/1m"),
        ("spot/BTCUSDT/1month", "spot/BTCUSDT/1mo"),
        ("btcusd_perp", "coinm/BTCUSD_PERP/1m"),
        ("coinm/BTC/USD/1d", "coinm/BTCUSD_PERP/1d"),
        ("BTCUSDT_270326", "usdm/BTCUSDT_270326/1m"),
    ],
)
def test_a_series_in_another_spelling_is_answered_with_the_right_one_on_the_command_line_and_in_python(
    text: str, meant: str
) -> None:
    for read in (series_named, series_of):
        with pytest.raises(ConfigurationError) as raised:
            read(text)
        assert str(raised.value).endswith(f"(did you mean {meant}?)")


@pytest.mark.parametrize(
    "text", ["", "/", "spot", "USDM/", "spot/1h", "1m", "spot/B?C/1m", "spot//1m", "a" * 1_000, "spot/BTCUSDT/7x"]
)
def test_a_text_that_looks_like_no_series_is_refused_without_a_guess(text: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        series_of(text)
    assert "did you mean" not in str(raised.value)


@given(st.text(max_size=40))
def test_what_is_meant_is_always_a_series(text: str) -> None:
    try:
        parse_series(text)
    except ValueError as error:
        _, question, rest = str(error).rpartition(" (did you mean ")
        if question:
            series_of(rest.removesuffix("?)"))


def test_markets_and_intervals_are_answered_with_the_nearest_one() -> None:
    with pytest.raises(ConfigurationError, match=r"\(did you mean spot\?\)$"):
        market_of("Spott")
    with pytest.raises(Exception, match=r"\(did you mean coinm\?\)$"):
        MarketType().convert("coin-m", None, None)
    with pytest.raises(Exception, match=r"\(did you mean 1h\?\)$"):
        IntervalType().convert("1hour", None, None)
    with pytest.raises(Exception, match=r"1mo$"):
        IntervalType().convert("7m", None, None)


KNOWN = ["spot/BTCUSDT/1h", "usdm/BTCUSDT/1m", "spot/BTCUSDT/1d", "spot/ETHUSDT/1m"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("spot/BTCUSDT/1m", ["spot/BTCUSDT/1h", "spot/BTCUSDT/1d", "usdm/BTCUSDT/1m"]),
        ("spot/BTCUSTD/1d", ["spot/BTCUSDT/1d", "spot/BTCUSDT/1h", "usdm/BTCUSDT/1m"]),
        ("spot/ETHUSD/1m", ["spot/ETHUSDT/1m"]),
        ("spot/LTCUSDT/1m", ["spot/BTCUSDT/1h", "spot/BTCUSDT/1d", "usdm/BTCUSDT/1m"]),
        ("spot/DOGEUSDT/1m", []),
    ],
)
def test_a_series_that_is_not_there_is_answered_with_those_of_its_symbol_or_of_one_spelled_alike(
    name: str, meant: list[str]
) -> None:
    assert nearest_series(name, KNOWN) == meant


def test_the_case_does_not_matter_and_nothing_near_asks_nothing() -> None:
    assert nearest("btcusdt", ["BTCUSDT", "XRPUSDT"]) == ["BTCUSDT", "XRPUSDT"][:1]
    assert did_you_mean(nearest("qqq", ["BTCUSDT"])) == ""
