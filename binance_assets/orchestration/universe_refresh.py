"""The sensor ``universe_refresh``: it resolves the rules of the universe once a day, as ``universe refresh`` does.

A sensor runs in the process that has loaded the code location, and Dagster gives that process no way to load it again:
only the webserver can, when somebody clicks *Reload* or its GraphQL API is asked to. So the sensor names what changed,
and that the code location must be reloaded, in its result and in its log.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import dagster as dg

from binance_assets.exchange.errors import ExchangeError
from binance_assets.ingest.universe_refresh import Change, RefreshRefused, refresh_universe
from binance_assets.model.outside import MESSAGE, printable
from binance_assets.model.wording import name_some
from binance_assets.settings import ConfigurationError, Settings
from binance_assets.storage.universe import Universe

_NAMED: Final = 10
# Dagster ends a tick after a minute.
_TICK_SECONDS: Final = 40.0


def universe_sensors(universe: Universe, settings: Settings) -> list[dg.SensorDefinition]:
    """Return the sensor of a universe that has rules; none for one that lists its symbols."""
    return [universe_refresh_sensor(settings)] if universe.rules else []


def universe_refresh_sensor(settings: Settings, seconds: float = _TICK_SECONDS) -> dg.SensorDefinition:
    """Return the sensor ``universe_refresh``.

    Args:
        settings: Hosts, limits, the universe file.
        seconds: How long a tick may take.
    """

    @dg.sensor(
        name="universe_refresh",
        minimum_interval_seconds=24 * 3600,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Once a day, resolves the rules of the universe into its lock file, as the command "
        "`binance-assets universe refresh` does. New series appear once the code location is reloaded.",
    )
    def universe_refresh(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        try:
            path, deadline = settings.existing_universe(), time.monotonic() + seconds
            outcome = refresh_universe(path, settings, report=context.log.info, deadline=deadline)
        except (ExchangeError, ConfigurationError, RefreshRefused) as error:
            # Raised, so that the tick is red and Dagster's alerts see it; the lock file is as it was.
            raise dg.Failure(printable(f"the universe was not refreshed: {error}", MESSAGE)) from None
        message = changes_message(outcome.changes)
        if outcome.changes:
            context.log.warning(message)
        return dg.SkipReason(message)

    return universe_refresh


def changes_message(changes: Sequence[Change]) -> str:
    """Return one line about the changes, and what to do for Dagster to see them."""
    if not changes:
        return "the universe is as it was"
    named = name_some(
        (f"{change.market}/{change.symbol} {change.kind.replace('_', ' ')}" for change in changes), _NAMED
    )
    return f"reload the code location to see the changes of the universe: {named}"
