"""What the name of a symbol shows, and what people write for it."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from binance_assets.model.markets import COINM, MARKETS, SPOT, USDM, Market
from binance_assets.model.symbol_names import contract_by_name, is_symbol, quote_by_name, spelled, unknown_message


@pytest.mark.parametrize(
    ("market", "symbol", "quote", "contract"),
    [
        (SPOT, "BTCUSDT", "USDT", ""),
        (SPOT, "ETHBUSD", "BUSD", ""),
        (SPOT, "USDTTRY", "TRY", ""),
        (SPOT, "USDT", "", ""),
        (SPOT, "ABCXYZ", "", ""),
        (USDM, "1000PEPEUSDT", "USDT", "PERPETUAL"),
        (USDM, "BTCUSDT_210326", "USDT", "DELIVERY"),
        (USDM, "币安人生USDT", "USDT", "PERPETUAL"),
        (COINM, "BTCUSD_PERP", "USD", "PERPETUAL"),
        (COINM, "BTCUSD_210326", "USD", "DELIVERY"),
    ],
)
def test_quote_and_contract_are_read_from_the_name(market: Market, symbol: str, quote: str, contract: str) -> None:
    assert quote_by_name(market, symbol) == quote
    assert contract_by_name(market, symbol) == contract


def test_a_quote_asset_that_exchange_info_names_is_known_too() -> None:
    assert quote_by_name(SPOT, "ABCXYZ", ["XYZ"]) == "XYZ"


@pytest.mark.parametrize(
    ("market", "texts", "symbols"),
    [
        (SPOT, ["BTC/USDT", "eth-usdt", "btcusdt"], ["BTCUSDT", "ETHUSDT"]),
        (SPOT, ["BTCUSDT,ETHUSDT, BNBUSDT"], ["BTCUSDT", "ETHUSDT", "BNBUSDT"]),
        (USDM, ["BTC/USDT:USDT", "btcusdt_270326"], ["BTCUSDT", "BTCUSDT_270326"]),
        (COINM, ["BTC/USD", "btcusd_perp", "BTC/USD:BTC"], ["BTCUSD_PERP"]),
    ],
)
def test_other_spellings_are_understood(market: Market, texts: list[str], symbols: list[str]) -> None:
    assert spelled(texts, market) == symbols


@pytest.mark.parametrize(
    ("market", "text", "message"),
    [
        (USDM, "BTCUSD_PERP", "BTCUSD_PERP is a contract of COIN-M futures by its name; use --market coinm"),
        (SPOT, "btcusd_210326", "use --market coinm"),
        (SPOT, "BTCUSDT_210326", "BTCUSDT_210326 is a futures contract by its name; use --market usdm"),
        (
            COINM,
            "BTCUSDT",
            "there is no symbol BTCUSDT on COIN-M futures, whose contracts are written like BTCUSD_PERP",
        ),
        (SPOT, "spot/BTCUSDT/1m", "is the name of a series; write the symbol alone, BTCUSDT"),
    ],
)
def test_a_symbol_of_another_market_is_refused_by_its_name(market: Market, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*$") as error:
        spelled([text], market)
    assert message in str(error.value)


@example(":", SPOT)
@example("-/", COINM)
@given(st.text(max_size=50), st.sampled_from(list(MARKETS.values())))
def test_any_text_is_split_into_words_or_refused(text: str, market: Market) -> None:
    try:
        words = spelled([text], market)
    except ValueError:
        return
    assert all(words)
    assert [word for word in words if is_symbol(word)] == [word for word in spelled(words, market) if is_symbol(word)]


def test_all_unknown_symbols_are_named_with_the_nearest_ones() -> None:
    known = ["BTCUSDT", "ETHUSDT", "BNBUSDT"]
    message = unknown_message(["BTCUSTD", "QQQ"], known, SPOT)
    assert message.startswith("there are no symbols BTCUSTD (did you mean BTCUSDT?), QQQ on spot; ")
    assert unknown_message(["QQQ"], known, SPOT).startswith("there is no symbol QQQ on spot; ")
