"""Resources: they carry the settings and return Dagster-free objects, the exchange and the lake.

No resource has run configuration: whoever launches a run cannot name other hosts, another lake, or another ledger.
Dagster leaves a ``ResourceDependency`` out of the configuration schema, and refuses a run that configures one.

With the in-process executor, a resource lives as long as a run. So the round trip is measured, and the number of
workers chosen, once per run and market.

Here belongs what lives as long as a run. What does not belong here: settings and their defaults (``settings``).
"""

# No `from __future__ import annotations` here: Dagster reads the type of `settings` when the class is defined.
from collections.abc import Callable, Generator
from contextlib import contextmanager

import dagster as dg
from pydantic import PrivateAttr

from binance_assets.exchange.retry import Retrier
from binance_assets.exchange.session import Exchange
from binance_assets.model.markets import Market
from binance_assets.orchestration.prefetch import Prefetcher
from binance_assets.settings import Settings
from binance_assets.storage.lake import Lake


class BinanceResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Access to Binance's markets: one :class:`Exchange` per market and run."""

    settings: dg.ResourceDependency[Settings]

    _exchanges: dict[str, Exchange] = PrivateAttr(default_factory=dict)
    _prefetchers: dict[str, Prefetcher] = PrivateAttr(default_factory=dict)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Generator["BinanceResource", None, None]:
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
        """
        if market.name not in self._exchanges:
            self._exchanges[market.name] = Exchange(market, self.settings, series_in_run, self._retrier())
        return self._exchanges[market.name]

    def _retrier(self) -> Retrier:
        """Return how to retry failed requests.

        A method and not a field, because Dagster makes a resource of its own for each run from the fields. Tests
        override it with one that waits less.
        """
        return Retrier()

    def prefetcher(self, market: Market, create: Callable[[], Prefetcher]) -> Prefetcher:
        """Return the run's prefetcher of ``market``; the first step of the market calls ``create``."""
        if market.name not in self._prefetchers:
            self._prefetchers[market.name] = create()
        return self._prefetchers[market.name]


class LakeResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The folder that holds the Parquet files."""

    settings: dg.ResourceDependency[Settings]

    def lake(self) -> Lake:
        """Return the lake."""
        return Lake(self.settings.lake)
