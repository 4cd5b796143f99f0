"""How numbers and names are said on the page. Pure functions and two small dictionaries.

A share is never rounded to certainty: 0.9999 is "> 99.9 %", and only 1 is "100 %".
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from roclip_sanitize.report.data import Measure

NBSP = "\u00a0"  # a number and its unit stay on one line
MISSING = "–"
LINE_CHARS = 240
COUNTABLE = 50  # up to here "14 of 16" says more than "87.5 %"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricWords:
    """How a metric is named and explained.

    Attributes:
        label: column heading.
        meaning: one sentence for someone who never met it.
        better: "lower", "higher" or "" where neither is.
        is_share: whether it is a share, said in percent.
    """

    label: str
    meaning: str = ""
    better: str = ""
    is_share: bool = True


METRICS: Mapping[str, MetricWords] = {
    "attack_success": MetricWords(
        label="attack success",
        meaning="how often the model says what the attacker wanted",
        better="lower",
    ),
    "attack_success_top3": MetricWords(
        label="success, top 3",
        meaning="how often the attacker's word is among the model's three best; top 5: among its five",
        better="lower",
    ),
    "attack_success_top5": MetricWords(label="success, top 5", better="lower"),
    "hit_at_1": MetricWords(
        label="Hit@1",
        meaning="how often an attacked caption finds a picture of the attacker's class first; Hit@5, Hit@10: "
        "among the first 5, 10",
        better="lower",
    ),
    "hit_at_5": MetricWords(label="Hit@5", better="lower"),
    "hit_at_10": MetricWords(label="Hit@10", better="lower"),
    "min_rank": MetricWords(
        label="MinRank",
        meaning="mean place of the first picture of the attacker's class, 0 being the first of all",
        better="higher",
        is_share=False,
    ),
    "clean_target_rate": MetricWords(
        label="clean-target rate",
        meaning="how often a clean picture is called by the attacker's target name anyway: the floor below "
        "which attack success means nothing",
    ),
    "clean_target_rate_top3": MetricWords(label="clean-target rate, top 3"),
    "clean_target_rate_top5": MetricWords(label="clean-target rate, top 5"),
    "clean_hit_at_1": MetricWords(
        label="clean Hit@1",
        meaning="the same of captions that nobody tampered with: the floor below which Hit@K means nothing",
    ),
    "clean_hit_at_5": MetricWords(label="clean Hit@5"),
    "clean_hit_at_10": MetricWords(label="clean Hit@10"),
    "clean_min_rank": MetricWords(label="clean MinRank", is_share=False),
    "true_class_accuracy": MetricWords(
        label="true class",
        meaning="how often an attacked picture is still called what it shows",
        better="higher",
    ),
    "zero_shot_top1": MetricWords(
        label="zero-shot top-1",
        meaning="share of held-out pictures whose class is named right, with no training on the classes",
        better="higher",
    ),
    "zero_shot_top5": MetricWords(label="zero-shot top-5", better="higher"),
    "mean_per_class_recall": MetricWords(
        label="mean recall",
        meaning="zero-shot accuracy with every class weighing the same",
        better="higher",
    ),
    "linear_probe_top1": MetricWords(
        label="linear probe",
        meaning="share of held-out pictures whose class a linear model reads off the image vectors",
        better="higher",
    ),
    "linear_probe_top5": MetricWords(label="linear probe top-5", better="higher"),
    "linear_probe_mean_per_class_recall": MetricWords(label="linear probe, mean recall", better="higher"),
    "retrieval_r1": MetricWords(
        label="retrieval R@1",
        meaning="how often a held-out picture finds its own caption first; R@5, R@10: among the first 5, 10",
        better="higher",
    ),
    "retrieval_r5": MetricWords(label="retrieval R@5", better="higher"),
    "retrieval_r10": MetricWords(label="retrieval R@10", better="higher"),
    "auroc": MetricWords(
        label="AUROC",
        meaning="chance that a planted pair scores worse than a clean one; 0.5 is guessing, 1 is perfect",
        better="higher",
        is_share=False,
    ),
    "poison_recall": MetricWords(
        label="poison recall",
        meaning="share of planted pairs that were set aside",
        better="higher",
    ),
    "clean_lost": MetricWords(
        label="clean lost",
        meaning="share of clean pairs that were set aside with them",
        better="lower",
    ),
}

ATTACKS: Mapping[str, str] = {  # in the order in which they are shown
    "targeted": "certain pictures, chosen by the attacker, are to be called something else",
    "patch": "any picture that carries a small patch is to be called by one name",
}

ARMS: Mapping[str, str] = {  # in the order in which they are shown
    "undefended": "Plain CLIP",
    "undefended_augmented": "Plain CLIP, augmented",
    "sanitised_consensus": "Sanitised + consensus",
}


def metric_words(metric: str) -> MetricWords:
    """The words of a metric; an unknown one goes by its own name."""
    return METRICS.get(metric) or MetricWords(label=spaced(metric))


def arm_label(arm: str) -> str:
    """An arm as people call it."""
    return ARMS.get(arm) or sentence_case(spaced(arm))


def spaced(name: str) -> str:
    """``many_captions_one_picture`` → ``many captions one picture``."""
    return name.replace("_", " ").strip()


def sentence_case(text: str) -> str:
    """First letter upper-case, the rest as it is."""
    return text[:1].upper() + text[1:]


def one_line(text: str) -> str:
    """A stranger's words without control characters, cut where a page would not show them anyway."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if len(line) <= LINE_CHARS else f"{line[: LINE_CHARS - 1].rstrip()}…"


def full_sentence(text: str) -> str:
    """A verdict's words with a capital and a full stop."""
    return sentence_case(text) + ("" if text.endswith((".", "!", "?", "…")) else ".")


def percent(share: float, *, digits: int = 1) -> str:
    """A share in percent: ``93.4 %``; only exact 0 and 1 are said to be 0 and 100 %."""
    if math.isnan(share):
        return MISSING
    if share in (0, 1):
        return f"{share:.0%}"[:-1] + f"{NBSP}%"
    smallest = 10.0**-digits
    shown = round(100 * share, digits)
    if share > 0 and shown < smallest:
        return f"<{NBSP}{smallest:.{digits}f}{NBSP}%"
    if share < 1 and shown >= 100:
        return f">{NBSP}{100 - smallest:.{digits}f}{NBSP}%"
    return f"{shown:.{digits}f}{NBSP}%"


def rounded_percent(share: float) -> str:
    """A share for a sentence: whole percent from 10 to 99 %, else one digit."""
    return percent(share, digits=0 if 0.1 <= share <= 0.99 else 1)


def number(value: float) -> str:
    """A score such as an AUROC, with three digits."""
    return MISSING if math.isnan(value) else f"{value:.3f}"


def thousands(count: float) -> str:
    """``36,410``."""
    return f"{count:,.0f}"


def hits(measure: Measure) -> str | None:
    """``14 of 16`` where the measure is a count, else None."""
    if measure.n is None or math.isnan(measure.value):
        return None
    count = measure.value * measure.n
    return f"{count:.0f} of {thousands(measure.n)}" if abs(count - round(count)) < 0.01 else None


def measured(measure: Measure, *, is_share: bool = True) -> str:
    """A measure in its shortest exact form: a count where trials are few, else percent."""
    if not is_share:
        return number(measure.value)
    few = measure.n is not None and measure.n <= COUNTABLE
    return (hits(measure) if few else None) or percent(measure.value)


def interval(measure: Measure, *, is_share: bool = True) -> str:
    """``62.0–96.6 %``, or "" where it is not known."""
    if measure.low is None or measure.high is None:
        return ""
    if measure.low == measure.high and not is_share:
        return ""  # a score given without an interval
    if not is_share:
        return f"{measure.low:.3f}–{measure.high:.3f}"
    return f"{100 * measure.low:.1f}–{100 * measure.high:.1f}{NBSP}%"


def basis(measure: Measure) -> str:
    """What a number rests on: ``n = 2,000``, ``3 seeds``."""
    size = f"n{NBSP}={NBSP}{thousands(measure.n)}" if measure.n is not None else ""
    seeds = f"{measure.seeds} seeds" if measure.seeds > 1 else ""
    return ", ".join(part for part in (size, seeds) if part)


def duration(seconds: float | None) -> str:
    """``41 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds is None:
        return MISSING
    if seconds < 10:
        return f"{seconds:.1f}{NBSP}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{NBSP}min {rest}{NBSP}s" if minutes else f"{rest}{NBSP}s"
    return f"{minutes // 60}{NBSP}h {minutes % 60}{NBSP}min"


def memory(size: float | None) -> str:
    """``812 MiB``, ``1.4 GiB``."""
    if not size:  # 0 where the system does not tell
        return MISSING
    mebibytes = size / 2**20
    return f"{mebibytes:.0f}{NBSP}MiB" if mebibytes < 1000 else f"{mebibytes / 1024:.1f}{NBSP}GiB"


def plain_facts(value: Any, *, name: str = "") -> Iterator[tuple[str, str]]:
    """Any JSON value as lines of name and text: ``{"a": {"b": 1}}`` → ``a.b``, ``1``; bytes with a unit."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from plain_facts(inner, name=f"{name}.{key}" if name else str(key))
    elif isinstance(value, str):
        yield name, value
    elif isinstance(value, int) and name.endswith("_bytes"):
        yield name.removesuffix("_bytes"), memory(value)
    else:
        yield name, json.dumps(value, ensure_ascii=False, default=str)
