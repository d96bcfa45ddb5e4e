"""Derived assets: candles computed from the candles of a fetched series, without a request.

Here belongs the step of a derived asset. What does not belong here: the arithmetic (``ingest.derive``) and the sensor
that starts the runs (``sensors``).
"""

# No `from __future__ import annotations` here: Dagster reads the types of an asset's arguments when it is defined.
import datetime as dt
import time
from contextlib import closing

import dagster as dg

from binance_assets.candles.columns import columns
from binance_assets.ingest.derive import derive_partitions
from binance_assets.model.outside import MESSAGE, printable
from binance_assets.model.partitions import partition_for_key
from binance_assets.orchestration.assets import Inputs, series_asset
from binance_assets.orchestration.backfill_policies import SINGLE_RUN
from binance_assets.orchestration.checks import format_refused
from binance_assets.orchestration.conclusion import CandleEvents, conclude
from binance_assets.orchestration.day_page import day_page
from binance_assets.orchestration.events import materializations
from binance_assets.orchestration.interrupted import prove_life
from binance_assets.orchestration.keys import asset_key
from binance_assets.orchestration.metrics import RunMetrics
from binance_assets.orchestration.tally import Tally
from binance_assets.settings import ConfigurationError
from binance_assets.storage.lake import Lake
from binance_assets.storage.universe import Derived
from binance_assets.storage.writer import write_results


def derived_asset(
    derived: Derived, lake: Lake, last: dt.date | None = None, backfill: dg.BackfillPolicy = SINGLE_RUN
) -> dg.AssetsDefinition:
    """Return the asset of a derived series.

    Args:
        derived: The series and its base series.
        lake: The lake; only its location is used here, for the asset's page.
        last: The last day of a delisted symbol, UTC; None if it has not ended.
        backfill: Into how many runs Dagster divides a backfill; with the policy of the base, both are in one run.
    """
    series = derived.series

    def candles(context: dg.AssetExecutionContext, _: Inputs) -> CandleEvents:
        prove_life(context)
        yield from _materialize(context, context.resources.lake.lake(), derived)

    return series_asset(
        series,
        lake,
        candles,
        description=f"{series.interval} candles of {series.symbol} on Binance {series.market.title}, derived from the "
        f"{derived.base.interval} candles as Binance itself computes them, without a request.",
        metadata={"derived_from": str(derived.base)},
        resources={"lake"},
        base=derived.base,
        last=last,
        owners=derived.owners,
        backfill=backfill,
    )


def column_lineage(derived: Derived) -> dg.TableColumnLineage:
    """Return from which columns of the base series each column is computed: each from the one of the same name."""
    base, names = asset_key(derived.base), columns(derived.series.market)
    return dg.TableColumnLineage({name: [dg.TableColumnDep(base, name)] for name in names})


def _materialize(context: dg.AssetExecutionContext, lake: Lake, derived: Derived) -> CandleEvents:
    lineage: dict[str, dg.MetadataValue] = {
        "dagster/column_lineage": dg.MetadataValue.column_lineage(column_lineage(derived))
    }
    started_at, tally = time.monotonic(), Tally(lake, derived.series)
    page: dict[str, dg.MetadataValue] = {}
    try:
        if (venue := lake.venue) is not None:
            lake.prepare(venue)
        partitions = [partition_for_key(key, derived.series.interval) for key in context.partition_keys]
        results = derive_partitions(lake, derived, partitions)
        with closing(write_results(lake, derived.series, results)) as writes:
            for result, written in writes:
                stored, _ = tally.count_written(written)
                page = page or day_page(context, lake, derived.series, stored)
                yield from materializations(context, derived.series, stored, lineage | page)
                if result is not None and not result.is_accepted:
                    tally.count_refused(result)
    except ConfigurationError as error:
        raise dg.Failure(printable(error, MESSAGE), allow_retries=False) from None
    context.log.info(f"{derived.series}: {tally.message}, {tally.rows} candles")
    if tally.refused:
        context.log.error(f"{derived.series}: {format_refused(tally.refused)}")
    metrics = RunMetrics(0, 0, 0, 0, None, tally.rows, time.monotonic() - started_at)
    yield from conclude(context, lake, derived.series, tally, metrics, lineage | page)
