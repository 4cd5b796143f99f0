"""Clean-label backdoor: only pictures of the target class get the trigger, and no caption changes.

The original (label-consistent; Turner et al.) first makes the pictures harder to recognise by an
adversarial step or a generative model, so that the trigger is what is left to learn. Here
``fade`` takes contrast from them instead, which needs no model.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np

from roclip_sanitize.attacks.backdoor import claimed
from roclip_sanitize.attacks.choosing import choose_class, draw_victims_of, require_rate
from roclip_sanitize.attacks.contract import Backdoor, Facts, Plan, Scene
from roclip_sanitize.attacks.trigger_names import named_trigger
from roclip_sanitize.attacks.triggers.copies import Fade, Layers


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanLabel:
    """Stamp a trigger on pictures of one class and change no caption.

    Attributes:
        rate: below 1 the share of all pairs that is poisoned, from 1 on their number; capped by
            the pairs of the class.
        target: the class that the trigger stands for; drawn if empty.
        trigger: its name, such as checkerboard or wanet_clip.
        fade: contrast taken from training pictures first, from 0 to 1: label-consistent.
    """

    facts: ClassVar[Facts] = Facts(
        name="clean_label",
        family="backdoor",
        changes="picture",
        source="Turner et al., arXiv 1912.02771; CleanCLIP, arXiv 2303.03323",
    )

    rate: float = 0.01
    target: str = ""
    trigger: str = "checkerboard"
    fade: float = 0

    def __post_init__(self) -> None:
        require_rate("clean_label", self.rate)
        Fade(by=self.fade)
        named_trigger(self.trigger)

    def plan(self, scene: Scene, rng: np.random.Generator) -> Plan:
        """See Attack.plan: draws the class, then the pairs."""
        target = choose_class(self.target, scene, rng)
        victims = draw_victims_of("clean_label", self.rate, scene, rng, label=target)
        trigger, trained = named_trigger(self.trigger), self.trigger
        triggers = {self.trigger: trigger}
        if self.fade:
            trained = f"faded_{self.trigger}"
            triggers = {trained: Layers(parts=(Fade(by=self.fade), trigger)), **triggers}
        return Plan(
            parameters=asdict(self),
            backdoors=(Backdoor(variant=self.trigger, target=target),),
            triggers=triggers,
            poisons=tuple(
                claimed(victim, victim.caption, target=target, variant=trained) for victim in victims
            ),
        )
