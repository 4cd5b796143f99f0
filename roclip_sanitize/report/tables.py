"""Results → tables, generated from the records: an arm, attack or metric nobody foresaw has its place too.

attacks      a group of lines per attack, a line per arm, metrics across
usefulness   a line per arm, metrics of the clean model across
detection    a line per attack, metrics of the scan and its detectors across
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from roclip_sanitize.report import words
from roclip_sanitize.report.data import Measure, ReportData

KNOWN_ATTACKS = tuple(words.ATTACKS)
COLOURS = 6  # of page.css: --arm-0 … --arm-5

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One number with its bar.

    Attributes:
        text: the number.
        interval: its interval, or "".
        basis: what it rests on, or "".
        width: length of the bar in percent, 0–100; None draws none.
        low: where the interval's whisker starts, 0–100.
        span: its length, 0–100; 0 draws none.
    """

    text: str
    interval: str = ""
    basis: str = ""
    width: float | None = None
    low: float = 0.0
    span: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a table; ``colour`` is a number of the palette, or None for ink."""

    label: str
    colour: int | None
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One metric, under a heading that may say whose it is."""

    label: str
    metric: words.MetricWords


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Lines that belong together; ``title`` and ``note`` may be ""."""

    title: str
    note: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table; each line has a cell per column."""

    title: str
    columns: tuple[Column, ...]
    groups: tuple[Group, ...]


def arms_in_order(data: ReportData) -> list[str]:
    """Training arms: the known ones first, the others as they come."""
    found = [one.arm for one in data.trained] + [point.arm for point in data.curves]
    return in_order(found, known=words.ARMS)


def attacks_in_order(data: ReportData) -> list[str]:
    """Attacks that some training arm faced."""
    return in_order([one.attack for one in data.trained if one.attack], known=KNOWN_ATTACKS)


def in_order(found: Iterable[Name], *, known: Iterable[Name]) -> list[Name]:
    """Names without repetition: known ones first and in their order, the others as they come."""
    names = dict.fromkeys(found)
    first = [name for name in dict.fromkeys(known) if name in names]
    return first + [name for name in names if name not in first]


def arm_colours(data: ReportData) -> dict[str, int]:
    """A colour of the palette per arm. The known arms always have their own."""
    order = in_order([*words.ARMS, *arms_in_order(data)], known=())
    return {arm: number % COLOURS for number, arm in enumerate(order)}


def attack_table(data: ReportData) -> Table | None:
    """Before and after, attack by attack, or None if no attack was measured."""
    attacks = attacks_in_order(data)
    return _arm_table(data, attacks, title="Under attack") if attacks else None


def usefulness_table(data: ReportData) -> Table | None:
    """What the models are good for, or None if that was not measured."""
    table = _arm_table(data, [None], title="Usefulness")
    return table if table.columns else None


def detection_table(data: ReportData) -> Table | None:
    """How well the scan told planted pairs from clean ones, or None if that was not measured."""
    if not data.scanned:
        return None
    found = [(one.metric, one.arm) for one in data.scanned]
    arms = in_order([arm for _, arm in found], known=())
    columns = in_order(found, known=[(metric, arm) for metric in words.METRICS for arm in arms])
    rows = [
        Row(
            label=words.spaced(attack) if attack else "whole corpus",
            colour=None,
            cells=tuple(_cell(data, arm, attack, metric) for metric, arm in columns),
        )
        for attack in _attacks_scanned(data)
    ]
    return Table(
        title="The scan",
        columns=tuple(_scan_column(metric, arm) for metric, arm in columns),
        groups=(Group(title="", note="", rows=tuple(rows)),),
    )


def cell_of(measure: Measure | None, *, is_share: bool) -> Cell:
    """Draw one number. All bars start at 0 and end at 1, so that lengths compare across the page."""
    if measure is None or math.isnan(measure.value):
        return Cell(text=words.MISSING)
    low, high = (100 * _within(end) for end in (measure.low or 0.0, measure.high or 0.0))
    return Cell(
        text=words.measured(measure, is_share=is_share),
        interval=words.interval(measure, is_share=is_share),
        basis=words.basis(measure),
        width=round(100 * _within(measure.value), 2),
        low=round(low, 2),
        span=round(max(0.0, high - low), 2) if measure.low is not None else 0.0,
    )


def _arm_table(data: ReportData, attacks: Sequence[str | None], *, title: str) -> Table:
    metrics = in_order([one.metric for one in data.trained if one.attack in attacks], known=words.METRICS)
    return Table(
        title=title,
        columns=tuple(
            Column(label=words.metric_words(one).label, metric=words.metric_words(one)) for one in metrics
        ),
        groups=tuple(_group(data, attack, metrics) for attack in attacks),
    )


def _group(data: ReportData, attack: str | None, metrics: Sequence[str]) -> Group:
    measured = {one.arm for one in data.trained if one.attack == attack}
    colours = arm_colours(data)
    rows = tuple(
        Row(
            label=words.arm_label(arm),
            colour=colours[arm],
            cells=tuple(_cell(data, arm, attack, metric) for metric in metrics),
        )
        for arm in arms_in_order(data)
        if arm in measured
    )
    title = words.sentence_case(words.spaced(attack or ""))
    return Group(title=title, note=words.ATTACKS.get(attack or "", ""), rows=rows)


def _attacks_scanned(data: ReportData) -> list[str | None]:
    attacks = in_order([one.attack for one in data.scanned], known=KNOWN_ATTACKS)
    return [attack for attack in attacks if attack] + [None] * (None in attacks)


def _scan_column(metric: str, arm: str) -> Column:
    detector = arm.partition(":")[2]
    metric_words = words.metric_words(metric)
    label = f"{metric_words.label}: {words.spaced(detector)}" if detector else metric_words.label
    return Column(label=label, metric=metric_words)


def _cell(data: ReportData, arm: str, attack: str | None, metric: str) -> Cell:
    measure = data.measure(arm=arm, attack=attack, metric=metric)
    return cell_of(measure, is_share=words.metric_words(metric).is_share)


def _within(share: float) -> float:
    return min(1.0, max(0.0, share))
