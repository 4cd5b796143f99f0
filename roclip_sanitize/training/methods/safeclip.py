"""SafeCLIP: pairs that agree train CLIP, of the others each half learns alone.

Yang, Gao & Mirzasoleiman, ICML 2024:

    every epoch: cosine of each pair ─▶ two Gaussians ─▶ safe │ risky
                 risky pairs, unimodally; then safe pairs, each view's picture against the other's caption

The first split takes those whose posterior of being clean is at least 0.9, later ones a share that grows
by a hundredth each epoch, up to 0.85. Pairs are judged as they are, not augmented as in the authors'
code. Comes after a warm-up and a gentle pass (phases.py), without which cosines mean nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from roclip_sanitize.training.methods.contract import (
    ORDINARY,
    UNIMODAL,
    Encode,
    Features,
    Objective,
    Rows,
    StepPlan,
    Surroundings,
    as_they_are,
)
from roclip_sanitize.training.methods.unimodal import Unimodal
from roclip_sanitize.training.objectives import clip_loss

WARM_UP, GENTLE = 5 / 32, 1 / 32  # shares of the training, as in the authors' 32 epochs
LEAST_POSTERIOR = 0.9
GROWTH, LARGEST_SHARE = 0.01, 0.85
FITTED_TO = 1_000_000  # cosines at the most
SPLITS = 0x5AFE  # sets the orders of split epochs apart from ordinary ones


class Safeclip:
    """Splits the pairs anew each epoch, counted from where it takes over."""

    keeps_beginning = False

    def __init__(self, run: Surroundings, *, start: int = 0) -> None:
        """Set up; ``start`` is the step with which it takes over."""
        self._run, self._start = run, start
        self._unimodal = Unimodal(run)
        self._safe_N: NDArray[np.bool_] = np.zeros(run.data.rows, bool)
        self._share = 0.0
        self._order: tuple[int, Rows, Rows] | None = None

    def before(self, step: int, encode: Encode) -> None:
        """Judge all pairs when an epoch begins."""
        if (step - self._start) % self._run.steps_per_epoch:
            return
        image_ND, caption_ND = encode(np.arange(self._run.data.rows))
        cosine_N = (image_ND * caption_ND).sum(dim=1).double().cpu().numpy()
        posterior_N = clean_posterior(cosine_N)
        if self._share:
            self._share = max(self._share, min(self._share + GROWTH, LARGEST_SHARE))
            self._safe_N = most_likely(posterior_N, cosine_N, self._share)
        else:
            self._safe_N = posterior_N >= LEAST_POSTERIOR
            self._share = float(self._safe_N.mean())
        self._order = None

    def plan(self, step: int) -> StepPlan:
        """See Method.plan."""
        epoch, place = divmod(step - self._start, self._run.steps_per_epoch)
        if self._order is None or self._order[0] != epoch:
            rng = np.random.default_rng([self._run.settings.seed, SPLITS, epoch])
            risky, safe = (rng.permutation(np.flatnonzero(rows)) for rows in (~self._safe_N, self._safe_N))
            self._order = (epoch, risky, safe)
        _, risky, safe = self._order
        batch = self._run.settings.batch_size
        first_safe = len(risky) // batch if len(safe) >= batch else self._run.steps_per_epoch
        if place < first_safe:
            return self._unimodal.plan_for(step, np.sort(risky[place * batch : (place + 1) * batch]))
        start = (place - first_safe) * batch
        row_B = np.sort(np.take(safe, np.arange(start, start + batch), mode="wrap"))
        augmentation = self._run.settings.augmentation
        views = tuple(as_they_are(row_B, augmentation, draw=draw) for draw in (0, 1))
        return StepPlan(step=step, row_B=row_B, views=views, kind=ORDINARY)

    def loss(self, plan: StepPlan, features: Sequence[Features]) -> Objective:
        """See Method.loss."""
        if plan.kind == UNIMODAL:
            return self._unimodal.loss(plan, features)
        one, other = features
        parts = [
            clip_loss(picture.image_BD, text.caption_BD, one.scale, mine=one.mine)
            for picture, text in ((one, other), (other, one))
        ]
        notes = {"safe": torch.tensor(self._share)}
        return Objective(loss=torch.stack(parts).mean(), notes=notes)

    def after(self, plan: StepPlan, features: Sequence[Features]) -> None:
        """See Method.after."""
        if plan.kind == UNIMODAL:
            self._unimodal.after(plan, features)

    def state_dict(self) -> dict[str, Any]:
        """See Method.state_dict."""
        safe = torch.from_numpy(self._safe_N.copy())
        return {"safe_N": safe, "share": self._share, "pool": self._unimodal.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See Method.load_state_dict."""
        self._safe_N, self._share = state["safe_N"].numpy(), float(state["share"])
        self._order = None
        self._unimodal.load_state_dict(state["pool"])


def clean_posterior(cosine_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """How likely each cosine is to come from the upper of two Gaussians fitted to all of them, 0 to 1."""
    from sklearn.mixture import GaussianMixture

    column_N1 = cosine_N[:, None]
    some_N1 = column_N1[:: max(1, len(column_N1) // FITTED_TO)]
    mixture = GaussianMixture(n_components=2, random_state=0).fit(some_N1)
    posterior: NDArray[np.float64] = mixture.predict_proba(column_N1)[:, mixture.means_[:, 0].argmax()]
    return posterior


def most_likely(
    posterior_N: NDArray[np.float64], cosine_N: NDArray[np.float64], share: float
) -> NDArray[np.bool_]:
    """The share of all with the highest posteriors; equal ones go by cosine, then by row."""
    chosen_N = np.zeros(len(posterior_N), bool)
    order_N = np.lexsort((np.arange(len(posterior_N)), -cosine_N, -posterior_N))
    chosen_N[order_N[: round(share * len(posterior_N))]] = True
    return chosen_N
