"""Wilson's interval, against scipy's; bootstrapped ones, against what is known of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from roclip_sanitize.evaluation.counts import Count, Sample
from roclip_sanitize.evaluation.intervals import bootstrap_mean, class_mean, grouped_share, wilson
from roclip_sanitize.evaluation.results import Result


@given(trials=st.integers(1, 3_000), data=st.data())
def test_the_interval_is_that_of_scipy(trials: int, data: st.DataObject) -> None:
    from scipy.stats import binomtest  # slow to import

    hits = data.draw(st.integers(0, trials))
    wanted = binomtest(hits, trials).proportion_ci(confidence_level=0.95, method="wilson")
    assert wilson(hits, trials) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [
        pytest.param(0, 16, 0.0, 0.1936, id="none of 16 may still be a fifth"),
        pytest.param(16, 16, 0.8064, 1.0, id="all of 16 may still be four fifths"),
        pytest.param(8, 16, 0.28, 0.72, id="half of 16"),
    ],
)
def test_sixteen_targets(hits: int, trials: int, low: float, high: float) -> None:
    assert wilson(hits, trials) == pytest.approx((low, high), abs=5e-5)


def test_no_trial_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@given(trials=st.integers(1, 1_000), data=st.data())
def test_the_share_lies_within_its_interval(trials: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, trials))
    low, high = wilson(hits, trials)
    assert 0 <= low <= hits / trials <= high <= 1


def test_the_bootstrap_of_many_numbers_is_that_of_the_normal_law() -> None:
    value_N = np.random.default_rng(0).normal(3, 2, 2_000)
    half = 1.96 * value_N.std() / np.sqrt(2_000)
    low, high = bootstrap_mean(value_N, seed=1)
    assert (low, high) == pytest.approx((value_N.mean() - half, value_N.mean() + half), abs=0.15 * half)


def test_the_same_seed_gives_the_same_interval() -> None:
    value_N = np.arange(20.0)
    assert bootstrap_mean(value_N, seed=3) == bootstrap_mean(value_N, seed=3)
    assert bootstrap_mean(value_N, seed=3) != bootstrap_mean(value_N, seed=4)


def test_copies_in_one_group_are_no_further_evidence() -> None:
    value_N = np.random.default_rng(5).normal(0, 1, 200)
    alone = bootstrap_mean(value_N, np.arange(200), seed=0)
    copied = bootstrap_mean(np.tile(value_N, 9), np.tile(np.arange(200), 9), seed=0)
    believed = bootstrap_mean(np.tile(value_N, 9), seed=0)
    assert copied == pytest.approx(alone)
    assert believed[1] - believed[0] < 0.5 * (copied[1] - copied[0])


def test_a_group_weighs_as_much_as_it_has() -> None:
    value_N, group_N = np.array([1.0, 1, 1, 0]), np.array([7, 7, 7, 2])
    low, high = bootstrap_mean(value_N, group_N, seed=0)
    assert (low, high) == (0.0, 1.0)  # one group or the other drawn twice
    assert Result.of(
        Sample(attack=None, metric="m", value_N=value_N, group_N=group_N), arm="a", seed=0
    ).value == pytest.approx(0.75)


@pytest.mark.parametrize("values", [[], [4.0], [4.0, 4.0, 4.0]])
def test_without_spread_there_is_no_interval(values: list[float]) -> None:
    mean = values[0] if values else 0.0
    assert bootstrap_mean(np.array(values)) == (mean, mean)


@pytest.mark.parametrize(("hit", "wanted"), [(False, wilson(0, 2)), (True, wilson(2, 2))])
def test_none_or_all_of_the_groups_hit_is_no_certainty(hit: bool, wanted: tuple[float, float]) -> None:
    assert grouped_share(np.full(6, hit), np.array([0, 0, 0, 1, 1, 1])) == wanted


@pytest.mark.parametrize("hit", [False, True])
def test_a_perfect_mean_of_classes_is_no_certainty_and_no_more_than_one(hit: bool) -> None:
    class_N = np.repeat([0, 1, 2], [100, 10, 1])
    low, high = class_mean(np.full(111, hit), class_N)
    assert (low, high) == wilson(hit * 9 / 1.11, 9 / 1.11)  # nine ninths, which spread as 1/100, 1/10 and 1/1
    assert 0 <= low < high <= 1


def test_classes_of_one_size_and_share_are_one_share() -> None:
    hit_N, class_N = np.tile([True, True, True, False], 50), np.repeat(np.arange(10), 20)
    assert class_mean(hit_N, class_N) == pytest.approx(wilson(150, 200))


@pytest.mark.parametrize(
    ("sizes", "shares"),
    [
        pytest.param([20] * 30, np.linspace(0.6, 1, 30), id="as large each"),
        pytest.param([200, 90, 40, 18, 8, 4, 2, 2], np.linspace(0.95, 0.4, 8), id="a long tail"),
        pytest.param([1] * 50, np.linspace(0.1, 0.9, 50), id="a picture of each"),
    ],
)
def test_the_mean_of_classes_lies_in_its_interval_as_often_as_promised(
    sizes: list[int], shares: NDArray[np.float64]
) -> None:
    rng, class_N = np.random.default_rng(0), np.repeat(np.arange(len(sizes)), sizes)
    found = [class_mean(rng.random(len(class_N)) < shares[class_N], class_N) for _ in range(400)]
    covered = sum(low <= shares.mean() <= high for low, high in found) / 400
    assert 0.90 <= covered <= 0.99


def test_what_was_counted_gets_its_interval() -> None:
    share = Result.of(Count(attack="patch", metric="attack_success", hits=1, trials=4), arm="a", seed=2)
    assert (share.value, share.n, share.low, share.high) == (0.25, 4, *wilson(1, 4))
    ranks = Sample(attack="swap", metric="min_rank", value_N=np.array([0.0, 10.0, 2.0]))
    rank = Result.of(ranks, arm="a", seed=2)
    assert (rank.value, rank.n) == (4.0, 3)
    assert 0 <= rank.low < 4 < rank.high <= 10


def test_ranks_in_groups_are_no_share_even_if_all_are_first_or_second() -> None:
    told = {"value_N": np.zeros(4), "group_N": np.array([0, 0, 1, 1])}
    rank = Result.of(Sample(attack="swap", metric="min_rank", **told), arm="a", seed=2)
    assert (rank.low, rank.high) == (0.0, 0.0)


def test_a_mean_of_classes_stays_within_a_share() -> None:
    told: dict[str, Any] = {"attack": None, "metric": "mean_per_class_recall"}
    sample = Sample(value_N=np.array([1.0, 1, 1, 0]), class_N=np.array([5, 5, 5, 3]), **told)
    result = Result.of(sample, arm="a", seed=0)
    assert (result.value, result.n) == (0.5, 4)
    assert 0 <= result.low < 0.5 < result.high <= 1
    nothing = Sample(value_N=np.zeros(0), class_N=np.zeros(0, np.int64), **told)
    assert (nothing.mean, Result.of(nothing, arm="a", seed=0).high) == (0.0, 1.0)
