"""What attacks achieved: small examples counted by hand."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from roclip_sanitize.attacks.contract import Target
from roclip_sanitize.evaluation.attack_success import targeted_success, trigger_success
from roclip_sanitize.evaluation.counts import Count

CLASSES = ("shoe", "hat", "scarf")
SHOE, HAT, SCARF = range(3)


def counted(counts: Iterable[Count]) -> dict[str, tuple[int, int]]:
    """Metric → hits and trials."""
    return {count.metric: (count.hits, count.trials) for count in counts}


def test_a_trigger_is_judged_on_pictures_of_other_classes() -> None:
    found = trigger_success(
        "patch",
        target=HAT,
        #                    shoe, shoe, hat,  scarf, scarf
        label_N=np.array([SHOE, SHOE, HAT, SCARF, SCARF]),
        triggered_class_N=np.array([HAT, SHOE, HAT, HAT, SHOE]),
        clean_class_N=np.array([SHOE, SHOE, HAT, HAT, SCARF]),
    )
    assert counted(found) == {
        "attack_success": (2, 4),  # one shoe and one scarf; the hat is one anyway
        "true_class_accuracy": (1, 4),
        "clean_target_rate": (1, 4),  # a scarf that was called a hat without any trigger
    }


def test_a_trigger_without_a_picture_of_another_class_has_no_trial() -> None:
    hats = np.array([HAT, HAT])
    found = trigger_success("patch", target=HAT, label_N=hats, triggered_class_N=hats, clean_class_N=hats)
    assert set(counted(found).values()) == {(0, 0)}


def test_targets_are_judged_each_by_its_own_class() -> None:
    found = targeted_success(
        "targeted",
        targets=[
            Target(uid="1", true_label="shoe", adversarial="hat"),
            Target(uid="2", true_label="shoe", adversarial="scarf"),
            Target(uid="3", true_label="hat", adversarial="scarf"),
        ],
        target_class_TK=np.array([[HAT], [SHOE], [HAT]]),
        label_N=np.array([SHOE, HAT, SCARF, SHOE]),
        clean_class_NK=np.array([[HAT], [HAT], [SCARF], [SCARF]]),
        classes=CLASSES,
    )
    assert counted(found) == {
        "attack_success": (1, 3),  # the first
        "true_class_accuracy": (2, 3),  # the other two
        # As hat: shoe, scarf and shoe, of which one is called so. As scarf, twice: shoe, hat and
        # shoe, of which one is called so.
        "clean_target_rate": (1 + 1 + 1, 3 + 3 + 3),
    }


def test_a_target_may_be_reached_among_the_best_three_or_five() -> None:
    classes = ("a", "b", "c", "d", "e", "f")
    found = targeted_success(
        "targeted",
        targets=[
            Target(uid="1", true_label="a", adversarial="f"),
            Target(uid="2", true_label="b", adversarial="e"),
            Target(uid="3", true_label="c", adversarial="d"),
        ],
        target_class_TK=np.array(
            [
                [5, 0, 1, 2, 3],  # f is first
                [1, 2, 4, 0, 3],  # e is third
                [2, 1, 0, 4, 3],  # d is fifth
            ]
        ),
        label_N=np.array([0, 5]),
        clean_class_NK=np.array(
            [
                [0, 1, 2, 3, 4],  # d and e within five, none within three
                [5, 4, 0, 1, 2],  # e within three; shows f itself, so that f does not count
            ]
        ),
        classes=classes,
    )
    assert counted(found) == {
        "attack_success": (1, 3),
        "attack_success_top3": (2, 3),
        "attack_success_top5": (3, 3),
        "true_class_accuracy": (2, 3),
        # f is asked of the first picture only; e and d of both
        "clean_target_rate": (0, 1 + 2 + 2),
        "clean_target_rate_top3": (1, 5),
        "clean_target_rate_top5": (3, 5),
    }


def test_a_cut_off_that_takes_in_every_class_is_left_out() -> None:
    found = targeted_success(
        "targeted",
        targets=[Target(uid="1", true_label="shoe", adversarial="hat")],
        target_class_TK=np.array([[HAT, SHOE, SCARF]]),
        label_N=np.array([SHOE]),
        clean_class_NK=np.array([[SHOE, HAT, SCARF]]),
        classes=CLASSES,
    )
    assert set(counted(found)) == {"attack_success", "clean_target_rate", "true_class_accuracy"}


def test_counts_carry_the_name_of_the_attack() -> None:
    one = np.array([SHOE])
    found = list(trigger_success("patch", target=HAT, label_N=one, triggered_class_N=one, clean_class_N=one))
    assert {count.attack for count in found} == {"patch"}
