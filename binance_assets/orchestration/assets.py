"""The asset factory: one partitioned asset per series.

A run over a range keeps the isolation of single runs. Each good partition is written and reported as soon as it is
judged, a bad one stops only itself, and a run that is killed keeps what it finished. That is why partitions are
reported as ``AssetMaterialization`` and the step's own output is optional.
"""

# No `from __future__ import annotations` here: Dagster reads the types of an asset's arguments when it is defined.
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
from pydantic import Field

from binance_assets.candles.columns import columns
from binance_assets.candles.schema import candle_schema
from binance_assets.exchange.errors import Cancelled, ExchangeError
from binance_assets.exchange.session import Exchange
from binance_assets.ingest.download import download
from binance_assets.ingest.options import DownloadOptions
from binance_assets.ingest.sources import unavailable
from binance_assets.model.markets import Market
from binance_assets.model.partitions import Partition, partition_for_key
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import Series, ascii_symbol, parse_series
from binance_assets.model.timestamps import SECOND
from binance_assets.orchestration.checks import format_refused, gap_free_result, gap_free_spec
from binance_assets.orchestration.freshness import freshness_of
from binance_assets.orchestration.metrics import ProgressListener, RunMetrics
from binance_assets.orchestration.partitions import partitions_def_for
from binance_assets.orchestration.prefetch import Prefetcher, should_prefetch
from binance_assets.orchestration.resources import BinanceResource, LakeResource
from binance_assets.settings import ConfigurationError, Source
from binance_assets.storage.lake import Lake, StoredPartition


class CandlesConfig(dg.Config):
    """What a single run may be told."""

    only_missing: bool = Field(
        default=False, description="Leave alone partitions that are in the lake; otherwise they are fetched again"
    )


CandleEvents = Iterator[dg.AssetMaterialization | dg.MaterializeResult | dg.AssetCheckResult]  # type: ignore[type-arg]


def asset_key(series: Series) -> dg.AssetKey:
    """The key of the asset that holds ``series``."""
    return dg.AssetKey(list(series.key))


def candles_asset(
    series: Series, source: Source, lake: Lake, listener: ProgressListener | None = None
) -> dg.AssetsDefinition:
    """The asset of one series.

    Args:
        series: The series.
        source: Where its candles come from.
        lake: Where its files are; only their place is used here, for the asset's page.
        listener: Told of the progress of runs in this process.
    """

    @series_asset(series, lake, {"binance", "polars", "parquet"}, _description(series), {"source": source})
    def candles(
        context: dg.AssetExecutionContext, config: CandlesConfig, binance: BinanceResource, lake: LakeResource
    ) -> CandleEvents:
        yield from _materialize(context, binance, lake.lake(), series, listener)

    return candles


def series_asset(
    series: Series,
    lake: Lake,
    kinds: set[str],
    description: str,
    metadata: Mapping[str, str],
    deps: Sequence[dg.AssetKey] = (),
) -> Callable[[Callable[..., CandleEvents]], dg.AssetsDefinition]:
    """The decorator of an asset that holds a series, fetched or derived: what all of them have in common.

    Args:
        series: The series.
        lake: Where its files are; only their place is used here, for the asset's page.
        kinds: What the catalog shows beside its name.
        description: Markdown for its page.
        metadata: What else is to be known of it.
        deps: The assets that it is made from.
    """
    key = asset_key(series)
    return dg.asset(
        key=key,
        deps=deps,
        partitions_def=partitions_def_for(series.interval),
        backfill_policy=dg.BackfillPolicy.single_run(),
        check_specs=[gap_free_spec(key)],
        output_required=False,
        group_name=series.market.name,
        kinds=kinds,
        tags={
            "market": series.market.name,
            "symbol": ascii_symbol(series.symbol),
            "interval": series.interval.name,
        },
        description=description,
        freshness_policy=freshness_of(series),
        metadata={
            "series": str(series),
            **metadata,
            "dagster/column_schema": _column_schema(series),
            "dagster/uri": lake.folder(series).absolute().as_uri(),
        },
    )


def _column_schema(series: Series) -> dg.TableSchema:
    """The columns of a series as Dagster shows them, from the Pandera schema."""
    described = candle_schema(series.market, series.interval).columns
    return dg.TableSchema(
        [
            dg.TableColumn(name, str(dtype), described[name].description)
            for name, dtype in columns(series.market).items()
        ]
    )


def _description(series: Series) -> str:
    partition = "month" if series.interval.is_multi_day else "day"
    return (
        f"{series.interval} candles of {series.symbol} on Binance {series.market.title}, "
        f"one Parquet file per {partition}.\n\n"
        f"A {partition} is written only when its candles are sane and none is missing; the check `gap_free` names "
        f"those that were refused."
    )


@dataclass
class _Run:
    """What a run has done for one series so far."""

    series: Series
    exchange: Exchange
    began: float = field(default_factory=time.monotonic)
    refused: list[PartitionResult] = field(default_factory=list)
    accepted: int = 0
    rows: int = 0

    def metrics(self) -> RunMetrics:
        now, spent = self.exchange.metrics(), self.exchange.drain_usage(self.series)
        return RunMetrics(
            requests=spent.requests,
            weight=spent.weight,
            workers=now.workers,
            warmup=now.warmup,
            rtt_ms=now.rtt_ms,
            rows=self.rows,
            seconds=time.monotonic() - self.began,
        )


def _materialize(
    context: dg.AssetExecutionContext,
    binance: BinanceResource,
    lake: Lake,
    series: Series,
    listener: ProgressListener | None,
) -> CandleEvents:
    try:
        sources = _series_in_run(context, series.market)
        exchange = binance.exchange(series.market, len(sources))
        run = _Run(series, exchange)
        if listener:
            listener.started(series, exchange)
        for result in _fetched(context, binance, lake, exchange, series, sources):
            if result.is_accepted:
                stored = lake.write(series, result)
                yield materialization(series, result.partition, stored)
                run.accepted += 1
                run.rows += result.candles.height
            else:
                run.refused.append(result)
            if listener:
                listener.partition_done(series, result)
    except Cancelled:
        raise dg.DagsterExecutionInterruptedError from None
    except ConfigurationError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    metrics = run.metrics()
    if listener:
        listener.finished(series, metrics)
    _log_outcome(context, run, metrics)
    # Downstream steps of the same run start only after an output, which marks all partitions of the run.
    if has_downstream(context) and not run.refused:
        yield dg.MaterializeResult()
    yield gap_free_result(run.refused, run.accepted, metrics)


def _fetched(
    context: dg.AssetExecutionContext,
    binance: BinanceResource,
    lake: Lake,
    exchange: Exchange,
    series: Series,
    sources: Mapping[Series, Source],
) -> Iterator[PartitionResult]:
    """The verdicts on the step's partitions; of a run over many series the next ones are fetched meanwhile."""
    partitions = [partition_for_key(key, series.interval) for key in context.partition_keys]

    def fetch(one: Series) -> Iterator[PartitionResult]:
        wanted = _wanted(context, lake, one)
        return _prepared(lake, exchange, one, wanted, DownloadOptions(sources[one], binance.strict, listing_cache=lake))

    if not should_prefetch(list(sources), partitions):
        return fetch(series)
    prefetcher = binance.prefetcher(series.market, lambda: Prefetcher(list(sources), lambda one: list(fetch(one))))
    return prefetcher.results_for(series)


def _wanted(context: dg.AssetExecutionContext, lake: Lake, series: Series) -> list[Partition]:
    """The partitions of ``series`` that the run is to fetch, by what it is configured with."""
    run_config: Any = context.run.run_config
    step = run_config.get("ops", {}).get("__".join(series.key), {})
    config = CandlesConfig(**step.get("config", {}))
    partitions = [partition_for_key(key, series.interval) for key in context.partition_keys]
    if config.only_missing:
        return [partition for partition in partitions if lake.stored(series, partition) is None]
    return partitions


def _prepared(
    lake: Lake, exchange: Exchange, series: Series, partitions: Sequence[Partition], options: DownloadOptions
) -> Iterator[PartitionResult]:
    """The verdicts, after a look whether the lake takes candles of this origin."""
    if not partitions:
        return
    try:
        lake.prepare(exchange.venue)
    except ExchangeError as error:
        yield from (unavailable(series, partition, error) for partition in partitions)
        return
    yield from download(exchange, series, partitions, options)


def materialization(series: Series, partition: Partition, stored: StoredPartition) -> dg.AssetMaterialization:
    """The event that tells Dagster of a partition's file.

    Args:
        series: The series.
        partition: The partition.
        stored: Its file.
    """
    metadata: dict[str, dg.MetadataValue] = {
        "dagster/partition_row_count": dg.MetadataValue.int(stored.rows),
        "path": dg.MetadataValue.path(stored.path.absolute()),
        "bytes": dg.MetadataValue.int(stored.size),
        "verdict": dg.MetadataValue.text(stored.verdict),
        "source": dg.MetadataValue.text(stored.source),
    }
    if stored.missing:
        metadata["missing"] = dg.MetadataValue.json(stored.missing)
    for name, text in stored.texts.items():
        metadata[name] = dg.MetadataValue.text(text)
    for name, time_ms in (("first_open_time", stored.first), ("last_open_time", stored.last)):
        if time_ms is not None:
            metadata[name] = dg.MetadataValue.timestamp(time_ms / SECOND)
    return dg.AssetMaterialization(asset_key(series), partition=partition.key, metadata=metadata)


def _log_outcome(context: dg.AssetExecutionContext, run: _Run, metrics: RunMetrics) -> None:
    message = (
        f"{run.series}: {run.accepted} written, {metrics.rows} candles in {metrics.seconds:.1f} s "
        f"({metrics.rows_per_second} a second), {metrics.requests} requests, weight {metrics.weight}, "
        f"{metrics.workers} workers, round trip {metrics.rtt_ms} ms"
    )
    context.log.info(message)
    if run.refused:
        context.log.error(f"{run.series}: {format_refused(run.refused)}")


def has_downstream(context: dg.AssetExecutionContext) -> bool:
    """Whether an asset of the same run is made from this one."""
    layer = context.job_def.asset_layer
    return bool(layer.asset_graph.get(context.asset_key).child_keys & layer.executable_asset_keys)


def _series_in_run(context: dg.AssetExecutionContext, market: Market) -> dict[Series, Source]:
    """The fetched series of ``market`` in the run with their sources, in the order of their steps."""
    layer = context.job_def.asset_layer
    found = {}
    for key in sorted(layer.executable_asset_keys, key=lambda key: "__".join(key.path)):
        metadata = layer.asset_graph.get(key).metadata
        if key.path[0] == market.name and "source" in metadata:
            found[parse_series(str(metadata["series"]))] = metadata["source"]
    return found
