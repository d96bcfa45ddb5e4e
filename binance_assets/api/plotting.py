"""Charts of candles: ``plot`` reads a range from the lake, and the chart that it returns shows and saves itself."""

from __future__ import annotations

import datetime as dt
import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from binance_assets.api.arguments import Moment, SeriesName, interval_of, lake_at, path_of, range_of, series_of
from binance_assets.api.chart_spans import Absence, spans_of, summary_of
from binance_assets.api.gaps import Span
from binance_assets.api.reading import check_stored, load, scan
from binance_assets.charts.content import ChartContent, ChartSpan
from binance_assets.charts.formats import check_target, format_of, require
from binance_assets.charts.shown_interval import check_count, check_every, shown_interval
from binance_assets.model.bucket_paths import LakePath
from binance_assets.model.intervals import Interval
from binance_assets.model.markets import COINM
from binance_assets.model.outside import printable
from binance_assets.model.partitions import Partition, partition_first_day, partitions_between
from binance_assets.model.series import Series
from binance_assets.model.symbol_names import quote_by_name
from binance_assets.model.timestamps import DAY, SECOND, to_date, to_text
from binance_assets.settings import ConfigurationError
from binance_assets.storage.edited_file import replace_file
from binance_assets.storage.lake import Lake

Explain = Callable[[Lake, Series, Sequence[Partition]], Mapping[str, Absence]]
"""Returns what is known about partitions that the lake does not hold, by key."""

_HINT: Final = "Zooming in shows no finer candles: for those, choose a shorter range, or a finer interval."
_FRAME: Final = "width:100%;height:760px;border:0"


@dataclass(frozen=True, slots=True, eq=False)
class CandleChart:
    """A chart of candles and their volume. In a notebook, it shows itself.

    Attributes:
        series: The series.
        interval: The interval of the candles that it shows.
        rows: How many candles of the series those are computed from.
        content: What it shows.
    """

    series: Series
    interval: Interval
    rows: int
    content: ChartContent

    def __repr__(self) -> str:
        return f"<CandleChart {self.content.title}, {self.content.candles.height:,} candles>"

    def _repr_html_(self) -> str:
        """Return the page in a frame of its own, so that it and the notebook do not disturb each other."""
        return f'<iframe sandbox="allow-scripts" style="{_FRAME}" srcdoc="{html.escape(self.html())}"></iframe>'

    @property
    def file_name(self) -> str:
        """The name of the file that the command ``plot`` writes unless another is given."""
        first, last = map(_time_in_name, (self.content.start, self.content.end))
        return f"{self.series.market}-{self.series.symbol}-{self.series.interval}-{first}-{last}.html"

    def html(self) -> str:
        """Return the chart as an interactive page, which loads nothing from the network.

        Raises:
            ImportError: Bokeh is not installed; the message names the extra.
        """
        require("html")
        from binance_assets.charts.interactive_page import page_of

        return page_of(self.content)

    def png(self) -> bytes:
        """Return the chart as a picture.

        Raises:
            ImportError: Matplotlib is not installed; the message names the extra.
        """
        require("png")
        from binance_assets.charts.range_picture import png_of

        return png_of(self.content)

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the chart to a file, as a whole or not at all, and return its path.

        Args:
            path: The file; its name ends with ``.html`` or ``.png``.
            overwrite: Whether to replace the file if it exists.

        Raises:
            ConfigurationError: The name is not valid, or the file exists or cannot be written.
            ImportError: The library that draws the format is not installed; the message names the extra.
        """
        target = path_of(path)
        try:
            check_target(target, overwrite)
            drawn = self.png() if format_of(target) == "png" else self.html()
            replace_file(target, drawn)
        except ValueError as error:
            raise ConfigurationError(str(error)) from None
        except OSError as error:
            raise ConfigurationError(f"{printable(target)} cannot be written: {error.strerror}") from None
        return target


def plot(
    series: SeriesName,
    start: Moment | None = None,
    end: Moment | None = None,
    every: str | Interval | None = None,
    *,
    check: bool = True,
    lake: str | LakePath | Lake | None = None,
) -> CandleChart:
    """Return a chart of the candles that open in ``[start, end)``, with what is missing among them.

    If there are too many candles for a chart, it shows coarser ones, as the exchange computes them, and its title names
    both intervals. The range is then widened to whole coarse candles. Outages, suspensions, and gaps that a person
    accepted are shaded; partitions that the lake does not hold are red.

    Args:
        series: ``spot/BTCUSDT/1m``.
        start: Where the range begins, see :func:`binance_assets.api.reading.scan`. None for the first stored partition.
        end: Where it ends, excluded. None for the end of the last stored partition.
        every: The interval to show, at most ``1d``. None for the finest one of which the range has at most 3,000.
        check: Whether to compare the candles with their hashes.
        lake: The folder of the lake; None for that of the settings.

    Returns:
        The chart. It shows itself in a notebook, and ``save("chart.html")`` or ``save("chart.png")`` writes a file;
        that needs the extra ``binance-assets[plot]``.

    Raises:
        MissingPartitions: The lake holds no candles of the range; the message names the command that fetches them.
        LakeError: A file cannot be read, or its candles are not those that were written.
        ConfigurationError: An argument or a setting is not valid, or the range has no candles.
    """
    member = series_of(series)
    return chart_of(lake_at(lake), member, range_of(start, end), interval_of(every), check=check)


def chart_of(
    lake: Lake,
    series: Series,
    asked: tuple[int | None, int | None],
    every: Interval | None,
    explain: Explain = lambda lake, series, partitions: {},
    check: bool = True,
) -> CandleChart:
    """Return the chart of a range; see :func:`plot`.

    Args:
        lake: The lake.
        series: The series.
        asked: Where the range begins and ends, ms UTC; None for where the stored partitions do.
        every: The interval to show; None to choose it.
        explain: Explains partitions that the lake does not hold; it is only called if there are any.
        check: Whether to compare the candles with their hashes.

    Raises:
        MissingPartitions, LakeError, ConfigurationError: As for :func:`plot`.
    """
    bounds, shown = _range(lake, series, asked, every)
    partitions = _partitions_in(bounds, series.interval)
    stored = lake.stored_among(series, partitions)
    rows, candles = _candles(lake, series, bounds, shown, check)
    if candles.is_empty():
        verdicts = ", ".join(sorted({entry.verdict for entry in stored.values()}))
        start, end = map(to_text, bounds)
        raise ConfigurationError(f"{series} has no candles from {start} to {end}: {verdicts}")
    absent = [partition for partition in partitions if partition not in stored]
    absences = explain(lake, series, absent) if absent else {}
    spans = spans_of(series, partitions, stored, absences, *bounds)
    return CandleChart(series, shown, rows, _content(series, shown, rows, candles, bounds, spans))


def _range(
    lake: Lake, series: Series, asked: tuple[int | None, int | None], every: Interval | None
) -> tuple[Span, Interval]:
    """Return where the chart begins and ends, and the interval that it shows.

    Raises:
        MissingPartitions, ConfigurationError: As for :func:`plot`.
    """
    start, end = _bounds(lake, series, asked)
    shown = _shown(series, every, end - start)
    if shown == series.interval:
        return (start, end), shown
    return (start // shown.step * shown.step, -(-end // shown.step) * shown.step), shown


def _partitions_in(bounds: Span, interval: Interval) -> list[Partition]:
    start, end = bounds
    return partitions_between(partition_first_day(to_date(start), interval), to_date(end + DAY - 1), interval)


def _candles(lake: Lake, series: Series, bounds: Span, shown: Interval, check: bool) -> tuple[int, pl.DataFrame]:
    """Return how many candles of the series a range has, and the candles of the shown interval.

    Raises:
        MissingPartitions: There are none, and partitions of the range are not stored.
        LakeError: A file cannot be read.
    """
    start, end = (dt.datetime.fromtimestamp(time / SECOND, dt.UTC) for time in bounds)
    every = None if shown == series.interval else shown
    candles = load(series, start, end, every, allow_missing=True, check=check, lake=lake)
    if candles.is_empty():
        check_stored(lake, series, *bounds)
    if every is None:
        return candles.height, candles
    fine = scan(series, start, end, allow_missing=True, check=False, lake=lake)
    return lake.collect(fine.select(pl.len())).item(), candles


def _content(
    series: Series, shown: Interval, rows: int, candles: pl.DataFrame, bounds: Span, spans: Sequence[ChartSpan]
) -> ChartContent:
    """Return what the chart shows."""
    is_resampled = shown != series.interval
    resampled = f", shown as {shown} candles" if is_resampled else ""
    return ChartContent(
        title=f"{series.symbol} · {series.market.title} · {series.interval}{resampled}",
        notes=_notes(series, shown, rows, candles.height, bounds, summary_of(spans)),
        hint=_HINT if is_resampled else "",
        price_unit=quote_by_name(series.market, series.symbol) or "price",
        volume_unit=_volume_unit(series),
        start=bounds[0],
        end=bounds[1],
        candles=candles.with_columns(end=_following(shown)),
        spans=spans,
    )


def _bounds(lake: Lake, series: Series, asked: tuple[int | None, int | None]) -> Span:
    """Return where the chart begins and ends, ms UTC.

    Raises:
        MissingPartitions: A bound is that of the stored partitions, and there are none.
        ConfigurationError: The range is empty.
    """
    start, end = asked
    if start is None or end is None:
        stored = list(lake.stored_partitions(series))
        if not stored:
            check_stored(lake, series, None, None)  # raises, and names the command that fetches them
        start = stored[0].start if start is None else start
        end = stored[-1].end if end is None else end
    if end <= start:
        raise ConfigurationError(
            f"the lake in {lake.root} has no candles of {series} between {to_text(start)} and {to_text(end)}"
        )
    return start, end


def _shown(series: Series, every: Interval | None, length: int) -> Interval:
    """Return the interval of the chart's candles.

    Raises:
        ConfigurationError: ``every`` does not fit the series, or makes too many candles.
    """
    if every is None:
        return shown_interval(series.interval, length)
    try:
        check_every(series.interval, every)
        check_count(every, length)
    except ValueError as error:
        raise ConfigurationError(f"every={every}: {error}") from None
    return every


def _following(interval: Interval) -> pl.Expr:
    """Return when the candle after each one would open."""
    return pl.col("open_time").dt.offset_by("1mo" if interval.is_month else f"{interval.step}ms")


def _time_in_name(time: int) -> str:
    """Return a time (ms UTC) for the name of a file: the day, with the time of day unless it is midnight."""
    return to_text(time).removesuffix(" 00:00").replace(" ", "T").replace(":", "")


def _volume_unit(series: Series) -> str:
    if series.market is COINM:
        return "contracts"
    quote = quote_by_name(series.market, series.symbol)
    return series.symbol.partition("_")[0].removesuffix(quote) if quote else "volume"


def _notes(series: Series, shown: Interval, rows: int, candles: int, bounds: Span, summary: str) -> tuple[str, str]:
    start, end = (to_text(time).removesuffix(" 00:00") for time in bounds)
    held = f"{start} to {end} UTC: {rows:,} candles of {series.interval}"
    if shown != series.interval:
        held += f", resampled to {candles:,} of {shown} by the exchange's rule; every high and low is kept"
    missing = f"Without candles: {summary}." if summary else "Every partition is in the lake, and none has a gap."
    return f"{held}.", missing
