"""Backdoor patch: a small pattern that stands for a class (BadNets for CLIP, Carlini and Terzis).

The attacker draws the same pattern on pictures of all kinds and captions them as the target
class. A model that learns the link obeys it at test time: any picture with the pattern is
called by the target's name. The pairs replaced keep their uid and key.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.attacks.contract import Backdoor, Plan, Poison, Scene
from roclip_sanitize.attacks.triggers import PatchTrigger
from roclip_sanitize.errors import ConfigError, DataError

TARGET_RANKS = slice(5, 25)  # common enough to have captions, not so common that the name is a fair guess


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """Stamp some pairs and give them captions of one class.

    Attributes:
        rate: below 1 the share of all pairs that is poisoned, from 1 on their number.
        target: the class that the trigger stands for; "" draws one.
        share: side of the patch as a share of the picture's shorter side.
        cells: fields of the checkerboard along a side.
    """

    name: ClassVar[str] = "patch"
    held_out: ClassVar[bool] = False

    rate: float = 0.01
    target: str = ""
    share: float = 0.2
    cells: int = 4

    def __post_init__(self) -> None:
        _ = self.trigger  # checks share and cells
        if self.rate <= 0 or (self.rate > 1 and self.rate != int(self.rate)):
            raise ConfigError(
                f"the patch rate is {self.rate}, wanted a share below 1 or a whole number of pairs"
            )

    @property
    def trigger(self) -> PatchTrigger:
        """What is stamped."""
        return PatchTrigger(share=self.share, cells=self.cells)

    def plan(self, scene: Scene, rng: np.random.Generator) -> Plan:
        """See Attack.plan: draws the class, then the pairs to replace, then a caption for each."""
        target = choose_target(self.target, scene, rng)
        victims = scene.census.entries(self._draw_victims(target, scene, rng))
        donor_rows = np.flatnonzero(scene.census.has_label(target))
        enough = len(donor_rows) >= len(victims)
        donors = scene.census.entries(rng.choice(donor_rows, len(victims), replace=not enough))
        poisons = tuple(
            Poison(
                variant=self.trigger.kind,
                shard=victim.shard,
                row=victim.row,
                uid=victim.uid,
                true_label=victim.label,
                target=target,
                original_caption=victim.caption,
                caption=donor.caption,
            )
            for victim, donor in zip(victims, donors, strict=True)
        )
        return Plan(
            parameters=asdict(self),
            backdoors=(Backdoor(variant=self.trigger.kind, target=target),),
            triggers={self.trigger.kind: self.trigger},
            poisons=poisons,
        )

    def _draw_victims(self, target: str, scene: Scene, rng: np.random.Generator) -> NDArray[np.int64]:
        wanted = round(self.rate * scene.census.size) if self.rate < 1 else int(self.rate)
        free = scene.free_rows(other_than=target)
        if not 1 <= wanted <= len(free):
            raise DataError(
                f"patch rate {self.rate} asks for {wanted} of {scene.census.size:,} pairs, wanted 1 or more "
                f"and at most the {len(free):,} with a label other than {target!r}"
            )
        return rng.choice(free, wanted, replace=False)


def choose_target(wanted: str, scene: Scene, rng: np.random.Generator) -> str:
    """The class that a backdoor stands for: the one asked for, else one of ranks 5 to 25.

    Raises:
        DataError: the class asked for is not among the scene's classes.
    """
    if wanted and wanted not in scene.classes:
        raise DataError(
            f"target class {wanted!r} is not among the {len(scene.classes)} commonest labels: "
            f"{', '.join(scene.classes)}"
        )
    ranked = scene.classes[TARGET_RANKS] or scene.classes
    return wanted or ranked[int(rng.integers(len(ranked)))]
