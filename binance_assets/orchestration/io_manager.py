"""The IO manager ``candles``: it loads partitions for assets of users, as one ``polars.LazyFrame``.

It only reads. The candles assets write for themselves, partition by partition, which an IO manager cannot do.

Here belongs how an input is loaded. What does not belong here: where files are and what they contain
(``storage``).
"""

# No `from __future__ import annotations` here: Dagster reads the type of `settings` when the class is defined.
from typing import Final, NoReturn

import dagster as dg
import polars as pl

from binance_assets.model.outside import MESSAGE, printable
from binance_assets.model.partitions import partition_for_key
from binance_assets.model.series import parse_any_series
from binance_assets.model.wording import name_some
from binance_assets.settings import Settings
from binance_assets.storage.lake import Lake, LakeError

_MAX_NAMED: Final = 5


class CandlesIOManager(dg.ConfigurableIOManager):
    """Loads the candles of an upstream asset lazily, over the partitions that the downstream asset maps to.

    ``dg.AssetIn(key, input_manager_key="candles")`` selects it for an input.
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
        partitions = [partition_for_key(key, series.interval) for key in context.asset_partition_keys]
        missing = lake.missing(series, partitions)
        if missing:
            message = f"{series} lacks {name_some(missing, _MAX_NAMED)}; materialize them first"
            raise dg.Failure(message, allow_retries=False)
        try:
            return lake.scan(series, partitions)
        except LakeError as error:
            raise dg.Failure(printable(error, MESSAGE), allow_retries=False) from None

    def handle_output(self, context: dg.OutputContext, obj: object) -> NoReturn:
        """Refuse the output: the candles assets write for themselves.

        Raises:
            Failure: Always.
        """
        raise dg.Failure('the IO manager "candles" only reads; use another one for outputs', allow_retries=False)
