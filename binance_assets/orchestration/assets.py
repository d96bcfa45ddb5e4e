"""Assets: the factory that makes one partitioned asset per series, and what its step does.

A run over a range isolates its partitions as well as one run per partition would. Each accepted partition is written
and reported once it is validated, at most a few seconds later, together with others of its file. A refused one affects
no other, and a run that is killed keeps what it wrote. Therefore partitions are reported as ``AssetMaterialization``,
and the step's own output is optional.

Here belongs what fetched and derived assets have in common, and the step of a fetched asset. What does not belong
here: the step of a derived asset (``derived``), the check (``checks``), and how candles are fetched (``prefetch``,
``ingest``).
"""

# No `from __future__ import annotations` here: Dagster reads the types of an asset's arguments when it is defined.
import datetime as dt
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence, Set
from contextlib import closing
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Final

import dagster as dg

from binance_assets.candles.columns import DESCRIPTIONS, columns
from binance_assets.exchange.errors import Cancelled
from binance_assets.exchange.rate_limit.ledger import LedgerConnectionLost
from binance_assets.exchange.session import Exchange
from binance_assets.model.markets import Market
from binance_assets.model.outside import MESSAGE, printable
from binance_assets.model.partitions import Partition, partition_for_key
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import Series, ascii_symbol
from binance_assets.orchestration.backfill_policies import SINGLE_RUN
from binance_assets.orchestration.background import BackgroundIterator
from binance_assets.orchestration.checks import format_refused, gap_free_spec
from binance_assets.orchestration.conclusion import CandleEvent, CandleEvents, conclude
from binance_assets.orchestration.dagster_internals.steps import expected_step_order, keys_in_run
from binance_assets.orchestration.day_page import day_page
from binance_assets.orchestration.events import materializations
from binance_assets.orchestration.interrupted import prove_life
from binance_assets.orchestration.keys import asset_key, op_name
from binance_assets.orchestration.metrics import RunMetrics
from binance_assets.orchestration.partitions import partitions_def_for
from binance_assets.orchestration.prefetch import FetchTask, fetch, kind_of_prefetcher
from binance_assets.orchestration.progress import ProgressListener
from binance_assets.orchestration.resources import BinanceResource
from binance_assets.orchestration.retried import materialized_before, step_retried_if_disconnected
from binance_assets.orchestration.tally import Tally
from binance_assets.settings import ConfigurationError, Source
from binance_assets.storage.lake import Lake
from binance_assets.storage.writer import write_results
from binance_assets.waiting import phase, waited


@dataclass(frozen=True, slots=True)
class CandlesConfig:
    """Run configuration of a fetched asset's step.

    Attributes:
        only_missing: Whether to skip partitions that are in the lake.
        source: Where the candles come from; None for what the universe names.
    """

    only_missing: bool = False
    source: Source | None = None


@dataclass(frozen=True, slots=True)
class FetchedSeries:
    """A series that the code location fetches.

    Attributes:
        series: The series.
        source: Where its candles come from.
        last: The last day of a delisted symbol, UTC; None if it has not ended.
        owners: Who owns the asset, as Dagster writes owners.
        backfill: Into how many runs Dagster divides a backfill.
    """

    series: Series
    source: Source
    last: dt.date | None = None
    owners: tuple[str, ...] = ()
    backfill: dg.BackfillPolicy = SINGLE_RUN


FetchedByKey = Mapping[dg.AssetKey, FetchedSeries]
"""The fetched series of a code location, by asset key."""

Inputs = Mapping[str, object]
"""The values of a step's inputs; there are none, because a dependency only sets the order of two steps."""

Step = Callable[[dg.AssetExecutionContext, Inputs], CandleEvents]
"""What materializes an asset."""

# The parts that all assets share: making them again for each takes a second for a thousand assets.
_OUTPUT: Final = "result"
_OPTIONAL_OUT: Final = dg.Out(is_required=False)
_CHECK_OUT: Final = dg.Out(dagster_type=None)
_NOTHING_IN: Final = dg.In(dg.Nothing)
# The catalog shows them beside the name. It has icons for these two; a third kind takes the place of the symbol.
_KINDS: Final = {"polars", "parquet"}
with warnings.catch_warnings():
    # Users can do nothing about the beta label of code references.
    warnings.simplefilter("ignore", dg.BetaWarning)
    _CODE: Final = dg.CodeReferencesMetadataValue(
        code_references=[dg.LocalFileCodeReference(file_path=__file__, label="the step")]
    )
# Dagster's own types, and not those of `dg.Config`: the launchpad offers the sources, and refuses any other value
# before it launches a run. Its message names the type, and no value that it has.
_SOURCES: Final = dg.Enum(
    "rest_or_archive_or_auto",
    [
        dg.EnumValue("rest", description="The REST API"),
        dg.EnumValue("archive", description="The public archive"),
        dg.EnumValue("auto", description="The one that needs fewer requests"),
    ],
)
_CONFIG: Final = dg.Field(
    {
        "only_missing": dg.Field(
            bool,
            default_value=False,
            description="Skip partitions that are in the lake; otherwise they are fetched again",
        ),
        "source": dg.Field(
            dg.Noneable(_SOURCES),
            is_required=False,
            description="Where the candles come from: rest, archive, or auto; by default as the universe names it",
        ),
    }
)


def pool_name(market: Market) -> str:
    """Return the concurrency pool of a market: markets that share request weight share a pool. It has no limit."""
    return f"binance_{market.rate_limit_group}"


def candles_asset(
    series: Series, fetched: FetchedByKey, lake: Lake, listener: ProgressListener | None = None
) -> dg.AssetsDefinition:
    """Return the asset of a fetched series.

    Args:
        series: The series; ``fetched`` contains it.
        fetched: All fetched series of the code location; a run over many of them fetches several at once.
        lake: The lake; only its location is used here, for the asset's page.
        listener: Receives the progress of runs in this process.
    """
    member = fetched[asset_key(series)]

    def candles(context: dg.AssetExecutionContext, _: Inputs) -> CandleEvents:
        prove_life(context)
        binance, lake = context.resources.binance, context.resources.lake.lake()
        with step_retried_if_disconnected():
            partitions = _partitions(context, series)
            before = materialized_before(context.instance, context.run, context.retry_number)
            task = _task(member, partitions, context.op_execution_context.op_config, before)
            if done := len(partitions) - len(task.partitions):
                context.log.info(f"{series}: {done} partitions are there from the attempt that this one retries")
            yield from _materialize(context, task, fetched, binance, lake, listener)

    return series_asset(
        series,
        lake,
        candles,
        description=_description(series),
        metadata={"source": member.source},
        resources={"binance", "lake"},
        config=_CONFIG,
        last=member.last,
        owners=member.owners,
        backfill=member.backfill,
    )


def series_asset(
    series: Series,
    lake: Lake,
    step: Step,
    *,
    description: str,
    metadata: Mapping[str, str],
    resources: set[str],
    config: dg.Field | None = None,
    base: Series | None = None,
    last: dt.date | None = None,
    owners: Sequence[str] = (),
    backfill: dg.BackfillPolicy = SINGLE_RUN,
) -> dg.AssetsDefinition:
    """Return an asset that holds a series, with what fetched and derived assets have in common.

    It is put together from its parts. The decorator ``dg.asset`` takes four times as long, because it derives the same
    parts from the arguments of a function, and a code location may have thousands of assets.

    Args:
        series: The series.
        lake: The lake; only its location is used here, for the asset's page.
        step: What materializes the asset.
        description: Markdown for the asset's page.
        metadata: Further entries for the asset's page.
        resources: The keys of the resources that the step uses.
        config: The schema of the step's run configuration; None if there is nothing to configure.
        base: The series that the asset is derived from, if any.
        last: The last day of a delisted symbol, UTC; None if it has not ended.
        owners: Who owns the asset, as Dagster writes owners.
        backfill: Into how many runs Dagster divides a backfill.
    """
    key, parents = asset_key(series), [] if base is None else [asset_key(base)]
    check = gap_free_spec(key)
    check_output = check.get_python_identifier()
    inputs = {parent.to_python_identifier(): parent for parent in parents}
    op = dg.OpDefinition(
        step,
        name=op_name(series),
        ins=dict.fromkeys(inputs, _NOTHING_IN),
        outs={_OUTPUT: _OPTIONAL_OUT, check_output: _CHECK_OUT},
        config_schema=config,
        required_resource_keys=resources,
        description=description,
        pool=pool_name(series.market) if "binance" in resources else None,
    )
    spec = dg.AssetSpec(
        key,
        deps=parents,
        partitions_def=partitions_def_for(series.interval),
        group_name=series.market.name,
        kinds=_KINDS,
        owners=owners,
        tags={
            "market": series.market.name,
            "symbol": ascii_symbol(series.symbol),
            "interval": series.interval.name,
        },
        description=description,
        metadata={
            "series": str(series),
            **({"last day": last.isoformat()} if last is not None else {}),
            **metadata,
            "dagster/column_schema": _column_schema(series.market),
            "dagster/uri": lake.uri(series),
            "dagster/code_references": _CODE,
        },
    )
    return dg.AssetsDefinition(
        keys_by_input_name=inputs,
        keys_by_output_name={_OUTPUT: key},
        node_def=op,
        specs=[spec],
        check_specs_by_output_name={check_output: check},
        backfill_policy=backfill,
    )


@cache
def _column_schema(market: Market) -> dg.TableSchema:
    """Return the columns of the series of a market as Dagster shows them."""
    return dg.TableSchema(
        [dg.TableColumn(name, str(dtype), DESCRIPTIONS[name]) for name, dtype in columns(market).items()]
    )


def _description(series: Series) -> str:
    partition = "month" if series.interval.is_multi_day else "day"
    return (
        f"{series.interval} candles of {series.symbol} on Binance {series.market.title}, in Parquet files.\n\n"
        f"A {partition} is written only if its candles are valid and none with trades is missing. The check "
        f"gap_free names each refused {partition} and the reason."
    )


def _metrics(series: Series, exchange: Exchange, rows: int, started_at: float, waited_before: float) -> RunMetrics:
    """Return the numbers of a step until now; the usage of the series starts again from zero."""
    network, usage = exchange.metrics(), exchange.drain_usage(series)
    return RunMetrics(
        requests=usage.requests,
        weight=usage.weight,
        workers=network.workers,
        warmup=network.warmup,
        rtt_ms=network.rtt_ms,
        rows=rows,
        seconds=time.monotonic() - started_at,
        waited=waited() - waited_before,
    )


def _materialize(
    context: dg.AssetExecutionContext,
    task: FetchTask,
    fetched: FetchedByKey,
    binance: BinanceResource,
    lake: Lake,
    listener: ProgressListener | None,
) -> CandleEvents:
    series = task.series
    try:
        members = binance.members(series.market, lambda: _same_market_in_run(context, series, fetched))
        exchange = binance.exchange(series.market, len(members))
        tally, started_at, waited_before = Tally(lake, series), time.monotonic(), waited()
        if listener:
            listener.started(series, exchange)
        results = _results(context, task, members, binance, exchange, lake)
        page = yield from _write(context, lake, series, results, tally, listener)
        if tally.accepted + len(tally.refused) < len(task.partitions):
            yield from _unrecorded(context, lake, task)
    except Cancelled:
        raise dg.DagsterExecutionInterruptedError from None
    except LedgerConnectionLost:
        raise
    except ConfigurationError as error:
        raise dg.Failure(printable(error, MESSAGE), allow_retries=False) from None
    metrics = _metrics(series, exchange, tally.rows, started_at, waited_before)
    if listener:
        listener.finished(series, metrics)
    _log_outcome(context, series, tally, metrics)
    yield from conclude(context, lake, series, tally, metrics, page)


def _write(
    context: dg.AssetExecutionContext,
    lake: Lake,
    series: Series,
    results: Iterator[PartitionResult],
    tally: Tally,
    listener: ProgressListener | None,
) -> Generator[CandleEvent, None, dict[str, dg.MetadataValue]]:
    """Write the accepted results as they arrive, and yield the events of the partitions that were written.

    Returns:
        The metadata of :func:`day_page`, if the run is over a single partition.
    """
    page: dict[str, dg.MetadataValue] = {}
    with (
        closing(BackgroundIterator(results)) as background,
        closing(write_results(lake, series, iter(background))) as writes,
    ):
        for result, written in writes:
            stored, declined = tally.count_written(written)
            # A command has no chart: its user waits, and Matplotlib takes as long as the download of a day.
            page = page or day_page(context, lake, series, stored, with_chart=listener is None)
            with phase(f"recording {len(stored):,} partitions of {series} with Dagster"):
                yield from materializations(context, series, stored, page)
            if result is not None and not result.is_accepted:
                result = tally.count_refused(result)
            if listener and result is not None:
                listener.partition_done(series, result)
            for worse in declined:
                if listener:
                    listener.partition_declined(series, worse)
    return page


def _unrecorded(context: dg.AssetExecutionContext, lake: Lake, task: FetchTask) -> CandleEvents:
    """Yield the events of partitions that the step skipped because the lake holds them, and that Dagster does not know.

    An attempt before this one wrote them, and could not record them: its process ended, or Dagster's storage was away.
    Once a run has succeeded that planned them, nothing else looks for them.
    """
    known = context.instance.get_materialized_partitions(asset_key(task.series))
    unknown = [partition for partition in task.partitions if partition.key not in known]
    if unknown and (stored := lake.stored_among(task.series, unknown)):
        context.log.info(f"{task.series}: {len(stored)} partitions are in the lake and were not recorded with Dagster")
        yield from materializations(context, task.series, stored)


def _same_market_in_run(
    context: dg.AssetExecutionContext, series: Series, fetched: FetchedByKey
) -> list[FetchedSeries]:
    """Return the fetched series of the run that share the market of ``series``, in the expected order of their steps.

    Derived series and assets of users are left out, because they send no requests.
    """
    keys = expected_step_order(keys_in_run(context) & fetched.keys())
    members = [fetched[key] for key in keys if fetched[key].series.market == series.market]
    # A re-execution from failure has the selection of its parent run, but executes the failed steps only.
    steps = context.run.step_keys_to_execute
    return [member for member in members if steps is None or op_name(member.series) in steps]


def _results(
    context: dg.AssetExecutionContext,
    task: FetchTask,
    members: Sequence[FetchedSeries],
    binance: BinanceResource,
    exchange: Exchange,
    lake: Lake,
) -> Iterator[PartitionResult]:
    """Return the results of the step's partitions; in a run over several series, from the prefetcher."""
    fetch_task = partial(fetch, exchange=exchange, lake=lake, strict=binance.settings.strict)
    kind = kind_of_prefetcher([member.series for member in members], task.partitions)
    if kind is None:
        return fetch_task(task)
    # Only plain values reach the prefetcher: its threads outlive this step and its context.
    prefetcher = binance.prefetcher(task.series.market, lambda: kind(_tasks(context, members), fetch_task))
    return prefetcher.results_for(task)


def _tasks(context: dg.AssetExecutionContext, members: Sequence[FetchedSeries]) -> list[FetchTask]:
    """Return the tasks of all steps over ``members``, each with the configuration of its step."""
    partitions, run_config = _partitions(context, members[0].series), context.run.run_config
    before = materialized_before(context.instance, context.run, context.retry_number)
    return [_task(member, partitions, _config_of(member, run_config), before) for member in members]


def _partitions(context: dg.AssetExecutionContext, series: Series) -> tuple[Partition, ...]:
    return tuple(partition_for_key(key, series.interval) for key in context.partition_keys)


def _config_of(member: FetchedSeries, run_config: Mapping[str, Any]) -> Mapping[str, Any]:
    config: Mapping[str, Any] = run_config.get("ops", {}).get(op_name(member.series), {}).get("config", {})
    return config


def _task(
    member: FetchedSeries,
    partitions: tuple[Partition, ...],
    values: Mapping[str, Any],
    before: Mapping[dg.AssetKey, Set[str]],
) -> FetchTask:
    """Return what a step with the configuration ``values`` has to do; it leaves out what was materialized before."""
    config = CandlesConfig(**values)
    done = before.get(asset_key(member.series), frozenset())
    left = tuple(partition for partition in partitions if partition.key not in done)
    return FetchTask(member.series, config.source or member.source, left, config.only_missing)


def _log_outcome(context: dg.AssetExecutionContext, series: Series, tally: Tally, metrics: RunMetrics) -> None:
    context.log.info(
        f"{series}: {tally.message}, {metrics.rows} candles in {metrics.seconds:.1f} s "
        f"({metrics.rows_per_second} per second), {metrics.requests} requests, weight {metrics.weight}, "
        f"{metrics.workers} workers, round trip {metrics.rtt_ms} ms"
    )
    if tally.refused:
        context.log.error(f"{series}: {format_refused(tally.refused)}")
