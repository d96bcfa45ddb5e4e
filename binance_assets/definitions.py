"""The Dagster code location: an asset per tracked series, their jobs, schedules and resources."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import replace

import dagster as dg

from binance_assets.model.series import Series, by_market
from binance_assets.orchestration.assets import candles_asset
from binance_assets.orchestration.catch_up import catch_up_schedules
from binance_assets.orchestration.coverage import coverage_asset
from binance_assets.orchestration.derived import derived_asset
from binance_assets.orchestration.io_manager import CandlesIOManager
from binance_assets.orchestration.jobs import candle_jobs
from binance_assets.orchestration.metrics import ProgressListener
from binance_assets.orchestration.resources import BinanceResource, LakeResource
from binance_assets.orchestration.schedules import candle_schedules
from binance_assets.orchestration.sensors import candle_sensors
from binance_assets.settings import Settings, Source, read_settings
from binance_assets.storage.lake import Lake
from binance_assets.storage.universe import Tracked, Universe, read_universe

__all__ = ["build_defs", "candle_definitions", "defs"]


def build_defs(settings: Settings, universe: Universe, listener: ProgressListener | None = None) -> dg.Definitions:
    """The definitions of a code location over ``universe``.

    Args:
        settings: Hosts, lake, ledger and limits.
        universe: The tracked series.
        listener: Told of the progress of runs in this process.
    """
    lake = Lake(settings.lake)
    jobs = candle_jobs(universe.series)
    with warnings.catch_warnings():
        # Single-run backfills are what this project stands on; its users can do nothing about the label.
        warnings.filterwarnings("ignore", message=".*backfill_policy.*", category=dg.BetaWarning)
        assets = [candles_asset(one.series, one.source or settings.source, lake, listener) for one in universe.tracked]
        assets += [derived_asset(one, lake) for one in universe.derived]
    every = sorted(
        [*universe.series, *(one.series for one in universe.derived)], key=lambda one: (one.symbol, one.interval.step)
    )
    assets += [coverage_asset(market, members) for market, members in by_market(every).items()]
    return dg.Definitions(
        assets=assets,
        jobs=jobs,
        schedules=[*candle_schedules(jobs), *catch_up_schedules(universe.series, settings)],
        sensors=candle_sensors(jobs, universe.series, universe.derived, settings),
        resources={
            "binance": BinanceResource.from_settings(settings),
            "lake": LakeResource(root=str(settings.lake)),
            "candles": CandlesIOManager(root=str(settings.lake)),
        },
        executor=dg.in_process_executor,
    )


def definitions_for(
    settings: Settings, series: Sequence[Series], source: Source | None, listener: ProgressListener
) -> dg.Definitions:
    """A code location with ``series``, each with the source that the universe names for it unless ``source`` does."""
    tracked = {one.series: one for one in read_universe(settings.universe).tracked}
    chosen = [tracked.get(one, Tracked(one)) for one in series]
    if source is not None:
        chosen = [replace(one, source=source) for one in chosen]
    return build_defs(settings, Universe(tuple(chosen)), listener)


def candle_definitions() -> dg.Definitions:
    """Return the definitions that the environment and the universe file describe, to merge them with your own.

    Dagster takes the first ``LazyDefinitions`` that it finds in a module, imported or not. A module that imports
    :data:`defs` by name therefore loses its own definitions without a message; this function avoids that.

    Raises:
        ConfigurationError: A setting or the universe file is not usable.
    """
    settings = read_settings(os.environ)
    return build_defs(settings, read_universe(settings.universe))


@dg.definitions
def defs() -> dg.Definitions:
    """The code location that the environment and the universe file describe; read when Dagster loads it."""
    return candle_definitions()
