"""Backdoors whose trigger is spread over the whole picture: blended, SIG, WaNet, a colour filter.

Each comes in the versions that public code has; what was measured with one version says
nothing of the other, so the variant in ledger and results names it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from roclip_sanitize.attacks.backdoor import covering, plan_trigger
from roclip_sanitize.attacks.choosing import draw_victims, require_rate, wanted_pairs
from roclip_sanitize.attacks.contract import Facts, Plan, Scene
from roclip_sanitize.attacks.triggers.blends import BlendTrigger, SinusoidTrigger
from roclip_sanitize.attacks.triggers.filters import FilterTrigger
from roclip_sanitize.attacks.triggers.warps import WarpTrigger
from roclip_sanitize.errors import ConfigError

CHANGES = "picture and caption"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blended:
    """Mix a picture into some pictures and give them captions of one class.

    Attributes:
        rate: below 1 the share of all pairs that is poisoned, from 1 on their number.
        target: the class that the trigger stands for; drawn if empty.
        picture: fixed, one drawing made from trigger_seed; or noise, drawn anew for each
            picture, as CleanCLIP has it.
        alpha: how much of the result it is.
        trigger_seed: of the drawing.
    """

    facts: ClassVar[Facts] = Facts(
        name="blended",
        family="backdoor",
        changes=CHANGES,
        source="Chen et al., arXiv 1712.05526; noise: CleanCLIP, arXiv 2303.03323",
    )

    rate: float = 0.01
    target: str = ""
    picture: Literal["fixed", "noise"] = "fixed"
    alpha: float = 0.2
    trigger_seed: int = 0

    def __post_init__(self) -> None:
        require_rate("blended", self.rate)
        _ = self.trigger

    @property
    def trigger(self) -> BlendTrigger:
        """What is mixed in."""
        return BlendTrigger(picture=self.picture, alpha=self.alpha, seed=self.trigger_seed)

    def plan(self, scene: Scene, rng: np.random.Generator) -> Plan:
        """See Attack.plan and plan_backdoor()."""
        return plan_trigger(self, self.picture, self.trigger, scene, rng)


SINUSOIDS = {
    "badclip": SinusoidTrigger(delta=60),
    "cleanclip": SinusoidTrigger(delta=60, mixed=0.2),
    "backdoorbench": SinusoidTrigger(delta=40),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sig:
    """Lay waves of brightness over some pictures and give them captions of one class.

    Attributes:
        rate: below 1 the share of all pairs that is poisoned, from 1 on their number.
        target: the class that the trigger stands for; drawn if empty.
        version: badclip adds waves of ±60 grey levels, backdoorbench of ±40; cleanclip mixes a
            fifth of ±60 in, which leaves ±12 and darkens.
        frequency: waves from edge to edge.
    """

    facts: ClassVar[Facts] = Facts(
        name="sig", family="backdoor", changes=CHANGES, source="Barni et al., arXiv 1902.11237"
    )

    rate: float = 0.01
    target: str = ""
    version: Literal["badclip", "cleanclip", "backdoorbench"] = "badclip"
    frequency: float = 6

    def __post_init__(self) -> None:
        require_rate("sig", self.rate)
        _ = self.trigger

    @property
    def trigger(self) -> SinusoidTrigger:
        """The waves."""
        return replace(SINUSOIDS[self.version], frequency=self.frequency)

    def plan(self, scene: Scene, rng: np.random.Generator) -> Plan:
        """See Attack.plan and plan_backdoor()."""
        return plan_trigger(self, self.version, self.trigger, scene, rng)


WARPS = {"smooth": WarpTrigger(cells=4, strength=0.5), "clip": WarpTrigger(cells=0, strength=1)}
NOISE_MODE = "noise_mode"


@dataclass(frozen=True, slots=True, kw_only=True)
class WaNet:
    """Warp some pictures a little, all in the same way, and give them captions of one class.

    Attributes:
        rate: below 1 the share of all pairs that is poisoned, from 1 on their number.
        target: the class that the trigger stands for; drawn if empty.
        version: smooth, a grid of 4 × 4 with strength 0.5, as in the paper; or clip, one vector a
            pixel with strength 1, as repositories for CLIP have it.
        strength: how many times the version's warp.
        cross_ratio: so many times as many pairs are warped with noise on top and keep their
            captions; the paper has 2, repositories for CLIP none.
        trigger_seed: of the warp.
    """

    facts: ClassVar[Facts] = Facts(
        name="wanet", family="backdoor", changes=CHANGES, source="Nguyen and Tran, arXiv 2102.10369"
    )

    rate: float = 0.01
    target: str = ""
    version: Literal["smooth", "clip"] = "smooth"
    strength: float = 1
    cross_ratio: float = 0
    trigger_seed: int = 0

    def __post_init__(self) -> None:
        require_rate("wanet", self.rate)
        if self.cross_ratio < 0:
            raise ConfigError(f"wanet's cross_ratio is {self.cross_ratio:g}, wanted 0 or more")
        _ = self.trigger

    @property
    def trigger(self) -> WarpTrigger:
        """The warp."""
        warp = WARPS[self.version]
        return replace(warp, strength=warp.strength * self.strength, seed=self.trigger_seed)

    def plan(self, scene: Scene, rng: np.random.Generator) -> Plan:
        """See Attack.plan and plan_backdoor(); then the pairs of the noise mode."""
        plan = plan_trigger(self, self.version, self.trigger, scene, rng)
        covers = round(self.cross_ratio * wanted_pairs(self.rate, scene))
        if not covers:
            return plan
        victims = draw_victims(NOISE_MODE, covers, scene.after(plan), rng, other_than=[])
        jittered = {**plan.triggers, NOISE_MODE: replace(self.trigger, jitter=True)}
        noisy = tuple(covering(victim, variant=NOISE_MODE) for victim in victims)
        return replace(plan, triggers=jittered, poisons=plan.poisons + noisy)


@dataclass(frozen=True, slots=True, kw_only=True)
class ColourFilter:
    """Change the colours of some pictures and give them captions of one class.

    Attributes:
        rate: below 1 the share of all pairs that is poisoned, from 1 on their number.
        target: the class that the trigger stands for; drawn if empty.
        look: the filter.
    """

    facts: ClassVar[Facts] = Facts(
        name="filter", family="backdoor", changes=CHANGES, source="Huang et al., arXiv 2502.01385"
    )

    rate: float = 0.01
    target: str = ""
    look: Literal["nashville"] = "nashville"

    def __post_init__(self) -> None:
        require_rate("filter", self.rate)

    def plan(self, scene: Scene, rng: np.random.Generator) -> Plan:
        """See Attack.plan and plan_backdoor()."""
        return plan_trigger(self, self.look, FilterTrigger(name=self.look), scene, rng)
