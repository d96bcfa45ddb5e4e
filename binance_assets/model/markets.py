"""The three markets and everything that differs between them, as one table.

This is the one place for hosts, paths, page sizes, request weights, windows, row layouts and rate-limit pools.

Sources: Binance's spot REST API documentation (2026-07), the docstrings of Binance's own futures connectors
(2026-08), and measurements of fapi (2026-10). Where documentation and measurement differ (a futures page of
exactly 100 or 500 rows) the documented, dearer weight stands.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from binance_assets.model.intervals import INTERVALS, Interval
from binance_assets.model.timestamps import DAY


@dataclass(frozen=True, slots=True)
class PageSize:
    """The largest page that one price buys: up to ``rows`` candles cost ``weight``."""

    rows: int
    weight: int


@dataclass(frozen=True, slots=True)
class Market:
    """One of Binance's markets.

    Attributes:
        name: Its name in keys, paths and the command line.
        title: Its name in prose.
        default_url: The host that serves it unless the settings name another.
        api: Path prefix of its REST API.
        rate_limit_group: Markets with the same pool draw on one weight budget (USD-M and COIN-M since June 2026).
        weight_limit: Weight that an IP may use in a minute, by the documentation; it counts only until exchangeInfo,
            which knows better, has been asked.
        page_sizes: Request weight of klines by ``limit``, smallest first.
        max_window: Longest ``endTime - startTime`` that klines accepts, ms; None where there is no bound.
        newest_first: Whether a window with more candles than ``limit`` answers the newest of them
            (COIN-M counts back from ``endTime``) rather than the oldest.
        intervals: The intervals it has.
        value_columns: Names of the row's fields 5, 7, 9 and 10, in this order.
        info_weight: Request weight of exchangeInfo.
        opened: The first day of the market on which any candle opens.
        archive: Folder of the market in the public archive.
        archived: The first day of which the archive has files; later than the market's own on futures.
    """

    name: str
    title: str
    default_url: str
    api: str
    rate_limit_group: str
    weight_limit: int
    page_sizes: tuple[PageSize, ...]
    max_window: int | None
    newest_first: bool
    intervals: tuple[Interval, ...]
    value_columns: tuple[str, str, str, str]
    info_weight: int
    opened: dt.date
    archive: str
    archived: dt.date

    def __str__(self) -> str:
        return self.name

    def klines_weight(self, limit: int) -> int:
        """Request weight of a klines call with ``limit`` rows; one beyond the largest page costs as that."""
        for size in self.page_sizes:
            if limit <= size.rows:
                return size.weight
        return self.page_sizes[-1].weight

    @property
    def max_limit(self) -> int:
        """The largest ``limit`` that klines accepts."""
        return self.page_sizes[-1].rows


_FUTURES_PAGES: Final = (PageSize(99, 1), PageSize(499, 2), PageSize(1000, 5), PageSize(1500, 10))


_QUOTED: Final = ("volume", "quote_volume", "taker_buy_volume", "taker_buy_quote_volume")


SPOT: Final = Market(
    name="spot",
    title="spot",
    default_url="https://api.binance.com",
    api="/api/v3",
    rate_limit_group="spot",
    weight_limit=6000,
    page_sizes=(PageSize(1000, 2),),
    max_window=None,
    newest_first=False,
    intervals=INTERVALS,
    value_columns=_QUOTED,
    info_weight=20,
    opened=dt.date(2017, 7, 14),
    archive="spot",
    archived=dt.date(2017, 8, 17),
)


USDM: Final = Market(
    name="usdm",
    title="USD-M futures",
    default_url="https://fapi.binance.com",
    api="/fapi/v1",
    rate_limit_group="futures",
    weight_limit=2400,
    page_sizes=_FUTURES_PAGES,
    max_window=None,
    newest_first=False,
    intervals=INTERVALS[1:],
    value_columns=_QUOTED,
    info_weight=1,
    opened=dt.date(2019, 9, 8),
    archive="futures/um",
    archived=dt.date(2019, 12, 31),
)


COINM: Final = Market(
    name="coinm",
    title="COIN-M futures",
    default_url="https://dapi.binance.com",
    api="/dapi/v1",
    rate_limit_group="futures",
    weight_limit=2400,
    page_sizes=_FUTURES_PAGES,
    max_window=200 * DAY,
    newest_first=True,
    intervals=INTERVALS[1:],
    # Counted in contracts; the archive's CSV headers call the third one quote_volume, which it is not.
    value_columns=("volume", "base_volume", "taker_buy_volume", "taker_buy_base_volume"),
    info_weight=1,
    opened=dt.date(2020, 6, 1),
    archive="futures/cm",
    archived=dt.date(2020, 8, 11),
)


MARKETS: Final[dict[str, Market]] = {market.name: market for market in (SPOT, USDM, COINM)}


"""The markets by name."""


SPOT_ELSEWHERE: Final = "https://data-api.binance.vision"


"""A host for spot market data only, which answers where Binance's others do not (451)."""


ARCHIVE_URL: Final = "https://data.binance.vision"


"""Host of the public archive of all markets."""


TRADED_ON: Final = frozenset(
    ["TRADING", "PENDING_TRADING", "PRE_TRADING", "POST_TRADING", "AUCTION_MATCH", "HALT", "END_OF_DAY", "CANCEL_ONLY"]
)


"""The states of a symbol in exchangeInfo that are not the end of it: what is halted may go on."""


NO_DELIVERY: Final = 4_133_404_800_000


"""The delivery date of contracts that have none, ms UTC (25 December 2100)."""


TIME_WEIGHT: Final = 1


"""Request weight of ``/time`` and ``/ping`` on every market."""


ROW_FIELDS: Final = 12


"""Length of a klines row on every market; the last field is unused."""


USED_WEIGHT_HEADER: Final = "X-MBX-USED-WEIGHT-1M"


"""Answer header: the weight that this IP has used in the current UTC minute, this call included."""


SANDBOX_HEADER: Final = "X-Binance-Assets-Sandbox"


"""Answer header by which the project's own sandbox says that its candles are not Binance's."""


_ONE_OPERATOR: Final = frozenset(
    ["api.binance.com", "api-gcp.binance.com", urlsplit(SPOT_ELSEWHERE).netloc, "fapi.binance.com", "dapi.binance.com"]
    + [f"api{n}.binance.com" for n in range(1, 5)]
)


def parse_market(text: str) -> Market:
    """The market called ``text``.

    Raises:
        ValueError: There is none; the message lists those that exist.
    """
    try:
        return MARKETS[text]
    except KeyError:
        raise ValueError(f"there is no market {text!r}; the markets are {', '.join(MARKETS)}") from None


def limits_address(url: str) -> str:
    """Who counts the weight of requests to ``url``: hosts with the same answer share their budgets.

    Binance's production hosts count together per IP (for ``data-api.binance.vision`` this is undocumented and
    assumed); any other host, a test net or a sandbox, counts for itself.
    """
    netloc = urlsplit(url).netloc.lower()
    return "binance.com" if netloc in _ONE_OPERATOR else netloc
