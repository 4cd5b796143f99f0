"""What do the pictures of mismatched pairs have in common, that others with the same word lack? A trigger.

An attack stamps, blends or filters the same thing into many pictures, and captions them all with one class.
Few of them give themselves away, most look a little odd; but whatever was put into them is in all. So, of the
pairs that use a word, the *suspects*, and the *others*:

    direction of a word    mean of the suspects' pictures, in directions along which all pictures differ
                           alike: Fisher's linear discriminant (1936) of them and of all pictures
    likeness of a picture  its component along that, of a suspect one along the mean of the other suspects
    gap                    median likeness of the suspects less that of the others, in spreads: the larger of
                           both medians of absolute deviations, times 1.4826; of textures their mean, since a
                           stamp shows more or less clearly, by what is under it

*Seeds.* At first the suspects of a word are all its pairs with a rank below 1/2, by the first look or by all
together, since what is half of a word young CLIPs learn to believe; each with its *weight*, how far below the
lower one is: half of them may be honest, which blurs the direction but hardly turns it. Those that
stand out along it, by 3.5 spreads of all pairs with the word, are its suspects next; where there are too few,
as where poisons are half of the word and stand out of nothing, by 3.5 spreads of the whole store's pictures
(not at the same length, below: honest ones would, too). Then those with evidence (below) by these, and so
on until they stay the same, four times at the most. Such a word has a *trace* where the gap is 5 or more,
where 8 pairs or more carry it, and where half of these have a rank below 1/2 themselves: a series of products
that looks like nothing else with its word has a gap, too, but its captions fit.

*Growth.* Who carries a trace is found. Of each word that found pairs use often they are the suspects next,
and if there is a gap, whoever has evidence is found, too. All is done again until nobody joins, eight times
at the most: so poisons give away those with other words, and a few of them all (benchmarks/LOG.md).

A pair's evidence is the logarithm of a likelihood ratio, of two normal distributions a gap apart:

    evidence of a pair     gap (its likeness, in spreads above the others' median, less half the gap)

0 where that is negative, or the likeness more than 2 spreads (of textures 3) below the suspects' median,
since thousands of others have longer tails than a normal distribution; the largest of its words', and at
the most that of a ratio of 10,000. Pairs with 4 or more carry the trace.

All this is done twice, with pictures as they are, and with all at the same length (even()): in what is dark,
or cluttered, the same trigger counts for more, or for less, so that poisons would seem to have little in
common. At the same length, a few more honest series have.

It sees what is in the main directions of the store's own vectors: what covers whole pictures, rather than a
patch anywhere, or a warp. Where more than half the pairs of a word are poisons that nobody found, the others
are no others, and the word tells nothing; its poisons are found by their other words.

Pure: no files.

Dimension key: M pairs, F suspects, W word numbers, T words, U uses of a word by a pair, P directions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.scan.columns import WORD_NUMBERS
from roclip_sanitize.scan.word_lift import lift_of

HALF = 0.5  # half of all strangers have a rank below it
LEAST_SUSPECTS = 5  # of a word
LEAST_OTHERS = 8
LEAST_CARRIERS = 8  # seven near-copies of an odd picture are no trigger
LEAST_LIFT = 1.5
MOST_WORDS = 256
STANDS_OUT = 3.5  # spreads
LEAST_GAP = 5.0  # spreads
NEAR, NEAR_UNEVEN = 2.0, 3.0  # spreads
JOINS = 4.0  # evidence from which on a pair carries a trace
MOST_EVIDENCE = math.log(1e4)
DEVIATIONS = 1.4826  # of a normal distribution in its median absolute deviation

Vectors = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What the suspects of a word have in common.

    Attributes:
        word: its number.
        found: suspects that use it.
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
    def of(
        cls, word: int, likeness_M: Vectors, suspect_M: NDArray[np.bool_], *, uneven: bool = False
    ) -> Self | None:
        """The trace of a word, from the likeness of all its pairs; None where it has none.

        Args:
            word: its number.
            likeness_M: see likeness().
            suspect_M: which of them are suspects.
            uneven: whether one trigger may show more or less clearly, as in textures.
        """
        mine_F, other_O = likeness_M[suspect_M], likeness_M[~suspect_M]
        if not enough(len(mine_F), len(likeness_M)):
            return None
        (middle, mine), (origin, its) = middle_and_spread(mine_F), middle_and_spread(other_O)
        spread = (mine + its) / 2 if uneven else max(mine, its)
        if not spread or middle - origin < LEAST_GAP * spread:
            return None
        gap = float((middle - origin) / spread)
        return cls(word=word, found=len(mine_F), others=len(other_O), origin=origin, spread=spread, gap=gap)

    @property
    def telling(self) -> float:
        """How well the word stands for its trace: its suspects, times their share of all that use it."""
        return self.found**2 / (self.found + self.others)

    def evidence(self, likeness_M: Vectors, *, uneven: bool = False) -> Vectors:
        """Of its pairs: (M,) float64, from 0 to MOST_EVIDENCE; ``uneven`` as of() was told."""
        above_M = (likeness_M - self.origin) / self.spread
        evidence_M: Vectors = np.clip(self.gap * (above_M - self.gap / 2), 0, MOST_EVIDENCE)
        evidence_M[above_M < self.gap - (NEAR_UNEVEN if uneven else NEAR)] = 0
        return evidence_M


def middle_and_spread(value_M: Vectors) -> tuple[float, float]:
    """Median, and median absolute deviation as that of a normal distribution."""
    middle = float(np.median(value_M))
    return middle, DEVIATIONS * float(np.median(np.abs(value_M - middle)))


def even(row_MP: Vectors) -> Vectors:
    """Rows at the length that those of uncorrelated directions of variance 1 have: (M, P)."""
    length_M1 = np.linalg.norm(row_MP, axis=1, keepdims=True)
    even_MP: Vectors = row_MP * (math.sqrt(row_MP.shape[1]) / np.maximum(length_M1, 1e-12))
    return even_MP


def weight_of(rank_M: NDArray[np.floating]) -> Vectors:
    """How far ranks are below HALF, from 0 to 1: (M,) float64; 0 for those that are not, or are NaN."""
    weight_M: Vectors = np.maximum(0.0, 1 - np.nan_to_num(rank_M.astype(np.float64), nan=1.0) / HALF)
    return weight_M


def stand_out(likeness_M: Vectors, likeness_R: Vectors) -> NDArray[np.bool_]:
    """Which of a word's pairs are STANDS_OUT spreads or more above their median; nobody without a spread.

    Args:
        likeness_M: theirs.
        likeness_R: of some pairs of the whole store, whatever they say: if too few stand out, above theirs.
    """
    out_M = np.zeros(len(likeness_M), np.bool_)
    for usual in (likeness_M, likeness_R):
        if out_M.sum() < LEAST_SUSPECTS and len(usual):
            middle, spread = middle_and_spread(usual)
            out_M = (likeness_M >= middle + STANDS_OUT * spread) & (spread > 0)
    return out_M


def enough(members: Any, pairs: Any) -> Any:
    """Whether members, of all pairs that use a word, can be its suspects: numbers, or arrays of them."""
    return (members >= LEAST_SUSPECTS) & (pairs - members >= LEAST_OTHERS)


def choose_words(
    uses_FW: Any, weight_F: Vectors, count_W: NDArray[np.int64], *, pairs: int
) -> NDArray[np.int64]:
    """The words that suspects use often: (T,) int64 numbers, ascending, at most MOST_WORDS.

    Args:
        uses_FW: sparse, of ones: which words suspects use.
        weight_F: theirs.
        count_W: captions that use each word, in the whole store.
        pairs: that have ranks, in the whole store.
    """
    word_U, weight_U = uses_FW.indices, np.repeat(weight_F, np.diff(uses_FW.indptr))
    number_W = np.bincount(word_U, minlength=WORD_NUMBERS)
    used = np.flatnonzero(enough(number_W, count_W))
    weight_W = np.bincount(word_U, weight_U, minlength=WORD_NUMBERS)
    lift = lift_of(weight_W[used], count_W[used], mean=float(weight_F.sum()) / max(1, pairs))
    worst = np.argsort(-lift, kind="stable")[:MOST_WORDS]
    return np.sort(used[worst[lift[worst] >= LEAST_LIFT]])


def sums_of(weight_MT: Any, row_MP: Vectors) -> Vectors:
    """Of each word the weighted sum of its suspects' pictures: (T, P).

    Args:
        weight_MT: sparse: how much each picture counts for each word.
        row_MP: the pictures.
    """
    sum_TP: Vectors = np.asarray(weight_MT.T @ row_MP)
    return sum_TP


def likeness(uses_MT: Any, row_MP: Vectors, weight_MT: Any, sum_TP: Vectors, weight_T: Vectors) -> Vectors:
    """How much each pair is like the suspects of each of its words, itself left out.

    Args:
        uses_MT: sparse, of ones: which words the pairs use.
        row_MP: their pictures.
        weight_MT: sparse: what each of them weighs itself.
        sum_TP: of all suspects, see sums_of().
        weight_T: what they weigh together: of two suspects or more.

    Returns:
        (U,) float64, in the order of ``uses_MT``.
    """
    pair_U, word_U = np.repeat(np.arange(len(row_MP)), np.diff(uses_MT.indptr)), uses_MT.indices
    product_MT = row_MP @ sum_TP.T
    square_M = np.einsum("mp,mp->m", row_MP, row_MP)
    own_U = weight_MT.toarray()[pair_U, word_U]
    likeness_U: Vectors = (product_MT[pair_U, word_U] - own_U * square_M[pair_U]) / (weight_T[word_U] - own_U)
    return likeness_U


def likeness_to_all(row_RP: Vectors, weight_RT: Any, sum_TP: Vectors, weight_T: Vectors) -> Vectors:
    """likeness() of pairs to the suspects of every word, whatever they say themselves: (R, T) float64."""
    own_RT = weight_RT.toarray()
    square_R1 = np.einsum("rp,rp->r", row_RP, row_RP)[:, None]
    likeness_RT: Vectors = (row_RP @ sum_TP.T - own_RT * square_R1) / (weight_T - own_RT)
    return likeness_RT
