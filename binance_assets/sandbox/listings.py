"""The symbols with synthetic candles.

Names and listing times are those of well-known pairs; the times are approximate. After the name of a symbol come its
listing, its price level, the end of its trading (``-`` for none), and ``removed``, or ``suspended`` with two days.
Price levels are round numbers of the right order of magnitude. ``S001USDT`` to ``S300USDT`` (spot and USD-M) exist for
benchmarks with many series, and ``N001USDT`` to ``N080USDT`` (USD-M) for tests that need many short monthly files.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from binance_assets.model.markets import COINM, MARKETS, NO_DELIVERY, SPOT, USDM, Market
from binance_assets.model.timestamps import DAY, SECOND

_QUARTER: Final = 91 * DAY
_QUOTES: Final = ("USDT", "USDC", "FDUSD", "BTC", "ETH", "BNB", "EUR", "TRY", "USD")

_SPOT: Final = """
BTCUSDT 2017-08-17T04:00 60000
ETHUSDT 2017-08-17T04:00 3000
BNBUSDT 2017-11-06T03:00 500
NEOUSDT 2017-11-20T09:00 15
LTCUSDT 2017-12-13T03:00 90
ADAUSDT 2018-04-17T04:00 0.5
XRPUSDT 2018-05-04T08:00 0.6
IOTAUSDT 2018-05-31T09:00 0.3
XLMUSDT 2018-05-31T09:30 0.2
TRXUSDT 2018-06-11T11:30 0.1
ETCUSDT 2018-06-12T10:00 25
VETUSDT 2018-07-25T04:00 0.03
LINKUSDT 2019-01-16T10:00 15
FETUSDT 2019-02-28T10:00 1
ZECUSDT 2019-03-21T10:00 60
DASHUSDT 2019-03-28T04:00 80
ATOMUSDT 2019-04-29T04:00 9
ALGOUSDT 2019-06-22T00:00 0.3
DOGEUSDT 2019-07-05T12:00 0.1
CHZUSDT 2019-09-06T04:00 0.1
XTZUSDT 2019-09-24T12:00 1
HBARUSDT 2019-09-29T04:00 0.1
BCHUSDT 2019-11-28T10:00 400
SOLUSDT 2020-08-11T06:00 100
DOTUSDT 2020-08-18T23:00 7
UNIUSDT 2020-09-17T03:00 8
AVAXUSDT 2020-09-22T06:30 30
NEARUSDT 2020-10-14T07:00 4
AAVEUSDT 2020-10-15T03:00 120
FILUSDT 2020-10-15T09:00 5
INJUSDT 2020-10-21T04:00 15
SANDUSDT 2020-08-14T12:00 0.5
SHIBUSDT 2021-05-10T11:00 0.00002
ICPUSDT 2021-05-11T01:00 10
OPUSDT 2022-06-01T11:00 2
APTUSDT 2022-10-19T01:00 8
ARBUSDT 2023-03-23T15:00 1
SRMUSDT 2020-08-11T12:00 1 2022-11-28T03:00 removed
SUIUSDT 2023-05-03T12:00 2
USDCUSDT 2018-12-15T03:00 1 - suspended 2022-09-29 2023-03-12
PEPEUSDT 2023-05-05T16:00 0.00001
WLDUSDT 2023-07-24T09:00 2
SEIUSDT 2023-08-15T12:00 0.4
"""

_USDM: Final = """
BTCUSDT 2019-09-08T17:00 60000
ETHUSDT 2019-11-27T07:00 3000
BCHUSDT 2019-12-16T08:00 400
XRPUSDT 2020-01-06T08:00 20
LTCUSDT 2020-01-09T08:00 90
LINKUSDT 2020-01-17T08:00 20
ADAUSDT 2020-01-31T08:00 20
BNBUSDT 2020-02-10T08:00 500
DOGEUSDT 2020-07-10T09:00 20
DOTUSDT 2020-08-22T07:00 20
SOLUSDT 2020-09-14T07:00 100
AVAXUSDT 2020-09-23T07:00 30
NEARUSDT 2020-10-15T07:00 20
AAVEUSDT 2020-10-16T07:00 120
1000SHIBUSDT 2021-05-10T11:30 20
ARBUSDT 2023-03-23T15:30 20
SUIUSDT 2023-05-03T12:30 20
1000PEPEUSDT 2023-05-05T16:30 20
币安人生USDT 2025-10-07T10:00 20
BTCUSDT_210326 2020-12-25T08:00 60000 2021-03-26T08:00 removed
BTCUSDT_260327 2025-09-26T08:00 60000 2026-03-27T08:00
BTCUSDT_270326 2026-06-26T08:00 60000 2027-03-26T08:00
"""

_COINM: Final = """
BTCUSD_PERP 2020-08-10T07:00 60000
ETHUSD_PERP 2020-08-11T07:00 3000
LINKUSD_PERP 2020-08-12T07:00 200
BNBUSD_PERP 2020-08-13T07:00 500
ADAUSD_PERP 2020-08-19T07:00 200
LTCUSD_PERP 2020-09-03T07:00 200
XRPUSD_PERP 2020-09-08T07:00 200
SOLUSD_PERP 2021-07-28T07:00 200
BTCUSD_200925 2020-06-01T08:00 60000 2020-09-25T08:00
BTCUSD_210326 2020-09-25T08:00 60000 2021-03-26T08:00
BTCUSD_270326 2026-06-26T08:00 60000 2027-03-26T08:00
"""

_BENCHMARK_NUMBERS: Final = range(1, 301)
_BENCHMARK_LISTED_AT: Final = "2019-01-01T00:00"
_YOUNG_NUMBERS: Final = range(1, 81)
_YOUNG_LISTED_AT: Final = "2024-01-29T00:00"


@dataclass(frozen=True, slots=True)
class Listing:
    """One symbol of one market.

    Attributes:
        market: The market.
        symbol: The symbol, as Binance writes it.
        listed_at: Start of trading, ms UTC.
        delivered_at: Delivery of the contract, or delisting, which ends trading, ms UTC; None for a symbol without an
            end.
        price_level: The price around which the synthetic candles move, in the quote asset.
        suspended: The time without trading, ``(start, end)``, both midnight UTC in ms; None without such a time.
        removed: Whether klines no longer knows the symbol after the end of trading; its archive files stay.
    """

    market: Market
    symbol: str
    listed_at: int
    delivered_at: int | None = None
    price_level: Decimal = Decimal(100)
    suspended: tuple[int, int] | None = None
    removed: bool = False

    def is_served(self, now: int) -> bool:
        """Return whether klines knows it at ``now`` (ms UTC)."""
        return not self.removed or self.is_trading(now)

    def is_trading(self, now: int) -> bool:
        """Return whether exchangeInfo lists it at ``now`` (ms UTC)."""
        return self.listed_at <= now and (self.delivered_at is None or now < self.delivered_at)

    def is_suspended(self, now: int) -> bool:
        """Return whether it is suspended at ``now`` (ms UTC)."""
        return self.suspended is not None and self.suspended[0] <= now < self.suspended[1]

    @property
    def pair(self) -> str:
        """The pair of a contract (``BTCUSD`` for ``BTCUSD_PERP``)."""
        return self.symbol.split("_")[0]

    @property
    def assets(self) -> tuple[str, str]:
        """Base and quote asset."""
        for quote in _QUOTES:
            if self.pair.endswith(quote) and self.pair != quote:
                return self.pair.removesuffix(quote), quote
        return self.pair, ""

    @property
    def contract_size(self) -> int:
        """Value of a COIN-M contract, in USD."""
        return 100 if self.symbol.startswith("BTC") else 10

    def exchange_info(self, now: int) -> dict[str, Any]:
        """Return its entry in exchangeInfo as of ``now`` (ms UTC)."""
        base, quote = self.assets
        status = "BREAK" if self.is_suspended(now) else "TRADING"
        entry: dict[str, Any] = {"symbol": self.symbol, "status": status, "baseAsset": base, "quoteAsset": quote}
        if self.market is SPOT:
            precisions = ("baseAssetPrecision", "quotePrecision", "quoteAssetPrecision")
            return entry | dict.fromkeys(precisions, 8) | {"isSpotTradingAllowed": True}
        entry |= {
            "pair": self.pair,
            "contractType": self._contract_type(now),
            "deliveryDate": self.delivered_at or NO_DELIVERY,
            "onboardDate": self.listed_at,
            "pricePrecision": 2 if self.market is USDM else 1,
            "quantityPrecision": 3 if self.market is USDM else 0,
            "baseAssetPrecision": 8,
            "quotePrecision": 8,
            "marginAsset": quote if self.market is USDM else base,
            "underlyingType": "COIN",
        }
        if self.market is COINM:
            entry |= {"contractStatus": entry.pop("status"), "contractSize": self.contract_size}
        return entry

    def _contract_type(self, now: int) -> str:
        if self.delivered_at is None:
            return "PERPETUAL"
        return "CURRENT_QUARTER" if self.delivered_at - now <= _QUARTER else "NEXT_QUARTER"


def synthetic_listings() -> dict[tuple[str, str], Listing]:
    """Return all symbols with synthetic candles, by market name and symbol."""
    return {(listing.market.name, listing.symbol): listing for listing in _all_listings()}


def _all_listings() -> Iterator[Listing]:
    for market, table in (("spot", _SPOT), ("usdm", _USDM), ("coinm", _COINM)):
        for line in table.strip().splitlines():
            yield _parse_listing(MARKETS[market], line.split())
    for market in ("spot", "usdm"):
        for number in _BENCHMARK_NUMBERS:
            price_level = str(20 + number * 37 % 400)
            yield _parse_listing(MARKETS[market], [f"S{number:03d}USDT", _BENCHMARK_LISTED_AT, price_level])
    for number in _YOUNG_NUMBERS:
        yield _parse_listing(USDM, [f"N{number:03d}USDT", _YOUNG_LISTED_AT, "20"])


def _parse_listing(market: Market, fields: list[str]) -> Listing:
    symbol, listed_at, price_level, *rest = fields
    delivery = _parse_time(rest[0]) if rest and rest[0] != "-" else None
    suspended = (_parse_time(rest[2]), _parse_time(rest[3])) if "suspended" in rest else None
    return Listing(
        market, symbol, _parse_time(listed_at), delivery, Decimal(price_level), suspended, removed="removed" in rest
    )


def _parse_time(moment: str) -> int:
    return int(dt.datetime.fromisoformat(moment).replace(tzinfo=dt.UTC).timestamp()) * SECOND
