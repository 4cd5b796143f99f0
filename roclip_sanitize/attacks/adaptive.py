"""Adaptive backdoors, made to pass defences that tell poisons from clean pairs in a latent space.

Two means (Qi et al., ICLR 2023): what training pictures get is less than what test pictures get,
and cover samples carry it with captions that are true, so that it is no sure sign of the target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np

from roclip_sanitize.attacks.backdoor import covering, plan_backdoor
from roclip_sanitize.attacks.choosing import draw_victims, require_rate
from roclip_sanitize.attacks.contract import Facts, Plan, Scene
from roclip_sanitize.attacks.triggers import Trigger
from roclip_sanitize.attacks.triggers.blends import BlendTrigger
from roclip_sanitize.attacks.triggers.copies import Layers
from roclip_sanitize.attacks.triggers.patches import PatchTrigger

SOURCE = "Qi et al., ICLR 2023, openreview _wSHsgrVali"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveBlend:
    """Blend parts of a drawing into training pictures, with cover samples; test pictures get all of it.

    Attributes:
        rate: below 1 the share of all pairs that is poisoned, from 1 on their number.
        cover_rate: the same of cover samples; 0 for none.
        target: the class that the trigger stands for; drawn if empty.
        alpha: of the blend in training.
        test_alpha: of the blend at test.
        hidden: of the 4 × 4 tiles, how many of a training picture stay as they were.
        trigger_seed: of the drawing.
    """

    facts: ClassVar[Facts] = Facts(
        name="adaptive_blend", family="adaptive backdoor", changes="picture and caption", source=SOURCE
    )

    rate: float = 0.003
    cover_rate: float = 0.003
    target: str = ""
    alpha: float = 0.15
    test_alpha: float = 0.2
    hidden: int = 8
    trigger_seed: int = 0

    def __post_init__(self) -> None:
        require_rate("adaptive_blend", self.rate)
        require_rate("adaptive_blend cover", self.cover_rate, zero=True)
        _ = self.triggers

    @property
    def triggers(self) -> dict[str, Trigger]:
        """What training and test pictures get."""
        return {
            "part": BlendTrigger(alpha=self.alpha, seed=self.trigger_seed, hidden=self.hidden),
            "whole": BlendTrigger(alpha=self.test_alpha, seed=self.trigger_seed),
        }

    def plan(self, scene: Scene, rng: np.random.Generator) -> Plan:
        """See Attack.plan and plan_adaptive()."""
        return plan_adaptive(
            self.facts.name, asdict(self), self.triggers, trained=["part"], scene=scene, rng=rng
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptivePatch:
    """Stamp one of four faint patches on each training picture, with cover samples.

    Test pictures get two of them, opaque. The patterns stand for the original's picture files.

    Attributes:
        rate: below 1 the share of all pairs that is poisoned, from 1 on their number.
        cover_rate: the same of cover samples; 0 for none.
        target: the class that the triggers stand for; drawn if empty.
        share: side of a patch as a share of the picture's shorter side.
    """

    facts: ClassVar[Facts] = Facts(
        name="adaptive_patch", family="adaptive backdoor", changes="picture and caption", source=SOURCE
    )

    rate: float = 0.003
    cover_rate: float = 0.003
    target: str = ""
    share: float = 0.2

    def __post_init__(self) -> None:
        require_rate("adaptive_patch", self.rate)
        require_rate("adaptive_patch cover", self.cover_rate, zero=True)
        _ = self.triggers

    @property
    def triggers(self) -> dict[str, Trigger]:
        """What training and test pictures get."""
        share = self.share
        opaque = (PatchTrigger(share=share), PatchTrigger(share=share, place="bottom_right", cells=2))
        return {
            "checkerboard": replace(opaque[0], opacity=0.5),
            "bottom_right": replace(opaque[1], opacity=0.5),
            "corners": PatchTrigger(share=share / 2, place="corners", opacity=0.2),
            "stripes": PatchTrigger(share=share, pattern="stripes", opacity=0.3),
            "two": Layers(parts=opaque),
        }

    def plan(self, scene: Scene, rng: np.random.Generator) -> Plan:
        """See Attack.plan and plan_adaptive()."""
        trained = [name for name in self.triggers if name != "two"]
        return plan_adaptive(
            self.facts.name, asdict(self), self.triggers, trained=trained, scene=scene, rng=rng
        )


def plan_adaptive(
    attack: str,
    parameters: Mapping[str, Any],
    triggers: Mapping[str, Trigger],
    *,
    trained: Sequence[str],
    scene: Scene,
    rng: np.random.Generator,
) -> Plan:
    """A backdoor and its cover samples, which take turns with the triggers of training.

    Args:
        attack: its name, for errors.
        parameters: with rate, cover_rate and target among them.
        triggers: by variant; test pictures get the last.
        trained: variants that training pictures get.
        scene: what to choose from.
        rng: draws.
    """
    plan = plan_backdoor(
        attack,
        parameters=parameters,
        rate=parameters["rate"],
        target=parameters["target"],
        triggers=triggers,
        scene=scene,
        rng=rng,
    )
    poisons = [
        replace(poison, variant=trained[number % len(trained)]) for number, poison in enumerate(plan.poisons)
    ]
    if parameters["cover_rate"]:
        target = plan.backdoors[0].target
        victims = draw_victims(
            f"{attack} cover", parameters["cover_rate"], scene.after(plan), rng, other_than=[target]
        )
        poisons += [
            covering(victim, variant=trained[number % len(trained)]) for number, victim in enumerate(victims)
        ]
    return replace(plan, poisons=tuple(poisons))
