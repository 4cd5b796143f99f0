"""Detectors: how odd is a caption, to whoever knows all others?

    perplexity   mean surprise of its words, in nats: -log of how likely each is after the one before it
    burst        how much more often it occurs than its words make likely, in nats: template captions
    repetition   share of its words that it has said before

Each word is told by a mixture of three: how often it follows the word before it, how often it occurs, and
any word at all (Jelinek & Mercer 1980). A caption never speaks for itself: it and its copies are taken out of
the counts that it is judged by. With n copies beside itself where λ were to be expected, a burst is
n ln(n / λ) - n + λ, the bound of Chernoff (1952) on how unlikely that is, and 0 where n is not more than λ.

None of the three looks at the picture. They find captions that nobody writes: a trigger word, a template, a
list of keywords. Captions that an attacker took from other pictures are as good as any.

Dimension key: M pairs, T words in a row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.scoring.caption_counts import CaptionCounts, Numbers, Words
from roclip_sanitize.scoring.contract import Scores

FOLLOWS, OCCURS, ANY = 0.6, 0.3, 0.1  # of the mixture
Reals = NDArray[np.float64]


class Wording:
    """Scores captions by what a corpus counted.

    Args:
        counts: of all captions, those that are scored among them.
    """

    def __init__(self, counts: CaptionCounts) -> None:
        self._counts = counts
        self._words = int(counts.word_W.sum())
        self._vocabulary = int(np.count_nonzero(counts.word_W))

    def __call__(self, names: Sequence[str], captions: Sequence[str], *, start: int) -> dict[str, Scores]:
        """Scores of captions, NaN for those without a word.

        Args:
            names: of WORDINGS.
            captions: M of them, in a row.
            start: row of the first in the corpus.

        Returns:
            (M,) float32 by name, higher is odder.
        """
        words = Words.of(captions)
        length_M = np.bincount(words.caption_T, minlength=len(captions))
        copies_M = np.asarray(self._counts.copies_N[start : start + len(captions)])
        with np.errstate(invalid="ignore", divide="ignore"):
            found = {name: WORDINGS[name](self, words, length_M, copies_M) for name in names}
        return {
            name: np.where(length_M > 0, score_M, np.nan).astype(np.float32)
            for name, score_M in found.items()
        }

    def perplexity(self, words: Words, length_M: Numbers, copies_M: Numbers) -> Reals:
        """See above."""
        mean_M: Reals = self._surprise(words, copies_M) / length_M
        return mean_M

    def burst(self, words: Words, length_M: Numbers, copies_M: Numbers) -> Reals:
        """See above."""
        others_M = copies_M - 1
        expected_log_M = np.log(len(self._counts.copies_N)) - self._surprise(words, copies_M)
        expected_M = np.exp(expected_log_M)  # 0 for a hundred words: the logarithm still tells them apart
        excess_M = others_M * (np.log(others_M) - expected_log_M) - others_M + expected_M
        burst_M: Reals = np.where(others_M > expected_M, excess_M, 0.0)
        return burst_M

    def repetition(self, words: Words, length_M: Numbers, copies_M: Numbers) -> Reals:
        """See above."""
        own = np.unique(np.stack([words.caption_T, words.word_T]), axis=1)[0]
        said_M: Reals = 1 - np.bincount(own, minlength=len(length_M)) / length_M
        return said_M

    def _surprise(self, words: Words, copies_M: Numbers) -> Reals:
        """Sums of each caption's words: (M,)."""
        copies_T = copies_M[words.caption_T]
        length_T = np.bincount(words.caption_T)[words.caption_T]
        pair_T, word_T, before_T = (
            counted[number_T] - copies_T * _own(words.caption_T, number_T)
            for counted, number_T in (
                (self._counts.pair_B, words.pair_T),
                (self._counts.word_W, words.word_T),
                (self._counts.before_W, words.before_T),
            )
        )
        rest_T = self._words - copies_T * length_T
        likely_T = (
            FOLLOWS * np.maximum(pair_T, 0) / np.maximum(before_T, 1)
            + OCCURS * np.maximum(word_T, 0) / np.maximum(rest_T, 1)
            + ANY / max(1, self._vocabulary)
        )
        sum_M: Reals = np.bincount(
            words.caption_T, -np.log(np.minimum(likely_T, 1)), minlength=len(copies_M)
        ).astype(np.float64)
        return sum_M


def _own(caption_T: Numbers, number_T: Numbers) -> Numbers:
    """How often each number occurs in its own caption: (T,)."""
    both_2T = np.stack([caption_T, number_T])
    _, inverse_T, count = np.unique(both_2T, axis=1, return_inverse=True, return_counts=True)
    own_T: Numbers = count[inverse_T.reshape(-1)]
    return own_T


WORDINGS: dict[str, Callable[[Wording, Words, Numbers, Numbers], Reals]] = {
    "perplexity": Wording.perplexity,
    "burst": Wording.burst,
    "repetition": Wording.repetition,
}
