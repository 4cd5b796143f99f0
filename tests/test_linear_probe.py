"""The linear probe on points that a reader can see."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from roclip_sanitize.errors import DataError
from roclip_sanitize.evaluation.linear_probe import linear_probe


def clouds(rows: int, *, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Three clouds at 0, 120 and 240 degrees of a circle, as unit rows, with the numbers 2, 5 and 7."""
    rng = np.random.default_rng(seed)
    kind_N = rng.integers(0, 3, rows)
    angle_N = kind_N * 2 * np.pi / 3 + rng.normal(0, 0.2, rows)
    return np.stack([np.cos(angle_N), np.sin(angle_N)], axis=1).astype(np.float32), np.array([2, 5, 7])[
        kind_N
    ]


def test_classes_that_lie_apart_are_told_apart() -> None:
    train_MD, label_M = clouds(300, seed=0)
    test_ND, label_N = clouds(100, seed=1)
    named_NK = linear_probe(train_MD, label_M, test_ND, most=2)
    assert named_NK.shape == (100, 2)
    assert (named_NK[:, 0] == label_N).mean() >= 0.98
    assert set(named_NK.ravel()) == {2, 5, 7}


def test_classes_are_told_apart_within_a_narrow_cone() -> None:
    """CLIP's vectors have much in common: here all cosines are above 0.999."""
    train_MD, label_M = clouds(300, seed=0)
    test_ND, label_N = clouds(100, seed=1)
    narrow = [np.insert(rows_ND * 0.01, 0, 1, axis=1).astype(np.float32) for rows_ND in (train_MD, test_ND)]
    named_NK = linear_probe(narrow[0], label_M, narrow[1], most=1)
    assert (named_NK[:, 0] == label_N).mean() >= 0.98


def test_shuffled_labels_teach_nothing() -> None:
    train_MD, label_M = clouds(300, seed=0)
    test_ND, label_N = clouds(300, seed=1)
    shuffled_M = np.random.default_rng(2).permutation(label_M)
    named_NK = linear_probe(train_MD, shuffled_M, test_ND, most=1)
    assert (named_NK[:, 0] == label_N).mean() < 0.6


def test_the_second_guess_is_the_nearer_of_the_others() -> None:
    train_MD, label_M = clouds(300, seed=0)
    near_second = np.array([[np.cos(0.6), np.sin(0.6)]], np.float32)  # at 34 degrees: 0, then 120, then 240
    assert linear_probe(train_MD, label_M, near_second, most=5).tolist() == [[2, 5, 7]]


def test_the_same_seed_names_the_same() -> None:
    train_MD, label_M = clouds(60, seed=3)
    test_ND, _ = clouds(200, seed=4)
    first, second = (linear_probe(train_MD, label_M, test_ND, most=3, seed=9) for _ in range(2))
    assert (first == second).all()


@pytest.mark.parametrize("rows", [2, 3])
def test_very_few_rows_are_enough_to_try(rows: int) -> None:
    train_MD = np.array([[1, 0], [0, 1], [1, 0]], np.float32)[:rows]
    named = linear_probe(train_MD, np.array([0, 1, 0])[:rows], np.array([[1, 0]], np.float32), most=1)
    assert named.tolist() == [[0]]


def test_one_class_alone_is_refused() -> None:
    with pytest.raises(DataError, match="wanted two or more, found 1"):
        linear_probe(np.ones((4, 2), np.float32), np.zeros(4, np.int64), np.ones((1, 2), np.float32), most=1)
