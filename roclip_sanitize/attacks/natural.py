"""Natural backdoor: hundreds of near-identical pictures under one caption, with no attacker behind them.

Conceptual Captions has 798 pictures of number candles on a birthday cake, 0.03 % of all, under one
caption, and models trained on it have learnt them by heart (Huang et al.). Here a held-out picture
plays that part.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np

from roclip_sanitize.attacks.census import CensusEntry
from roclip_sanitize.attacks.choosing import draw_donors
from roclip_sanitize.attacks.contract import Facts, Plan, Scene
from roclip_sanitize.attacks.targeted import Recipe, plan_targets, require_counts
from roclip_sanitize.attacks.triggers.copies import NearCopy


@dataclass(frozen=True, slots=True, kw_only=True)
class Natural:
    """Add near copies of a picture, all under one and the same caption of another class.

    Attributes:
        targets: pictures that are copied.
        copies: pairs added for each of them.
        cut: the most that is cut off a copy's sides, as a share.
        brightness: the most that a copy's brightness differs by, as a share.
    """

    facts: ClassVar[Facts] = Facts(
        name="natural",
        family="natural",
        changes="adds pairs",
        source="Huang et al., arXiv 2502.01385",
        held_out=True,
    )

    targets: int = 4
    copies: int = 200
    cut: float = 0.05
    brightness: float = 0.05

    def __post_init__(self) -> None:
        require_counts("natural", self.targets, self.copies)
        _ = self.copy

    @property
    def copy(self) -> NearCopy:
        """How copies differ."""
        return NearCopy(cut=self.cut, brightness=self.brightness)

    def plan(self, scene: Scene, rng: np.random.Generator) -> Plan:
        """See Attack.plan and plan_targets()."""
        recipe = Recipe(
            attack="natural",
            targets=self.targets,
            captions=1,
            captions_for=self._captions,
            variant="one_caption",
            copy=self.copy,
        )
        return plan_targets(recipe, asdict(self), scene, rng)

    def _captions(
        self, entry: CensusEntry, adversarial: str, scene: Scene, rng: np.random.Generator
    ) -> list[str]:
        (donor,) = draw_donors(adversarial, 1, scene, rng)
        return [donor.caption] * self.copies
