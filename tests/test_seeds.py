"""Several trainings brought together, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from roclip_sanitize.errors import MismatchError
from roclip_sanitize.evaluation.counts import Count
from roclip_sanitize.evaluation.intervals import wilson
from roclip_sanitize.evaluation.results import Result
from roclip_sanitize.evaluation.seeds import merge, merge_all

PATCH: dict[str, Any] = {"attack": "patch", "metric": "attack_success"}


def share(hits: int, trials: int, *, seed: int, **told: Any) -> Result:
    return Result.of_share(hits, trials, arm=f"clip_{seed}", seed=seed, **{**PATCH, **told})


def test_three_trainings_by_hand() -> None:
    found = merge([share(9, 10, seed=0), share(6, 10, seed=1), share(12, 20, seed=2)])
    assert (found.attack, found.metric, found.trainings) == ("patch", "attack_success", 3)
    assert found.mean == pytest.approx(0.7)  # (0.9 + 0.6 + 0.6) / 3: each training weighs the same
    assert found.spread == pytest.approx(0.03**0.5)  # ((0.2² + 0.1² + 0.1²) / 2)
    assert (found.lowest, found.highest) == (0.6, 0.9)
    assert (found.hits, found.n) == (27, 40)
    assert (found.low, found.high) == wilson(27, 40)


def test_one_training_has_no_spread() -> None:
    found = merge([share(1, 4, seed=0)])
    assert (found.mean, found.spread, found.hits, found.n) == (0.25, None, 1, 4)


def test_what_is_no_share_has_no_pooled_count() -> None:
    ranks = [
        Result(arm="a", attack="swap", metric="min_rank", value=v, low=v - 1, high=v + 2, n=50, seed=s)
        for s, v in enumerate((4.0, 10.0))
    ]
    found = merge(ranks)
    assert (found.mean, found.hits, found.n) == (7.0, None, 100)
    assert (found.low, found.high) == (3.0, 12.0)


def test_trials_in_groups_are_not_pooled_as_if_each_stood_by_itself() -> None:
    """Ten pictures, asked twelve times each, are ten opinions and not 120."""
    trials_G = np.full(10, 12)
    told = [
        Result.of(Count.of_groups("patch", "clean_target_rate", hits_G, trials_G), arm="a", seed=seed)
        for seed, hits_G in enumerate((np.repeat([12, 0], 5), np.repeat([12, 0], [6, 4])))
    ]
    found = merge(told)
    assert (found.hits, found.n) == (132, 240)
    assert (found.low, found.high) == (told[0].low, told[1].high)
    assert found.high - found.low > 2 * (wilson(132, 240)[1] - wilson(132, 240)[0])
    assert (merge(told[:1]).low, merge(told[:1]).high) == (told[0].low, told[0].high)


def test_a_record_read_back_is_still_of_its_count() -> None:
    written = [Result(**share(1, 3, seed=seed).to_json()) for seed in (0, 1)]
    assert (merge(written).low, merge(written).high) == wilson(2, 6)


def test_metrics_are_not_mixed() -> None:
    with pytest.raises(
        MismatchError, match="cannot merge attack_success of patch, zero_shot_top1 of no attack"
    ):
        merge([share(1, 2, seed=0), share(1, 2, seed=0, attack=None, metric="zero_shot_top1")])
    with pytest.raises(MismatchError, match="cannot merge nothing"):
        merge([])


def test_all_metrics_of_an_arm_keep_their_order() -> None:
    utility: dict[str, Any] = {"attack": None, "metric": "zero_shot_top1"}
    results = [share(5, 10, seed=s, **told) for s in (0, 1) for told in (utility, PATCH)]
    assert [(one.metric, one.trainings) for one in merge_all(results)] == [
        ("zero_shot_top1", 2),
        ("attack_success", 2),
    ]
