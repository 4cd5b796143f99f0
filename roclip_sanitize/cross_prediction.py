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

cross_prediction_trust() holds all pairs at once. The pieces below it are also what a scan is made of that
goes through a store part by part (scan/cross_rounds.py).

Pure arithmetic: no files, no torch.

Dimension key: N pairs, M some of them, D width of picture vectors, E of caption vectors, R reference pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FOLDS = 2
FOLDINGS = 3
RIDGE = 1.0  # pairs' worth of shrinking
REFERENCES = 1_000
JUDGED_AT_ONCE = 4_096
LEAST_DEVIATION = 1e-6
TIED = np.float32(1e-6)  # fits that differ by less are equal: captions of the same words, a reference itself

Vectors = NDArray[np.float32]


def share_worse(own_M: Vectors, other_MR: Vectors) -> NDArray[np.float64]:
    """Share of others that fit worse than the own: (M,) float64."""
    worse_M = np.count_nonzero(other_MR < own_M[:, None], axis=1)  # much quicker than a mean of booleans
    share_M: NDArray[np.float64] = worse_M / max(1, other_MR.shape[1])
    return share_M


def share_worse_ties_half(own_M: Vectors, other_MR: Vectors) -> NDArray[np.float64]:
    """The same, equal ones counting half, so that no rounding decides where many captions are the same."""
    worse_M = share_worse(own_M - TIED, other_MR)
    not_better_M = share_worse(own_M + TIED, other_MR)
    rank_M: NDArray[np.float64] = (worse_M + not_better_M) / 2
    return rank_M


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
    return trust_by_folds(image_ND, caption_NE, picture_N, folds=folds, rng=rng, trust_N=trust_N)


def trust_by_folds(
    image_ND: Vectors,
    caption_NE: Vectors,
    picture_N: NDArray[np.int64],
    *,
    folds: Sequence[NDArray[np.int64]],
    rng: np.random.Generator,
    trust_N: NDArray[np.float32] | None = None,
    rank: Callable[[Vectors, Vectors], NDArray[np.float64]] = share_worse,
) -> NDArray[np.float32]:
    """cross_prediction_trust() for given folds.

    Args:
        image_ND: as there; so are caption_NE, picture_N and trust_N.
        caption_NE: see there.
        picture_N: see there.
        folds: of each folding, (N,) numbers of folds.
        rng: draws references.
        trust_N: see there.
        rank: share_worse(), or share_worse_ties_half().
    """
    vote_N = 1 / np.bincount(picture_N)[picture_N]
    rounds = FROM_NOTHING if trust_N is None else FROM_TRUST
    trust_N = np.ones(len(picture_N), np.float32) if trust_N is None else trust_N
    for each in rounds:
        image = whitened(image_ND, each.picture_whitening)
        caption = whitened(caption_NE, each.caption_whitening)
        weight_N = weights(trust_N, vote_N, left_out=each.left_out)
        by_caption, by_picture = (
            np.mean([_ranks(asked, told, weight_N, fold_N, rng, rank) for fold_N in folds], axis=0)
            for asked, told in ((caption, image), (image, caption))
        )
        trust_N = trust_of(by_caption, by_picture)
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
    unit_ND = unit_rows(row_ND / scales(row_ND.std(axis=0), power))
    centred_ND: Vectors = unit_ND - unit_ND.mean(axis=0)
    return centred_ND


def scales(deviation_D: NDArray[np.floating], power: float) -> NDArray[np.floating]:
    """What whitening divides each direction by; those that hardly vary count as varying a little."""
    whole = np.sqrt((deviation_D**2).sum() / max(1, len(deviation_D)))
    least = LEAST_DEVIATION * max(whole, LEAST_DEVIATION)
    divisor_D: NDArray[np.floating] = np.maximum(deviation_D, least) ** power
    return divisor_D


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


def weights(
    trust_N: NDArray[np.float32], vote_N: NDArray[np.floating], *, left_out: float
) -> NDArray[np.floating]:
    """How much is learnt from each pair: its vote, and nothing from the share that is trusted least."""
    weight_N: NDArray[np.floating] = vote_N * (trust_N >= np.quantile(trust_N, left_out))
    return weight_N


def trust_of(by_caption_N: NDArray[np.floating], by_picture_N: NDArray[np.floating]) -> NDArray[np.float32]:
    """The place of the lower of two places: each pair's, judged by what its halves tell of each other."""
    return places(np.minimum(places(by_caption_N), places(by_picture_N)))


def ridge(square_EE: NDArray[np.floating], product_ED: NDArray[np.floating]) -> Vectors:
    """Ridge regression from weighted sums over pairs: (E, D) float32, by which a row is multiplied.

    Args:
        square_EE: sum of the outer products of rows that predict with themselves.
        product_ED: the same with the rows that are predicted.
    """
    shrunk_EE = square_EE + RIDGE * np.eye(len(square_EE), dtype=square_EE.dtype)
    learnt_ED: Vectors = np.linalg.solve(shrunk_EE, product_ED).astype(np.float32)
    return learnt_ED


def fits(told_MD: Vectors, predicted_MD: Vectors, predicted_RD: Vectors) -> tuple[Vectors, Vectors]:
    """How well predictions fit, larger is nearer: of rows' own (M,), and of all references (M, R)."""
    own_M = own_fits(told_MD, predicted_MD)
    other_MR: Vectors = told_MD @ predicted_RD.T
    other_MR -= half_squares(predicted_RD)
    return own_M, other_MR


def own_fits(told_MD: Vectors, predicted_MD: Vectors) -> Vectors:
    """How well each row's own prediction fits it: (M,), as fits() counts."""
    own_M: Vectors = (told_MD * predicted_MD).sum(axis=1) - half_squares(predicted_MD)
    return own_M


def half_squares(row_MD: Vectors) -> Vectors:
    """Half of each row's squared length: what makes a product compare as a distance does."""
    half_M: Vectors = (row_MD**2).sum(axis=1) / 2
    return half_M


def tie_broken(rank_M: NDArray[np.floating], own_M: Vectors) -> NDArray[np.floating]:
    """Ranks, and equal ones by how well the pair's own prediction fits."""
    return rank_M + 1e-4 * own_M


def _ranks(
    asked_NE: Vectors,
    told_ND: Vectors,
    weight_N: NDArray[np.floating],
    fold_N: NDArray[np.int64],
    rng: np.random.Generator,
    rank: Callable[[Vectors, Vectors], NDArray[np.float64]],
) -> NDArray[np.float64]:
    """Share of reference pairs whose ``asked`` row predicts a pair's ``told`` row worse than its own."""
    rank_N = np.zeros(len(fold_N))
    for fold in range(FOLDS):
        learnt_ED = _ridge(asked_NE, told_ND, np.where(fold_N == fold, 0.0, weight_N))
        judged = np.flatnonzero(fold_N == fold)
        predicted_ND = asked_NE[judged] @ learnt_ED
        references = rng.choice(len(judged), min(REFERENCES, len(judged)), replace=False)
        for start in range(0, len(judged), JUDGED_AT_ONCE):
            part = slice(start, start + JUDGED_AT_ONCE)
            own_M, other_MR = fits(told_ND[judged[part]], predicted_ND[part], predicted_ND[references])
            rank_N[judged[part]] = tie_broken(rank(own_M, other_MR), own_M)
    return rank_N


def _ridge(asked_NE: Vectors, told_ND: Vectors, weight_N: NDArray[np.floating]) -> Vectors:
    """Weighted ridge regression: (E, D)."""
    used = np.flatnonzero(weight_N)
    root_N1 = np.sqrt(weight_N[used]).astype(np.float32)[:, None]
    asked, told = asked_NE[used] * root_N1, told_ND[used] * root_N1
    return ridge(asked.T @ asked, asked.T @ told)
