"""Captions and pictures along their main directions: by hand, and against a singular value decomposition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from roclip_sanitize.scan import directions
from roclip_sanitize.scan.columns import WORD_NUMBERS
from roclip_sanitize.scan.directions import Directions, Vocabulary


def counts(**told: int) -> np.ndarray:
    """Counts of words by number: w3=5 says that five captions use word 3."""
    count_W = np.zeros(WORD_NUMBERS, np.int64)
    for name, count in told.items():
        count_W[int(name[1:])] = count
    return count_W


class TestVocabulary:
    def test_rare_words_and_those_of_all_captions_tell_nothing(self) -> None:
        vocabulary = Vocabulary.of(counts(w3=2, w5=3, w7=9, w9=10), captions=10)
        assert vocabulary.word_V.tolist() == [7, 5]
        np.testing.assert_allclose(vocabulary.weight_V, [math.log(11 / 10) + 1, math.log(11 / 4) + 1])

    def test_only_the_commonest(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(directions, "MOST_WORDS", 2)
        assert Vocabulary.of(counts(w1=3, w2=4, w3=3), captions=9).word_V.tolist() == [2, 1]

    def test_rows_have_length_one_and_only_known_words(self) -> None:
        vocabulary = Vocabulary.of(counts(w5=3, w7=4), captions=10)
        words = csr_matrix((np.ones(4), [5, 6, 7, 6], [0, 3, 4]), shape=(2, WORD_NUMBERS))
        row_NV = vocabulary.rows(words).toarray()
        np.testing.assert_allclose(np.linalg.norm(row_NV, axis=1), [1, 0], rtol=1e-6)
        assert row_NV[0, 1] / row_NV[0, 0] == pytest.approx(vocabulary.weight_V[1] / vocabulary.weight_V[0])


@pytest.mark.parametrize("centred", [True, False])
def test_directions_are_those_of_singular_values(centred: bool) -> None:
    rng = np.random.default_rng(0)
    row_NV = rng.normal(size=(200, 8)) * np.arange(8, 0, -1) + rng.normal(size=8)
    found = Directions.of(row_NV.T @ row_NV, row_NV.sum(axis=0), rows=200, width=5, centred=centred)
    about = row_NV - row_NV.mean(axis=0) if centred else row_NV
    wanted_VE = np.linalg.svd(about, full_matrices=False)[2][:5].T
    np.testing.assert_allclose(np.abs((found.turn_VE * wanted_VE).sum(axis=0)), 1, rtol=1e-5)
    told_NE = found.told(row_NV.astype(np.float32)).astype(np.float64)
    np.testing.assert_allclose(told_NE.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(told_NE.std(axis=0), 1, rtol=1e-3)


def test_directions_in_which_nothing_varies_are_left_out() -> None:
    row_NV = np.outer([1.0, -1.0, 2.0, -2.0], [3.0, 4.0])
    found = Directions.of(row_NV.T @ row_NV, row_NV.sum(axis=0), rows=4, width=2, centred=True)
    np.testing.assert_allclose(found.deviation_E, [math.sqrt(2.5) * 5], rtol=1e-5)


def test_no_rows_no_directions() -> None:
    assert Directions.of(np.zeros((0, 0)), np.zeros(0), rows=0, width=5, centred=True).width == 0
