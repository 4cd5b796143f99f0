"""Pictures among pictures, captions among captions: no caption ever meets a picture.

Each view of a pair is to find the nearest neighbour that its other view has in a pool, as in NNCLR
(Dwibedi et al. 2021) and the warm-up of SafeCLIP (Yang, Gao & Mirzasoleiman, ICML 2024). What a
poisoned pair claims can teach nothing here, so that towers warmed up in this way know their modality
before they see a lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from roclip_sanitize.errors import ConfigError
from roclip_sanitize.training.methods.contract import (
    UNIMODAL,
    Features,
    Objective,
    Rows,
    Stateless,
    StepPlan,
    Surroundings,
    as_they_are,
    open_pool,
)
from roclip_sanitize.training.moving import moved
from roclip_sanitize.training.objectives import likeness_loss
from roclip_sanitize.training.pool import Side


class Unimodal(Stateless):
    """Contrast within each modality, against nearest neighbours."""

    def __init__(self, run: Surroundings) -> None:
        settings = run.settings
        require_augmentation(settings.augmentation, method="unimodal training")
        self._rows_of, self._augmentation = run.rows_of, settings.augmentation
        self._least = settings.batch_size
        self.pool = open_pool(run)

    def plan(self, step: int) -> StepPlan:
        """See Method.plan."""
        return self.plan_for(step, self._rows_of(step))

    def plan_for(self, step: int, row_B: Rows) -> StepPlan:
        """A step on some pairs."""
        views = tuple(as_they_are(row_B, self._augmentation, draw=draw) for draw in (0, 1))
        return StepPlan(step=step, row_B=row_B, views=views, kind=UNIMODAL)

    def loss(self, plan: StepPlan, features: Sequence[Features]) -> Objective:
        """See Method.loss."""
        one, other = features
        parts = [
            self._likeness(one.image_BD, other.image_BD, "image", other),
            self._likeness(one.caption_BD, other.caption_BD, "caption", other),
        ]
        return Objective(loss=torch.stack(parts).mean())

    def after(self, plan: StepPlan, features: Sequence[Features]) -> None:
        """Put the first view into the pool."""
        one = features[0]
        self.pool.put(one.image_BD, one.caption_BD, moved(torch.from_numpy(plan.row_B), one.image_BD.device))

    def state_dict(self) -> dict[str, Any]:
        """See Method.state_dict."""
        return self.pool.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See Method.load_state_dict."""
        self.pool.load_state_dict(state)

    def _likeness(
        self, one_BD: torch.Tensor, other_BD: torch.Tensor, side: Side, seen: Features
    ) -> torch.Tensor:
        target_BD = one_BD.detach()
        if self.pool.filled >= self._least:  # until then, the other view itself
            target_BD = self.pool.take(self.pool.nearest(one_BD, side), side)
        return likeness_loss(other_BD, target_BD, seen.scale, mine=seen.mine)


def require_augmentation(augmentation: str, *, method: str) -> None:
    """Refuse to compare two views that are the same.

    Raises:
        ConfigError: there is no augmentation.
    """
    if augmentation == "none":
        raise ConfigError(
            f"augmentation is 'none', and {method} compares two views of a pair: choose another"
        )
