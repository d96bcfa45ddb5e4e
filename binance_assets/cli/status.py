"""The commands that show what is there: ``status`` of series, ``show`` of one partition."""

from __future__ import annotations

import datetime as dt
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from binance_assets.cli.exit_codes import INCOMPLETE
from binance_assets.cli.options import (
    DateType,
    check_key,
    json_option,
    one_series_argument,
    series_argument,
    series_named,
)
from binance_assets.model.series import Series, by_market
from binance_assets.settings import Settings, read_settings
from binance_assets.storage.universe import Universe, read_universe
from binance_assets.waiting import phase

if TYPE_CHECKING:
    import dagster as dg

    from binance_assets.cli.json_output import AbsentDay, Status, StoredDay
    from binance_assets.cli.output import Tail
    from binance_assets.model.bucket_paths import LakePath
    from binance_assets.model.partitions import Partition
    from binance_assets.storage.lake import Lake
    from binance_assets.storage.metadata import StoredPartition


@click.command("status")
@series_argument
@json_option
def status_command(names: tuple[str, ...], as_json: bool) -> None:
    """Show what the lake has of each series, what it lacks, and the last run.

    SERIES is written like spot/BTCUSDT/1m; the default is all series of the universe. Missing and refused partitions
    are counted from the first stored one to the last that is over, or to the last day of a delisted symbol.
    """
    from binance_assets.cli.progress import Display

    settings = read_settings(os.environ)
    chosen = [series_named(name) for name in names]
    universe = read_universe(settings.existing_universe())
    chosen = chosen or universe.all_series
    with Display("Dagster"):
        statuses = _statuses(settings, chosen, universe.ended)
    from binance_assets.cli.output import print_absent_lake, print_statuses

    print_statuses(statuses, as_json)
    if not chosen:
        click.echo(f"{settings.universe} tracks no series yet; see binance-assets track --help", err=True)
        return
    from binance_assets.storage.lake import Lake

    lake = Lake(settings.lake)
    if not lake.exists:
        print_absent_lake(settings.lake, sum(status["missing"] for status in statuses.values()))
    elif names:
        _print_hints(lake, [series for series in chosen if not statuses[str(series)]["partitions"]], universe)


def _print_hints(lake: Lake, empty: Sequence[Series], universe: Universe) -> None:
    """Print of which series the lake has nothing, and which may be meant instead."""
    from binance_assets.api.reading import series_hint

    for series in empty:
        hint = series_hint(lake, series, universe.all_series)
        click.echo(f"{series}: no partitions in the lake{hint}", err=True)


def _statuses(settings: Settings, chosen: list[Series], ended: Mapping[Series, dt.date]) -> dict[str, Status]:
    """Return the status of each series with the keys that ``--json`` prints."""
    with phase("loading Dagster"):
        from binance_assets.cli.output import status_of
        from binance_assets.orchestration.status import Absent, absent_partitions, last_runs
        from binance_assets.storage.coverage import coverages_of
        from binance_assets.storage.lake import Lake

    lake, today = Lake(settings.lake), dt.datetime.now(dt.UTC).date()
    statuses: dict[str, Status] = {}
    with ExitStack() as stack:
        with phase("asking Dagster which partitions were refused"):
            instance = existing_instance(stack)
            absent = absent_partitions(instance, lake, chosen) if instance else Absent()
            runs = last_runs(instance, chosen) if instance else {}
        with phase("reading the index of the lake"):
            for market, members in by_market(chosen).items():
                index = lake.file_index(market, members)
                for coverage in coverages_of(index, members, today, absent.unwritten, ended, absent.lost):
                    statuses[str(coverage.series)] = status_of(coverage, runs.get(coverage.series))
    return {str(member): statuses[str(member)] for member in chosen}


def existing_instance(stack: ExitStack) -> dg.DagsterInstance | None:
    """Open the Dagster instance until the stack closes; None if there is none yet."""
    from binance_assets.orchestration.instance import has_instance, open_instance

    if not has_instance(Path.cwd(), os.environ):
        return None
    return stack.enter_context(open_instance(Path.cwd(), os.environ))


@click.command("show", short_help="Show one day: its verdict, its source, and its candles.")
@one_series_argument
@click.argument("day", metavar="DAY", type=DateType())
@click.option("--rows", type=click.IntRange(0, 1_000), default=3, show_default=True, help="Candles at each end.")
@json_option
def show_command(name: str, day: dt.date, rows: int, as_json: bool) -> None:
    """Show one partition: its verdict, where its candles came from, and the first and the last of them.

    SERIES is written like spot/BTCUSDT/1m, and DAY is the first day of the partition. Of a partition that is not in the
    lake, the reason of its last refusal is shown, and the exit code is 1.
    """
    from binance_assets.cli.progress import Display

    settings, series = read_settings(os.environ), series_named(name)
    check_key(series, day)
    value: StoredDay | AbsentDay
    ends: Tail | None
    with Display(), phase("reading the lake"):
        from binance_assets.model.partitions import partition_for_key
        from binance_assets.storage.lake import Lake

        lake, partition = Lake(settings.lake), partition_for_key(day.isoformat(), series.interval)
        stored = lake.stored(series, partition)
        if stored is None:
            value, ends = _refused(lake, series, partition), None
        else:
            value, ends = _shown(lake.root, series, partition, stored), _ends(lake.read(series, [partition]), rows)
    from binance_assets.cli.output import print_partition

    print_partition(value, ends, as_json)
    if stored is None:
        sys.exit(INCOMPLETE)


def _ends(candles: Any, rows: int) -> Tail:
    """Return the first and the last candles of a partition, without an overlap."""
    return candles.head(rows), candles.tail(min(rows, max(0, candles.height - rows)))


def _shown(root: LakePath, series: Series, partition: Partition, stored: StoredPartition) -> StoredDay:
    from binance_assets.model.bucket_paths import below
    from binance_assets.model.outside import MESSAGE, printable

    def text(value: str | None) -> str | None:
        return None if value is None else printable(value, MESSAGE)

    return {
        "series": str(series),
        "day": partition.key,
        "stored": True,
        "verdict": stored.verdict,
        "reason": text(stored.note) or "",
        "missing": stored.missing,
        "provenance": {
            "source": text(stored.source),
            "archive_file": text(stored.archive_file),
            "archive_sha256": text(stored.archive_sha256),
            "archive_modified": text(stored.archive_modified),
            "derived_from": text(stored.derived_from),
            "accepted_by": text(stored.accepted_by),
            "accepted_because": text(stored.accepted_because),
            "version": text(stored.version),
        },
        "file": str(below(stored.path, root)),
        "content_hash": text(stored.content_hash),
        "rows": stored.rows,
        "bytes": stored.size,
    }


def _why_missing(lake: Lake, series: Series, partition: Partition) -> str:
    """Return why a partition is not there that no run has refused, and how to get it."""
    from binance_assets.api.reading import series_hint, way_out
    from binance_assets.model.partitions import last_finished_end, next_partition_first_day
    from binance_assets.model.timestamps import to_date, to_ms

    day = to_date(partition.start)
    if partition.start >= to_ms(last_finished_end(to_ms(dt.datetime.now(dt.UTC).date()), series.interval)):
        return "it is not over yet"
    hint = "" if lake.partitions(series) else series_hint(lake, series)
    following = next_partition_first_day(day, series.interval)
    return f"it is not in the lake, and no run has refused it{hint}; {way_out(series, day, following)}"


def _refused(lake: Lake, series: Series, partition: Partition) -> AbsentDay:
    """Return what Dagster knows of a partition that is not in the lake."""
    with phase("loading Dagster"):
        from binance_assets.orchestration.gaps import Gap
        from binance_assets.orchestration.status import last_refusal

    with ExitStack() as stack:
        instance = existing_instance(stack)
        refusal = instance and last_refusal(instance, series, partition)
    gap = refusal or Gap(partition.key, "missing", "", _why_missing(lake, series, partition))
    return {
        "series": str(series),
        "day": gap.key,
        "stored": False,
        "verdict": gap.verdict or "missing",
        "missing": gap.missing,
        "reason": gap.reason,
    }
