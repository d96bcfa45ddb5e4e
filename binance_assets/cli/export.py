"""The command ``export``: candles in the files that other tools load."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import click

from binance_assets.cli.options import DateType, DerivedIntervalType, SeriesType, WordType, json_option, series_named
from binance_assets.exports.choices import MISSING_BY_TARGET, chosen_missing
from binance_assets.settings import ConfigurationError

if TYPE_CHECKING:
    import datetime as dt

    from binance_assets.api.exporting import Exported, ExportTarget
    from binance_assets.api.gaps import Missing
    from binance_assets.cli import json_output
    from binance_assets.model.intervals import Interval

# The messages of the Python API name its arguments; here they name the options.
_OPTIONS = {
    "pass allow_missing=True": "give --allow-missing",
    "pass overwrite=True": "give --overwrite",
    "missing='keep', 'null', or 'flat' goes on": "another --missing goes on",
    "every=": "--every ",
    "missing=": "--missing ",
}


@click.command("export", short_help="Write candles into the files that another tool loads.")
@click.argument("names", metavar="SERIES...", type=SeriesType(), nargs=-1, required=True)
@click.option("--to", "target", type=WordType(list(MISSING_BY_TARGET)), required=True, help="The tool or format.")
@click.option("--start", type=DateType(), help="First day.  [default: the first in the lake]")
@click.option("--end", type=DateType(), help="Day after the last one.  [default: up to the last in the lake]")
@click.option("--every", type=DerivedIntervalType(), help="Resample to a coarser interval, at most 1d.")
@click.option(
    "--missing",
    type=WordType(["keep", "null", "flat", "raise"]),
    help="What becomes of candles that the exchange lacks.  [default: null for qlib, else keep]",
)
@click.option("--allow-missing", is_flag=True, help="Go on without the days that the lake lacks.")
@click.option(
    "-o", "--output", metavar="FOLDER", type=click.Path(file_okay=False), help="[default: exports/ and the target]"
)
@click.option("--overwrite", is_flag=True, help="Also replace files that no export wrote, or that have changed since.")
@json_option
def export_command(
    names: tuple[str, ...],
    target: str,
    start: dt.date | None,
    end: dt.date | None,
    every: Interval | None,
    missing: str | None,
    allow_missing: bool,
    output: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write candles of the lake into the files that another tool loads.

    SERIES is written like spot/BTCUSDT/1m. Files appear complete or not at all, and those of an earlier export are
    replaced. The page Exports of the documentation describes the files of each tool and how the tool loads them.
    """
    chosen = [series_named(name) for name in names]
    try:
        chosen_missing(target, missing)
    except ValueError as error:
        raise ConfigurationError(_with_options(str(error))) from None

    from binance_assets.cli.progress import Display

    try:
        with Display():
            from binance_assets.api.exporting import export

            exported = export(
                chosen,
                cast("ExportTarget", target),
                output,
                start,
                end,
                every,
                cast("Missing | None", missing),
                allow_missing=allow_missing,
                overwrite=overwrite,
            )
    except ConfigurationError as error:
        raise ConfigurationError(_with_options(str(error))) from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; nothing was exported") from None
    _print(exported, as_json)


def _with_options(message: str) -> str:
    for argument, option in _OPTIONS.items():
        message = message.replace(argument, option)
    return message


def _print(exported: Exported, as_json: bool) -> None:
    from binance_assets.cli.output import build_table, print_json, print_table

    if as_json:
        print_json(_values(exported))
        return
    table = build_table(["series", "interval", "from", "to"], ["candles"])
    for entry in exported.series:
        table.add_row(entry.series, entry.interval, entry.first, entry.last, f"{entry.rows:,}")
    print_table(table)
    size = sum(exported.files.values())
    click.echo(f"{exported.folder}: files written: {len(exported.files):,}, bytes: {size:,}")
    click.echo(f"load: {exported.load}")


def _values(exported: Exported) -> json_output.Exported:
    """Return what was written with the keys that ``--json`` prints."""
    return {
        "target": exported.target,
        "folder": str(exported.folder),
        "missing": exported.missing,
        "files": exported.files,
        "series": {
            entry.series: {
                "interval": entry.interval,
                "rows": entry.rows,
                "first": entry.first,
                "last": entry.last,
                "files": list(entry.files),
            }
            for entry in exported.series
        },
        "load": exported.load,
    }
