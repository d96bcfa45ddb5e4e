"""What a monitor scrapes: the lake, the ledger of request weight, and the runs of Dagster, as metrics.

Nothing here asks Binance, and nothing is written. A source that cannot be read costs its own metrics only: a monitor
that misses all of them could not name the cause.

Here belongs which figures there are. What does not belong here: their text (``model.exposition``), and who serves them
(``cli.metrics``, ``metrics_page``).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import dagster as dg

from binance_assets import __version__
from binance_assets.exchange.rate_limit.figures import GroupFigures, address_and_egress, figures_of
from binance_assets.exchange.rate_limit.ledger import Ledger
from binance_assets.model.exposition import Metric, Sample
from binance_assets.model.outside import reason_of
from binance_assets.model.partitions import partition_for_key
from binance_assets.model.series import Series, by_market
from binance_assets.orchestration.freshness import stale_series
from binance_assets.orchestration.instance import has_instance, open_instance
from binance_assets.orchestration.status import Absent, absent_partitions
from binance_assets.settings import Settings, read_settings
from binance_assets.storage.coverage import Coverage, coverages_of
from binance_assets.storage.lake import Lake
from binance_assets.storage.universe import Universe, read_universe

_PREFIX: Final = "binance_assets_"
_AWAY_SECONDS: Final = 2.0  # a scrape has a timeout of ten seconds by default


@dataclass(frozen=True, slots=True)
class Scrape:
    """The metrics of a moment.

    Attributes:
        metrics: The metrics.
        problems: Why a source could not be read, by its name.
    """

    metrics: list[Metric] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)


def scrape(folder: Path, environment: Mapping[str, str]) -> Scrape:
    """Return the metrics of a project.

    Args:
        folder: The working folder.
        environment: Environment variables: the settings, and ``DAGSTER_HOME``.

    Raises:
        ConfigurationError: The settings or the universe are not usable.
    """
    settings = read_settings(environment)
    universe = read_universe(settings.existing_universe())
    result = Scrape([_metric("info", "The version of the program.", [({"version": __version__}, 1)])])
    with ExitStack() as stack:
        instance: list[dg.DagsterInstance] = []

        def runs() -> list[Metric]:
            if has_instance(folder, environment):
                instance.append(stack.enter_context(open_instance(folder, environment)))
            return [_runs(*instance)] if instance else []

        sources: dict[str, Callable[[], list[Metric]]] = {
            "dagster": runs,
            "lake": lambda: lake_metrics(settings, universe, instance[0] if instance else None),
            "ledger": lambda: ledger_metrics(settings),
        }
        for name, read in sources.items():
            try:
                result.metrics.extend(read())
            except Exception as error:  # Dagster and Polars pass on whatever their storages raise
                result.problems[name] = reason_of(error)
    up: list[Sample] = [({"source": name}, name not in result.problems) for name in sources]
    result.metrics.append(_metric("source_up", "Whether a source of these metrics could be read.", up))
    return result


def _metric(name: str, meaning: str, samples: list[Sample]) -> Metric:
    return Metric(f"{_PREFIX}{name}", meaning, samples)


# -- the lake ---------------------------------------------------------------------------------------------------------


def lake_metrics(settings: Settings, universe: Universe, instance: dg.DagsterInstance | None) -> list[Metric]:
    """Return what the lake holds and lacks of each series of the universe.

    Raises:
        LakeError: A file may not be read.
    """
    lake, now = Lake(settings.lake), dt.datetime.now(dt.UTC)
    series = universe.all_series
    absent = absent_partitions(instance, lake, series) if instance else Absent()
    coverages: list[Coverage] = []
    stale: set[Series] = set()
    for market, members in by_market(series).items():
        index = lake.file_index(market, members)
        coverages += coverages_of(index, members, now.date(), absent.unwritten, universe.ended, absent.lost)
        stale.update(entry.series for entry in stale_series(index, members, now, universe.ended))

    def of_each(value: Callable[[Coverage], float]) -> list[Sample]:
        return [(_labels(coverage.series), value(coverage)) for coverage in coverages]

    return [
        _metric("partitions", "Partitions in the lake, by verdict.", list(_by_verdict(coverages))),
        _metric("partitions_refused", "Partitions that were refused.", of_each(lambda coverage: coverage.refused)),
        _metric(
            "partitions_missing",
            "Other partitions that the lake lacks, from the first stored one to the last that is over.",
            of_each(lambda coverage: coverage.missing),
        ),
        _metric("candles", "Candles in the lake.", of_each(lambda coverage: coverage.rows)),
        _metric("lake_bytes", "Size of the files in the lake.", of_each(lambda coverage: coverage.size)),
        _metric(
            "last_candle_timestamp_seconds",
            "When the last partition in the lake ends, in Unix time.",
            list(_ends(coverages)),
        ),
        _metric(
            "series_stale",
            "Whether the candles are older than the check `fresh` of the coverage allows.",
            of_each(lambda coverage: coverage.series in stale),
        ),
    ]


def _labels(series: Series) -> dict[str, str]:
    return {"market": series.market.name, "symbol": series.symbol, "interval": series.interval.name}


def _by_verdict(coverages: list[Coverage]) -> Iterator[Sample]:
    for coverage in coverages:
        for verdict, count in sorted(coverage.verdicts.items()):
            yield {**_labels(coverage.series), "verdict": verdict}, count


def _ends(coverages: list[Coverage]) -> Iterator[Sample]:
    for coverage in coverages:
        if coverage.last is not None:
            last = partition_for_key(coverage.last, coverage.series.interval)
            yield _labels(coverage.series), last.end / 1_000


# -- the ledger -------------------------------------------------------------------------------------------------------


def ledger_metrics(settings: Settings) -> list[Metric]:
    """Return the request weight and the blocks of each rate-limit group; nothing without a ledger.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    location = settings.usable_ledger()
    if isinstance(location, Path) and not location.exists():
        return []
    with closing(Ledger(location, _AWAY_SECONDS)) as ledger:
        figures = figures_of(ledger, dt.datetime.now(dt.UTC).timestamp() * 1_000)

    def of_each(value: Callable[[GroupFigures], float]) -> list[Sample]:
        return [(_group(entry), value(entry)) for entry in figures]

    def of_minutes(name: str) -> list[Sample]:
        return [
            ({**_group(entry), "minute": which}, getattr(getattr(entry, which), name))
            for entry in figures
            for which in ("current", "previous")
        ]

    return [
        _metric("weight_limit", "Request weight that Binance allows an IP in a minute.",
                of_each(lambda entry: entry.current.limit)),
        _metric("weight_used", "Request weight that Binance counted in a UTC minute, of all programs behind the IP.",
                of_minutes("seen")),
        _metric("weight_claimed", "Request weight that the users of the ledger claimed in a UTC minute.",
                of_minutes("ours")),
        _metric("blocked_seconds", "For how long Binance refuses requests (429 or 418); 0 if it does not.",
                of_each(lambda entry: entry.blocked_seconds)),
        _metric("banned", "Whether that is a ban (418).", of_each(lambda entry: entry.banned)),
        _metric("blocks_in_a_row", "Blocks since a request succeeded.", of_each(lambda entry: entry.blocks)),
    ]  # fmt: skip


def _group(figures: GroupFigures) -> dict[str, str]:
    address, egress = address_and_egress(figures.group)
    return {"exchange": address, "egress": egress, "group": figures.group.name}


# -- Dagster ----------------------------------------------------------------------------------------------------------


def _runs(instance: dg.DagsterInstance) -> Metric:
    counts: list[Sample] = [
        ({"status": status.value.lower()}, instance.get_runs_count(dg.RunsFilter(statuses=[status])))
        for status in dg.DagsterRunStatus
    ]
    return _metric("runs", "Runs in Dagster's history, by status.", counts)
