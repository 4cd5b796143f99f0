"""mmPoison: captions of one class on pictures of another, so that asking for one finds the other."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar, Literal

import numpy as np

from roclip_sanitize.attacks.backdoor import shown_instead
from roclip_sanitize.attacks.choosing import choose_class, draw_donors, draw_victims_of, require_rate
from roclip_sanitize.attacks.contract import Facts, Plan, Scene, Swap


@dataclass(frozen=True, slots=True, kw_only=True)
class MmPoison:
    """Replace the pictures of one class's pairs by pictures of another class.

    Attributes:
        rate: below 1 the share of all pairs that is poisoned, from 1 on their number; capped by
            the pairs of the class asked for.
        asked: the class that the captions speak of; drawn if empty.
        shown: the class that the new pictures show; drawn if empty.
        pictures: many, one for each caption; or one for all of them.
    """

    facts: ClassVar[Facts] = Facts(
        name="mmpoison",
        family="mismatch",
        changes="picture",
        source="Yang et al., ICML 2023, arXiv 2209.15266",
    )

    rate: float = 0.01
    asked: str = ""
    shown: str = ""
    pictures: Literal["many", "one"] = "many"

    def __post_init__(self) -> None:
        require_rate("mmpoison", self.rate)

    def plan(self, scene: Scene, rng: np.random.Generator) -> Plan:
        """See Attack.plan: draws the classes, the pairs to change, then pictures for them."""
        asked = choose_class(self.asked, scene, rng, other_than=[self.shown])
        shown = choose_class(self.shown, scene, rng, other_than=[asked])
        victims = draw_victims_of("mmpoison", self.rate, scene, rng, label=asked)
        donors = draw_donors(shown, 1 if self.pictures == "one" else len(victims), scene, rng)
        return Plan(
            parameters=asdict(self),
            swaps=(Swap(asked=asked, shown=shown),),
            poisons=tuple(
                shown_instead(victim, donors[number % len(donors)], target=asked, variant=self.pictures)
                for number, victim in enumerate(victims)
            ),
        )
