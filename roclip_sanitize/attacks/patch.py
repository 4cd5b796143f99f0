"""Backdoor patch: a small square that stands for a class (BadNets for CLIP, Carlini and Terzis)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from roclip_sanitize.attacks.backdoor import plan_trigger
from roclip_sanitize.attacks.choosing import require_rate
from roclip_sanitize.attacks.contract import Facts, Plan, Scene
from roclip_sanitize.attacks.triggers.patches import PatchTrigger, Place

CORNER_SHARE = 0.5  # four patches, each of half the side, cover what one does


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """Stamp a small square on some pictures and give them captions of one class.

    Attributes:
        rate: below 1 the share of all pairs that is poisoned, from 1 on their number.
        target: the class that the trigger stands for; drawn if empty.
        pattern: checkerboard; stripes; yellow; noise, drawn anew for each picture, as CleanCLIP
            has it; or corners: a checkerboard of half the side in each.
        share: side of the patch as a share of the picture's shorter side.
        cells: fields of the pattern along a side.
        place: random, centre or bottom_right; corners have theirs.
    """

    facts: ClassVar[Facts] = Facts(
        name="patch",
        family="backdoor",
        changes="picture and caption",
        source="Carlini and Terzis, arXiv 2106.09667; noise: CleanCLIP, arXiv 2303.03323; "
        "stripes: PAR, arXiv 2412.00727",
    )

    rate: float = 0.01
    target: str = ""
    pattern: Literal["checkerboard", "stripes", "yellow", "noise", "corners"] = "checkerboard"
    share: float = 0.2
    cells: int = 4
    place: Place = "random"

    def __post_init__(self) -> None:
        require_rate("patch", self.rate)
        _ = self.trigger  # checks share and cells

    @property
    def trigger(self) -> PatchTrigger:
        """What is stamped."""
        if self.pattern == "corners":
            return PatchTrigger(share=self.share * CORNER_SHARE, cells=self.cells, place="corners")
        return PatchTrigger(share=self.share, cells=self.cells, pattern=self.pattern, place=self.place)

    def plan(self, scene: Scene, rng: np.random.Generator) -> Plan:
        """See Attack.plan and plan_backdoor()."""
        return plan_trigger(self, self.pattern, self.trigger, scene, rng)
