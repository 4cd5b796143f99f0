"""Can each half of a pair be told from the other, by pairs that say nothing of this one?

Pictures and captions come as vectors that never saw each other, so that no attacker's caption has bent
those of pictures, nor the reverse. Two linear regressions are fitted, captions → pictures and pictures →
captions, in folds: a pair is judged by the regression of the other fold, and all copies of a picture lie
in the same one. Judged by what is told of its caption, a pair's *rank* is the share of other captions that
tell less of its picture than its own does; likewise of its picture. Its *trust* is the lower of the two.

Why both. A trigger on pictures is nearly all there is of it beside the target's captions, so whoever
predicts captions from pictures learns it; but pictures predicted from the target's captions are those of
its honest pairs, which outnumber the poisons. For a trigger in captions it is the other way round.

Why in rounds. A trigger that covers the whole picture moves the prediction at first. The regressions are
fitted again to the pairs that fared best, which hold few poisons, then to ever more of them: least
trimmed squares (Rousseeuw 1984), across modalities.

Pure arithmetic: no files, no torch.

Dimension key: N pairs, D width of picture vectors, E of caption vectors, R reference pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FOLDS = 2
LEFT_OUT = (0.0, 0.4, 0.4, 0.4, 0.2, 0.15)  # of each round: share of pairs that fared worst so far
RIDGE = 1.0  # pairs' worth of shrinking
REFERENCES = 1_000
JUDGED_AT_ONCE = 4_096

Vectors = NDArray[np.float32]


def cross_prediction_trust(
    image_ND: Vectors,
    caption_NE: Vectors,
    picture_N: NDArray[np.int64],
    *,
    seed: int = 0,
    left_out: Sequence[float] = LEFT_OUT,
) -> NDArray[np.float32]:
    """How well each pair's halves go together.

    Args:
        image_ND: float32; directions of similar variance, such as half_whitened() gives.
        caption_NE: float32, the same of captions.
        picture_N: number of each pair's picture, the same for copies: they share a fold, and one vote.
        seed: of folds and references.
        left_out: of each round, the share of pairs, from the worst on, that nothing is learnt from.

    Returns:
        (N,) float32 from 0, not at all, to 1: places among all pairs, so that a share q of them has
        less than q.
    """
    rng = np.random.default_rng(seed)
    fold_N = rng.permutation(int(picture_N.max()) + 1)[picture_N] % FOLDS
    vote_N = 1 / np.bincount(picture_N)[picture_N]
    image_ND, caption_NE = (rows - rows.mean(axis=0) for rows in (image_ND, caption_NE))
    trust_N = np.ones(len(picture_N), np.float32)
    for share in left_out:
        weight_N = vote_N * (trust_N >= np.quantile(trust_N, share))
        ranks = [
            _ranks(asked, told, weight_N, fold_N, rng)
            for asked, told in ((caption_NE, image_ND), (image_ND, caption_NE))
        ]
        trust_N = places(np.minimum(*map(places, ranks)))
    return trust_N


def half_whitened(row_ND: NDArray[np.floating], *, width: int) -> Vectors:
    """The directions of most variance, each divided by the fourth root of its own; unit rows.

    Whitening in full would make noise as loud as content, and none at all would leave but the
    brightness.

    Args:
        row_ND: any floats.
        width: directions at the most.
    """
    centred_ND = row_ND - row_ND.mean(axis=0)
    variance_D, direction_DD = np.linalg.eigh(centred_ND.T @ centred_ND / len(row_ND))
    chosen = slice(None, -min(width, len(variance_D)) - 1, -1)
    scale_D = np.maximum(variance_D[chosen], 1e-12) ** 0.25
    return unit_rows((centred_ND @ direction_DD[:, chosen]) / scale_D)


def unit_rows(row_ND: NDArray[np.floating]) -> Vectors:
    """Rows of length 1, float32; rows of zeros stay."""
    norm_N1 = np.linalg.norm(row_ND, axis=1, keepdims=True)
    unit_ND: Vectors = (row_ND / np.maximum(norm_N1, 1e-12)).astype(np.float32)
    return unit_ND


def places(score_N: NDArray[np.floating]) -> NDArray[np.float32]:
    """Each score's place among all, from 0 for the lowest to below 1; equal ones by row."""
    place_N = np.empty(len(score_N), np.float32)
    place_N[np.argsort(score_N, kind="stable")] = np.arange(len(score_N)) / len(score_N)
    return place_N


def _ranks(
    asked_NE: Vectors,
    told_ND: Vectors,
    weight_N: NDArray[np.float64],
    fold_N: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Share of reference pairs whose ``asked`` row predicts a pair's ``told`` row worse than its own."""
    rank_N = np.zeros(len(fold_N))
    for fold in range(FOLDS):
        learnt_E_D = _ridge(asked_NE, told_ND, np.where(fold_N == fold, 0.0, weight_N))
        judged = np.flatnonzero(fold_N == fold)
        predicted_ND = asked_NE[judged] @ learnt_E_D
        size_N = (predicted_ND**2).sum(axis=1) / 2
        references = rng.choice(len(judged), min(REFERENCES, len(judged)), replace=False)
        for start in range(0, len(judged), JUDGED_AT_ONCE):
            part = slice(start, start + JUDGED_AT_ONCE)
            told = told_ND[judged[part]]
            own_N = (told * predicted_ND[part]).sum(axis=1) - size_N[part]
            other_NR = told @ predicted_ND[references].T - size_N[references]
            rank_N[judged[part]] = (other_NR < own_N[:, None]).mean(axis=1) + 1e-4 * own_N  # breaks ties
    return rank_N


def _ridge(asked_NE: Vectors, told_ND: Vectors, weight_N: NDArray[np.float64]) -> Vectors:
    """Weighted ridge regression: (E, D)."""
    used = np.flatnonzero(weight_N)
    root_N1 = np.sqrt(weight_N[used]).astype(np.float32)[:, None]
    asked, told = asked_NE[used] * root_N1, told_ND[used] * root_N1
    learnt: Vectors = np.linalg.solve(
        asked.T @ asked + RIDGE * np.eye(asked.shape[1], dtype=np.float32), asked.T @ told
    ).astype(np.float32)
    return learnt
