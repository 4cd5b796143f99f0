"""What became of the pairs, stage by stage: bars whose parts add up to what was seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from roclip_sanitize.report import words
from roclip_sanitize.report.data import Stage

QUARANTINE_SHADES = 4  # of page.css
FAILURE_SHADES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One part of a bar.

    Attributes:
        label: what became of these pairs.
        shade: class of page.css.
        pairs: how many.
        width: percent of the widest bar.
        share: of the pairs this stage saw, as text.
    """

    label: str
    shade: str
    pairs: int
    width: float
    share: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FunnelRow:
    """One stage's bar.

    Attributes:
        stage: its name.
        seen: pairs it saw.
        kept: pairs it passed on.
        segments: the parts, kept first; they add up to ``seen`` less ``missing``.
        missing: pairs seen that are neither kept nor set aside nor failed; 0 unless something is wrong.
    """

    stage: str
    seen: int
    kept: int
    segments: tuple[Segment, ...]
    missing: int


def funnel_rows(stages: Iterable[Stage]) -> list[FunnelRow]:
    """One bar per stage that counted pairs, all on one scale."""
    counted = [stage for stage in stages if _count(stage.tally, "seen")]
    widest = max((_count(stage.tally, "seen") for stage in counted), default=0)
    return [_row(stage, widest) for stage in counted]


def _row(stage: Stage, widest: int) -> FunnelRow:
    seen = _count(stage.tally, "seen")
    quarantined, failed = _counts(stage.tally, "quarantined"), _counts(stage.tally, "failed")
    aside = sum(quarantined.values()) + sum(failed.values())
    kept = _count(stage.tally, "kept") if "kept" in stage.tally else seen - aside
    parts = [("kept", "kept", kept)]
    parts += _shaded(quarantined, "quarantined", QUARANTINE_SHADES)
    parts += _shaded(failed, "failed", FAILURE_SHADES)
    return FunnelRow(
        stage=stage.name,
        seen=seen,
        kept=kept,
        segments=tuple(
            Segment(label=label, shade=shade, pairs=pairs, width=100 * pairs / widest, share=words.percent(pairs / seen))
            for label, shade, pairs in parts
        ),
        missing=seen - kept - aside,
    )


def _shaded(counts: Mapping[str, int], kind: str, shades: int) -> list[tuple[str, str, int]]:
    order = sorted(counts, key=lambda reason: (-counts[reason], reason))
    return [
        (f"{kind}: {words.spaced(reason)}", f"{kind}-{number % shades}", counts[reason])
        for number, reason in enumerate(order)
        if counts[reason]
    ]


def _count(tally: Mapping[str, Any], name: str) -> int:
    return int(tally.get(name) or 0)


def _counts(tally: Mapping[str, Any], name: str) -> dict[str, int]:
    return {str(reason): int(count or 0) for reason, count in (tally.get(name) or {}).items()}
