"""What commands print: tables for people, JSON for programs."""

from __future__ import annotations

import datetime as dt
import json
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import click
from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table

from binance_assets.cli.progress import Display
from binance_assets.model.outside import MESSAGE, printable
from binance_assets.model.results import (
    PartitionResult,
    format_spans,
    format_verdicts,
    group_by_reason,
    name_partitions,
    other_verdicts,
)
from binance_assets.model.series import Series
from binance_assets.model.timestamps import to_iso
from binance_assets.model.wording import name_some
from binance_assets.waiting import phase

if TYPE_CHECKING:
    import polars as pl

    from binance_assets.cli.json_output import Difference, Outcome, Plan, Status
    from binance_assets.ingest.request import DownloadPlan, Forecast
    from binance_assets.ingest.verify import Finding
    from binance_assets.model.bucket_paths import LakePath
    from binance_assets.model.partitions import Partition
    from binance_assets.orchestration.automations import Automation
    from binance_assets.orchestration.metrics import RunMetrics
    from binance_assets.orchestration.status import LastRun
    from binance_assets.storage.coverage import Coverage

    Tail: TypeAlias = tuple[pl.DataFrame, pl.DataFrame]

_NAMED_REASONS: Final = 10
_NAMED_SERIES: Final = 5
_FACT_NAMES: Final = {"stored": "in the lake"}
_WIDTH_WITHOUT_TERMINAL: Final = 160
# To lay out 2,000 rows takes a second. From this number on, progress is shown meanwhile.
_MANY_ROWS: Final = 500
_BETWEEN_COLUMNS: Final = 2
# Spaces that fill a line, before the code that ends bold. A narrow terminal would show them as empty lines.
_FILLING: Final = re.compile(r" +(\x1b\[0m|)$")


def build_table(texts: Sequence[str], numbers: Sequence[str] = (), wrapped: Sequence[str] = ()) -> Table:
    """Return an empty table without borders.

    Args:
        texts: Names of the first columns, aligned left.
        numbers: Names of the next columns, aligned right.
        wrapped: Names of the last columns, aligned left, with long text on several lines.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in texts:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    for name in wrapped:
        table.add_column(name, overflow="fold")
    return table


def print_table(table: Table, min_width: int = 0) -> None:
    """Print a table on standard output.

    Args:
        table: The table.
        min_width: Minimum width, also on a narrower terminal. A file or a pipe has room for every table.
    """
    width = Console().width if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL
    with ExitStack() as shown:
        if table.row_count >= _MANY_ROWS:
            shown.enter_context(Display())
            shown.enter_context(phase(f"laying out a table of {table.row_count:,} rows"))
        # Without markup, a cell is shown as it is: `[red]` and `:smile:` mean nothing.
        console = Console(width=max(min_width, width, _least_width(table)), markup=False, emoji=False)
        with console.capture() as printed:
            console.print(table)
    click.echo("".join(_FILLING.sub(r"\1", line) + "\n" for line in printed.get().splitlines()), nl=False)


def _least_width(table: Table) -> int:
    """Return the width at which no number and no name is cut off; a narrower terminal wraps the lines.

    Rich measures words, so it would cut off `3.6 kB`, and takes longer to measure a table than to print it.
    """
    return sum(map(_least_width_of, table.columns)) + _BETWEEN_COLUMNS * (len(table.columns) - 1)


def _least_width_of(column: Column) -> int:
    texts = map(str, [column.header, *column.cells])
    return max(cell_len(part) for text in texts for part in ([text] if column.no_wrap else ["", *text.split()]))


def print_json(value: Mapping[str, Any]) -> None:
    """Print a value as JSON on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_plans(plans: Sequence[DownloadPlan], forecasts: Sequence[Forecast], as_json: bool) -> None:
    """Print what would be fetched for each series, and what it costs, as a table or as JSON."""
    if as_json:
        pairs = zip(plans, forecasts, strict=True)
        print_json({str(plan.series): _plan_values(plan, forecast) for plan, forecast in pairs})
        return
    counts = ("requested", "present", "missing", "requests", "weight", "files")
    table = build_table(["series"], ["first", "last", *counts])
    for plan, forecast in zip(plans, forecasts, strict=True):
        days = (len(plan.requested), len(plan.present), len(plan.missing))
        first, last = (plan.requested[0].key, plan.requested[-1].key) if plan.requested else ("-", "-")
        costs = (forecast.requests, forecast.weight, forecast.files)
        table.add_row(str(plan.series), first, last, *(f"{count:,}" for count in (*days, *costs)))
    print_table(table)
    bounded = [plan.series for plan, forecast in zip(plans, forecasts, strict=True) if forecast.is_bound]
    if bounded:
        symbols = list(dict.fromkeys(series.symbol for series in bounded))
        its = "its" if len(symbols) == 1 else "their"
        click.echo(
            f"{name_some(bounded, _NAMED_SERIES)}: Binance's API does not serve {name_some(symbols, _NAMED_SERIES)} "
            f"here. {its.capitalize()} candles come from the archive, which is searched for {its} files: the requests "
            "above are the most that this can take",
            err=True,
        )


def _plan_values(plan: DownloadPlan, forecast: Forecast) -> Plan:
    """Return a plan with the keys that ``--dry-run --json`` prints."""
    return {
        "days_asked": len(plan.requested),
        "days_present": len(plan.present),
        "days_missing": [partition.key for partition in plan.missing],
        "requests": forecast.requests,
        "weight": forecast.weight,
        "files": forecast.files,
    }


def outcome_of(
    plan: DownloadPlan,
    present: Counter[str],
    refused: Sequence[PartitionResult],
    metrics: RunMetrics | None,
) -> Outcome:
    """Return the outcome of a series with the keys that ``--json`` prints.

    Args:
        plan: What was requested of the series.
        present: How many of the requested partitions are in the lake now, by verdict.
        refused: The partitions that were not written: refused ones, and those that are worse than what is stored.
        metrics: Metrics of the run; None if nothing had to be fetched.
    """
    return {
        "days_asked": len(plan.requested),
        "days_present": present.total(),
        "verdicts": other_verdicts(present),
        "refused": [
            {
                "day": result.partition.key,
                "verdict": result.verdict,
                "missing": [[to_iso(start), to_iso(end)] for start, end in result.missing],
                "reason": printable(result.reason, MESSAGE),
            }
            for result in refused
        ],
        "requests": metrics.requests if metrics else 0,
        "weight": metrics.weight if metrics else 0,
        "warmup": metrics.warmup if metrics else 0,
        "workers": metrics.workers if metrics else 0,
        "rtt_ms": metrics.rtt_ms if metrics else None,
        "rows": metrics.rows if metrics else 0,
        "seconds": round(metrics.seconds, 3) if metrics else 0.0,
        "waited": round(metrics.waited, 3) if metrics else 0.0,
    }


def print_outcomes(
    outcomes: Mapping[str, Outcome], refused: Mapping[Series, Sequence[PartitionResult]], as_json: bool
) -> None:
    """Print the outcome of each series: as JSON, or as a table and a line for each reason of refused partitions.

    The table counts verdicts other than ``complete``, if there are any.
    """
    if as_json:
        print_json(outcomes)
        return
    counts = ("requested", "present", "refused", "candles", "requests", "weight", "workers")
    others = {name: format_verdicts(outcome["verdicts"]) for name, outcome in outcomes.items()}
    wrapped = ["not complete"] if any(others.values()) else []
    table = build_table(["series"], [*counts, "round trip", "seconds", "waiting", "candles/s"], wrapped)
    for name, outcome in outcomes.items():
        days = (outcome["days_asked"], outcome["days_present"], len(outcome["refused"]), outcome["rows"])
        usage = (outcome["requests"], outcome["weight"], outcome["workers"])
        rtt = f"{outcome['rtt_ms']:.1f} ms" if outcome["rtt_ms"] is not None else "-"
        seconds = f"{outcome['seconds']:.1f}"
        speed = (rtt, seconds, f"{outcome['waited']:.1f}", candles_per_second(outcome))
        table.add_row(name, *(f"{count:,}" for count in (*days, *usage)), *speed, *([others[name]] if wrapped else []))
    print_table(table)
    for series, results in refused.items():
        _print_refused(series, results)


def candles_per_second(outcome: Outcome) -> str:
    """Return the speed of a download as text, from the values that ``--json`` prints."""
    return f"{outcome['rows'] / outcome['seconds']:,.0f}" if outcome["seconds"] else "-"


def _print_refused(series: Series, results: Sequence[PartitionResult]) -> None:
    groups = group_by_reason(results)
    for group in groups[:_NAMED_REASONS]:
        first, verb = group[0], "are" if len(group) > 1 else "is"
        reason = printable(first.reason, MESSAGE) or format_spans(first.missing)
        print(f"refused: {series} {name_partitions(group)} {verb} {first.verdict}: {reason}", file=sys.stderr)
    more = sum(len(group) for group in groups[_NAMED_REASONS:])
    if more > 0:
        print(f"refused: {series}: {more} more; --json lists them all", file=sys.stderr)


def print_findings(findings: Sequence[Finding]) -> None:
    """Print the differences that ``verify`` found, as a table."""
    table = build_table(["series", "partition"], wrapped=["what differs"])
    for finding in findings:
        table.add_row(str(finding.series), finding.partition.key, printable(finding.message, MESSAGE))
    print_table(table)


def print_verified(
    stored: Mapping[Series, Sequence[Partition]], absent: Sequence[Series], findings: Sequence[Finding]
) -> None:
    """Print the outcome of ``verify`` as JSON.

    Args:
        stored: The partitions that were verified.
        absent: The series of which the lake has no partitions.
        findings: What differs.
    """
    by_series: dict[Series, list[Difference]] = {member: [] for member in (*stored, *absent)}
    for finding in findings:
        entry: Difference = {"day": finding.partition.key, "difference": printable(finding.message, MESSAGE)}
        by_series[finding.series].append(entry)
    print_json(
        {
            str(member): {"days_verified": len(stored.get(member, ())), "differences": differences}
            for member, differences in by_series.items()
        }
    )


def print_series(held: Mapping[Series, tuple[int, dt.date, dt.date] | None]) -> None:
    """Print what the lake holds of each series (number of partitions, the first, the last) as JSON."""
    print_json(
        {
            str(series): {
                "partitions": stored[0] if stored else 0,
                "from": stored[1].isoformat() if stored else None,
                "to": stored[2].isoformat() if stored else None,
            }
            for series, stored in held.items()
        }
    )


def status_of(coverage: Coverage, run: LastRun | None) -> Status:
    """Return the status of a series with the keys that ``--json`` prints."""
    return {
        "from": coverage.first,
        "to": coverage.last,
        "partitions": sum(coverage.verdicts.values()),
        "verdicts": dict(sorted(coverage.verdicts.items())),
        "missing": coverage.missing,
        "refused": coverage.refused,
        "rows": coverage.rows,
        "bytes": coverage.size,
        "last_run": {
            "id": run.run_id,
            "status": run.status,
            "started": _iso(run.started),
            "ended": _iso(run.ended),
        }
        if run
        else None,
    }


def _iso(time: dt.datetime | None) -> str | None:
    return None if time is None else time.strftime("%Y-%m-%dT%H:%M:%SZ")


def print_statuses(statuses: Mapping[str, Status], as_json: bool) -> None:
    """Print the status of each series, as a table or as JSON."""
    if as_json:
        print_json(statuses)
        return
    counts = ("partitions", "missing", "refused", "candles", "size")
    table = build_table(["series", "from", "to"], counts, ["last run", "not complete"])
    for name, status in statuses.items():
        numbers = (status["partitions"], status["missing"], status["refused"], status["rows"])
        run, others = status["last_run"], format_verdicts(status["verdicts"])
        when = (
            f"{run['status'].lower()} {(run['ended'] or run['started'] or '')[:16].replace('T', ' ')}" if run else "-"
        )
        table.add_row(
            *(name, status["from"] or "-", status["to"] or "-", *(f"{number:,}" for number in numbers)),
            *(_size(status["bytes"]), when, others),
        )
    if statuses:
        print_table(table)


def print_absent_lake(lake: LakePath, lost: int) -> None:
    """Print that there is no lake, and whether there was one.

    Args:
        lake: The place of the lake, which does not exist.
        lost: How many partitions Dagster shows as materialized.
    """
    if not lost:
        click.echo(f"there is no lake at {lake} yet; BINANCE_ASSETS_LAKE names another place", err=True)
        return
    known = f"Dagster knows {lost:,} partitions of these series, which count as missing"
    click.echo(
        f"the lake {lake} is absent: {known}. If it was moved, name its place with BINANCE_ASSETS_LAKE", err=True
    )


def _size(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1_000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1_000
    return f"{number:.1f} TB"


def print_partition(value: Mapping[str, Any], ends: Tail | None, as_json: bool) -> None:
    """Print one partition: its facts and the candles at its ends, as tables or as JSON.

    Args:
        value: The facts, with the keys that ``--json`` prints.
        ends: The first and the last candles; None if the partition is not in the lake.
        as_json: Whether to print JSON.
    """
    if as_json:
        candles = {name: _records(frame) for name, frame in zip(("head", "tail"), ends or (), strict=False)}
        print_json({**value, "candles": candles} if ends else value)
        return
    table = build_table(["fact"], wrapped=["value"])
    for name, fact in ({**value, **value.get("provenance", {})}).items():
        if name != "provenance" and fact not in (None, "", []):
            table.add_row(_FACT_NAMES.get(name, name.replace("_", " ")), _fact(fact))
    print_table(table)
    if ends:
        head, tail = ends
        if head.height:
            click.echo()
            _print_candles(head, tail)


def _fact(fact: object) -> str:
    if isinstance(fact, list):
        return ", ".join(f"{start} to {end}" for start, end in fact)
    if isinstance(fact, bool):
        return "yes" if fact else "no"
    return f"{fact:,}" if isinstance(fact, int) else str(fact)


def _records(frame: pl.DataFrame) -> list[dict[str, Any]]:
    rows = frame.iter_rows(named=True)
    return [{name: _json_value(value) for name, value in row.items()} for row in rows]


def _json_value(value: object) -> object:
    return value.isoformat(timespec="milliseconds").replace("+00:00", "Z") if isinstance(value, dt.datetime) else value


def _print_candles(head: pl.DataFrame, tail: pl.DataFrame) -> None:
    names = [name for name in head.columns if name != "close_time"]
    table = build_table(names[:1], names[1:])
    for frame in (head, tail):
        for row in frame.select(names).iter_rows():
            opened, *numbers = row
            table.add_row(f"{opened:%Y-%m-%d %H:%M:%S}", *(f"{number:,.10g}" for number in numbers))
        if frame is head and tail.height:
            table.add_row("...")
    print_table(table)


def print_automations(automations: Sequence[Automation], as_json: bool) -> None:
    """Print schedules and sensors with their states, as a table or as JSON."""
    if as_json:
        print_json({entry.name: {"kind": entry.kind, "on": entry.is_on} for entry in automations})
        return
    table = build_table(["name", "kind", "state"], wrapped=["what it does"])
    for entry in automations:
        table.add_row(entry.name, entry.kind, "on" if entry.is_on else "off", printable(entry.description, MESSAGE))
    print_table(table)
