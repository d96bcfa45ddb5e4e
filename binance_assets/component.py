"""The component: a ``defs.yaml`` adds a universe to a Dagster project that has other definitions.

Here belongs what differs from a code location of its own: where the entries come from, and what the project decides
itself. What does not belong here: the definitions (``definitions``), the schema of an entry (``storage.universe``).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import dagster as dg
from pydantic import BaseModel, BeforeValidator, Field
from pydantic.json_schema import SkipJsonSchema

from binance_assets.definitions import build_defs, tracked_universe
from binance_assets.settings import ConfigurationError, Settings, read_settings
from binance_assets.storage.universe import Universe, UniverseEntry, universe_of

_FIRST_SERIES: Final = [{"market": "spot", "symbols": ["BTCUSDT"], "intervals": ["1m"]}]


class CandlesScaffolder(dg.Scaffolder):
    """Writes a component with one series, for ``dg scaffold defs``."""

    def scaffold(self, request: dg.ScaffoldRequest[Any]) -> None:
        """Write ``defs.yaml``, or ``component.py`` if the request asks for Python."""
        dg.scaffold_component(request, {"series": _FIRST_SERIES})


def _without_rules(entries: Any) -> Any:
    """Refuse rules for symbols, with the way to use them.

    Raises:
        ValueError: An entry has a rule.
    """
    for number, entry in enumerate(entries if isinstance(entries, list) else [], 1):
        if isinstance(entry, dict) and isinstance(entry.get("symbols"), dict):
            raise ValueError(
                f"entry {number} of series in defs.yaml has a rule for symbols, which only the universe file can have; "
                "move the entries to universe.yaml, leave out series in defs.yaml, and run "
                "`binance-assets universe refresh`"
            )
    return entries


class _Attributes(dg.Model):
    series: Annotated[list[UniverseEntry] | SkipJsonSchema[None], BeforeValidator(_without_rules)] = Field(
        default=None,
        description="The tracked series, as in universe.yaml. Without it, the universe file is read. Rules for symbols "
        "belong in that file, because `binance-assets universe refresh` resolves them there.",
        examples=[_FIRST_SERIES],
    )


def _plain_entries(context: dg.ResolutionContext, entries: Sequence[BaseModel] | None) -> list[dict[str, Any]] | None:
    """Return the entries as the file has them, with its templates replaced by their values."""
    if entries is None:
        return None
    return [context.resolve_value(entry.model_dump(exclude_unset=True), as_type=dict) for entry in entries]


@dg.scaffold_with(CandlesScaffolder)
class BinanceCandlesComponent(dg.Component, dg.Resolvable, dg.Model):
    """Binance candles: one partitioned asset per series, with jobs, schedules, sensors, and resources.

    A project has one such component, which lists all of its series. Hosts, lake, and limits are settings, which are
    environment variables. The jobs of the component run in one process. All other runs use the executor of the project.
    """

    series: Annotated[list[dict[str, Any]] | None, dg.Resolver(_plain_entries, model_field_type=list)] = None

    @classmethod
    def model(cls) -> type[BaseModel]:
        """Return the schema of the attributes.

        The schema that Dagster derives also accepts a text in place of the list, for a template. Then its message about
        a wrong entry shows the whole list, and not the place of the mistake.
        """
        return _Attributes

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        """Return what ``dg list components`` shows."""
        return dg.ComponentTypeSpec(
            description="Binance candles as partitioned assets, complete or not written.",
            tags=["binance", "candles", "market-data"],
            produces=["asset", "asset_check", "job", "schedule", "sensor", "resource"],
        )

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Return the definitions of the series.

        Raises:
            ConfigurationError: A setting or an entry is not usable, or the project has another such component.
        """
        _check_alone(context)
        settings = read_settings(os.environ)
        return build_defs(settings, self._universe(settings, context.path / "defs.yaml"), executor=None)

    def _universe(self, settings: Settings, path: Path) -> Universe:
        return tracked_universe(settings) if self.series is None else universe_of(path, self.series)


def _check_alone(context: dg.ComponentLoadContext) -> None:
    """Refuse a second component: both would define the same jobs, sensors and resources.

    Raises:
        ConfigurationError: There is another one.
    """
    count = len(context.component_tree.get_all_components(of_type=BinanceCandlesComponent))
    if count > 1:
        raise ConfigurationError(
            f"the project has {count} components BinanceCandlesComponent; list all series in one of them"
        )
