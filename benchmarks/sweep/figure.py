"""The figure of a sweep: success against rate, attack by attack; below, utility against success.

Rates are drawn as planted pairs, since it is their number that makes an attack take; undefended CLIP
has to get above the dashed line. Where no attack has several rates, all share one chart, a line each.
A void cell is drawn hollow. Door to matplotlib, as report/figures.py is for the package.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.sweep.controls import SUCCESS_METRICS
from roclip_sanitize.outcome import CONTROL_SUCCESS
from roclip_sanitize.storage import atomic_file

if TYPE_CHECKING:
    import polars

PANEL = ["row", "attack", "model", "metric"]  # what one attack's numbers have in common
COLUMNS = 3
PANEL_INCHES = (3.4, 2.3)
UTILITY_INCHES = 3.4
LINE_INCHES, AXIS_INCHES = 0.34, 0.6
SPREAD = 0.6  # of a line's height, over which its methods are spread
COLOURS = ("#444444", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<")
ASIDE: dict[str, Any] = {"color": "#777777", "fontsize": 7, "verticalalignment": "bottom"}
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "roclip",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "legend.frameon": False,
}


def draw_figure(frame: polars.DataFrame, path: Path) -> bool:
    """Draw what table.py made.

    Returns:
        Whether there was something to draw: at least one cell with an attack.
    """
    import matplotlib
    import polars
    from matplotlib.figure import Figure

    success = frame.filter(polars.col("metric").is_in(SUCCESS_METRICS))
    if not len(success):
        return False
    methods = success["method"].unique(maintain_order=True).to_list()
    panels = success.partition_by(PANEL, maintain_order=True)
    one_rate = all(its["rate"].n_unique() == 1 for its in panels)
    rows = 1 if one_rate else math.ceil(len(panels) / COLUMNS)
    inches = len(panels) * LINE_INCHES + AXIS_INCHES if one_rate else PANEL_INCHES[1]
    with matplotlib.rc_context(STYLE):
        size = (COLUMNS * PANEL_INCHES[0], rows * inches + UTILITY_INCHES)
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.add_gridspec(rows + 1, COLUMNS, height_ratios=[*[inches] * rows, UTILITY_INCHES])
        if one_rate:
            _draw_lines(figure.add_subplot(grid[0, :]), panels, methods)
        else:
            for number, its in enumerate(panels):
                axes = figure.add_subplot(grid[number // COLUMNS, number % COLUMNS])
                _draw_rates(axes, its, methods)
                axes.set_title(_title(its, success))
        axes = figure.add_subplot(grid[rows, :])
        _draw_utility(axes, frame, success, methods)
        with atomic_file(path) as file:
            figure.savefig(file, format=path.suffix[1:], metadata={"Date": None})
    return True


def _title(its: polars.DataFrame, success: polars.DataFrame) -> str:
    row, attack, model, _ = its.select(PANEL).row(0)
    several = success["model"].n_unique() > 1
    return " · ".join([row if row == attack else f"{row}: {attack}", *[model] * several])


def _draw_lines(axes: Any, panels: Sequence[polars.DataFrame], methods: list[str]) -> None:
    """A line an attack, a marker a method; a bar from its lowest to its highest seed."""
    import polars

    success = polars.concat(panels)
    names = []
    for place, its in enumerate(panels):
        axes.axhline(place, color="#eeeeee", linewidth=0.8, zorder=0)
        planted = its["poisons"].to_list()
        names.append(f"{_title(its, success)}, {max(planted):,}")
        for method in its["method"].unique(maintain_order=True):
            look, seeds = methods.index(method), its.filter(polars.col("method") == method)
            value, void = 100 * seeds["value"], seeds["void"].any()
            colour = COLOURS[look % len(COLOURS)]
            height = place + SPREAD * ((look + 0.5) / len(methods) - 0.5)  # so that equal ones are seen
            axes.plot([value.min(), value.max()], [height, height], color=colour, linewidth=1.2)
            face = "white" if void else colour
            axes.plot(
                value.mean(),
                height,
                marker=MARKERS[look % len(MARKERS)],
                markersize=5,
                color=colour,
                markerfacecolor=face,
                clip_on=False,
            )
    axes.axvline(100 * CONTROL_SUCCESS, color="#999999", linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_yticks(range(len(panels)), labels=names)
    axes.set_ylim(len(panels) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.set_xlabel(
        "success of the attack, % (beside its name: planted pairs; dashed: what undefended CLIP must reach)"
    )


def _draw_rates(axes: Any, its: polars.DataFrame, methods: list[str]) -> None:
    import polars

    for method in its["method"].unique(maintain_order=True):
        look = methods.index(method) % len(COLOURS)
        line = (
            its.filter(polars.col("method") == method)
            .group_by("rate", maintain_order=True)
            .agg(polars.col("poisons").mean(), polars.col("value").mean(), polars.col("void").any())
            .sort("poisons")
        )
        axes.plot(line["poisons"], 100 * line["value"], color=COLOURS[look], linewidth=1.5)
        for poisons, value, void in line.select("poisons", "value", "void").rows():
            face = "white" if void else COLOURS[look]
            axes.plot(
                poisons,
                100 * value,
                marker=MARKERS[look],
                markersize=5,
                color=COLOURS[look],
                markerfacecolor=face,
                clip_on=False,
            )
    axes.axhline(100 * CONTROL_SUCCESS, color="#999999", linewidth=0.8, linestyle=(0, (4, 3)))
    axes.text(0, 100 * CONTROL_SUCCESS, " control", transform=axes.get_yaxis_transform(), **ASIDE)
    axes.set_ylim(0, 100)
    axes.set_xscale("log")
    counts = sorted(set(its["poisons"].to_list()))
    axes.set_xlim(counts[0] / 1.3, counts[-1] * 1.3)
    axes.set_xticks(counts, labels=[f"{count:,}" for count in counts])
    axes.minorticks_off()
    axes.set_xlabel("planted pairs")
    axes.set_ylabel("success, %")


def _draw_utility(axes: Any, frame: polars.DataFrame, success: polars.DataFrame, methods: list[str]) -> None:
    import polars

    useful = frame.filter(polars.col("attack").is_null() & (polars.col("metric") == "zero_shot_top1"))
    points = success.join(useful.select("cell", "row", utility="value"), on=["cell", "row"])
    for method in methods:
        look = methods.index(method) % len(COLOURS)
        its = points.filter(polars.col("method") == method)
        for void, face in ((False, COLOURS[look]), (True, "white")):
            some = its.filter(polars.col("void") == void)
            axes.scatter(
                100 * some["value"],
                100 * some["utility"],
                marker=MARKERS[look],
                s=26,
                edgecolors=COLOURS[look],
                facecolors=face,
                label=method if not void else None,
                clip_on=False,
            )
    axes.set_xlim(0, 100)
    axes.set_xlabel("success of the attack, % (hollow: void, undefended CLIP did not fall)")
    axes.set_ylabel("zero-shot, %")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
