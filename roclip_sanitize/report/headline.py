"""Results → the verdict in one sentence, and the figures that stand under it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from roclip_sanitize.evaluation.counts import is_whole
from roclip_sanitize.report import words
from roclip_sanitize.report.data import Measure, ReportData
from roclip_sanitize.report.tables import arm_colours, arms_in_order, attacks_in_order

NAMED_ATTACKS = 3  # more do not fit into one sentence
TILE_ATTACKS = 4
BASELINE, DEFENDED = "undefended", "sanitised_consensus"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One number before and after.

    Attributes:
        label: what it is.
        before: undefended, as text.
        after: defended, as text; "" if there is no such arm.
        before_at: its place on a track from 0 to 100.
        after_at: the same, or None.
        better: "lower" or "higher".
        colours: palette numbers of the two.
    """

    label: str
    before: str
    after: str
    before_at: float
    after_at: float | None
    better: str
    colours: tuple[int, int]


def compared_arms(data: ReportData) -> tuple[str | None, str | None]:
    """The arm without and the arm with the defence, as far as they were run."""
    arms = arms_in_order(data)
    if not arms:
        return None, None
    before = BASELINE if BASELINE in arms else arms[0]
    others = [arm for arm in arms if arm != before]
    after = DEFENDED if DEFENDED in others else (others[-1] if others else None)
    return before, after


def headline(data: ReportData) -> str:
    """The verdict, built from the numbers alone."""
    before, after = compared_arms(data)
    attacks = [attack for attack in _attacks(data) if _success(data, before, attack)]
    if before is None or not attacks:
        return "No attack was measured in this run."
    say = _name_each if len(attacks) <= NAMED_ATTACKS else _give_range
    first, second = say(data, attacks, before, after)
    sentence = f"The attacker got {first} from {_in_sentence(before)}"
    return f"{sentence}; {_defence(after)}, {second}." if after and second else f"{sentence}."


def subline(data: ReportData) -> str:
    """What the defence cost in usefulness, and the floor under its attack success."""
    before, after = compared_arms(data)
    if before is None or after is None:
        return ""
    changes = [
        f"{label} went from {words.percent(old.value)} to {words.percent(new.value)}"
        for label, metric in (("zero-shot accuracy", "zero_shot_top1"), ("retrieval R@1", "retrieval_r1"))
        if (old := data.measure(arm=before, attack=None, metric=metric))
        and (new := data.measure(arm=after, attack=None, metric=metric))
    ]
    floors = [
        floor.value
        for attack in _attacks(data)
        if (floor := data.measure(arm=after, attack=attack, metric="clean_target_rate"))
    ]
    known = [value for value in floors if not math.isnan(value)]
    if known:
        most = words.percent(max(known))
        changes.append(f"clean pictures are called by the target's name anyway in up to {most} of cases")
    return words.sentence_case("; ".join(changes)) + "." if changes else ""


def tiles(data: ReportData) -> list[Tile]:
    """Before and after for the first attacks, zero-shot accuracy and retrieval."""
    before, after = compared_arms(data)
    if before is None:
        return []
    wanted: list[tuple[str, str | None, str]] = [
        (_tile_label(attack), attack, "attack_success") for attack in _attacks(data)[:TILE_ATTACKS]
    ]
    wanted += [("zero-shot accuracy", None, "zero_shot_top1"), ("retrieval R@1", None, "retrieval_r1")]
    colours = arm_colours(data)
    pair = (colours[before], colours[after] if after else 0)
    made = [_tile(data, label, (attack, metric), (before, after), pair) for label, attack, metric in wanted]
    return [tile for tile in made if tile]


def _attacks(data: ReportData) -> list[str]:
    """Attacks as wholes: each of several triggers has lines in the tables, and is no attack more."""
    return [attack for attack in attacks_in_order(data) if is_whole(attack)]


def _tile(
    data: ReportData,
    label: str,
    what: tuple[str | None, str],
    arms: tuple[str, str | None],
    colours: tuple[int, int],
) -> Tile | None:
    attack, metric = what
    old = data.measure(arm=arms[0], attack=attack, metric=metric)
    new = data.measure(arm=arms[1], attack=attack, metric=metric) if arms[1] else None
    if old is None or math.isnan(old.value):
        return None
    known = new is not None and not math.isnan(new.value)
    return Tile(
        label=label,
        before=words.measured(old),
        after=words.measured(new) if new and known else "",
        before_at=round(100 * old.value, 2),
        after_at=round(100 * new.value, 2) if new and known else None,
        better=words.metric_words(metric).better,
        colours=colours,
    )


def _name_each(data: ReportData, attacks: Sequence[str], before: str, after: str | None) -> tuple[str, str]:
    triggers = [attack for attack in attacks if attack != "targeted"]
    first, second = [], []
    for attack in attacks:
        old, new = _success(data, before, attack), _success(data, after, attack)
        unit = "targets" if attack == "targeted" else _trigger(attack, alone=len(triggers) == 1)
        if old is not None:
            first.append(
                f"{_short(old)} {unit}" if words.hits(old) and _few(old) else f"{_short(old)} of {unit}"
            )
            second.append(_short(new) if new else words.MISSING)
    return _listed(first), _listed(second) if any(text != words.MISSING for text in second) else ""


def _give_range(data: ReportData, attacks: Sequence[str], before: str, after: str | None) -> tuple[str, str]:
    old = [one.value for attack in attacks if (one := _success(data, before, attack))]
    new = [one.value for attack in attacks if (one := _success(data, after, attack))]
    first = f"{words.rounded_percent(min(old))} to {words.rounded_percent(max(old))} with {len(old)} attacks"
    return first, f"at most {words.rounded_percent(max(new))}" if new else ""


def _success(data: ReportData, arm: str | None, attack: str) -> Measure | None:
    found = data.measure(arm=arm, attack=attack, metric="attack_success") if arm else None
    return None if found is None or math.isnan(found.value) else found


def _few(measure: Measure) -> bool:
    return measure.n is not None and measure.n <= words.COUNTABLE


def _short(measure: Measure) -> str:
    return (words.hits(measure) if _few(measure) else None) or words.rounded_percent(measure.value)


def _trigger(attack: str, *, alone: bool) -> str:
    return "triggered pictures" if alone else f"pictures with the {words.spaced(attack)} trigger"


def _tile_label(attack: str) -> str:
    return "targets taken" if attack == "targeted" else f"{words.spaced(attack)} attack succeeds"


def _in_sentence(arm: str) -> str:
    label = words.arm_label(arm)
    return label[:1].lower() + label[1:]


def _defence(arm: str | None) -> str:
    return "after sanitising" if arm == DEFENDED else f"with {_in_sentence(arm or '')}"


def _listed(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
