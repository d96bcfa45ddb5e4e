"""Reads candles for assets downstream: a ``polars.LazyFrame`` of one day or of many.

It only reads. Candles are written by their own assets, partition by partition, which an IO manager cannot do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NoReturn

import dagster as dg
import polars as pl
from pydantic import Field

from binance_assets.model.partitions import partition_for_key
from binance_assets.model.series import parse_any_series
from binance_assets.storage.lake import Lake

_NAMED_DAYS: Final = 5


class CandlesIOManager(dg.ConfigurableIOManager):
    """Gives downstream assets the candles of an upstream one, lazily, over the partitions that they ask for.

    ``dg.AssetIn(key, input_manager_key="candles")`` selects it for an input.
    """

    root: str = Field(description="Folder of the lake")

    def load_input(self, context: dg.InputContext) -> pl.LazyFrame:
        """The candles of the partitions that the input maps to, sorted by open time.

        Raises:
            Failure: One of them is not in the lake; nothing is passed over in silence.
        """
        metadata = context.upstream_output.definition_metadata if context.upstream_output else {}
        if "series" not in metadata:
            raise dg.Failure(f"{context.asset_key.to_user_string()} holds no candles", allow_retries=False)
        series, lake = parse_any_series(str(metadata["series"])), Lake(Path(self.root))
        partitions = [partition_for_key(key, series.interval) for key in context.asset_partition_keys]
        lacking = [partition.key for partition in partitions if lake.stored(series, partition) is None]
        if lacking:
            more = f" and {len(lacking) - _NAMED_DAYS} more" if len(lacking) > _NAMED_DAYS else ""
            message = f"{series} lacks {', '.join(lacking[:_NAMED_DAYS])}{more}; materialize them first"
            raise dg.Failure(message, allow_retries=False)
        return pl.scan_parquet(
            [lake.path(series, partition) for partition in partitions], hive_partitioning=False, glob=False
        )

    def handle_output(self, context: dg.OutputContext, obj: object) -> NoReturn:
        """Refuse: candles are written by their own assets.

        Raises:
            Failure: Always.
        """
        raise dg.Failure('the IO manager "candles" only reads; use another one for outputs', allow_retries=False)
