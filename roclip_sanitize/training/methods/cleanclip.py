"""CleanCLIP: fine-tuning on clean pairs that loosens what a trigger is tied to (Bansal et al., ICCV 2023).

    CLIP on pairs as they are + w · contrast of each picture, and each caption, with its own augmented self

A cleaner for a poisoned model, given pairs that are known to be clean; no defence while poisons are
trained on.
"""

from __future__ import annotations

from collections.abc import Sequence

from roclip_sanitize.training.methods.contract import (
    Features,
    Objective,
    Stateless,
    StepPlan,
    Surroundings,
    as_they_are,
)
from roclip_sanitize.training.methods.unimodal import require_augmentation
from roclip_sanitize.training.objectives import clip_loss, likeness_loss

INMODAL_WEIGHT = 1.0  # the paper's w


class Cleanclip(Stateless):
    """CLIP and unimodal self-supervision at once."""

    def __init__(self, run: Surroundings) -> None:
        require_augmentation(run.settings.augmentation, method="cleanclip")
        self._rows_of, self._augmentation = run.rows_of, run.settings.augmentation
        self._ranks = run.ranks

    def plan(self, step: int) -> StepPlan:
        """See Method.plan."""
        row_B = self._rows_of(step)
        views = (as_they_are(row_B, "none"), as_they_are(row_B, self._augmentation, draw=1))
        return StepPlan(step=step, row_B=row_B, views=views)

    def loss(self, plan: StepPlan, features: Sequence[Features]) -> Objective:
        """See Method.loss."""
        plain, changed = features
        contrast = clip_loss(plain.image_BD, plain.caption_BD, plain.scale, mine=plain.mine)
        inmodal = (
            likeness_loss(plain.image_BD, changed.image_BD, plain.scale, mine=plain.mine)
            + likeness_loss(plain.caption_BD, changed.caption_BD, plain.scale, mine=plain.mine)
        ) / 2
        noted = self._ranks.summed(inmodal.detach() / self._ranks.size)
        return Objective(loss=contrast + INMODAL_WEIGHT * inmodal, notes={"inmodal": noted})
