"""The three markets and everything that differs between them, as one table.

This is the only place for hosts, paths, page sizes, request weights, windows, row layouts and rate-limit groups.

Sources: Binance's spot REST API documentation (2026-07), the docstrings of Binance's own futures connectors (2026-08),
and measurements of fapi (2026-10). Where documentation and measurement differ (a futures page of exactly 100 or 500
rows), the table has the documented, higher weight.
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
    """A page size: a request for up to ``rows`` candles costs ``weight``."""

    rows: int
    weight: int


@dataclass(frozen=True, slots=True)
class Market:
    """One of Binance's markets.

    Attributes:
        name: Name in keys, paths and on the command line.
        title: Name in prose.
        default_url: URL of the host that serves it, unless the settings name another.
        api: Path prefix of the REST API.
        rate_limit_group: Markets of the same group share one weight limit (USD-M and COIN-M since June 2026).
        weight_limit: Request weight that an IP may use per minute, by the documentation. It applies only until
            exchangeInfo, which has the current limit, is read.
        page_sizes: Request weight of klines by ``limit``, smallest first.
        max_window: Longest ``endTime - startTime`` that klines accepts, ms; None if there is no limit.
        newest_first: Whether klines returns the newest candles of a window that has more than ``limit`` (COIN-M counts
            back from ``endTime``), rather than the oldest.
        intervals: The intervals of the market.
        value_columns: Names of the row fields 5, 7, 9 and 10, in this order.
        info_weight: Request weight of exchangeInfo.
        ticker_weight: Request weight of ticker/24hr of all symbols (documentation, 2026-07).
        opened: The first day on which a candle of the market opens (USD-M: first ``1d`` row of BTCUSDT, 2026-10).
        archive: Folder of the market in the public archive.
        archived: The first day for which the archive has files, of BTCUSDT and BTCUSD_PERP (2026-11); on futures it is
            later than ``opened``.
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
    ticker_weight: int
    opened: dt.date
    archive: str
    archived: dt.date

    def __hash__(self) -> int:
        return hash(self.name)  # that of all attributes would take longer than what a table of series is needed for

    def __str__(self) -> str:
        return self.name

    def klines_weight(self, limit: int) -> int:
        """Return the request weight of klines with ``limit`` rows, at most that of the largest page."""
        for size in self.page_sizes:
            if limit <= size.rows:
                return size.weight
        return self.page_sizes[-1].weight

    def contract_size(self, symbol: str) -> int | None:
        """Return the value of a contract of COIN-M, in USD; None on other markets.

        Source: ``contractSize`` in exchangeInfo: 100 for BTC, 10 for all other coins (2026-11).
        """
        if self.name != "coinm":
            return None
        return 100 if symbol.startswith("BTCUSD_") else 10

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
    ticker_weight=80,
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
    ticker_weight=40,
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
    # Volume counts contracts. The CSV headers of the archive call base_volume (field 7) quote_volume, which is wrong.
    value_columns=("volume", "base_volume", "taker_buy_volume", "taker_buy_base_volume"),
    info_weight=1,
    ticker_weight=40,
    opened=dt.date(2020, 6, 1),
    archive="futures/cm",
    archived=dt.date(2020, 8, 11),
)

MARKETS: Final[dict[str, Market]] = {market.name: market for market in (SPOT, USDM, COINM)}
"""The markets by name."""

SPOT_ELSEWHERE: Final = "https://data-api.binance.vision"
"""A host for spot market data only, which also serves locations that Binance's other hosts refuse (451)."""

ARCHIVE_URL: Final = "https://data.binance.vision"
"""Host of the public archive of all markets."""

_ARCHIVE_BUCKET: Final = ("https://s3-ap-northeast-1.amazonaws.com", "/data.binance.vision")

TRADED_ON: Final = frozenset(
    ["TRADING", "PENDING_TRADING", "PRE_TRADING", "POST_TRADING", "AUCTION_MATCH", "HALT", "END_OF_DAY", "CANCEL_ONLY"]
)
"""The statuses in exchangeInfo of a symbol whose trading has not ended: a halted symbol may resume."""

NO_DELIVERY: Final = 4_133_404_800_000
"""The delivery date that exchangeInfo gives to perpetual contracts, ms UTC (25 December 2100)."""

TIME_WEIGHT: Final = 1
"""Request weight of ``/time`` and ``/ping`` on every market."""

AMOUNT_DECIMALS: Final = 8
"""The largest number of decimals of an amount in a candle."""

ROW_FIELDS: Final = 12
"""Length of a klines row on every market; the last field is unused."""

USED_WEIGHT_HEADER: Final = "X-MBX-USED-WEIGHT-1M"
"""Response header: the weight that this IP has used in the current UTC minute, this request included."""

SANDBOX_HEADER: Final = "X-Binance-Assets-Sandbox"
"""Response header by which the project's sandbox marks its candles as not Binance's."""

EXCHANGE: Final = "binance.com"
"""The name of the exchange behind Binance's own hosts."""

# Exchanges of their own: other candles under the same paths and symbols. Binance's documentation (2026-07) and its
# connectors (2026-08) name the testnets; `testnet.binancefuture.com` is an older name of those on futures.
_OTHER_EXCHANGES: Final = (
    "binance.us",
    "testnet.binance.vision",
    "testnet.binancefuture.com",
    "demo-api.binance.com",
    "demo-fapi.binance.com",
    "demo-dapi.binance.com",
)

_BINANCE_HOSTS: Final = frozenset(
    ["api.binance.com", "api-gcp.binance.com", urlsplit(SPOT_ELSEWHERE).netloc, "fapi.binance.com", "dapi.binance.com"]
    + [f"api{n}.binance.com" for n in range(1, 5)]
)


def parse_market(text: str) -> Market:
    """Return the market named ``text``.

    Raises:
        ValueError: There is no such market; the message lists those that exist.
    """
    try:
        return MARKETS[text]
    except KeyError:
        raise ValueError(f"there is no market {text!r}; the markets are {', '.join(MARKETS)}") from None


def limits_address(url: str) -> str:
    """Return the name under which the weight of requests to ``url`` is counted; hosts of the same name share a budget.

    Binance's production hosts share one count per IP (assumed for ``data-api.binance.vision``, which is undocumented).
    Any other host, such as a testnet or a sandbox, has a count of its own.
    """
    netloc = urlsplit(url).netloc.lower()
    return EXCHANGE if netloc in _BINANCE_HOSTS else netloc


def exchange_at(url: str) -> str:
    """Return the name of the exchange whose candles a host serves; the lake refuses to mix those of two names.

    Binance's production hosts and its archive are one exchange. Any other host counts by its name: a testnet, another
    region such as ``api.binance.us``, or a proxy, because nothing shows which exchange is behind it.
    """
    host = (urlsplit(url).hostname or "").lower()
    return EXCHANGE if host in {*_BINANCE_HOSTS, urlsplit(ARCHIVE_URL).hostname} else host


def listing_address(archive_url: str) -> tuple[str, str]:
    """Return host and path of the listing of an archive: of the names of its files, as S3 lists those of a bucket.

    Binance's archive serves files only. The bucket behind it has the listing (Binance's own web page of the archive
    reads it, 2026-11). Any other archive is expected to serve both.
    """
    return _ARCHIVE_BUCKET if archive_url == ARCHIVE_URL else (archive_url, "/")


def is_other_exchange(url: str) -> bool:
    """Return whether a host is known to serve an exchange of which Binance's archive has no candles."""
    host = exchange_at(url)
    return any(host == other or host.endswith(f".{other}") for other in _OTHER_EXCHANGES)
