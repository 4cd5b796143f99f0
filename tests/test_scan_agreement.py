"""Neighbour agreement: worked by hand, and against a slow reference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from roclip_sanitize.captions import caption_words
from roclip_sanitize.scan.agreement import (
    WordLookup,
    evidence,
    one_vote_per_picture,
    suspicion,
    word_weights,
)
from roclip_sanitize.scan.columns import Columns, join_pieces, word_number, write_piece
from tests.stores import make_store

VOCABULARY = ("red", "blue", "shoe", "bag", "watch", "黒い")


def columns_of(path: Path, captions: Sequence[str], part_sizes: Sequence[int] = ()) -> Columns:
    part_sizes = part_sizes or (len(captions),)
    image_ND = np.ones((len(captions), 2))
    store = make_store(path / "store", image_ND, image_ND, part_sizes, captions=captions)
    for part in store.parts:
        write_piece(store, part.name, path / "columns")
    join_pieces(path / "columns", [part.name for part in store.parts])
    return Columns(path / "columns")


def slow_suspicions(neighbours_NK: NDArray[np.int64], captions: Sequence[str]) -> list[float]:
    """The formula of agreement.py, word by word."""
    said = [set(caption_words(caption)) for caption in captions]
    evidence_of = dict[tuple[int, str], float]()
    for row, neighbours in enumerate(neighbours_NK.tolist()):
        near = [said[neighbour] for neighbour in neighbours if neighbour >= 0]
        for word in said[row]:
            uses = sum(word in words for words in said)
            if uses >= 3 and near:
                share = sum(word in words for words in near) / len(near)
                evidence_of[row, word] = math.log(1 + share / (uses / len(captions)))
    weights = {}
    for word in {word for _, word in evidence_of}:
        found = [value for (_, other), value in evidence_of.items() if other == word]
        weights[word] = max(0.0, sum(found) / len(found) - math.log(2))
    scores = []
    for row, words in enumerate(said):
        mine = {word: evidence_of[row, word] for word in words if (row, word) in evidence_of}
        total = math.log(2) + sum(weights[word] * value for word, value in mine.items())
        weight = 1 + sum(weights[word] for word in mine)
        scores.append(math.exp(-total / weight) if mine else math.nan)
    return scores


def suspicions(neighbours_NK: NDArray[np.int64], lookup: WordLookup) -> NDArray[np.float32]:
    """All rows of a store at once."""
    evidence_NW = evidence(np.arange(len(lookup)), neighbours_NK, lookup)
    return suspicion(evidence_NW, word_weights([evidence_NW], words=evidence_NW.shape[1]))


class TestSixPairs:
    """Three shoes and three bags: every word stands in half of the captions, and weighs 1."""

    captions = ("shoe", "shoe", "shoe", "bag", "bag", "bag")

    def score(self, row: int, neighbours: Sequence[int]) -> float:
        evidence_NW = evidence(np.array([row]), np.array([neighbours]), FewWords(self.captions))
        return float(suspicion(evidence_NW, np.ones(len(VOCABULARY), np.float32))[0])

    def test_neighbours_that_say_the_same(self) -> None:
        # All neighbours say "shoe", half of everybody does: lift 2; with the neutral word, 1 / √(3 · 2).
        assert self.score(0, [1, 2]) == pytest.approx(1 / math.sqrt(6))

    def test_neighbours_that_say_something_else(self) -> None:
        # No neighbour says "bag": lift 0; 1 / √(1 · 2).
        assert self.score(5, [0, 1, 2]) == pytest.approx(1 / math.sqrt(2))

    def test_neighbours_that_say_it_as_often_as_everybody(self) -> None:
        # Half of the neighbours say "bag", as half of everybody does: lift 1; 1 / √(2 · 2).
        assert self.score(3, [4, 0]) == pytest.approx(0.5)

    def test_absent_neighbours_do_not_dilute(self) -> None:
        assert self.score(0, [1, -1, -1]) == pytest.approx(1 / math.sqrt(6))

    def test_no_neighbour_no_score(self) -> None:
        assert math.isnan(self.score(0, [-1, -1]))


class TestWordsWeighAsMuchAsTheyShow:
    """Shoes of one brand and bags of the same: neighbours agree on the thing, never on the brand."""

    captions = ("red shoe", "blue shoe", "red shoe", "blue bag", "red bag", "blue bag")
    neighbours_NK = np.array([[1], [2], [1], [4], [3], [4]])

    def weights(self) -> NDArray[np.float32]:
        evidence_NW = evidence(np.arange(6), self.neighbours_NK, FewWords(self.captions))
        return word_weights([evidence_NW], words=len(VOCABULARY))

    def test_a_word_that_neighbours_repeat(self) -> None:
        # "shoe" has lift 2 each time: log 3 - log 2.
        assert self.weights()[VOCABULARY.index("shoe")] == pytest.approx(math.log(1.5))

    def test_a_word_that_neighbours_never_repeat(self) -> None:
        assert self.weights()[VOCABULARY.index("red")] == 0

    def test_a_failing_word_that_always_fails_is_no_evidence(self) -> None:
        lookup = FewWords(self.captions)
        both, one = (
            suspicions(self.neighbours_NK, lookup),
            1 / math.exp((math.log(2) + math.log(1.5) * math.log(3)) / (1 + math.log(1.5))),
        )
        np.testing.assert_allclose(both, one, rtol=1e-6)

    def test_weights_are_the_same_from_any_blocks(self) -> None:
        lookup = FewWords(self.captions)
        blocks = [
            evidence(np.arange(6)[block], self.neighbours_NK[block], lookup)
            for block in (slice(0, 2), slice(2, 5), slice(5, 6))
        ]
        np.testing.assert_array_equal(word_weights(blocks, words=len(VOCABULARY)), self.weights())


def test_a_caption_of_rare_words_has_no_score(tmp_path: Path) -> None:
    columns = columns_of(tmp_path, ["zorblatt", "zorblatt", "shoe", "shoe", "shoe"])
    scores = suspicions(np.array([[1], [0], [3], [4], [2]]), columns)
    assert np.isnan(scores).tolist() == [True, True, False, False, False]


def test_more_failing_words_are_more_suspicious() -> None:
    lookup = FewWords(["red bag", "red bag", "red bag", "bag", "shoe", "shoe", "shoe"])
    evidence_NW = evidence(np.array([3, 0]), np.array([[4, 5, 6], [4, 5, 6]]), lookup)
    short, long = suspicion(evidence_NW, np.ones(len(VOCABULARY), np.float32))
    assert short < long


def test_a_picture_has_one_vote_however_often_it_stands_there() -> None:
    picture = np.array([7, 7, 8, 9, 9], np.uint64)
    rows = np.array([[1, 0, 3, 4, 2], [2, 2, -1, -1, -1]])
    assert one_vote_per_picture(rows, picture, keep=2).tolist() == [[1, 3], [2, -1]]
    assert one_vote_per_picture(rows, picture, keep=6).tolist() == [[1, 3, 2, -1, -1, -1], [2, *[-1] * 5]]


@st.composite
def corpora(draw: st.DrawFn) -> tuple[list[str], NDArray[np.int64]]:
    captions = draw(
        st.lists(st.lists(st.sampled_from(VOCABULARY), max_size=4).map(" ".join), min_size=3, max_size=12)
    )
    rows = st.integers(-1, len(captions) - 1)
    neighbours = draw(
        st.lists(st.lists(rows, min_size=3, max_size=3), min_size=len(captions), max_size=len(captions))
    )
    return captions, np.array(neighbours, np.int64)


class FewWords:
    """A lookup held in memory, of the vocabulary above."""

    def __init__(self, captions: Sequence[str]) -> None:
        self._use_NW = np.array(
            [[word in caption_words(caption) for word in VOCABULARY] for caption in captions]
        )
        self.word_counts_W = self._use_NW.sum(axis=0)

    def __len__(self) -> int:
        return len(self._use_NW)

    def words(self, row_M: NDArray[np.int64]) -> Any:
        return csr_matrix(self._use_NW[row_M].astype(float))


@settings(deadline=None)
@given(corpora())
def test_equals_the_slow_reference(corpus: tuple[list[str], NDArray[np.int64]]) -> None:
    captions, neighbours_NK = corpus
    scores = suspicions(neighbours_NK, FewWords(captions))
    np.testing.assert_allclose(scores, slow_suspicions(neighbours_NK, captions), rtol=1e-5)


@pytest.mark.parametrize("part_sizes", [(40,), (13, 0, 26, 1)], ids=str)
def test_from_disk_equals_the_slow_reference(tmp_path: Path, part_sizes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    captions = [" ".join(rng.choice(VOCABULARY, rng.integers(1, 5))) for _ in range(40)]
    neighbours_NK = rng.integers(-1, 40, (40, 5))
    scores = suspicions(neighbours_NK, columns_of(tmp_path, captions, part_sizes))
    np.testing.assert_allclose(scores, slow_suspicions(neighbours_NK, captions), rtol=1e-5)


def test_the_reference_has_no_two_words_of_one_number() -> None:
    assert len({word_number(word) for word in VOCABULARY}) == len(VOCABULARY)
