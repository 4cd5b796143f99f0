"""Can each half of a pair be told from the other, by pairs that say nothing of this one?

Pictures and captions come as vectors that never saw each other, so that no attacker's caption has bent
those of pictures, nor the reverse. Two linear regressions are fitted, captions → pictures and pictures →
captions, in folds: a pair is judged by the regression of the other fold, and all copies of a picture lie
in the same one; three ways to fold are averaged. Judged by what is told of its caption, a pair's *rank* is
the share of other captions that tell less of its picture than its own does; likewise of its picture. Its
*trust* is the lower of the two.

Why both. A trigger on pictures is nearly all there is of it beside the target's captions, so whoever
predicts captions from pictures learns it; but pictures predicted from the target's captions are those of
its honest pairs, as long as these are more. For a trigger in captions it is the other way round.

Why in rounds. A trigger that covers the whole picture moves even that prediction. So the regressions are
fitted again, to the pairs that fared best, which hold few poisons, and in the end to all but the worst:
least trimmed squares (Rousseeuw 1984), across modalities.

Why coarse at first. Whitening makes the many small directions of vectors as loud as the few large ones,
and a trigger is small. Content is large: the first rounds look at little else, and let finer directions
in when the trigger's pairs are no longer among those learnt from.

Pure arithmetic: no files, no torch.

Dimension key: N pairs, D width of picture vectors, E of caption vectors, R reference pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FOLDS = 2
FOLDINGS = 3
RIDGE = 1.0  # pairs' worth of shrinking
REFERENCES = 1_000
JUDGED_AT_ONCE = 4_096
LEAST_DEVIATION = 1e-6

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """How a round of regressions looks at the pairs.

    Attributes:
        left_out: share of the pairs, from the worst so far on, that nothing is learnt from.
        picture_whitening: 0 leaves the directions of pictures as they are, 1 makes them equally loud,
            and a negative number makes loud ones louder.
        caption_whitening: the same of captions.
    """

    left_out: float
    picture_whitening: float
    caption_whitening: float


def _rounds(*told: tuple[float, float, float]) -> tuple[Round, ...]:
    return tuple(
        Round(left_out=left_out, picture_whitening=pictures, caption_whitening=captions)
        for left_out, pictures, captions in told
    )


FROM_NOTHING = _rounds(
    (0.0, -0.5, 0.0),
    (0.5, -0.5, 0.0),
    (0.5, -0.5, 0.0),
    (0.5, 0.0, 0.25),
    (0.4, 0.0, 0.25),
    (0.4, 0.25, 0.5),
    (0.4, 0.5, 0.5),
    (0.2, 0.5, 0.5),
    (0.15, 0.5, 0.5),
)
FROM_TRUST = _rounds((0.5, 0.0, 0.25), (0.5, 0.0, 0.25), (0.4, 0.25, 0.5), (0.3, 0.5, 0.5), (0.2, 0.5, 0.5))


def cross_prediction_trust(
    image_ND: Vectors,
    caption_NE: Vectors,
    picture_N: NDArray[np.int64],
    *,
    trust_N: NDArray[np.float32] | None = None,
    seed: int = 0,
) -> NDArray[np.float32]:
    """How well each pair's halves go together.

    Args:
        image_ND: float32, along the directions in which pictures differ most: see main_directions().
        caption_NE: float32, the same of captions.
        picture_N: number of each pair's picture, the same for copies: they share a fold, and one vote.
        trust_N: what is thought of the pairs so far, as this function returns it: the first rounds learn
            from the better half alone. None to begin with.
        seed: of folds and references.

    Returns:
        (N,) float32 from 0, not at all, to 1: places among all pairs, so that a share q of them has
        less than q.
    """
    rng = np.random.default_rng(seed)
    pictures = int(picture_N.max()) + 1
    folds = [rng.permutation(pictures)[picture_N] % FOLDS for _ in range(FOLDINGS)]
    vote_N = 1 / np.bincount(picture_N)[picture_N]
    rounds = FROM_NOTHING if trust_N is None else FROM_TRUST
    trust_N = np.ones(len(picture_N), np.float32) if trust_N is None else trust_N
    for each in rounds:
        image = whitened(image_ND, each.picture_whitening)
        caption = whitened(caption_NE, each.caption_whitening)
        weight_N = vote_N * (trust_N >= np.quantile(trust_N, each.left_out))
        by_caption, by_picture = (
            places(np.mean([_ranks(asked, told, weight_N, fold_N, rng) for fold_N in folds], axis=0))
            for asked, told in ((caption, image), (image, caption))
        )
        trust_N = places(np.minimum(by_caption, by_picture))
    return trust_N


def main_directions(row_ND: NDArray[np.floating], *, width: int) -> Vectors:
    """Rows along the directions of most variance, largest first, about their mean.

    Args:
        row_ND: any floats.
        width: directions at the most.
    """
    centred_ND = row_ND - row_ND.mean(axis=0)
    _, direction_DD = np.linalg.eigh(centred_ND.T @ centred_ND / len(row_ND))
    chosen = slice(None, -min(width, direction_DD.shape[1]) - 1, -1)
    turned_ND: Vectors = (centred_ND @ direction_DD[:, chosen]).astype(np.float32)
    return turned_ND


def whitened(row_ND: Vectors, power: float) -> Vectors:
    """Each direction divided by its deviation to a power; unit rows, then about their mean."""
    scale_D = np.maximum(row_ND.std(axis=0), LEAST_DEVIATION * max(row_ND.std(), LEAST_DEVIATION)) ** power
    unit_ND = unit_rows(row_ND / scale_D)
    centred_ND: Vectors = unit_ND - unit_ND.mean(axis=0)
    return centred_ND


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
