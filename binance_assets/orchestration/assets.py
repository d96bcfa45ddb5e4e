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
from binance_assets.exchange.errors import ExchangeError, Stopped
from binance_assets.exchange.session import Exchange
from binance_assets.ingest.download import download
from binance_assets.ingest.sources import unavailable
from binance_assets.model.markets import Market
from binance_assets.model.partitions import Period, period_of
from binance_assets.model.results import Judged
from binance_assets.model.series import Series, ascii_symbol, parse_series
from binance_assets.model.timestamps import SECOND
from binance_assets.orchestration.checks import gap_free_result, gap_free_spec, tell_refused
from binance_assets.orchestration.freshness import freshness_of
from binance_assets.orchestration.metrics import RunFigures, Watcher
from binance_assets.orchestration.partitions import partitions_of
from binance_assets.orchestration.prefetch import Ahead, worth_fetching_ahead
from binance_assets.orchestration.resources import BinanceResource, LakeResource
from binance_assets.settings import ConfigurationError, Source
from binance_assets.storage.lake import Lake, Stored


class CandlesConfig(dg.Config):
    """What a single run may be told."""

    only_missing: bool = Field(
        default=False, description="Leave alone partitions that are in the lake; otherwise they are fetched again"
    )


CandleEvents = Iterator[dg.AssetMaterialization | dg.MaterializeResult | dg.AssetCheckResult]  # type: ignore[type-arg]


def asset_key(series: Series) -> dg.AssetKey:
    """The key of the asset that holds ``series``."""
    return dg.AssetKey(list(series.key))


def candles_asset(series: Series, source: Source, lake: Lake, watcher: Watcher | None = None) -> dg.AssetsDefinition:
    """The asset of one series.

    Args:
        series: The series.
        source: Where its candles come from.
        lake: Where its files are; only their place is used here, for the asset's page.
        watcher: Told of the progress of runs in this process.
    """

    @series_asset(series, lake, {"binance", "polars", "parquet"}, _description(series), {"source": source})
    def candles(
        context: dg.AssetExecutionContext, config: CandlesConfig, binance: BinanceResource, lake: LakeResource
    ) -> CandleEvents:
        yield from _materialize(context, binance, lake.lake(), series, watcher)

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
        partitions_def=partitions_of(series.interval),
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
    period = "month" if series.interval.is_coarse else "day"
    return (
        f"{series.interval} candles of {series.symbol} on Binance {series.market.title}, "
        f"one Parquet file per {period}.\n\n"
        f"A {period} is written only when its candles are sane and none is missing; the check `gap_free` names "
        f"those that were refused."
    )


@dataclass
class _Run:
    """What a run has done for one series so far."""

    series: Series
    exchange: Exchange
    began: float = field(default_factory=time.monotonic)
    refused: list[Judged] = field(default_factory=list)
    accepted: int = 0
    rows: int = 0

    def figures(self) -> RunFigures:
        now, spent = self.exchange.figures(), self.exchange.settle_account(self.series)
        return RunFigures(
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
    watcher: Watcher | None,
) -> CandleEvents:
    try:
        sources = _series_in_run(context, series.market)
        exchange = binance.exchange(series.market, len(sources))
        run = _Run(series, exchange)
        if watcher:
            watcher.started(series, exchange)
        for judged in _fetched(context, binance, lake, exchange, series, sources):
            if judged.accepted:
                stored = lake.write(series, judged)
                yield materialization(series, judged.period, stored)
                run.accepted += 1
                run.rows += judged.candles.height
            else:
                run.refused.append(judged)
            if watcher:
                watcher.judged(series, judged)
    except Stopped:
        raise dg.DagsterExecutionInterruptedError from None
    except ConfigurationError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    figures = run.figures()
    if watcher:
        watcher.finished(series, figures)
    _log_outcome(context, run, figures)
    # Downstream steps of the same run start only after an output, which marks all partitions of the run.
    if has_downstream(context) and not run.refused:
        yield dg.MaterializeResult()
    yield gap_free_result(run.refused, run.accepted, figures)


def _fetched(
    context: dg.AssetExecutionContext,
    binance: BinanceResource,
    lake: Lake,
    exchange: Exchange,
    series: Series,
    sources: Mapping[Series, Source],
) -> Iterator[Judged]:
    """The verdicts on the step's partitions; of a run over many series the next ones are fetched meanwhile."""
    periods = [period_of(key, series.interval) for key in context.partition_keys]

    def fetch(one: Series) -> Iterator[Judged]:
        wanted = _wanted(context, lake, one)
        return _prepared(lake, exchange, one, wanted, sources[one], binance.strict)

    if not worth_fetching_ahead(list(sources), periods):
        return fetch(series)
    ahead = binance.ahead(series.market, lambda: Ahead(list(sources), lambda one: list(fetch(one))))
    return ahead.take(series)


def _wanted(context: dg.AssetExecutionContext, lake: Lake, series: Series) -> list[Period]:
    """The partitions of ``series`` that the run is to fetch, by what it is configured with."""
    run_config: Any = context.run.run_config
    step = run_config.get("ops", {}).get("__".join(series.key), {})
    config = CandlesConfig(**step.get("config", {}))
    periods = [period_of(key, series.interval) for key in context.partition_keys]
    if config.only_missing:
        return [period for period in periods if lake.stored(series, period) is None]
    return periods


def _prepared(
    lake: Lake, exchange: Exchange, series: Series, periods: Sequence[Period], source: Source, strict: bool
) -> Iterator[Judged]:
    """The verdicts, after a look whether the lake takes candles of this origin."""
    if not periods:
        return
    try:
        lake.prepare(exchange.origin)
    except ExchangeError as error:
        yield from (unavailable(series, period, error) for period in periods)
        return
    yield from download(exchange, series, periods, source, strict, lake)


def materialization(series: Series, period: Period, stored: Stored) -> dg.AssetMaterialization:
    """The event that tells Dagster of a partition's file.

    Args:
        series: The series.
        period: The partition.
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
    return dg.AssetMaterialization(asset_key(series), partition=period.key, metadata=metadata)


def _log_outcome(context: dg.AssetExecutionContext, run: _Run, figures: RunFigures) -> None:
    told = (
        f"{run.series}: {run.accepted} written, {figures.rows} candles in {figures.seconds:.1f} s "
        f"({figures.rows_per_second} a second), {figures.requests} requests, weight {figures.weight}, "
        f"{figures.workers} workers, round trip {figures.rtt_ms} ms"
    )
    context.log.info(told)
    if run.refused:
        context.log.error(f"{run.series}: {tell_refused(run.refused)}")


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
