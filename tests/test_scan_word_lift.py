"""Words whose pairs do not match: by hand, a slow reference, parts, and what becomes of a poisoned word."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from roclip_sanitize.scan.columns import WORD_NUMBERS
from roclip_sanitize.scan.estimate import BELOW
from roclip_sanitize.scan.word_lift import ORDINARY_PAIRS, MismatchedWords


def words_of(captions: Sequence[Sequence[int]]) -> csr_matrix:
    """Captions as numbers of words → sparse rows of ones."""
    numbers = [sorted(set(one)) for one in captions]
    offsets = np.cumsum([0, *map(len, numbers)])
    flat = [number for one in numbers for number in one]
    return csr_matrix((np.ones(len(flat)), flat, offsets), shape=(len(captions), WORD_NUMBERS))


def counts(words_NW: csr_matrix) -> NDArray[np.int64]:
    return np.bincount(words_NW.indices, minlength=WORD_NUMBERS)


def test_by_hand() -> None:
    """Two of ten pairs are below 1/4: both say word 5, as a third does, and one of them word 6."""
    words_NW = words_of([[5], [5, 6], [5, 7], [7], [7], [7], [7], [7], [7], []])
    rank_N2 = np.full((10, 2), 0.9)
    rank_N2[0, 0] = rank_N2[1, 1] = 0.1
    told = MismatchedWords.counted([(words_NW, rank_N2)])
    assert (told.pairs, told.below) == (10, 2)
    assert told.below_W[[5, 6, 7]].tolist() == [2, 1, 0]
    lift_N = told.lifts(words_NW, rank_N2, counts(words_NW))
    ordinary = ORDINARY_PAIRS * 0.2
    of_two = (2 + ordinary) / (2 + ORDINARY_PAIRS) / 0.2  # the third: both others of its word
    of_one = (1 + ordinary) / (2 + ORDINARY_PAIRS) / 0.2  # the first: one of the two others
    assert lift_N[:3] == pytest.approx([of_one, of_one, of_two])
    assert lift_N[3] == pytest.approx(ordinary / (6 + ORDINARY_PAIRS) / 0.2)
    assert lift_N[9] == 1


def slow(captions: Sequence[Sequence[int]], below: Sequence[bool], row: int) -> float:
    mean = sum(below) / len(below)
    if not mean or not captions[row]:
        return 1.0
    lifts = []
    for word in set(captions[row]):
        others = [place for place, one in enumerate(captions) if word in one and place != row]
        hits = sum(below[place] for place in others)
        lifts.append((hits + ORDINARY_PAIRS * mean) / (len(others) + ORDINARY_PAIRS) / mean)
    return max(lifts)


PAIR = st.tuples(st.lists(st.integers(0, 5), max_size=4), st.booleans())


@given(st.lists(PAIR, min_size=1, max_size=15), st.integers(0, 15))
def test_it_is_what_its_formula_says_however_it_is_cut(pairs: list[tuple[list[int], bool]], cut: int) -> None:
    captions, below = [words for words, _ in pairs], [hit for _, hit in pairs]
    words_NW = words_of(captions)
    rank_N2 = np.where(below, BELOW / 2, 0.9)[:, None] * np.ones(2)
    parts = [(words_NW[:cut], rank_N2[:cut]), (words_NW[cut:], rank_N2[cut:])]
    told = MismatchedWords.counted(parts)
    lift_N = np.concatenate([told.lifts(*part, counts(words_NW)) for part in parts])
    assert lift_N == pytest.approx([slow(captions, below, row) for row in range(len(pairs))], rel=1e-5)


def test_pairs_without_ranks_are_not_counted(tmp_path: Path) -> None:
    words_NW = words_of([[1], [1], [2]])
    rank_N2 = np.array([[0.1, 0.9], [np.nan, np.nan], [0.9, 0.9]])
    told = MismatchedWords.counted([(words_NW, rank_N2)])
    assert (told.pairs, told.below, told.below_W[1]) == (2, 1, 1)
    told.write(tmp_path / "words.npz")
    again = MismatchedWords.read(tmp_path / "words.npz")
    assert (again.pairs, again.below) == (2, 1)
    assert np.array_equal(again.below_W, told.below_W)
    nothing = MismatchedWords.counted([])
    assert nothing.lifts(words_NW, rank_N2, counts(words_NW)).tolist() == [1, 1, 1]
