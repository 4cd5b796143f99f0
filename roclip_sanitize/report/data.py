"""What the page is made of: values only, whatever files they came from.

results, curves, manifest, gallery ─▶ ReportData ─▶ render_page()
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

SCAN_ARM = "scan"  # results of the scan itself, or with ":NAME" of one of its detectors

GalleryKind = Literal["caught", "lost", "missed", "quarantined"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One measured number.

    Attributes:
        arm: which training run; "scan" or "scan:NAME" for the scan and its detectors.
        attack: which attack, or None for usefulness.
        metric: what was measured.
        value: share in [0, 1], or an AUROC; NaN where there was nothing to measure.
        low: lower end of its 95 % interval, where known.
        high: upper end.
        n: how many trials it rests on, where known.
        seed: of the run, where known.
    """

    arm: str
    attack: str | None
    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One number for one arm, attack and metric, all seeds together.

    Attributes:
        value: mean over the trials of all seeds.
        low: lowest end of the seeds' intervals: pooling would pretend that runs do not differ.
        high: highest end.
        n: trials of all seeds together, where known.
        seeds: how many runs it rests on.
    """

    value: float
    low: float | None
    high: float | None
    n: int | None
    seeds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """One number during training, after ``samples`` training pairs."""

    arm: str
    attack: str | None
    metric: str
    value: float
    samples: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of a run: its worth in seconds, bytes and pairs.

    Attributes:
        name: the command.
        seconds: wall time, where known.
        peak_memory_bytes: largest resident memory, where known.
        tally: what Tally.to_json() wrote, or {}.
    """

    name: str
    seconds: float | None = None
    peak_memory_bytes: float | None = None
    tally: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What ran. Every field may be empty.

    Attributes:
        title: the run's name.
        corpus: what data it ran on.
        command: how to run it again.
        void: why the run proves nothing, or "".
        facts: the other things said of the run, by heading: machine, versions, seeds, settings.
        stages: in the order in which they ran.
    """

    title: str = ""
    corpus: str = ""
    command: str = ""
    void: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    stages: tuple[Stage, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A pair that speaks for or against another: its caption and a small JPEG."""

    caption: str
    picture: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryItem:
    """One pair worth seeing.

    Attributes:
        uid: the pair's name.
        kind: "caught" and "missed" are planted poisons, "lost" a clean pair set aside; "quarantined"
            where nobody knows which it is.
        attack: what was planted, or "".
        reasons: of the verdict; none for a kept pair.
        sentence: the verdict in words.
        caption: as in the shard.
        picture: JPEG, at most 96 px a side; b"" where the picture cannot be decoded.
        neighbours: pairs that testify against it, at most four.
    """

    uid: str
    kind: GalleryKind
    attack: str
    reasons: tuple[str, ...]
    sentence: str
    caption: str
    picture: bytes
    neighbours: tuple[Neighbour, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """Everything on the page."""

    results: tuple[Result, ...]
    curves: tuple[CurvePoint, ...] = ()
    manifest: Manifest = field(default_factory=Manifest)
    gallery: tuple[GalleryItem, ...] = ()

    @property
    def trained(self) -> list[Result]:
        """Results of the training arms."""
        return [one for one in self.results if not _is_scan(one.arm)]

    @property
    def scanned(self) -> list[Result]:
        """Results of the scan and its detectors."""
        return [one for one in self.results if _is_scan(one.arm)]

    def measure(self, *, arm: str, attack: str | None, metric: str) -> Measure | None:
        """One number, or None where it was not measured."""
        wanted = (arm, attack, metric)
        found = [one for one in self.results if (one.arm, one.attack, one.metric) == wanted]
        return summarise(found) if found else None


def summarise(results: Sequence[Result]) -> Measure:
    """Bring the seeds of one arm, attack and metric together; at least one result."""
    sizes = [one.n for one in results]
    known = [size for size in sizes if size]
    weights = known if len(known) == len(sizes) else [1] * len(sizes)
    lows = [one.low for one in results if one.low is not None]
    highs = [one.high for one in results if one.high is not None]
    if sizes and not any(size is None or size for size in sizes):
        return Measure(value=math.nan, low=None, high=None, n=0, seeds=len({one.seed for one in results}))
    return Measure(
        value=sum(one.value * weight for one, weight in zip(results, weights, strict=True)) / sum(weights),
        low=min(lows, default=None),
        high=max(highs, default=None),
        n=sum(known) if len(known) == len(sizes) else None,
        seeds=len({one.seed for one in results}),
    )


def _is_scan(arm: str) -> bool:
    return arm.partition(":")[0] == SCAN_ARM
