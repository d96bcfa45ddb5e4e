"""The commands that validate partitions again: ``verify`` what the lake has, ``accept`` what was refused."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from getpass import getuser
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from binance_assets.cli.exit_codes import INCOMPLETE, CommandFailed
from binance_assets.cli.options import (
    DateRangeType,
    DateType,
    WordType,
    check_key,
    json_option,
    one_series_argument,
    series_argument,
    series_named,
)
from binance_assets.model.outside import MESSAGE, printable
from binance_assets.model.series import Series
from binance_assets.settings import ConfigurationError, Settings, read_settings
from binance_assets.storage.universe import Universe, read_universe, sources_of
from binance_assets.waiting import phase

if TYPE_CHECKING:
    import datetime as dt

    from binance_assets.ingest.override import Override
    from binance_assets.ingest.verify import Finding
    from binance_assets.model.partitions import Partition
    from binance_assets.storage.lake import Lake


@click.command("verify")
@series_argument
@click.option("--start", type=DateType(), help="First partition.  [default: the first in the lake]")
@click.option("--end", type=DateType(), help="Day after the last partition.  [default: up to the last in the lake]")
@click.option(
    "--against",
    type=WordType(["rest", "archive"]),
    help="Compare all partitions with this source.  [default: a sample, with the source that it did not come from]",
)
@click.option(
    "--deep",
    is_flag=True,
    help="Compare all partitions with the other source, and with the exchange's own coarser candles.",
)
@json_option
def verify_command(
    names: tuple[str, ...],
    start: dt.date | None,
    end: dt.date | None,
    against: Literal["rest", "archive"] | None,
    deep: bool,
    as_json: bool,
) -> None:
    """Validate again what is in the lake.

    That includes the files, the schema, the grid, the control totals, and a comparison with the other source. SERIES is
    written like spot/BTCUSDT/1m; the default is all series of the universe. A derived series is derived again from its
    base series and compared. The page Verification of the documentation lists what each level finds.
    """
    settings = read_settings(os.environ)
    named = [series_named(name) for name in names]
    universe = read_universe(settings.existing_universe())
    derived, tracked = {entry.series: entry for entry in universe.derived}, universe.all_series
    chosen = named or [*universe.series, *derived]

    from binance_assets.cli.progress import Display

    findings: list[Finding] = []
    with Display() as display:
        with phase("reading the index of the lake"):
            from binance_assets.api.reading import series_hint
            from binance_assets.cli.output import print_verified
            from binance_assets.ingest.verify import verify_derived
            from binance_assets.storage.lake import Lake

            lake = Lake(settings.lake)
            stored = {series: partitions for series in chosen if (partitions := lake.partitions(series, start, end))}
            others = _other_verdicts(lake, stored)
        total = sum(len(partitions) for partitions in stored.values())
        display.begin("verifying", total)
        for series, partitions in stored.items():
            if series in derived:
                findings += verify_derived(lake, derived[series], partitions, display.advance)
            else:
                findings += _verify_fetched(lake, settings, series, partitions, against, display.advance, deep)
        absent = [series for series in chosen if series not in stored]
        with phase("looking for series of similar names"):
            hints = [f"{series}: no partitions in the lake{series_hint(lake, series, tracked)}" for series in absent]
    for hint in hints:
        click.echo(hint, err=True)
    if as_json:
        print_verified(stored, absent, findings)
    lacks_named = bool(names and absent)
    if stored or not lacks_named:
        _report(findings, f"{total:,} partitions of {len(stored)} series", others, as_json)
    if findings or lacks_named:
        sys.exit(INCOMPLETE)


def _report(findings: Sequence[Finding], verified: str, others: str, as_json: bool) -> None:
    """Print the findings, or that there are none; with ``--json``, only what is not in it."""
    from binance_assets.cli.output import print_findings

    if not findings:
        if not as_json:
            click.echo(f"{verified} are as they should be{f' ({others})' if others else ''}")
        return
    if not as_json:
        print_findings(findings)
    if others:
        click.echo(f"not complete, by their stored verdicts: {others}", err=True)


def _other_verdicts(lake: Lake, partitions: Mapping[Series, Sequence[Partition]]) -> str:
    """Return how many of the partitions are stored with a verdict other than ``complete``; empty for none."""
    from binance_assets.model.results import format_verdicts

    entries = (entry for item in partitions.items() for entry in lake.stored_among(*item).values())
    return format_verdicts(Counter(entry.verdict for entry in entries))


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
        lake.check_venue(exchange.venue, exchange.hosts)
        return list(verify(lake, exchange, series, partitions, against, settings.strict, advance, deep))
    except ExchangeError as error:
        raise CommandFailed(f"{series} cannot be verified now: {error}") from None
    finally:
        exchange.close()


@click.command("accept")
@one_series_argument
@click.argument("days", metavar="START[..END]", type=DateRangeType())
@click.option("--reason", required=True, help="Why the partitions are accepted; recorded in their file.")
def accept_command(name: str, days: tuple[dt.date, dt.date], reason: str) -> None:
    """Write refused partitions as the exchange has them.

    SERIES is written like spot/BTCUSDT/1m. START and END are the first days of partitions, both included:
    2024-01-03..2024-01-05 is three days. The partitions are first fetched once more; of a range, only those that the
    lake lacks. A verdict stays, and the file records who accepted the partition and why.

    What can be accepted: candles are lost; the totals differ; candles break a rule, such as a price of zero; or the
    candles of a symbol end, and nothing shows whether it is still traded. What cannot: a partition that is not over, or
    that could not be fetched.
    """
    settings, series = read_settings(os.environ), series_named(name)
    for day in days:
        check_key(series, day)
    reason = printable(reason, MESSAGE)  # the file keeps it, and every reader of the file shows it
    if not reason:
        raise ConfigurationError("--reason is empty; say why the partition is accepted")
    universe = read_universe(settings.existing_universe())
    if series.derived or str(series) in universe.derived_names:
        raise ConfigurationError(f"{series} is derived; accept the partition of the series that it is derived from")

    from binance_assets.cli.progress import Display

    with Display("Dagster"):
        outcomes = _accept(settings, universe, series, days, reason)
    if not outcomes:
        click.echo(f"{series}: all partitions of this range are in the lake; name a single one to fetch it again")
    elif not _print_overrides(series, outcomes):
        sys.exit(INCOMPLETE)


def _accept(
    settings: Settings, universe: Universe, series: Series, days: tuple[dt.date, dt.date], reason: str
) -> Sequence[Override]:
    """Accept the partitions, and let Dagster show it; return what became of each, nothing if the lake has them all."""
    with phase("loading Dagster"):
        from binance_assets.exchange.errors import ExchangeError
        from binance_assets.exchange.session import Exchange
        from binance_assets.ingest.options import DownloadOptions
        from binance_assets.ingest.override import override
        from binance_assets.orchestration.checks import refresh_check
        from binance_assets.orchestration.instance import open_instance
        from binance_assets.orchestration.runs import report_present
        from binance_assets.storage.lake import Lake

    lake = Lake(settings.lake)
    partitions = _partitions_to_accept(lake, series, *days)
    if not partitions:
        return ()
    source = sources_of([series], universe, settings, None)[series]
    options = DownloadOptions(source, settings.strict, listing_cache=lake)
    exchange = Exchange(series.market, settings)
    try:
        with phase("recording the partitions with Dagster"), open_instance(Path.cwd(), os.environ) as instance:
            with phase(f"fetching {series} once more"):
                outcomes = override(lake, exchange, series, partitions, options, _user(), reason)
            present = [outcome.partition for outcome in outcomes if outcome.stored is not None]
            report_present(instance, lake, series, present, again=True)
            refresh_check(instance, lake, series)
            return outcomes
    except ExchangeError as error:
        raise CommandFailed(str(error)) from None
    finally:
        exchange.close()


def _partitions_to_accept(lake: Lake, series: Series, first: dt.date, last: dt.date) -> Sequence[Partition]:
    """Return the partitions from ``first`` to ``last``, both included; of several, those that the lake lacks.

    A person who names one partition may replace what is stored. A range is not meant to.
    """
    from binance_assets.model.partitions import next_partition_first_day, partitions_between

    partitions = partitions_between(first, next_partition_first_day(last, series.interval), series.interval)
    return partitions if len(partitions) == 1 else lake.missing(series, partitions)


def _print_overrides(series: Series, outcomes: Sequence[Override]) -> bool:
    """Print what became of each partition; return whether all are stored."""
    from binance_assets.model.results import format_verdicts

    written = [outcome for outcome in outcomes if outcome.stored is not None]
    plain = [outcome for outcome in written if outcome.accepted_by is None]
    for outcome in written:
        name = f"{series} {outcome.partition} is {outcome.verdict}"
        if outcome.accepted_by is not None:
            accepted_by, reason = printable(outcome.accepted_by), printable(outcome.reason, MESSAGE)
            click.echo(f"{name}, and accepted by {accepted_by}: {reason}")
        elif len(plain) == 1:
            click.echo(f"{name}; it was written, and nothing had to be accepted")
    if len(plain) > 1:
        others = format_verdicts(Counter(outcome.verdict for outcome in plain))
        more = f" ({others})" if others else ""
        click.echo(f"{series}: {len(plain):,} more partitions were written{more}, and nothing had to be accepted")
    for outcome in outcomes:
        if outcome.stored is None:
            reason = printable(outcome.reason, MESSAGE)
            message = f"{series} {outcome.partition} is {outcome.verdict} and cannot be accepted: {reason}"
            click.echo(f"error: {message}", err=True)
    return len(written) == len(outcomes)


def _user() -> str:
    try:
        return printable(getuser())  # from the environment
    except (ImportError, OSError, KeyError):  # a container may run as a number without a name; Windows lacks both
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"
