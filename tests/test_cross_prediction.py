"""Cross prediction in memory: worked by hand, swapped captions, and a trigger."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from roclip_sanitize.cross_prediction import (
    Vectors,
    cross_prediction_trust,
    fits,
    places,
    ridge,
    scales,
    trust_of,
    unit_rows,
    weights,
    whitened,
)

CLASSES, PAIRS = 6, 600


def world(seed: int = 0) -> tuple[Vectors, Vectors, NDArray[np.int64]]:
    """Pictures and captions of a few classes, about their means, and each pair's class."""
    rng = np.random.default_rng(seed)
    kind_N = np.arange(PAIRS) % CLASSES
    halves = (
        rng.normal(size=(CLASSES, width))[kind_N] + 0.5 * rng.normal(size=(PAIRS, width))
        for width in (24, 20)
    )
    image_ND, caption_NE = ((half - half.mean(axis=0)).astype(np.float32) for half in halves)
    return image_ND, caption_NE, kind_N


class TestByHand:
    def test_ridge_of_one_pair(self) -> None:
        # One caption (1, 0) with the picture (2, 4): half of it is learnt, ridge being one pair more.
        learnt_ED = ridge(np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([[2.0, 4.0], [0.0, 0.0]]))
        np.testing.assert_allclose(learnt_ED, [[1.0, 2.0], [0.0, 0.0]])

    def test_the_prediction_that_lies_nearer_fits_better(self) -> None:
        # (1, 0), (0, 1) and (3, 0) lie 0, 2 and 4 from (1, 0), squared; fits are 1/2 less half of that.
        told_MD = np.array([[1, 0]], np.float32)
        own_M, other_MR = fits(told_MD, told_MD, np.array([[1, 0], [0, 1], [3, 0]], np.float32))
        np.testing.assert_allclose(own_M, [0.5])
        np.testing.assert_allclose(other_MR, [[0.5, -0.5, -1.5]])

    def test_places(self) -> None:
        np.testing.assert_allclose(places(np.array([5.0, 1.0, 3.0, 3.0])), [0.75, 0, 0.25, 0.5])

    def test_trust_is_the_lower_place(self) -> None:
        trust_N = trust_of(np.array([0.1, 0.2, 0.3]), np.array([9.0, 8.0, 7.0]))
        np.testing.assert_allclose(trust_N, places(np.array([0, 1 / 3, 0])))

    def test_the_worst_have_no_weight(self) -> None:
        trust_N, vote_N = np.array([0, 0.25, 0.5, 0.75], np.float32), np.array([1, 0.5, 0.5, 1])
        np.testing.assert_allclose(weights(trust_N, vote_N, left_out=0.5), [0, 0, 0.5, 1])

    def test_whitening(self) -> None:
        np.testing.assert_allclose(scales(np.array([4.0, 1.0, 0.0]), 0.5), [2, 1, 0.0015429], rtol=1e-4)
        row_ND = np.array([[4, 1], [-4, -1], [4, -1], [-4, 1]], np.float32)
        np.testing.assert_allclose(whitened(row_ND, 1.0), unit_rows(np.sign(row_ND)), atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_pairs_with_swapped_captions_fall(seed: int) -> None:
    image_ND, caption_NE, kind_N = world(seed)
    swapped = np.flatnonzero(kind_N == 0)[:20]
    others = np.flatnonzero(kind_N == 3)[:20]
    caption_NE[[*swapped, *others]] = caption_NE[[*others, *swapped]]
    trust_N = cross_prediction_trust(image_ND, caption_NE, np.arange(PAIRS), seed=seed)
    fallen = np.isin(np.arange(PAIRS), [*swapped, *others])
    assert np.median(trust_N[fallen]) < 0.1 < np.quantile(trust_N[~fallen], 0.1)


def test_a_trigger_that_bends_the_prediction_of_captions_bends_no_trust() -> None:
    """Thirty pictures of all classes, all moved the same way, with captions of one class."""
    image_ND, caption_NE, kind_N = world()
    target = np.flatnonzero(kind_N == 0)
    poison = np.flatnonzero(kind_N != 0)[:30]
    image_ND[poison] += 3 * np.eye(24, dtype=np.float32)[0]
    caption_NE[poison] = caption_NE[target[:30]]
    learnt_DE = ridge(image_ND.T @ image_ND, image_ND.T @ caption_NE)
    toward_N = image_ND @ learnt_DE @ caption_NE[target].mean(axis=0)
    others = np.setdiff1d(np.arange(PAIRS), [*target, *poison])
    assert np.median(toward_N[poison]) > np.quantile(toward_N[others], 0.95), "else there is no trigger"
    trust_N = cross_prediction_trust(image_ND, caption_NE, np.arange(PAIRS))
    assert (trust_N[poison] < 0.1).mean() > 0.9


def test_copies_of_a_picture_have_one_vote_and_one_fold() -> None:
    """Forty pairs with one picture cannot teach that their captions belong to it."""
    image_ND, caption_NE, _ = world()
    rng = np.random.default_rng(1)
    copies = rng.choice(PAIRS, 40, replace=False)
    picture_N = np.arange(PAIRS)
    image_ND[copies], picture_N[copies] = image_ND[copies[0]], copies[0]
    picture_N = np.unique(picture_N, return_inverse=True)[1]
    trust_N = cross_prediction_trust(image_ND, caption_NE, picture_N)
    apart_N = cross_prediction_trust(image_ND, caption_NE, np.arange(PAIRS))
    assert np.median(trust_N[copies]) < 0.1, np.median(apart_N[copies])
