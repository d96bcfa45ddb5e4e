"""The commands that validate partitions again: ``verify`` what the lake has, ``accept`` what was refused."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from getpass import getuser
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from binance_assets.cli.exit_codes import INCOMPLETE, CommandFailed
from binance_assets.cli.options import DateType, series_named, sources_of
from binance_assets.model.series import Series
from binance_assets.settings import ConfigurationError, Settings, read_settings
from binance_assets.storage.universe import read_universe

if TYPE_CHECKING:
    import datetime as dt

    from binance_assets.ingest.verify import Finding
    from binance_assets.model.partitions import Partition
    from binance_assets.storage.lake import Lake


@click.command("verify")
@click.argument("names", metavar="[SERIES]...", nargs=-1)
@click.option("--start", type=DateType(), help="First partition.  [default: the first in the lake]")
@click.option("--end", type=DateType(), help="Day after the last partition.  [default: up to the last in the lake]")
@click.option(
    "--against",
    type=click.Choice(["rest", "archive"]),
    help="Compare all partitions with this source.  [default: a sample, with the source that it did not come from]",
)
@click.option(
    "--deep",
    is_flag=True,
    help="Compare all partitions with the other source, and with the exchange's own coarser candles.",
)
def verify_command(
    names: tuple[str, ...],
    start: dt.date | None,
    end: dt.date | None,
    against: Literal["rest", "archive"] | None,
    deep: bool,
) -> None:
    """Validate again what is in the lake.

    That includes the files, the schema, the grid, the control totals, and a comparison with the other source. SERIES is
    written like spot/BTCUSDT/1m; the default is all series of the universe. A derived series is derived again from its
    base series and compared. docs/verification.md says what each level finds.
    """
    from binance_assets.cli.output import print_findings
    from binance_assets.cli.progress import progress_bar
    from binance_assets.ingest.verify import verify_derived
    from binance_assets.storage.lake import Lake

    settings = read_settings(os.environ)
    lake = Lake(settings.lake)
    universe = read_universe(settings.universe)
    derived = {entry.series: entry for entry in universe.derived}
    chosen = [series_named(name) for name in names] or [*universe.series, *derived]
    stored = {series: partitions for series in chosen if (partitions := lake.partitions(series, start, end))}
    total = sum(len(partitions) for partitions in stored.values())
    findings: list[Finding] = []
    with progress_bar("verifying", total) as advance:
        for series, partitions in stored.items():
            if series in derived:
                findings += verify_derived(lake, derived[series], partitions, advance)
            else:
                findings += _verify_fetched(lake, settings, series, partitions, against, advance, deep)
    absent = [series for series in chosen if series not in stored]
    for series in absent:
        click.echo(f"{series}: no partitions in the lake", err=True)
    if names and absent:
        sys.exit(INCOMPLETE)
    if findings:
        print_findings(findings)
        sys.exit(INCOMPLETE)
    click.echo(f"{total:,} partitions of {len(stored)} series are as they should be")


def _verify_fetched(
    lake: Lake,
    settings: Settings,
    series: Series,
    partitions: Sequence[Partition],
    against: Literal["rest", "archive"] | None,
    advance: Callable[[int], None],
    deep: bool,
) -> list[Finding]:
    """Return the differences between a fetched series and the exchange."""
    from binance_assets.exchange.errors import ExchangeError
    from binance_assets.exchange.session import Exchange
    from binance_assets.ingest.verify import verify

    exchange = Exchange(series.market, settings)
    try:
        lake.check_venue(exchange.venue)
        return list(verify(lake, exchange, series, partitions, against, advance, deep))
    except ExchangeError as error:
        raise CommandFailed(f"{series} cannot be verified now: {error}") from None
    finally:
        exchange.close()


@click.command("accept")
@click.argument("name", metavar="SERIES")
@click.argument("day", type=DateType())
@click.option("--reason", required=True, help="Why the partition is accepted; recorded in its file.")
def accept_command(name: str, day: dt.date, reason: str) -> None:
    """Write a refused partition although candles are lost.

    SERIES is written like spot/BTCUSDT/1m, and DAY is the first day of the partition. The partition is first fetched
    once more. Its verdict stays, and its file records who accepted it and why.
    """
    from binance_assets.exchange.errors import ExchangeError
    from binance_assets.exchange.session import Exchange
    from binance_assets.ingest.options import DownloadOptions
    from binance_assets.ingest.override import override
    from binance_assets.model.partitions import partition_for_key
    from binance_assets.orchestration.instance import open_instance
    from binance_assets.orchestration.runs import report_present
    from binance_assets.storage.lake import Lake

    settings, series = read_settings(os.environ), series_named(name)
    if not reason.strip():
        raise ConfigurationError("--reason is empty; say why the partition is accepted")
    universe = read_universe(settings.universe)
    if series.derived or str(series) in universe.derived_names:
        raise ConfigurationError(f"{series} is derived; accept the partition of the series that it is derived from")
    _check_key(series, day)
    source = sources_of([series], universe, settings, None)[series]
    exchange, partition = Exchange(series.market, settings), partition_for_key(day.isoformat(), series.interval)
    try:
        with open_instance(Path.cwd(), os.environ) as instance:
            lake = Lake(settings.lake)
            options = DownloadOptions(source, settings.strict, listing_cache=lake)
            result, stored = override(lake, exchange, series, partition, options, _user(), reason)
            if stored is not None:
                report_present(instance, series, [(partition, stored)], again=True)
    except ExchangeError as error:
        raise CommandFailed(str(error)) from None
    finally:
        exchange.close()
    if stored is None:
        raise CommandFailed(f"{series} {partition} is {result.verdict} and cannot be accepted: {result.reason}")
    if result.accepted_by:
        click.echo(f"{series} {partition} is {result.verdict}, and accepted by {result.accepted_by}: {result.reason}")
    else:
        click.echo(f"{series} {partition} is {result.verdict}; it was written, and nothing had to be accepted")


def _check_key(series: Series, day: dt.date) -> None:
    from binance_assets.model.partitions import FIRST_DAY, partition_first_day

    if day < FIRST_DAY or day != partition_first_day(day, series.interval):
        raise ConfigurationError(
            f"{day} is not a partition of {series}; partitions begin on {FIRST_DAY}, and those of 3d, 1w, and 1M are "
            "months, so give the first of a month"
        )


def _user() -> str:
    try:
        return getuser()
    except (ImportError, OSError, KeyError):  # a container may run as a number without a name; Windows lacks both
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"
