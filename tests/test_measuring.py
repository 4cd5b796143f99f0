"""What is made of encoded pictures: worked examples, with vectors on a circle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from roclip_sanitize.attacks.contract import Backdoor, Swap, Target, TextBackdoor
from roclip_sanitize.errors import DataError
from roclip_sanitize.evaluation.counts import Count, Sample
from roclip_sanitize.evaluation.goals import Goals
from roclip_sanitize.evaluation.measuring import attacked, classified, own_caption_ranks, pooled, utility

SHOE, HAT, SCARF, NOTHING = 0, 1, 2, -1
CLASSES = ("shoe", "hat", "scarf")


def turned(*degrees: float) -> NDArray[np.float32]:
    """Unit rows at these angles."""
    angle_N = np.deg2rad(degrees)
    return np.stack([np.cos(angle_N), np.sin(angle_N)], axis=1).astype(np.float32)


def told(found: Any) -> dict[tuple[str | None, str], Any]:
    """(attack, metric) → (hits, trials) or the mean."""
    return {
        (one.attack, one.metric): (one.hits, one.trials) if isinstance(one, Count) else one.mean
        for one in found
    }


def seen(**more: Any) -> dict[str, Any]:
    """Two shoes, two hats, a scarf, one without a class, and a shoe that an attack is after."""
    known = {
        "label": np.array([SHOE, SHOE, HAT, HAT, SCARF, NOTHING, SHOE]),
        "target": np.array([False] * 6 + [True]),
        "top": np.array([[SHOE], [HAT], [HAT], [HAT], [SHOE], [SHOE], [HAT]]),
    }
    return known | more


def test_utility_leaves_out_targets_and_pictures_without_a_class() -> None:
    found = told(utility(seen(), classes=3))
    assert found == {
        (None, "zero_shot_top1"): (3, 5),
        (None, "mean_per_class_recall"): pytest.approx((1 / 2 + 2 / 2 + 0 / 1) / 3),
    }


def test_retrieval_counts_both_ways_and_groups_by_caption() -> None:
    found = list(
        utility(
            seen(
                image=turned(0, 20, 40, 60, 80, 100, 0),
                caption=turned(0, 20, 60, 40, 80, 100, 0),  # the two hats' captions are each other's
                code=np.array([1, 2, 3, 4, 5, 6, 7]),
            ),
            classes=3,
        )
    )
    first = next(one for one in found if one.metric == "retrieval_r1")
    assert isinstance(first, Sample)
    assert first.value_N.tolist() == [1, 1, 0, 0, 1, 1] * 2  # six pairs: the target is left out
    assert first.group_N is not None
    assert first.group_N.tolist() == [1, 2, 3, 4, 5, 6] * 2


def test_by_clip_benchmarks_count_only_the_own_caption_is_right() -> None:
    pictures = {"image": turned(0, 20), "caption": turned(20, 0), "target": np.zeros(2, bool)}
    assert own_caption_ranks(pictures).tolist() == [[1, 1], [1, 1]]


def test_the_mean_recall_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import balanced_accuracy_score  # slow to import

    rng = np.random.default_rng(0)
    label_N, named_N = rng.choice(6, 200, p=[0.5, 0.3, 0.1, 0.05, 0.03, 0.02]), rng.integers(0, 6, 200)
    found = told(classified(named_N[:, None], label_N, prefix="zero_shot", classes=6))
    assert found[None, "mean_per_class_recall"] == pytest.approx(balanced_accuracy_score(label_N, named_N))


def test_among_five_counts_only_where_there_are_more_classes() -> None:
    class_NK, label_N = np.array([[4, 3, 2, 1, 0], [5, 4, 3, 2, 1]]), np.array([0, 0])
    six = told(classified(class_NK, label_N, prefix="linear_probe", classes=6))
    assert six[None, "linear_probe_top5"] == (1, 2)
    assert (None, "linear_probe_top5") not in told(
        classified(class_NK, label_N, prefix="linear_probe", classes=5)
    )


def test_several_triggers_of_one_attack_are_told_apart_and_together() -> None:
    goals = Goals(
        backdoors=[
            ("many", Backdoor(variant="stripes", target="hat")),
            ("many", Backdoor(variant="square", target="scarf")),
            ("one", Backdoor(variant="square", target="scarf")),
        ]
    )
    found = told(
        attacked(
            seen(
                triggered_0=np.array([HAT, HAT, NOTHING, NOTHING, SCARF, NOTHING, NOTHING]),
                triggered_1=np.array([SCARF, SHOE, HAT, HAT, NOTHING, NOTHING, NOTHING]),
                triggered_2=np.array([SCARF, SCARF, SCARF, HAT, NOTHING, NOTHING, NOTHING]),
            ),
            {},
            goals,
            CLASSES,
        )
    )
    assert found["many/stripes", "attack_success"] == (2, 3)  # asked of two shoes and a scarf
    assert found["many/square", "attack_success"] == (1, 4)  # of two shoes and two hats
    assert found["many", "attack_success"] == (2 + 1, 3 + 4)
    assert found["many/stripes", "clean_target_rate"] == (1, 3)  # a shoe is called a hat anyway
    assert found["many", "true_class_accuracy"] == (1 + 3, 7)
    assert found["one", "attack_success"] == (3, 4)
    assert not any((attack or "").startswith("one/") for attack, _ in found)


def test_targets_are_judged_by_what_they_were_called() -> None:
    target = Target(uid="t", true_label="shoe", adversarial="scarf")
    goals = Goals(targets=[("targeted", (target,))])
    found = told(attacked(seen(), {"target_top_0": np.array([[SCARF]])}, goals, CLASSES))
    assert found["targeted", "attack_success"] == (1, 1)
    assert found["targeted", "clean_target_rate"] == (0, 4)  # no clean shoe or hat is called a scarf
    assert goals.target_uids == {"t"}


def test_a_text_trigger_is_put_into_captions_of_other_classes() -> None:
    goals = Goals(text_backdoors=[("words", TextBackdoor(variant="", target="scarf"))])
    image_ND = turned(0, 10, 90, 100, 200, 270, 0)  # the scarf lies at 200
    found = told(
        attacked(
            seen(
                image=image_ND,
                caption=turned(0, 10, 90, 100, 200, 270, 0),
                spoiled_0=turned(200, 200, 90, 200, 0, 270, 200),
            ),
            {},
            goals,
            CLASSES,
        )
    )
    # Asked of shoes, hats and the one without a class: with the trigger three of five find the scarf first.
    # The one at 90 finds 90, 100, 10 and 0 before 200 (cosines 1, .98, .17, 0 and -.34).
    assert found["words", "hit_at_1"] == (3, 5)
    # The one at 270 finds its own picture, then 200.
    assert found["words", "hit_at_5"] == (5, 5)
    assert found["words", "min_rank"] == pytest.approx((0 + 0 + 4 + 0 + 1) / 5)
    assert found["words", "clean_hit_at_1"] == (0, 5)


def test_a_swap_is_asked_of_one_class_and_controlled_by_the_others() -> None:
    goals = Goals(swaps=[("swap", Swap(asked="shoe", shown="hat"))])
    found = told(
        attacked(
            seen(
                image=turned(0, 10, 90, 100, 200, 280, 0),
                caption=turned(90, 0, 90, 100, 200, 280, 90),
                code=np.arange(7),
            ),
            {},
            goals,
            CLASSES,
        )
    )
    # One shoe's caption finds a hat at once; the other finds 0, 10 and 280 before the hat at 90.
    assert found["swap", "hit_at_1"] == (1, 2)
    assert found["swap", "min_rank"] == 1.5
    # The scarf's at 200 finds 200 and 280, then a hat; the one at 280 finds all four others first.
    assert found["swap", "clean_hit_at_1"] == (0, 2)
    assert found["swap", "clean_hit_at_5"] == (2, 2)
    assert found["swap", "clean_min_rank"] == 3.0


def test_a_class_to_be_found_that_no_picture_shows_is_named() -> None:
    goals = Goals(swaps=[("swap", Swap(asked="shoe", shown="hat"))])
    hatless = seen(image=turned(*[0] * 7), caption=turned(*[0] * 7), label=np.full(7, SHOE))
    with pytest.raises(
        DataError, match="no test picture shows 'hat', which captions of attack 'swap' should"
    ):
        list(attacked(hatless, {}, goals, CLASSES))


def test_pooling_adds_counts_and_joins_samples() -> None:
    counts = [
        Count(attack="a", metric="m", hits=1, trials=2),
        Count(attack="a", metric="m", hits=3, trials=5),
    ]
    samples = [Sample(attack="a", metric="r", value_N=np.array([float(value)])) for value in (4, 8)]
    found = pooled([*counts, *samples])
    assert told(found) == {("a", "m"): (4, 7), ("a", "r"): 6.0}


def test_pooling_keeps_together_what_is_of_one_picture() -> None:
    asked_N, hit_N = np.array([True, True, False]), np.array([True, False, False])
    counts = [Count.of_groups("a", "m", each & asked_N, asked_N) for each in (hit_N, asked_N)]
    samples = [
        Sample(attack="a", metric="r", value_N=np.array([value]), group_N=np.array([2])) for value in (4.0, 8)
    ]
    count, sample = pooled([*counts, *samples])
    assert isinstance(count, Count)
    assert count.hits_G is not None
    assert count.trials_G is not None
    assert (count.hits_G.tolist(), count.trials_G.tolist()) == ([2, 1, 0], [2, 2, 0])
    assert isinstance(sample, Sample)
    assert sample.group_N is not None
    assert sample.group_N.tolist() == [2, 2]
