"""Nearest neighbours over parts: any split, any rounding and any company give the same bits."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from roclip_sanitize.neighbours import (
    Find,
    Neighbours,
    Rows,
    SearchTask,
    best_k,
    codes_of,
    exact_cosines,
    merge,
    numpy_find,
    search_part,
)
from tests.searching import by_hand, few_directions, pairs_of
from tests.stores import unit_rows


def test_equal_cosines_come_in_the_order_of_their_rows() -> None:
    found = best_k(np.array([[7, 3, 5, -1]]), np.array([[0.5, 0.5, 0.9, -np.inf]], np.float32), 5)
    assert found.rows_NK.tolist() == [[5, 3, 7, -1, -1]]
    assert found.cosine_NK.tolist() == [[np.float32(0.9), 0.5, 0.5, -np.inf, -np.inf]]


def test_parts_are_merged_like_one() -> None:
    left = Neighbours(rows_NK=np.array([[4, 9]]), cosine_NK=np.array([[0.75, 0.5]], np.float32))
    right = Neighbours(rows_NK=np.array([[1, -1]]), cosine_NK=np.array([[0.75, -np.inf]], np.float32))
    assert merge([left, right], k=3).rows_NK.tolist() == [[1, 4, 9]]


@given(st.integers(1, 130), st.integers(1, 40), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_a_cosine_has_the_same_bits_in_any_company(width: int, rows: int, queries: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    vectors_MD = unit_rows(random.normal(size=(rows, width)))
    query_QD = unit_rows(random.normal(size=(queries, width)))
    place_QC = np.tile(np.arange(rows), (queries, 1))
    together_QC = exact_cosines(vectors_MD, place_QC, query_QD)
    for query, place in itertools.product(range(queries), range(rows)):
        alone = exact_cosines(
            vectors_MD[place : place + 1], np.zeros((1, 1), np.int64), query_QD[query : query + 1]
        )
        assert alone[0, 0] == together_QC[query, place]


def careless(vectors_MD: NDArray[np.float32], seed: int) -> Find:
    """A search with the worst rounding that float32 allows, and with ties in any order."""
    random = np.random.default_rng(seed)
    error = vectors_MD.shape[1] * 2.0**-24

    def find(query_QD: NDArray[np.float32], fetch: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        exact_QM = query_QD.astype(np.float64) @ vectors_MD.T.astype(np.float64)
        score_QM = exact_QM + random.uniform(-error, error, exact_QM.shape)
        place_QC = np.argsort(-score_QM, axis=1)[:, :fetch]
        return np.take_along_axis(score_QM, place_QC, axis=1), place_QC

    return find


@settings(max_examples=50)
@given(
    rows=st.integers(1, 120),
    distinct=st.integers(1, 9),
    k=st.integers(1, 9),
    cuts=st.lists(st.integers(0, 120), max_size=3),
    barred=st.tuples(st.booleans(), st.booleans(), st.sampled_from([None, 0.0, 0.9])),
    seed=st.integers(0, 99),
)
def test_any_split_and_any_rounding_give_the_answer_by_hand(
    rows: int, distinct: int, k: int, cuts: list[int], barred: tuple[bool, bool, float | None], seed: int
) -> None:
    vectors_ND = few_directions(rows, distinct=distinct, seed=seed)
    hashes = [str(row // 3) for row in range(rows)]
    everything = Rows(vectors_ND=vectors_ND, row_N=np.arange(rows), codes={"image_hash": codes_of(hashes)})
    task = SearchTask(
        store=Path(), part="", modality="image", start=0, stop=rows, k=k,
        exclude_self=barred[0], exclude_hash=barred[1], max_cosine=barred[2],
    )  # fmt: skip
    bounds = sorted({0, rows, *(cut for cut in cuts if cut < rows)})
    answers = []
    for first, last in itertools.pairwise(bounds):
        part = everything.take(np.arange(first, last))
        answers.append(search_part(part, everything, find=careless(part.vectors_ND, seed), task=task))
    found = merge(answers, k=k)
    for query in range(rows):
        assert pairs_of(found, query) == by_hand(vectors_ND, query, task, hashes=hashes)


def test_the_plain_search_finds_the_best_across_its_blocks() -> None:
    vectors_MD = unit_rows(np.random.default_rng(0).normal(size=(40_000, 2)))
    score_QC, place_QC = numpy_find(vectors_MD)(vectors_MD[:2], 3)
    expected_QM = vectors_MD[:2] @ vectors_MD.T
    assert np.allclose(score_QC, -np.sort(-expected_QM, axis=1)[:, :3])
    assert np.allclose(np.take_along_axis(expected_QM, place_QC, axis=1), score_QC)
