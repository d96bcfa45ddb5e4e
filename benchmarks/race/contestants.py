"""The contestants: which package, which driver, and what it does less or more than the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.race.outputs import Output

_MARKETS: Final = ("spot", "usdm")


@dataclass(frozen=True)
class Contestant:
    """One line of the race.

    Attributes:
        key: Its name on the command line of the race.
        title: Its name in the table, without the source.
        source: Where it takes candles from: ``rest``, ``archive``, or ``auto`` for both.
        package: Its name in the package index; empty for this project.
        driver: The module in :mod:`benchmarks.race.drivers`.
        output: How it delivers candles.
        max_months: The longest range that it is raced over.
        markets: The markets that it is raced in.
        meets_holes: Whether it is also raced with planted holes; another line of the same tool answers for the others.
    """

    key: str
    title: str
    source: str
    package: str
    driver: str
    output: Output
    max_months: int = 12
    markets: Sequence[str] = _MARKETS
    meets_holes: bool = True

    @property
    def line(self) -> str:
        """Its name and source."""
        return f"{self.title} · {self.source}"


_SPOT: Final = ("spot",)

CONTESTANTS: Final = (
    Contestant("own-command", "binance-assets, command", "auto", "", "own_command", Output.PARQUET, markets=_SPOT),
    Contestant(
        "own-python", "binance-assets, Python", "auto", "", "own_python", Output.PARQUET, markets=_SPOT,
        meets_holes=False,
    ),
    Contestant("own-command-rest", "binance-assets, command", "rest", "", "own_command", Output.PARQUET),
    Contestant(
        "own-python-rest", "binance-assets, Python", "rest", "", "own_python", Output.PARQUET, meets_holes=False
    ),
    Contestant(
        "python-binance", "python-binance", "rest", "python-binance", "python_binance", Output.ROWS, max_months=1
    ),
    Contestant(
        "ccxt-serial", "ccxt, serial", "rest", "ccxt", "ccxt_serial", Output.ROWS, max_months=1, markets=_SPOT,
        meets_holes=False,
    ),
    Contestant("ccxt", "ccxt, async", "rest", "ccxt", "ccxt_async", Output.ROWS),
    Contestant("freqtrade", "freqtrade", "auto", "freqtrade", "freqtrade_download", Output.PARQUET, markets=_SPOT),
    Contestant("freqtrade-rest", "freqtrade", "rest", "freqtrade", "freqtrade_download", Output.PARQUET),
    Contestant(
        "binance-historical-data", "binance-historical-data", "archive", "binance-historical-data",
        "binance_historical_data", Output.ARCHIVE_CSV, markets=_SPOT,
    ),
    Contestant(
        "binance-vision", "binance-vision", "archive", "binance-vision", "binance_vision", Output.PARQUET,
        markets=_SPOT,
    ),
    Contestant(
        "binance-bulk-downloader", "binance-bulk-downloader", "archive", "binance-bulk-downloader",
        "binance_bulk_downloader", Output.ARCHIVE_CSV, markets=_SPOT,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Note:
    """What a reader must know about a tool to read its figures fairly.

    Attributes:
        tool: The tool.
        pointed_by: What points it at the sandbox.
        less: What it does less than others.
        more: What it does more.
    """

    tool: str
    pointed_by: str
    less: str
    more: str


NOTES: Final = (
    Note(
        "binance-assets",
        "its settings `BINANCE_…_URL`",
        "klines of Binance only. The command loads Dagster and records a run; the Python lines do neither",
        "proves each day against the exchange's own `1d` candles, which it requests as well, and SHA-256; falls back "
        "to the other source; Parquet by month; resumes; shares a request budget between processes",
    ),
    Note(
        "python-binance",
        "attributes of its client (`API_URL`, `FUTURES_URL`)",
        "one request at a time, with a pause of a second after every third; rows in memory, nothing stored; no retry",
        "the whole API of Binance: trading, accounts, streams",
    ),
    Note(
        "ccxt",
        "`urls` of its constructor",
        "6 columns of 11; rows in memory, nothing stored. It paces its requests from the first one on. "
        "`paginationCalls` must be raised from 10, or `paginate` refuses the range",
        "more than a hundred exchanges; trading, accounts, order books",
    ),
    Note(
        "freqtrade",
        "`exchange.ccxt_config` for the API; the archive's host is a constant, which the driver replaces",
        "6 columns of 11; daily files of the archive only, without SHA-256; `rest` is its setting `only_from_ccxt`. "
        "No COIN-M. It loads the symbols of the market first",
        "a trading bot: strategies, backtests, a user interface; appends to what it has",
    ),
    Note(
        "binance-historical-data",
        "the attribute `_base_url`; the driver overrides the look-ups of symbols, country and listing, which have "
        "no setting",
        "no SHA-256, no retry, no API; the last month of a range always comes in daily files; CSV as in the archive",
        "trades, aggregated trades, and other data sets of the archive; all symbols at once",
    ),
    Note(
        "binance-vision",
        "the constant `BASE_URL`, which the driver replaces",
        "no API, no fallback from a monthly file to daily ones, no resume; the whole range in memory",
        "SHA-256; all data sets of the archive; a report of missing files",
    ),
    Note(
        "binance-bulk-downloader",
        "two class attributes for the listing and the archive",
        "no range: it downloads every file that is listed, so the listing names only those of the race; no SHA-256, "
        "no retry, no API; CSV as in the archive; monthly files or daily ones, not both (here: monthly). Its threads "
        "race for the creation of a folder, so a first run skips some files, not always the same ones; a second run "
        "adds them",
        "all data sets of the archive, options included; delisted symbols",
    ),
)
