"""The page of a single partition: its first and last candles as a table, and a chart of them.

Only a run over one partition and few assets has it. A backfill of a thousand days would draw a thousand charts, and the
event log would keep them.

Here belongs what the page shows. What does not belong here: drawing (``charts``), and the other metadata of a partition
(``events``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import dagster as dg
import polars as pl

from binance_assets.candles.columns import columns
from binance_assets.candles.resampling import resample
from binance_assets.charts.candle_chart import draw_candles
from binance_assets.charts.figures import as_markdown, can_draw
from binance_assets.model.intervals import Interval, parse_derived_interval
from binance_assets.model.outside import MESSAGE, printable
from binance_assets.model.partitions import Partition
from binance_assets.model.series import Series, ascii_symbol
from binance_assets.model.timestamps import DAY, HOUR, MINUTE, SECOND
from binance_assets.orchestration.dagster_internals.steps import keys_in_run
from binance_assets.storage.lake import Lake, StoredPartition

_MOST_ASSETS: Final = 10
_MOST_BARS: Final = 288  # 5 minutes each
_PREVIEWED: Final = 3
_UNITS: Final = (("h", HOUR), ("m", MINUTE), ("s", SECOND))


def day_page(
    context: dg.AssetExecutionContext,
    lake: Lake,
    series: Series,
    written: Mapping[Partition, StoredPartition],
    with_chart: bool = True,
) -> dict[str, dg.MetadataValue]:
    """Return the metadata that the event of a partition has only if its run is over that partition alone.

    Args:
        context: The step.
        lake: The lake, which the candles are read from.
        series: The series of the step.
        written: What the step has written; candles of one partition give ``preview``, and with Matplotlib ``chart``.
        with_chart: Whether to draw the chart.
    """
    if len(written) != 1 or len(context.partition_keys) != 1 or len(keys_in_run(context)) > _MOST_ASSETS:
        return {}
    (partition,) = written
    page: dict[str, dg.MetadataValue] = {}
    try:
        candles = lake.read(series, [partition])
        if candles.is_empty():  # a suspended day
            return page
        page["preview"] = preview(series, candles)
        if with_chart and can_draw():
            page["chart"] = dg.MetadataValue.md(chart(series, partition, candles))
    except Exception as error:  # the partition is written, and what reports it must not fail because of a picture
        context.log.warning(f"{series} {partition.key}: the page lacks a part: {printable(error, MESSAGE)}")
    return page


def preview(series: Series, candles: pl.DataFrame) -> dg.TableMetadataValue:
    """Return the first and the last candles of a partition as a table.

    Args:
        series: The series.
        candles: Its candles, with the columns of the market of the series.
    """
    ends = candles if candles.height <= 2 * _PREVIEWED else candles[:_PREVIEWED].vstack(candles[-_PREVIEWED:])
    times = [name for name, dtype in columns(series.market).items() if dtype.is_temporal()]
    shown = ends.with_columns(pl.col(times).dt.strftime("%Y-%m-%d %H:%M:%S%.3f"))
    schema = dg.TableSchema(
        [
            dg.TableColumn(name, "string" if dtype == pl.String else "int" if dtype.is_integer() else "float")
            for name, dtype in shown.schema.items()
        ]
    )
    return dg.MetadataValue.table([dg.TableRecord(row) for row in shown.to_dicts()], schema)


def chart(series: Series, partition: Partition, candles: pl.DataFrame) -> str:
    """Return the chart of a partition as Markdown.

    Args:
        series: The series.
        partition: The partition.
        candles: Its candles, at least one; if there are too many for a chart, they are resampled.
    """
    bars, interval = chart_bars(series, candles)
    resampled = "" if interval == series.interval else f", resampled from {series.interval}"
    # Fonts lack the characters of some symbols.
    name = f"{series.market} {ascii_symbol(series.symbol)} {partition.key}"
    figure = draw_candles(bars, interval.step, f"{name}: bars of {interval}{resampled}, UTC")
    return as_markdown(figure, "candles and volume")


def chart_bars(series: Series, candles: pl.DataFrame) -> tuple[pl.DataFrame, Interval]:
    """Return the bars of a chart and their interval: the candles, or coarser ones if they are too many.

    Args:
        series: The series.
        candles: The candles of a partition.
    """
    interval = series.interval
    if interval.step * _MOST_BARS >= DAY:
        return candles, interval
    # The finest interval that divides a day, is a multiple of the candles' own, and gives few enough bars.
    step = next(
        step for step in range(interval.step, DAY + 1, interval.step) if DAY % step == 0 and step * _MOST_BARS >= DAY
    )
    name = next(f"{step // length}{unit}" for unit, length in _UNITS if step % length == 0)
    interval = parse_derived_interval(name)
    return resample(series.market, candles, interval), interval
