"""The command ``plot``: a chart of a series as a file."""

from __future__ import annotations

import os
import webbrowser
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from binance_assets.charts.formats import check_target, format_of, require
from binance_assets.charts.shown_interval import check_every
from binance_assets.cli.options import DateType, DerivedIntervalType, json_option, one_series_argument, series_named
from binance_assets.ingest.dates import check_dates
from binance_assets.settings import ConfigurationError, read_settings
from binance_assets.waiting import phase

if TYPE_CHECKING:
    import datetime as dt

    from binance_assets.api.chart_spans import Absence
    from binance_assets.api.plotting import CandleChart
    from binance_assets.cli.json_output import Plotted
    from binance_assets.model.intervals import Interval
    from binance_assets.model.partitions import Partition
    from binance_assets.model.series import Series
    from binance_assets.storage.lake import Lake


@click.command("plot", short_help="Draw a chart of candles, volume, and what is missing.")
@one_series_argument
@click.option("--start", type=DateType(), help="First day.  [default: the first in the lake]")
@click.option("--end", type=DateType(), help="Day after the last one.  [default: up to the last in the lake]")
@click.option(
    "--every",
    type=DerivedIntervalType(),
    help="Interval of the candles to show, at most 1d.  [default: the finest with at most 3,000 candles]",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="File, .html or .png.  [default: MARKET-SYMBOL-INTERVAL-START-END.html here]",
)
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
@click.option("--open", "opens", is_flag=True, help="Open the chart in the browser.")
@json_option
def plot_command(
    name: str,
    start: dt.date | None,
    end: dt.date | None,
    every: Interval | None,
    output: Path | None,
    overwrite: bool,
    opens: bool,
    as_json: bool,
) -> None:
    """Draw candles and volume, and what is missing among them: one HTML file to zoom and point at, or a PNG.

    SERIES is written like spot/BTCUSDT/1m. Outages are shaded; partitions that were refused or never fetched are red,
    with the reason. If the range has too many candles, coarser ones are shown, computed as the exchange does it, and
    the title names both intervals. The path of the file is printed. The chart needs the extra binance-assets[plot].
    """
    settings, series = read_settings(os.environ), series_named(name)
    check_dates([series], start, end)
    _check_options(series, every, output, overwrite)

    from binance_assets.cli.progress import Display

    try:
        with Display():
            with phase("reading the lake"):
                from binance_assets.api.arguments import range_of
                from binance_assets.api.plotting import chart_of
                from binance_assets.storage.lake import Lake

                chart = chart_of(Lake(settings.lake), series, range_of(start, end), every, _explain)
            with phase("drawing"):
                path = chart.save(output or chart.file_name, overwrite=overwrite)
    except ConfigurationError as error:  # its message names the argument of the Python API
        raise ConfigurationError(str(error).replace("every=", "--every ")) from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; no chart was written") from None
    if as_json:
        from binance_assets.cli.output import print_json

        print_json(_outcome(chart, path))
    else:
        click.echo(path)
        for note in (chart.content.title, *chart.content.notes):
            click.echo(note, err=True)
    if opens:
        webbrowser.open(path.absolute().as_uri())


def _check_options(series: Series, every: Interval | None, output: Path | None, overwrite: bool) -> None:
    """Refuse options that cannot work, before anything large is loaded.

    Raises:
        ConfigurationError: The message names the option.
    """
    try:
        if every is not None:
            check_every(series.interval, every)
        if output is not None:
            check_target(output, overwrite)
        require("html" if output is None else format_of(output))
    except (ValueError, ImportError) as error:
        raise ConfigurationError(str(error)) from None


def _explain(lake: Lake, series: Series, partitions: Sequence[Partition]) -> Mapping[str, Absence]:
    """Return what Dagster knows of partitions that are not in the lake, by key."""
    with phase("asking Dagster which partitions were refused"), ExitStack() as stack:
        from binance_assets.api.chart_spans import Absence
        from binance_assets.cli.status import existing_instance
        from binance_assets.orchestration.status import why_absent

        instance = existing_instance(stack)
        gaps = why_absent(instance, lake, series, partitions) if instance else {}
    return {key: Absence(gap.verdict, gap.reason) for key, gap in gaps.items()}


def _outcome(chart: CandleChart, path: Path) -> Plotted:
    """Return the outcome with the keys that ``--json`` prints."""
    from binance_assets.model.timestamps import to_iso

    content = chart.content
    return {
        "path": str(path),
        "series": str(chart.series),
        "from": to_iso(content.start),
        "to": to_iso(content.end),
        "interval": str(chart.interval),
        "rows": chart.rows,
        "candles": content.candles.height,
        "spans": [
            {"kind": span.kind, "from": to_iso(span.start), "to": to_iso(span.end), "reason": span.reason}
            for span in content.spans
        ],
    }
