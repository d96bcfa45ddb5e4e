"""An asset of your own downstream of the candles, and a sensor that starts it for new days.

Load it with ``dagster dev -f downstream.py`` in a folder that ``binance-assets init`` has set up.
"""

import dagster as dg
import polars as pl

import binance_assets as ba
from binance_assets.orchestration.partitions import DAILY, partition_ranges, range_tags
from binance_assets.orchestration.sensors import new_partitions

BTCUSDT = dg.AssetKey(["spot", "BTCUSDT", "1m"])


@dg.asset(
    ins={"minutes": dg.AssetIn(BTCUSDT, input_manager_key="candles")},
    partitions_def=DAILY,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def daily_range(context: dg.AssetExecutionContext, minutes: pl.LazyFrame) -> None:
    """Log the highest and the lowest price of each day."""
    day = pl.col("open_time").dt.truncate("1d").alias("day")
    ranges = minutes.group_by(day).agg(high=pl.col("high").max(), low=pl.col("low").min())
    context.log.info(str(ranges.sort("day").collect()))


@dg.asset(ins={"minutes": dg.AssetIn(BTCUSDT, input_manager_key="candles")})
def all_time_high(context: dg.AssetExecutionContext, minutes: pl.LazyFrame) -> None:
    """Log the highest price ever: an asset without partitions reads all that the lake holds."""
    context.log.info(str(minutes.select(pl.col("high").max()).collect().item()))


@dg.sensor(target=daily_range, minimum_interval_seconds=30)
def new_days(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """Request a run for each contiguous range of days that were written since the last tick."""
    days, last = new_partitions(context.instance, BTCUSDT, after=int(context.cursor or 0))
    requests = [
        dg.RunRequest(run_key=f"{last}:{first}", tags=range_tags(first, end)) for first, end in partition_ranges(days)
    ]
    return dg.SensorResult(run_requests=requests, cursor=str(last))


# The only Definitions of this module: Dagster would take an imported `defs` instead, and your own assets would be lost.
defs = dg.Definitions.merge(
    ba.candle_definitions(), dg.Definitions(assets=[daily_range, all_time_high], sensors=[new_days])
)
