"""Detector: does a caption use the words of the captions of the pictures most like its own?

The pictures' likeness comes from features that never saw a caption, so that a poisoned caption
cannot bend it. Copies of the picture itself are left out, and any other picture has one vote, so
that poisons can neither vouch for each other nor outvote the rest by repetition.

For every word of the caption, its *lift* is how much more often the neighbours' captions use it
than captions do in general: 0 where none does, 1 where it is as common as anywhere. Then

    suspicion = 1 / geometric mean of (1 + lift) over its words, and one neutral word of lift 1

which lies between 0 and 1. At 1/2 the neighbours tell nothing: they use its words as everybody
does. Above, they use them less; at 1, not at all. So 1/2 is a threshold that needs no tuning.
Without the neutral word a caption of one word would count as much as one of ten that all fail.
Logarithm of it is the mean pointwise mutual information of word and neighbourhood, smoothed.

A word that fewer than three captions use tells nothing of what a picture shows, and is passed over.

Pure arithmetic: no files.

Dimension key: N pairs, K neighbours, M neighbours of all N together, W word numbers.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

NEUTRAL = 0.5
MIN_CAPTIONS_OF_WORD = 3


class WordLookup(Protocol):
    """Which words captions use."""

    word_counts_W: NDArray[np.int64]

    def __len__(self) -> int:
        """How many captions there are."""
        ...

    def words(self, row_M: NDArray[np.int64]) -> Any:
        """Sparse (M, W) of ones."""
        ...


def one_vote_per_picture(
    neighbours_NK: NDArray[np.int64], picture: NDArray[np.uint64], *, keep: int
) -> NDArray[np.int64]:
    """Keep the nearest row of each byte-identical picture, and of those the nearest ``keep``.

    Args:
        neighbours_NK: rows, nearest first; -1 for none.
        picture: of every row of the store, equal where pictures are byte-identical.
        keep: columns of the result.

    Returns:
        (N, keep) rows, nearest first, filled up with -1.
    """
    picture_NK = picture[np.maximum(neighbours_NK, 0)]
    votes_NK = neighbours_NK >= 0
    for place in range(1, neighbours_NK.shape[1]):
        votes_NK[:, place] &= ~(picture_NK[:, :place] == picture_NK[:, place, None]).any(axis=1)
    order_NK = np.argsort(~votes_NK, axis=1, kind="stable")[:, :keep]
    kept_NK = np.take_along_axis(np.where(votes_NK, neighbours_NK, -1), order_NK, axis=1)
    missing = max(0, keep - neighbours_NK.shape[1])
    return np.pad(kept_NK, ((0, 0), (0, missing)), constant_values=-1)


def suspicion(
    row_N: NDArray[np.int64], neighbours_NK: NDArray[np.int64], lookup: WordLookup
) -> NDArray[np.float32]:
    """Score some rows of the store.

    Args:
        row_N: their numbers.
        neighbours_NK: rows of the pictures most like theirs; -1 where there are fewer than K.
        lookup: words of all rows.

    Returns:
        float32 in (0, 1], higher is more suspicious; NaN where there is no neighbour or no known
        word, so that nothing can be said.
    """
    weight_NW, known_N = _weigh(lookup.words(row_N), lookup)
    lift_NW = weight_NW.multiply(_shares(neighbours_NK, lookup)).tocsr()
    lift_NW.data = np.log1p(lift_NW.data)
    evidence_N = np.asarray(lift_NW.sum(axis=1)).ravel() + np.log(2.0)
    score_N = np.exp(-evidence_N / (known_N + 1))
    silent_N = (known_N == 0) | (neighbours_NK < 0).all(axis=1)
    return np.where(silent_N, np.nan, score_N).astype(np.float32)


def _weigh(words_NW: Any, lookup: WordLookup) -> tuple[Any, NDArray[np.int64]]:
    """1 / frequency of each known word, and how many known words each caption has."""
    weight_NW = words_NW.copy()
    counts = lookup.word_counts_W[words_NW.indices]
    known = counts >= MIN_CAPTIONS_OF_WORD
    weight_NW.data = np.where(known, len(lookup) / np.maximum(counts, 1), 0.0)
    pair = np.repeat(np.arange(words_NW.shape[0]), np.diff(words_NW.indptr))
    return weight_NW, np.bincount(pair[known], minlength=words_NW.shape[0])


def _shares(neighbours_NK: NDArray[np.int64], lookup: WordLookup) -> Any:
    """The share of each pair's neighbours that use each word: sparse (N, W)."""
    from scipy.sparse import csr_matrix

    present_NK = neighbours_NK >= 0
    found_N = present_NK.sum(axis=1)
    pair_M = np.repeat(np.arange(len(neighbours_NK)), found_N)
    average_NM = csr_matrix(
        (1.0 / found_N[pair_M], (pair_M, np.arange(len(pair_M)))), shape=(len(neighbours_NK), len(pair_M))
    )
    return average_NM @ lookup.words(neighbours_NK[present_NK])
