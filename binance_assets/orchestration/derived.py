"""Derived candles: assets that are made from the files of fetched series, without a request."""

# No `from __future__ import annotations` here: Dagster reads the types of an asset's arguments when it is defined.
import time

import dagster as dg

from binance_assets.ingest.derive import derive_partition
from binance_assets.model.partitions import partition_for_key
from binance_assets.model.results import PartitionResult
from binance_assets.orchestration.assets import CandleEvents, asset_key, has_downstream, materialization, series_asset
from binance_assets.orchestration.checks import format_refused, gap_free_result
from binance_assets.orchestration.metrics import RunMetrics
from binance_assets.orchestration.resources import LakeResource
from binance_assets.settings import ConfigurationError
from binance_assets.storage.lake import Lake
from binance_assets.storage.universe import Derived


def derived_asset(derived: Derived, lake: Lake) -> dg.AssetsDefinition:
    """The asset of a series that is made from another one.

    Args:
        derived: The series and its source.
        lake: Where its files are; only their place is used here, for the asset's page.
    """
    series = derived.series

    @series_asset(
        series,
        lake,
        {"polars", "parquet"},
        f"{series.interval} candles of {series.symbol} on Binance {series.market.title}, made from those of "
        f"{derived.source.interval} as Binance itself makes them, one Parquet file per day. No request is sent.",
        {"derived_from": str(derived.source)},
        deps=[asset_key(derived.source)],
    )
    def candles(context: dg.AssetExecutionContext, lake: LakeResource) -> CandleEvents:
        yield from _derive(context, lake.lake(), derived)

    return candles


def _derive(context: dg.AssetExecutionContext, lake: Lake, derived: Derived) -> CandleEvents:
    began, rows, accepted = time.monotonic(), 0, 0
    refused: list[PartitionResult] = []
    try:
        if lake.venue is not None:
            lake.prepare(lake.venue)
        for key in context.partition_keys:
            result = derive_partition(lake, derived, partition_for_key(key, derived.series.interval))
            if result.is_accepted:
                stored = lake.write(derived.series, result)
                yield materialization(derived.series, result.partition, stored)
                accepted, rows = accepted + 1, rows + stored.rows
            else:
                refused.append(result)
    except ConfigurationError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    if refused:
        context.log.error(f"{derived.series}: {format_refused(refused)}")
    elif has_downstream(context):
        yield dg.MaterializeResult()
    metrics = RunMetrics(0, 0, 0, 0, None, rows, time.monotonic() - began)
    yield gap_free_result(refused, accepted, metrics)
