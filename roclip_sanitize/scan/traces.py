"""What do the pictures of mismatched pairs have in common, that others with the same word lack? A trigger.

An attack stamps, blends or filters the same thing into many pictures, and captions them all with one class.
Some of them give themselves away (word_lift.py); whatever was put into them is in the rest, too. So, of a
word that mismatched pairs use often, the *found* ones, and the *others* that use it:

    direction of a word    mean of the found pictures, in directions along which all pictures differ alike:
                           Fisher's linear discriminant (1936) of them and of all pictures
    likeness of a picture  its component along that, of a found one along the mean of the other found ones
    gap                    median likeness of the found less that of the others, in spreads: the larger of
                           both medians of absolute deviations, times 1.4826

A word has a *trace* where the gap is 5 or more. Honest pairs that are hard to tell have none: found and
others of a word show the same kind of thing, and no picture looks like the found ones only. Where there is a
trace, a pair's evidence is the logarithm of a likelihood ratio, of two normal distributions a gap apart:

    evidence of a pair     gap (its likeness, in spreads above the others' median, less half the gap)

0 where that is negative, the largest of its words', and at the most that of a ratio of 10,000. Pairs with 4
or more are found from then on, and all is done again until no more are, eight times at the most: so a few
poisons give away all that share a word with them, and these others (benchmarks/LOG.md).

It sees what is in the main directions of the store's own vectors: what covers whole pictures, rather than a
patch anywhere, or a warp. Where more than half the pairs of a word are poisons that nobody found, the others
are no others, and the word tells nothing; its poisons are found by their other words.

Pure: no files.

Dimension key: M pairs, F found pairs, W word numbers, T words, U uses of a word by a pair, P directions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.scan.word_lift import MismatchedWords

LEAST_FOUND = 5  # of a word
LEAST_OTHERS = 8
LEAST_LIFT = 2.0
MOST_WORDS = 256
LEAST_GAP = 5.0  # in spreads
JOINS = 4.0  # evidence from which on a pair is found
MOST_EVIDENCE = math.log(1e4)
DEVIATIONS = 1.4826  # of a normal distribution in its median absolute deviation

Vectors = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What the found pairs of a word have in common.

    Attributes:
        word: its number.
        found: pairs that use it and were found.
        others: that use it, too.
        origin: median likeness of the others.
        spread: more than 0.
        gap: in spreads, LEAST_GAP or more.
    """

    word: int
    found: int
    others: int
    origin: float
    spread: float
    gap: float

    @classmethod
    def of(cls, word: int, likeness_M: Vectors, found_M: NDArray[np.bool_]) -> Self | None:
        """The trace of a word, from the likeness of all its pairs; None where it has none."""
        mine_F, other_O = likeness_M[found_M], likeness_M[~found_M]
        if len(mine_F) < LEAST_FOUND or len(other_O) < LEAST_OTHERS:
            return None
        (middle, mine), (origin, its) = middle_and_spread(mine_F), middle_and_spread(other_O)
        spread = max(mine, its)
        if not spread or middle - origin < LEAST_GAP * spread:
            return None
        gap = float((middle - origin) / spread)
        return cls(word=word, found=len(mine_F), others=len(other_O), origin=origin, spread=spread, gap=gap)

    @property
    def telling(self) -> float:
        """How well the word stands for its trace: its found pairs, times their share of all that use it."""
        return self.found**2 / (self.found + self.others)

    def evidence(self, likeness_M: Vectors) -> Vectors:
        """Of its pairs: (M,) float64, from 0 to MOST_EVIDENCE."""
        above_M = (likeness_M - self.origin) / self.spread
        evidence_M: Vectors = np.clip(self.gap * (above_M - self.gap / 2), 0, MOST_EVIDENCE)
        return evidence_M


def middle_and_spread(value_M: Vectors) -> tuple[float, float]:
    """Median, and median absolute deviation as that of a normal distribution."""
    middle = float(np.median(value_M))
    return middle, DEVIATIONS * float(np.median(np.abs(value_M - middle)))


def choose_words(found: MismatchedWords, count_W: NDArray[np.int64]) -> NDArray[np.int64]:
    """The words that found pairs use often: (T,) int64 numbers, ascending, at most MOST_WORDS.

    Args:
        found: counts of found pairs.
        count_W: captions that use each word, in the whole store.
    """
    used = np.flatnonzero((found.below_W >= LEAST_FOUND) & (count_W - found.below_W >= LEAST_OTHERS))
    lift = found.lift(used, count_W[used])
    worst = np.argsort(-lift, kind="stable")[:MOST_WORDS]
    return np.sort(used[worst[lift[worst] >= LEAST_LIFT]])


def sums_of(uses_FT: Any, row_FP: Vectors) -> Vectors:
    """Of each word the sum of the found pictures that come with it: (T, P).

    Args:
        uses_FT: sparse, of ones: which words found pairs use.
        row_FP: their pictures.
    """
    sum_TP: Vectors = np.asarray(uses_FT.T @ row_FP)
    return sum_TP


def likeness(
    uses_MT: Any, row_MP: Vectors, found_M: NDArray[np.bool_], sum_TP: Vectors, found_T: NDArray[np.int64]
) -> Vectors:
    """How much each pair is like the found ones of each of its words, itself left out.

    Args:
        uses_MT: sparse, of ones: which words the pairs use.
        row_MP: their pictures.
        found_M: which of them were found.
        sum_TP: of all found ones, see sums_of().
        found_T: how many found pairs use each word, two or more.

    Returns:
        (U,) float64, in the order of ``uses_MT``.
    """
    pair_U, word_U = np.repeat(np.arange(len(row_MP)), np.diff(uses_MT.indptr)), uses_MT.indices
    product_MT = row_MP @ sum_TP.T
    own_M = np.einsum("mp,mp->m", row_MP, row_MP) * found_M
    likeness_U: Vectors = (product_MT[pair_U, word_U] - own_M[pair_U]) / (found_T[word_U] - found_M[pair_U])
    return likeness_U
