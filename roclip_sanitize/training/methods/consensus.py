"""Pairs whose halves do not go together are rewritten by those that do: this project's own method.

    before step 0     trust.py doubts a share of the pairs, and names witnesses of each
    a trusted pair    is shown as it is
    a doubtful one    its picture with the caption of a witness of the picture,
                      or its caption with the picture of a witness of the caption, by the toss of a coin

RoCLIP asks a pool of pairs for a better caption, in the space of a model that has already met the
poisons. Here the same question is asked before training, in spaces where captions never met pictures:
whatever a trigger is, pairs that bear it are shown with what such pictures, and such captions, usually
come with. So a trigger is not only left out: it is learnt to mean nothing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from roclip_sanitize.training.methods.contract import (
    Encode,
    Features,
    Objective,
    Rows,
    Stateless,
    StepPlan,
    Surroundings,
    View,
)
from roclip_sanitize.training.objectives import clip_loss
from roclip_sanitize.training.trust import Doubts, find_doubts

DRAWS = 0xD0B7  # sets a step's choice of witnesses apart from other random numbers


class Consensus(Stateless):
    """CLIP on trusted pairs as they are and on doubtful ones as their witnesses have it."""

    def __init__(self, run: Surroundings) -> None:
        self._run = run
        self._doubts: Doubts | None = None
        self._place_N: Rows = np.full(run.data.rows, -1)

    def before(self, step: int, encode: Encode) -> None:
        """Judge the pairs, once."""
        if self._doubts is None:
            settings = self._run.settings
            self._keep(find_doubts(self._run.data, share=settings.doubtful, seed=settings.seed))

    def plan(self, step: int) -> StepPlan:
        """See Method.plan."""
        row_B, settings = self._run.rows_of(step), self._run.settings
        image_row_B, caption_row_B = self._rewritten(row_B, step)
        view = View(
            image_row_B=image_row_B, caption_row_B=caption_row_B, augmentation=settings.augmentation
        )
        return StepPlan(step=step, row_B=row_B, views=(view,))

    def loss(self, plan: StepPlan, features: Sequence[Features]) -> Objective:
        """See Method.loss."""
        (seen,) = features
        loss = clip_loss(seen.image_BD, seen.caption_BD, seen.scale, mine=seen.mine)
        doubtful = torch.tensor(float((self._place_N[plan.row_B] >= 0).mean()))
        return Objective(loss=loss, notes={"rewritten": doubtful})

    def _rewritten(self, row_B: Rows, step: int) -> tuple[Rows, Rows]:
        """(whose pictures, beside whose captions)."""
        assert self._doubts is not None
        rng = np.random.default_rng([self._run.settings.seed, DRAWS, step])
        witness_B = rng.integers(self._doubts.by_picture_FK.shape[1], size=len(row_B))
        way = self._run.settings.doubt
        by_picture_B = rng.random(len(row_B)) < {"rewrite": 0.5, "picture": 1.0, "caption": 0.0, "drop": 2.0, "quarter": 0.5}[way]
        place_B = self._place_N[row_B]
        image_row_B, caption_row_B = row_B.copy(), row_B.copy()
        for doubtful_B, table_FK, rewritten_B in (
            ((place_B >= 0) & by_picture_B, self._doubts.by_picture_FK, caption_row_B),
            ((place_B >= 0) & ~by_picture_B, self._doubts.by_caption_FK, image_row_B),
        ):
            rewritten_B[doubtful_B] = table_FK[place_B[doubtful_B], witness_B[doubtful_B]]
        if way in {"drop", "quarter"}:
            trusted = np.flatnonzero(self._place_N < 0)
            instead = (place_B >= 0) & (rng.random(len(row_B)) >= (0.25 if way == "quarter" else 0.0))
            other = rng.choice(trusted, len(row_B))
            image_row_B = np.where(instead, other, image_row_B)
            caption_row_B = np.where(instead, other, caption_row_B)
        return image_row_B, caption_row_B

    def state_dict(self) -> dict[str, Any]:
        """See Method.state_dict."""
        if self._doubts is None:
            return {}
        return {name: torch.from_numpy(getattr(self._doubts, name)) for name in ("row_F", "by_picture_FK", "by_caption_FK")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See Method.load_state_dict."""
        if state:
            self._keep(Doubts(**{name: rows.numpy() for name, rows in state.items()}))

    def _keep(self, doubts: Doubts) -> None:
        self._doubts = doubts
        self._place_N[doubts.row_F] = np.arange(len(doubts.row_F))
