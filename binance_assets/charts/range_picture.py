"""The chart of a range as a picture, drawn by Matplotlib: candles, their volume, and the spans that have none."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import polars as pl

from binance_assets.charts.content import DOWN, LOOKS, UP, ChartContent, decimals
from binance_assets.charts.figures import save_png
from binance_assets.model.timestamps import DAY, SECOND

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH: Final = 0.8
_TEXT: Final = "#52606d"
_DPI: Final = 150
_HATCH: Final = "////"


def png_of(content: ChartContent) -> bytes:
    """Return the chart as a PNG of 1,950 to 1,050 pixels.

    Args:
        content: What the chart shows.
    """
    png = io.BytesIO()
    # Matplotlib would write its version into the file, and so other bytes for the same picture.
    save_png(draw_range(content), png, dpi=_DPI, metadata={"Software": None})
    return png.getvalue()


def draw_range(content: ChartContent) -> Figure:
    """Return the chart as a figure with three axes, one below the other: prices, volume, and marks of the spans."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7), layout="constrained")
    prices, volumes, marks = figure.subplots(3, 1, sharex=True, height_ratios=(12, 4, 0.8))
    _draw_candles(prices, volumes, content.candles)
    _draw_spans((prices, volumes, marks), content)
    _label((prices, volumes, marks), content)
    prices.set_xlim(content.start / DAY, content.end / DAY)
    figure.suptitle(content.title, x=0.01, ha="left", fontsize=14, fontweight="bold", parse_math=False)
    prices.set_title("\n".join(content.notes), loc="left", fontsize=9, color=_TEXT, parse_math=False)
    _draw_legend(figure, content)
    return figure


def _draw_candles(prices: Axes, volumes: Axes, candles: pl.DataFrame) -> None:
    """Draw a wick and a box for each candle, and a box for its volume; times are days since the epoch."""
    from matplotlib.collections import LineCollection, PolyCollection

    opened = pl.col("open_time").dt.epoch("ms") / DAY
    length = pl.col("end").dt.epoch("ms") / DAY - opened
    columns = candles.select(
        "open", "high", "low", "close", "volume",
        left=opened + length * ((1 - _WIDTH) / 2),
        middle=opened + length / 2,
        right=opened + length * ((1 + _WIDTH) / 2),
    )  # fmt: skip
    colors = [UP if rises else DOWN for rises in candles["close"] >= candles["open"]]
    rows = columns.to_dicts()
    wicks = [((row["middle"], row["low"]), (row["middle"], row["high"])) for row in rows]
    prices.add_collection(LineCollection(wicks, colors=colors, linewidths=0.7))
    # The edge shows a candle that ends where it began.
    for axes, bottom, top in ((prices, "open", "close"), (volumes, None, "volume")):
        boxes = [
            [
                (row[side], row[end] if end else 0)
                for side, end in (("left", bottom), ("right", bottom), ("right", top), ("left", top))
            ]
            for row in rows
        ]
        axes.add_collection(PolyCollection(boxes, facecolors=colors, edgecolors=colors, linewidths=0.4))
        axes.autoscale_view()
    volumes.set_ylim(0, max(columns["volume"]) * 1.05 or 1)


def _draw_spans(axes: tuple[Axes, ...], content: ChartContent) -> None:
    """Shade the spans, with an edge that is visible however short they are, and mark them in the last row."""
    for kind in content.kinds:
        look, ours = LOOKS[kind], [span for span in content.spans if span.kind == kind]
        bars = [(span.start / DAY, (span.end - span.start) / DAY) for span in ours]
        for place in axes:
            place.broken_barh(
                bars,
                (0, 1),
                transform=place.get_xaxis_transform(),
                facecolor=(look.color, 0.08 if look.is_hatched else 0.28),
                edgecolor=(look.color, 0.9),
                hatch=_HATCH if look.is_hatched else None,
                linewidth=0.8,
                zorder=0,
            )
        middles = [first + length / 2 for first, length in bars]
        axes[-1].plot(middles, [0.5] * len(bars), "D", color=look.color, markeredgecolor="white", clip_on=False)


def _label(axes: tuple[Axes, Axes, Axes], content: ChartContent) -> None:
    from matplotlib.dates import UTC, AutoDateLocator
    from matplotlib.ticker import FuncFormatter, StrMethodFormatter

    prices, volumes, marks = axes
    for place, name in ((prices, content.price_unit), (volumes, content.volume_unit), (marks, "gaps")):
        place.set_ylabel(name, fontsize=9, color=_TEXT, parse_math=False)
        place.tick_params(labelsize=9, length=2, colors=_TEXT)
        place.grid(color="#e9ecef", linewidth=0.7)
        place.set_axisbelow(True)
        place.spines[["top", "right"]].set_visible(False)
    low, high = prices.get_ylim()
    digits = 0 if high - low > 100 else decimals(content.candles, "close")
    prices.yaxis.set_major_formatter(StrMethodFormatter(f"{{x:,.{digits}f}}"))
    volumes.yaxis.set_major_formatter(FuncFormatter(lambda number, _: _short(number)))
    marks.set_ylim(0, 1)
    marks.set_yticks([])
    locator = AutoDateLocator(tz=UTC)  # type: ignore[no-untyped-call]
    start, end = (dt.datetime.fromtimestamp(time / SECOND, dt.UTC) for time in (content.start, content.end))
    positions = locator.tick_values(start, end)  # type: ignore[no-untyped-call]
    times = [dt.datetime.fromtimestamp(round(position * DAY / SECOND), dt.UTC) for position in positions]
    labels = time_labels([time for time in times if start <= time <= end], end)
    marks.set_xticks([time.timestamp() * SECOND / DAY for time in labels], list(labels.values()))
    marks.set_xlabel("UTC", fontsize=9, color=_TEXT)


def time_labels(ticks: Sequence[dt.datetime], end: dt.datetime) -> dict[dt.datetime, str]:
    """Return the labels of the time axis: what changes from tick to tick, and below it what it belongs to.

    The first tick names the day, month, or year that it belongs to, and so does each one with which the next begins.
    No label stands where the axis ends if that is a day: it would name one that the range does not have.

    Args:
        ticks: The times, UTC, ascending.
        end: The end of the range, excluded.
    """
    is_daily = all(tick == tick.replace(hour=0, minute=0, second=0, microsecond=0) for tick in ticks)
    is_monthly = is_daily and all(tick.day == 1 for tick in ticks)
    is_yearly = is_monthly and all(tick.month == 1 for tick in ticks)
    if is_yearly:
        names, groups = "%Y", ""
    elif is_monthly:
        names, groups = "%b", "%Y"
    elif is_daily:
        names, groups = "%d", "%b %Y"
    else:
        names, groups = "%H:%M", "%Y-%m-%d"
    labels, last = dict[dt.datetime, str](), ""
    for tick in ticks:
        if is_daily and tick >= end:
            continue
        group = tick.strftime(groups)
        labels[tick] = tick.strftime(names) + (f"\n{group}" if group != last else "")
        last = group
    return labels


def _short(number: float) -> str:
    """Return a number for an axis: ``2.5k``, ``2.5m``, ``2.5b``, as the interactive chart writes it."""
    for size, unit in ((1e9, "b"), (1e6, "m"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:,.4g}{unit}"
    return f"{number:.4g}"


def _draw_legend(figure: Figure, content: ChartContent) -> None:
    from matplotlib.patches import Patch

    entries = [Patch(color=UP, label="closes higher"), Patch(color=DOWN, label="closes lower")]
    for look in (LOOKS[kind] for kind in content.kinds):
        fill = (look.color, 0.08 if look.is_hatched else 0.6)
        hatch = _HATCH if look.is_hatched else None
        entries.append(Patch(facecolor=fill, edgecolor=look.color, hatch=hatch, label=look.label))
    figure.legend(handles=entries, loc="outside lower left", ncols=len(entries), fontsize=9, frameon=False)
