"""What the name of a symbol shows: whether it can be one, its quote asset, its contract, and how people misspell it.

exchangeInfo knows quote and contract of a listed symbol. Of a symbol that it no longer lists, only the name is left.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final

from binance_assets.model.markets import COINM, SPOT, Market
from binance_assets.model.spelling import did_you_mean, nearest
from binance_assets.model.wording import name_some

PERPETUAL: Final = "PERPETUAL"
"""The contract type of a futures contract without a delivery."""

DELIVERY: Final = "DELIVERY"
"""The contract type of a contract with a delivery whose quarter is no longer known; matches every type with one."""

PAST_QUOTES: Final = (
    frozenset(
        ["AUD", "BIDR", "BKRW", "BNB", "BRL", "BTC", "BUSD", "BVND", "DAI", "DOGE", "DOT", "ETH", "EUR", "FDUSD", "GBP"]
    )
    | frozenset(
        ["IDRT", "NGN", "PAX", "PLN", "RUB", "TRX", "TRY", "TUSD", "UAH", "USD", "USDC", "USDP", "USDS", "USDT", "UST"]
    )
    | frozenset(["VAI", "XRP", "ZAR"])
)
"""Quote assets that pairs of Binance have or had. The list may lack some: a pair of such a one has an unknown quote."""

# ASCII symbols consist of capitals, digits and underscores; since 2025 there are also symbols in other scripts.
_SYMBOL: Final = re.compile(r"[A-Z0-9_\u0080-\U0010ffff]{1,40}")
_CONTRACT: Final = re.compile(r"(?P<pair>.+)_(?:(?P<perpetual>PERP)|[0-9]{6})")
_COINM: Final = re.compile(r"[A-Z0-9]+USD_(PERP|[0-9]{6})")
_SEPARATORS: Final = re.compile(r"[,\s]+")
_NAMED: Final = 10


def is_symbol(text: str) -> bool:
    """Return whether ``text`` is written as Binance writes symbols."""
    return _SYMBOL.fullmatch(text) is not None and text.replace("_", "").isalnum()


def quote_by_name(market: Market, symbol: str, quotes: Iterable[str] = ()) -> str:
    """Return the quote asset of a symbol according to its name; empty if no known one fits.

    The longest known quote asset decides: ``ETHBUSD`` has the quote BUSD and not USD.

    Args:
        market: The market.
        symbol: The symbol.
        quotes: Quote assets that are known besides those of the past.
    """
    match = _CONTRACT.fullmatch(symbol)
    pair = match["pair"] if match else symbol
    if market is COINM:
        return "USD" if pair.endswith("USD") else ""
    fitting = (quote for quote in PAST_QUOTES.union(quotes) if pair.endswith(quote) and pair != quote)
    return max(fitting, key=lambda quote: (len(quote), quote), default="")


def contract_by_name(market: Market, symbol: str) -> str:
    """Return the contract type according to the name: ``PERPETUAL`` or ``DELIVERY``; empty on spot."""
    if market is SPOT:
        return ""
    match = _CONTRACT.fullmatch(symbol)
    return PERPETUAL if match is None or match["perpetual"] else DELIVERY


def spelled(texts: Iterable[str], market: Market) -> list[str]:
    """Return the symbols that a user means: each once, in order, as Binance spells them.

    ``btcusdt``, ``BTC/USDT``, ``BTC-USDT``, ccxt's ``BTC/USDT:USDT``, and lists with commas are understood.

    Raises:
        ValueError: A text is the name of a series, or a symbol of another market; the message says what to write.
    """
    words = [word for text in texts for word in _SEPARATORS.split(text) if word]
    symbols = [_spelled(word, market) for word in words]
    for symbol in symbols:
        _check_market(symbol, market)
    return list(dict.fromkeys(symbols))


def _spelled(word: str, market: Market) -> str:
    parts = word.upper().split("/")
    if len(parts) == 3:
        raise ValueError(f"{word!r} is the name of a series; write the symbol alone, {parts[1]}")
    symbol = "".join(parts).partition(":")[0].replace("-", "")
    if not symbol:
        return word  # nothing but separators, which the check of the symbol refuses
    if market is COINM and len(parts) == 2 and "_" not in symbol:
        return f"{symbol}_PERP"
    return symbol


def _check_market(symbol: str, market: Market) -> None:
    """Refuse a symbol that belongs to another market by its name.

    Raises:
        ValueError: The message names the market, or the spelling.
    """
    if market is not COINM and _COINM.fullmatch(symbol):
        raise ValueError(f"{symbol} is a contract of COIN-M futures by its name; use --market coinm")
    if market is COINM and is_symbol(symbol) and not _CONTRACT.fullmatch(symbol):
        pair = symbol.removesuffix("T") if symbol.endswith("USDT") else symbol
        raise ValueError(f"there is no symbol {symbol} on COIN-M futures, whose contracts are written like {pair}_PERP")
    if market is SPOT and _CONTRACT.fullmatch(symbol):
        raise ValueError(f"{symbol} is a futures contract by its name; use --market usdm")


def unknown_message(unknown: Iterable[str], known: Collection[str], market: Market) -> str:
    """Return one line that names the unknown symbols, each with the nearest known ones.

    Args:
        unknown: The unknown symbols.
        known: All symbols of the market.
        market: The market.
    """
    hints = [symbol + did_you_mean(nearest(symbol, known)) for symbol in unknown]
    there_is = "there is no symbol" if len(hints) == 1 else "there are no symbols"
    return f"{there_is} {name_some(hints, _NAMED)} on {market.title}; binance-assets symbols {market} lists what it has"
