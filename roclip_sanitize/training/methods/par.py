"""PAR: fine-tuning on clean pairs that first moves away from the poisoned model.

Perturb and Recover, CVPR 2026 (arXiv 2412.00727):

    CLIP − ½ (‖picture − picture before‖² + ‖caption − caption before‖²), each distance a mean over the batch

A distance counts until it exceeds a threshold; CLIP alone then recovers what the model knew. A cleaner,
as CleanCLIP is. The authors' code keeps the scale of the products as it was, here it learns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from roclip_sanitize.training.methods.contract import (
    Features,
    Objective,
    Stateless,
    StepPlan,
    Surroundings,
    as_they_are,
)
from roclip_sanitize.training.objectives import clip_loss

FAR_ENOUGH = 2.15  # squared distance of unit rows, 0 to 4; the authors' threshold


class Par(Stateless):
    """CLIP, pushed away from where it began."""

    keeps_beginning = True

    def __init__(self, run: Surroundings) -> None:
        self._rows_of, self._augmentation = run.rows_of, run.settings.augmentation

    def plan(self, step: int) -> StepPlan:
        """See Method.plan."""
        row_B = self._rows_of(step)
        return StepPlan(step=step, row_B=row_B, views=(as_they_are(row_B, self._augmentation),))

    def loss(self, plan: StepPlan, features: Sequence[Features]) -> Objective:
        """See Method.loss."""
        (seen,) = features
        assert seen.before is not None
        contrast = clip_loss(seen.image_BD, seen.caption_BD, seen.scale, mine=seen.mine)
        distances = [
            (now - before).square().sum(dim=1).mean()
            for now, before in zip((seen.image_BD, seen.caption_BD), seen.before, strict=True)
        ]
        away = torch.stack([distance * (distance <= FAR_ENOUGH) for distance in distances]).sum()
        names = ("image_moved", "caption_moved")
        notes = {name: distance.detach() for name, distance in zip(names, distances, strict=True)}
        return Objective(loss=contrast - away / 2, notes=notes)
