"""Captions as rows: latent semantic analysis of their words, from sums that parts can add up.

    word counts ─▶ Vocabulary ─▶ rows() ─▶ squares, summed over all captions ─▶ main_directions_of()

A caption's row has the inverse document frequency of each of its words, and length 1. The directions are
those that singular value decomposition of all rows would give, found from the words' sums of products
alone, so that no step holds all captions.

Pure arithmetic: no files.

Dimension key: N captions, W word numbers, V words of the vocabulary, E directions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.scan.columns import WORD_NUMBERS

MOST_WORDS = 4_096  # the commonest; their squares take 134 MB
LEAST_CAPTIONS = 3  # that use a word, or it tells nothing
LEAST_VARIANCE = 1e-9  # of the whole: below, a direction is rounding

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The words that captions are told apart by.

    Attributes:
        word_V: int64 word numbers.
        weight_V: float32, how much each tells: its inverse document frequency.
    """

    word_V: NDArray[np.int64]
    weight_V: NDArray[np.float32]

    @classmethod
    def of(cls, word_counts_W: NDArray[np.int64], *, captions: int) -> Self:
        """The commonest words that some captions share and not all use; equally common ones by number."""
        telling = np.flatnonzero((word_counts_W >= LEAST_CAPTIONS) & (word_counts_W < captions))
        word_V = telling[np.argsort(-word_counts_W[telling], kind="stable")[:MOST_WORDS]]
        weight_V = np.log((1 + captions) / (1 + word_counts_W[word_V])) + 1
        return cls(word_V=word_V, weight_V=weight_V.astype(np.float32))

    def __len__(self) -> int:
        return len(self.word_V)

    def rows(self, words_NW: Any) -> Any:
        """Which words captions use, sparse (N, W) → sparse (N, V) float32: unit rows, or empty ones."""
        from scipy.sparse import csr_matrix

        rows = words_NW.shape[0]
        place = self._place_W[words_NW.indices]
        row = np.repeat(np.arange(rows), np.diff(words_NW.indptr))[place >= 0]
        place = place[place >= 0]
        weight = self.weight_V[place]
        square_N = np.bincount(row, weight.astype(np.float64) ** 2, minlength=rows)
        unit = (weight / np.sqrt(square_N[row])).astype(np.float32)
        offset = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=rows))])
        return csr_matrix((unit, place, offset), shape=(rows, len(self)))

    @cached_property
    def _place_W(self) -> NDArray[np.int64]:
        place_W = np.full(WORD_NUMBERS, -1, np.int64)
        place_W[self.word_V] = np.arange(len(self))
        return place_W


@dataclass(frozen=True, slots=True, kw_only=True)
class Directions:
    """The directions in which rows differ most, largest first.

    Attributes:
        mean_V: float32, of all rows.
        turn_VE: float32, orthonormal columns.
        deviation_E: float32, of the rows along each.
    """

    mean_V: NDArray[np.float32]
    turn_VE: NDArray[np.float32]
    deviation_E: NDArray[np.float32]

    @classmethod
    def of(cls, square_VV: Floats, sum_V: Floats, *, rows: int, width: int, centred: bool) -> Self:
        """From sums over all rows.

        Args:
            square_VV: float64, of the rows' outer products.
            sum_V: float64, of the rows.
            rows: how many they are.
            width: directions at the most.
            centred: whether directions are of rows about their mean, or, which keeps sparse ones sparse,
                about nothing. Rows are told about the mean either way.
        """
        mean_V = sum_V / max(rows, 1)
        second_VV = square_VV / max(rows, 1)
        if centred:
            second_VV -= np.outer(mean_V, mean_V)
        turn_VE, moment_E = _largest(second_VV, width)
        variance_E = moment_E - (0 if centred else (mean_V @ turn_VE) ** 2)
        whole = np.trace(square_VV) / max(rows, 1) - mean_V @ mean_V
        kept_E = variance_E > LEAST_VARIANCE * max(whole, 0) + 1e-12
        return cls(
            mean_V=mean_V.astype(np.float32),
            turn_VE=turn_VE[:, kept_E].astype(np.float32),
            deviation_E=np.sqrt(variance_E[kept_E]).astype(np.float32),
        )

    @property
    def width(self) -> int:
        """How many directions there are."""
        return len(self.deviation_E)

    def told(self, row_NV: Any) -> NDArray[np.float16]:
        """Rows, dense or sparse, about their mean along the directions, in deviations: (N, E) float16."""
        turned_NE = row_NV @ self.turn_VE - self.mean_V @ self.turn_VE
        told_NE: NDArray[np.float16] = (turned_NE / self.deviation_E).astype(np.float16)
        return told_NE


def _largest(second_VV: Floats, width: int) -> tuple[Floats, Floats]:
    """The eigenvectors of the largest eigenvalues, as columns, and these; largest first. Spoils its input."""
    from scipy.linalg import eigh

    if not len(second_VV):
        return np.zeros((0, 0)), np.zeros(0)
    chosen = [max(0, len(second_VV) - width), len(second_VV) - 1]
    value_E, turn_VE = eigh(second_VV, subset_by_index=chosen, overwrite_a=True)
    return turn_VE[:, ::-1], value_E[::-1]
