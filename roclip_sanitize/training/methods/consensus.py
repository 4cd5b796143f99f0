"""Pairs whose halves do not go together are rewritten by those whose do: this project's own method.

    first epoch       the half of the pairs that trust.py's first look trusts most
    then              its second look doubts a share of the pairs, and names witnesses of each
    a trusted pair    is shown as it is
    a doubtful one    its picture with the caption of a witness of the picture,
                      or its caption with the picture of a witness of the caption,
                      or, as often, and where nobody is near, a trusted pair in its place

RoCLIP asks a pool of pairs for a better caption, in the space of a model that has already met the
poisons. Here the same question is asked in spaces where captions never met pictures: whatever a trigger
is, pairs that bear it are shown with what such pictures, and such captions, usually come with. So a
trigger is not only left out: it is learnt to mean nothing.

Dimension key: B pairs of a step, N pairs of the training data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

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
from roclip_sanitize.training.moving import moved
from roclip_sanitize.training.objectives import clip_loss
from roclip_sanitize.training.scan_judge import ScanJudge
from roclip_sanitize.training.trust import (
    NOBODY,
    WITNESSES,
    Doubts,
    Judge,
    MemoryJudge,
    Vectors,
    without_witnesses,
)

DOUBTED_AT_FIRST = 0.5  # of the pairs: the other half holds hardly any poison
LATEST_LOOK = 0.25  # of the training, where an epoch is more
DRAWS = 0xD0B7  # sets a step's choice of witnesses apart from other random numbers
Number = TypeVar("Number", np.float32, np.int64)


class Consensus(Stateless):
    """CLIP on trusted pairs as they are and on doubtful ones as their witnesses have it."""

    def __init__(self, run: Surroundings, *, start: int = 0) -> None:
        """Set up; ``start`` is the step with which it takes over."""
        self._run, self._start = run, start
        latest = round(LATEST_LOOK * (run.total_steps - start))
        self._second_look = start + max(1, min(run.steps_per_epoch, latest))
        self._judge = _open_judge(run)
        self._trust_N: Vectors = np.zeros(run.data.rows, np.float32)
        self._keep(without_witnesses(np.zeros(0, np.int64)))

    def before(self, step: int, encode: Encode) -> None:
        """Judge the pairs: before its first step, and once the model has seen some."""
        if step not in (self._start, self._second_look):
            return
        again = step != self._start

        def encode_all() -> tuple[Vectors, Vectors]:
            image_ND, caption_ND = encode(np.arange(self._run.data.rows))
            return image_ND.cpu().numpy(), caption_ND.cpu().numpy()

        self._judge.prepare(again=again, encode=encode_all)
        if again:
            first_N = self._trust_N
            self._decide(lambda: self._judge.second_look(first_N), share=self._run.settings.doubtful)
            self._judge.forget()
        else:
            self._decide(self._judge.first_look, share=DOUBTED_AT_FIRST, witnesses=False)

    def plan(self, step: int) -> StepPlan:
        """See Method.plan."""
        row_B, settings = self._run.rows_of(step), self._run.settings
        images, captions = self._rewritten(row_B, step)
        view = View(image_row_B=images, caption_row_B=captions, augmentation=settings.augmentation)
        return StepPlan(step=step, row_B=row_B, views=(view,))

    def loss(self, plan: StepPlan, features: Sequence[Features]) -> Objective:
        """See Method.loss."""
        (seen,) = features
        loss = clip_loss(seen.image_BD, seen.caption_BD, seen.scale, mine=seen.mine)
        notes = {"doubted": torch.tensor(float((self._place_N[plan.row_B] >= 0).mean()))}
        if self._run.watch_matches is not None:
            (view,) = plan.views  # whoever took the place of one half, or of both
            partner_B = np.where(view.caption_row_B != plan.row_B, view.caption_row_B, view.image_row_B)
            partner = moved(torch.from_numpy(partner_B), seen.image_BD.device)
            notes |= self._run.watch_matches(plan.row_B, [partner])
        return Objective(loss=loss, notes=notes)

    def state_dict(self) -> dict[str, Any]:
        """See Method.state_dict."""
        kept = {**dict(_named(self._doubts)), "trust_N": self._trust_N}
        return {name: torch.from_numpy(rows) for name, rows in kept.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See Method.load_state_dict."""
        kept = {name: rows.numpy() for name, rows in state.items()}
        self._trust_N = kept.pop("trust_N")
        self._keep(Doubts(**kept))

    def _rewritten(self, row_B: Rows, step: int) -> tuple[Rows, Rows]:
        """(whose pictures, beside whose captions)."""
        rng = np.random.default_rng([self._run.settings.seed, DRAWS, step])
        witness_B = rng.integers(WITNESSES, size=len(row_B))
        by_picture_B = rng.random(len(row_B)) < 0.5
        shown = self._run.settings.rewritten if step >= self._second_look else 0.0
        shown_B = rng.random(len(row_B)) < shown
        instead_B = rng.choice(self._trusted, len(row_B))
        images, captions = row_B.copy(), row_B.copy()
        place_B = self._place_N[row_B]
        doubted_B = place_B >= 0
        for change_B, table_FK, rewritten in (
            (doubted_B & by_picture_B, self._doubts.by_picture_FK, captions),
            (doubted_B & ~by_picture_B, self._doubts.by_caption_FK, images),
        ):
            rewritten[change_B] = table_FK[place_B[change_B], witness_B[change_B]]
        replaced_B = doubted_B & (~shown_B | (images == NOBODY) | (captions == NOBODY))
        for rewritten in (images, captions):
            rewritten[replaced_B] = instead_B[replaced_B]
        return images, captions

    def _decide(self, look: Callable[[], Vectors], *, share: float, witnesses: bool = True) -> None:
        """The first rank looks, and all ranks hear the same: a look depends on the last bits of sums."""
        self._trust_N = self._from_first(look, self._trust_N)
        doubts = self._judge.doubts(self._trust_N, share=share, witnesses=witnesses)
        self._keep(Doubts(**{name: self._from_first(rows.copy, rows) for name, rows in _named(doubts)}))

    def _from_first(self, said: Callable[[], NDArray[Number]], like: NDArray[Number]) -> NDArray[Number]:
        """What the first rank says; asked of it alone."""
        ranks = self._run.ranks
        value = said() if ranks.rank == 0 else np.zeros_like(like)
        heard: NDArray[Number] = ranks.summed(torch.from_numpy(value).to(self._run.device)).cpu().numpy()
        return heard

    def _keep(self, doubts: Doubts) -> None:
        self._doubts = doubts
        self._place_N: Rows = np.full(self._run.data.rows, -1)
        self._place_N[doubts.row_F] = np.arange(len(doubts.row_F))
        self._trusted = np.flatnonzero(self._place_N < 0)


def _open_judge(run: Surroundings) -> Judge:
    if run.settings.judge_by == "scan":
        assert run.tables is not None, "the loop gives some to whoever asks_for_tables"
        return ScanJudge(run.data, run.tables)
    return MemoryJudge(run.data, seed=run.settings.seed)


def _named(doubts: Doubts) -> list[tuple[str, Rows]]:
    return [(each.name, getattr(doubts, each.name)) for each in fields(Doubts)]
