"""RoCLIP as its authors' code of December 2023 does it, defects included: to compare with, not to use.

What sets it apart from roclip.py, with "final" pairing:

- whole epochs match, every second one, the first of them the second;
- the pool holds 21,845 captions, begins as random vectors of norm √D, and is written in matching epochs
  alone, so that it is stale when one begins; what a batch has beyond the ring's end is dropped;
- the search compares unit vectors, but a random vector that is found is the target at its full length;
- equal matches are each other's negatives;
- captions get a gradient of zero where they sit out, so that AdamW's momentum and decay move them;
- the rate's schedule counts an epoch too many: it skips part of the warm-up, and rises again at the end.

Of the released pool of each rank, drawn anew by each, here is one that all share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from roclip_sanitize.training.methods.contract import (
    MATCHING,
    ORDINARY,
    Features,
    Objective,
    Stateless,
    StepPlan,
    Surroundings,
    as_they_are,
)
from roclip_sanitize.training.objectives import clip_loss

MATCH_EVERY_EPOCHS = 2
POOL_SIZE = 21_845


class RoclipReleased(Stateless):
    """CLIP, with every second epoch matched against a pool of captions."""

    def __init__(self, run: Surroundings) -> None:
        settings = run.settings
        self._run = run
        self._cursor = 0
        generator = torch.Generator().manual_seed(settings.seed)
        pool_PD = torch.randn(settings.pool_size or POOL_SIZE, run.width, generator=generator)
        self._pool_PD = pool_PD.to(run.device)

    def plan(self, step: int) -> StepPlan:
        """See Method.plan."""
        row_B = self._run.rows_of(step)
        epoch = step // self._run.steps_per_epoch + 1
        return StepPlan(
            step=step,
            row_B=row_B,
            views=(as_they_are(row_B, self._run.settings.augmentation),),
            kind=MATCHING if epoch % MATCH_EVERY_EPOCHS == 0 else ORDINARY,
            learning_rate=self._learning_rate(step + self._run.steps_per_epoch),
        )

    def loss(self, plan: StepPlan, features: Sequence[Features]) -> Objective:
        """See Method.loss."""
        (seen,) = features
        if plan.kind != MATCHING:
            return Objective(loss=clip_loss(seen.image_BD, seen.caption_BD, seen.scale, mine=seen.mine))
        unit_PD = torch.nn.functional.normalize(self._pool_PD)
        found_B = (seen.image_BD.detach() @ unit_PD.T).argmax(dim=1)
        loss = clip_loss(self._pool_PD[found_B], seen.image_BD, seen.scale, mine=seen.mine)
        return Objective(loss=loss + 0 * seen.caption_BD.sum())

    def after(self, plan: StepPlan, features: Sequence[Features]) -> None:
        """Write the step's captions, up to the end of the ring."""
        if plan.kind != MATCHING:
            return
        caption_BD = features[0].caption_BD.detach()
        part_BD = caption_BD[: len(self._pool_PD) - self._cursor]
        self._pool_PD[self._cursor : self._cursor + len(part_BD)] = part_BD
        reaches_end = self._cursor + len(caption_BD) >= len(self._pool_PD)
        self._cursor = 0 if reaches_end else self._cursor + len(caption_BD)

    def state_dict(self) -> dict[str, Any]:
        """See Method.state_dict. The released code saves no pool: resumed, it begins from noise."""
        return {"pool_PD": self._pool_PD.to("cpu", copy=True), "cursor": self._cursor}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See Method.load_state_dict."""
        self._pool_PD.copy_(state["pool_PD"])
        self._cursor = int(state["cursor"])

    def _learning_rate(self, counted: int) -> float:
        settings = self._run.settings
        if counted < settings.warmup:
            return settings.lr * (counted + 1) / settings.warmup
        done = (counted - settings.warmup) / max(1, self._run.total_steps - settings.warmup)
        return settings.lr * 0.5 * (1 + math.cos(math.pi * done))
