"""The plot of a race: ``python plot.py RESULTS PICTURE``, run where matplotlib is installed.

It is a program of its own and imports nothing from the project, because matplotlib is no dependency of the project.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Final

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

_COLORS: Final = {True: ("#1f6f8b", "#9ccbd8"), False: ("#6b6b6b", "#c9c9c9")}
_BAR: Final = 0.38
_INCHES_PER_LINE: Final = 0.42


def draw(panels: list[dict[str, Any]], picture: str) -> None:
    """Draw one panel per workload: wall and CPU time of each tool, fastest first."""
    heights = [len(panel["runs"]) + 1.5 for panel in panels]
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(9.5, sum(heights) * _INCHES_PER_LINE), height_ratios=heights, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axis, panel in zip(axes[:, 0], panels, strict=True):
        _draw_panel(axis, panel)
    figure.align_ylabels()
    figure.savefig(picture, dpi=110, metadata={"Software": None})


def _draw_panel(axis: Any, panel: dict[str, Any]) -> None:
    runs = sorted(panel["runs"], key=lambda run: run["seconds"])
    for place, run in enumerate(runs):
        wall, cpu = _COLORS[run["own"]]
        _draw_bar(axis, place - _BAR / 2, run["seconds"], wall, "" if run["exact"] else " (not exact)")
        _draw_bar(axis, place + _BAR / 2, run["cpu"], cpu, "")
    axis.set_yticks(range(len(runs)), [run["line"] for run in runs])
    axis.invert_yaxis()
    axis.set_ylabel("tool · source")
    axis.set_xlabel("seconds (dark: wall time, light: CPU time)")
    axis.set_xlim(0, max(max(run["seconds"], run["cpu"]) for run in runs) * 1.2)
    axis.set_title(panel["title"], loc="left", fontsize=11, fontweight="bold")
    axis.spines[["top", "right"]].set_visible(False)


def _draw_bar(axis: Any, place: float, seconds: float, color: str, remark: str) -> None:
    axis.barh(place, seconds, _BAR, color=color)
    axis.annotate(f" {seconds:.1f}{remark}", (seconds, place), va="center", fontsize=8)


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        draw(json.load(file), sys.argv[2])
