"""Retrieval ranks, against a slow count; pairs with one caption cannot be told apart by it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from roclip_sanitize.captions import normalise_caption
from roclip_sanitize.evaluation import retrieval
from roclip_sanitize.evaluation.retrieval import caption_codes, retrieval_ranks


def slow_ranks(
    image_ND: NDArray[np.float32], caption_ND: NDArray[np.float32], captions: Sequence[str]
) -> list[int]:
    """For each question: wrong answers at least as similar as the best right one."""
    ranks = list[int]()
    for query_ND, answer_ND in ((image_ND, caption_ND), (caption_ND, image_ND)):
        for row, query in enumerate(query_ND):
            cosines = [float(query @ answer) for answer in answer_ND]
            right = [normalise_caption(text) == normalise_caption(captions[row]) for text in captions]
            best = max(cosine for cosine, hit in zip(cosines, right, strict=True) if hit)
            ranks.append(sum(cosine >= best for cosine, hit in zip(cosines, right, strict=True) if not hit))
    return ranks


def test_three_pairs_by_hand() -> None:
    image_ND = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    caption_ND = np.array([[1, 0], [0.8, 0.6], [0, 1]], np.float32)
    ranks = retrieval_ranks(image_ND, caption_ND, caption_codes(["one", "two", "three"]))
    # Image 0 finds its caption; 1 finds the third first; 2 finds 0.96 of the second before its own 0.8.
    # Caption 0 finds its image; 1 finds 0.96 and 0.8 before its own 0.6; 2 finds the second image first.
    assert ranks.tolist() == [[0, 1, 1], [0, 2, 1]]


def test_a_caption_that_occurs_twice_is_found_by_either() -> None:
    image_ND = np.array([[1, 0], [0, 1]], np.float32)
    swapped_ND = image_ND[::-1]
    different, same = caption_codes(["one", "two"]), caption_codes(["A hat ", "a  HAT"])
    assert retrieval_ranks(image_ND, swapped_ND, different).tolist() == [[1, 1], [1, 1]]
    assert retrieval_ranks(image_ND, swapped_ND, same).tolist() == [[0, 0], [0, 0]]


def test_a_model_that_says_the_same_of_everything_finds_nothing() -> None:
    same_ND = np.tile(np.array([[0.6, 0.8]], np.float32), (4, 1))
    assert retrieval_ranks(same_ND, same_ND, np.arange(4)).tolist() == [[3] * 4] * 2


@given(
    rows=st.lists(
        st.tuples(*[st.integers(-3, 3)] * 4, st.sampled_from(["hat", "Hat", "shoe", "red shoe", "scarf"])),
        min_size=1,
        max_size=8,
    )
)
def test_ranks_are_those_of_a_slow_count(rows: list[tuple[int, int, int, int, str]]) -> None:
    numbers = np.array(
        [row[:4] for row in rows], np.float32
    )  # whole numbers: products are exact, ties are ties
    captions = [row[4] for row in rows]
    found = retrieval_ranks(numbers[:, :2], numbers[:, 2:], caption_codes(captions))
    assert found.dtype == np.int64
    assert found.ravel().tolist() == slow_ranks(numbers[:, :2], numbers[:, 2:], captions)


@pytest.mark.parametrize("count", [retrieval.BLOCK - 1, retrieval.BLOCK + 1])
def test_blocks_join_without_a_seam(count: int) -> None:
    unit_ND = np.eye(count, dtype=np.float32)
    shifted_ND = np.roll(unit_ND, 1, axis=0)
    assert not retrieval_ranks(unit_ND, unit_ND, np.arange(count)).any()
    assert (retrieval_ranks(unit_ND, shifted_ND, np.arange(count)) > 0).all()
