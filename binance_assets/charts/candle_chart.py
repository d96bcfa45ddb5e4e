"""The chart of one partition: candles above, their volume below."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

import polars as pl

from binance_assets.charts.content import DOWN, UP

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DAY_MS: Final = 86_400_000
_WIDTH: Final = 0.8
"""The width of a bar as a share of its time, so that neighbors stand apart."""


def draw_candles(bars: pl.DataFrame, step: int, title: str) -> Figure:
    """Return the chart. The time of a bar that is missing stays empty.

    Args:
        bars: At least one row; columns ``open_time`` (Datetime, UTC), ``open``, ``high``, ``low``, ``close``,
            ``volume``.
        step: The length of a bar, ms.
        title: The title.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.4), layout="constrained")
    prices, volumes = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    columns = bars.select("open", "high", "low", "close", "volume").to_dict(as_series=False)
    length = step / _DAY_MS
    opens = bars["open_time"].to_list()
    middles = [_position(time) + length / 2 for time in opens]
    pairs = list(zip(columns["open"], columns["close"], strict=True))
    colors = [UP if close >= open_ else DOWN for open_, close in pairs]
    prices.vlines(middles, columns["low"], columns["high"], colors=colors, linewidth=0.8)
    _draw_boxes(prices, middles, length, pairs, colors)
    _draw_boxes(volumes, middles, length, ((0, volume) for volume in columns["volume"]), colors)
    volumes.set_ylim(0, max(columns["volume"]) * 1.05 or 1)
    _label(prices, volumes)
    ticks = _ticks(opens, step)
    volumes.set_xticks(list(ticks), list(ticks.values()))
    if step < _DAY_MS:
        volumes.set_xlim(min(ticks), max(ticks))
    prices.set_title(title, fontsize=9, loc="left", parse_math=False)
    return figure


def _draw_boxes(
    axes: Axes, middles: Sequence[float], length: float, spans: Iterable[tuple[float, float]], colors: Sequence[str]
) -> None:
    """Draw a box for each bar, from the one value of its span to the other."""
    from matplotlib.collections import PolyCollection

    half = length * _WIDTH / 2
    corners = [
        ((middle - half, first), (middle + half, first), (middle + half, last), (middle - half, last))
        for middle, (first, last) in zip(middles, spans, strict=True)
    ]
    # The edge shows a candle that ends where it began.
    axes.add_collection(PolyCollection(corners, facecolors=colors, edgecolors=colors, linewidths=0.6))
    axes.autoscale_view()


def _ticks(opens: Sequence[dt.datetime], step: int) -> dict[float, str]:
    """Return the ticks of the time axis with their labels: the hours of a day, or the date of each long bar.

    Args:
        opens: The open times, UTC, at least one.
        step: The length of a bar, ms.
    """
    if step < _DAY_MS:
        midnight = opens[0].replace(hour=0, minute=0, second=0, microsecond=0)
        return {_position(midnight) + hour / 24: f"{hour:02}:00" for hour in range(0, 25, 3)}
    return {_position(time) + step / _DAY_MS / 2: f"{time:%Y-%m-%d}" for time in opens}


def _position(time: dt.datetime) -> float:
    """Return where a time stands on the axis, which counts days since the epoch."""
    return time.timestamp() * 1_000 / _DAY_MS


def _label(prices: Axes, volumes: Axes) -> None:
    for axes, name in ((prices, "price"), (volumes, "volume")):
        axes.set_ylabel(name, fontsize=8)
        axes.tick_params(labelsize=8, length=2)
        axes.grid(color="#ebedf0", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    prices.ticklabel_format(axis="y", style="plain", useOffset=False)
