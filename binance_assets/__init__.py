"""Binance candles you can trust, as Dagster assets: the public Python API.

The names in ``__all__`` are public; everything else may change without notice. Each name is imported from its module on
first use, so ``import binance_assets`` is fast and loads neither Polars, Pandera, nor Dagster.

What belongs here: the list of public names, and the modules that more than one package uses or that Dagster loads.
What does not: any other code; the docstring of each package says what belongs there.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.2.0"

if TYPE_CHECKING:  # For type checkers; _MODULES says the same for the interpreter, and a test compares the two.
    from binance_assets.api.catalog import coverage, symbols
    from binance_assets.api.conversion import as_arrow, as_pandas
    from binance_assets.api.downloading import Downloaded, DownloadProgress, download
    from binance_assets.api.exporting import Exported, ExportedSeries, ExportTarget, export
    from binance_assets.api.gaps import Missing, MissingCandles
    from binance_assets.api.plotting import CandleChart, plot
    from binance_assets.api.reading import MissingPartitions, load, panel, scan
    from binance_assets.component import BinanceCandlesComponent
    from binance_assets.definitions import candle_definitions
    from binance_assets.exchange.errors import Cancelled, ExchangeError
    from binance_assets.exchange.rate_limit.ledger import LedgerError
    from binance_assets.exchange.session import Exchange
    from binance_assets.ingest.options import DownloadOptions
    from binance_assets.model.intervals import INTERVALS, Interval, parse_interval
    from binance_assets.model.markets import COINM, MARKETS, SPOT, USDM, Market, parse_market
    from binance_assets.model.partitions import Partition, partitions_between
    from binance_assets.model.results import PartitionResult, Provenance, Verdict
    from binance_assets.model.series import Series, parse_series
    from binance_assets.settings import ConfigurationError, Settings, Source, read_settings
    from binance_assets.storage.lake import Lake, LakeError
    from binance_assets.storage.metadata import StoredPartition
    from binance_assets.storage.writer import PartitionWriter

__all__ = [
    "COINM",
    "INTERVALS",
    "MARKETS",
    "SPOT",
    "USDM",
    "BinanceCandlesComponent",
    "Cancelled",
    "CandleChart",
    "ConfigurationError",
    "DownloadOptions",
    "DownloadProgress",
    "Downloaded",
    "Exchange",
    "ExchangeError",
    "ExportTarget",
    "Exported",
    "ExportedSeries",
    "Interval",
    "Lake",
    "LakeError",
    "LedgerError",
    "Market",
    "Missing",
    "MissingCandles",
    "MissingPartitions",
    "Partition",
    "PartitionResult",
    "PartitionWriter",
    "Provenance",
    "Series",
    "Settings",
    "Source",
    "StoredPartition",
    "Verdict",
    "__version__",
    "as_arrow",
    "as_pandas",
    "candle_definitions",
    "coverage",
    "download",
    "export",
    "load",
    "panel",
    "parse_interval",
    "parse_market",
    "parse_series",
    "partitions_between",
    "plot",
    "read_settings",
    "scan",
    "symbols",
]

_MODULES = {
    "COINM": "model.markets",
    "INTERVALS": "model.intervals",
    "MARKETS": "model.markets",
    "SPOT": "model.markets",
    "USDM": "model.markets",
    "BinanceCandlesComponent": "component",
    "Cancelled": "exchange.errors",
    "CandleChart": "api.plotting",
    "ConfigurationError": "settings",
    "DownloadOptions": "ingest.options",
    "DownloadProgress": "api.downloading",
    "Downloaded": "api.downloading",
    "Exchange": "exchange.session",
    "ExchangeError": "exchange.errors",
    "ExportTarget": "api.exporting",
    "Exported": "api.exporting",
    "ExportedSeries": "api.exporting",
    "Interval": "model.intervals",
    "Lake": "storage.lake",
    "LakeError": "storage.lake",
    "LedgerError": "exchange.rate_limit.ledger",
    "Market": "model.markets",
    "Missing": "api.gaps",
    "MissingCandles": "api.gaps",
    "MissingPartitions": "api.reading",
    "Partition": "model.partitions",
    "PartitionResult": "model.results",
    "PartitionWriter": "storage.writer",
    "Provenance": "model.results",
    "Series": "model.series",
    "Settings": "settings",
    "Source": "settings",
    "StoredPartition": "storage.metadata",
    "Verdict": "model.results",
    "as_arrow": "api.conversion",
    "as_pandas": "api.conversion",
    "candle_definitions": "definitions",
    "coverage": "api.catalog",
    "download": "api.downloading",
    "export": "api.exporting",
    "load": "api.reading",
    "panel": "api.reading",
    "parse_interval": "model.intervals",
    "parse_market": "model.markets",
    "parse_series": "model.series",
    "partitions_between": "model.partitions",
    "plot": "api.plotting",
    "read_settings": "settings",
    "scan": "api.reading",
    "symbols": "api.catalog",
}


def __getattr__(name: str) -> object:
    """Import a public name from its module on first use.

    Raises:
        AttributeError: The name is not public.
    """
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
