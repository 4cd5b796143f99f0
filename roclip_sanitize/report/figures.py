"""Curves → drawings that live inside the page and take its colours.

Matplotlib draws in stand-in colours; the finished drawing names the page's CSS variables instead, so
that it follows the reader's light or dark theme. Text stays text. Door to matplotlib.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from roclip_sanitize.report import words
from roclip_sanitize.report.data import CurvePoint, ReportData
from roclip_sanitize.report.tables import KNOWN_ATTACKS, arm_colours, arms_in_order, in_order

SIZE_INCHES = (3.6, 2.6)
STAND_INS = {"#010101": "var(--ink-soft)", "#020202": "var(--line)"} | {
    f"#0{number}0a0b": f"var(--arm-{number})" for number in range(6)
}
INK, GRID = "#010101", "#020202"
DASHES = ("-", (0, (5, 2)), "-", (0, (1, 1.5)), (0, (5, 1, 1, 1)), (0, (3, 2)))
MARKERS = ("o", "s", "D", "^", "v", "P")
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "roclip",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": GRID,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "ytick.major.pad": 8,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One drawing.

    Attributes:
        title: what it shows.
        svg: markup, made here from numbers only.
        ending: the last values in words, for those who cannot see it.
    """

    title: str
    svg: str
    ending: str


def curve_panels(data: ReportData) -> list[Panel]:
    """One drawing per attack and metric, a line per arm."""
    attacks = in_order([point.attack for point in data.curves if point.attack], known=KNOWN_ATTACKS)
    panels = []
    for attack in (*attacks, None):
        mine = [point for point in data.curves if point.attack == attack]
        for metric in in_order([point.metric for point in mine], known=words.METRICS):
            panels.append(_panel(data, attack, metric, [point for point in mine if point.metric == metric]))
    return panels


def _panel(data: ReportData, attack: str | None, metric: str, points: Sequence[CurvePoint]) -> Panel:
    colours = arm_colours(data)
    lines = {
        arm: sorted((point.samples, point.value) for point in points if point.arm == arm)
        for arm in arms_in_order(data)
    }
    lines = {arm: line for arm, line in lines.items() if line}
    label = words.metric_words(metric).label
    name = f"{attack or 'clean'}-{metric}"
    return Panel(
        title=words.sentence_case(f"{words.spaced(attack)}: {label}" if attack else label),
        svg=_draw(lines, colours, name=name, x_label="training pairs seen"),
        ending="; ".join(
            f"{words.arm_label(arm)} ends at {words.percent(line[-1][1])}" for arm, line in lines.items()
        ),
    )


def _draw(
    lines: Mapping[str, Sequence[tuple[float, float]]], colours: Mapping[str, int], *, name: str, x_label: str
) -> str:
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=SIZE_INCHES)
        axes = figure.add_axes((0.16, 0.18, 0.81, 0.78))
        for arm, line in lines.items():
            number = colours[arm]
            axes.plot(
                [place for place, _ in line],
                [100 * value for _, value in line],
                color=f"#0{number}0a0b",
                linestyle=DASHES[number],
                linewidth=2,
                marker=MARKERS[number],
                markersize=4.5,
                clip_on=False,
            )
        axes.set_ylim(0, 100)
        axes.set_xlim(left=0)
        axes.grid(axis="y", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.set_xlabel(x_label)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f} %"))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short_count(value)))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _for_page(buffer.getvalue(), name)


def _short_count(value: float) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _for_page(svg: str, name: str) -> str:
    """Drop what belongs to a file of its own, make ids unique on the page, take its colours."""
    svg = svg[svg.index("<svg") :]
    opening, _, body = svg.partition(">")
    opening = re.sub(r'\s(xmlns(:\w+)?|version|width|height)="[^"]*"', "", opening)
    svg = f'{opening} aria-hidden="true">{body}'
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    prefix = re.sub(r"[^a-z0-9]+", "-", name.lower())
    svg = svg.replace(' id="', f' id="{prefix}-').replace("url(#", f"url(#{prefix}-")
    svg = svg.replace('xlink:href="#', f'href="#{prefix}-').replace("'DejaVu Sans'", "inherit")
    for stand_in, variable in STAND_INS.items():
        svg = svg.replace(stand_in, variable)
    return svg.strip()
