"""How well the halves of each training pair go together, before anything has been learnt from it.

Pictures as thumbnails, captions by their tokens, each reduced to the directions that matter most; then
cross_prediction.py. Nothing here has seen a caption beside a picture, and nothing is kept of it but a
number for each pair.

Dimension key: N pairs, S side of the thumbnail, V tokens of the vocabulary.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.cross_prediction import cross_prediction_trust, half_whitened, unit_rows
from roclip_sanitize.training.data import TrainingData

SIDE = 16  # of thumbnails
PICTURE_WIDTH, CAPTION_WIDTH = 192, 256
READ_AT_ONCE = 4_096
LEAST_CAPTIONS = 3  # that use a token, or it tells nothing
MOST_TOKENS = 4_096  # the commonest


def pair_trust(data: TrainingData, *, seed: int) -> NDArray[np.float32]:
    """(N,) float32 from 0 to 1: see cross_prediction_trust(). All pairs are held at once."""
    pictures = half_whitened(_thumbnails(data), width=PICTURE_WIDTH)
    return cross_prediction_trust(pictures, _words(data, seed=seed), data.image_group_N, seed=seed)


def _thumbnails(data: TrainingData) -> NDArray[np.float32]:
    """(N, S · S · 3) unit rows."""
    parts = []
    for rows in _chunks(data.rows):
        image_MHH3 = data.read(rows)[0]
        block = image_MHH3.shape[1] // SIDE
        cut_MHH3 = image_MHH3[:, : block * SIDE, : block * SIDE].astype(np.float32)
        small_MSS3 = cut_MHH3.reshape(len(rows), SIDE, block, SIDE, block, 3).mean(axis=(2, 4))
        parts.append(unit_rows(small_MSS3.reshape(len(rows), -1) + 1))
    return np.concatenate(parts)


def _words(data: TrainingData, *, seed: int) -> NDArray[np.float32]:
    """(N, CAPTION_WIDTH) unit rows: latent semantic analysis of tf-idf, half whitened."""
    from sklearn.utils.extmath import randomized_svd

    weight_NV = _tf_idf(np.concatenate([data.read(rows)[1] for rows in _chunks(data.rows)]))
    width = min(CAPTION_WIDTH, min(weight_NV.shape) - 1)
    left_NE, size_E, _ = randomized_svd(weight_NV, width, n_iter=2, random_state=seed)
    row_NE = left_NE * size_E
    row_NE -= row_NE.mean(axis=0)
    return unit_rows(row_NE / np.sqrt(np.maximum(row_NE.std(axis=0), 1e-12)))


def _tf_idf(token_NL: NDArray[np.int64]) -> Any:
    """Sparse (N, W) float32, unit rows, of the commonest tokens that are not in every caption."""
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import TfidfTransformer

    row, place = np.nonzero(token_NL)
    count_NV = csr_matrix((np.ones(len(row), np.float32), (row, token_NL[row, place])))
    used_V = np.bincount(count_NV.indices, minlength=count_NV.shape[1])
    telling_V = np.flatnonzero((used_V >= min(LEAST_CAPTIONS, len(token_NL))) & (used_V < len(token_NL)))
    chosen_V = telling_V[np.argsort(-used_V[telling_V], kind="stable")[:MOST_TOKENS]]
    return TfidfTransformer(sublinear_tf=True).fit_transform(count_NV[:, chosen_V])


def _chunks(rows: int) -> list[NDArray[np.int64]]:
    return [np.arange(start, min(start + READ_AT_ONCE, rows)) for start in range(0, rows, READ_AT_ONCE)]
