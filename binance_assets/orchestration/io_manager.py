"""The IO manager ``candles``: it loads partitions for assets of users, as one ``polars.LazyFrame``.

It only reads. The candles assets write for themselves, partition by partition, which an IO manager cannot do.

What an input asks for must be in the lake. An input that asks for all partitions there are gets those from the first
stored one to the last: before that, nobody asked for candles. A partition in between that is not there is still an
error, unless the input allows it.

Here belongs how an input is loaded. What does not belong here: where files are and what they contain
(``storage``).
"""

# No `from __future__ import annotations` here: Dagster reads the type of `settings` when the class is defined.
from collections.abc import Sequence
from typing import Final, NoReturn

import dagster as dg
import polars as pl

from binance_assets.model.outside import MESSAGE, printable
from binance_assets.model.partitions import Partition, partition_for_key
from binance_assets.model.series import parse_any_series
from binance_assets.model.wording import name_some
from binance_assets.orchestration.dagster_internals.steps import maps_to_all_partitions
from binance_assets.settings import Settings
from binance_assets.storage.lake import Lake, LakeError

ALLOW_MISSING: Final = "allow_missing_partitions"
"""The metadata entry of an input that accepts any gap; Dagster's own IO managers for files have the same."""

_MAX_NAMED: Final = 5


class CandlesIOManager(dg.ConfigurableIOManager):
    """Loads the candles of an upstream asset lazily, over the partitions that the downstream asset maps to.

    `dg.AssetIn(key, input_manager_key="candles")` selects it for an input. With
    `metadata={"allow_missing_partitions": True}`, the input gets whatever the lake holds of what it asks for.
    """

    settings: dg.ResourceDependency[Settings]

    def load_input(self, context: dg.InputContext) -> pl.LazyFrame:
        """Return the candles of the partitions that the input maps to, sorted by open time.

        Raises:
            Failure: The upstream asset holds no candles, or the lake lacks one of the partitions, or holds candles that
                do not have the hash with which they were written.
        """
        metadata = context.upstream_output.definition_metadata if context.upstream_output else {}
        if "series" not in metadata:
            raise dg.Failure(f"{context.asset_key.to_user_string()} holds no candles", allow_retries=False)
        series, lake = parse_any_series(str(metadata["series"])), Lake(self.settings.lake)
        asked = [partition_for_key(key, series.interval) for key in context.asset_partition_keys]
        try:
            stored = list(lake.stored_among(series, asked))
            return lake.scan(series, _needed(context, str(series), asked, stored))
        except LakeError as error:
            raise dg.Failure(printable(error, MESSAGE), allow_retries=False) from None

    def handle_output(self, context: dg.OutputContext, obj: object) -> NoReturn:
        """Refuse the output: the candles assets write for themselves.

        Raises:
            Failure: Always.
        """
        raise dg.Failure('the IO manager "candles" only reads; use another one for outputs', allow_retries=False)


def _needed(
    context: dg.InputContext, name: str, asked: Sequence[Partition], stored: Sequence[Partition]
) -> Sequence[Partition]:
    """Return the partitions to load: all that are asked for, or those that the input settles for.

    Raises:
        Failure: One that must be there is not stored, or an input that asks for all there are finds none.
    """
    if (context.definition_metadata or {}).get(ALLOW_MISSING):
        return stored
    way_out = "materialize them first"
    if maps_to_all_partitions(context):
        if not stored:
            raise dg.Failure(f"the lake holds no partition of {name}; {way_out}", allow_retries=False)
        asked = [partition for partition in asked if stored[0] <= partition <= stored[-1]]
        way_out = (
            f"materialize or accept them first, or set the metadata {ALLOW_MISSING} of the input; "
            f"the lake holds {stored[0]} to {stored[-1]}"
        )
    held = set(stored)
    missing = [partition for partition in asked if partition not in held]
    if missing:
        raise dg.Failure(f"{name} lacks {name_some(missing, _MAX_NAMED)}; {way_out}", allow_retries=False)
    return asked
