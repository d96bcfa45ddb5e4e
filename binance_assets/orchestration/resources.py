"""Resources: they carry the settings and return Dagster-free objects, the exchange and the lake.

No resource has run configuration: whoever launches a run cannot name other hosts, another lake, or another ledger.
Dagster leaves a ``ResourceDependency`` out of the configuration schema, and refuses a run that configures one.

With the in-process executor, a resource lives as long as a run. So the round trip is measured, and the number of
workers chosen, once per run and market. A command that executes several runs shares its connections between them.

Here belongs what lives as long as a run or a command. What does not belong here: settings and their defaults
(``settings``).
"""

# No `from __future__ import annotations` here: Dagster reads the type of `settings` when the class is defined.
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

import dagster as dg
from pydantic import PrivateAttr

from binance_assets.exchange.retry import Retrier
from binance_assets.exchange.session import Exchange
from binance_assets.model.markets import Market
from binance_assets.orchestration.prefetch import Prefetcher, TailPrefetcher
from binance_assets.processes import limit_arenas
from binance_assets.settings import Settings
from binance_assets.storage.lake import Lake

Members = TypeVar("Members")


class Exchanges:
    """One :class:`Exchange` per market: one clock, circuit, warm-up, and choice of workers.

    Those of a run live as long as the run. Those of a command live as long as the command, which may execute many runs
    in its process.

    Args:
        series: How many series of a market all runs fetch together; None if each run has exchanges of its own.
    """

    def __init__(self, series: int | None = None) -> None:
        self._series = series
        self._open: dict[str, Exchange] = {}

    def get(self, market: Market, series_in_run: int, create: Callable[[int], Exchange]) -> Exchange:
        """Return the exchange of ``market``; the first call opens it.

        Args:
            market: The market.
            series_in_run: How many series of the market the run fetches.
            create: Opens the exchange, given how many series of the market are fetched by means of it.
        """
        if market.name not in self._open:
            self._open[market.name] = create(self._series or series_in_run)
        return self._open[market.name]

    def close(self) -> None:
        """Close all of them."""
        for exchange in self._open.values():
            exchange.close()


class BinanceResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Access to Binance's markets."""

    # The docstring stands in Dagster's user interface, which shows it as Markdown. `settings` are hosts and limits;
    # `shared` are the exchanges of a command with several runs, which closes them, or None for those of each run.
    settings: dg.ResourceDependency[Settings]
    shared: dg.ResourceDependency[Exchanges | None] = None  # type: ignore[assignment]

    _own: Exchanges = PrivateAttr(default_factory=Exchanges)
    _prefetchers: dict[str, Prefetcher | TailPrefetcher] = PrivateAttr(default_factory=dict)
    _members: dict[str, Any] = PrivateAttr(default_factory=dict)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Generator["BinanceResource", None, None]:
        """Yield the resource for the length of a run; at its end, close its prefetchers and its own exchanges."""
        self._own, self._prefetchers, self._members = Exchanges(), {}, {}
        try:
            yield self
        finally:
            for prefetcher in self._prefetchers.values():
                prefetcher.close()
            self._own.close()

    def exchange(self, market: Market, series_in_run: int = 1) -> Exchange:
        """Return the connection to ``market`` of the run or of its command.

        Args:
            market: The market.
            series_in_run: How many series of the market the run fetches.
        """

        def create(series: int) -> Exchange:
            limit_arenas()
            return Exchange(market, self.settings, series, self._retrier())

        return (self.shared or self._own).get(market, series_in_run, create)

    def _retrier(self) -> Retrier:
        """Return how to retry failed requests.

        A method and not a field, because Dagster makes a resource of its own for each run from the fields. Tests
        override it with one that waits less.
        """
        return Retrier()

    def prefetcher(
        self, market: Market, create: Callable[[], Prefetcher | TailPrefetcher]
    ) -> Prefetcher | TailPrefetcher:
        """Return the run's prefetcher of ``market``; the first step of the market calls ``create``."""
        if market.name not in self._prefetchers:
            self._prefetchers[market.name] = create()
        return self._prefetchers[market.name]

    def members(self, market: Market, find: Callable[[], Members]) -> Members:
        """Return which series of ``market`` the run fetches; the first step calls ``find``, the others get the same."""
        if market.name not in self._members:
            self._members[market.name] = find()
        members: Members = self._members[market.name]
        return members


class LakeResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The folder that holds the Parquet files."""

    settings: dg.ResourceDependency[Settings]

    def lake(self) -> Lake:
        """Return the lake."""
        return Lake(self.settings.lake)
