"""The asset factory: one partitioned asset per series.

A run over a range keeps the isolation of single runs. Each good partition is written and reported as soon as it is
judged, a bad one stops only itself, and a run that is killed keeps what it finished. That is why partitions are
reported as ``AssetMaterialization`` and the step's own output is optional.
"""

# No `from __future__ import annotations` here: Dagster reads the types of an asset's arguments when it is defined.
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import dagster as dg
from pydantic import Field

from binance_assets.candles.schema import candle_schema, columns
from binance_assets.candles.validation import Judged
from binance_assets.download import download, unavailable
from binance_assets.exchange.budget import Stopped
from binance_assets.exchange.errors import ExchangeError
from binance_assets.exchange.exchange import Exchange, Figures
from binance_assets.intervals import SECOND
from binance_assets.lake import Lake, Stored
from binance_assets.orchestration.checks import gap_free_result, gap_free_spec, tell_refused
from binance_assets.orchestration.figures import RunFigures, Watcher
from binance_assets.orchestration.partitions import partitions_of
from binance_assets.orchestration.resources import BinanceResource, LakeResource
from binance_assets.periods import Period, period_of
from binance_assets.series import Series, ascii_symbol
from binance_assets.settings import ConfigurationError, Source


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
    key = asset_key(series)

    @dg.asset(
        key=key,
        partitions_def=partitions_of(series.interval),
        backfill_policy=dg.BackfillPolicy.single_run(),
        check_specs=[gap_free_spec(key)],
        output_required=False,
        group_name=series.market.name,
        kinds={"binance", "polars", "parquet"},
        tags={
            "market": series.market.name,
            "symbol": ascii_symbol(series.symbol),
            "interval": series.interval.name,
        },
        description=_description(series),
        metadata={
            "series": str(series),
            "dagster/column_schema": column_schema(series),
            "dagster/uri": lake.folder(series).absolute().as_uri(),
        },
    )
    def candles(
        context: dg.AssetExecutionContext, config: CandlesConfig, binance: BinanceResource, lake: LakeResource
    ) -> CandleEvents:
        yield from _materialize(context, config, binance, lake.lake(), series, source, watcher)

    return candles


def column_schema(series: Series) -> dg.TableSchema:
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
    before: Figures
    began: float = field(default_factory=time.monotonic)
    refused: list[Judged] = field(default_factory=list)
    accepted: int = 0
    rows: int = 0

    def figures(self) -> RunFigures:
        now = self.exchange.figures()
        return RunFigures(
            requests=now.requests - self.before.requests,
            weight=now.weight - self.before.weight,
            workers=now.workers,
            warmup=now.warmup,
            rtt_ms=now.rtt_ms,
            rows=self.rows,
            seconds=time.monotonic() - self.began,
        )


def _materialize(
    context: dg.AssetExecutionContext,
    config: CandlesConfig,
    binance: BinanceResource,
    lake: Lake,
    series: Series,
    source: Source,
    watcher: Watcher | None,
) -> CandleEvents:
    periods = [period_of(key, series.interval) for key in context.partition_keys]
    if config.only_missing:
        periods = [period for period in periods if lake.stored(series, period) is None]
    try:
        exchange = binance.exchange(series.market, _series_in_run(context, series))
        run = _Run(series, exchange, exchange.figures())
        if watcher:
            watcher.started(series, exchange)
        for judged in _prepared(lake, exchange, series, periods, source, binance.strict):
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
    if _has_downstream(context) and not run.refused:
        yield dg.MaterializeResult()
    yield gap_free_result(run.refused, run.accepted, figures)


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
    for name in ("note", "archive_file", "archive_sha256", "archive_modified", "accepted_by", "accepted_because"):
        if text := getattr(stored, name):
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


def _has_downstream(context: dg.AssetExecutionContext) -> bool:
    return bool(context.job_def.asset_layer.asset_graph.get(context.asset_key).child_keys)


def _series_in_run(context: dg.AssetExecutionContext, series: Series) -> int:
    keys = context.job_def.asset_layer.executable_asset_keys
    return sum(1 for key in keys if len(key.path) == 3 and key.path[0] == series.market.name)
