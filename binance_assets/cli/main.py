"""The command line ``binance-assets``.

Exit codes: 0 every period asked for is there; 1 not all of them; 2 bad input or configuration, with one line that
names the cause and the way out; 130 interrupted.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from getpass import getuser
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Literal, NoReturn

import click
from dotenv import dotenv_values

from binance_assets import __version__
from binance_assets.model.intervals import Interval, parse_interval
from binance_assets.model.markets import MARKETS, Market, parse_market
from binance_assets.model.series import Series, parse_any_series
from binance_assets.settings import ConfigurationError, Settings, Source, read_settings
from binance_assets.storage.universe import Universe, read_universe
from binance_assets.storage.universe_editor import track, untrack

if TYPE_CHECKING:
    import datetime as dt

    import dagster as dg

    from binance_assets.ingest.request import DownloadPlan, DownloadRequest
    from binance_assets.storage.lake import Lake

NOT_ALL, BAD_INPUT, INTERRUPTED = 1, 2, 130


class _MarketType(click.ParamType[Market]):
    name = "market"

    def convert(self, value: str | Market, param: click.Parameter | None, ctx: click.Context | None) -> Market:
        try:
            return value if isinstance(value, Market) else parse_market(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _IntervalType(click.ParamType[Interval]):
    name = "interval"

    def convert(self, value: str | Interval, param: click.Parameter | None, ctx: click.Context | None) -> Interval:
        try:
            return value if isinstance(value, Interval) else parse_interval(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _DayType(click.ParamType["dt.date"]):
    name = "YYYY-MM-DD"

    def convert(self, value: str | dt.date, param: click.Parameter | None, ctx: click.Context | None) -> dt.date:
        import datetime as dt

        try:
            return value if isinstance(value, dt.date) else dt.date.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not a day; write it like 2024-01-31", param, ctx)


_symbols = click.argument("symbols", metavar="SYMBOL...", nargs=-1, required=True)


_market = click.option("--market", type=_MarketType(), required=True, help=f"One of {', '.join(MARKETS)}.")


_intervals = click.option(
    "--interval", "intervals", type=_IntervalType(), multiple=True, required=True, help="1s to 1M; may be repeated."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
@click.option("--debug", is_flag=True, help="Show where an unforeseen error comes from.")
def cli(debug: bool) -> None:
    """Binance candles you can trust, as Dagster assets."""


@cli.command()
@_symbols
@_market
@_intervals
@click.option("--start", type=_DayType(), help="First day; for 3d, 1w, 1M the first of a month.  [first candle]")
@click.option("--end", type=_DayType(), help="Day after the last one, UTC.  [today]")
@click.option("--source", type=click.Choice(["rest", "archive", "auto"]), help="Where candles come from.")
@click.option("--refresh", is_flag=True, help="Fetch again what is already there.")
@click.option("--dry-run", is_flag=True, help="Say what would be fetched and at what weight; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def download(
    symbols: tuple[str, ...],
    market: Market,
    intervals: tuple[Interval, ...],
    start: dt.date | None,
    end: dt.date | None,
    source: Source | None,
    refresh: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Fetch candles of SYMBOL... into the lake, as a Dagster run that the UI shows.

    Days that are already there are skipped. A series that is not tracked yet is added to the universe.
    """
    from binance_assets.ingest.request import BadRequest, DownloadRequest, check_dates
    from binance_assets.orchestration.instance import open_instance
    from binance_assets.storage.lake import Lake

    settings = _settings()
    wanted = tuple(dict.fromkeys(_series(symbols, market, intervals)))
    request = DownloadRequest(wanted, start, end, refresh)
    check_dates(request)
    universe = read_universe(settings.universe)
    sources = _sources(wanted, universe, settings, source)
    for one in wanted:
        if str(one) in universe.derived_names:
            raise BadRequest(f"{one} is derived by {settings.universe}; remove it there to fetch it")
    lake = Lake(settings.lake)
    plans, venue = _survey(request, settings, lake, universe, sources)
    if dry_run:
        _print_dry_run(plans, sources, as_json)
        return
    with open_instance(Path.cwd(), os.environ) as instance:
        if venue:
            lake.prepare(venue)
        _track(settings, wanted)
        complete = _run(instance, settings, source, lake, plans, refresh, as_json)
    if not complete:
        sys.exit(NOT_ALL)


def _sources(
    wanted: Iterable[Series], universe: Universe, settings: Settings, source: Source | None
) -> dict[Series, Source]:
    """Where each series comes from: as the command says, else as the universe does, else as the settings do."""
    named = {tracked.series: tracked.source for tracked in universe.tracked}
    return {one: source or named.get(one) or settings.source for one in wanted}


def _survey(
    request: DownloadRequest, settings: Settings, lake: Lake, universe: Universe, sources: Mapping[Series, Source]
) -> tuple[list[DownloadPlan], str]:
    """What is lacking; and, where anything is, the origin of what would be fetched."""
    from binance_assets.exchange.errors import ExchangeError, UnknownSymbol
    from binance_assets.exchange.session import Exchange
    from binance_assets.ingest.request import BadRequest, plan_request

    exchange = Exchange(request.market, settings)
    try:
        alone: Source = "archive" if set(sources.values()) == {"archive"} else "auto"
        plans = plan_request(request, lake, exchange, universe.series, alone)
        return plans, exchange.venue if any(download_plan.missing for download_plan in plans) else ""
    except UnknownSymbol as error:
        raise BadRequest(str(error)) from None
    except ExchangeError as error:
        _fail(str(error), NOT_ALL)
    finally:
        exchange.close()


def _track(settings: Settings, wanted: Sequence[Series]) -> None:
    new = track(settings.universe, list(wanted))
    if new:
        named = ", ".join(str(one) for one in new[:3]) + (f" and {len(new) - 3} more" if len(new) > 3 else "")
        message = f"{named} {'are' if len(new) > 1 else 'is'} now tracked in {settings.universe}"
        click.echo(f"{message}; a running UI shows it once the code location is reloaded", err=True)


def _print_dry_run(plans: list[DownloadPlan], sources: Mapping[Series, Source], as_json: bool) -> None:
    from binance_assets.cli.output import print_plan

    if not as_json:
        print_plan(plans, sources)
        return
    takes = {download_plan.series: download_plan.forecast(sources[download_plan.series]) for download_plan in plans}
    printed = {
        str(download_plan.series): {
            "days_asked": len(download_plan.asked),
            "days_present": len(download_plan.present),
            "days_missing": [partition.key for partition in download_plan.missing],
            "requests": takes[download_plan.series].requests,
            "weight": takes[download_plan.series].weight,
            "files": takes[download_plan.series].files,
        }
        for download_plan in plans
    }
    click.echo(json.dumps(printed, indent=2))


def _run(
    instance: dg.DagsterInstance,
    settings: Settings,
    source: Source | None,
    lake: Lake,
    plans: list[DownloadPlan],
    refresh: bool,
    as_json: bool,
) -> bool:
    """Fetch what the backlogs lack and say what became of it; True where all of it is there now."""
    from binance_assets.cli.output import ProgressView, outcome, print_outcomes
    from binance_assets.definitions import definitions_for
    from binance_assets.orchestration.backfill import fetch_missing

    with ProgressView(sum(len(download_plan.missing) for download_plan in plans)) as view:
        definitions = definitions_for(settings, [download_plan.series for download_plan in plans], source, view)
        failures = fetch_missing(instance, definitions, plans, refresh, view)
    outcomes, complete = {}, not failures
    for download_plan in plans:
        present = sum(1 for partition in download_plan.asked if lake.stored(download_plan.series, partition))
        outcomes[str(download_plan.series)] = outcome(download_plan, present, view)
        complete &= present == len(download_plan.asked) and not view.refused.get(download_plan.series)
    if as_json:
        click.echo(json.dumps(outcomes, indent=2, ensure_ascii=False))
    else:
        print_outcomes(outcomes, view)
    for failure in failures:
        click.echo(f"error: {failure}", err=True)
    return complete


@cli.command("track")
@_symbols
@_market
@_intervals
def track_command(symbols: tuple[str, ...], market: Market, intervals: tuple[Interval, ...]) -> None:
    """Add series to the universe, so that the UI shows them and the schedules fetch them."""
    settings = _settings()
    wanted = list(_series(symbols, market, intervals))
    new = track(settings.universe, wanted)
    for one in wanted:
        click.echo(f"{one} {'is now tracked' if one in new else 'was tracked already'}")
    if new:
        click.echo("a running UI shows it once the code location is reloaded", err=True)


@cli.command("untrack")
@_symbols
@_market
@_intervals
def untrack_command(symbols: tuple[str, ...], market: Market, intervals: tuple[Interval, ...]) -> None:
    """Remove series from the universe; their files stay in the lake."""
    settings = _settings()
    wanted = list(_series(symbols, market, intervals))
    gone = untrack(settings.universe, wanted)
    for one in wanted:
        click.echo(f"{one} {'is no longer tracked; its files stay' if one in gone else 'was not tracked'}")
    if not gone:
        sys.exit(NOT_ALL)


@cli.command("series")
def series_command() -> None:
    """List the series of the universe and how many of their partitions are in the lake."""
    from binance_assets.storage.lake import Lake

    settings = _settings()
    universe = read_universe(settings.universe)
    lake = Lake(settings.lake)
    sources = {one.series: f"  derived from {one.source.interval}" for one in universe.derived}
    for one in (*universe.series, *sources):
        keys = lake.keys(one)
        there = f"{len(keys):>6} partitions, {keys[0]} to {keys[-1]}" if keys else "nothing yet"
        click.echo(f"{one!s:<32} {there}{sources.get(one, '')}")
    if not universe.tracked:
        click.echo(f"{settings.universe} tracks nothing yet; see binance-assets track --help", err=True)


@cli.command()
@click.argument("names", metavar="[SERIES]...", nargs=-1)
@click.option("--start", type=_DayType(), help="First partition.  [the first in the lake]")
@click.option("--end", type=_DayType(), help="Day after the last one.  [the last in the lake]")
@click.option(
    "--against", type=click.Choice(["rest", "archive"]), help="Compare every candle with this source.  [a sample]"
)
def verify(
    names: tuple[str, ...], start: dt.date | None, end: dt.date | None, against: Literal["rest", "archive"] | None
) -> None:
    """Look again at what is in the lake: files, schema, grid, sums, and the other source.

    SERIES is written like spot/BTCUSDT/1m; without any, all series of the universe are looked at. A derived series is
    made anew from the one that it comes from.
    """
    from binance_assets.cli.output import print_findings, progressing
    from binance_assets.exchange.errors import ExchangeError
    from binance_assets.exchange.session import Exchange
    from binance_assets.ingest.verify import Finding, verify_derived
    from binance_assets.ingest.verify import verify as verify_series
    from binance_assets.storage.lake import Lake

    settings = _settings()
    lake = Lake(settings.lake)
    universe = read_universe(settings.universe)
    derived = {one.series: one for one in universe.derived}
    chosen = [_series_named(name) for name in names] or [*universe.series, *derived]
    asked = {one: partitions for one in chosen if (partitions := lake.partitions(one, start, end))}
    findings: list[Finding] = []
    with progressing("looking again", sum(map(len, asked.values()))) as done:
        for one, partitions in asked.items():
            if one in derived:
                findings += verify_derived(lake, derived[one], partitions, done)
                continue
            exchange = Exchange(one.market, settings)
            try:
                lake.check_venue(exchange.venue)
                findings += verify_series(lake, exchange, one, partitions, against, done)
            except ExchangeError as error:
                _fail(f"{one}: nothing can be proved now: {error}", NOT_ALL)
            finally:
                exchange.close()
    absent = [one for one in chosen if one not in asked]
    for one in absent:
        click.echo(f"{one}: nothing of it is in the lake", err=True)
    if names and absent:
        sys.exit(NOT_ALL)
    if findings:
        print_findings(findings)
        sys.exit(NOT_ALL)
    click.echo(f"{sum(map(len, asked.values())):,} partitions of {len(asked)} series are as they should be")


@cli.command()
@click.argument("name", metavar="SERIES")
@click.argument("day", type=_DayType())
@click.option("--reason", required=True, help="Why it is to be taken as it is; kept in the file.")
def accept(name: str, day: dt.date, reason: str) -> None:
    """Write DAY of SERIES (like spot/BTCUSDT/1m) although candles of it are lost.

    It is fetched once more before. Its verdict stays what it is, and its file says who accepted it, and why.
    """
    from binance_assets.exchange.errors import ExchangeError
    from binance_assets.exchange.session import Exchange
    from binance_assets.ingest.options import DownloadOptions
    from binance_assets.ingest.override import override
    from binance_assets.model.partitions import FIRST_DAY, partition_first_day, partition_for_key
    from binance_assets.orchestration.instance import open_instance
    from binance_assets.orchestration.runs import report_present
    from binance_assets.storage.lake import Lake

    settings, series = _settings(), _series_named(name)
    if not reason.strip():
        raise ConfigurationError("--reason: say why, for those who come later")
    if series.derived or str(series) in read_universe(settings.universe).derived_names:
        raise ConfigurationError(f"{series} is derived; accept the day of the series that it comes from")
    if day < FIRST_DAY or day != partition_first_day(day, series.interval):
        raise ConfigurationError(f"{day} is no partition of {series}; 3d, 1w and 1M are kept by months")
    source = _sources([series], read_universe(settings.universe), settings, None)[series]
    exchange, partition = Exchange(series.market, settings), partition_for_key(day.isoformat(), series.interval)
    try:
        with open_instance(Path.cwd(), os.environ) as instance:
            lake = Lake(settings.lake)
            options = DownloadOptions(source, settings.strict, listing_cache=lake)
            result, stored = override(lake, exchange, series, partition, options, _user(), reason)
            if stored is not None:
                report_present(instance, series, [(partition, stored)], again=True)
    except ExchangeError as error:
        _fail(str(error), NOT_ALL)
    finally:
        exchange.close()
    if stored is None:
        _fail(f"{series} {partition} is {result.verdict} and cannot be accepted: {result.reason}", NOT_ALL)
    if result.accepted_by:
        click.echo(f"{series} {partition} is {result.verdict}, and accepted by {result.accepted_by}: {result.reason}")
    else:
        click.echo(f"{series} {partition} is {result.verdict}; it was written, and nothing had to be accepted")


def _user() -> str:
    try:
        return getuser()
    except (OSError, KeyError):  # a container may run as a number without a name
        return str(os.getuid())


def _series_named(name: str) -> Series:
    try:
        return parse_any_series(name)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


@cli.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8900, show_default=True, help="Port on 127.0.0.1.")
@click.option("--rtt-ms", type=click.FloatRange(min=0), default=0.0, help="Round-trip time of every answer.")
@click.option("--jitter-ms", type=click.FloatRange(min=0), default=0.0, help="Random time on top of it.")
@click.option(
    "--replay", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of recorded candles."
)
def sandbox(port: int, rtt_ms: float, jitter_ms: float, replay: Path | None) -> None:
    """Serve a stand-in for Binance with synthetic candles on this machine, until interrupted."""
    from binance_assets.sandbox import SandboxOptions, serve

    try:
        serve(SandboxOptions(rtt_ms=rtt_ms, jitter_ms=jitter_ms, replay=replay), port)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the sandbox cannot serve on port {port}: {error}") from None


@cli.command()
@click.option("--ui", is_flag=True, help="Open Dagster on it afterwards, until interrupted.")
def demo(ui: bool) -> None:
    """Download a month of three series from the sandbox into ./demo, through Dagster, and show where to look."""
    from binance_assets.cli.demo import run_demo

    sys.exit(run_demo(Path.cwd(), with_ui=ui))


def _settings() -> Settings:
    return read_settings(os.environ)


def _series(symbols: tuple[str, ...], market: Market, intervals: tuple[Interval, ...]) -> Iterator[Series]:
    for symbol in symbols:
        for interval in intervals:
            try:
                yield Series(market, symbol.upper(), interval)
            except ValueError as error:
                raise ConfigurationError(str(error)) from None


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"error: {message}", err=True)
    sys.exit(code)


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line and exit with its code."""
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # which is how nohup asks to go on
        signal.signal(signal.SIGHUP, _interrupt)
    try:
        # As Dagster reads it: what .env says wins.
        os.environ.update({name: value for name, value in dotenv_values(".env").items() if value is not None})
        cli.main(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(BAD_INPUT)
    except click.ClickException as error:
        _fail(error.format_message(), BAD_INPUT)
    except ConfigurationError as error:
        _fail(str(error), BAD_INPUT)
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted; what was finished is kept, and the same command goes on from there", INTERRUPTED)
    except BrokenPipeError:
        os._exit(NOT_ALL)
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        first_line = (str(error).strip().splitlines() or [""])[0]
        _fail(f"unforeseen: {type(error).__name__}: {first_line} (--debug before the command shows more)", NOT_ALL)
