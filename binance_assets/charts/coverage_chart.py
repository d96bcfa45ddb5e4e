"""The chart of coverage: a row for each series, a square for each month, colored by the share that is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_EMPTY: Final = "#de543f"
_SOME: Final = "#f2c14e"
_FULL: Final = "#268c5c"
_NOT_EXPECTED: Final = "#ebedf0"
_MOST_LABELS: Final = 24


@dataclass(frozen=True, slots=True)
class CoverageRow:
    """A row of the chart.

    Attributes:
        label: What the row shows.
        months: For each month, such as ``2024-01``, the number of stored partitions and of expected ones.
    """

    label: str
    months: Mapping[str, tuple[int, int]]


def months_between(first: str, last: str) -> list[str]:
    """Return the months from ``first`` to ``last``, such as ``2024-01``, both included."""
    year, month = map(int, first.split("-"))
    names = []
    while (name := f"{year}-{month:02}") <= last:
        names.append(name)
        year, month = (year, month + 1) if month < 12 else (year + 1, 1)
    return names


def shares(rows: Sequence[CoverageRow], months: Sequence[str]) -> list[list[float]]:
    """Return for each row and month the share of expected partitions that is stored; NaN where none is expected."""
    pairs = [[row.months.get(month, (0, 0)) for month in months] for row in rows]
    return [[stored / expected if expected else float("nan") for stored, expected in row] for row in pairs]


def draw_coverage(rows: Sequence[CoverageRow], title: str) -> Figure:
    """Return the chart.

    Args:
        rows: The rows, from the top; at least one has a month.
        title: The title.
    """
    from matplotlib.figure import Figure

    names = sorted({month for row in rows for month in row.months})
    months = months_between(names[0], names[-1])
    figure = Figure(figsize=(11, 1.4 + 0.22 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    _draw_squares(axes, shares(rows, months))
    # Each year, or each month where there are few; the label stands below the first square of the period.
    step = 1 if len(months) <= _MOST_LABELS else 12
    ticks = [at for at, month in enumerate(months) if step == 1 or month.endswith("-01")]
    axes.set_xticks(ticks, [months[at] if step == 1 else months[at][:4] for at in ticks])
    if step == 1:
        axes.tick_params("x", rotation=45)
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.tick_params(labelsize=8, length=2)
    axes.set_xlabel("month" if step == 1 else "year, one square per month", fontsize=8)
    axes.set_title(title, fontsize=9, loc="left")
    _draw_legend(figure)
    return figure


def _draw_squares(axes: Axes, values: Sequence[Sequence[float]]) -> None:
    import numpy as np
    from matplotlib.colors import LinearSegmentedColormap

    # Only a complete month is green, so that a single missing day can be seen.
    colors = LinearSegmentedColormap.from_list("coverage", [(0, _EMPTY), (0.999, _SOME), (1, _FULL)])
    axes.set_facecolor(_NOT_EXPECTED)  # seen where a cell is masked
    cells = np.ma.masked_invalid(np.array(values, dtype=float))
    edges = [np.arange(size + 1) - 0.5 for size in (cells.shape[1], cells.shape[0])]
    axes.pcolormesh(*edges, cells, cmap=colors, vmin=0, vmax=1, edgecolors="white", linewidth=0.5)
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)


def _draw_legend(figure: Figure) -> None:
    from matplotlib.patches import Patch

    meanings = {_FULL: "complete", _SOME: "few missing", _EMPTY: "all missing", _NOT_EXPECTED: "not expected"}
    patches = [Patch(color=color, label=meaning) for color, meaning in meanings.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), fontsize=8, frameon=False)
