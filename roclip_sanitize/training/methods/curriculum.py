"""A curriculum before any method: pairs that can be trusted first, the doubtful once the model vouches for them.

    lesson 1   the pairs whose halves predict each other best (trust.py): --admit-first of all
    lesson k   and those of the others that the model, which has not learnt them, agrees with best
    the last   --admit-last of all; what is left by then is never learnt

So a pair is judged twice, and by judges who have not seen it: by regressions on features that never saw
a caption, and by a CLIP that was trained on other pairs. A poison that the first lets pass late enough
has to convince the second, and the model that judges has met hardly any of its kind. Of several pairs
with one picture no more than one is ever admitted, the best: thirty captions for one picture are
twenty-nine too many.

The idea that easy pairs come first is self-paced learning's (Kumar, Packer & Koller 2010); that agreement
found before any lie was learnt tells clean pairs apart, SafeCLIP's (ICML 2024).

Dimension key: N pairs of the training data, B pairs of a step, R references.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from roclip_sanitize.cross_prediction import places
from roclip_sanitize.training.methods.contract import (
    Encode,
    Features,
    Method,
    Objective,
    Rows,
    StepPlan,
    Surroundings,
)
from roclip_sanitize.training.trust import _pictures,_captions
from roclip_sanitize.cross_prediction import cross_prediction_trust

ORDERS = 0x1E55  # sets the orders of lessons apart from those of epochs
REFERENCES = 1_000
JUDGED_AT_ONCE = 4_096


class Curriculum:
    """Hands a method the pairs that may be learnt so far."""

    def __init__(self, run: Surroundings, make: Callable[[Surroundings], Method]) -> None:
        """Set up.

        Args:
            run: what the run is told.
            make: makes the method that learns from the pairs.
        """
        self._run = run
        self._lessons = lesson_starts(run.total_steps, lessons=run.settings.lessons)
        self._trust_N: NDArray[np.float32] | None = None
        self._admitted_N: NDArray[np.bool_] = np.zeros(run.data.rows, bool)
        self._order: tuple[int, int, Rows] | None = None
        self.method = make(replace(run, rows_of=self._rows_of))
        self.keeps_beginning = self.method.keeps_beginning

    def before(self, step: int, encode: Encode) -> None:
        """Admit more pairs when a lesson begins."""
        if step in self._lessons:
            score_N = self._trusted()
            if step:
                score_N = (
                    np.minimum(score_N, self._vouched(encode))
                    if JUDGE == "min"
                    else score_N + self._vouched(encode)
                )
            self._admit(score_N, self._share(self._lessons.index(step)))
            import os

            if os.environ.get("DUMP"):
                np.savez(
                    os.environ["DUMP"] + f"_{step}",
                    score=score_N,
                    admitted=self._admitted_N,
                    trust=self._trust_N,
                    vouched=self._vouched(encode) if step else 0,
                )
            self._order = None
        self.method.before(step, encode)

    def plan(self, step: int) -> StepPlan:
        """See Method.plan."""
        return self.method.plan(step)

    def loss(self, plan: StepPlan, features: Sequence[Features]) -> Objective:
        """See Method.loss."""
        objective = self.method.loss(plan, features)
        return replace(
            objective, notes={**objective.notes, "admitted": torch.tensor(float(self._admitted_N.mean()))}
        )

    def after(self, plan: StepPlan, features: Sequence[Features]) -> None:
        """See Method.after."""
        self.method.after(plan, features)

    def state_dict(self) -> dict[str, Any]:
        """See Method.state_dict."""
        return {
            "trust": torch.from_numpy(self._trusted()),
            "admitted": torch.from_numpy(self._admitted_N),
            "method": self.method.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See Method.load_state_dict."""
        self._trust_N, self._admitted_N = state["trust"].numpy(), state["admitted"].numpy()
        self._order = None
        self.method.load_state_dict(state["method"])

    def _share(self, lesson: int) -> float:
        """Of the pairs, that are admitted when a lesson begins."""
        told, last = self._run.settings, len(self._lessons) - 1
        grown = lesson / last if last else 1.0
        return told.admit_first + grown * (told.admit_last - told.admit_first)

    def _trusted(self) -> NDArray[np.float32]:
        if self._trust_N is None:
            self._trust_N = cross_prediction_trust(_pictures(self._run.data),_captions(self._run.data,seed=self._run.settings.seed),self._run.data.image_group_N, seed=self._run.settings.seed)
        return self._trust_N

    def _vouched(self, encode: Encode) -> NDArray[np.float32]:
        """What the model says of all pairs: places, of the lower of two ranks among references."""
        image_ND, caption_ND = encode(np.arange(self._run.data.rows))
        rng = np.random.default_rng([self._run.settings.seed, ORDERS])
        rows = len(image_ND)
        reference_R = torch.from_numpy(rng.choice(rows, min(REFERENCES, rows), replace=False))
        ranks = [
            _ranks(asked_ND, told_ND, reference_R.to(asked_ND.device))
            for asked_ND, told_ND in ((image_ND, caption_ND), (caption_ND, image_ND))
        ]
        return places(np.minimum(*ranks))

    def _admit(self, score_N: NDArray[np.float32], share: float) -> None:
        """Admit the best that are not yet in, one to a picture, until so many are."""
        picture_N = self._run.data.image_group_N
        taken = set(picture_N[self._admitted_N].tolist())
        wanted = round(share * len(score_N)) - int(self._admitted_N.sum())
        for row in np.argsort(-score_N, kind="stable"):
            if wanted <= 0:
                break
            if not self._admitted_N[row] and int(picture_N[row]) not in taken:
                self._admitted_N[row] = True
                taken.add(int(picture_N[row]))
                wanted -= 1

    def _rows_of(self, step: int) -> Rows:
        """The step's pairs: a lesson goes through those admitted again and again, in ever new orders."""
        lesson = int(np.searchsorted(self._lessons, step, side="right")) - 1
        batch = self._run.settings.batch_size
        admitted = np.flatnonzero(self._admitted_N)
        turn, place = divmod(step - self._lessons[lesson], max(1, len(admitted) // batch))
        if self._order is None or self._order[:2] != (lesson, turn):
            rng = np.random.default_rng([self._run.settings.seed, ORDERS, lesson, turn])
            self._order = (lesson, turn, rng.permutation(admitted))
        return np.sort(self._order[2][place * batch : (place + 1) * batch])


JUDGE = "min"


def lesson_starts(total_steps: int, *, lessons: int) -> list[int]:
    """The step with which each lesson begins: lessons of equal length."""
    return sorted({round(lesson * total_steps / lessons) for lesson in range(lessons)})


def _ranks(asked_ND: torch.Tensor, told_ND: torch.Tensor, reference_R: torch.Tensor) -> NDArray[np.float64]:
    """Share of references whose ``told`` row is less like a pair's ``asked`` row than its own is."""
    ranks = []
    for start in range(0, len(asked_ND), JUDGED_AT_ONCE):
        part = slice(start, start + JUDGED_AT_ONCE)
        own_N1 = (asked_ND[part] * told_ND[part]).sum(dim=1, keepdim=True)
        beaten_NR = asked_ND[part] @ told_ND[reference_R].T < own_N1
        ranks.append(beaten_NR.double().mean(dim=1) + 1e-4 * own_N1[:, 0])
    return torch.cat(ranks).cpu().numpy()
