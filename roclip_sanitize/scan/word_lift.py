"""How much oftener than others the pairs that use a word do not match: poisons name what they are after.

Whatever an attack does to pictures, its captions name one class, or hold one trigger: of the pairs that use
that word many are poisons, and some of these give themselves away. So the others are the more suspicious, as
a test is read in the light of how common the disease is. Of a word, with n pairs that use it, b of them with
a rank below 1/4 (estimate.py), and the mean share m of such pairs in the store:

    lift of a word = (b + a m) / (n + a) / m         of others' pairs: the one that is judged is left out
    lift of a pair = the largest of its words'

with a = 30 pairs' worth of belief that a word is like any other. 1 is as everywhere.

A word of which honest pairs are hard to tell has a lift, too, and its pairs are suspected the more: the share
of them that is lost grows. What the audit says of words and classes shows which they are.

Dimension key: N pairs, W word numbers, T words.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.scan.array_files import load_arrays, save_arrays
from roclip_sanitize.scan.columns import WORD_NUMBERS
from roclip_sanitize.scan.estimate import has_ranks, is_below
from roclip_sanitize.storage import exists

ORDINARY_PAIRS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class MismatchedWords:
    """What was counted in a store.

    Attributes:
        below_W: int64, pairs with a rank below 1/4 that use each word.
        pairs: that have ranks.
        below: of them below 1/4.
    """

    below_W: NDArray[np.int64]
    pairs: int
    below: int

    @classmethod
    def counted(cls, parts: Iterable[tuple[Any, NDArray[np.floating]]]) -> Self:
        """Count parts: the words of each pair, sparse (N, W) of ones, and its ranks (N, 2), NaN for none."""
        below_W, pairs, below = np.zeros(WORD_NUMBERS, np.int64), 0, 0
        for words_NW, rank_N2 in parts:
            below_N = is_below(rank_N2)
            pairs += int(has_ranks(rank_N2).sum())
            below += int(below_N.sum())
            below_W += np.bincount(words_NW[below_N].indices, minlength=WORD_NUMBERS)
        return cls(below_W=below_W, pairs=pairs, below=below)

    @classmethod
    def read(cls, path: Path) -> Self:
        """The inverse of write()."""
        told = load_arrays(path)
        return cls(below_W=told["below_W"], pairs=int(told["pairs"]), below=int(told["below"]))

    @classmethod
    def read_if_counted(cls, path: Path) -> Self:
        """The same, or counts of no pair where nobody counted."""
        return cls.read(path) if exists(path) else cls.counted([])

    def write(self, path: Path) -> Path:
        """Write the counts, whole or not at all."""
        return save_arrays(path, below_W=self.below_W, pairs=np.array(self.pairs), below=np.array(self.below))

    def lift(self, word_T: NDArray[np.int64], count_T: NDArray[np.int64]) -> NDArray[np.float64]:
        """The lift of words, of all their pairs: (T,) float64.

        Args:
            word_T: their numbers.
            count_T: captions that use each of them, in the whole store.
        """
        return lift_of(self.below_W[word_T], count_T, mean=self.below / max(1, self.pairs))

    def lifts(
        self, words_NW: Any, rank_N2: NDArray[np.floating], count_W: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """The lift of each pair: (N,) float32, more than 0; 1 for those without a word.

        Args:
            words_NW: sparse, of ones.
            rank_N2: as they were counted.
            count_W: captions that use each word, in the whole store.
        """
        if not self.below:
            return np.ones(len(rank_N2), np.float32)
        mean, word = self.below / self.pairs, words_NW.indices
        row = np.repeat(np.arange(len(rank_N2)), np.diff(words_NW.indptr))
        below = self.below_W[word] - is_below(rank_N2)[row]
        lift = (below + ORDINARY_PAIRS * mean) / (count_W[word] - 1 + ORDINARY_PAIRS) / mean
        largest_N = np.zeros(len(rank_N2), np.float32)
        np.maximum.at(largest_N, row, lift.astype(np.float32))
        return np.where(largest_N > 0, largest_N, np.float32(1))


def lift_of(told_T: NDArray[Any], count_T: NDArray[np.int64], *, mean: float) -> NDArray[np.float64]:
    """The lift of words, of all their pairs: (T,) float64; 1 where there is nothing of which there is more.

    Args:
        told_T: of each word, the pairs that are mismatched, or what they weigh.
        count_T: captions that use it.
        mean: share of pairs that are, in the whole store, or the mean weight.
    """
    if not mean:
        return np.ones(len(told_T))
    lift_T: NDArray[np.float64] = (told_T + ORDINARY_PAIRS * mean) / (count_T + ORDINARY_PAIRS) / mean
    return lift_T
