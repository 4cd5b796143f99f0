"""Which training pairs to trust before anything has been learnt from them, and whom to ask about the others.

Pictures as thumbnails, captions by their tokens, each along the directions in which they differ most.
Nothing here has seen a caption beside a picture until cross_prediction.py asks how well they tell of
each other. A doubtful pair has *witnesses*: of its picture, the trusted pairs whose pictures are most like
it, and of its caption, those whose captions are.

Dimension key: N pairs, F doubtful ones, K witnesses, S side of the thumbnail, W tokens that count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.cross_prediction import cross_prediction_trust, main_directions, unit_rows, whitened
from roclip_sanitize.training.data import TrainingData

SIDE = 16  # of thumbnails
PICTURE_WIDTH, CAPTION_WIDTH = 192, 256
WHITENING = 0.5  # where witnesses are looked for: see cross_prediction.Round
WITNESSES = 5
LEAST_OF_WITNESSES = 0.5  # their trust: the better half holds hardly any poison
AT_ONCE = 4_096
LEAST_CAPTIONS = 3  # that use a token, or it tells nothing
MOST_TOKENS = 4_096  # the commonest
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubts:
    """Pairs that are not trusted, and their witnesses.

    Attributes:
        row_F: the doubtful pairs, ascending.
        by_picture_FK: trusted pairs with pictures most like theirs, nearest first.
        by_caption_FK: trusted pairs with captions most like theirs.
    """

    row_F: Rows
    by_picture_FK: Rows
    by_caption_FK: Rows


def find_doubts(data: TrainingData, *, share: float, seed: int) -> Doubts:
    """Judge all pairs. They are held at once, as about 2 kB each.

    Args:
        data: the pairs.
        share: of them that is doubted, the least trusted. So are, of several pairs with one picture,
            all but the most trusted.
        seed: of how pairs are folded.
    """
    picture_ND, caption_NE = _pictures(data), _captions(data, seed=seed)
    group_N = data.image_group_N
    trust_N = cross_prediction_trust(picture_ND, caption_NE, group_N, seed=seed)
    doubtful_N = (trust_N < share) | ~_best_of_each(group_N, trust_N)
    row_F = np.flatnonzero(doubtful_N)
    trusted = np.flatnonzero(~doubtful_N & (trust_N >= LEAST_OF_WITNESSES))
    pictures, captions = (whitened(rows, WHITENING) for rows in (picture_ND, caption_NE))
    return Doubts(
        row_F=row_F,
        by_picture_FK=_witnesses(pictures, row_F, trusted, apart_N=group_N),
        by_caption_FK=_witnesses(captions, row_F, trusted, apart_N=data.caption_group_N),
    )


def _best_of_each(group_N: Rows, trust_N: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether a pair is the most trusted of its group."""
    best_N = np.zeros(len(group_N), bool)
    order_N = np.lexsort((-trust_N, group_N))
    best_N[order_N[np.unique(group_N[order_N], return_index=True)[1]]] = True
    return best_N


def _witnesses(vector_ND: NDArray[np.float32], row_F: Rows, trusted: Rows, *, apart_N: Rows) -> Rows:
    """(F, K) trusted rows most like some, but not of their own group."""
    unit_ND = unit_rows(vector_ND)
    found = [np.zeros((0, WITNESSES), np.int64)]
    for start in range(0, len(row_F), AT_ONCE):
        asked = row_F[start : start + AT_ONCE]
        cosine = unit_ND[asked] @ unit_ND[trusted].T
        cosine[apart_N[asked][:, None] == apart_N[trusted]] = -2.0
        nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :WITNESSES]
        found.append(trusted[nearest])
    return np.concatenate(found)


def _pictures(data: TrainingData) -> NDArray[np.float32]:
    """Thumbnails as unit rows, along their main directions."""
    parts = []
    for rows in _chunks(data.rows):
        image_MHH3 = data.read(rows)[0]
        block = image_MHH3.shape[1] // SIDE
        cut_MHH3 = image_MHH3[:, : block * SIDE, : block * SIDE].astype(np.float32)
        small_MSS3 = cut_MHH3.reshape(len(rows), SIDE, block, SIDE, block, 3).mean(axis=(2, 4))
        parts.append(unit_rows(small_MSS3.reshape(len(rows), -1) + 1))
    return main_directions(np.concatenate(parts), width=PICTURE_WIDTH)


def _captions(data: TrainingData, *, seed: int) -> NDArray[np.float32]:
    """Latent semantic analysis of their tokens' tf-idf, about its mean."""
    from sklearn.utils.extmath import randomized_svd

    weight_NW = _tf_idf(np.concatenate([data.read(rows)[1] for rows in _chunks(data.rows)]))
    width = min(CAPTION_WIDTH, min(weight_NW.shape) - 1)
    left_NE, size_E, _ = randomized_svd(weight_NW, width, n_iter=2, random_state=seed)
    row_NE: NDArray[np.float32] = (left_NE * size_E).astype(np.float32)
    return row_NE - row_NE.mean(axis=0)


def _tf_idf(token_NL: Rows) -> Any:
    """Sparse (N, W) float32, unit rows, of the commonest tokens that are not in every caption."""
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import TfidfTransformer

    row, place = np.nonzero(token_NL)
    count_NV = csr_matrix((np.ones(len(row), np.float32), (row, token_NL[row, place])))
    used_V = np.bincount(count_NV.indices, minlength=count_NV.shape[1])
    telling_V = np.flatnonzero((used_V >= min(LEAST_CAPTIONS, len(token_NL))) & (used_V < len(token_NL)))
    chosen_V = telling_V[np.argsort(-used_V[telling_V], kind="stable")[:MOST_TOKENS]]
    return TfidfTransformer(sublinear_tf=True).fit_transform(count_NV[:, chosen_V])


def _chunks(rows: int) -> list[Rows]:
    return [np.arange(start, min(start + AT_ONCE, rows)) for start in range(0, rows, AT_ONCE)]
