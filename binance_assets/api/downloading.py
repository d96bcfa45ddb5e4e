"""Downloading into the lake without Dagster: the engine, the locks, and the weight ledger of the command ``download``.

What the command does besides belongs to Dagster and is left out: no run is recorded, and no series is tracked. Dagster
learns of the partitions when the command ``download`` covers them the next time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial

from binance_assets.api.arguments import Moment, SeriesName, all_series_of, current_settings, day_of, lake_at, source_of
from binance_assets.exchange.session import Exchange
from binance_assets.ingest.dates import check_dates
from binance_assets.ingest.request import DownloadPlan, DownloadRequest, plan_request
from binance_assets.model.bucket_paths import LakePath
from binance_assets.model.results import PartitionResult, Verdict
from binance_assets.model.series import Series, by_market
from binance_assets.orchestration.background import BackgroundIterator
from binance_assets.orchestration.prefetch import (
    FetchTask,
    Prefetcher,
    TailPrefetcher,
    fetch,
    kind_of_prefetcher,
)
from binance_assets.orchestration.tally import Tally
from binance_assets.settings import ConfigurationError, Settings, Source
from binance_assets.storage.lake import Lake
from binance_assets.storage.universe import read_universe, sources_of
from binance_assets.storage.writer import write_results
from binance_assets.waiting import activity, waited


@dataclass(frozen=True, slots=True)
class DownloadProgress:
    """How far a download is.

    Attributes:
        series: Name of the series that is fetched.
        done: How many of its partitions have a result.
        total: How many have to be fetched or validated again.
        result: The result of the last of them; None if there is none since the last call.
        wait: What the download waits for, in words; None if it does not wait.
    """

    series: str
    done: int
    total: int
    result: PartitionResult | None = field(repr=False)
    wait: str | None


@dataclass(frozen=True, slots=True)
class Downloaded:
    """What became of one series.

    Attributes:
        series: Its name.
        requested: How many partitions were requested.
        present: How many of them the lake holds now.
        verdicts: How many of those have which verdict.
        refused: The results that were not written: refused ones, and those worse than what is stored.
        rows: How many candles were written.
        requests: Requests sent, retries included.
        weight: Request weight that they cost.
        workers: How many requests could be in flight at once.
        rtt_ms: Mean round trip of the first pages, ms; None if none was fetched.
        seconds: Duration, writing included.
        waited: How much of it was spent waiting while no request was in flight, seconds.
    """

    series: str
    requested: int
    present: int
    verdicts: dict[Verdict, int]
    refused: tuple[PartitionResult, ...] = field(repr=False)
    rows: int
    requests: int
    weight: int
    workers: int
    rtt_ms: float | None
    seconds: float
    waited: float

    @property
    def is_complete(self) -> bool:
        """Whether the lake holds all requested partitions, and none was refused."""
        return self.present == self.requested and not self.refused


Progress = Callable[[DownloadProgress], None]
"""Receives how far a download is, in the thread that called :func:`download`."""


def download(
    series: SeriesName | Sequence[SeriesName],
    start: Moment | None = None,
    end: Moment | None = None,
    *,
    source: Source | None = None,
    refresh: bool = False,
    progress: Progress | None = None,
    lake: str | LakePath | Lake | None = None,
    settings: Settings | None = None,
) -> list[Downloaded]:
    """Fetch the candles that the lake lacks, validate them, and write the accepted partitions.

    An interrupt, or an error of ``progress``, ends the download; what has arrived is written.

    Args:
        series: One or several series, such as ``spot/BTCUSDT/1m``, of any markets.
        start: The first day; for 3d, 1w, and 1M the first of a month. None for that of the first candle.
        end: The day after the last one. None for the end of the last partition that is over.
        source: ``rest``, ``archive``, or ``auto``; None for that of the universe, or else of the settings.
        refresh: Whether to fetch again what is in the lake.
        progress: Called for each partition, and when what is waited for changes.
        lake: The folder of the lake; None for that of the settings.
        settings: The settings; None for those of the environment and of ``.env``.

    Returns:
        What became of each series, in the given order. Refused partitions raise nothing.

    Raises:
        LakeError: The lake cannot be used: it holds candles of another venue, or it cannot be read or written.
        LedgerError: The ledger of request weight cannot be used.
        ConfigurationError: An argument, a setting, or the universe is not valid; or the market never had a symbol, and
            the message names the nearest ones. Both errors above are of this kind.
        ExchangeError: The exchange cannot be reached, so that what is missing cannot be planned. Once the download has
            begun, what cannot be fetched is refused as ``unreachable``.
    """
    members, given = all_series_of(series), source_of(source)
    chosen = settings or current_settings()
    first, last = day_of("start", start), day_of("end", end)
    target = lake_at(chosen.lake if lake is None else lake)
    universe = read_universe(chosen.universe)
    for member in members:
        if str(member) in universe.derived_names or member.derived:
            raise ConfigurationError(f"{member} is derived and cannot be fetched")
    sources = sources_of(members, universe, chosen, given)
    outcomes: dict[Series, Downloaded] = {}
    for market, of_market in by_market(members).items():
        with closing(Exchange(market, chosen, len(of_market))) as exchange:
            common: Source = "archive" if {sources[member] for member in of_market} == {"archive"} else "auto"
            try:
                check_dates(of_market, first, last)
                request = DownloadRequest(tuple(of_market), first, last, refresh)
                plans = plan_request(request, target, exchange, universe.series, common, universe.ended)
            except ConfigurationError as error:  # its message may name the options of the command
                if type(error) is not ConfigurationError:  # the lake, or the ledger
                    raise
                raise ConfigurationError(str(error).replace("--start", "start").replace("--end", "end")) from None
            outcomes |= _fetch_all(plans, exchange, target, sources, chosen.strict, refresh, progress)
    return [outcomes[member] for member in members]


def _fetch_all(
    plans: Sequence[DownloadPlan],
    exchange: Exchange,
    lake: Lake,
    sources: dict[Series, Source],
    strict: bool,
    refresh: bool,
    progress: Progress | None,
) -> dict[Series, Downloaded]:
    """Fetch the series of a market; many short ones at once."""
    tasks = {
        plan.series: FetchTask(
            plan.series, sources[plan.series], plan.missing if refresh else plan.pending, only_missing=not refresh
        )
        for plan in plans
    }
    fetch_task = partial(fetch, exchange=exchange, lake=lake, strict=strict)
    longest = max((task.partitions for task in tasks.values()), key=len)
    kind = kind_of_prefetcher(list(tasks), longest)
    with closing((kind or Prefetcher)(tasks.values() if kind else (), fetch_task)) as prefetcher:
        return {plan.series: _fetch(plan, tasks[plan.series], prefetcher, exchange, lake, progress) for plan in plans}


def _fetch(
    plan: DownloadPlan,
    task: FetchTask,
    prefetcher: Prefetcher | TailPrefetcher,
    exchange: Exchange,
    lake: Lake,
    progress: Progress | None,
) -> Downloaded:
    """Fetch one series and write what is accepted."""
    began, waited_before, tally = time.monotonic(), waited(), Tally(lake, plan.series)
    watcher = _Watcher(plan.series, len(task.partitions), progress)
    with (
        closing(BackgroundIterator(prefetcher.results_for(task))) as background,
        closing(write_results(lake, plan.series, watcher.watch(iter(background)))) as writes,
    ):
        for result, written in writes:
            tally.count_written(written)
            if result is not None and not result.is_accepted:
                tally.count_refused(result)
    network, usage = exchange.metrics(), exchange.drain_usage(plan.series)
    present = lake.stored_among(plan.series, plan.requested)
    verdicts: dict[Verdict, int] = {}
    for entry in present.values():
        verdicts[entry.verdict] = verdicts.get(entry.verdict, 0) + 1
    return Downloaded(
        series=str(plan.series),
        requested=len(plan.requested),
        present=len(present),
        verdicts=verdicts,
        refused=tuple(tally.refused),
        rows=tally.rows,
        requests=usage.requests,
        weight=usage.weight,
        workers=network.workers,
        rtt_ms=network.rtt_ms,
        seconds=time.monotonic() - began,
        waited=waited() - waited_before,
    )


class _Watcher:
    """Reports results that pass by, and what is waited for meanwhile."""

    def __init__(self, series: Series, total: int, progress: Progress | None) -> None:
        self._series = str(series)
        self._total = total
        self._progress = progress
        self._done = 0
        self._wait: str | None = None

    def watch(self, results: Iterator[PartitionResult | None]) -> Iterator[PartitionResult | None]:
        """Yield the results, each before it is reported; None while waiting."""
        for result in results:
            yield result
            wait = activity().wait
            reason = None if wait is None else str(wait)
            self._done += result is not None
            if self._progress is not None and (result is not None or reason != self._wait):
                self._progress(DownloadProgress(self._series, self._done, self._total, result, reason))
            self._wait = reason
