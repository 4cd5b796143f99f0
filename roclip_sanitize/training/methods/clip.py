"""Plain CLIP: every pair as it is (Radford et al. 2021)."""

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
from roclip_sanitize.training.objectives import clip_loss


class Clip(Stateless):
    """Symmetric InfoNCE over the step's pairs."""

    def __init__(self, run: Surroundings) -> None:
        self._rows_of = run.rows_of
        self._augmentation = run.settings.augmentation

    def plan(self, step: int) -> StepPlan:
        """See Method.plan."""
        row_B = self._rows_of(step)
        return StepPlan(step=step, row_B=row_B, views=(as_they_are(row_B, self._augmentation),))

    def loss(self, plan: StepPlan, features: Sequence[Features]) -> Objective:
        """See Method.loss."""
        (seen,) = features
        return Objective(loss=clip_loss(seen.image_BD, seen.caption_BD, seen.scale, mine=seen.mine))
