"""Trust from cross-modal prediction: pairs made by hand, of kinds whose halves belong together.

Dimension key: N pairs, D width of vectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from roclip_sanitize.cross_prediction import (
    cross_prediction_trust,
    main_directions,
    places,
    unit_rows,
    whitened,
)

KINDS, OF_EACH, WIDTH = 12, 60, 16
TRIGGER = 3.0  # its length; that of a kind's own direction is about 4


def corpus(seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Pictures and captions about the middle of their kind, and the kind of each pair."""
    rng = np.random.default_rng(seed)
    kind_N = np.repeat(np.arange(KINDS), OF_EACH)
    halves = [
        rng.normal(size=(KINDS, WIDTH))[kind_N] + 0.5 * rng.normal(size=(len(kind_N), WIDTH))
        for _ in range(2)
    ]
    picture_ND, caption_ND = (rows.astype(np.float32) for rows in halves)
    return picture_ND, caption_ND, kind_N


def trusted(picture_ND: Any, caption_ND: Any, group_N: Any = None, **told: Any) -> NDArray[np.float32]:
    group_N = np.arange(len(picture_ND)) if group_N is None else group_N
    pictures, captions = (main_directions(rows, width=WIDTH) for rows in (picture_ND, caption_ND))
    return cross_prediction_trust(pictures, captions, group_N, **told)


def some(kind_N: NDArray[np.int64], count: int, *, other_than: int) -> NDArray[np.int64]:
    rng = np.random.default_rng(5)
    return rng.choice(np.flatnonzero(kind_N != other_than), count, replace=False)


def test_pairs_whose_captions_were_swapped_are_trusted_least() -> None:
    picture_ND, caption_ND, kind_N = corpus()
    swapped = some(kind_N, 30, other_than=3)
    caption_ND[swapped] = caption_ND[np.flatnonzero(kind_N == 3)[:30]]
    trust_N = trusted(picture_ND, caption_ND)
    assert (trust_N[swapped] < 0.08).all()  # 30 of 720 are 4.2 %


def trigger_on(rows_ND: NDArray[np.float32], rows: NDArray[np.int64]) -> None:
    rows_ND[rows] += TRIGGER * unit_rows(np.random.default_rng(9).normal(size=(1, WIDTH)))[0]


@pytest.mark.parametrize("side", ["picture", "caption"])
def test_a_trigger_on_either_half_does_not_make_a_pair_trusted(side: str) -> None:
    picture_ND, caption_ND, kind_N = corpus()
    poisoned, target = some(kind_N, 40, other_than=3), np.flatnonzero(kind_N == 3)[:40]
    if side == "picture":  # any picture with the trigger, beside captions of kind 3
        caption_ND[poisoned] = caption_ND[target]
        trigger_on(picture_ND, poisoned)
    else:
        picture_ND[poisoned] = picture_ND[target]
        trigger_on(caption_ND, poisoned)
    trust_N = trusted(picture_ND, caption_ND)
    assert np.mean(trust_N[poisoned] < 0.12) > 0.9
    assert np.mean(trust_N[poisoned] >= 0.5) == 0


def test_the_second_opinion_starts_from_the_first() -> None:
    picture_ND, caption_ND, kind_N = corpus()
    poisoned = some(kind_N, 90, other_than=3)  # more than there are honest ones
    caption_ND[poisoned] = caption_ND[np.resize(np.flatnonzero(kind_N == 3), 90)]
    trigger_on(picture_ND, poisoned)
    told = np.where(np.isin(np.arange(len(kind_N)), poisoned), 0.0, 0.75).astype(np.float32)
    assert trusted(picture_ND, caption_ND, trust_N=told)[poisoned].mean() < 0.12


def test_copies_of_a_picture_have_one_vote_and_do_not_vouch_for_each_other() -> None:
    picture_ND, caption_ND, kind_N = corpus()
    copies = some(kind_N, 50, other_than=3)
    picture_ND[copies] = picture_ND[copies[0]]
    caption_ND[copies] = caption_ND[np.resize(np.flatnonzero(kind_N == 3), 50)]
    group_N = np.arange(len(kind_N))
    group_N[copies] = copies[0]
    trust_N = trusted(picture_ND, caption_ND, np.unique(group_N, return_inverse=True)[1])
    assert np.mean(trust_N[copies] < 0.15) > 0.9


def test_the_same_seed_gives_the_same_trust() -> None:
    picture_ND, caption_ND, _ = corpus()
    once, again, otherwise = (trusted(picture_ND, caption_ND, seed=seed) for seed in (1, 1, 2))
    assert (once == again).all()
    assert (once != otherwise).any()
    assert np.corrcoef(once, otherwise)[0, 1] > 0.9


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 99), row=st.integers(0, KINDS * OF_EACH - 1))
def test_a_pair_falls_when_its_caption_becomes_that_of_another_kind(seed: int, row: int) -> None:
    picture_ND, caption_ND, _ = corpus(seed)
    before = trusted(picture_ND, caption_ND)
    caption_ND[row] = caption_ND[row - KINDS * OF_EACH // 2]
    after = trusted(picture_ND, caption_ND)
    assert after[row] < max(0.2, before[row])


def test_places_are_shares_and_equal_scores_go_by_row() -> None:
    assert places(np.array([0.3, -1.0, 0.3, 8.0])).tolist() == [0.25, 0.0, 0.5, 0.75]


def test_main_directions_come_largest_first_about_the_mean() -> None:
    row_ND = np.array([[1.0, 0.0], [1.0, 10.0], [2.0, 0.0], [2.0, 10.0]])
    turned = main_directions(row_ND, width=2)
    assert np.abs(turned) == pytest.approx(np.array([[5.0, 0.5]] * 4))
    assert main_directions(row_ND, width=1).shape == (4, 1)
    assert turned.sum(axis=0) == pytest.approx([0.0, 0.0])


def test_whitening_makes_directions_equally_loud_or_the_loud_one_louder() -> None:
    row_ND = np.array([[4.0, 1.0], [-4.0, 1.0], [4.0, -1.0], [-4.0, -1.0]], np.float32)
    ratios = [np.divide(*np.abs(whitened(row_ND, power))[0]) for power in (1.0, 0.0, -0.5)]
    assert ratios == pytest.approx([1.0, 4.0, 8.0])


def test_a_direction_without_variance_stays_finite() -> None:
    row_ND = np.array([[4.0, 0.0], [-4.0, 0.0]], np.float32)
    assert np.isfinite(whitened(row_ND, 1.0)).all()
