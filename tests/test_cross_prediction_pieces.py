"""What cross prediction is made of, worked by hand."""

from __future__ import annotations

import numpy as np

from roclip_sanitize.cross_prediction import (
    fits,
    places,
    ridge,
    scales,
    share_worse,
    share_worse_ties_half,
    trust_of,
    weights,
)


def test_ridge_of_one_pair() -> None:
    # One caption (1, 0) with the picture (2, 4): half of it is learnt, ridge being one pair more.
    learnt_ED = ridge(np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([[2.0, 4.0], [0.0, 0.0]]))
    np.testing.assert_allclose(learnt_ED, [[1.0, 2.0], [0.0, 0.0]])


def test_the_prediction_that_lies_nearer_fits_better() -> None:
    # (1, 0), (0, 1) and (3, 0) lie 0, 2 and 4 from (1, 0), squared; fits are 1/2 less half of that.
    told_MD = np.array([[1, 0]], np.float32)
    own_M, other_MR = fits(told_MD, told_MD, np.array([[1, 0], [0, 1], [3, 0]], np.float32))
    np.testing.assert_allclose(own_M, [0.5])
    np.testing.assert_allclose(other_MR, [[0.5, -0.5, -1.5]])


def test_trust_is_the_lower_place() -> None:
    trust_N = trust_of(np.array([0.1, 0.2, 0.3]), np.array([9.0, 8.0, 7.0]))
    np.testing.assert_allclose(trust_N, places(np.array([0, 1 / 3, 0])))


def test_the_worst_have_no_weight() -> None:
    trust_N, vote_N = np.array([0, 0.25, 0.5, 0.75], np.float32), np.array([1, 0.5, 0.5, 1])
    np.testing.assert_allclose(weights(trust_N, vote_N, left_out=0.5), [0, 0, 0.5, 1])


def test_scales_of_whitening() -> None:
    np.testing.assert_allclose(scales(np.array([4.0, 1.0, 0.0]), 0.5), [2, 1, 0.0015429], rtol=1e-4)


def test_equal_fits_count_half_or_not_at_all() -> None:
    own_M = np.array([2.0, 2.0], np.float32)
    other_MR = np.array([[1, 2, 3, 4], [0, 1, 2, 2]], np.float32)
    np.testing.assert_allclose(share_worse_ties_half(own_M, other_MR), [0.375, 0.75])
    np.testing.assert_allclose(share_worse(own_M, other_MR), [0.25, 0.5])
