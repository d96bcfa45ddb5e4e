"""Resources: they carry configuration and return Dagster-free objects, the exchange and the lake.

With the in-process executor, a resource lives as long as a run. So the round trip is measured, and the number of
workers chosen, once per run and market.

Here belongs what lives as long as a run. What does not belong here: settings and their defaults (``settings``).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from pydantic import Field, PrivateAttr

from binance_assets.exchange.retry import Retrier
from binance_assets.exchange.session import Exchange
from binance_assets.model.markets import Market
from binance_assets.orchestration.prefetch import Prefetcher
from binance_assets.settings import Settings, make_settings
from binance_assets.storage.lake import Lake


class BinanceResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Access to Binance's markets: one :class:`Exchange` per market and run."""

    spot_url: str = Field(description="Host of the spot API, without a path")
    usdm_url: str = Field(description="Host of the USD-M futures API, without a path")
    coinm_url: str = Field(description="Host of the COIN-M futures API, without a path")
    archive_url: str = Field(description="Host of the public archive, without a path")
    max_workers: int = Field(description="Maximum number of requests in flight at once")
    warmup: int = Field(description="Pages fetched one after another to measure the round trip")
    weight_share: float = Field(description="Share of the request weight of this IP to use, 0 to 1")
    ledger: str = Field(description="File in which all processes of this host record request weight")
    ban_patience: float = Field(description="Longest ban or 429 to wait out, seconds")
    connect_timeout: float = Field(description="Longest wait for a connection, seconds")
    read_timeout: float = Field(description="Longest wait for the next bytes of a response, seconds")
    strict: bool = Field(description="Whether to refuse partitions whose totals differ from the exchange's own )")

    _exchanges: dict[str, Exchange] = PrivateAttr(default_factory=dict)
    _prefetchers: dict[str, Prefetcher] = PrivateAttr(default_factory=dict)

    @classmethod
    def from_settings(cls, settings: Settings) -> BinanceResource:
        """Return the resource with the values of ``settings``."""
        values = settings.model_dump(include=set(cls.model_fields))
        return cls(**{**values, "ledger": str(settings.ledger)})

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Generator[BinanceResource, None, None]:
        """Yield the resource for the length of a run; at its end, close the prefetchers and exchanges."""
        self._exchanges, self._prefetchers = {}, {}
        try:
            yield self
        finally:
            for prefetcher in self._prefetchers.values():
                prefetcher.close()
            for exchange in self._exchanges.values():
                exchange.close()

    def exchange(self, market: Market, series_in_run: int = 1) -> Exchange:
        """Return the run's connection to ``market``.

        Args:
            market: The market.
            series_in_run: How many series of the market the run fetches.

        Raises:
            ConfigurationError: A value of the configuration is not usable.
        """
        if market.name not in self._exchanges:
            settings = make_settings({name: getattr(self, name) for name in type(self).model_fields})
            self._exchanges[market.name] = Exchange(market, settings, series_in_run, self._retrier())
        return self._exchanges[market.name]

    def _retrier(self) -> Retrier:
        """Return how to retry failed requests.

        A method and not a field, because Dagster makes the resource of each run from the fields, which are its
        configuration. Tests override it with one that waits less.
        """
        return Retrier()

    def prefetcher(self, market: Market, create: Callable[[], Prefetcher]) -> Prefetcher:
        """Return the run's prefetcher of ``market``; the first step of the market calls ``create``."""
        if market.name not in self._prefetchers:
            self._prefetchers[market.name] = create()
        return self._prefetchers[market.name]


class LakeResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The folder that holds the Parquet files."""

    root: str = Field(description="Folder of the lake")

    def lake(self) -> Lake:
        """Return the lake."""
        return Lake(Path(self.root))
