"""Detector: does a caption use the words of the captions of the pictures most like its own?

The pictures' likeness comes from features that never saw a caption, so that a poisoned caption
cannot bend it. Copies of the picture itself are left out, and any other picture has one vote, so
that poisons can neither vouch for each other nor outvote the rest by repetition.

    neighbours ─▶ evidence() ─▶ word_weights() ─▶ suspicion()
                  per pair      whole store       per pair

For every word of the caption, its *lift* is how much more often the neighbours' captions use it
than captions do in general: 0 where none does, 1 where it is as common as anywhere. The word's
*evidence* is log(1 + lift), and log 2 of it is neutral.

Words differ in how much they should show: neighbours of a shoe say "shoe", but hardly ever the
same brand. A word *weighs* as much as its evidence exceeds log 2 on average over all captions
that use it, and nothing if it does not. Then

    suspicion = exp(-weighted mean of the evidence of its words, and of one neutral word of weight 1)

which lies between 0 and 1. At 1/2 the neighbours tell nothing: they use its words as everybody
does. Above, they use them less; at 1, not at all. So 1/2 is a threshold that needs no tuning.
Without the neutral word a caption of one word would count as much as one of ten that all fail.

A word that fewer than three captions use tells nothing of what a picture shows, and is passed over.

Pure arithmetic: no files.

Dimension key: N pairs, K neighbours, M neighbours of all N together, W word numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

NEUTRAL = 0.5
NEUTRAL_EVIDENCE = np.log(2.0)
MIN_CAPTIONS_OF_WORD = 3


class WordLookup(Protocol):
    """Which words captions use."""

    word_counts_W: NDArray[np.int64]

    def __len__(self) -> int:
        """How many captions there are."""
        ...

    def words(self, row_M: NDArray[np.int64]) -> Any:
        """Sparse (M, W) of ones, each row's word numbers ascending."""
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


def evidence(row_N: NDArray[np.int64], neighbours_NK: NDArray[np.int64], lookup: WordLookup) -> Any:
    """What the neighbours say to each word of some captions.

    Args:
        row_N: numbers of the captions' rows.
        neighbours_NK: rows of the pictures most like theirs; -1 where there are fewer than K.
        lookup: words of all rows.

    Returns:
        Sparse (N, W) float32: log(1 + lift) of every known word, zeros kept; nothing in a row
        without neighbours.
    """
    from scipy.sparse import csr_matrix

    asked_N: NDArray[np.bool_] = np.any(neighbours_NK >= 0, axis=1)
    known_NW = _known_words(row_N, asked_N, lookup)
    shared_NW = known_NW.multiply(_shares(neighbours_NK, lookup)).tocsr()
    shared_NW.sort_indices()
    evidence_NW = csr_matrix(
        (np.zeros(known_NW.nnz, np.float32), known_NW.indices, known_NW.indptr), shape=known_NW.shape
    )
    place = np.searchsorted(_places(known_NW), _places(shared_NW))
    frequency = lookup.word_counts_W[shared_NW.indices] / len(lookup)
    evidence_NW.data[place] = np.log1p(shared_NW.data / frequency)
    return evidence_NW


def word_weights(evidences: Iterable[Any], *, words: int) -> NDArray[np.float32]:
    """How much each word should show, from the evidence of the whole store.

    Args:
        evidences: sparse (N, W) blocks, see evidence().
        words: W.

    Returns:
        (W,) float32: mean evidence over the captions that use the word, as far as it exceeds log 2.
    """
    total_W, uses_W = np.zeros(words), np.zeros(words, np.int64)
    for evidence_NW in evidences:
        total_W += np.bincount(evidence_NW.indices, evidence_NW.data, minlength=words)
        uses_W += np.bincount(evidence_NW.indices, minlength=words)
    excess_W: NDArray[np.float32] = (total_W / np.maximum(uses_W, 1) - NEUTRAL_EVIDENCE).astype(np.float32)
    return excess_W.clip(min=0)


def suspicion(evidence_NW: Any, weight_W: NDArray[np.float32]) -> NDArray[np.float32]:
    """Score captions.

    Args:
        evidence_NW: sparse float32, see evidence().
        weight_W: float32, see word_weights().

    Returns:
        (N,) float32 in (0, 1], higher is more suspicious; NaN where there is no neighbour or no
        known word, so that nothing can be said.
    """
    length_N = np.diff(evidence_NW.indptr)
    row = np.repeat(np.arange(len(length_N)), length_N)
    weight = weight_W[evidence_NW.indices].astype(np.float64)
    weighed_N = np.bincount(row, weight * evidence_NW.data, minlength=len(length_N))
    mean_N = (weighed_N + NEUTRAL_EVIDENCE) / (np.bincount(row, weight, minlength=len(length_N)) + 1)
    return np.where(length_N == 0, np.nan, np.exp(-mean_N)).astype(np.float32)


def _known_words(row_N: NDArray[np.int64], asked_N: NDArray[np.bool_], lookup: WordLookup) -> Any:
    """The words of captions that have neighbours, as far as three captions use them: sparse (N, W)."""
    from scipy.sparse import csr_matrix

    words_NW = lookup.words(row_N)
    row = np.repeat(np.arange(len(row_N)), np.diff(words_NW.indptr))
    known = (lookup.word_counts_W[words_NW.indices] >= MIN_CAPTIONS_OF_WORD) & asked_N[row]
    offset = np.concatenate([[0], np.cumsum(np.bincount(row[known], minlength=len(row_N)))])
    return csr_matrix((words_NW.data[known], words_NW.indices[known], offset), shape=words_NW.shape)


def _places(matrix_NW: Any) -> NDArray[np.int64]:
    """Row and word of each entry as one ascending number."""
    row = np.repeat(np.arange(matrix_NW.shape[0], dtype=np.int64), np.diff(matrix_NW.indptr))
    place: NDArray[np.int64] = row * matrix_NW.shape[1] + matrix_NW.indices
    return place


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
