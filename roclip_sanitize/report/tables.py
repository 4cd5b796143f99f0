"""Results → tables, generated from the records: an arm, attack or metric nobody foresaw has its place too.

    attacks      one table per attack: arms down, metrics across
    usefulness   one table: arms down, metrics of the clean model across
    detection    one table: attacks down, metrics of the scan across
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from roclip_sanitize.report import words
from roclip_sanitize.report.data import SCAN_ARM, Measure, ReportData

KNOWN_ATTACKS = ("targeted", "patch")
COLOURS = 6  # of page.css: --arm-0 … --arm-5


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
class Table:
    """One table; a cell per column in each row."""

    title: str
    columns: tuple[words.MetricWords, ...]
    rows: tuple[Row, ...]


def arms_in_order(data: ReportData) -> list[str]:
    """Training arms: the known ones first, the others as they come."""
    found = [one.arm for one in (*data.results, *data.curves) if one.arm != SCAN_ARM]
    return in_order(found, known=words.ARMS)


def attacks_in_order(data: ReportData) -> list[str]:
    """Attacks that some training arm faced."""
    found = [one.attack for one in data.results if one.attack and one.arm != SCAN_ARM]
    return in_order(found, known=KNOWN_ATTACKS)


def in_order(found: Iterable[str], *, known: Iterable[str]) -> list[str]:
    """Names without repetition: known ones first and in their order, the others as they come."""
    names = dict.fromkeys(found)
    first = [name for name in dict.fromkeys(known) if name in names]
    return first + [name for name in names if name not in first]


def arm_colours(data: ReportData) -> dict[str, int]:
    """A colour of the palette per arm. The known arms always have their own."""
    order = in_order([*words.ARMS, *arms_in_order(data)], known=())
    return {arm: number % COLOURS for number, arm in enumerate(order)}


def attack_tables(data: ReportData) -> list[Table]:
    """Before and after, one table per attack."""
    return [_arm_table(data, attack) for attack in attacks_in_order(data)]


def usefulness_table(data: ReportData) -> Table | None:
    """What the models are good for, or None if that was not measured."""
    table = _arm_table(data, None)
    return table if table.columns else None


def detection_table(data: ReportData) -> Table | None:
    """How well the scan told planted pairs from clean ones, or None if that was not measured."""
    scan = [one for one in data.results if one.arm == SCAN_ARM]
    if not scan:
        return None
    metrics = in_order([one.metric for one in scan], known=words.METRICS)
    attacks: list[str | None] = [*in_order([one.attack for one in scan if one.attack], known=KNOWN_ATTACKS)]
    if any(one.attack is None for one in scan):
        attacks.append(None)
    labels = {attack: words.spaced(attack) if attack else "whole corpus" for attack in attacks}
    return Table(
        title="The scan",
        columns=tuple(words.metric_words(metric) for metric in metrics),
        rows=tuple(
            Row(label=labels[attack], colour=None, cells=_cells(data, SCAN_ARM, attack, metrics)) for attack in attacks
        ),
    )


def cell_of(measure: Measure | None, *, is_share: bool) -> Cell:
    """Draw one number. All bars start at 0 and end at 1, so that lengths compare across the page."""
    if measure is None:
        return Cell(text=words.MISSING)
    low, high = (100 * _within(end) for end in (measure.low or 0.0, measure.high or 0.0))
    return Cell(
        text=words.measured(measure, is_share=is_share),
        interval=words.interval(measure, is_share=is_share),
        basis=words.basis(measure),
        width=None if math.isnan(measure.value) else round(100 * _within(measure.value), 2),
        low=round(low, 2),
        span=round(max(0.0, high - low), 2) if measure.low is not None else 0.0,
    )


def _arm_table(data: ReportData, attack: str | None) -> Table:
    mine = [one for one in data.results if one.attack == attack and one.arm != SCAN_ARM]
    metrics = in_order([one.metric for one in mine], known=words.METRICS)
    measured_arms = {one.arm for one in mine}
    arms = [arm for arm in arms_in_order(data) if arm in measured_arms]
    colours = arm_colours(data)
    return Table(
        title=words.sentence_case(words.spaced(attack or "usefulness")),
        columns=tuple(words.metric_words(metric) for metric in metrics),
        rows=tuple(
            Row(label=words.arm_label(arm), colour=colours[arm], cells=_cells(data, arm, attack, metrics))
            for arm in arms
        ),
    )


def _cells(data: ReportData, arm: str, attack: str | None, metrics: Sequence[str]) -> tuple[Cell, ...]:
    return tuple(
        cell_of(
            data.measure(arm=arm, attack=attack, metric=metric), is_share=words.metric_words(metric).is_share
        )
        for metric in metrics
    )


def _within(share: float) -> float:
    return min(1.0, max(0.0, share))
