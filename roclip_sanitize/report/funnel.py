"""What became of the pairs, stage by stage: bars whose parts add up to what was seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from roclip_sanitize.report import words
from roclip_sanitize.report.data import Stage

QUARANTINE_SHADES = 8  # of page.css
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
    """The bar of one stage, or of several with the same counts.

    Attributes:
        stage: its name, or their names.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counts:
    """A tally as values that compare."""

    seen: int
    kept: int
    quarantined: tuple[tuple[str, int], ...]
    failed: tuple[tuple[str, int], ...]

    @property
    def missing(self) -> int:
        return self.seen - self.kept - sum(count for _, count in self.quarantined + self.failed)


def funnel_rows(stages: Iterable[Stage]) -> list[FunnelRow]:
    """One bar for all stages with the same counts, in the order of the stages, all on one scale."""
    names = dict[_Counts, list[str]]()
    for stage in stages:
        counts = _counts(stage.tally)
        if counts.seen:
            names.setdefault(counts, []).append(stage.name)
    widest = max((counts.seen for counts in names), default=0)
    return [_row(", ".join(same), counts, widest) for counts, same in names.items()]


def _row(stage: str, counts: _Counts, widest: int) -> FunnelRow:
    parts = [("kept", "kept", counts.kept)]
    parts += _shaded(counts.quarantined, "quarantined", QUARANTINE_SHADES)
    parts += _shaded(counts.failed, "failed", FAILURE_SHADES)
    segments = [
        Segment(
            label=label,
            shade=shade,
            pairs=pairs,
            width=100 * pairs / widest,
            share=words.percent(pairs / counts.seen),
        )
        for label, shade, pairs in parts
    ]
    return FunnelRow(
        stage=stage, seen=counts.seen, kept=counts.kept, segments=tuple(segments), missing=counts.missing
    )


def _shaded(counts: Iterable[tuple[str, int]], kind: str, shades: int) -> list[tuple[str, str, int]]:
    return [
        (f"{kind}: {words.spaced(reason)}", f"{kind}-{number % shades}", count)
        for number, (reason, count) in enumerate(counts)
    ]


def _counts(tally: Mapping[str, Any]) -> _Counts:
    seen = int(tally.get("seen") or 0)
    quarantined, failed = _by_reason(tally, "quarantined"), _by_reason(tally, "failed")
    kept = tally.get("kept")
    if kept is None:
        kept = seen - sum(count for _, count in quarantined + failed)
    return _Counts(seen=seen, kept=int(kept), quarantined=quarantined, failed=failed)


def _by_reason(tally: Mapping[str, Any], name: str) -> tuple[tuple[str, int], ...]:
    """Reasons with their counts, the commonest first."""
    counts = {str(reason): int(count or 0) for reason, count in (tally.get(name) or {}).items()}
    return tuple(
        (reason, counts[reason])
        for reason in sorted(counts, key=lambda one: (-counts[one], one))
        if counts[reason]
    )
