"""The Dagster code location: one asset per tracked series, with jobs, schedules, sensors and resources.

Here belongs the assembly: settings and a universe go in, definitions come out. What does not belong here: what the
parts are (``orchestration``).
"""

from __future__ import annotations

import gc
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import dagster as dg

from binance_assets.model.series import Series, by_market
from binance_assets.orchestration.assets import FetchedSeries, candles_asset
from binance_assets.orchestration.backfill_policies import backfill_policies
from binance_assets.orchestration.catch_up import catch_up_schedules
from binance_assets.orchestration.coverage import coverage_asset
from binance_assets.orchestration.derived import derived_asset
from binance_assets.orchestration.io_manager import CandlesIOManager
from binance_assets.orchestration.jobs import candle_jobs
from binance_assets.orchestration.keys import asset_key
from binance_assets.orchestration.progress import ProgressListener
from binance_assets.orchestration.resources import BinanceResource, Exchanges, LakeResource
from binance_assets.orchestration.schedules import candle_schedules
from binance_assets.orchestration.sensors import candle_sensors
from binance_assets.orchestration.universe_refresh import universe_sensors
from binance_assets.settings import Settings, Source, read_settings
from binance_assets.storage.lake import Lake
from binance_assets.storage.universe import Tracked, Universe, read_universe

_log = logging.getLogger(__name__)

__all__ = ["build_defs", "candle_definitions", "definitions_for", "defs"]


def build_defs(
    settings: Settings,
    universe: Universe,
    listener: ProgressListener | None = None,
    exchanges: Exchanges | None = None,
    executor: dg.ExecutorDefinition | None = dg.in_process_executor,
) -> dg.Definitions:
    """Return the definitions of a code location over ``universe``.

    Args:
        settings: Hosts, lake, ledger and limits.
        universe: The fetched and derived series.
        listener: Receives the progress of runs in this process.
        exchanges: The exchanges that all runs share; None to open them for each run.
        executor: The executor of the runs that name none; None to leave it to the project that adds the definitions.
    """
    jobs = candle_jobs(universe.series)
    traded = {tracked.series: (tracked.first, tracked.last) for tracked in universe.tracked}
    return dg.Definitions(
        assets=_assets(settings, universe, listener),
        jobs=jobs,
        schedules=[
            *candle_schedules(jobs, universe.series, universe.ended),
            *catch_up_schedules(universe.series, settings, traded),
        ],
        sensors=[
            *candle_sensors(jobs, universe.series, universe.derived, settings),
            *universe_sensors(universe, settings),
        ],
        resources={
            "binance": BinanceResource(settings=settings, shared=exchanges),
            "lake": LakeResource(settings=settings),
            "candles": CandlesIOManager(settings=settings),
        },
        executor=executor,
    )


def _assets(settings: Settings, universe: Universe, listener: ProgressListener | None) -> list[dg.AssetsDefinition]:
    lake = Lake(settings.lake)
    policies = backfill_policies(universe.series, settings.series_per_run)
    fetched = {
        asset_key(tracked.series): FetchedSeries(
            tracked.series,
            tracked.source or settings.source,
            tracked.last,
            tracked.owners,
            policies[tracked.series],
        )
        for tracked in universe.tracked
    }
    with warnings.catch_warnings():
        # The project depends on single-run backfills; its users can do nothing about the beta label.
        warnings.filterwarnings("ignore", message=".*backfill_policy.*", category=dg.BetaWarning)
        assets = [candles_asset(series, fetched, lake, listener) for series in universe.series]
        ended = universe.ended
        assets += [
            derived_asset(derived, lake, ended.get(derived.series), policies[derived.base])
            for derived in universe.derived
        ]
    # In the order of the coverage table.
    series = sorted(universe.all_series, key=lambda member: (member.symbol, member.interval.step))
    return assets + [coverage_asset(market, members, universe.ended) for market, members in by_market(series).items()]


def definitions_for(
    settings: Settings, sources: Mapping[Series, Source], listener: ProgressListener, exchanges: Exchanges
) -> dg.Definitions:
    """Return a code location over some series only, for the runs of a command in this process.

    Args:
        settings: Hosts, lake, ledger and limits.
        sources: The series, tracked or not, each with the source of its candles.
        listener: Receives the progress of the runs.
        exchanges: The exchanges that the runs share; the caller closes them.
    """
    tracked = tuple(Tracked(series, source) for series, source in sources.items())
    return build_defs(settings, Universe(tracked), listener, exchanges)


def candle_definitions() -> dg.Definitions:
    """Return the definitions that the environment and the universe file describe, to merge them with your own.

    Dagster takes the first ``LazyDefinitions`` that it finds in a module, imported or not. A module that imports
    :data:`defs` by name therefore loses its own definitions without a message; this function avoids that.

    Raises:
        ConfigurationError: A setting or the universe file is not usable.
    """
    settings = read_settings(os.environ)
    return _definitions_in(Path.cwd(), settings, tracked_universe(settings))


def tracked_universe(settings: Settings) -> Universe:
    """Return the universe of the settings; log what a refresh of its rules would change.

    Raises:
        ConfigurationError: The universe file is not usable.
    """
    universe = read_universe(settings.existing_universe())
    for note in universe.notes:
        _log.warning("%s", note)
    return universe


@lru_cache(maxsize=1)  # a code server loads a location twice: once to find it, and once to serve it
def _definitions_in(_: Path, settings: Settings, universe: Universe) -> dg.Definitions:
    """Return the definitions; those of the last call, if nothing that they depend on has changed since.

    The working folder is among that, because relative paths of the settings are relative to it.
    """
    with _without_garbage_collection():
        return build_defs(settings, universe)


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Do not search for garbage while a code location is built, and leave its objects out of later searches.

    All of that lives as long as the process. With 2,000 series these searches take an eighth of the time to load it.
    """
    was_enabled = gc.isenabled()
    gc.unfreeze()  # an earlier one may have become garbage
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if was_enabled:
            gc.enable()


@dg.definitions
def defs() -> dg.Definitions:
    """Return the code location that the environment and the universe file describe; Dagster calls it to load them."""
    return candle_definitions()
