"""The interactive chart: one HTML page that holds all it needs, drawn in the browser by Bokeh, which is an extra.

The page loads nothing: the scripts of Bokeh are in it, and its content security policy forbids every request. Text from
outside is escaped where it becomes HTML: by Jinja in the page, by Bokeh in what shows up under the pointer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from binance_assets.charts.content import DOWN, LOOKS, UP, ChartContent, ChartSpan, decimals, duration_text
from binance_assets.model.timestamps import to_text

if TYPE_CHECKING:
    from bokeh.models import ColumnDataSource, DatetimeTickFormatter, GridPlot, Range1d
    from bokeh.models.renderers import DataRenderer
    from bokeh.plotting import figure as Figure

POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:"
)
"""What the page may do: run its own scripts and styles, and send no request."""

_TEMPLATE: Final = Path(__file__).with_name("page.html.jinja")
_MOST_LISTED: Final = 500
_WIDTH: Final = 0.8
"""The width of a candle as a share of its time, so that neighbors stand apart."""

_GRID: Final = "#e9ecef"
_TEXT: Final = "#52606d"
_LEFT: Final = 92
"""Pixels left of every plot, so that their time axes stand below each other."""

_HEIGHTS: Final = {"price": 390, "volume": 150, "spans": 92}


def page_of(content: ChartContent) -> str:
    """Return the page.

    Args:
        content: What the chart shows.
    """
    from bokeh.embed import file_html
    from bokeh.resources import Resources
    from jinja2 import Environment

    template = Environment(autoescape=True).from_string(_TEMPLATE.read_text(encoding="utf-8"))
    listed = content.spans[:_MOST_LISTED]
    variables = {
        "content": content,
        "policy": POLICY,
        "up": UP,
        "down": DOWN,
        "looks": [LOOKS[kind] for kind in content.kinds],
        "rows": [_row(span) for span in listed],
        "left_out": len(content.spans) - len(listed),
    }
    resources = Resources(mode="inline")
    return file_html(_plots(content), resources, title=content.title, template=template, template_variables=variables)


def _row(span: ChartSpan) -> tuple[str, ...]:
    times = (to_text(span.start), to_text(span.end), duration_text(span.end - span.start))
    return (*times, LOOKS[span.kind].label, span.reason)


def _plots(content: ChartContent) -> GridPlot:
    """Return the plots, one below the other, on one time axis: prices, volume, and the spans without candles."""
    from bokeh.layouts import gridplot
    from bokeh.models import Range1d

    shown = Range1d(start=content.start, end=content.end, bounds=(content.start, content.end))
    prices, volumes = _figure("price", shown), _figure("volume", shown)
    plots = [prices, volumes]
    _draw_candles(prices, volumes, content)
    if content.spans:
        spans = _span_source(content.spans)
        plots.append(_figure("spans", shown, y_range=Range1d(start=0, end=1)))
        _draw_spans(plots, spans)
    for plot in plots[:-1]:
        plot.xaxis.visible = False
    plots[-1].xaxis.formatter = _date_formatter()
    plots[-1].xaxis.axis_label = "UTC"
    return gridplot(
        [[plot] for plot in plots],
        sizing_mode="stretch_width",
        toolbar_location="right",
        toolbar_options={"logo": None},
    )


def _date_formatter() -> DatetimeTickFormatter:
    from bokeh.models import DatetimeTickFormatter

    return DatetimeTickFormatter(
        seconds="%H:%M:%S", minsec="%H:%M:%S", minutes="%H:%M", hourmin="%H:%M", hours="%b %d %H:%M",
        days="%b %d", months="%b %Y", years="%Y",
    )  # fmt: skip


def _figure(name: str, shown: Range1d, **options: Any) -> Figure:
    """Return an empty plot that pans and zooms in time; its other axis follows what is in view."""
    from bokeh.plotting import figure

    plot = figure(
        name=name,
        height=_HEIGHTS[name],
        x_axis_type="datetime",
        x_range=shown,
        window_axis="x",
        tools="xpan,xbox_zoom,xwheel_zoom,reset",
        active_drag="xpan",
        active_scroll="xwheel_zoom",
        min_border_left=_LEFT,
        min_border_top=4,
        min_border_bottom=4,
        lod_threshold=None,  # otherwise nine of ten candles vanish while the chart moves
        outline_line_color=None,
        **options,
    )
    plot.grid.grid_line_color = _GRID
    plot.axis.axis_line_color = plot.axis.major_tick_line_color = "#adb5bd"
    plot.axis.minor_tick_line_color = None
    plot.axis.major_label_text_color = plot.axis.axis_label_text_color = _TEXT
    plot.axis.axis_label_text_font_style = "normal"
    return plot


def _candle_source(candles: pl.DataFrame) -> ColumnDataSource:
    from bokeh.models import ColumnDataSource

    opened, length = pl.col("open_time").dt.epoch("ms"), (pl.col("end") - pl.col("open_time")).dt.total_milliseconds()
    columns = candles.select(
        "open", "high", "low", "close", "volume", "trades",
        time=opened.cast(pl.Float64),
        left=opened + length * ((1 - _WIDTH) / 2),
        middle=opened + length / 2,
        right=opened + length * ((1 + _WIDTH) / 2),
    )  # fmt: skip
    rises = (candles["close"] >= candles["open"]).to_list()
    data = {name: column.cast(pl.Float64).to_numpy() for name, column in columns.to_dict().items()}
    return ColumnDataSource(data={**data, "color": [UP if up else DOWN for up in rises]})


def _draw_candles(prices: Figure, volumes: Figure, content: ChartContent) -> None:
    from bokeh.models import DataRange1d, HoverTool, NumeralTickFormatter

    source = _candle_source(content.candles)
    wicks = prices.segment("middle", "low", "middle", "high", color="color", source=source)
    # The line shows a candle that ends where it began.
    bodies = prices.quad(
        left="left", right="right", top="close", bottom="open", color="color", line_width=1, source=source
    )
    bars = volumes.quad(left="left", right="right", top="volume", bottom=0, color="color", line_width=1, source=source)
    prices.y_range = DataRange1d(renderers=[wicks], range_padding=0.06)
    volumes.y_range = DataRange1d(renderers=[bars], start=0, range_padding=0.06)
    digits = decimals(content.candles, "close")
    number = "0,0." + "0" * digits if digits else "0,0"
    prices.yaxis.formatter = NumeralTickFormatter(format="0,0.[00000000]")
    volumes.yaxis.formatter = NumeralTickFormatter(format="0.[0]a")
    prices.yaxis.axis_label, volumes.yaxis.axis_label = content.price_unit, content.volume_unit
    first, following = content.candles.select("open_time", "end").row(0)
    seconds = ":%S" if (following - first).total_seconds() < 60 else ""
    tips = [
        ("opens (UTC)", f"@time{{%F %H:%M{seconds}}}"),
        *((name, f"@{name}{{{number}}}") for name in ("open", "high", "low", "close")),
        ("volume", "@volume{0,0.[00000000]}"),
        ("trades", "@trades{0,0}"),
    ]
    glyphs: list[tuple[Figure, DataRenderer]] = [(prices, bodies), (volumes, bars)]
    for plot, glyph in glyphs:
        plot.add_tools(
            HoverTool(
                renderers=[glyph],
                tooltips=tips,
                formatters={"@time": "datetime"},
                mode="vline",
                point_policy="follow_mouse",
                attachment="above",  # below is what the span under the pointer shows
            )
        )


def _span_source(spans: Sequence[ChartSpan]) -> ColumnDataSource:
    from bokeh.models import ColumnDataSource

    looks = [LOOKS[span.kind] for span in spans]
    return ColumnDataSource(
        data={
            "start": [span.start for span in spans],
            "end": [span.end for span in spans],
            "middle": [(span.start + span.end) / 2 for span in spans],
            "from": [to_text(span.start) for span in spans],
            "to": [to_text(span.end) for span in spans],
            "length": [duration_text(span.end - span.start) for span in spans],
            "what": [look.label for look in looks],
            "why": [span.reason for span in spans],
            "color": [look.color for look in looks],
            "hatch": ["right_diagonal_line" if look.is_hatched else "blank" for look in looks],
            "opacity": [0.10 if look.is_hatched else 0.28 for look in looks],
        }
    )


def _draw_spans(plots: Sequence[Figure], source: ColumnDataSource) -> None:
    """Shade the spans in every plot, and mark them in the last one, where the pointer finds the shortest, too."""
    from bokeh.models import HoverTool

    tips = [("", "@what"), ("from (UTC)", "@from"), ("to", "@to (@length)"), ("why", "@why")]
    for plot in plots:
        # The line is a pixel wide, however short the span is.
        strips = plot.vstrip(
            x0="start", x1="end", source=source, fill_color="color", fill_alpha="opacity", line_color="color",
            line_alpha=0.9, hatch_pattern="hatch", hatch_color="color", hatch_alpha=0.45, hatch_scale=8,
            level="underlay",
        )  # fmt: skip
        shapes: list[DataRenderer] = [strips]
        if plot is plots[-1]:
            shapes.append(
                plot.scatter(
                    "middle", 0.5, marker="diamond", size=13, source=source, fill_color="color", line_color="white"
                )
            )
        # Below the last plot, the window may end.
        plot.add_tools(HoverTool(renderers=shapes, tooltips=tips, attachment="above" if plot is plots[-1] else "below"))
    rows = plots[-1]
    rows.ygrid.grid_line_color = None
    rows.yaxis.ticker = []
    rows.yaxis.axis_label = "gaps"
