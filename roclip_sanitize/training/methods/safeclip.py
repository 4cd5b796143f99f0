"""SafeCLIP: pairs that agree train CLIP, of the others each half learns alone.

Yang, Gao & Mirzasoleiman, ICML 2024:

    every epoch: cosine of each pair ─▶ two Gaussians ─▶ safe │ risky
                 risky pairs, unimodally; then safe pairs, each view's picture against the other's caption

The first split takes those whose posterior of being clean is at least 0.9, later ones a share that grows
by a hundredth each epoch, up to 0.85. Pairs are judged as they are, not augmented as in the authors'
code. Comes after a warm-up and a gentle pass (phases.py), without which cosines mean nothing.

An epoch that the run ends within keeps its proportions, so that training never ends with risky pairs
alone. While fewer than a batch of pairs are safe, all count as risky.

Dimension key: B pairs of a step, N pairs of the training data, D width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from roclip_sanitize.errors import DataError
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

PHASES = (5 / 32, 1 / 32)  # warm-up and gentle pass, shares of the training: of the authors' 32 epochs
LEAST_POSTERIOR = 0.9
GROWTH, LARGEST_SHARE = 0.01, 0.85
FITTED_TO = 1_000_000  # cosines at the most
LEAST_SPREAD = 1e-6  # of cosines: what float32 leaves of equal ones
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
        """Judge all pairs when an epoch begins.

        Raises:
            DataError: the model's vectors are no longer numbers.
        """
        if self._place(step)[1]:
            return
        image_ND, caption_ND = encode(np.arange(self._run.data.rows))
        cosine_N = (image_ND * caption_ND).sum(dim=1).double().cpu().numpy()
        if not np.isfinite(cosine_N).all():
            raise DataError(
                f"vectors are no longer numbers at step {step}: lower --lr (now {self._run.settings.lr}) "
                "and start again"
            )
        grown = min(self._share + GROWTH, LARGEST_SHARE) if self._share else None
        self._safe_N = self._agreed(cosine_N, grown)
        self._share = float(self._safe_N.mean()) if grown is None else grown
        self._order = None

    def plan(self, step: int) -> StepPlan:
        """See Method.plan."""
        epoch, place = self._place(step)
        risky, safe = self._ordered(epoch)
        batch, steps = self._run.settings.batch_size, self._run.steps_per_epoch
        left = min(steps, self._run.total_steps - (step - place))  # of the epoch, before the run ends
        first_safe = len(risky) // batch * left // steps
        if place < first_safe:
            return self._unimodal.plan_for(step, np.sort(risky[place * batch : (place + 1) * batch]))
        start = (place - first_safe) * batch  # what risky pairs leave of a batch, the first safe ones fill
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

    def _place(self, step: int) -> tuple[int, int]:
        """(epoch since it took over, step within it)."""
        return divmod(step - self._start, self._run.steps_per_epoch)

    def _ordered(self, epoch: int) -> tuple[Rows, Rows]:
        """(risky, safe) pairs in the epoch's order."""
        if self._order is None or self._order[0] != epoch:
            enough = self._safe_N.sum() >= self._run.settings.batch_size
            safe_N = self._safe_N if enough else np.zeros_like(self._safe_N)
            rng = np.random.default_rng([self._run.settings.seed, SPLITS, epoch])
            risky, safe = (rng.permutation(np.flatnonzero(rows)) for rows in (~safe_N, safe_N))
            self._order = (epoch, risky, safe)
        return self._order[1:]

    def _agreed(self, cosine_N: NDArray[np.float64], share: float | None) -> NDArray[np.bool_]:
        """The split that one rank makes, on all of them: it depends on the last bits of a fit."""
        ranks = self._run.ranks
        safe_N = safest(cosine_N, share) if ranks.rank == 0 else np.zeros(len(cosine_N), bool)
        counted_N = torch.from_numpy(safe_N.astype(np.int32)).to(self._run.device)
        agreed_N: NDArray[np.bool_] = ranks.summed(counted_N).cpu().numpy() > 0
        return agreed_N


def safest(cosine_N: NDArray[np.float64], share: float | None) -> NDArray[np.bool_]:
    """Which pairs are taken for clean: those that probably are, or a share of all."""
    posterior_N = clean_posterior(cosine_N)
    if share is None:
        return posterior_N >= LEAST_POSTERIOR
    return most_likely(posterior_N, cosine_N, share)


def clean_posterior(cosine_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """How likely each cosine is to come from the upper of two Gaussians fitted to all of them, 0 to 1.

    Equal cosines tell nothing apart: none is then known to be clean.
    """
    from sklearn.mixture import GaussianMixture

    column_N1 = cosine_N[:, None]
    some_N1 = column_N1[:: math.ceil(len(column_N1) / FITTED_TO)]
    if np.ptp(some_N1) < LEAST_SPREAD:
        return np.zeros(len(cosine_N))
    mixture = GaussianMixture(n_components=2, random_state=0).fit(some_N1)
    posterior_N: NDArray[np.float64] = mixture.predict_proba(column_N1)[:, mixture.means_[:, 0].argmax()]
    return posterior_N


def most_likely(
    posterior_N: NDArray[np.float64], cosine_N: NDArray[np.float64], share: float
) -> NDArray[np.bool_]:
    """The share of all with the highest posteriors; equal ones go by cosine, then by row."""
    chosen_N = np.zeros(len(posterior_N), bool)
    order_N = np.lexsort((np.arange(len(posterior_N)), -cosine_N, -posterior_N))
    chosen_N[order_N[: round(share * len(posterior_N))]] = True
    return chosen_N
